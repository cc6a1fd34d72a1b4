"""What is shown of a run, and the plain screen that writes it as lines of text.

A screen is handed data: the `Live` state of the pass that runs, the `EpochTable` with a new row,
the values of a task that was `Tested`. This module has these, their layout as text, and the
`Screen` of a file or pipe; `terminal.py` and `notebook.py` have the others. `open_screen` chooses.

Each write goes to the present `sys.stdout`. If the stream is closed or broken, there is one
warning, and the training continues.

>>> from deepepochs.show.screens import Column, EpochTable, open_screen
>>> table = EpochTable(epochs=2, decides=(Column("loss", "val"), "min"))
>>> table.add(1, {"loss": 2.2457}, {"loss": 2.1551}, seconds=1.8)
>>> open_screen().row(table)
             loss
epoch    train      val      time  best
  1/2   2.2457   2.1551      1.8s     *
"""

from __future__ import annotations

import io
import math
import os
import shutil
import sys
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..errors import warn_user

UNDEFINED = float("nan")
"""This NaN object stands for a metric without a value on a mini-batch: compare with ``is``."""


def to_array(value: Any) -> np.ndarray[Any, Any]:
    """Return a number, an array or a tensor on any device as a new NumPy array."""
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        # NumPy has no bfloat16; float32 has all its values.
        value = value.float().numpy() if value.dtype is torch.bfloat16 else value.numpy()
    return np.array(value)


def to_value(value: Any) -> Any:
    """Return a single number as a Python float, and several as a new NumPy array.

    >>> to_value(torch.tensor(0.5)), to_value([1.0, 0.0])
    (0.5, array([1., 0.]))
    """
    if type(value) is float:
        return value
    array = to_array(value)
    if array.ndim:
        return array
    number = array.item()
    return float(number) if isinstance(number, (bool, int)) else number


def spread(metrics: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield each metric as a number, and an array entry by entry; leave out `UNDEFINED`.

    >>> [(name, float(value)) for name, value in spread({"loss": 0.5, "recall": [1.0, 0.0]})]
    [('loss', 0.5), ('recall[0]', 1.0), ('recall[1]', 0.0)]
    """
    for name, value in metrics.items():
        if value is UNDEFINED:
            continue
        if type(value) is float:
            yield name, value
            continue
        array = to_array(value)
        for index in np.ndindex(array.shape):
            suffix = f"[{','.join(map(str, index))}]" if index else ""
            yield f"{name}{suffix}", array[index]


def text_width(text: str) -> int:
    """Return the columns of a text in a terminal; a Chinese character has two."""
    return len(text) if text.isascii() else sum(_char_width(char) for char in text)


def cut(text: str, columns: int) -> str:
    """Return the start of a text that fits in `columns`.

    >>> cut("loss: 2.2457", 6), cut("准确率", 5)
    ('loss: ', '准确')
    """
    if text.isascii():
        return text[: max(columns, 0)]
    kept = 0
    for index, char in enumerate(text):
        kept += _char_width(char)
        if kept > columns:
            return text[:index]
    return text


def pad(text: str, columns: int) -> str:
    """Return a text with blanks on the right up to `columns`."""
    return text + " " * max(0, columns - text_width(text))


@lru_cache(1024)
def _char_width(char: str) -> int:
    # Marks, and what is not seen: joiners and selectors in an emoji.
    if unicodedata.combining(char) or unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


# --- what is shown


class Column(NamedTuple):
    """A column of the table: a metric of a stage. That of a learning rate has the stage `''`."""

    name: str
    stage: str

    def __str__(self) -> str:
        """The name as in a sentence: `val loss`."""
        return f"{self.stage} {self.name}".strip()


class Row(NamedTuple):
    """An epoch of the table.

    Attributes:
        epoch: its number, from 1.
        values: a number or an array by column; a column without a value is missing.
        seconds: how long the epoch took; `None`: it is of an earlier fit.
        is_best: whether it was the best epoch so far when it ended.
        part: the share of the epoch that was trained before a stop; `None`: all of it.
    """

    epoch: int
    values: Mapping[Column, Any]
    seconds: float | None = None
    is_best: bool = False
    part: float | None = None

    def text(self, column: Column, round_to: int = 4) -> str:
        """Return what stands in a column."""
        value = self.values.get(column)
        if column.stage or value is None:
            return cell(value, round_to)
        text = f"{value:.3g}"  # of a learning rate the size matters
        return text if len(text) <= round_to + 3 else number(value, round_to)


class EpochTable:
    """The epochs of a run, each with the metrics of training and validation.

    Args:
        epochs: the total number of epochs; `None`: it is not known.
        decides: the column that says which epoch is best, and `'min'` or `'max'`.
        changing: names of the learning rates that have a column from the start; others get one
            when they change.

    Attributes:
        rows: the epochs so far.
        num_earlier: how many of the rows are of earlier fits.
        best: the row of the best epoch, or `None`.
    """

    def __init__(
        self,
        epochs: int | None,
        decides: tuple[Column, str] = (Column("loss", "train"), "min"),
        changing: Sequence[str] = (),
    ) -> None:
        self.epochs = epochs
        self.decides, self.mode = decides
        self.rows: list[Row] = []
        self.num_earlier = 0
        self.best: Row | None = None
        self._changing = set(changing)
        self._rates: dict[str, float | None] = {}
        self._ranks: dict[Column, tuple[bool, bool]] = {}  # by metric of a stage, as they appear

    def add(
        self,
        epoch: int,
        train: Mapping[str, Any],
        val: Mapping[str, Any],
        *,
        rates: Mapping[str, float | None] | None = None,
        seconds: float | None = None,
        part: float | None = None,
    ) -> None:
        """Add an epoch; without seconds it is one of an earlier fit."""
        values: dict[Column, Any] = {}
        for stage, metrics in (("train", train), ("val", val)):
            for name, value in metrics.items():
                values[Column(name, stage)] = value
                self._ranks.setdefault(Column(name, stage), (np.ndim(value) > 0, "/" in name))
        for name, rate in (rates or {}).items():
            if self._rates.setdefault(name, rate) != rate:
                self._changing.add(name)
            values[Column(name, "")] = rate
        row = Row(epoch, values, seconds, self._is_better(values), part)
        self.rows.append(row)
        self.num_earlier += seconds is None
        self.best = row if row.is_best else self.best

    @property
    def columns(self) -> list[Column]:
        """The columns so far: those that matter most come first.

        A metric has training and validation side by side. After the values of all tasks come the
        learning rates, then the values of single tasks, then vectors.
        """
        names = list(dict.fromkeys(column.name for column in self._ranks))
        ranks = {column.name: rank for column, rank in self._ranks.items()}
        names.sort(key=lambda name: ranks[name])
        every = [Column(name, stage) for name in names for stage in ("train", "val")]
        metrics = [column for column in every if column in self._ranks]
        rates = [Column(name, "") for name in self._rates if name in self._changing]
        num_first = sum(ranks[column.name] == (False, False) for column in metrics)
        return metrics[:num_first] + rates + metrics[num_first:]

    def value_of(self, row: Row) -> float:
        """The value of a row that decides which epoch is best; nan if it has none."""
        array = to_array(row.values.get(self.decides, math.nan))
        return float(array.item()) if array.size == 1 and array.dtype.kind in "fiub" else math.nan

    def _is_better(self, values: Mapping[Column, Any]) -> bool:
        value = self.value_of(Row(0, values))
        if self.best is None:
            return not math.isnan(value)
        best = self.value_of(self.best)
        return value < best if self.mode == "min" else value > best


class Live(NamedTuple):
    """The pass that runs now.

    Attributes:
        epoch: the number of the epoch, from 1, and the total, `None` if it is not known; `None` in
            a test.
        stage: `'train'`, `'val'` or `'test'`.
        task: the name of the task, where the stage has several or it has a name.
        done: mini-batches of the stage that are done.
        total: all of them; `None` if that is not known.
        values: means over the samples of the pass so far, by name.
        speed: how many a second, with what is counted, as `(1234.5, 'samples')`.
        left_s: seconds until the stage ends.
    """

    epoch: tuple[int, int | None] | None
    stage: str
    task: str
    done: int
    total: int | None
    values: Mapping[str, Any]
    speed: tuple[float, str] | None = None
    left_s: float | None = None


class Tested(NamedTuple):
    """The values of a tested task, or those of all tasks.

    Attributes:
        task: the name of the task; `''`: there is one task, without a name.
        values: by metric.
        seconds: how long the test took.
        names: those of all tasks of the test.
    """

    task: str
    values: Mapping[str, Any]
    seconds: float
    names: Sequence[str] = ()


# --- as text

Piece = tuple[str, str]
"""A style, `''`, `'dim'` or `'best'`, and a text."""

Line = list[Piece]

MAX_NAME = 18  # a longer name is cut in its middle
MAX_LEFT_OUT = 12  # columns without room that are named
TIME_WIDTH = 8
POOLED = "all"  # the name of the values of all tasks


def number(value: float, round_to: int = 4) -> str:
    """Return a number in at most `round_to + 3` characters.

    >>> number(0.184), number(12345.6789), number(-0.00001234), number(1.5e12)
    ('0.1840', '12345.7', '-1e-05', '1.5e+12')
    """
    width = round_to + 3
    if math.isfinite(value) and (value == 0 or abs(value) >= 10.0 ** (1 - round_to)):
        for decimals in range(round_to, -1, -1):
            if len(text := f"{value:.{decimals}f}") <= width:
                return text
    for decimals in range(round_to - 2, 0, -1):
        if len(text := f"{value:.{decimals}e}") <= width:
            return text
    return f"{value:.0e}"


def cell(value: Any, round_to: int = 4) -> str:
    """Return a value as short as it can be read: of a vector four entries with two decimals.

    >>> cell(0.5), cell([0.5, 0.25]), cell(range(9)), cell(UNDEFINED), cell(None)
    ('0.5000', '[0.50 0.25]', '[0.00 1.00 … 7.00 8.00]', '–', '–')
    """
    if value is UNDEFINED or value is None:
        return "–"
    array = to_array(value)
    if array.dtype.kind not in "fiub":
        return str(value)
    if array.ndim == 0:
        return number(float(array), round_to)
    entries = [f"{float(entry):.2f}" for entry in array.flat[:4]]
    if array.size > 4:
        entries[2:] = ["…", *(f"{float(entry):.2f}" for entry in array.flat[-2:])]
    return f"[{' '.join(entries)}]"


def duration(seconds: float) -> str:
    """Return a time in short.

    >>> duration(1.84), duration(59.95), duration(3723)
    ('1.8s', '1:00', '1:02:03')
    """
    if seconds < 59.95:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def short_name(name: str, columns: int = MAX_NAME) -> str:
    """Return a name that fits, cut in its middle: names often differ at their ends.

    >>> short_name("multiclass_balanced_accuracy", 13)
    'multic…curacy'
    """
    if text_width(name) <= columns:
        return name
    tail = cut(name[::-1], (columns - 1) // 2)[::-1]
    return f"{cut(name, columns - 1 - text_width(tail))}…{tail}"


def right(text: str, columns: int) -> str:
    """Return a text with blanks on the left up to `columns`."""
    return " " * max(0, columns - text_width(text)) + text


def share_text(part: float) -> str:
    """Return how much of an epoch was trained.

    >>> share_text(0.4), share_text(math.nan)
    ('40%', 'part')
    """
    return "part" if math.isnan(part) else f"{part:.0%}"


def part_text(row: Row) -> str:
    """Return what marks the row of an epoch that was stopped in its middle.

    >>> part_text(Row(3, {}, part=0.4)), part_text(Row(3, {}))
    ('  (40% of the epoch)', '')
    >>> part_text(Row(3, {}, part=1.0))
    '  (stopped in validation)'
    >>> part_text(Row(3, {Column("loss", "val"): 0.5}, part=1.0))
    ''
    """
    is_whole = row.part == 1 and any(column.stage == "val" for column in row.values)
    if row.part is None or is_whole:
        return ""
    if row.part == 1:
        return "  (stopped in validation)"
    return f"  ({share_text(row.part)} of the epoch)"


def epoch_text(epoch: int, epochs: int | None) -> str:
    """Return the first cell of a row and of the live line, which stand above each other.

    >>> epoch_text(1, 5), epoch_text(4, 300), epoch_text(4, None)
    ('  1/5', '  4/300', '    4')
    """
    if epochs is None:
        return str(epoch).rjust(5)
    return f"{epoch}/{epochs}".rjust(max(5, 2 * len(str(epochs)) + 1))


class TextTable:
    """Lays a table out in lines that are not wider than the screen, row by row.

    The names are written once, and again when the columns change.
    """

    def __init__(self, round_to: int = 4) -> None:
        self.round_to = round_to
        self._shown: list[Column] = []
        self._widths: list[int] = []
        self._has_told = False

    def lines(self, table: EpochTable, columns: int | None = None) -> Iterator[Line]:
        """Yield the lines of the last row, with the names before it if need be."""
        for line in self._lines(table, columns):
            yield line if columns is None else cut_line(line, columns)

    def _lines(self, table: EpochTable, columns: int | None) -> Iterator[Line]:
        row = table.rows[-1]
        epoch = epoch_text(row.epoch, table.epochs)
        epoch_width = len(epoch)
        shown, widths, left_out = self._fitting(table, columns, epoch_width)
        if shown != self._shown or not self._widths:
            self._shown, self._widths = shown, [epoch_width, *widths]
            yield [("", "")]
            if left_out and not self._has_told:
                self._has_told = True
                yield from self._told(left_out, columns)
            yield from self._names()
        line: Line = [("", right(epoch, self._widths[0]))]
        for column, width in zip(shown, self._widths[1:], strict=True):
            text = row.text(column, self.round_to)
            style = "best" if row.is_best and column == table.decides else ""
            line.append((style, "  " + right(short_name(text, width), width)))
        line.append(("dim", "  " + right(duration(row.seconds or 0), TIME_WIDTH)))
        line.append(("best", "     *" if row.is_best else ""))
        mark: Line = [("dim", part_text(row))]
        if columns is not None and width_of(line + mark) > columns:
            yield line
            yield mark
        else:
            yield line + mark

    def _told(self, left_out: Sequence[Column], columns: int | None) -> Iterator[Line]:
        names = list(dict.fromkeys(column.name for column in left_out))
        last = names[-1]
        if len(names) > MAX_LEFT_OUT:
            last = f"and {len(names) - MAX_LEFT_OUT + 1} more"
        shown = names[: min(len(names), MAX_LEFT_OUT) - 1]
        words = ["no room for", *(f"{name}," for name in shown), f"{last}:"]
        for text in joined([*words, "trainer.history has all metrics"], columns, " "):
            yield [("dim", text)]

    def _fitting(
        self, table: EpochTable, columns: int | None, epoch_width: int
    ) -> tuple[list[Column], list[int], list[Column]]:
        """Give the columns that fit, with their widths, and those that do not."""
        every = table.columns
        widths = [self._width(table, column) for column in every]
        for index, column in enumerate(every):
            group = [i for i, other in enumerate(every) if other.name == column.name]
            if index == group[0]:  # a long name makes its first column wider
                taken = sum(widths[i] for i in group) + 2 * (len(group) - 1)
                widths[index] += max(0, text_width(short_name(column.name)) - taken)
        if columns is None:
            return every, widths, []
        room = columns - epoch_width - (2 + TIME_WIDTH) - 6
        num = 0
        for index, width in enumerate(widths):
            room -= 2 + width
            if room < 0:
                break
            # A metric is shown as a whole; of the loss alone what fits.
            is_whole = every[index + 1 : index + 2] != [every[index]._replace(stage="val")]
            num = index + 1 if is_whole or not index else num
        num = max(num, 1)
        return every[:num], widths[:num], every[num:]

    def _width(self, table: EpochTable, column: Column) -> int:
        latest = (row.values[column] for row in reversed(table.rows) if column in row.values)
        value: Any = next(latest, 0.0)
        return text_width(cell(value)) if np.ndim(value) > 0 else self.round_to + 3

    def _names(self) -> Iterator[Line]:
        """Yield the header: names above stages, or names alone where only training has some."""
        epoch_width, *widths = self._widths
        stages = {column.stage for column in self._shown} - {""}
        lower = right("epoch", epoch_width)
        upper = " " * epoch_width
        for column, width in zip(self._shown, widths, strict=True):
            names = [c for c in self._shown if c.name == column.name]
            name = short_name(column.name, max(width, MAX_NAME) if len(names) > 1 else width)
            if "val" not in stages or not column.stage:
                lower += "  " + right(name, width)
                upper += "  " + " " * width
                continue
            lower += "  " + right(column.stage, width)
            if column == names[0]:
                whole = sum(w for c, w in zip(self._shown, widths, strict=True) if c in names)
                whole += 2 * (len(names) - 1)
                upper += "  " + _centred(name, whole)
        if "val" in stages:
            yield [("dim", upper.rstrip())]
        yield [("dim", lower + "  " + right("time", TIME_WIDTH) + "  best")]


def cut_line(line: Line, columns: int) -> Line:
    """Return the start of a line that fits."""
    kept: Line = []
    for style, text in line:
        piece = cut(text, columns)
        columns -= text_width(piece)
        kept.append((style, piece))
    return kept


def width_of(line: Line) -> int:
    """Return the columns of a line."""
    return sum(text_width(text) for _, text in line)


def plain_text(line: Line) -> str:
    """Return a line without its styles."""
    return "".join(text for _, text in line).rstrip()


def _centred(text: str, columns: int) -> str:
    free = columns - text_width(text)
    return pad(" " * ((free + 1) // 2) + text, columns)


def tested_line(tested: Tested, columns: int | None = None, round_to: int = 4) -> Line:
    """Return the line of a tested task; what does not fit is left out, from the right."""
    line: Line = [("dim", "test")]
    if tested.task:
        longest = max(text_width(short_name(name)) for name in (POOLED, *tested.names))
        line.append(("", f" {pad(short_name(tested.task), longest)}"))
    last: Line = [("dim", f"  {duration(tested.seconds)}")]
    for name, value in tested.values.items():
        piece: Line = [("dim", f"  {short_name(name)} "), ("", cell(value, round_to))]
        if columns is not None and width_of([*line, *piece, *last, ("", "  …")]) > columns:
            return [*line, ("dim", "  …"), *last]
        line += piece
    return [*line, *last]


def joined(facts: Sequence[str], columns: int | None, between: str = " · ") -> list[str]:
    """Join facts in as few lines as are not wider than the screen."""
    lines = [facts[0]] if facts else []
    for fact in facts[1:]:
        longer = f"{lines[-1]}{between}{fact}"
        if columns is None or text_width(longer) <= columns:
            lines[-1] = longer
        else:
            lines.append(f"  {fact}")
    return lines


def wrapped(text: str, columns: int | None) -> list[str]:
    """Return a text in lines that are not wider than the screen, broken between words.

    >>> wrapped("nothing is left to do", 12), wrapped("nothing is left to do", None)
    (['nothing is', '  left to do'], ['nothing is left to do'])
    """
    lines = text.split("\n")
    return [part for line in lines for part in joined(line.split(" "), columns, " ")]


# --- where it is written

ASCII = str.maketrans("━╸─–·…", "=>--|~")


class Output:
    """Writes to the present `sys.stdout`; after one warning a broken stream gets no more text.

    The stream may be anything with a method `write`.
    """

    def __init__(self) -> None:
        self._lost: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {"_lost": None}  # a stream cannot be pickled

    def write(self, text: str) -> None:
        """Write and flush; signs that the encoding lacks become ASCII, letters escapes."""
        stream: Any = sys.stdout
        if stream is None or stream is self._lost:
            return
        try:
            try:
                stream.write(text)
            except UnicodeEncodeError:
                encoding = getattr(stream, "encoding", None) or "ascii"
                plain = text.translate(ASCII)
                stream.write(plain.encode(encoding, "backslashreplace").decode(encoding))
            if hasattr(stream, "flush"):
                stream.flush()
        except Exception as error:  # of any kind: the stream may be the user's own
            self._lost = stream
            warn_user(
                f"Standard output cannot be written ({error}): training continues without output.",
                RuntimeWarning,
            )


class Screen:
    """A file or pipe: lasting lines, without control characters, as wide as they come.

    The subclasses override what they show in another way.
    """

    is_live = False
    """Whether `live` shows something."""

    def __init__(self, output: Output | None = None, round_to: int = 4) -> None:
        self.output = output or Output()
        self.round_to = round_to
        self._table = TextTable(round_to)

    def header(self, facts: Sequence[str], run: str) -> None:
        """Show what trains, and the id of the run."""
        for text in joined([f"DeepEpochs  {facts[0]}", *facts[1:]], self.columns()):
            self.put([("dim", text)])
        self.put([("dim", f"run {run}")])

    def live(self, live: Live) -> None:
        """Show the pass that runs now, until something else is shown."""

    def row(self, table: EpochTable) -> None:
        """Show the last row of a table, whose earlier rows were shown."""
        for line in self._table.lines(table, self.columns()):
            self.put(line)

    def tested(self, tested: Tested) -> None:
        """Show the values of a tested task."""
        self.put(tested_line(tested, self.columns(), self.round_to))

    def note(self, text: str) -> None:
        """Show a sentence."""
        for line in wrapped(text, self.columns()):
            self.put([("", line)])

    def summary(self, facts: Sequence[str]) -> None:
        """Show how a fit has ended."""
        columns = self.columns()
        for fact in joined(facts, columns):
            for text in wrapped(fact, columns):
                self.put([("", text)])

    def write(self, text: str) -> None:
        """Write a text of the user's as it is."""
        self.output.write(text)

    def close(self) -> None:
        """Show nothing more; the next text begins in a line of its own."""

    def columns(self) -> int | None:
        """How wide a line may be; `None`: as wide as it comes."""
        return None

    def put(self, line: Line) -> None:
        """Write a lasting line."""
        self.output.write(f"{plain_text(line)}\n")


def open_screen(output: Output | None = None, console: str = "auto", round_to: int = 4) -> Screen:
    """Return the screen for the present `sys.stdout`.

    Args:
        output: writes to it.
        console: `'rows'`: without a live line; `'bar'`: with one, also where the output does not
            say that it is a terminal, as that of an IDE; `'auto'`: with one in a terminal.
        round_to: decimals of a value.
    """
    if in_notebook():
        from .notebook import NotebookScreen

        return NotebookScreen(output, round_to, is_live=console != "rows")
    if is_terminal(sys.stdout) or console == "bar":
        from .terminal import TerminalScreen

        return TerminalScreen(output, round_to, is_live=console != "rows")
    return Screen(output, round_to)


def is_terminal(stream: Any) -> bool:
    """Whether a stream is a terminal; one that is missing, closed or foreign is none."""
    try:
        return bool(stream.isatty())
    except Exception:  # no stream, no such method, or a closed stream
        return False


def in_notebook() -> bool:
    """Whether this is a Jupyter kernel without redirected output; does not import IPython."""
    ipython = sys.modules.get("IPython")
    if ipython is None or isinstance(sys.stdout, (io.TextIOWrapper, io.StringIO)):
        return False
    return getattr(ipython.get_ipython(), "kernel", None) is not None


def terminal_columns(stream: Any = None) -> int:
    """Return the width of the terminal, or 80 if it is unknown.

    Args:
        stream: what writes to it; `None`: standard output.
    """
    try:
        columns = os.get_terminal_size((stream or sys.stdout).fileno()).columns
    except (OSError, ValueError, AttributeError):
        columns = 0
    return columns or shutil.get_terminal_size().columns
