"""The counters of a run, and the metrics of its epochs.

`fit` returns a `History`: a dict of numbers that can be printed, drawn and written to a file.

>>> from deepepochs.history import History
>>> history = History()
>>> history.add_epoch(0, {"loss": 2.2457, "acc": 0.184}, {"loss": 2.1551})
>>> history
epoch  train loss  train acc  val loss
    1      2.2457     0.1840    2.1551
>>> history["val"]
{'loss': [2.1551]}
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from .errors import CheckpointMismatch, ConfigError
from .show.figures import draw_curves
from .show.screens import format_value, spread, text_width, to_value

if TYPE_CHECKING:
    from .show.figures import Figure

Value = float | np.ndarray[Any, Any]
MAX_ROWS = 20  # epochs that a printed history shows; a longer one shows the first and the last ten


class Progress(NamedTuple):
    """The counters of a run.

    Attributes:
        epoch_idx: index of the next epoch, from 0.
        num_train_batches: training mini-batches so far.
        num_val_batches: validation mini-batches so far.
        num_steps: optimizer steps so far.
    """

    epoch_idx: int = 0
    num_train_batches: int = 0
    num_val_batches: int = 0
    num_steps: int = 0

    def state_dict(self) -> dict[str, int]:
        """Return the counters by name."""
        return self._asdict()

    @classmethod
    def from_state(cls, state: Mapping[str, int]) -> Progress:
        """Return the progress of a `state_dict`.

        Raises:
            CheckpointMismatch: a counter is missing.
        """
        missing = [name for name in cls._fields if name not in state]
        if missing:
            raise CheckpointMismatch(
                f"The saved progress is missing {', '.join(missing)}: this library did not save it."
            )
        return cls(*(int(state[name]) for name in cls._fields))


class History(dict[str, dict[str, list[Value]]]):
    """The metrics of each epoch: `{'train': {name: [v, ...]}, 'val': {name: [v, ...]}}`.

    The values are floats, or NumPy arrays of metrics that give several numbers. `'loss'` is the
    first name, and the others follow in the order of their first appearance. A metric that was
    not computed in an epoch is nan there, so that each list has a value for each epoch. Without
    validation there is no `'val'`, and before the first epoch the dict is empty.

    Attributes:
        epochs: index, from 0, of the epoch of each value in `'train'`.
        val_epochs: the same for `'val'`.
        timing: seconds of each part of the work, if a callback measured them.

    Example:
        >>> history = History()
        >>> history.add_epoch(0, {"loss": 2.0})
        >>> history.add_epoch(1, {"loss": 1.0}, {"loss": 1.5})
        >>> history["train"]["loss"], history.val_epochs
        ([2.0, 1.0], [1])
    """

    def __init__(self) -> None:
        super().__init__()
        self.epochs: list[int] = []
        self.val_epochs: list[int] = []
        self.timing: dict[str, float] = {}

    def add_epoch(
        self, epoch_idx: int, train: Mapping[str, Any], val: Mapping[str, Any] | None = None
    ) -> None:
        """Add the metrics of an epoch.

        Args:
            epoch_idx: its index, from 0.
            train: training metrics by name: numbers, arrays or tensors.
            val: the same for validation; `None` without validation.
        """
        self._add_row("train", self.epochs, epoch_idx, train)
        if val is not None:
            self._add_row("val", self.val_epochs, epoch_idx, val)

    def forget(self, epoch_idx: int) -> None:
        """Remove the epochs from `epoch_idx` on, because they did not finish."""
        for stage, epochs in self._stages():
            num_kept = sum(idx < epoch_idx for idx in epochs)
            del epochs[num_kept:]
            for values in self.get(stage, {}).values():
                del values[num_kept:]
            if not epochs:
                self.pop(stage, None)

    def since(self, epoch_idx: int, end: int | None = None) -> History:
        """Return the history of the epochs from index `epoch_idx` on, before index `end`."""
        later = History()
        later.timing = self.timing
        for (stage, epochs), (_, new_epochs) in zip(self._stages(), later._stages(), strict=True):
            start = sum(idx < epoch_idx for idx in epochs)
            stop = len(epochs) if end is None else sum(idx < end for idx in epochs)
            if start < stop:
                new_epochs.extend(epochs[start:stop])
                later[stage] = {name: vs[start:stop] for name, vs in self[stage].items()}
        return later

    def to_csv(self, path: str | PathLike[str]) -> Path:
        """Write a row per epoch: `epoch` (from 1), `train_<name>` ..., `val_<name>` ....

        Numbers are written in full. An epoch without validation has blanks. A metric with
        several values has a column for each, as `train_recall[0]`.

        Args:
            path: the file; an existing one is replaced.

        Returns:
            The path.
        """
        target = Path(path)
        columns: dict[str, dict[int, str]] = {}
        for stage, name, values in self._columns():
            for epoch_idx, value in values.items():
                for column, entry in spread({f"{stage}_{name}": value}):
                    columns.setdefault(column, {})[epoch_idx] = str(entry)
        with target.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["epoch", *columns])
            for idx in self.epochs:
                writer.writerow([idx + 1, *(cells.get(idx, "") for cells in columns.values())])
        return target

    def plot(self, names: Iterable[str] | None = None) -> Figure:
        """Draw training and validation curves, one plot for each metric.

        The figure needs no display; `.savefig("curves.png")` writes it to a file.

        Args:
            names: the metrics to draw; `None` draws all.

        Raises:
            ConfigError: there is no epoch, or no metric with such a name.
        """
        known = list(dict.fromkeys(name for _, name, _ in self._columns()))
        wanted = known if names is None else list(names)
        unknown = [name for name in wanted if name not in known]
        if unknown or not wanted:
            raise ConfigError(
                f"History.plot has no metric {', '.join(map(repr, unknown)) or 'to draw'}: "
                f"there are {', '.join(map(repr, known)) or 'none, for no epoch was run'}."
            )
        plots: dict[str, dict[str, dict[int, Value]]] = {name: {} for name in wanted}
        for stage, name, values in self._columns():
            if name in plots:
                plots[name][stage] = {idx + 1: value for idx, value in values.items()}
        return draw_curves(plots)

    def state_dict(self) -> dict[str, Any]:
        """Return epochs and values, as tensors, so that ``weights_only=True`` can load them."""
        return {
            stage: {
                "epochs": list(epochs),
                "values": {name: _to_tensors(values) for name, values in self[stage].items()},
            }
            for stage, epochs in self._stages()
            if stage in self
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replace the epochs and values by those of a `state_dict`; `timing` stays."""
        self.clear()
        for stage, epochs in self._stages():
            epochs.clear()
            if stage in state:
                epochs.extend(state[stage]["epochs"])
                values = state[stage]["values"]
                self[stage] = {name: [to_value(v) for v in vs] for name, vs in values.items()}

    def __repr__(self) -> str:
        if not self.epochs:
            return "History without epochs"
        columns = [(f"{stage} {name}", values) for stage, name, values in self._columns()]
        table = [["epoch", *(title for title, _ in columns)]]
        for idx in self.epochs:
            cells = (format_value(vs[idx]) if idx in vs else "" for _, vs in columns)
            table.append([str(idx + 1), *cells])
        if len(table) > MAX_ROWS + 1:
            half = MAX_ROWS // 2
            table[half + 1 : -half] = [["..."] * len(table[0])]
        widths = [max(map(text_width, column)) for column in zip(*table, strict=True)]
        return "\n".join(
            "  ".join(
                " " * (width - text_width(cell)) + cell
                for cell, width in zip(row, widths, strict=True)
            ).rstrip()
            for row in table
        )

    def _add_row(
        self, stage: str, epochs: list[int], epoch_idx: int, metrics: Mapping[str, Any]
    ) -> None:
        table = self.setdefault(stage, {})
        for name, value in metrics.items():
            number = to_value(value)
            if name not in table:
                table[name] = [_absent(number) for _ in epochs]
            table[name].append(number)
        epochs.append(epoch_idx)
        for values in table.values():
            if len(values) < len(epochs):
                values.append(_absent(values[-1]))
        if next(iter(table), "loss") != "loss" and "loss" in table:
            self[stage] = {"loss": table.pop("loss"), **table}

    def _stages(self) -> tuple[tuple[str, list[int]], ...]:
        return ("train", self.epochs), ("val", self.val_epochs)

    def _columns(self) -> Iterator[tuple[str, str, dict[int, Value]]]:
        """Yield each stage and metric name with its values by epoch index."""
        for stage, epochs in self._stages():
            for name, values in self.get(stage, {}).items():
                yield stage, name, dict(zip(epochs, values, strict=True))


def _absent(like: Value) -> Value:
    """Give the value of an epoch in which a metric was not computed."""
    return math.nan if isinstance(like, float) else np.full(like.shape, math.nan)


def _to_tensors(values: list[Value]) -> Any:
    """Stack values of one type and shape: a file of a thousand tensors is slow to write."""
    arrays = [np.array(value) for value in values]
    if len({(array.dtype, array.shape) for array in arrays}) == 1:
        return torch.from_numpy(np.stack(arrays))
    return [torch.from_numpy(array) for array in arrays]
