"""Saves checkpoints, and stops a run that no longer improves.

::

    check = CheckCallback("loss", patience=5)
    trainer = Trainer(model, loss, opt, callbacks=check, running_id="mnist", resume="auto")
    trainer.fit(train_dl, val_dl)        # killed? Start the same script again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..arguments import check_choice, check_count
from ..checkpoint.store import CheckpointStore, latest_run, load
from ..errors import CallbackException, CheckpointError, CheckpointNotFound, ConfigError
from ..optim.monitor import Monitor
from ..runs.folder import run_folder
from .base import Metrics
from .run_record import RunRecordCallback

if TYPE_CHECKING:
    from ..contracts import TrainerView


class CheckCallback(RunRecordCallback):
    """Saves the state of the run, keeps the best states, and stops early.

    The run's folder has its record, ``checkpoint.ckpt`` (the last state), ``previous.ckpt`` and
    ``best.ckpt``. Each checkpoint has the whole state, so a resumed run has the same bits.
    The state is saved after every epoch, and when a signal or ``trainer.stop`` stops the
    fit. A test uses the best weights.

    Args:
        monitor: the metric that decides which state is best.
        on_stage: ``'val'`` (checked only after a validation) or ``'train'``.
        mode: ``'min'`` or ``'max'``.
        patience: stop after this many checks in a row without a strictly better value;
            0: never.
        save_best: a test loads the best weights; ``False``: it uses the present weights.
        ckpt_dir: the folder of the runs.
        every_n_batches: also save after every n-th training mini-batch.
        every_s: also save after a mini-batch if this many seconds have passed since the last
            save.
        keep: the number of best states to keep, as ``best.ckpt``, ``best-2.ckpt``, …

    Raises:
        ConfigError: an argument has a wrong value.
        CallbackException: in a run, the monitored metric does not exist.
    """

    order = -1
    holds_lock = True
    keeps_checkpoints = True

    def __init__(
        self,
        monitor: str = "loss",
        on_stage: str = "val",
        mode: str = "min",
        patience: int = 0,
        save_best: bool = True,
        ckpt_dir: str | os.PathLike[str] = "./logs",
        *,
        every_n_batches: int | None = None,
        every_s: float | None = None,
        keep: int = 1,
    ) -> None:
        super().__init__(ckpt_dir)
        if not isinstance(monitor, str) or not monitor:
            raise ConfigError(f"CheckCallback(monitor={monitor!r}): give the name of a metric.")
        self.monitor = monitor
        self.on_stage = check_choice("on_stage", on_stage, ["train", "val"])
        check_choice("mode", mode, ["min", "max"])
        self.watch = Monitor(mode, check_count("patience", patience))
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
        self._saved_at_s = 0.0

    @property
    def ckpt_dir(self) -> Path:
        """The folder of the runs."""
        return self.log_dir

    def save(self, trainer: TrainerView) -> None:
        """Write the trainer's state as the last one, and as a best one if it is."""
        place, self._best_place = self._best_place, None
        state = trainer.state_dict()  # in every process: each has a part of the state
        store = CheckpointStore(self.folder(trainer), self.keep)
        in_main_process(trainer, "save its checkpoint", store.save, state, place)
        self._has_saved = True
        self._saved_at_s = time.monotonic()

    def resume(self, trainer: TrainerView) -> None:
        """Load the checkpoint that the trainer's ``resume`` selects.

        Raises:
            CheckpointError: a checkpoint that was selected by name cannot be loaded.
        """
        source = trainer.runtime.gather_objects(
            find_checkpoint(trainer, self.ckpt_dir), "looks for a checkpoint"
        )[0]
        if source is None:
            trainer.print(f"no checkpoint in {self.ckpt_dir}: training starts anew")
            return
        if source.is_dir():
            trainer.print(f"loading checkpoint of running ID {source.name}")
        trainer.load_checkpoint(source)
        self._has_saved = True
        if source.is_dir():
            trainer.adopt_run(source.name)

    def on_before_fit(self, trainer: TrainerView, epochs: int) -> None:
        """Lock the run's folder; stop at once if the resumed run had already stopped early."""
        self._lock_run(trainer)
        super().on_before_fit(trainer, epochs)
        self._saved_at_s = time.monotonic()
        trainer.add_saver(self.save)
        if trainer.is_resumed:
            self._stop_if_exhausted(trainer)
        else:
            self.watch.renew()

    def on_after_train_batch(self, trainer: TrainerView, metrics: Metrics, batch_idx: int) -> None:
        n, s = self.every_n_batches, self.every_s
        if (n is not None and trainer.progress.num_train_batches % n == 0) or (
            s is not None and time.monotonic() - self._saved_at_s >= s
        ):
            trainer.request_save(self.save)

    def on_after_epoch(self, *, trainer: TrainerView, **others: Any) -> None:
        """Check the monitored metric, save, and stop if the patience is exhausted."""
        super().on_after_epoch(trainer=trainer, **others)
        if trainer.session is not None and trainer.session.has_metrics_of(self.on_stage):
            self._check(others[f"{self.on_stage}_metrics"])
            self._stop_if_exhausted(trainer)
        elif not others["val_tasks"]:
            raise CallbackException(
                f"CheckCallback monitors {self.monitor!r} of validation, and this fit does not "
                "validate. Give fit() a val_dl, or CheckCallback(on_stage='train')."
            )
        trainer.request_save(self.save)

    def on_before_test_epochs(self, trainer: TrainerView, tasks: Any) -> None:
        """Load the best weights of this run, unless the test runs inside a fit."""
        best = CheckpointStore(self.folder(trainer), self.keep).best()
        # Without a best value of this run, the file is from an earlier run with the same id.
        has_best = self.save_best and self._has_saved and self.best_values and best.exists()
        in_fit = trainer.session is not None and trainer.session.fit is not None
        if not has_best or in_fit:
            return
        trainer.print(f"loading best model from running ID {trainer.running_id}")
        trainer.load_weights(load(best))

    def state_dict(self) -> dict[str, Any]:
        return {"watch": self.watch.state_dict(), "best_values": list(self.best_values)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.watch.load_state_dict(state["watch"])
        self.best_values = [float(value) for value in state["best_values"]]

    def _check(self, values: Metrics) -> None:
        value = monitored_value(values, self.monitor, self.on_stage)
        self.watch.update(value)
        place = insert_best(self.best_values, value, self.watch.mode, self.keep)
        if place is not None:
            self._best_place = place

    def _stop_if_exhausted(self, trainer: TrainerView) -> None:
        if self.watch.exhausted:
            monitored = f"[{self.on_stage} {self.monitor}]"
            trainer.stop(f"Early stopping triggered, by monitoring {monitored}!")

    def _lock_run(self, trainer: TrainerView) -> None:
        folder = self.folder(trainer)
        for other in trainer.callbacks[: trainer.callbacks.index(self)]:
            if isinstance(other, CheckCallback) and other.folder(trainer) == folder:
                raise ConfigError(
                    f"Two CheckCallbacks write to {folder}: give one of them another ckpt_dir."
                )
        in_main_process(trainer, "lock the run's folder", self.lock, folder)


def in_main_process(
    trainer: TrainerView, purpose: str, action: Callable[..., object], *arguments: Any
) -> None:
    """Call a function in the main process; if it fails, raise in every process."""
    error: CheckpointError | None = None
    if trainer.main_process:
        try:
            action(*arguments)
        except CheckpointError as fault:
            error = fault
    if trainer.runtime.any(error is not None, f"asks the main process to {purpose}"):
        raise error or CheckpointError(f"The main process could not {purpose}.")


def find_checkpoint(trainer: TrainerView, ckpt_dir: Path) -> Path | None:
    """Return the run's folder or the file that ``resume`` selects; ``None``: start a new run."""
    asked = trainer.resume
    if asked is True or asked == "auto":
        own = run_folder(ckpt_dir, trainer.running_id)
        if trainer.has_own_id and (asked == "auto" or has_checkpoint(own)):
            return own if has_checkpoint(own) else None
        return latest_run(ckpt_dir)
    if isinstance(asked, str) and (os.sep in asked or "/" in asked or asked.endswith(".ckpt")):
        return Path(asked)
    folder = run_folder(ckpt_dir, asked)
    if not has_checkpoint(folder):
        runs = sorted(path.name for path in ckpt_dir.glob("*") if has_checkpoint(path))
        raise CheckpointNotFound(
            f"resume={asked!r}: there is no checkpoint in {folder}. Runs with one: "
            f"{', '.join(runs) or 'none'}."
        )
    return folder


def has_checkpoint(folder: Path) -> bool:
    return folder.is_dir() and any(folder.glob("*.ckpt"))


def monitored_value(values: Mapping[str, Any], monitor: str, stage: str) -> float:
    """Return the monitored metric; raise ``CallbackException`` unless it is a single number."""
    if monitor not in values:
        raise CallbackException(
            f"CheckCallback monitors {monitor!r}, which {stage} does not have; it has "
            f"{', '.join(values) or 'nothing'}."
        )
    value = np.asarray(values[monitor])
    if value.size != 1:
        raise CallbackException(
            f"CheckCallback monitors {monitor!r}, which has {value.size} entries: monitor a single "
            "number."
        )
    return float(value.item())


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
