"""The counters of a run, the metrics of its epochs, and the results of a test.

`fit` returns a `History`: a dict of numbers that can be printed, drawn and written to a file.
`test` returns `Results`. A notebook shows both as tables, and a history with its curves.

>>> from deepepochs.history import History
>>> history = History()
>>> history.add_epoch(0, {"loss": 2.2457, "acc": 0.184}, {"loss": 2.1551})
>>> history.add_epoch(1, {"loss": 1.4012, "acc": 0.427}, {"loss": 1.6003})
>>> history
epoch  train loss  train acc  val loss
    1      2.2457     0.1840    2.1551
    2      1.4012     0.4270    1.6003*
* best
>>> history["val"]["loss"], history.best("val_loss")
([2.1551, 1.6003], Best(epoch=2, value=1.6003))
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from .arguments import check_choice
from .errors import CheckpointMismatch, ConfigError, MetricNotFound, MissingExtraError
from .hints.near import nearest_metric
from .metrics.direction import direction_of
from .show.figures import draw_curves, figure_to_image, for_any_background
from .show.screens import POOLED, cell, share_text, spread, terminal_columns, text_width, to_value
from .show.tables import blocks, folded, html_table, text_table

if TYPE_CHECKING:
    import pandas as pd

    from .show.figures import Figure

Value = float | np.ndarray[Any, Any]
PICTURES = (".png", ".pdf", ".svg", ".jpg", ".jpeg", ".webp")
MAX_UNFOLDED = 200  # epochs in the table that a notebook unfolds
MAX_PLOTS = 12  # metrics that a notebook draws for the value of a cell
PLOT_SIZE = (3.8, 2.8)  # inches of such a plot: three fit beside each other, and one on a phone

# 'val_loss', 'train/acc', 'validation loss': as other libraries write them.
_WITH_STAGE = re.compile(r"(train|val|test)(?:ing|id|idation)?(?:[_/. -](.+))?")


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


class Best(NamedTuple):
    """The best epoch of a metric.

    Attributes:
        epoch: its number, from 1, as in tables and plots.
        value: the value of the metric in it.
    """

    epoch: int
    value: float


class Curves(dict[str, list[Value]]):
    """The values of each metric of a stage, by name; the error for another name lists the names."""

    def __missing__(self, name: object) -> list[Value]:
        raise MetricNotFound(_told_of_missing(name, self, "this stage"))


class Results(dict[str, Any]):
    """The results of a test: a dict of metrics by name, which prints as a table.

    A test of several tasks has a row for each of them, and one for all together.

    Example:
        >>> results = Results({"loss": 0.25, "clean/loss": 0.2, "noisy/loss": 0.3})
        >>> results
               loss
          all  0.2500
        clean  0.2000
        noisy  0.3000
        >>> results["clean/loss"]
        0.2
    """

    def __missing__(self, name: object) -> Any:
        raise MetricNotFound(_told_of_missing(name, self, "these results"))

    if not TYPE_CHECKING:  # it would let any misspelt name pass

        def __getattr__(self, name: str) -> Any:
            meant = f": write results[{name!r}]" if name in self else ""
            raise AttributeError(f"'Results' object has no attribute {name!r}{meant}", name=name)

    def __repr__(self) -> str:
        if not self:
            return "Results without metrics"
        rows = self._rows()
        return "\n".join(blocks(rows, terminal_columns(), num_fixed=len(rows) > 2))

    def _repr_html_(self) -> str:
        head, *rows = self._rows()
        return html_table(head, rows)

    def _rows(self) -> list[list[str]]:
        """Return a row of names, and one of values for each task."""
        tasks: dict[str, dict[str, str]] = {}
        for key, value in self.items():
            task, _, name = key.rpartition("/")
            tasks.setdefault(task, {})[name] = cell(value)
        names = list(dict.fromkeys(name for row in tasks.values() for name in row))
        rows = [[task or POOLED, *(row.get(n, "") for n in names)] for task, row in tasks.items()]
        rows.insert(0, ["", *names])
        return rows if len(tasks) > 1 else [row[1:] for row in rows]


class History(dict[str, dict[str, list[Value]]]):
    """The metrics of each epoch: `{'train': {name: [v, ...]}, 'val': {name: [v, ...]}}`.

    The values are floats, or NumPy arrays of metrics that give several numbers. `'loss'` is the
    first name, and the others follow in the order of their first appearance. A metric that was
    not computed in an epoch is nan there, so that each list has a value for each epoch. Without
    validation there is no `'val'`, and before the first epoch the dict is empty.

    Where a column is meant, as in `best`, `to_csv` and `to_pandas`, `'val_loss'` is the loss of
    validation.

    Attributes:
        epochs: index, from 0, of the epoch of each value in `'train'`.
        val_epochs: the same for `'val'`.
        partial: of each epoch that was stopped in its middle, by its index, the share of the training
            mini-batches that are in its values; a whole epoch is not there.
        steps: the number of optimizer steps before each value, of `'train'` and of `'val'`; -1 if it
            is not known. With `val_every` an epoch has several validations.
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
        self.partial: dict[int, float] = {}
        self.steps: dict[str, list[int]] = {"train": [], "val": []}
        self.timing: dict[str, float] = {}
        self._directions: dict[str, str] = {}

    def __missing__(self, name: object) -> dict[str, list[Value]]:
        raise MetricNotFound(self._told_of_missing(name))

    if not TYPE_CHECKING:  # it would let any misspelt name pass

        def __getattr__(self, name: str) -> Any:
            stage, metric = _split_stage(name)
            stages = [s for s in self if stage in (s, "") and (metric or name) in self[s]]
            meant = " and ".join(f"history[{s!r}][{metric or name!r}]" for s in stages)
            if name == "history":
                meant = "history['train'] and history['val'], for this is the history itself"
            if name == "best_epoch":
                meant = "history.best().epoch"
            text = f"'History' object has no attribute {name!r}"
            raise AttributeError(f"{text}: write {meant}" if meant else text, name=name)

    def know_directions(self, directions: Mapping[str, str]) -> None:
        """Note whether higher values of each metric are better, `'max'`, or lower ones, `'min'`."""
        self._directions.update(directions)

    def add_epoch(
        self,
        epoch_idx: int,
        train: Mapping[str, Any],
        val: Mapping[str, Any] | None = None,
        *,
        part: float | None = None,
        step: int = -1,
    ) -> None:
        """Add the metrics of an epoch.

        Args:
            epoch_idx: its index, from 0.
            train: training metrics by name: numbers, arrays or tensors.
            val: the same for validation; `None` without validation.
            part: the share of the epoch that was trained; `None`: all of it.
            step: the number of optimizer steps so far.
        """
        if part is not None:
            self.partial[epoch_idx] = part
        self._add_row("train", self.epochs, epoch_idx, train)
        self.steps["train"].append(step)
        if val is not None:
            self.add_validation(epoch_idx, val, step)

    def add_validation(self, epoch_idx: int, val: Mapping[str, Any], step: int) -> None:
        """Add the metrics of a validation after a number of optimizer steps."""
        self._add_row("val", self.val_epochs, epoch_idx, val)
        self.steps["val"].append(step)

    def forget(self, epoch_idx: int) -> None:
        """Remove the epochs from `epoch_idx` on, because they did not finish."""
        self.partial = {idx: part for idx, part in self.partial.items() if idx < epoch_idx}
        for stage, epochs in self._stages():
            num_kept = sum(idx < epoch_idx for idx in epochs)
            del epochs[num_kept:], self.steps[stage][num_kept:]
            for values in self.get(stage, {}).values():
                del values[num_kept:]
            if not epochs:
                self.pop(stage, None)

    def since(self, epoch_idx: int, end: int | None = None) -> History:
        """Return the history of the epochs from index `epoch_idx` on, before index `end`."""
        later = History()
        later.timing, later._directions = self.timing, self._directions
        for (stage, epochs), (_, new_epochs) in zip(self._stages(), later._stages(), strict=True):
            start = sum(idx < epoch_idx for idx in epochs)
            stop = len(epochs) if end is None else sum(idx < end for idx in epochs)
            if start < stop:
                new_epochs.extend(epochs[start:stop])
                later.steps[stage].extend(self.steps[stage][start:stop])
                tables = {name: vs[start:stop] for name, vs in self[stage].items()}
                later[stage] = Curves(tables)
        later.partial.update({i: part for i, part in self.partial.items() if i in later.epochs})
        return later

    def best(self, name: str = "loss", mode: str | None = None) -> Best:
        """Give the epoch with the best value of a metric.

        Args:
            name: the metric, with its stage in front or without it: `'val_loss'`, `'train_loss'`;
                `'loss'` is that of validation, or of training without validation.
            mode: `'max'` if more is better, `'min'` if less is; `None` takes it from the metric,
                or from its name.

        Returns:
            Number of the epoch, from 1, and value; of equal values the first.

        Raises:
            MetricNotFound: there is no such metric.
            ConfigError: nothing says which values are better, or the metric has several numbers.

        Example:
            >>> history = History()
            >>> for index, loss in enumerate([2.0, 0.5, 0.75]):
            ...     history.add_epoch(index, {"loss": loss})
            >>> history.best("loss")
            Best(epoch=2, value=0.5)
        """
        stage, metric = self._find(name)
        if mode is None:
            mode = self._direction(metric)
        else:
            check_choice("mode", mode, ["max", "min"])
        if mode is None:
            raise ConfigError(
                f"Nothing says whether more or less of {metric!r} is better: give "
                f"history.best({name!r}, mode='max') or mode='min'."
            )
        best = self._best(stage, metric, mode)
        if best is None:
            raise ConfigError(
                f"{name!r} has no best epoch: no epoch has a single finite number of it."
            )
        return best

    def to_csv(self, path: str | PathLike[str]) -> Path:
        """Write a row per epoch: `epoch` (from 1), `train_<name>` ..., `val_<name>` ....

        Where an epoch was stopped in its middle there is a column `part`, with its share.

        Numbers are written in full. An epoch without validation has blanks. A metric with
        several values has a column for each, as `train_recall[0]`.

        Args:
            path: the file; an existing one is replaced.

        Returns:
            The path.
        """
        target = Path(path)
        columns = self._cells()
        with target.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            marked = ["part"] if self.partial else []
            writer.writerow(["epoch", *columns, *marked])
            for idx in self.epochs:
                cells = [str(column[idx]) if idx in column else "" for column in columns.values()]
                parts = [self.partial.get(idx, "") for _ in marked]
                writer.writerow([idx + 1, *cells, *parts])
        return target

    def to_pandas(self) -> pd.DataFrame:
        """Give a table of pandas with a row per epoch and the columns of `to_csv`.

        The index is the number of the epoch, from 1. An epoch without validation, or in which a
        metric was not computed, has NaN.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise MissingExtraError(
                "history.to_pandas() needs pandas, which is not installed: pip install pandas."
            ) from error
        columns = {
            name: [float(column.get(idx, math.nan)) for idx in self.epochs]
            for name, column in self._cells().items()
        }
        return pd.DataFrame(columns, index=pd.Index([e + 1 for e in self.epochs], name="epoch"))

    def plot(self, names: Iterable[str] | None = None) -> Figure:
        """Draw training and validation curves, one plot for each metric, with the best epoch.

        The figure needs no display; `.savefig("curves.png")` writes it to a file. A notebook
        shows it.

        Args:
            names: one or several metrics, without a stage; `None` draws all.

        Raises:
            ConfigError: there is no epoch, or no metric with such a name.
        """
        return self._draw(names, in_cell=True)

    def _draw(self, names: Iterable[str] | None, **options: Any) -> Figure:
        known = list(dict.fromkeys(name for _, name, _ in self._columns()))
        wanted = [names] if isinstance(names, str) else known if names is None else list(names)
        unknown = [name for name in wanted if name not in known]
        if files := [name for name in unknown if str(name).lower().endswith(PICTURES)]:
            raise ConfigError(
                f"History.plot has no metric {files[0]!r}: history.plot().savefig({files[0]!r}) "
                "writes a file."
            )
        if unknown or not wanted:
            raise ConfigError(
                f"History.plot has no metric {', '.join(map(repr, unknown)) or 'to draw'}: "
                f"there are {', '.join(map(repr, known)) or 'none, for no epoch was run'}."
            )
        plots: dict[str, dict[str, dict[int, Value]]] = {name: {} for name in wanted}
        for stage, name, values in self._columns():
            if name in plots:
                plots[name][stage] = {idx + 1: value for idx, value in values.items()}
        best = {name: (stage, *best) for (stage, name), best in self._marked().items()}
        return draw_curves(plots, best, **options)

    def state_dict(self) -> dict[str, Any]:
        """Return epochs and values, as tensors, so that ``weights_only=True`` can load them."""
        state: dict[str, Any] = {
            stage: {
                "epochs": list(epochs),
                "steps": list(self.steps[stage]),
                "values": {name: _to_tensors(values) for name, values in self[stage].items()},
            }
            for stage, epochs in self._stages()
            if stage in self
        }
        return {**state, **({"partial": list(self.partial.items())} if self.partial else {})}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replace the epochs and values by those of a `state_dict`; `timing` stays."""
        self.clear()
        self.partial = dict(state.get("partial", ()))
        for stage, epochs in self._stages():
            epochs.clear()
            self.steps[stage].clear()
            if stage in state:
                epochs.extend(state[stage]["epochs"])
                # Files of earlier versions do not have them.
                self.steps[stage].extend(state[stage].get("steps", [-1] * len(epochs)))
                values = state[stage]["values"]
                self[stage] = Curves({n: [to_value(v) for v in vs] for n, vs in values.items()})

    def __repr__(self) -> str:
        if not self.epochs:
            return "History without epochs"
        text = text_table(self._rows())
        if text_width(text.partition("\n")[0]) > terminal_columns() and "val" in self:
            text = "\n".join(f"{stage}\n{self._in_blocks(stage)}" for stage in self)
        elif "val" not in self:
            text = self._in_blocks(None)
        return text + ("\n* best" if self._marked() else "")

    def _repr_html_(self) -> str:
        """Return the latest and the best values, the curves, and all epochs to unfold."""
        if not self.epochs:
            return f"<p>{self!r}</p>"
        head, *rows = self._rows(most=MAX_UNFOLDED)
        names = list(dict.fromkeys(name for _, name, _ in self._columns()))
        with for_any_background():
            images = [
                figure_to_image(self._draw([name], size=PLOT_SIZE), f"curves of {name}")
                for name in names[:MAX_PLOTS]
            ]
        return (
            f'<div style="overflow-x:auto">{html_table(*self._summary())}{"".join(images)}'
            f'<details><summary style="cursor:pointer">{_epochs_of(len(self.epochs))}</summary>'
            f"{html_table(head, rows)}</details></div>"
        )

    def _in_blocks(self, only: str | None) -> str:
        return "\n".join(blocks(self._rows(only), terminal_columns(), num_fixed=1))

    def _marked(self) -> dict[tuple[str, str], Best]:
        """Return the best epochs that are marked: of a single epoch none."""
        return self._bests() if len(self.epochs) > 1 else {}

    def _rows(self, only: str | None = None, most: int = 20) -> list[Sequence[str]]:
        """Return a row of titles and one for each epoch, of all stages or of one.

        Of more than `most` epochs the middle is left out.
        """
        bests = self._marked()
        columns = [["epoch", *(numbered(idx + 1, self.partial.get(idx)) for idx in self.epochs)]]
        for stage, name, values in self._columns():
            cells = [name if only else f"{stage} {name}"]
            cells += [cell(values[idx]) if idx in values else "" for idx in self.epochs]
            if (stage, name) in bests:
                place = self.epochs.index(bests[stage, name].epoch - 1) + 1
                cells = [f"{text}{'*' if row == place else ' '}" for row, text in enumerate(cells)]
            if only in (stage, None):
                columns.append(cells)
        head, *rows = zip(*columns, strict=True)
        return [head, *folded(rows, most)]

    def _summary(self) -> tuple[list[str], list[list[str]]]:
        """Return titles, and a row for each metric: its latest values and the best one."""
        bests = {name: (stage, best) for (stage, name), best in self._marked().items()}
        stages = [stage for stage, _ in self._stages() if stage in self]
        rows = {name: [name, *([""] * len(stages))] for _, name, _ in self._columns()}
        for stage, name, values in self._columns():
            rows[name][stages.index(stage) + 1] = cell(list(values.values())[-1])
        for name, row in rows.items():
            stage, best = bests.get(name, ("", None))
            row += ["", ""] if best is None else [cell(best.value), str(best.epoch)]
        return ["", *stages, f"best {stages[-1]}", "in epoch"], list(rows.values())

    def _add_row(
        self, stage: str, epochs: list[int], epoch_idx: int, metrics: Mapping[str, Any]
    ) -> None:
        table = self.setdefault(stage, Curves())
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
            self[stage] = Curves({"loss": table.pop("loss"), **table})

    def _stages(self) -> tuple[tuple[str, list[int]], ...]:
        return ("train", self.epochs), ("val", self.val_epochs)

    def _columns(self) -> Iterator[tuple[str, str, dict[int, Value]]]:
        """Yield each stage and metric name with its values by epoch index."""
        for stage, epochs in self._stages():
            for name, values in self.get(stage, {}).items():
                yield stage, name, dict(zip(epochs, values, strict=True))

    def _cells(self) -> dict[str, dict[int, Any]]:
        """Return single numbers by column and epoch index; a vector has several columns."""
        columns: dict[str, dict[int, Any]] = {}
        for stage, name, values in self._columns():
            for epoch_idx, value in values.items():
                for column, entry in spread({f"{stage}_{name}": value}):
                    columns.setdefault(column, {})[epoch_idx] = entry
        return columns

    def _direction(self, name: str) -> str | None:
        return self._directions.get(name.rpartition("/")[2]) or direction_of(name)

    def _bests(self) -> dict[tuple[str, str], Best]:
        """Return the best epoch of each metric of validation, or of training without it."""
        stage = "val" if "val" in self else "train"
        found = {}
        for name in self.get(stage, {}):
            mode = self._direction(name)
            best = None if mode is None else self._best(stage, name, mode)
            if best is not None:
                found[stage, name] = best
        return found

    def _best(self, stage: str, name: str, mode: str) -> Best | None:
        epochs = self.val_epochs if stage == "val" else self.epochs
        points = [
            Best(idx + 1, value)
            for idx, value in zip(epochs, self[stage][name], strict=True)
            if isinstance(value, float) and math.isfinite(value)
        ]
        sign = -1 if mode == "max" else 1
        return min(points, key=lambda point: sign * point.value, default=None)

    def _find(self, name: str) -> tuple[str, str]:
        """Return stage and name of a metric, given as `'val_loss'` or `'loss'`."""
        for stage in ("val", "train"):
            if name in self.get(stage, {}):
                return stage, name
            metric = name.removeprefix(f"{stage}_")
            if metric != name and metric in self.get(stage, {}):
                return stage, metric
        known = [f"{stage}_{known}" for stage, known, _ in self._columns()][::-1]
        raise MetricNotFound(_told_of_missing(name, known, "the history"))

    def _told_of_missing(self, name: object) -> str:
        """Say where to find what was looked up."""
        asked, (stage, metric) = f"history[{name!r}]", _split_stage(name)
        if not self.epochs:
            return f"{asked}: the history is empty, for no epoch was run."
        if stage == "test":
            return f"{asked}: the results of a test are what trainer.test() returns."
        if stage == "val" and "val" not in self:
            return f"{asked}: no epoch was validated. Give validation data: fit(train_dl, val_dl)."
        tables = {stage: self[stage]} if stage in self else self
        near = nearest_metric(metric, [known for table in tables.values() for known in table])
        places = [f"history[{s!r}][{near!r}]" for s, table in tables.items() if near in table]
        if near is None:
            names = ", ".join(dict.fromkeys(n for table in tables.values() for n in table))
            return f"{asked}: there are {' and '.join(map(repr, self))}, with {names}."
        if near != metric:
            return f"{asked}: did you mean {' or '.join(places)}?"
        return f"{asked}: it is {' and '.join(places)}."


def _told_of_missing(name: object, known: Iterable[str], where: str) -> str:
    """Say that a metric is missing, and which one may be meant."""
    names = list(known)
    near = nearest_metric(str(name), names) or nearest_metric(_split_stage(name)[1], names)
    meant = "" if near is None else f" Did you mean {near!r}?"
    return f"There is no {name!r} in {where}; there are {', '.join(names) or 'no metrics'}.{meant}"


def _split_stage(name: object) -> tuple[str, str]:
    """Return stage and metric of a name such as `'val_loss'`; `''` for a part that is missing."""
    match = _WITH_STAGE.fullmatch(str(name))
    return (match[1], match[2] or "") if match else ("", str(name))


def numbered(number: int, part: float | None = None) -> str:
    """Return the number of an epoch; with a part its share, as `'3 (40%)'`."""
    return str(number) if part is None else f"{number} ({share_text(part)})"


def _epochs_of(num: int) -> str:
    return "1 epoch" if num == 1 else f"all {num} epochs"


def _absent(like: Value) -> Value:
    """Give the value of an epoch in which a metric was not computed."""
    return math.nan if isinstance(like, float) else np.full(like.shape, math.nan)


def _to_tensors(values: list[Value]) -> Any:
    """Stack values of one type and shape: a file of a thousand tensors is slow to write."""
    arrays = [np.array(value) for value in values]
    if len({(array.dtype, array.shape) for array in arrays}) == 1:
        return torch.from_numpy(np.stack(arrays))
    return [torch.from_numpy(array) for array in arrays]
