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
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from ..errors import CheckpointNotFound
from ..files.atomic import write_text
from .lock import is_locked

RECORD, TABLE, PICTURES = "run.json", "metrics.csv", "pictures.json"
STATES = ("finished", "interrupted", "running", "failed", "killed", "unknown")
MAX_TEXT = 300  # characters that are kept of a value that is written as text

Curve = list[tuple[int, float]]
"""Pairs of the number of an epoch, from 1, and a value."""


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

    def best(self) -> tuple[str, str, int, float] | None:
        """Stage, metric, epoch (from 1) and value of the best epoch, if there is one."""
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
    runs = [read_run(path) for path in sorted(root.iterdir()) if is_run(path)]
    return sorted(runs, key=lambda run: (str(run.record.get("started_at", "")), run.running_id))


def is_run(folder: Path) -> bool:
    """Whether `folder` is the folder of a run."""
    return folder.is_dir() and (
        (folder / RECORD).is_file() or (folder / TABLE).is_file() or any(folder.glob("*.ckpt"))
    )


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


def finite(point: tuple[int, float]) -> bool:
    """Whether the value of a curve's point can be compared and drawn."""
    return math.isfinite(point[1])
