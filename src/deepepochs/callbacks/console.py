"""Prints the progress of a run.

A terminal shows the mini-batch in one line, which is rewritten at most ten times a second, and
then a line for each epoch. A file or pipe gets the epoch lines only, a notebook one display that
is updated::

    E 1/2  B  1/16  TRAIN> loss: 2.2800
    E 1/2  TRAIN> loss: 2.2457  acc: 0.1840   VAL> loss: 2.1551  acc: 0.3000
"""

from __future__ import annotations

import math
from datetime import datetime
from time import monotonic
from typing import TYPE_CHECKING, Any

from torch.nn.parameter import is_lazy

from ..hooks import PACE_S, paced
from ..legacy.printing import log_batch, log_epoch, print_out
from ..show.screens import (
    BarScreen,
    Output,
    Screen,
    batch_line,
    epoch_line,
    info,
    open_screen,
    task_line,
)
from ..stages import Stage
from .base import Callback, Tasks

if TYPE_CHECKING:
    from ..contracts import TrainerView

__all__ = ["ConsoleCallback", "DefaultCallback", "info", "log_batch", "log_epoch", "print_out"]


class ConsoleCallback(Callback):
    """Prints a header, mini-batches and epochs, in the main process only.

    Args:
        log_long: 7 decimals instead of 4.
        log_batch: show the mini-batch where a line can be rewritten in place.
        log_tqdm: show a tqdm bar over the epochs; the line is its description.

    Attributes:
        round_to: decimals of a value.
    """

    order = 0
    is_console = True

    def __init__(
        self, log_long: bool = False, log_batch: bool = True, log_tqdm: bool = False
    ) -> None:
        super().__init__()
        self.round_to = 7 if log_long else 4
        self.log_batch = log_batch
        self.log_tqdm = log_tqdm
        self.output = Output()
        self._screen: Screen | None = None
        self._next_s = math.inf  # no mini-batch is shown before this time
        self._shown_header = False
        self._in_fit = False
        self._lengths: list[int | None] = []
        self._widths = (4, 5)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_screen": None, "_in_fit": False}

    def write(self, *values: Any, sep: str = " ", end: str = "\n", file: Any = None) -> None:
        """Print as `print` does, without breaking the live line."""
        text = sep.join(map(str, values)) + end
        if file is not None:
            file.write(text)
        elif self._screen is None:
            self.output.write(text)
        else:
            self._screen.write(text)

    # --- fit

    def on_before_fit(self, trainer: TrainerView, epochs: int) -> None:
        self._close()
        if not trainer.main_process:
            return
        self._in_fit = True
        screen = open_screen(self.output)
        if trainer.show_info and not self._shown_header:
            self._shown_header = True
            screen.write("".join(f"{line}\n" for line in header_lines(trainer)))
        if self.log_tqdm:
            screen = BarScreen(epochs, trainer.progress.epoch_idx, self.output)
        self._widths = (len(str(epochs)), self._widths[1])
        self._show_on(screen)

    def on_before_epoch(self, train_tasks: Tasks, val_tasks: Tasks, **others: Any) -> None:
        totals = (sum(task.length or 0 for task in tasks) for tasks in (train_tasks, val_tasks))
        self._widths = (self._widths[0], len(str(max(totals))))

    def on_before_train_epochs(self, tasks: Tasks, **others: Any) -> None:
        self._lengths = [task.length for task in tasks]

    on_before_val_epochs = on_before_train_epochs

    @paced
    def on_after_train_batch(self, trainer: TrainerView, metrics: Any, batch_idx: int) -> None:
        """Show the mini-batch, if the line is due."""
        run = trainer.run
        if monotonic() < self._next_s or self._screen is None or run is None or not metrics:
            return
        lengths = self._lengths if len(self._lengths) == run.num_tasks else [None] * run.num_tasks
        number = sum(length or 0 for length in lengths[: run.task_idx]) + batch_idx + 1
        total = None if None in lengths else sum(length or 0 for length in lengths)
        epoch = (trainer.progress.epoch_idx + 1, trainer.max_epochs)
        if run.stage is Stage.TEST:
            epoch = (run.task_idx + 1, run.num_tasks)
        label, batch = run.stage.upper(), (number, total)
        self._screen.live(batch_line(label, metrics, epoch, batch, self._widths, self.round_to))
        # Counted from the end of the writing: a slow terminal must not slow down the training.
        self._next_s = monotonic() + PACE_S

    on_after_val_batch = on_after_test_batch = on_after_train_batch

    def on_after_train_epoch(self, trainer: TrainerView, **others: Any) -> None:
        """Record the number of mini-batches of a task without a length."""
        if trainer.run is not None and trainer.run.task_idx < len(self._lengths):
            self._lengths[trainer.run.task_idx] = trainer.run.batch_idx + 1

    on_after_val_epoch = on_after_train_epoch

    def on_after_epoch(
        self, trainer: TrainerView, train_metrics: Any, val_metrics: Any, epoch_idx: int, **_: Any
    ) -> None:
        if self._screen is not None:
            stages = {"TRAIN": train_metrics, "VAL": val_metrics}
            epoch = (epoch_idx + 1, trainer.max_epochs)
            self._screen.line(epoch_line(stages, epoch, self._widths[0], self.round_to))

    def on_after_fit(self, trainer: TrainerView) -> None:
        if trainer.stop_reason is not None and self._screen is not None:
            self._screen.write(f"{trainer.stop_reason}\n")
        self._close()

    def on_exception(self, **others: Any) -> None:
        self._close()

    # --- test

    def on_before_test_epochs(self, trainer: TrainerView, tasks: Tasks) -> None:
        self._lengths = [task.length for task in tasks]
        if trainer.main_process and not self._in_fit:
            self._close()
            self._show_on(open_screen(self.output))

    def on_after_test_epoch(self, trainer: TrainerView, task: Any, metrics: Any) -> None:
        self.on_after_train_epoch(trainer)
        if self._screen is not None and trainer.run is not None:
            place = (trainer.run.task_idx + 1, trainer.run.num_tasks)
            line = task_line(metrics, place, self._widths[0], self.round_to)
            if self._in_fit:
                self._screen.write(f"{line.rstrip()}\n")
            else:
                self._screen.line(line)

    def on_after_test_epochs(self, **others: Any) -> None:
        if not self._in_fit:
            self._close()

    # --- the screen

    def _show_on(self, screen: Screen) -> None:
        self._screen = screen
        self._next_s = 0.0 if self.log_batch and screen.is_live else math.inf

    def _close(self) -> None:
        if self._screen is not None:
            self._screen.close()
        self._screen = None
        self._in_fit = False
        self._next_s = math.inf


DefaultCallback = ConsoleCallback
"""The name of `ConsoleCallback` in release 0.6."""


def header_lines(trainer: TrainerView) -> list[str]:
    """Return the lines before the first epoch: date, device, run and model size."""
    parameters = [p for p in trainer.model.parameters() if p.requires_grad]
    count = str(sum(p.numel() for p in parameters if not is_lazy(p)))
    if any(is_lazy(p) for p in parameters):
        count += " and those of lazy modules"
    rows = {"device": str(trainer.runtime), "running ID": trainer.running_id, "parameters": count}
    return [
        "=" * 50,
        datetime.now().strftime("%Y-%m-%d %H:%M:%S"),
        *(f"{label + ':':<12} {value}" for label, value in rows.items()),
        "-" * 50,
    ]
