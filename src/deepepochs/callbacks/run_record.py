"""Records a run in two files, for ``deepepochs runs`` and for reports.

``run.json`` says how the run stands. ``metrics.csv`` has a row for each epoch.

::

    trainer = Trainer(model, loss, opt, callbacks=RunRecordCallback())
    trainer.fit(train_dl, val_dl)       # logs/<running_id>/run.json and metrics.csv
"""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..checkpoint.writer import settle
from ..files.atomic import replacing
from ..history import History
from ..hooks import with_companions
from ..runs.disk_faults import DiskFaults
from ..runs.folder import run_folder
from ..runs.lock import RunLock
from ..runs.record import RECORD, TABLE, VALIDATIONS, entries, mapping, plain, read_json, write_json
from ..show.screens import spread
from .base import Callback, follows_stop, is_within
from .run_facts import describe
from .warning_lists import WARNINGS

if TYPE_CHECKING:
    from ..contracts import TrainerView


class RunRecordCallback(Callback):
    """Writes ``run.json`` and ``metrics.csv`` to the folder of a run.

    With ``val_every`` there is also ``validations.csv``, with a row for each validation.

    They hold the state of the run (running, finished, interrupted, failed), its metrics and
    learning rates, its hyper-parameters, model, machine and versions, and its warnings. The
    record is written at the beginning, after each epoch and at the end. If a write fails later
    than at the beginning, there is one warning, and the run goes on. The callback changes no
    weights, metrics or random states.

    ``CheckCallback``, ``LogCallback`` and ``ReportCallback`` keep the record as well. If several
    callbacks keep it in one folder, only one writes: that of a ``CheckCallback``, or else the
    first.

    Args:
        log_dir: the folder of the runs; the files are in ``<log_dir>/<running_id>``.
    """

    def __init__(self, log_dir: str | os.PathLike[str] = "./logs") -> None:
        super().__init__()
        self.log_dir = Path(log_dir).absolute()
        self._record: dict[str, Any] = {}
        self._table: MetricsFile | None = None  # while the run is recorded
        self._lock: RunLock | None = None
        self._record_faults = DiskFaults("the record of the run")
        self._epoch_began_s = self._pass_began_s = 0.0

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_lock": None, "_table": None}

    @property
    def runs_in(self) -> Path:
        return self.log_dir

    def folder(self, trainer: TrainerView) -> Path:
        """The folder of the trainer's run."""
        return run_folder(self.log_dir, trainer.running_id)

    def lock(self, folder: Path) -> None:
        """Lock the run's folder until the fit ends; raise ``CheckpointError`` if that fails."""
        lock = RunLock(folder)
        lock.acquire()
        self._lock = lock

    def is_the_recorder(self, trainer: TrainerView) -> bool:
        """Whether this callback writes the record: the first of those with its folder."""
        return next(one for one in recorders(trainer) if one.log_dir == self.log_dir) is self

    def on_before_fit(self, trainer: TrainerView, epochs: int) -> None:
        if not trainer.main_process or not self.is_the_recorder(trainer):
            return
        folder = self.folder(trainer)
        if self._lock is None:  # no CheckCallback has locked it
            self.lock(folder)
        # If the run resumes inside an epoch, the earlier record has the rates of that epoch.
        is_inside_epoch = trainer.session is not None and trainer.session.epoch_idx is not None
        is_resumed = trainer.init_epoch > 0 or is_inside_epoch
        earlier = read_json(folder / RECORD) if is_resumed else {}
        now = _now()
        self._epoch_began_s = self._pass_began_s = time.perf_counter()
        self._record = {
            "schema": 1,
            "state": "running",
            "started_at": earlier.get("started_at", now),
            **describe(trainer),
            "has_own_id": earlier.get("has_own_id", trainer.has_own_id),
            "epochs_done": trainer.init_epoch,
            "fits": [
                *entries(earlier, "fits"),
                {"started_at": now, "from": trainer.init_epoch + 1},
            ],
            "rates": entries(earlier, "rates")[: trainer.init_epoch + is_inside_epoch],
            "seconds": mapping(earlier, "seconds"),
            "test": mapping(earlier, "test"),
            "warnings": entries(earlier, "warnings"),
            **({"findings": earlier["findings"]} if "findings" in earlier else {}),
        }
        self._table = MetricsFile(folder / TABLE, trainer.history)
        WARNINGS.add(self._record["warnings"])
        self._table.begin()
        self._write(trainer)

    def on_before_epoch(self, trainer: TrainerView, **others: Any) -> None:
        self._epoch_began_s = time.perf_counter()
        # Called again at a resume inside the epoch, whose rates are there already.
        if self._table is not None and len(self._record["rates"]) <= trainer.init_epoch:
            self._record["rates"].append(plain(trainer.opt.get_current_lr()))

    def on_before_train_epochs(self, **others: Any) -> None:
        self._pass_began_s = time.perf_counter()

    def on_before_val_epochs(self, trainer: TrainerView, **others: Any) -> None:
        if not is_within(trainer):
            self._pass_began_s = time.perf_counter()

    def on_after_train_epochs(self, **others: Any) -> None:
        self._add_seconds("training", self._pass_began_s)

    def on_after_val_epochs(self, trainer: TrainerView, **others: Any) -> None:
        if not is_within(trainer):
            self._add_seconds("validation", self._pass_began_s)
        elif self._table is not None:  # by val_every, or after a stop
            with self._record_faults.survived():
                if trainer.limits.val_every is not None:
                    write_validations(self.folder(trainer) / VALIDATIONS, trainer.history)
                if follows_stop(trainer):
                    self._table.begin()  # the row of the epoch has the values now

    def on_after_epoch(self, *, trainer: TrainerView, epoch_idx: int, **others: Any) -> None:
        if self._table is not None:
            part = trainer.history.partial.get(epoch_idx)
            self._record["epochs_done"] = epoch_idx + (part is None)
            self._add_seconds("epochs", self._epoch_began_s)
            with self._record_faults.survived():
                self._table.add(epoch_idx, others["train_metrics"], others["val_metrics"], part)
                if trainer.limits.val_every is not None and others["val_metrics"]:
                    write_validations(self.folder(trainer) / VALIDATIONS, trainer.history)
                self._write(trainer)

    def on_after_fit(self, trainer: TrainerView) -> None:
        self._end(trainer, "interrupted" if trainer.is_interrupted else "finished")

    def on_exception(self, trainer: TrainerView, exception: BaseException) -> None:
        if self._table is not None:
            text = str(exception).strip().split("\n")[0]
            self._record["error"] = plain(f"{type(exception).__name__}: {text}")
        is_interrupted = isinstance(exception, (KeyboardInterrupt, SystemExit))
        self._end(trainer, "interrupted" if is_interrupted else "failed")

    def on_after_test_epochs(self, trainer: TrainerView, tasks: Any, metrics: Any) -> None:
        if not trainer.main_process or not self.is_the_recorder(trainer):
            return
        if not self._record:
            self._record = read_json(self.folder(trainer) / RECORD)
        if not self._record:
            start = {"schema": 1, "state": "finished", "started_at": _now()}
            self._record = start | describe(trainer)
        self._record["test"] = plain(dict(metrics))
        with self._record_faults.survived():
            self._write(trainer)

    def record(self, trainer: TrainerView) -> dict[str, Any]:
        """Return the present record; it is made now if the trainer was not recorded."""
        return {**(self._record or describe(trainer)), **findings_of(trainer)}

    def _write(self, trainer: TrainerView) -> None:
        self._record["updated_at"] = _now()
        parts = {str(epoch_idx + 1): part for epoch_idx, part in trainer.history.partial.items()}
        self._record["partial"] = plain(parts)
        self._record |= findings_of(trainer)
        if trainer.history.timing:
            self._record["timing"] = plain(trainer.history.timing)
        write_json(self.folder(trainer) / RECORD, self._record)

    def _end(self, trainer: TrainerView, state: str) -> None:
        if self._table is not None:
            self._table = None
            WARNINGS.remove(self._record["warnings"])
            self._record["state"] = state
            self._record["reason"] = plain(trainer.stop_reason)
            done = self._record["epochs_done"]
            self._record["fits"][-1].update(ended_at=_now(), to=done, state=state)
            with self._record_faults.survived():
                self._write(trainer)
        if self._lock is not None:
            settle()  # the folder is not another's before all is written
            self._lock.release()
            self._lock = None

    def _add_seconds(self, part: str, since_s: float) -> None:
        if self._table is not None:
            spent = self._record["seconds"]
            spent[part] = round(spent.get(part, 0.0) + time.perf_counter() - since_s, 3)


def recorders(trainer: TrainerView) -> list[RunRecordCallback]:
    """Give the callbacks that keep the record, first that of a ``CheckCallback``.

    It locks the folder, for all processes, before any callback writes to it.
    """
    first = sorted(trainer.callbacks, key=lambda callback: not callback.keeps_checkpoints)
    return [one for one in with_companions(first) if isinstance(one, RunRecordCallback)]


def findings_of(trainer: TrainerView) -> dict[str, Any]:
    """Give the entry of the record for what ``trainer.check`` has found; ``{}`` without a check."""
    if trainer.findings is None:
        return {}
    return {"findings": [dict(finding._asdict()) for finding in trainer.findings]}


class MetricsFile:
    """``metrics.csv``: the columns of `History.to_csv`, and a row that is added after each epoch.

    A new file has the epochs of the history, so a resumed run has no rows after the checkpoint.
    """

    def __init__(self, path: Path, history: History) -> None:
        self.path = path
        self._history = history
        self._columns: list[str] = []

    def begin(self) -> None:
        """Write the epochs that are done, or remove the file of an earlier run."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self._history.epochs:
            self._rewrite()
        else:
            self.path.unlink(missing_ok=True)

    def add(
        self,
        epoch_idx: int,
        train: Mapping[str, Any],
        val: Mapping[str, Any],
        part: float | None = None,
    ) -> None:
        """Add the row of an epoch, or of a part of one, that the history already has."""
        cells = {"epoch": str(epoch_idx + 1)}
        if part is not None:
            cells["part"] = str(part)
        for stage, metrics in (("train", train), ("val", val)):
            cells.update((f"{stage}_{name}", str(value)) for name, value in spread(metrics))
        if not cells.keys() <= set(self._columns):
            self._rewrite()
            return
        # What was not computed is nan, as in the history; a stage that did not run is blank.
        blanks = {
            "epoch": "",
            "part": "",
            "train": "nan" if train else "",
            "val": "nan" if val else "",
        }
        row = [cells.get(column, blanks[column.partition("_")[0]]) for column in self._columns]
        with self.path.open("a", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow(row)

    def _rewrite(self) -> None:
        with replacing(self.path) as fresh:
            self._history.to_csv(fresh)
            with fresh.open(encoding="utf-8", newline="") as file:
                self._columns = next(csv.reader(file))


def write_validations(path: Path, history: History) -> None:
    """Write a row for each validation, with its optimizer step: an epoch may have several."""
    rows = zip(*history["val"].values(), strict=True)
    places = zip(history.steps["val"], history.val_epochs, strict=True)
    with replacing(path) as fresh, fresh.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["step", "epoch", *(f"val_{name}" for name in history["val"])])
        for (step, epoch_idx), values in zip(places, rows, strict=True):
            writer.writerow([step, epoch_idx + 1, *values])


def _now() -> str:
    """The local time with its offset from UTC, exact enough to order runs of one second."""
    return datetime.now().astimezone().isoformat(timespec="milliseconds")
