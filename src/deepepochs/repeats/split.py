"""Splits a mini-batch that does not fit into memory, and repeats its step on the parts.

The gradients are those of the whole: the loss of each part weighs its share of the samples, and
the optimizer steps once, after the last part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .. import rng
from ..errors import ConfigError, add_note, warn_user
from ..faults.backward import is_out_of_memory
from ..nest.samples import asked_weight
from ..optim.optimizers import Optimizer
from ..run import Run


def check_split(trainer: Any) -> None:
    """Raise ``ConfigError`` if a trainer cannot repeat steps."""
    if trainer.runtime.num_processes > 1:
        raise ConfigError(
            "on_oom='split' works in one process: others would wait for the gradients of the whole "
            "mini-batch. Give a smaller batch size and grad_accumulate."
        )
    kind = next((optimizer.kind for optimizer in trainer.opt if optimizer.needs_closure), None)
    if kind is not None:
        raise ConfigError(
            f"on_oom='split' does not work with {kind}, an optimizer that needs a closure: cut the "
            "mini-batch into parts in a closure of your own."
        )


class SplitStep:
    """A training step that is repeated on parts of its mini-batch where memory runs out."""

    def __init__(self, run: Run, step: Callable[..., Any]) -> None:
        self.run = run
        self.step = step
        self._weights = list({id(w): w for w in run.opt.params}.values())
        model = run.trainer.runtime.unwrap(run.trainer.model)
        self._buffers = list(model.buffers())
        self._values: list[Tensor] = []
        self._random: dict[str, Any] = {}
        self._gradients: list[Tensor | None] = []
        self._versions: list[int] = []

    def __call__(self, batch_x: Any, batch_y: Any, **step_args: Any) -> Any:
        self._note_start()
        number = self.run.num_samples
        size = number or 1
        while True:
            try:
                if size >= (number or 1):
                    return self.step(batch_x, batch_y, **step_args)
                self._in_parts(size, batch_x, batch_y, step_args)
                return self._tell(number, size)
            except RuntimeError as error:
                if not is_out_of_memory(error) or not self._may_repeat(error, number, size):
                    raise
            # Out of the except block, whose error keeps the tensors of the failed step.
            self._put_back()
            size = (size + 1) // 2

    def _note_start(self) -> None:
        self._random = rng.get_state()
        self._versions = [weight._version for weight in self._weights]
        self._values = [buffer.detach().clone() for buffer in self._buffers]
        # There are some in a window of accumulation alone.
        grads = [weight.grad for weight in self._weights]
        self._gradients = [None if grad is None else grad.clone() for grad in grads]

    def _put_back(self) -> None:
        rng.set_state(self._random)
        with torch.no_grad():
            for buffer, value in zip(self._buffers, self._values, strict=True):
                buffer.copy_(value)
        for weight, gradient in zip(self._weights, self._gradients, strict=True):
            weight.grad = None if gradient is None else gradient.clone()
        self.run.recorder.drop_batch()
        self.run.losses.forget_parts()

    def _have_stepped(self) -> bool:
        return self._versions != [weight._version for weight in self._weights]

    def _may_repeat(self, error: RuntimeError, number: int | None, size: int) -> bool:
        if self._have_stepped():
            add_note(error, "on_oom='split': the step had changed the weights already.")
        elif number is None or not _splits(self.run.batch_x, number):
            add_note(error, "on_oom='split': this mini-batch cannot be split by samples.")
        elif size <= 1:
            add_note(error, "on_oom='split': a single sample does not fit.")
        else:
            return True
        return False

    def _tell(self, number: int | None, size: int) -> None:
        if self.run.trainer.tell_once("split"):
            warn_user(
                f"A mini-batch of {number} samples does not fit into memory: its step was repeated in parts "
                f"of {size}.\nA smaller batch size with grad_accumulate spares the failed tries.",
                RuntimeWarning,
            )

    def _in_parts(self, size: int, batch_x: Any, batch_y: Any, step_args: Any) -> Any:
        """Make the step in parts of ``size`` samples; what it records is that of all."""
        run, number = self.run, int(self.run.num_samples or 0)
        rows = [slice(start, start + size) for start in range(0, number, size)]
        parts = [(_rows_of(batch_x, r, number), _rows_of(batch_y, r, number)) for r in rows]
        asked = run.weigher.batch_size
        if callable(asked):
            weights = [asked_weight(asked, *part) for part in parts]
        else:
            weights = [float(len(range(number)[r])) for r in rows]
        total = sum(weights) or 1.0
        for index, (part, weight) in enumerate(zip(parts, weights, strict=True)):
            held = HeldSteps(run.window, is_last=index + 1 == len(parts))
            num_samples = min(size, number - index * size)
            with run.part(*part, weight / total, num_samples, held):
                returned = self.step(*part, **step_args)
                run.recorder.end_part(returned, run.weight)
            if index + 1 < len(parts) and self._have_stepped():
                raise ConfigError(
                    f"on_oom='split': {run.recorder.step_name} steps without self.optimize(), so it "
                    "cannot be repeated in parts."
                )
        run.recorder.join_parts()


class HeldSteps:
    """A window that holds the optimizer steps of the parts of a mini-batch until the last one."""

    size = 1

    def __init__(self, window: Any, *, is_last: bool) -> None:
        self._window = window
        self._is_last = is_last

    def waits(self, optimizers: Sequence[Optimizer], index: int | None) -> bool:
        """Whether a step waits for further parts, or for the mini-batches of a window."""
        if index is not None:
            raise ConfigError(
                "on_oom='split' is for steps that call self.optimize() once, at their end, for all "
                "optimizers: the parts of this one cannot be put together."
            )
        if not self._is_last:
            return True
        return self._window is not None and bool(self._window.waits(optimizers, index))


def _splits(batch_x: Any, number: int) -> bool:
    """Whether inputs consist of what has rows for each sample."""
    if isinstance(batch_x, Tensor):
        return True
    if isinstance(batch_x, Mapping):
        return all(_splits(value, number) for value in batch_x.values())
    if isinstance(batch_x, (tuple, list)):
        return len(batch_x) == number or all(_splits(value, number) for value in batch_x)
    return isinstance(batch_x, (int, float, str, type(None)))


def _rows_of(value: Any, rows: slice, number: int) -> Any:
    """Take samples out of a mini-batch; what has no row for each sample stays whole."""
    if isinstance(value, Tensor):
        return value[rows] if value.ndim and len(value) == number else value
    if isinstance(value, Mapping):
        return type(value)({key: _rows_of(item, rows, number) for key, item in value.items()})  # type: ignore[call-arg]
    if isinstance(value, list) and len(value) == number:
        return value[rows]
    if isinstance(value, (tuple, list)):
        items = [_rows_of(item, rows, number) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value
