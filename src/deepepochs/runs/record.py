"""Reads and writes the files in a run's folder that say what the run did.

``run.json`` has plain values about the run, ``metrics.csv`` a row for each epoch, and
``pictures.json`` the pictures of a report. Content that is missing, torn or of another shape
is left out, and the rest is read.
"""

from __future__ import annotations

import contextlib
import csv
import json
import math
import os
import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from ..errors import CheckpointNotFound
from ..files.atomic import write_text
from ..show.screens import spread
from .lock import is_locked

RECORD, TABLE, PICTURES = "run.json", "metrics.csv", "pictures.json"
VALIDATIONS = "validations.csv"  # those of `val_every`, by optimizer step
REPORT = "report.html"
EVENTS = "events.out.tfevents.*"  # the files of TensorBoard
STATES = ("finished", "interrupted", "running", "failed", "killed", "unknown")
MAX_TEXT = 300  # characters that are kept of a value that is written as text

Curve = list[tuple[int, float]]
"""Pairs of the number of an epoch, from 1, and a value."""


class Best(NamedTuple):
    """The best epoch of a run, by the metric that it monitors, or else by its loss.

    Attributes:
        stage: ``'train'`` or ``'val'``.
        name: the metric.
        epoch: its number, from 1.
        value: the value of the metric.
        mode: ``'min'`` or ``'max'``.
    """

    stage: str
    name: str
    epoch: int
    value: float
    mode: str


class RunInfo(NamedTuple):
    """What the folder of a run says about it.

    Attributes:
        running_id: its id.
        state: one of `STATES`. A ``'killed'`` run's process died and recorded no end; an
            ``'unknown'`` run has no record.
        record: the content of ``run.json``; empty if there is none.
        curves: ``{'train': {name: curve}, 'val': ...}``.
        pictures: the content of ``pictures.json``.
        folder: its folder; ``None`` for the run of a living trainer.
    """

    running_id: str
    state: str
    record: dict[str, Any]
    curves: dict[str, dict[str, Curve]]
    pictures: dict[str, Any]
    folder: Path | None = None

    @property
    def hyper_params(self) -> dict[str, Any]:
        """Its hyper-parameters by name."""
        return mapping(self.record, "hyper_params")

    @property
    def num_epochs(self) -> int:
        """Number of the last epoch in the curves."""
        epochs = [epoch for table in self.curves.values() for c in table.values() for epoch, _ in c]
        return max(epochs, default=0)

    @property
    def metrics(self) -> list[str]:
        """The names of its metrics, in the order of its curves."""
        return list(dict.fromkeys(name for table in self.curves.values() for name in table))

    @property
    def epochs_done(self) -> int:
        """Number of epochs that are done."""
        done = self.record.get("epochs_done")
        return done if isinstance(done, int) else self.num_epochs

    def epoch_text(self, epoch: int) -> str:
        """The number of an epoch, and the share that was trained of one that was stopped."""
        try:
            part = float(mapping(self.record, "partial")[str(epoch)])
        except (KeyError, TypeError, ValueError):
            return str(epoch)
        return f"{epoch} ({'part' if math.isnan(part) else f'{part:.0%}'})"

    @property
    def seconds(self) -> float | None:
        """The time of all its epochs."""
        spent = mapping(self.record, "seconds").get("epochs")
        return float(spent) if isinstance(spent, (int, float)) else None

    @property
    def findings(self) -> list[tuple[str, str, str]] | None:
        """Severity, text and remedy of what ``trainer.check`` has found; ``None``: not checked."""
        found = self.record.get("findings")
        if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
            return None
        return [(str(f.get("severity")), str(f.get("text")), str(f.get("remedy"))) for f in found]

    @property
    def outcome(self) -> str:
        """Its state, or ``'stopped'`` if it finished before its last epoch, as by early stopping."""
        is_stopped = self.state == "finished" and self.record.get("reason")
        is_early = self.epochs_done != self.record.get("max_epochs")
        return "stopped" if is_stopped and is_early else self.state

    @property
    def started(self) -> datetime | None:
        """When it began; without a record, when the oldest of its files was written."""
        if (recorded := moment(self.record.get("started_at"))) is not None:
            return recorded
        with contextlib.suppress(OSError, TypeError):
            times = [path.stat().st_mtime for path in (self.folder or Path()).iterdir()]
            if self.folder is not None and times:
                return datetime.fromtimestamp(min(times)).astimezone()
        return None

    @property
    def tested(self) -> dict[str, float]:
        """The results of its last test, an entry of a vector as ``name[0]``."""
        found: dict[str, float] = {}
        for name, value in mapping(self.record, "test").items():
            with contextlib.suppress(TypeError, ValueError):
                # NaN is text in JSON.
                numbers = np.array(value, dtype=object).astype(float)
                found |= {entry: float(number) for entry, number in spread({name: numbers})}
        return found

    def best(self) -> Best | None:
        """The best epoch, if there is one."""
        monitor = mapping(self.record, "monitor")
        name = str(monitor.get("name", "loss"))
        mode = "max" if monitor.get("mode") == "max" else "min"
        for stage in (str(monitor["stage"]),) if "stage" in monitor else ("val", "train"):
            points = [point for point in self.curves.get(stage, {}).get(name, []) if finite(point)]
            if points:
                sign = -1 if mode == "max" else 1
                epoch, value = min(points, key=lambda point: sign * point[1])
                return Best(stage, name, epoch, value, mode)
        return None


def read_run(folder: str | os.PathLike[str]) -> RunInfo:
    """Read the folder of a run; raises `CheckpointNotFound` if it is missing."""
    root = Path(folder)
    if not root.is_dir():
        raise CheckpointNotFound(f"There is no folder {root}: give the folder of a run.")
    record = read_json(root / RECORD)
    state = str(record.get("state"))
    if state not in STATES:
        state = "unknown"
    if state == "running" and not is_locked(root):
        state = "killed"
    curves, pictures = read_table(root / TABLE), read_json(root / PICTURES)
    return RunInfo(root.resolve().name, state, record, curves, pictures, root)


def list_runs(folder: str | os.PathLike[str]) -> list[RunInfo]:
    """List the runs in a folder, by start time; raises `CheckpointNotFound` if it is missing."""
    root = Path(folder)
    if not root.is_dir():
        raise CheckpointNotFound(
            f"There is no folder {root}: give the folder of the runs, that is the ckpt_dir or "
            "log_dir of their callbacks."
        )
    return sorted(map(read_run, run_folders(root)), key=by_start)


def run_folders(folder: Path) -> list[Path]:
    """The folders of the runs in a folder, by name."""
    return [path for path in sorted(folder.iterdir()) if is_run(path)]


def by_start(run: RunInfo) -> tuple[float, str]:
    """The key that sorts runs by their start."""
    start = run.started
    return 0.0 if start is None else start.timestamp(), run.running_id


def is_run(folder: Path) -> bool:
    """Whether a run has written to `folder`: its record, a checkpoint or events."""
    return is_recorded(folder) or (folder.is_dir() and any(folder.glob(EVENTS)))


def is_recorded(folder: Path) -> bool:
    """Whether `folder` has a run's record or a checkpoint."""
    return folder.is_dir() and (
        (folder / RECORD).is_file() or (folder / TABLE).is_file() or any(folder.glob("*.ckpt"))
    )


def moment(text: Any) -> datetime | None:
    """Return a time of ISO 8601, in its own time zone; ``None`` for anything else.

    >>> moment("2026-01-02T03:04:05+0100").isoformat(), moment("yesterday")
    ('2026-01-02T03:04:05+01:00', None)
    """
    # Python 3.10 reads +01:00, and not +0100.
    with contextlib.suppress(ValueError):
        found = datetime.fromisoformat(re.sub(r"([+-]\d\d)(\d\d)$", r"\1:\2", str(text)))
        return found if found.tzinfo is not None else found.astimezone()
    return None


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Replace a file by `content`, made plain; a killed process leaves the old file."""
    text = json.dumps(plain(content), ensure_ascii=False, indent=1, allow_nan=False)
    write_text(path, text)


def plain(value: Any) -> Any:
    """Return a value that JSON can hold: other objects become text, NaN becomes ``'nan'``.

    >>> plain({"lr": 0.1, "sizes": (8, 16), "act": len, "bad": float("nan")})
    {'lr': 0.1, 'sizes': [8, 16], 'act': '<built-in function len>', 'bad': 'nan'}
    """
    if isinstance(value, (np.ndarray, np.generic, Tensor)):
        value = value.tolist()
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, Mapping):
        return {str(plain(str(name))): plain(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    text = str(value)
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"


def read_json(path: Path) -> dict[str, Any]:
    """Read the dict in a file; without one, return an empty dict."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict):
            return content
    return {}


def read_table(path: Path) -> dict[str, dict[str, Curve]]:
    """Read the curves in a ``metrics.csv``, without a row that a killed process tore."""
    curves: dict[str, dict[str, Curve]] = {}
    with (
        contextlib.suppress(OSError, ValueError, KeyError, csv.Error),
        path.open(encoding="utf-8", newline="") as file,
    ):
        for row in csv.DictReader(file):
            if None in row or None in row.values():
                continue
            epoch = int(row.pop("epoch"))
            for column, cell in row.items():
                stage, _, name = column.partition("_")
                if cell and stage in ("train", "val"):
                    curves.setdefault(stage, {}).setdefault(name, []).append((epoch, float(cell)))
    return curves


def mapping(record: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return an entry that is a dict, or else an empty dict."""
    value = record.get(name)
    return value if isinstance(value, dict) else {}


def entries(record: Mapping[str, Any], name: str) -> list[Any]:
    """Return an entry that is a list, or else an empty list."""
    value = record.get(name)
    return value if isinstance(value, list) else []


def finite(point: tuple[int, float]) -> bool:
    """Whether the value of a curve's point can be compared and drawn."""
    return math.isfinite(point[1])
