"""What is known of a run from its folder: ``run.json``, ``metrics.csv`` and ``pictures.json``.

The first is a record of plain values, replaced as a whole; the second a row for each epoch;
the third what a report shows as pictures. All are read as the work of a stranger: what is
missing, torn or of another shape makes a run poorer, not the reading fail.

>>> import tempfile
>>> from deepepochs.runs.record import read_run, write_json
>>> folder = Path(tempfile.mkdtemp())
>>> write_json(folder / "run.json", {"state": "finished", "epochs_done": 3})
>>> read_run(folder).state
'finished'
"""

from __future__ import annotations

import contextlib
import csv
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from ..errors import CheckpointNotFound
from ..files.atomic import write_text
from .lock import is_locked

__all__ = [
    "PICTURES",
    "RECORD",
    "TABLE",
    "Curve",
    "RunInfo",
    "list_runs",
    "plain",
    "read_run",
    "write_json",
]

RECORD, TABLE, PICTURES = "run.json", "metrics.csv", "pictures.json"
STATES = ("finished", "interrupted", "running", "failed", "killed", "unknown")
MAX_TEXT = 300
"""Characters that are kept of the text of a value which is not plain."""

Curve = list[tuple[int, float]]
"""Number of the epoch, from 1, and the value."""


class RunInfo(NamedTuple):
    """A run, as its folder tells it.

    Attributes:
        running_id: its id.
        state: ``'finished'``, ``'interrupted'``, ``'running'``, ``'failed'``, ``'killed'``
            (its process died without a word), or ``'unknown'`` where nothing was recorded.
        record: what ``run.json`` holds; empty if there is none.
        curves: ``{'train': {name: curve}, 'val': ...}``.
        pictures: what ``pictures.json`` holds.
        folder: where it is; ``None``: the run of a living trainer.
    """

    running_id: str
    state: str
    record: dict[str, Any]
    curves: dict[str, dict[str, Curve]]
    pictures: dict[str, Any]
    folder: Path | None = None

    @property
    def hyper_params(self) -> dict[str, Any]:
        """The hyper-parameters by name."""
        return mapping(self.record, "hyper_params")

    @property
    def num_epochs(self) -> int:
        """Epochs that are done."""
        epochs = [epoch for table in self.curves.values() for c in table.values() for epoch, _ in c]
        return max(epochs, default=0)

    def best(self) -> tuple[str, str, int, float] | None:
        """Stage, metric, epoch (from 1) and value of the best epoch; ``None`` without one."""
        monitor = mapping(self.record, "monitor")
        name, mode = str(monitor.get("name", "loss")), monitor.get("mode", "min")
        for stage in (str(monitor["stage"]),) if "stage" in monitor else ("val", "train"):
            points = [point for point in self.curves.get(stage, {}).get(name, []) if finite(point)]
            if points:
                sign = -1 if mode == "max" else 1
                epoch, value = min(points, key=lambda point: sign * point[1])
                return stage, name, epoch, value
        return None


def read_run(folder: str | os.PathLike[str]) -> RunInfo:
    """Read what a run's folder tells.

    Raises:
        CheckpointNotFound: there is no such folder.
    """
    root = Path(folder)
    if not root.is_dir():
        raise CheckpointNotFound(f"There is no folder {root}: give the folder of a run.")
    record = read_json(root / RECORD)
    state = str(record.get("state", "unknown"))
    if state not in STATES:
        state = "unknown"
    if state == "running" and not is_locked(root):
        state = "killed"
    curves = read_table(root / TABLE)
    pictures = read_json(root / PICTURES)
    return RunInfo(root.resolve().name, state, record, curves, pictures, root)


def list_runs(folder: str | os.PathLike[str]) -> list[RunInfo]:
    """The runs in a folder of runs, by the time they began.

    Raises:
        CheckpointNotFound: there is no such folder.
    """
    root = Path(folder)
    if not root.is_dir():
        raise CheckpointNotFound(
            f"There is no folder {root}: give the folder of the runs, that is the ckpt_dir or "
            "log_dir of their callbacks."
        )
    runs = [read_run(path) for path in sorted(root.iterdir()) if is_run(path)]
    return sorted(runs, key=lambda run: (str(run.record.get("started_at", "")), run.running_id))


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a run."""
    return folder.is_dir() and (
        (folder / RECORD).is_file() or (folder / TABLE).is_file() or any(folder.glob("*.ckpt"))
    )


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Replace a file by plain values, in one step; a killed process leaves the old one."""
    text = json.dumps(plain(content), ensure_ascii=False, indent=1, allow_nan=False)
    write_text(path, text)


def plain(value: Any) -> Any:
    """Return a value as JSON has it: what is not plain by its text, NaN as ``'nan'``.

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
    """The dict in a file; an empty one if there is none or it is no dict."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict):
            return content
    return {}


def read_table(path: Path) -> dict[str, dict[str, Curve]]:
    """The curves in a ``metrics.csv``; a row that a killed process tore is left out."""
    curves: dict[str, dict[str, Curve]] = {}
    with (
        contextlib.suppress(OSError, ValueError, csv.Error),
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
    """An entry that is a dict; an empty one if it is missing or something else."""
    value = record.get(name)
    return value if isinstance(value, dict) else {}


def finite(point: tuple[int, float]) -> bool:
    """Whether a point of a curve has a value that can be compared and drawn."""
    return math.isfinite(point[1])
