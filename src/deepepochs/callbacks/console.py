"""Shows the progress of a run.

A terminal has a live line, which is drawn again at most ten times a second, and a row for each
epoch; a file or pipe has the rows only, a notebook one display that is updated::

                 loss            accuracy
    epoch    train      val    train      val      time  best
      1/5   0.4832   0.2841   0.8631   0.9180      1.8s     *
      2/5 train ━━━━━━━━╸──────   81/125  0:01 left  loss 0.2101  accuracy 0.9375
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

from torch.nn.parameter import is_lazy

from ..arguments import check_choice
from ..hooks import paced
from ..legacy.printing import info, log_batch, log_epoch, print_out
from ..patches.running import RunningValues
from ..patches.totals import LOSS
from ..show.screens import (
    POOLED,
    Column,
    EpochTable,
    Live,
    Output,
    Screen,
    Tested,
    cell,
    duration,
    is_terminal,
    open_screen,
    terminal_columns,
    wrapped,
)
from ..stages import Stage
from .base import Callback, Metrics, Tasks, is_within

if TYPE_CHECKING:
    from ..contracts import RunView, TrainerView

__all__ = ["ConsoleCallback", "DefaultCallback", "info", "log_batch", "log_epoch", "print_out"]

CONSOLES = ("auto", "rows", "bar", "off")


class ConsoleCallback(Callback):
    """Shows a header, the pass that runs, epochs and tests, in the main process only.

    Args:
        log_long: 7 decimals instead of 4.
        log_batch: ``False`` is ``console='rows'``.
        log_tqdm: show the progress within the epoch, whatever ``log_batch`` is.
        console: ``'auto'``: a live line in a terminal and in a notebook, and rows; ``'rows'``:
            rows only; ``'bar'``: a live line also where the output does not say that it is a
            terminal, as that of an IDE; ``'off'``: nothing.

    Attributes:
        round_to: decimals of a value.
    """

    order = 0
    is_console = True

    def __init__(
        self,
        log_long: bool = False,
        log_batch: bool = True,
        log_tqdm: bool = False,
        *,
        console: str = "auto",
    ) -> None:
        super().__init__()
        self.round_to = 7 if log_long else 4
        check_choice("console", console, CONSOLES)
        hides_batches = not log_batch and not log_tqdm
        self.console = "rows" if console == "auto" and hides_batches else console
        self.output = Output()
        self._screen: Screen | None = None
        self._shown_header = False
        self._in_fit = False
        self._table = EpochTable(0)
        self._rates: dict[str, float | None] = {}
        self._began = Beginning()
        self._test_began_s = self._task_began_s = 0.0
        # While something is shown. An entry goes with its pass: a test may run inside of another.
        self._passes: weakref.WeakKeyDictionary[RunView, PassProgress] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_screen": None, "_passes": None, "_in_fit": False}

    def write(self, *values: Any, sep: str = " ", end: str = "\n", file: Any = None) -> None:
        """Print as `print` does, without breaking the live line."""
        text = sep.join(map(str, values)) + end
        if file is not None:
            file.write(text)
        elif self._screen is None:
            self.output.write(text)
        else:
            self._screen.write(text)

    def note(self, text: str) -> None:
        """Print a sentence of the library."""
        if self._screen is not None:
            self._screen.note(text)
        elif self.console != "off":
            columns = terminal_columns() if is_terminal(sys.stdout) else None
            self.output.write("".join(f"{line}\n" for line in wrapped(text, columns)))

    # --- fit

    def on_before_fit(self, trainer: TrainerView, epochs: int) -> None:
        self._close()
        screen = self._open(trainer)
        if screen is None:
            return
        self._in_fit = True
        if trainer.show_info and not self._shown_header:
            self._shown_header = True
            screen.header(list(facts_of(trainer)), trainer.running_id)
        if trainer.session is not None and trainer.session.resumes_at:
            screen.note(f"resuming {trainer.session.resumes_at}")
        self._began = Beginning(monotonic(), trainer.init_epoch)
        self._table = table_of(trainer)

    def on_before_epoch(self, trainer: TrainerView, **others: Any) -> None:
        # As in the record of the run: the rate with which the epoch begins.
        self._rates = rates_of(trainer)
        self._began = self._began._replace(
            epoch_s=monotonic(), num_batches=trainer.progress.num_train_batches
        )

    @paced
    def on_after_train_batch(self, trainer: TrainerView, metrics: Any, batch_idx: int) -> None:
        """Show how far the pass is."""
        screen, passes, run = self._screen, self._passes, trainer.run
        if screen is None or not screen.is_live or passes is None or run is None:
            return
        metrics.check_loss()
        progress = passes.setdefault(run, PassProgress())
        epoch = None if run.stage is Stage.TEST else (trainer.init_epoch + 1, self._table.epochs)
        screen.live(progress.live(run, epoch, trainer.runtime.num_processes))

    on_after_val_batch = on_after_test_batch = on_after_train_batch

    def on_after_epoch(
        self, trainer: TrainerView, train_metrics: Any, val_metrics: Any, epoch_idx: int, **_: Any
    ) -> None:
        if self._screen is not None:
            self._table.add(
                epoch_idx + 1,
                train_metrics,
                val_metrics,
                rates=self._rates,
                seconds=monotonic() - self._began.epoch_s,
                part=trainer.history.partial.get(epoch_idx),
            )
            self._screen.row(self._table)

    def on_after_val_epochs(self, trainer: TrainerView, metrics: Metrics, **others: Any) -> None:
        if self._screen is not None and is_within(trainer):
            values = "  ".join(f"{name} {cell(v, self.round_to)}" for name, v in metrics.items())
            self._screen.note(f"step {trainer.progress.num_steps:,}: val {values}")

    def on_after_fit(self, trainer: TrainerView) -> None:
        if self._screen is not None:
            self._screen.summary(list(self._ending(trainer)))
        self._close()

    def on_exception(self, **others: Any) -> None:
        self._close()

    # --- test

    def on_before_test_epochs(self, trainer: TrainerView, tasks: Tasks) -> None:
        self._test_began_s = monotonic()
        if not self._in_fit:
            self._close()
            self._open(trainer)

    def on_before_test_epoch(self, **others: Any) -> None:
        self._task_began_s = monotonic()

    def on_after_test_epoch(self, trainer: TrainerView, task: Any, metrics: Metrics) -> None:
        session, run = trainer.session, trainer.run
        if self._screen is not None and session is not None and run is not None:
            names = names_of(session.plan.tasks[Stage.TEST])
            seconds = monotonic() - self._task_began_s
            self._screen.tested(Tested(names[run.task_idx], metrics, seconds, names))

    def on_after_test_epochs(self, tasks: Tasks, metrics: Metrics, **others: Any) -> None:
        if self._screen is not None and len(tasks) > 1:
            names = names_of(tasks)
            own = tuple(f"{name}/" for name in names)
            pooled = {name: v for name, v in metrics.items() if not name.startswith(own)}
            seconds = monotonic() - self._test_began_s
            self._screen.tested(Tested(POOLED, pooled, seconds, names))
        if not self._in_fit:
            self._close()

    # --- the screen

    def _open(self, trainer: TrainerView) -> Screen | None:
        if trainer.main_process and self.console != "off":
            self._screen = open_screen(self.output, self.console, self.round_to)
            self._passes = weakref.WeakKeyDictionary()
        return self._screen

    def _close(self) -> None:
        if self._screen is not None:
            self._screen.close()
        self._screen = self._passes = None
        self._in_fit = False

    def _ending(self, trainer: TrainerView) -> Iterator[str]:
        """Yield how a fit has ended, and where its files are."""
        table, done = self._table, trainer.init_epoch - self._began.epoch_idx
        total = trainer.init_epoch if table.epochs is None else table.epochs
        planned = total - self._began.epoch_idx
        spent = duration(monotonic() - self._began.fit_s)
        if done == planned:
            yield f"{done} epoch{'' if done == 1 else 's'} in {spent}"
        elif not self._began.epoch_idx:
            yield f"{done} of {planned} epochs in {spent}"
        else:  # as the rows count them
            yield f"{trainer.init_epoch} of {total} epochs, {done} of them in {spent}"
        if trainer.is_interrupted:
            yield f"stopped by {signal_of(trainer)} {self._where(trainer)}"
        elif trainer.stop_reason is not None:
            yield f"stopped: {trainer.stop_reason}"
        if table.best is not None:
            value = cell(table.value_of(table.best), self.round_to)
            yield f"best epoch {table.best.epoch}: {table.decides} {value}"
        places = [
            place for callback in trainer.callbacks for place in callback.files_of(trainer).items()
        ]
        for what, path in dict.fromkeys(places):
            yield f"{what}{' in' if not path.suffix else ''} {shown_path(path)}"
        if trainer.is_interrupted:
            yield how_to_go_on(trainer)

    def _where(self, trainer: TrainerView) -> str:
        """Say in which epoch a fit was stopped, and how far in it."""
        session = trainer.session
        if session is None or session.epoch_idx is None:
            return f"after epoch {trainer.init_epoch}" if trainer.init_epoch else "before epoch 1"
        done = trainer.progress.num_train_batches - self._began.num_batches
        inside = f"after {done:,} mini-batch{'' if done == 1 else 'es'}"
        if session.has_metrics_of("train"):
            inside = "in validation"
        return f"in epoch {session.epoch_idx + 1}, {inside}"


DefaultCallback = ConsoleCallback
"""The name of `ConsoleCallback` in release 0.6."""


class Beginning(NamedTuple):
    """When a fit and its present epoch began, and what was done before.

    Attributes:
        fit_s: when the fit began.
        epoch_idx: its first epoch.
        epoch_s: when the present epoch began.
        num_batches: training mini-batches before it.
    """

    fit_s: float = 0.0
    epoch_idx: int = 0
    epoch_s: float = 0.0
    num_batches: int = 0


class PassProgress:
    """How far a pass is, how fast, and its values so far."""

    def __init__(self) -> None:
        self._values = RunningValues()
        self._first: tuple[float, int, float] | None = None

    def live(self, run: RunView, epoch: tuple[int, int | None] | None, num_processes: int) -> Live:
        """Give the state of the pass, for a screen."""
        now_s, done, total = monotonic(), run.batch_idx + 1, run.num_batches
        values = self._values.read(run.recorder.ordered())
        loss = run.recorder.patches.get(LOSS)
        is_counted = run.task.batch_size is None and run.num_samples is not None
        samples = getattr(loss, "weight", 0.0) if is_counted else 0.0
        # The first mini-batch takes longer than the others: it is not measured.
        first_s, first_done, first_samples = self._first = self._first or (now_s, done, samples)
        speed, left_s, passed_s = None, None, now_s - first_s
        if passed_s > 0 and done > first_done:
            batches = (done - first_done) / passed_s
            left_s = None if total is None else max(0, total - done) / batches
            speed = batches, "batches"
            if samples > first_samples:
                speed = num_processes * (samples - first_samples) / passed_s, "samples"
        task = run.task.label(run.task_idx) if run.num_tasks > 1 else run.task.name or ""
        return Live(epoch, str(run.stage), task, done, total, values, speed, left_s)


def names_of(tasks: Tasks) -> list[str]:
    """Return the names of tasks; a single one without a name has none."""
    if len(tasks) == 1:
        return [tasks[0].name or ""]
    return [task.label(index) for index, task in enumerate(tasks)]


def table_of(trainer: TrainerView) -> EpochTable:
    """Return the table of a fit, with the epochs that the history has already."""
    moved = [optimizer.scheduler is not None for optimizer in trainer.opt]
    changing = [name for name, is_moved in zip(rates_of(trainer), moved, strict=False) if is_moved]
    table = EpochTable(trainer.known_epochs, deciding(trainer), changing)
    history = trainer.history
    places = {epoch_idx: at for at, epoch_idx in enumerate(history.val_epochs)}
    for index, epoch_idx in enumerate(history.epochs):
        train = {name: values[index] for name, values in history["train"].items()}
        at = places.get(epoch_idx)
        val = {} if at is None else {name: values[at] for name, values in history["val"].items()}
        table.add(epoch_idx + 1, train, val, part=history.partial.get(epoch_idx))
    return table


def deciding(trainer: TrainerView) -> tuple[Column, str]:
    """Return what says which epoch is best: what a callback follows, or else the loss."""
    for callback in trainer.callbacks:
        if callback.decides_best is not None:
            stage, name, mode = callback.decides_best
            return Column(name, stage), mode
    plan = None if trainer.session is None else trainer.session.plan
    validates = plan is not None and any(task.do_loss for task in plan.tasks[Stage.VAL])
    return Column("loss", "val" if validates else "train"), "min"


def rates_of(trainer: TrainerView) -> dict[str, float | None]:
    """Return the learning rate of each optimizer by its name in the table."""
    rates = trainer.opt.get_current_lr()
    return {f"lr {i}" if len(rates) > 1 else "lr": rate for i, rate in enumerate(rates)}


def facts_of(trainer: TrainerView) -> Iterator[str]:
    """Yield what trains: model, device, optimizers."""
    model = trainer.runtime.unwrap(trainer.model)
    weights = list(model.parameters())
    counts = {True: 0, False: 0}
    for weight in weights:
        counts[weight.requires_grad] += 0 if is_lazy(weight) else weight.numel()
    text = f"{type(model).__name__}, {counts[True] + counts[False]:,} parameters"
    if counts[False]:
        text += f" ({counts[False]:,} frozen)"
    if any(map(is_lazy, weights)):
        text += " and those of lazy modules"
    yield text
    yield str(trainer.runtime)
    for optimizer in trainer.opt:
        rate = optimizer.get_current_lr()
        yield optimizer.kind + ("" if rate is None else f", lr {rate:.3g}")


def signal_of(trainer: TrainerView) -> str:
    """Return what has interrupted a fit, as the user would call it."""
    return "SIGTERM" if trainer.stop_reason == "SIGTERM received" else "Ctrl-C"


def how_to_go_on(trainer: TrainerView) -> str:
    """Say how an interrupted run goes on."""
    if trainer.checker is None:
        return "not saved: a CheckCallback saves the state"
    if not trainer.checker.files_of(trainer):
        return "nothing was saved"
    if not trainer.has_own_id:
        return f"go on with resume={trainer.running_id!r}"
    if trainer.resume in (True, "auto"):
        return "go on by starting the script again"
    return "go on with resume='auto'"


def shown_path(path: Path) -> str:
    """Return a path, relative to the present folder if it is in it."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
