"""Writes curves, learning rates, the model's graph and hyper-parameters to TensorBoard.

::

    log = LogCallback(log_graph=True)
    trainer = Trainer(model, loss, opt, callbacks=log, hyper_params={"lr": 0.1})
    trainer.fit(train_dl, val_dl)
    trainer.test(test_dl)           # writes the hyper-parameters with these metrics
    log.run_tensorboard()           # waits; Ctrl-C ends it
"""

from __future__ import annotations

import copy
import os
import threading
import time
import warnings
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from .. import rng
from ..arguments import check_count
from ..errors import ConfigError, warn_user
from ..runtime.base import modes_kept
from ..show.screens import spread
from ..stages import Stage
from .base import is_within
from .event_files import RESULTS_SUFFIX, EventFileCallback, open_writer
from .event_files import run_tensorboard as run_tensorboard
from .run_record import RunRecordCallback

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from ..contracts import TrainerView
    from .event_writer import RunWriter

MAX_CHARTS = 50  # of training and validation together

METRICS_EVERY = 50
"""By default the metrics of one of so many mini-batches are written. Each computes them anew."""

MAX_HELD = 200
"""Entries that are written together, at once."""

MAX_HELD_ON_DEVICE = 32
"""The same if entries hold the outputs of a mini-batch on an accelerator, which take memory."""

MAX_HELD_S = 1.0
"""Fewer entries are written after this many seconds."""

_one_trace = threading.RLock()  # filters of warnings are not each thread's own


class LogCallback(EventFileCallback, RunRecordCallback):
    """Writes metrics to TensorBoard, and the epochs to ``metrics.csv``.

    In ``<log_dir>/<running_id>`` are the scalars ``<metric>/epoch/<stage>`` of each pass of
    training and validation, ``loss/batch/<stage>`` of each mini-batch, and
    ``<metric>/batch/<stage>`` of every 50th mini-batch, with steps from 1 over the whole run.
    ``learning_rate_<i>/epoch/train`` is the rate of optimizer ``i`` before the pass, and
    ``learning_rate_<i>/batch/train`` that before every 50th mini-batch, with steps from 0. If the
    optimizer has several groups, this is the rate of the first one; the others have
    ``learning_rate_<i>_<group>``, with the ``name`` of the group or else its index. Validations by
    ``val_every`` are ``<metric>/step/val``, with the number of optimizer steps. After a test the
    trainer's ``hyper_params`` are written with the test's metrics.

    TensorBoard's tab "Custom scalars" has a chart for each metric with the epochs of training and
    validation together, if each epoch has one pass of both.

    The callback changes no weights, metrics or random states. The loss of a mini-batch costs
    about 0.02 ms, and its metrics their computation, which is why not all are written. Values
    are written in groups, so that training does not wait for an accelerator at each mini-batch.
    A killed process loses the last second.

    Args:
        log_dir: the folder of the runs.
        log_graph: write the model's graph at the first mini-batch.
        example_input: the model's input for the graph: a tensor, a tuple of tensors, or a
            dict; ``None``: the first mini-batch.
        every_n_batches: write loss, metrics and learning rates of every n-th mini-batch of each
            stage; 1: of all. ``None``: the loss of each, the others of every 50th.
    """

    def __init__(
        self,
        log_dir: str | os.PathLike[str] = "./logs",
        log_graph: bool = False,
        example_input: Any = None,
        *,
        every_n_batches: int | None = None,
    ) -> None:
        super().__init__(log_dir)
        self.log_graph = log_graph
        self.example_input = example_input
        if every_n_batches is not None:
            check_count("every_n_batches", every_n_batches, 1)
        self.every_n_batches = every_n_batches
        self._written: set[str] = set()  # of the graph and the charts, what is there already
        self._num_passes = {Stage.TRAIN: 0, Stage.VAL: 0}
        # Mini-batches of a stage before its pass; one of validation may run inside of training.
        self._num_before = {Stage.TRAIN: 0, Stage.VAL: 0}
        self._held: list[tuple[str, int, Mapping[str, Any], float]] = []
        self._logger: SummaryWriter | None = None
        self._results: RunWriter | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_logger": None, "_results": None, "_held": []}

    def on_before_fit(self, trainer: TrainerView, epochs: int) -> None:
        super().on_before_fit(trainer, epochs)
        if self.log_graph and trainer.runtime.is_sharded:
            raise ConfigError(
                "LogCallback(log_graph=True): only the main process traces the graph, and it has "
                "only a part of a sharded model. Leave log_graph out, or write the graph in one "
                "process before the model is sharded."
            )
        if not trainer.main_process:
            return
        self._logger = self.writer(trainer)
        done = {Stage.TRAIN: trainer.history.epochs, Stage.VAL: {*trainer.history.val_epochs}}
        for stage, epochs_done in done.items():
            self._num_passes[stage] = max(self._num_passes[stage], len(epochs_done))

    def on_before_train_epoch(self, trainer: TrainerView, task: Any) -> None:
        # Called again at a resume inside the pass, whose rates are there already.
        done = 0 if trainer.run is None else trainer.run.batch_idx + 1
        self._num_before[Stage.TRAIN] = trainer.progress.num_train_batches - done
        if not done:
            self._log_rates(trainer, "epoch", self._num_passes[Stage.TRAIN])

    def on_before_val_epoch(self, trainer: TrainerView, task: Any) -> None:
        done = 0 if trainer.run is None else trainer.run.batch_idx + 1
        self._num_before[Stage.VAL] = trainer.progress.num_val_batches - done

    def on_before_train_batch(
        self, trainer: TrainerView, batch_x: Any, batch_idx: int, **others: Any
    ) -> None:
        """Log the learning rates, and once the graph."""
        step = self._num_before[Stage.TRAIN] + batch_idx
        if step % (self.every_n_batches or METRICS_EVERY) == 0:
            self._log_rates(trainer, "batch", step)
        if self.log_graph and "graph" not in self._written and self._logger is not None:
            self._written.add("graph")
            example = batch_x if self.example_input is None else self.example_input
            log_graph(self._logger, trainer.runtime.unwrap(trainer.model), example)

    def on_after_train_batch(self, trainer: TrainerView, metrics: Any, batch_idx: int) -> None:
        num_before = self._num_before[Stage.TRAIN] + batch_idx
        self._log_batch(trainer, "batch/train", num_before, metrics)

    def on_after_val_batch(self, trainer: TrainerView, metrics: Any, batch_idx: int) -> None:
        self._log_batch(trainer, "batch/val", self._num_before[Stage.VAL] + batch_idx, metrics)

    def on_after_train_epoch(self, trainer: TrainerView, task: Any, metrics: Any) -> None:
        self._log_pass(Stage.TRAIN, metrics)

    def on_after_val_epoch(self, trainer: TrainerView, task: Any, metrics: Any) -> None:
        if is_within(trainer):  # by val_every
            self._hold("step/val", trainer.progress.num_steps, metrics)
        else:
            self._log_pass(Stage.VAL, metrics)

    def on_after_epoch(self, *, trainer: TrainerView, **others: Any) -> None:
        tasks = [len(others["train_tasks"]), len(others["val_tasks"])]
        # Steps are numbers of passes: with another number of passes they are not those of epochs.
        alike = tasks == [1, 1] and self._num_passes[Stage.TRAIN] == self._num_passes[Stage.VAL]
        if alike and "charts" not in self._written:
            validated = {name for name, _ in spread(others["val_metrics"])}
            trained = (name for name, _ in spread(others["train_metrics"]))
            self._pair([name for name in trained if name in validated])
        super().on_after_epoch(trainer=trainer, **others)

    def on_exception(self, trainer: TrainerView, exception: BaseException) -> None:
        # Reading an accelerator's values may fail again, and hide the error.
        self._held = [entry for entry in self._held if isinstance(entry[2], dict)]
        super().on_exception(trainer, exception)

    def on_after_test_epochs(self, trainer: TrainerView, tasks: Any, metrics: Any) -> None:
        if trainer.main_process and trainer.hyper_params:
            folder = self.folder(trainer)
            if self._results is None or Path(self._results.log_dir) != folder:
                self._results = open_writer(folder, RESULTS_SUFFIX)
            with self._results as writer:
                log_hyper_params(writer, trainer.hyper_params, metrics, trainer.init_epoch)
        super().on_after_test_epochs(trainer, tasks, metrics)

    def flush(self) -> None:
        self._write_held()
        if self._logger is not None:
            self._logger.flush()

    def state_dict(self) -> dict[str, Any]:
        passes = {str(stage): count for stage, count in self._num_passes.items()}
        done = {f"has_{what}": what in self._written for what in ("graph", "charts")}
        return {**super().state_dict(), "num_passes": passes, **done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._held = []
        self._num_passes = {Stage(name): int(n) for name, n in state["num_passes"].items()}
        self._written = {what for what in ("graph", "charts") if state.get(f"has_{what}")}

    def _log_batch(self, trainer: TrainerView, where: str, num_before: int, metrics: Any) -> None:
        if self._logger is None:
            return
        n = self.every_n_batches
        if num_before % (n or METRICS_EVERY) == 0:
            if trainer.device.type == "cpu":
                self._hold(where, num_before + 1, dict(metrics))
            else:
                self._hold(where, num_before + 1, metrics.frozen(), MAX_HELD_ON_DEVICE)
        elif n is None:
            self._hold(where, num_before + 1, metrics.loss_alone())

    def _log_pass(self, stage: Stage, metrics: Any) -> None:
        self._num_passes[stage] += 1
        self._hold(f"epoch/{stage}", self._num_passes[stage], metrics)

    def _pair(self, names: Sequence[str]) -> None:
        """Write once which curves TensorBoard shows together."""
        add_pairs = getattr(self._logger, "add_pairs", None)  # a writer of the user has none
        if names and add_pairs is not None:
            self._written.add("charts")
            tags = {
                name: [f"{name}/epoch/{stage}" for stage in (Stage.TRAIN, Stage.VAL)]
                for name in names[:MAX_CHARTS]
            }
            add_pairs("Training and validation", tags)

    def _log_rates(self, trainer: TrainerView, phase: str, step: int) -> None:
        self._hold(f"{phase}/train", step, trainer.opt.named_lrs())

    def _hold(
        self, where: str, step: int, values: Mapping[str, Any], limit: int = MAX_HELD
    ) -> None:
        if self._logger is None:
            return
        self._held.append((where, step, values, time.time()))
        if len(self._held) >= limit or self._held[-1][3] - self._held[0][3] >= MAX_HELD_S:
            self._write_held()

    def _write_held(self) -> None:
        held, self._held = self._held, []
        if self._logger is None:
            return
        events = [
            (step, time_s, {f"{name}/{where}": float(value) for name, value in spread(values)})
            for where, step, values, time_s in held
        ]
        add_together = getattr(self._logger, "add_together", None)
        if add_together is not None:
            add_together(events)
            return
        for step, time_s, scalars in events:  # a writer of the user's
            for tag, value in scalars.items():
                self._logger.add_scalar(tag, value, step, time_s)


def _without_hooks(model: nn.Module) -> nn.Module:
    """Return a shallow copy of a model without hooks."""
    bare = copy.copy(model)
    for kind in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"):
        setattr(bare, kind, OrderedDict())
    bare.__dict__.pop("_compiled_call_impl", None)  # it would call the original model
    return bare


def log_graph(logger: SummaryWriter, model: nn.Module, example: Any) -> None:
    """Write the model's graph, or warn if it cannot be traced.

    The model runs in evaluation mode, so that its statistics do not change. Its modes and the
    random states are restored.
    """
    values = example if isinstance(example, (tuple, dict)) else (example,)
    try:
        with _one_trace, modes_kept(model), rng.preserved(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            bare = _without_hooks(model).eval()
            named = {"example_kwarg_inputs": values} if isinstance(values, dict) else {}
            given = None if named else values
            # check_trace compares names, which forward hooks alter.
            traced = torch.jit.trace(bare, given, strict=False, check_trace=False, **named)  # type: ignore[no-untyped-call]
            logger.add_graph(traced, given)
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        warn_user(
            f"LogCallback could not write the graph of {type(model).__name__}: {reason[0]} Give "
            "LogCallback(example_input=...) with tensors, or log_graph=False.",
            RuntimeWarning,
        )


def log_hyper_params(
    writer: RunWriter, hyper_params: Mapping[str, Any], metrics: Mapping[str, Any], step: int
) -> None:
    """Write one line of TensorBoard's HParams table, and its metrics as scalars."""
    from torch.utils.tensorboard.summary import hparams

    plain = {
        str(name): value if isinstance(value, (bool, int, float, str)) else str(value)
        for name, value in hyper_params.items()
    }
    values = {name: float(value) for name, value in spread(metrics)}
    # `add_hparams` would write to another run, named by the time, and not to this one.
    for summary in hparams(plain, values):  # type: ignore[no-untyped-call]
        writer.add_summary(summary)
    for name, value in values.items():
        writer.add_scalar(name, value, step)
