"""Small tables, as text and as HTML for a notebook.

>>> print(text_table([["epoch", "loss"], ["1", "0.5000"]]))
epoch    loss
    1  0.5000
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape

from .screens import right, text_width

QUIET = "opacity:.65"  # text that is less important, in the colour of a light or dark notebook
_TABLE = (
    "color:inherit;border-collapse:collapse;font-variant-numeric:tabular-nums;margin:.3em 0;"
    "text-align:right;white-space:nowrap"
)
_CELL = "padding:.15em .8em"
_HEAD = f"{_CELL};text-align:right;font-weight:600;{QUIET}"
_FIRST = f"{_CELL};text-align:left;white-space:normal"


def text_table(rows: Iterable[Sequence[str]]) -> str:
    """Return rows of cells as lines, with each column aligned right."""
    table = list(rows)
    widths = [max(map(text_width, column)) for column in zip(*table, strict=True)]
    return "\n".join(
        "  ".join(right(cell, width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    )


def blocks(rows: Sequence[Sequence[str]], columns: int, num_fixed: int) -> Iterator[str]:
    """Yield a table as text, in as many parts as it needs to be at most `columns` wide.

    Args:
        rows: cells.
        columns: of the terminal.
        num_fixed: each part begins with so many first columns.

    >>> for part in blocks([["epoch", "loss", "acc"], ["1", "0.5000", "0.75"]], 14, 1):
    ...     print(part)
    epoch    loss
        1  0.5000
    epoch   acc
        1  0.75
    """
    widths = [max(map(text_width, column)) for column in zip(*rows, strict=True)]
    fixed = list(range(num_fixed))
    used = sum(widths[:num_fixed]) + 2 * num_fixed
    shown, room = list(fixed), columns - used
    for index in range(num_fixed, len(widths)):
        if widths[index] > room and len(shown) > num_fixed:
            yield text_table([[row[i] for i in shown] for row in rows])
            shown, room = list(fixed), columns - used
        shown.append(index)
        room -= widths[index] + 2
    yield text_table([[row[i] for i in shown] for row in rows])


def kept(num: int, marked: Iterable[int], most: int = 20) -> list[int | None]:
    """Return which of `num` rows a long table shows: the first, the last, and marked ones.

    A `None` stands for rows that are left out.

    >>> kept(9, [5], most=4)
    [0, 1, None, 5, None, 7, 8]
    """
    if num <= most:
        return [*range(num)]
    half = most // 2
    inside = sorted(index for index in set(marked) if half <= index < num - half)
    middle = [None, *(place for index in inside for place in (index, None))]
    return [*range(half), *middle, *range(num - half, num)]


def folded(rows: Sequence[Sequence[str]], most: int = 20) -> list[Sequence[str]]:
    """Return the rows that a long table shows; those with a best value, `0.5*`, are marked."""
    marked = (i for i, row in enumerate(rows) if any(text.endswith("*") for text in row))
    gap = ["..."] * len(rows[0]) if rows else []
    return [gap if i is None else rows[i] for i in kept(len(rows), marked, most)]


def html_table(
    head: Sequence[str], rows: Iterable[Sequence[str]], groups: Sequence[tuple[str, int]] = ()
) -> str:
    """Return a table in HTML, with all texts escaped.

    The styles stand in the tags: a style sheet would affect the whole notebook.

    Args:
        head: titles of the columns; without them it is a table of names and values.
        rows: texts. One that ends with ``*``, as the best of its column does, is bold.
        groups: titles above those of the columns, each with the number of its columns.
    """
    lines = []
    if groups:
        cells = (
            f'<th colspan="{span}" style="{_HEAD};text-align:center">{escape(text)}</th>'
            for text, span in groups
        )
        lines.append(f"<tr>{''.join(cells)}</tr>")
    if head:
        lines.append(f"<tr>{_cells('th', head, _HEAD)}</tr>")
    lines = [f"<thead>{''.join(lines)}</thead>", "<tbody>"]
    for row in rows:
        if head:
            cells_of_row = _cells("td", row, _CELL)
        else:
            name, *values = row
            cells_of_row = _cells("td", [name], f"{_FIRST};{QUIET}")
            cells_of_row += _cells("td", values, _FIRST)
        lines.append(f"<tr>{cells_of_row}</tr>")
    return f'<table style="{_TABLE}">{"".join(lines)}</tbody></table>'


def _cells(tag: str, texts: Sequence[str], style: str) -> str:
    return "".join(
        f'<{tag} style="{style}{";font-weight:700" if text.endswith("*") else ""}">'
        f"{escape(text)}</{tag}>"
        for text in texts
    )
