"""Small tables, as text and as HTML for a notebook.

>>> print(text_table([["epoch", "loss"], ["1", "0.5000"]]))
epoch    loss
    1  0.5000
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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


def folded(rows: Sequence[Sequence[str]], most: int = 20) -> list[Sequence[str]]:
    """Return of more than `most` rows the first, the last, and those with a best value.

    A best value ends with ``*``.
    """
    if len(rows) <= most:
        return list(rows)
    half = most // 2
    gap = ["..."] * len(rows[0])
    best = [row for row in rows[half:-half] if any(cell.endswith("*") for cell in row)]
    return [*rows[:half], gap, *(line for row in best for line in (row, gap)), *rows[-half:]]


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
