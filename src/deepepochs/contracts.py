"""What the rooms may see of a trainer, a session, a pass and a task.

The classes themselves stand above the rooms that use them. These protocols stand below, so that
no import runs back up, not even one that only a type checker reads. What a member means is said
at the class itself.
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
from .nest.operations import BatchSize
from .optim.optimizers import Optimizers
from .runtime.base import Runtime
from .stages import Stage


class TaskView(Protocol):
    """A loader with its step and metrics: ``EpochTask``."""

    dataloader: Iterable[Any]
    metrics: list[Any]
    do_loss: bool
    batch_size: BatchSize
    step_args: dict[str, Any]

    @property
    def length(self) -> int | None: ...

    def label(self, index: int) -> str: ...


class RunView(Protocol):
    """A pass that runs now: ``Run``."""

    batch_idx: int
    batch_x: Any
    batch_y: Any
    cursor: Cursor
    hooks: Any
    is_training: bool
    num_steps: int
    stage: Stage
    task: Any

    @property
    def task_idx(self) -> int: ...

    @property
    def num_tasks(self) -> int: ...

    @property
    def batch_loss(self) -> Any: ...

    @property
    def weight(self) -> float: ...

    @property
    def is_filler(self) -> bool: ...


class SessionView(Protocol):
    """One call of fit, test, predict or find_lr, while it runs: ``Session``."""

    @property
    def fit(self) -> SessionView | None: ...

    @property
    def run(self) -> RunView | None: ...

    @property
    def is_inside_epoch(self) -> bool: ...

    def has_metrics_of(self, stage: str) -> bool: ...

    def epoch_state(self) -> dict[str, Any] | None: ...


class TrainerView(Protocol):
    """A trainer, as callbacks and the state see it: ``TrainerBase``."""

    model: nn.Module
    loss_fn: Any
    opt: Optimizers
    runtime: Runtime
    history: History
    running_id: str
    has_own_id: bool
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
    def callbacks(self) -> Any: ...

    @property
    def session(self) -> SessionView | None: ...

    @property
    def run(self) -> RunView | None: ...

    @property
    def stage(self) -> Stage | None: ...

    @property
    def val_freq(self) -> int: ...

    @property
    def accelerator(self) -> Any: ...

    @property
    def progress(self) -> Progress: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def main_process(self) -> bool: ...

    @property
    def init_epoch(self) -> int: ...

    @property
    def max_epochs(self) -> int: ...

    @property
    def stop_reason(self) -> str | None: ...

    @property
    def is_interrupted(self) -> bool: ...

    @property
    def is_resumed(self) -> bool: ...

    @property
    def run_dir(self) -> Path: ...

    @property
    def checker(self) -> Any: ...

    def print(self, *values: Any, **options: Any) -> None: ...

    def stop(self, reason: str = "") -> None: ...

    def tell_once(self, about: str) -> bool: ...

    def fit(self, *args: Any, **options: Any) -> Any: ...

    def find_lr(self, *args: Any, **options: Any) -> Any: ...

    def run_task(self, task: Any, stage: Stage) -> dict[str, Any]: ...

    def request_save(self, saver: Any) -> None: ...

    def add_saver(self, saver: Any) -> None: ...

    def ignore_resume(self) -> None: ...

    def adopt_run(self, running_id: str) -> None: ...

    def parts(self) -> dict[str, Any]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...

    def load_weights(self, state: Mapping[str, Any]) -> None: ...

    def load_checkpoint(self, path: str | PathLike[str]) -> Any: ...

    def open_logger(self, log_dir: str | PathLike[str] = "./logs") -> Any: ...

    def close_logger(self) -> None: ...
