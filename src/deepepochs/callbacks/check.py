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

from ..arguments import check_choice, check_count
from ..checkpoint.file import listed
from ..checkpoint.store import CheckpointStore, latest_run, load, save
from ..errors import CheckpointNotFound, ConfigError, warn_user
from ..nest.codec import to_plain
from ..optim.monitor import Monitor
from ..runs.folder import run_folder
from ..runs.ownership import use_here
from ..runtime.base import in_main_process, together
from .base import Callback, Metrics
from .monitored import MonitoredMetric
from .run_record import RunRecordCallback

if TYPE_CHECKING:
    from ..contracts import TrainerView


AT_STOP = 0  # the place of the best state if a fit has stopped with it inside an epoch


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
    ) -> None:
        super().__init__()
        self.run_record = RunRecordCallback(ckpt_dir)
        if not isinstance(monitor, str) or not monitor:
            raise ConfigError(f"CheckCallback(monitor={monitor!r}): give the name of a metric.")
        self.on_stage = check_choice("on_stage", on_stage, ["train", "val"])
        if mode is not None:
            check_choice("mode", mode, ["min", "max"])
        self.patience = check_count("patience", patience)
        self.metric = MonitoredMetric(type(self).__name__, monitor, on_stage, mode)
        # Where the mode is not given, a fit sets it.
        self.watch = Monitor(mode or "min", self.patience)
        self.save_best = save_best
        if every_n_batches is not None:
            check_count("every_n_batches", every_n_batches, 1)
        if every_s is not None and not every_s > 0:
            raise ConfigError(f"CheckCallback(every_s={every_s!r}): give a positive number.")
        self.every_n_batches = every_n_batches
        self.every_s = every_s
        self.keep = check_count("keep", keep, 1)
        self.best_values: list[float] = []
        self._best_place: int | None = None
        self._has_saved = False
        self._is_other = False  # the user has loaded other weights since the last save
        self._source: Path | None = None  # the folder of the run that was loaded
        self._best_from: Path | None = None  # the folder of another run that has made the best
        self._told = ""
        self._saved_at_s = 0.0
        self._start = Path.cwd()  # a relative path to resume starts here

    @property
    def companions(self) -> tuple[Callback, ...]:
        """The record of the run."""
        return (self.run_record,)

    @property
    def monitor(self) -> str:
        """The name of the metric that decides which state is best."""
        return self.metric.name

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

        def write() -> None:
            if self._source is not None:
                store.take_best(self._source)
            store.save(state, place)
            if place is not None and self.keep > 1:
                store.drop_best(len(self.best_values))  # those of another monitor

        in_main_process(trainer.runtime, "save its checkpoint", write)
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
        is_known = trainer.is_resumed and self.watch.best is not None
        self.metric.begin(trainer, session, self.watch.mode if is_known else None)

    def on_before_fit(self, trainer: TrainerView, epochs: int) -> None:
        """Lock the run's folder; stop at once if the resumed run had already stopped early."""
        self._lock_run(trainer)
        self._begin_run(trainer, self.metric.mode or "min")
        self._saved_at_s = time.monotonic()
        trainer.add_saver(self.save)
        if trainer.is_resumed:
            self._stop_if_exhausted(trainer)
        else:
            self.watch.renew()
            if self._best_place == AT_STOP:
                store = CheckpointStore(self.folder(trainer), self.keep)
                in_main_process(trainer.runtime, "keep its best state", store.keep_stopped)
                self._best_place = None
            if self._has_saved and trainer.init_epoch:
                store = CheckpointStore(self.folder(trainer), self.keep)
                in_main_process(trainer.runtime, "keep the last checkpoint", store.keep_fit)

    def on_after_train_batch(self, trainer: TrainerView, metrics: Metrics, batch_idx: int) -> None:
        if self.metric.looks:
            self.metric.look(trainer, metrics)
        n, s = self.every_n_batches, self.every_s
        if n is not None and trainer.progress.num_train_batches % n == 0:
            trainer.request_save(self.save, everywhere=True)
        elif s is not None and time.monotonic() - self._saved_at_s >= s:
            trainer.request_save(self.save)

    def on_after_val_batch(self, trainer: TrainerView, metrics: Metrics, batch_idx: int) -> None:
        if self.metric.looks:
            self.metric.look(trainer, metrics)

    def on_after_val_epochs(self, trainer: TrainerView, metrics: Metrics, **others: Any) -> None:
        """Check the monitored metric in a validation within an epoch, too."""
        session = trainer.session
        if self.on_stage == "val" and session is not None and session.is_within:
            self._check(self.metric.value(session.plan, metrics))
            self._stop_if_exhausted(trainer)
            trainer.request_save(self.save, everywhere=True)

    def on_after_epoch(self, *, trainer: TrainerView, epoch_idx: int, **others: Any) -> None:
        """Check the monitored metric, save, and stop if the patience is exhausted."""
        session, is_part = trainer.session, epoch_idx in trainer.history.partial
        if session is not None and session.has_metrics_of(self.on_stage):
            value = self.metric.value(session.plan, others[f"{self.on_stage}_metrics"])
            if is_part:
                self._check_part(trainer, value)
            else:
                self._check(value)
                self._stop_if_exhausted(trainer)
        if not is_part:  # the state was saved where the fit was stopped
            trainer.request_save(self.save)

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

    def state_dict(self) -> dict[str, Any]:
        return {
            "monitor": self.monitor,
            "on_stage": self.on_stage,
            "watch": self.watch.state_dict(),
            "best_values": list(self.best_values),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        # Files of earlier versions have no name and no stage.
        monitor = state.get("monitor", self.monitor), state.get("on_stage", self.on_stage)
        watch = Monitor(state["watch"]["mode"], self.patience)
        watch.load_state_dict(state["watch"])
        if monitor != (self.monitor, self.on_stage):
            there = f"is of {monitor[1]} {monitor[0]!r}"
            here = f"monitors {self.on_stage} {self.monitor!r}"
            self._begin_anew(watch, self.metric.mode, there, here)
        elif self.metric.mode not in (None, watch.mode):
            self._set_mode(watch, self.metric.mode)
        else:
            self.watch = watch
            self.best_values = [float(value) for value in state["best_values"]]
            self._best_place = None

    def _begin_run(self, trainer: TrainerView, mode: str) -> None:
        """Go on with the best of the run that is resumed, or begin without any."""
        if trainer.is_resumed or trainer.is_fit_run:
            if self.watch.mode != mode:
                self._set_mode(self.watch, mode)
        else:  # the callback may have been another trainer's before
            self.watch = Monitor(mode, self.patience)
            self.best_values, self._best_place, self._best_from = [], None, None
            self._source = None

    def _set_mode(self, watch: Monitor, mode: str | None) -> None:
        there, here = f"was found with mode={watch.mode!r}", f"has mode={mode!r}"
        self._begin_anew(watch, mode, there, here)

    def _begin_anew(self, watch: Monitor, mode: str | None, there: str, here: str) -> None:
        """Reset the best value, with a warning: the saved one is of another metric."""
        text = f"{there}, and this CheckCallback {here}"
        if watch.best is not None and text != self._told:
            self._told = text  # a state may be loaded twice
            warn_user(
                f"The saved best value, {watch.best:.4g}, {text}. The best value is reset: the next "
                "check overwrites best.ckpt.",
                UserWarning,
            )
        self.watch = Monitor(mode or "min", self.patience)
        self.best_values = []

    def _note_source(self, path: Path) -> None:
        self._source = (path if path.is_dir() else path.parent).absolute()

    def _check(self, value: float) -> None:
        self.watch.update(value)
        place = insert_best(self.best_values, value, self.watch.mode, self.keep)
        if place is not None:
            self._best_place = place
        if place == 1:
            self._best_from = None

    def _check_part(self, trainer: TrainerView, value: float) -> None:
        """Keep the weights at the stop if they are the best, in a file of their own.

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

    def _stop_if_exhausted(self, trainer: TrainerView) -> None:
        if self.watch.exhausted:
            trainer.stop(self._told_of_stop(trainer))

    def _told_of_stop(self, trainer: TrainerView) -> str:
        """Say which metric was no better, for how long, and when it was best."""
        watch, history = self.watch, trainer.history
        epochs = history.epochs if self.on_stage == "train" else history.val_epochs
        unit = "epoch" if len(epochs) == len(history.epochs) else "validation"
        many = f"{watch.num_bad} {unit}{'' if watch.num_bad == 1 else 's'}"
        text = f"{self.on_stage} {self.monitor} was no better for {many}"
        if watch.best is None or watch.best_step is None:
            return text
        since = watch.num_steps - watch.best_step
        where = f" in epoch {epochs[-since] + 1}" if since <= len(epochs) else ""
        return f"{text} (best {watch.best:.4g}{where})"

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
    return latest_run(ckpt_dir) or f"no checkpoint in {ckpt_dir}"


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
