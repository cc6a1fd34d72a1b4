"""``run.json``: how a run stands, for ``deepepochs runs`` and for reports.

::

    trainer = Trainer(model, loss, opt, callbacks=RunRecordCallback())
    trainer.fit(train_dl, val_dl)       # logs/<running_id>/run.json and metrics.csv
"""

from __future__ import annotations

import os
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import RunLockedError
from ..runs.folder import run_folder
from ..runs.lock import RunLock
from ..runs.record import RECORD, TABLE, mapping, plain, read_json, write_json
from .base import Callback
from .metrics_file import MetricsFile
from .run_facts import describe

if TYPE_CHECKING:
    from ..contracts import TrainerView

__all__ = ["RunRecordCallback"]

MAX_WARNINGS = 50
"""Different warnings that a record keeps."""


class RunRecordCallback(Callback):
    """Keeps ``run.json`` and ``metrics.csv`` in the folder of a run.

    They hold how the run stands (running, finished, interrupted, failed), its metrics and
    learning rates, its hyper-parameters, model, machine and versions, and the warnings it
    met. The record is replaced as a whole at the beginning, after each epoch and at the
    end, and only watches: weights, metrics and random states are those of a run without.

    Every callback that keeps files of a run is such a callback too; of several with one
    folder the first writes.

    Args:
        log_dir: the folder of the runs; the files are in ``<log_dir>/<running_id>``.
    """

    holds_lock = False
    """Whether the callback locks the run's folder by itself."""

    def __init__(self, log_dir: str | os.PathLike[str] = "./logs") -> None:
        super().__init__()
        self.log_dir = Path(log_dir)
        self._record: dict[str, Any] = {}
        self._is_recording = False
        self._record_table: MetricsFile | None = None
        self._record_lock: RunLock | None = None
        self._warnings = WarningList()
        self._epoch_began_s = self._pass_began_s = 0.0

    @property
    def runs_in(self) -> Path:
        """The folder of the runs."""
        return self.log_dir

    def record_folder(self, trainer: TrainerView) -> Path:
        """The folder of the trainer's run."""
        return run_folder(self.log_dir, trainer.running_id)

    def is_the_recorder(self, trainer: TrainerView) -> bool:
        """Whether this callback writes: one that locks comes first, then the first in line."""
        same = [
            callback
            for callback in trainer.callbacks
            if isinstance(callback, RunRecordCallback) and callback.log_dir == self.log_dir
        ]
        return min(same, key=lambda callback: not callback.holds_lock) is self

    def on_before_fit(self, trainer: TrainerView, epochs: int) -> None:
        """Write that the run is running, and the table as far as it goes."""
        if not trainer.main_process or not self.is_the_recorder(trainer):
            return
        folder = self.record_folder(trainer)
        if not self.holds_lock:
            self._record_lock = RunLock(folder)
            try:
                self._record_lock.acquire()
            except RunLockedError as error:
                warnings.warn(f"This run is not recorded: {error}", RuntimeWarning, stacklevel=2)
                return
        goes_on = (
            trainer.session is not None and trainer.session.is_inside_epoch
        )  # resumed inside an epoch, whose rates are known
        earlier = read_json(folder / RECORD) if trainer.init_epoch or goes_on else {}
        now = _now()
        self._epoch_began_s = self._pass_began_s = time.perf_counter()
        self._record = {
            "schema": 1,
            "state": "running",
            "started_at": earlier.get("started_at", now),
            **describe(trainer),
            "epochs_done": trainer.init_epoch,
            "fits": [*_list(earlier, "fits"), {"started_at": now, "from": trainer.init_epoch + 1}],
            "rates": _list(earlier, "rates")[: trainer.init_epoch + goes_on],
            "seconds": mapping(earlier, "seconds"),
            "test": mapping(earlier, "test"),
            "warnings": _list(earlier, "warnings"),
        }
        self._is_recording = True
        self._warnings.begin(self._record["warnings"])
        self._record_table = MetricsFile(folder / TABLE, trainer.history)
        self._write(trainer)

    def on_before_epoch(self, trainer: TrainerView, **others: Any) -> None:
        """Note the learning rates."""
        self._epoch_began_s = time.perf_counter()
        if self._is_recording:
            self._record["rates"].append(plain(trainer.opt.get_current_lr()))

    def on_before_train_epochs(self, **others: Any) -> None:
        """Note the time."""
        self._pass_began_s = time.perf_counter()

    def on_after_train_epochs(self, **others: Any) -> None:
        """Add up the time of training."""
        if self._is_recording:
            self._add_seconds("training", time.perf_counter() - self._pass_began_s)

    def on_before_val_epochs(self, **others: Any) -> None:
        """Note the time."""
        self._pass_began_s = time.perf_counter()

    def on_after_val_epochs(self, **others: Any) -> None:
        """Add up the time of validation."""
        if self._is_recording:
            self._add_seconds("validation", time.perf_counter() - self._pass_began_s)

    def on_after_epoch(
        self,
        *,
        trainer: TrainerView,
        train_metrics: Any,
        val_metrics: Any,
        epoch_idx: int,
        **others: Any,
    ) -> None:
        """Add the epoch to the table, and replace the record."""
        if self._is_recording:
            if self._record_table is not None:
                self._record_table.add(epoch_idx, train_metrics, val_metrics)
            self._record["epochs_done"] = epoch_idx + 1
            self._add_seconds("epochs", time.perf_counter() - self._epoch_began_s)
            self._write(trainer)

    def on_after_fit(self, trainer: TrainerView) -> None:
        """Write how the fit ended."""
        self._end(trainer, "interrupted" if trainer.is_interrupted else "finished")

    def on_exception(self, trainer: TrainerView, exception: BaseException) -> None:
        """Write that the fit failed, and of what."""
        if self._is_recording:
            text = str(exception).strip().split("\n")[0]
            self._record["error"] = plain(f"{type(exception).__name__}: {text}")
            interrupted = isinstance(exception, (KeyboardInterrupt, SystemExit))
            self._end(trainer, "interrupted" if interrupted else "failed")

    def on_after_test_epochs(self, trainer: TrainerView, tasks: Any, metrics: Any) -> None:
        """Add the metrics of the test."""
        if not trainer.main_process or not self.is_the_recorder(trainer):
            return
        if not self._record:
            self._record = read_json(self.record_folder(trainer) / RECORD)
        if not self._record:
            now = _now()
            self._record = {"schema": 1, "state": "finished", "started_at": now}
            self._record.update(describe(trainer))
        self._record["test"] = plain(dict(metrics))
        self._write(trainer)

    def record(self, trainer: TrainerView) -> dict[str, Any]:
        """The record as it stands; that of a trainer which was not recorded is made now."""
        return self._record or describe(trainer)

    def _write(self, trainer: TrainerView) -> None:
        self._record["updated_at"] = _now()
        if trainer.history.timing:
            self._record["timing"] = plain(trainer.history.timing)
        write_json(self.record_folder(trainer) / RECORD, self._record)

    def _end(self, trainer: TrainerView, state: str) -> None:
        if not self._is_recording:
            return
        self._is_recording = False
        self._warnings.end()
        self._record["state"] = state
        self._record["reason"] = plain(trainer.stop_reason)
        self._record["fits"][-1].update(
            ended_at=_now(), to=self._record["epochs_done"], state=state
        )
        self._write(trainer)
        if self._record_lock is not None:
            self._record_lock.release()
            self._record_lock = None

    def _add_seconds(self, part: str, seconds: float) -> None:
        spent = self._record["seconds"]
        spent[part] = round(spent.get(part, 0.0) + seconds, 3)


class WarningList:
    """Copies the warnings that are shown, each once, into a list.

    >>> texts = []
    >>> met = WarningList()
    >>> with warnings.catch_warnings(record=True):
    ...     warnings.simplefilter("always")
    ...     met.begin(texts)
    ...     warnings.warn("rather slow", stacklevel=1)
    ...     met.end()
    >>> texts
    ['UserWarning: rather slow']
    """

    def __init__(self) -> None:
        self._texts: list[Any] = []
        self._outer: Any = None
        self._own: Any = None

    def begin(self, texts: list[Any]) -> None:
        """Add to a list the text of every warning from now on."""
        self._texts, self._outer = texts, warnings.showwarning
        outer = self._outer

        def show(message: Any, category: type[Warning], *place: Any, **others: Any) -> None:
            text = plain(f"{category.__name__}: {message}")
            if text not in self._texts and len(self._texts) < MAX_WARNINGS:
                self._texts.append(text)
            outer(message, category, *place, **others)

        self._own = warnings.showwarning = show

    def end(self) -> None:
        """Put back what showed warnings, unless somebody else has taken its place."""
        if warnings.showwarning is self._own:
            warnings.showwarning = self._outer
        self._texts = []


def _list(record: dict[str, Any], name: str) -> list[Any]:
    value = record.get(name)
    return list(value) if isinstance(value, list) else []


def _now() -> str:
    """The time, to the second, with its distance from UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
