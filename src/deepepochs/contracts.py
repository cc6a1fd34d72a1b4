"""What the rooms may see of a trainer, a session, a pass and a task.

The classes themselves stand above the rooms that use them. These protocols stand below, so that
no import runs back up, not even one that only a type checker reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from .data.cursor import Cursor
from .history import History, Progress
from .nest.batch import BatchSize
from .optim.optimizers import Optimizers
from .runtime.base import Runtime
from .stages import Stage

__all__ = ["RunView", "SessionView", "TaskView", "TrainerView"]


class TaskView(Protocol):
    """A loader with its step and metrics."""

    dataloader: Iterable[Any]
    metrics: list[Any]
    do_loss: bool
    batch_size: BatchSize
    step_args: dict[str, Any]

    @property
    def length(self) -> int | None:
        """Mini-batches of a pass; ``None`` if the loader does not know."""

    def label(self, index: int) -> str:
        """The name of the task, or else its index."""


class RunView(Protocol):
    """A pass that runs now."""

    batch_idx: int
    batch_x: Any
    batch_y: Any

    @property
    def stage(self) -> Stage:
        """What the pass is for."""

    @property
    def is_training(self) -> bool:
        """Whether it trains."""

    @property
    def num_steps(self) -> int:
        """Its optimizer steps."""

    @property
    def cursor(self) -> Cursor:
        """The walk over its loader."""

    @property
    def task(self) -> Any:
        """Its task."""

    @property
    def task_idx(self) -> int:
        """The place of the task in its stage, from 0."""

    @property
    def num_tasks(self) -> int:
        """The number of tasks of the stage."""

    @property
    def hooks(self) -> Any:
        """The hooks that are called for the present mini-batch."""

    @property
    def batch_loss(self) -> Any:
        """The loss of the present mini-batch, if one was recorded."""

    @property
    def weight(self) -> float:
        """The number of samples in the present mini-batch."""

    @property
    def is_filler(self) -> bool:
        """Whether the present mini-batch only fills up a round."""


class SessionView(Protocol):
    """One call of fit, test, predict or find_lr, while it runs."""

    @property
    def fit(self) -> SessionView | None:
        """The fit that this call is or runs inside of, or ``None``."""

    @property
    def is_inside_epoch(self) -> bool:
        """Whether an epoch of the fit is under way; so it is before a resumed one goes on."""

    @property
    def run(self) -> RunView | None:
        """The pass that runs now, or ``None``."""

    def has_metrics_of(self, stage: str) -> bool:
        """Whether the present epoch has ended a stage."""

    def epoch_state(self) -> dict[str, Any] | None:
        """The state of the epoch that is under way."""


class TrainerView(Protocol):
    """A trainer, as callbacks and the state see it."""

    model: nn.Module
    loss_fn: Any
    opt: Optimizers
    runtime: Runtime
    history: History
    running_id: str
    hyper_params: dict[str, Any] | None
    general_metrics: list[Any]
    grad_accumulate: int
    on_nan: str
    worker_seeding: str
    metric_patch: Any
    logger: Any
    resume: bool | int | str
    show_info: bool

    @property
    def callbacks(self) -> Any:
        """The callbacks."""

    @property
    def session(self) -> SessionView | None:
        """The call that runs now, or ``None``."""

    @property
    def run(self) -> RunView | None:
        """The pass that runs now, or ``None``."""

    @property
    def stage(self) -> Stage | None:
        """What the pass that runs now is for."""

    @property
    def val_freq(self) -> int:
        """Epochs from one validation to the next."""

    @property
    def accelerator(self) -> Any:
        """The ``Accelerator``, or ``None``."""

    @property
    def progress(self) -> Progress:
        """How far the run has come."""

    @property
    def device(self) -> torch.device:
        """Where the model is."""

    @property
    def main_process(self) -> bool:
        """Whether this is the process that prints and writes."""

    @property
    def init_epoch(self) -> int:
        """Index of the next epoch, from 0."""

    @property
    def max_epochs(self) -> int:
        """The total number of epochs."""

    @property
    def stop_reason(self) -> str | None:
        """Why the fit was stopped, or ``None``."""

    @property
    def is_interrupted(self) -> bool:
        """Whether a signal or Ctrl-C ends the fit."""

    @property
    def is_resumed(self) -> bool:
        """Whether the fit goes on from a loaded state."""

    @property
    def has_own_id(self) -> bool:
        """Whether the running id was given."""

    @property
    def run_dir(self) -> Path:
        """The folder of the run."""

    @property
    def checker(self) -> Any:
        """The callback that keeps checkpoints, or ``None``."""

    def tell_once(self, about: str) -> bool:
        """Whether a warning about something is the first of this trainer."""

    def ignore_resume(self) -> None:
        """Have the first fit not load what ``resume`` asks for."""

    def fit(self, *args: Any, **options: Any) -> Any:
        """Train."""

    def run_task(self, task: Any, stage: Stage) -> dict[str, Any]:
        """Run one pass over one task's data."""

    def parts(self) -> dict[str, Any]:
        """The parts of the state by name."""

    def print(self, *values: Any, **options: Any) -> None:
        """Print in the main process only."""

    def stop(self, reason: str = "") -> None:
        """End the call that runs at its next mini-batch."""

    def request_save(self, saver: Any) -> None:
        """Have ``saver(trainer)`` called at the next save point."""

    def add_saver(self, saver: Any) -> None:
        """Have ``saver(trainer)`` called where the fit is stopped."""

    def adopt_run(self, running_id: str) -> None:
        """Go on in the folder of an earlier run."""

    def state_dict(self) -> dict[str, Any]:
        """The whole state."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load a whole state."""

    def load_weights(self, state: Mapping[str, Any]) -> None:
        """Load weights and optimizers from a state."""

    def load_checkpoint(self, path: str | PathLike[str]) -> Any:
        """Load a checkpoint."""

    def find_lr(self, *args: Any, **options: Any) -> Any:
        """Search a learning rate."""

    def open_logger(self, log_dir: str | PathLike[str] = "./logs") -> Any:
        """The TensorBoard writer."""

    def close_logger(self) -> None:
        """Close the file of the TensorBoard writer."""
