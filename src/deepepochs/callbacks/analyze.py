"""Writes statistics of the layers' outputs and gradients to TensorBoard.

::

    Trainer(model, loss, opt, callbacks=AnalyzeCallback("backward"))
"""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ..arguments import check_choice, check_count
from ..nest.operations import map_tensors
from .event_files import EventFileCallback

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from ..contracts import TrainerView

NUM_BINS = 64


class AnalyzeCallback(EventFileCallback):
    """Writes mean, standard deviation and histogram of every layer without children.

    They are of all values of a training mini-batch: of the layer's output (tags
    ``FORWARD_mean/<n>-<class>``, ``FORWARD_std/…``, ``FORWARD_hist/…``) or of the gradient with
    respect to the output (``BACKWARD_…``), so that TensorBoard shows all layers together. The
    step is the number of the mini-batch, from 1; ``n`` is the index in ``model.modules()``, as in
    ``2-Linear``. The layers have hooks during a fit only. The callback changes no weights,
    metrics or random states.

    Args:
        mode: ``'forward'``, ``'backward'`` (layers with trainable weights only) or ``'both'``.
        log_dir: the folder of the runs.
        every_n_batches: analyze every n-th mini-batch.
        hist_every_n: write histograms of every n-th of these mini-batches; 0: never. A
            histogram costs a copy of the values to the CPU.
    """

    def __init__(
        self,
        mode: str = "backward",
        log_dir: str | os.PathLike[str] = "./logs",
        *,
        every_n_batches: int = 1,
        hist_every_n: int = 50,
    ) -> None:
        super().__init__(log_dir)
        check_choice("mode", mode, ["forward", "backward", "both"])
        self.modes = ("forward", "backward") if mode == "both" else (mode,)
        self.every_n_batches = check_count("every_n_batches", every_n_batches, 1)
        self.hist_every_n = check_count("hist_every_n", hist_every_n)
        self._handles: list[Any] = []
        self._flows: dict[tuple[str, str], Flow] = {}
        self._is_looking = False
        self._with_values = False

    def on_before_fit(self, trainer: TrainerView, epochs: int) -> None:
        super().on_before_fit(trainer, epochs)
        self._release()
        if not trainer.main_process:
            return
        for n, layer in enumerate(trainer.runtime.unwrap(trainer.model).modules()):
            if next(layer.children(), None) is not None:
                continue
            name = f"{n}-{type(layer).__name__}"
            is_trained = any(weight.requires_grad for weight in layer.parameters())
            if "forward" in self.modes or is_trained:
                self._handles.append(layer.register_forward_hook(self._hook(name, is_trained)))

    def on_before_train_batch(self, trainer: TrainerView, **others: Any) -> None:
        count, is_not_due = divmod(trainer.progress.num_train_batches - 1, self.every_n_batches)
        self._is_looking = bool(self._handles) and not is_not_due
        self._with_values = self.hist_every_n > 0 and count % self.hist_every_n == 0
        self._flows = {}

    def on_after_train_batch(self, trainer: TrainerView, metrics: Any, batch_idx: int) -> None:
        if self._is_looking:
            self._is_looking = False
            self._write(self.writer(trainer), trainer.progress.num_train_batches)

    def on_after_fit(self, trainer: TrainerView) -> None:
        self._release()
        super().on_after_fit(trainer)

    def on_exception(self, trainer: TrainerView, exception: BaseException) -> None:
        self._release()
        super().on_exception(trainer, exception)

    def _release(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles, self._flows, self._is_looking = [], {}, False

    def _hook(self, name: str, is_trained: bool) -> Any:
        def look(_layer: nn.Module, _inputs: Any, output: Any) -> None:
            # Gradients are off in calls that do not train, such as LogCallback's trace.
            if not self._is_looking or not torch.is_grad_enabled():
                return
            for tensor in tensors_of(output):
                if "forward" in self.modes:
                    self._see("FORWARD", name, tensor)
                if "backward" in self.modes and is_trained and tensor.requires_grad:
                    tensor.register_hook(partial(self._see, "BACKWARD", name))  # type: ignore[no-untyped-call]

        return look

    def _see(self, direction: str, name: str, values: Tensor) -> None:
        if self._is_looking and values.numel():
            flow = self._flows.setdefault((direction, name), Flow())
            flow.add(values.detach(), with_values=self._with_values)

    def _write(self, writer: SummaryWriter, step: int) -> None:
        flows, self._flows = self._flows, {}
        if not flows:
            return
        # One read for all: on an accelerator each read waits for the device.
        moments = torch.stack([flow.moments() for flow in flows.values()]).tolist()
        for (direction, name), (mean, std) in zip(flows, moments, strict=True):
            writer.add_scalar(f"{direction}_mean/{name}", mean, step)
            writer.add_scalar(f"{direction}_std/{name}", std, step)
        for (direction, name), flow in flows.items():
            if flow.values:
                values = np.concatenate(flow.values)
                add_histogram(writer, f"{direction}_hist/{name}", values, step)


class Flow:
    """Mean and variance of values that are added in parts, on their own device.

    The formula of Chan, Golub and LeVeque (1979) joins the parts without cancellation.
    """

    def __init__(self) -> None:
        self.num = 0
        self.values: list[np.ndarray[Any, Any]] = []
        self._mean: Any = 0.0
        self._squares: Any = 0.0

    def add(self, values: Tensor, *, with_values: bool) -> None:
        """Add a part; keep its values only if they are needed for a histogram."""
        with torch.no_grad():
            wide = values.float()
            variance, mean = torch.var_mean(wide, correction=0)
            num, both = wide.numel(), self.num + wide.numel()
            delta = mean - self._mean
            self._mean = self._mean + delta * (num / both)
            self._squares = self._squares + variance * num + delta * delta * (self.num * num / both)
            self.num = both
            if with_values:
                self.values.append(wide.flatten().cpu().numpy().copy())

    def moments(self) -> Tensor:
        """Mean and sample standard deviation, ``[2]``; a single value has deviation 0."""
        return torch.stack([self._mean, (self._squares / max(1, self.num - 1)).sqrt()])


def tensors_of(output: Any) -> list[Tensor]:
    """Return the floating-point tensors in a layer's output."""
    found: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        if tensor.is_floating_point():
            found.append(tensor)
        return tensor

    map_tensors(note, output)
    return found


def add_histogram(writer: SummaryWriter, tag: str, values: np.ndarray[Any, Any], step: int) -> None:
    """Write a histogram of the finite values."""
    finite = values[np.isfinite(values)].astype(np.float64)
    if not finite.size:
        return
    counts, edges = np.histogram(finite, NUM_BINS)
    writer.add_histogram_raw(
        tag,
        min=float(finite.min()),
        max=float(finite.max()),
        num=finite.size,
        sum=float(finite.sum()),
        sum_squares=float(np.square(finite).sum()),
        bucket_limits=edges[1:].tolist(),
        bucket_counts=counts.tolist(),
        global_step=step,
    )
