"""Small tables, as text and as HTML for a notebook.

>>> print(text_table([["epoch", "loss"], ["1", "0.5000"]]))
epoch    loss
    1  0.5000
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from .screens import text_width

QUIET = "opacity:.65"  # text that is less important, in the colour of a light or dark notebook
_TABLE = "color:inherit;border-collapse:collapse;font-variant-numeric:tabular-nums;margin:.3em 0"
_CELL = "padding:.15em .8em;text-align:right;white-space:nowrap"
_FIRST = "padding:.15em .8em;text-align:left"


def text_table(rows: Iterable[Sequence[str]]) -> str:
    """Return rows of cells as lines, with each column aligned right."""
    table = list(rows)
    widths = [max(map(text_width, column)) for column in zip(*table, strict=True)]
    return "\n".join(
        "  ".join(
            " " * (width - text_width(cell)) + cell for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in table
    )


def html_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in HTML; without ``head``, one of names and values. The texts are escaped.

    A cell that ends with ``*``, as the best of its column does, is bold. The styles stand in the
    tags: a style sheet would affect the whole notebook.
    """
    lines = []
    if head:
        cells = _cells("th", head, f"{_CELL};font-weight:600;{QUIET}")
        lines.append(f"<thead><tr>{cells}</tr></thead>")
    lines.append("<tbody>")
    for row in rows:
        if head:
            lines.append(f"<tr>{_cells('td', row, _CELL)}</tr>")
        else:
            name, *values = row
            cells = _cells("td", [name], f"{_FIRST};{QUIET}") + _cells("td", values, _FIRST)
            lines.append(f"<tr>{cells}</tr>")
    lines.append("</tbody>")
    return f'<table style="{_TABLE}">{"".join(lines)}</table>'


def _cells(tag: str, texts: Sequence[str], style: str) -> str:
    return "".join(
        f'<{tag} style="{style}{";font-weight:700" if text.endswith("*") else ""}">'
        f"{escape(text)}</{tag}>"
        for text in texts
    )
