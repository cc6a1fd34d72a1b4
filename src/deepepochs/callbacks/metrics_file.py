"""``metrics.csv``: a row for each epoch, written when the epoch ends.

The columns are those of `History.to_csv`. A row is added to the file; where an epoch brings
columns that were not there, and where a run is resumed, the file is written anew from the
history, so that it never has rows after the point of the resume.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..files.atomic import replacing
from ..history import History
from ..show.lines import spread

__all__ = ["MetricsFile"]


class MetricsFile:
    """The table of a run.

    Args:
        path: the file; its folder is made if need be.
        history: the epochs that are done; the file gets these rows.
    """

    def __init__(self, path: Path, history: History) -> None:
        self.path = path
        self._history = history
        self._columns: list[str] = []
        path.parent.mkdir(parents=True, exist_ok=True)
        if history.epochs:
            self._rewrite()
        else:
            path.unlink(missing_ok=True)

    def add(self, epoch_idx: int, train: Mapping[str, Any], val: Mapping[str, Any]) -> None:
        """Add the row of an epoch, which the history has already."""
        cells = {"epoch": str(epoch_idx + 1)}
        for stage, metrics in (("train", train), ("val", val)):
            cells.update((f"{stage}_{name}", str(value)) for name, value in spread(metrics))
        if not cells.keys() <= set(self._columns):
            self._rewrite()
            return
        with self.path.open("a", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow([cells.get(column, "") for column in self._columns])

    def _rewrite(self) -> None:
        with replacing(self.path) as fresh:
            self._history.to_csv(fresh)
            with fresh.open(encoding="utf-8", newline="") as file:
                self._columns = next(csv.reader(file))
