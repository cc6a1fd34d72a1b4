"""Reads what the console has printed to a file: the rows of epochs, and the tests."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

NUMBER = r"-?[\d.]+(?:e[+-]\d+)?|nan|-?inf|–"


class Row(NamedTuple):
    """A row of the table: its epoch, the text of each value by stage and name, and its mark."""

    epoch: str
    values: dict[tuple[str, str], str]
    seconds: str
    is_best: bool


def rows(text: str) -> list[Row]:
    """The rows of the tables in a text, each read with the names above it."""
    found: list[Row] = []
    columns: list[tuple[str, str]] = []
    lines = text.splitlines()
    for index, line in enumerate(lines):
        if re.match(r" *epoch  .* time  best$", line):
            columns = _columns(lines[index - 1], line)
        elif re.match(r" *\d+/\d+  .*(:\d\d|s)( +\*)?$", line):
            epoch, *cells = re.split(r" {2,}", line.strip())
            is_best = cells[-1] == "*"
            cells = cells[: len(cells) - is_best]
            assert len(cells) == len(columns) + 1, line
            values = dict(zip(columns, cells[:-1], strict=True))
            found.append(Row(epoch, values, cells[-1], is_best))
    return found


def _columns(upper: str, lower: str) -> list[tuple[str, str]]:
    names = re.split(r" {2,}", lower.strip())[1:-2]
    if not {"train", "val"} & set(names):
        return [("", name) for name in names]
    above = iter(re.split(r" {2,}", upper.strip()))
    columns: list[tuple[str, str]] = []
    for name in names:
        if name not in ("train", "val"):
            columns.append(("", name))
        elif name == "val" and columns and columns[-1][0] == "train":
            columns.append((name, columns[-1][1]))
        else:
            columns.append((name, next(above)))
    assert next(above, None) is None, upper
    return columns


def epochs(text: str, stage: str, name: str) -> list[float]:
    """The values of a metric in the rows, for `'train'` or `'val'`, without those that lack it."""
    cells = [
        row.values.get((stage, name), row.values.get(("", name) if stage == "train" else ("", "")))
        for row in rows(text)
    ]
    return [float(cell) for cell in cells if cell not in (None, "–")]


def tests(text: str, name: str) -> list[float]:
    """The values of a metric in the lines of tested tasks."""
    lines = [line for line in text.splitlines() if line.startswith("test ")]
    found: list[Any] = [
        re.search(rf"  {re.escape(name)} ({NUMBER})(?:  |$)", line) for line in lines
    ]
    return [float(match[1]) for match in found if match]
