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
from typing import Any

import numpy as np
import torch

from ..show.screens import to_array

MAX_SIDE = 48
"""Pixels of the longer side of a sample's picture; a larger image loses rows and columns."""


class Raw(str):
    """HTML, which is not escaped."""


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


def table(head: Sequence[Any], rows: Iterable[Sequence[Any]], kind: str = "") -> str:
    """Return a table; numbers are aligned right. A cell may be a pair of sort key and value."""
    lines = [[cell if isinstance(cell, tuple) else (None, cell) for cell in row] for row in rows]
    if not lines:
        return ""
    marks = []
    for column in zip(*lines, strict=True):
        values = [value for _, value in column]
        is_numeric = all(is_number(value) or value == "" for value in values)
        marks.append(' class="n"' if is_numeric and any(map(is_number, values)) else "")
    top = "".join(
        f'<th{mark} scope="col">{cell_text(cell)}</th>'
        for cell, mark in zip(head, marks, strict=False)
    )
    body = []
    for line in lines:
        cells = []
        for (key, value), mark in zip(line, marks, strict=True):
            data = "" if key is None else f' data-key="{escape(key)}"'
            cells.append(f"<td{mark}{data}>{cell_text(value)}</td>")
        body.append(f"<tr>{''.join(cells)}</tr>")
    head_row = f"<thead><tr>{top}</tr></thead>\n" if top else ""
    return (
        f'<div class="scroll"><table class="{kind}">{head_row}'
        f"<tbody>{chr(10).join(body)}</tbody></table></div>"
    )


def facts(values: Mapping[str, Any]) -> str:
    """Return a table of names and values."""
    return table([], ([name, text_of(value)] for name, value in values.items()), "facts")


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
    return escape(short(value, 5) if isinstance(value, float) else text_of(value))


def text_of(value: Any) -> str:
    """Return a plain value as text."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {text_of(entry)}" for name, entry in value.items())
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(text_of, value))}]"
    return "none" if value is None else str(value)


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def duration(seconds: float) -> str:
    """Return a time in suitable units.

    >>> duration(0.25), duration(75), duration(3700), duration(200000)
    ('0.25 s', '1 min 15 s', '1 h 1 min', '2 d 7 h')
    """
    if seconds < 60:
        return f"{short(seconds, 3)} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def short(value: float, digits: int = 4) -> str:
    """Return a number with at most ``digits`` significant digits.

    >>> short(0.30000000000000004), short(12345678.0), short(0.00001), short(float("nan"))
    ('0.3', '1.235e7', '1e-5', 'nan')
    """
    text = f"{value:.{digits}g}"
    if "e" in text:
        number, power = text.split("e")
        return f"{number}e{int(power)}"
    return "0" if text == "-0" else text


def when(moment: Any) -> str:
    """Return a time of ISO 8601 in a readable form, such as ``2026-01-02 03:04:05 +0100``."""
    text = str(moment)
    return f"{text[:10]} {text[11:19]} {text[19:]}".rstrip()


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
