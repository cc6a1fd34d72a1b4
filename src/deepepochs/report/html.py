"""The parts of an HTML page: frame, sections, tables, numbers and pictures.

Every text that comes from a run is escaped.
"""

from __future__ import annotations

import base64
import hashlib
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from itertools import zip_longest
from typing import Any

import numpy as np
import torch

from ..show.screens import to_array
from .text import is_number, measured, text_of

MAX_SIDE = 48
"""Pixels of the longer side of a sample's picture; a larger image loses rows and columns."""


class Raw(str):
    """HTML, which is not escaped."""


class Number(str):
    """The text of a number, which a table aligns at the right."""


def frame(title: str, body: str, script: str = "") -> str:
    """Return a page, whose policy forbids all requests, and all scripts but the given one."""
    policy, tail = "default-src 'none'; style-src 'unsafe-inline'; img-src data:", ""
    if script:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        policy += f"; script-src 'sha256-{digest}'"
        tail = f"<script>{script}</script>"
    style = files("deepepochs.report").joinpath("page.css").read_text(encoding="utf-8")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<link rel="icon" href="data:,">\n<title>{escape(title)}</title>\n'
        f"<style>\n{style}</style>\n</head>\n<body>\n<main>\n{body}\n"
        f"<footer>Made by DeepEpochs</footer>\n</main>\n{tail}</body>\n</html>\n"
    )


def section(title: str, *parts: str) -> str:
    """Return a section of a page, or '' if it is empty."""
    content = "\n".join(filter(None, parts))
    return f"<section>\n<h2>{escape(title)}</h2>\n{content}\n</section>" if content else ""


def side_by_side(*sections: str) -> str:
    """Return sections in one row of a wide page, without the empty ones."""
    shown = "\n".join(filter(None, sections))
    return f'<div class="pair">\n{shown}\n</div>' if shown else ""


def table(
    head: Sequence[Any],
    rows: Iterable[Sequence[Any]],
    kind: str = "",
    row_marks: Sequence[str] = (),
) -> str:
    """Return a table; numbers are aligned right.

    Args:
        head: the names of the columns, or nothing.
        rows: the cells; one may be a pair of sort key and value. A float is the value of a metric.
        kind: the class of the table.
        row_marks: the HTML attributes of each row.
    """
    lines = [[cell if isinstance(cell, tuple) else (None, cell) for cell in row] for row in rows]
    if not lines:
        return ""
    sides = [' class="n"' if _is_numeric(column) else "" for column in zip(*lines, strict=True)]
    top = "".join(
        f'<th{side} scope="col">{cell_text(cell)}</th>'
        for cell, side in zip(head, sides, strict=False)
    )
    body = []
    for line, mark in zip_longest(lines, row_marks[: len(lines)], fillvalue=""):
        cells = []
        for (key, value), side in zip(line, sides, strict=True):
            data = "" if key is None else f' data-key="{escape(key)}"'
            cells.append(f"<td{side}{data}>{cell_text(value)}</td>")
        body.append(f"<tr{f' {mark}' if mark else ''}>{''.join(cells)}</tr>")
    head_row = f"<thead><tr>{top}</tr></thead>\n" if top else ""
    return (
        f'<div class="scroll"><table class="{kind}">{head_row}'
        f"<tbody>{chr(10).join(body)}</tbody></table></div>"
    )


def _is_numeric(column: Sequence[tuple[Any, Any]]) -> bool:
    values = [value for _, value in column if value != ""]
    return bool(values) and all(is_number(value) or isinstance(value, Number) for value in values)


def facts(values: Mapping[str, Any]) -> str:
    """Return a table of names and values."""
    return table([], [[name, text_of(value)] for name, value in values.items()], "facts")


def tiles(values: Sequence[tuple[str, str]]) -> str:
    """Return a row of large values, each with its name."""
    cards = "".join(
        f'<div class="tile"><b>{escape(value)}</b><span>{escape(name)}</span></div>'
        for value, name in values
    )
    return f'<div class="tiles">{cards}</div>'


def cell_text(value: Any) -> str:
    """Return the HTML of a table's cell."""
    if isinstance(value, Raw):
        return value
    return escape(measured(value) if isinstance(value, float) else text_of(value))


def png(pixels: np.ndarray[Any, Any]) -> bytes:
    """Return an image, ``[H, W]`` grey or ``[H, W, 3]`` RGB of type uint8, as a PNG file."""
    height, width = pixels.shape[:2]
    rows = np.ascontiguousarray(pixels, dtype=np.uint8).reshape(height, -1)
    # Each row begins with its filter; 0 means none.
    raw = np.concatenate([np.zeros((height, 1), np.uint8), rows], axis=1).tobytes()
    colour = 2 if pixels.ndim == 3 else 0
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(raw, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


def sample_picture(value: Any) -> str:
    """Return an image as a ``data:`` address, scaled to the full range of grey or colour.

    The value is ``[H, W]``, or ``[C, H, W]`` or ``[H, W, C]`` with 1 or 3 channels. The result is
    '' for other values.

    >>> sample_picture(torch.rand(1, 28, 28))[:22], sample_picture(torch.rand(7))
    ('data:image/png;base64,', '')
    """
    if isinstance(value, (tuple, list)) and len(value) == 1:
        value = value[0]
    if not isinstance(value, (torch.Tensor, np.ndarray)):
        return ""
    pixels = to_array(value).astype(np.float64)
    if pixels.ndim == 3 and pixels.shape[0] in (1, 3):
        pixels = pixels.transpose(1, 2, 0)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    is_image = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)
    if not is_image or min(pixels.shape[:2]) < 4:
        return ""
    stride = -(-max(pixels.shape[:2]) // MAX_SIDE)
    pixels = np.nan_to_num(pixels[::stride, ::stride], posinf=0, neginf=0)
    low, high = pixels.min(), pixels.max()
    scaled = (pixels - low) / (high - low if high > low else 1) * 255
    address = base64.b64encode(png(scaled.round().astype(np.uint8))).decode()
    return f"data:image/png;base64,{address}"
