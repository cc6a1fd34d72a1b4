"""Saves checkpoints, and stops a run that no longer improves.

::

    check = CheckCallback("loss", patience=5)
    trainer = Trainer(model, loss, opt, callbacks=check, running_id="mnist", resume="auto")
    trainer.fit(train_dl, val_dl)        # killed? Start the same script again.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..arguments import check_count
from ..checkpoint.file import listed
from ..checkpoint.store import CheckpointStore, latest_run, load, save
from ..checkpoint.writer import Writer
from ..errors import CheckpointNotFound, ConfigError, warn_user
from ..nest.codec import to_plain
from ..optim.monitor import Monitor
from ..runs.folder import run_folder
from ..runs.ownership import use_here
from ..runtime.base import in_main_process, together
from .base import Callback, Metrics, follows_stop
from .monitored import Improvement
from .run_record import RunRecordCallback

if TYPE_CHECKING:
    from ..contracts import TrainerView


AT_STOP = 0  # the place of a best state that a fit had where it was stopped inside an epoch


class CheckCallback(Callback):
    """Saves the state of the run, keeps the best states, and stops early.

    The run's folder has its record, ``checkpoint.ckpt`` (the last state), ``previous.ckpt`` and
    ``best.ckpt``. Each checkpoint has the whole state, so a resumed run has the same bits.
    The state is saved after every epoch, and when a signal or ``trainer.stop`` stops the
    fit. A test uses the best weights, and puts back those that it found.

    A best state is that of one metric in one run. If a run resumes with another ``monitor``,
    ``on_stage`` or ``mode``, the best value is reset, with a warning.

    Args:
        monitor: the metric that decides which state is best: its name, with several tasks also
            that of one of them, as ``'night/accuracy'``.
        on_stage: ``'val'`` (checked only after a validation) or ``'train'``.
        mode: ``'min'`` or ``'max'``: whether less or more of the metric is better. ``None``: as
            the metric declares (``direction``, or ``higher_is_better`` of torchmetrics), or as
            its name says, for example ``'min'`` of a loss and ``'max'`` of an accuracy.
        patience: stop after this many checks in a row without a strictly better value;
            0: never.
        save_best: a test loads the best weights; ``False``: it uses the present weights.
        ckpt_dir: the folder of the runs.
        every_n_batches: also save after every n-th training mini-batch.
        every_s: also save after a mini-batch if this many seconds have passed since the last
            save.
        keep: the number of best states to keep, as ``best.ckpt``, ``best-2.ckpt``, …
        min_delta: for ``patience`` a value is better if it differs from the best by more than
            this. Which state is kept as the best does not depend on it.
        background: a save copies the state, and a thread writes it while training goes on. It
            takes the memory of one more state. The next save waits until the last one is
            written, and so do the end of the fit and all that reads a checkpoint. An error of
            the thread is raised there.

    Raises:
        ConfigError: an argument has a wrong value; at the start of a fit, ``mode`` is ``None``
            and nothing says which values of the metric are better.
        CallbackException: at the start of a fit or in the first mini-batch, the monitored metric
            is not there, or is not a single number.

    Example:
        >>> import torch
        >>> from deepepochs import Trainer
        >>> from deepepochs.metrics import accuracy
        >>> check = CheckCallback("accuracy", patience=5)  # the most accurate state is the best
        >>> trainer = Trainer(torch.nn.Linear(4, 2), metrics=accuracy, callbacks=check)
    """

    order = -1
    keeps_checkpoints = True

    def __init__(
        self,
        monitor: str = "loss",
        on_stage: str = "val",
        mode: str | None = None,
        patience: int = 0,
        save_best: bool = True,
        ckpt_dir: str | os.PathLike[str] = "./logs",
        *,
        every_n_batches: int | None = None,
        every_s: float | None = None,
        keep: int = 1,
        min_delta: float = 0.0,
        background: bool = False,
    ) -> None:
        super().__init__()
        self.run_record = RunRecordCallback(ckpt_dir)
        self.improvement = Improvement(
            type(self).__name__,
            monitor,
            on_stage,
            mode,
            check_count("patience", patience),
            min_delta,
            at_reset=": the next check overwrites best.ckpt",
        )
        self.save_best = save_best
        if every_n_batches is not None:
            check_count("every_n_batches", every_n_batches, 1)
        if every_s is not None and not every_s > 0:
            raise ConfigError(f"CheckCallback(every_s={every_s!r}): give a positive number.")
        self.every_n_batches = every_n_batches
        self.every_s = every_s
        self.keep = check_count("keep", keep, 1)
        self._writer = Writer(background)
        self.best_values: list[float] = []
        self._best_place: int | None = None
        self._has_saved = False
        self._is_other = False  # the user has loaded other weights since the last save
        self._source: Path | None = None  # the folder of the run that was loaded
        self._best_from: Path | None = None  # the folder of another run that has made the best
        self._saved_at_s = 0.0
        self._start = Path.cwd()  # a relative path to resume starts here

    @property
    def companions(self) -> tuple[Callback, ...]:
        """The record of the run."""
        return (self.run_record,)

    @property
    def monitor(self) -> str:
        """The name of the metric that decides which state is best."""
        return self.improvement.metric.name

    @property
    def on_stage(self) -> str:
        """The stage of that metric."""
        return self.improvement.on_stage

    @property
    def patience(self) -> int:
        """Checks in a row without a better value that end a fit."""
        return self.watch.patience

    @property
    def watch(self) -> Monitor:
        """The best value of that metric, and how many came since."""
        return self.improvement.watch

    @property
    def runs_in(self) -> Path:
        return self.ckpt_dir

    def folder(self, trainer: TrainerView) -> Path:
        """The folder of the trainer's run."""
        return self.run_record.folder(trainer)

    @property
    def ckpt_dir(self) -> Path:
        """The folder of the runs."""
        return self.run_record.log_dir

    @property
    def decides_best(self) -> tuple[str, str, str]:
        return self.on_stage, self.monitor, self.watch.mode

    def files_of(self, trainer: TrainerView) -> dict[str, Path]:
        return {"checkpoints": self.folder(trainer)} if self._has_saved else {}

    def save(self, trainer: TrainerView) -> None:
        """Write the trainer's state as the last one, and as a best one if it is."""
        place, self._best_place = self._best_place, None
        state = trainer.state_dict()  # in every process: each has a part of the state
        store = CheckpointStore(self.folder(trainer), self.keep)
        if self._source is not None and self._source.resolve() == store.folder.resolve():
            self._source = None

        others_from = len(self.best_values)  # from there on they are of another monitor

        def write(state: dict[str, Any]) -> None:
            store.save(state, place)
            if place is not None and self.keep > 1:
                store.drop_best(others_from)

        def begin() -> None:
            if self._source is not None:
                store.take_best(self._source)
            self._writer.write(write, state)

        in_main_process(trainer.runtime, "save its checkpoint", begin)
        if self._source is not None:
            self._best_from, self._source = self._source, None
        self._has_saved, self._is_other = True, False
        self._saved_at_s = time.monotonic()

    def resume(self, trainer: TrainerView) -> None:
        """Find the checkpoint that the trainer's ``resume`` selects, and have it resumed.

        Raises:
            CheckpointError: a checkpoint that was selected by name cannot be loaded.
        """
        found = find_checkpoint(trainer, self.ckpt_dir, self._start)
        source = trainer.runtime.gather_objects(found, "looks for a checkpoint")[0]
        if isinstance(source, str):
            trainer.note(f"{source}: training starts anew")
            return
        trainer.resume_from(source)
        self._has_saved, self._is_other = True, False
        self._note_source(source)
        if source.is_dir():
            trainer.adopt_run(source.name)

    def check_fit(self, trainer: TrainerView, session: Any) -> None:
        """Raise if the fit does not compute the monitored metric, or its mode is not known."""
        self.improvement.check_fit(trainer, session)

    def on_before_fit(self, trainer: TrainerView, epochs: int) -> None:
        """Lock the run's folder; stop at once if the resumed run had already stopped early."""
        self._lock_run(trainer)
        if not self.improvement.begin_fit(trainer):
            self.best_values = []
        if not (trainer.is_resumed or trainer.is_fit_run):
            self._best_place = self._best_from = self._source = None
        self._saved_at_s = time.monotonic()
        trainer.add_saver(self.save, self._finish if self._writer.background else None)
        if trainer.is_resumed:
            return
        store = CheckpointStore(self.folder(trainer), self.keep)
        if self._best_place == AT_STOP:
            in_main_process(trainer.runtime, "keep its best state", store.keep_stopped)
            self._best_place = None
        if self._has_saved and trainer.init_epoch:
            in_main_process(trainer.runtime, "keep the last checkpoint", store.keep_fit)

    def on_after_train_batch(self, trainer: TrainerView, metrics: Metrics, batch_idx: int) -> None:
        self.improvement.look(trainer, metrics)
        n, s = self.every_n_batches, self.every_s
        if n is not None and trainer.progress.num_train_batches % n == 0:
            trainer.request_save(self.save, everywhere=True)
        elif s is not None and time.monotonic() - self._saved_at_s >= s:
            trainer.request_save(self.save)

    def on_after_val_batch(self, trainer: TrainerView, metrics: Metrics, batch_idx: int) -> None:
        self.improvement.look(trainer, metrics)

    def on_after_val_epochs(self, trainer: TrainerView, metrics: Metrics, **others: Any) -> None:
        """Check the monitored metric in a validation within an epoch, too, or after a stop."""
        value = self.improvement.check_within(trainer, metrics)
        if value is not None and follows_stop(trainer):
            self._note_part(trainer, value)
        elif value is not None:
            self._note_value(value)
            trainer.request_save(self.save, everywhere=True)

    def on_after_epoch(self, *, trainer: TrainerView, epoch_idx: int, **others: Any) -> None:
        """Check the monitored metric, save, and stop if the patience is exhausted."""
        is_part = epoch_idx in trainer.history.partial
        value = self.improvement.check(trainer, others, is_part=is_part)
        if is_part:  # the state was saved where the fit was stopped
            if value is not None:
                self._note_part(trainer, value)
            return
        if value is not None:
            self._note_value(value)
        trainer.request_save(self.save)

    def on_after_fit(self, trainer: TrainerView) -> None:
        """Wait until all is written, where the fit was interrupted or failed."""
        try:
            self._writer.end()
        except Exception as error:
            warn_user(f"The last save failed: {error}", UserWarning)

    def on_exception(self, trainer: TrainerView, exception: BaseException) -> None:
        """Wait until all is written."""
        self.on_after_fit(trainer)

    def note_load(self, source: Path | None) -> None:
        """Take note that the user has loaded weights or a state, from a file or its folder.

        A test uses them until the next save. A fit that resumes takes over the best states that
        are beside the file.
        """
        self._is_other = True
        if source is not None:
            self._note_source(source)

    def best_for_test(self, trainer: TrainerView) -> dict[str, Any] | None:
        """Give the best state of this run if a test is to use it, and say so.

        Raises:
            CheckpointDamaged: its file is damaged.
        """
        if self._is_other or not (self.save_best and self._has_saved and self.best_values):
            return None
        try:
            state = self.read_best(trainer)
        except CheckpointNotFound as error:
            warn_user(
                f"The test uses the weights that the trainer has now: {error}",
                UserWarning,
            )
            return None
        if self._best_from is not None:
            warn_user(
                "No epoch of this run was better than the best of the run from which it was "
                f"resumed: the test uses the best weights of {self._best_from}.",
                UserWarning,
            )
        best = f"{self.on_stage} {self.monitor} {self.best_values[0]:.4g}"
        trainer.note(f"loading best model from running ID {trainer.running_id} ({best})")
        return state

    def read_best(self, trainer: TrainerView) -> dict[str, Any]:
        """Give the best state of this run.

        Raises:
            CheckpointNotFound: there is none.
            CheckpointDamaged: its file is damaged.
        """
        if self._best_place == 1:
            return trainer.state_dict()  # of this epoch: written when all hooks have run
        store = CheckpointStore(self._source or self.folder(trainer))
        path = store.stopped if self._best_place == AT_STOP else store.best()
        if not self.best_values:
            raise CheckpointNotFound(
                f"this run has no best state yet: CheckCallback has not seen a value of "
                f"{self.on_stage} {self.monitor!r} in it. Other weights are loaded with "
                "trainer.load_weights(path)."
            )
        with together(trainer.runtime, "read the best state"):
            self._writer.wait()
            if not path.exists():
                raise CheckpointNotFound(
                    f"{path}, the best state of this run, is not there any more."
                )
            state = load(path)
            values = state.get("history", {}).get(self.on_stage, {}).get("values", {})
            found = [float(value) for value in values.get(self.monitor, [])[-1:]]
            if found != self.best_values[:1]:
                raise CheckpointNotFound(
                    f"{path} is not of this run, whose best {self.monitor} is "
                    f"{self.best_values[0]:.4g}: it has {found[0] if found else 'no such value'}."
                )
        return state

    def _finish(self, trainer: TrainerView) -> None:
        in_main_process(trainer.runtime, "save its checkpoint", self._writer.end)

    def state_dict(self) -> dict[str, Any]:
        return {**self.improvement.state_dict(), "best_values": list(self.best_values)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        counts = self.improvement.load_state_dict(state)
        self.best_values = [float(value) for value in state["best_values"]] if counts else []
        self._best_place = None

    def _note_source(self, path: Path) -> None:
        self._source = (path if path.is_dir() else path.parent).absolute()

    def _note_value(self, value: float) -> None:
        """Take a value among the best if it is one: ``save`` then keeps its state."""
        place = insert_best(self.best_values, value, self.watch.mode, self.keep)
        if place is not None:
            self._best_place = place
        if place == 1:
            self._best_from = None

    def _note_part(self, trainer: TrainerView, value: float) -> None:
        """Keep the weights at a stop if they are the best, in a file of their own.

        A fit that goes on has the best of the whole epochs again.
        """
        if insert_best(self.best_values[:1], value, self.watch.mode, 1) == 1:
            self.best_values = [value, *self.best_values][: self.keep]
            self._best_place, self._best_from = AT_STOP, None
            trainer.request_save(self._save_stopped)

    def _save_stopped(self, trainer: TrainerView) -> None:
        state = {**trainer.state_dict(), "history": to_plain(trainer.history.state_dict())}
        path = CheckpointStore(self.folder(trainer)).stopped
        in_main_process(trainer.runtime, "save its best state", save, path, state)

    def _lock_run(self, trainer: TrainerView) -> None:
        folder = self.folder(trainer)
        for other in trainer.callbacks[: trainer.callbacks.index(self)]:
            if isinstance(other, CheckCallback) and other.folder(trainer) == folder:
                raise ConfigError(
                    f"Two CheckCallbacks write to {folder}: give one of them another ckpt_dir."
                )
        in_main_process(trainer.runtime, "lock the run's folder", self.run_record.lock, folder)


def find_checkpoint(trainer: TrainerView, ckpt_dir: Path, start: Path) -> Path | str:
    """Return the run's folder or the file that ``resume`` selects, or why there is none."""
    asked = trainer.resume
    if asked is True or asked == "auto":
        return _find_run(trainer, ckpt_dir)
    if isinstance(asked, os.PathLike):
        return start / asked
    if isinstance(asked, str) and (os.sep in asked or "/" in asked or asked.endswith(".ckpt")):
        return start / asked
    folder = run_folder(ckpt_dir, asked)
    if not has_checkpoint(folder):
        raise CheckpointNotFound(
            f"resume={asked!r}: there is no checkpoint in {folder}. Runs with one: "
            f"{listed(resumable_runs(ckpt_dir)) or 'none'}."
        )
    return folder


def _find_run(trainer: TrainerView, ckpt_dir: Path) -> Path | str:
    """Return the folder of the run to go on with, or why there is none."""
    own = run_folder(ckpt_dir, trainer.running_id)
    if trainer.has_own_id and has_checkpoint(own):
        return own
    others = resumable_runs(ckpt_dir)
    if trainer.has_own_id and trainer.resume == "auto":
        if not others:
            return f"no checkpoint in {ckpt_dir}"
        return f"no checkpoint of running ID {own.name} in {ckpt_dir}, only of {listed(others)}"
    # The trials of a search must not go on with one another's run.
    used = use_here(ckpt_dir)
    if used and trainer.resume == "auto":
        return (
            "resume='auto' without a running_id resumes the newest run in the first trainer of a "
            "process only; give each trainer its own running_id"
        )
    newest = latest_run(ckpt_dir)
    if newest is None:
        return f"no checkpoint in {ckpt_dir}"
    if trainer.has_own_id:
        trainer.note(
            f"running ID {own.name} has no checkpoint yet: resume=True goes on from the newest run, "
            f"{newest.name}. resume='auto' would begin a new run."
        )
    return newest


def has_checkpoint(folder: Path) -> bool:
    return folder.is_dir() and any(folder.glob("*.ckpt"))


def resumable_runs(ckpt_dir: Path) -> list[str]:
    """Return the ids of the runs that have a checkpoint."""
    return sorted(path.name for path in ckpt_dir.glob("*") if has_checkpoint(path))


def insert_best(best: list[float], value: float, mode: str, keep: int) -> int | None:
    """Insert a value into the list of at most ``keep`` best values, and return its place from 1.

    It is ``None`` for NaN and for a value that is not among the best. Of equal values the earlier
    is better.
    """
    if value != value:  # NaN
        return None
    num_better = sum(not (value < other if mode == "min" else value > other) for other in best)
    if num_better >= keep:
        return None
    best.insert(num_better, value)
    del best[keep:]
    return num_better + 1
