"""Draws the layers of ``architecture.md``, once wide and once for a phone.

The layers are those that import-linter checks (``pyproject.toml``), and the sentence of each
module or package is the first one of its docstring::

    python docs/make_architecture.py
"""

from __future__ import annotations

import ast
import re
import textwrap
from html import escape
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
TARGET = Path(__file__).parent / "imgs"
NOTE = "Each row imports only from the rows below it."
PADDING, GAP, BESIDE = 8, 6, 12

STYLE = """
    .paper { fill: #ffffff; stroke: #d4d9e2; }
    .layer { fill: #f4f6fa; stroke: #d4d9e2; }
    .package { fill: #ffffff; stroke: #8b97ab; stroke-width: 1.2; }
    .module { fill: #e4eefc; stroke: #2f6fd0; stroke-width: 1.4; }
    .wire { stroke: #5a6577; stroke-width: 1.6; }
    .name { fill: #1d2430; font-weight: 600; }
    .name { font-family: ui-monospace, 'Cascadia Code', 'DejaVu Sans Mono', Menlo, monospace; }
    .text { fill: #3d4757; }
    @media (prefers-color-scheme: dark) {
      .paper { fill: #14181f; stroke: #343c4a; }
      .layer { fill: #1a1f28; stroke: #343c4a; }
      .package { fill: #232a36; stroke: #7a879c; }
      .module { fill: #17293f; stroke: #6ea8ff; }
      .wire { stroke: #a5b0c2; }
      .name { fill: #e9edf4; }
      .text { fill: #c3ccda; }
    }
  """


class Room(NamedTuple):
    """A file of the package's root, or a package in it.

    Attributes:
        name: its name, without ``deepepochs``.
        kind: ``'module'`` or ``'package'``.
        sentence: what it is for.
        is_joined: the one before it in its layer may import it, and it that one.
    """

    name: str
    kind: str
    sentence: str
    is_joined: bool


class Sheet(NamedTuple):
    """The measures of one drawing.

    Attributes:
        width: of the whole.
        columns: boxes side by side at most.
        size: of the letters.
    """

    width: int
    columns: int
    size: int


SHEETS = {"architecture.svg": Sheet(780, 3, 13), "architecture-narrow.svg": Sheet(360, 1, 12)}


def layers() -> list[list[Room]]:
    """Give the rooms of each layer, the highest first."""
    settings = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    listed = re.search(r"^layers = (\[.*?^\])", settings, re.MULTILINE | re.DOTALL)
    assert listed is not None
    found = []
    for layer in ast.literal_eval(listed[1]):
        parts = re.split(r" ([|:]) ", layer)
        marks = ["|", *parts[1::2]]
        found.append([_room(*pair) for pair in zip(parts[::2], marks, strict=True)])
    return found


def _room(name: str, mark: str) -> Room:
    path = ROOT.joinpath("src", *name.split("."))
    is_package = path.is_dir()
    source = path / "__init__.py" if is_package else path.with_suffix(".py")
    docstring = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or ""
    first = " ".join(docstring.partition("\n\n")[0].split())
    sentence = re.split(r"(?<=\.) ", first)[0].replace("`", "")
    kind = "package" if is_package else "module"
    return Room(name.partition(".")[2], kind, sentence, is_joined=mark == ":")


def drawing(sheet: Sheet) -> str:
    """Give the SVG."""
    body: list[str] = []
    top = PADDING + sheet.size + 8
    for layer in layers():
        lines, height = _layer(layer, top, sheet)
        body += lines
        top += height + GAP
    legend = (
        "Blue: a file of deepepochs/. Grey: a package. Two joined by a line may import each other."
    )
    for line in textwrap.wrap(legend, _letters(sheet.width - 2 * PADDING, sheet)):
        top += sheet.size + 2
        body.append(_text("text", PADDING + 4, top, line))
    height = top + PADDING + 2
    told = "; ".join(", ".join(room.name for room in layer) for layer in layers())
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {sheet.width} {height}" role="img" '
        'aria-labelledby="title desc" font-family="system-ui, -apple-system, \'Segoe UI\', Roboto, '
        f'\'Noto Sans\', sans-serif" font-size="{sheet.size}">',
        '<title id="title">The layers of DeepEpochs</title>',
        f'<desc id="desc">From the highest to the lowest: {told}.</desc>',
        f"<style>{STYLE}</style>",
        f'<rect class="paper" x="1" y="1" width="{sheet.width - 2}" height="{height - 2}" rx="10"/>',
        _text("text", PADDING + 4, PADDING + sheet.size, NOTE),
        *body,
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _layer(layer: list[Room], top: int, sheet: Sheet) -> tuple[list[str], int]:
    """Draw one layer; give its lines and its height."""
    columns = min(sheet.columns, len(layer)) if len(layer) != 4 else min(sheet.columns, 2)
    inside = sheet.width - 4 * PADDING
    width = (inside - BESIDE * (columns - 1)) // columns
    indent = 130 if len(layer) == 1 and sheet.columns > 1 else 0
    boxes: list[str] = []
    y = top + GAP
    for first in range(0, len(layer), columns):
        row = layer[first : first + columns]
        texts = [textwrap.wrap(room.sentence, _letters(width - indent - 20, sheet)) for room in row]
        height = (max(map(len, texts)) + (not indent)) * (sheet.size + 3) + 9
        for index, (room, text) in enumerate(zip(row, texts, strict=True)):
            x = 2 * PADDING + index * (width + BESIDE)
            if room.is_joined:
                ends = (x - BESIDE, y + 18, x, y + 18) if index else (x + 24, y - GAP, x + 24, y)
                boxes.append('<line class="wire" x1="{}" y1="{}" x2="{}" y2="{}"/>'.format(*ends))
            boxes += _box(room, text, (x, y, width, height), indent, sheet)
        y += height + GAP
    band = (
        f'<rect class="layer" x="{PADDING}" y="{top}" width="{sheet.width - 2 * PADDING}" '
        f'height="{y - top}" rx="8"/>'
    )
    return [band, *boxes], y - top


def _box(
    room: Room, text: list[str], place: tuple[int, int, int, int], indent: int, sheet: Sheet
) -> list[str]:
    """Draw one box, its text below the name, or beside it where that is indented."""
    x, y, width, height = place
    line = sheet.size + 3
    first = y + line + (0 if indent else line)
    return [
        f'<rect class="{room.kind}" x="{x}" y="{y}" width="{width}" height="{height}" rx="6"/>',
        _text("name", x + 10, y + line, room.name + (".py" if room.kind == "module" else "/")),
        *(_text("text", x + 10 + indent, first + i * line, part) for i, part in enumerate(text)),
    ]


def _letters(width: int, sheet: Sheet) -> int:
    """How many letters fit, of a broad font."""
    return int(width / (0.56 * sheet.size))


def _text(kind: str, x: int, y: int, text: str) -> str:
    return f'<text class="{kind}" x="{x}" y="{y}">{escape(text)}</text>'


def main() -> None:
    """Write the drawings."""
    for name, sheet in SHEETS.items():
        (TARGET / name).write_text(drawing(sheet), encoding="utf-8")


if __name__ == "__main__":
    main()
