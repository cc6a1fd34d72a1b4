"""The frame of a page, and the pieces that pages are made of.

Every text that comes from a run passes through `escape`.

>>> from deepepochs.report.html import table
>>> table(["name", "value"], [["<b>", 0.5]]).count("&lt;b&gt;")
1
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

from ..show.lines import to_array

__all__ = [
    "Raw",
    "cell_text",
    "duration",
    "facts",
    "frame",
    "png",
    "sample_picture",
    "section",
    "short",
    "table",
    "tiles",
    "when",
]

MAX_SIDE = 48
"""Pixels along the longer side of a sample's picture; a larger image is thinned out."""


class Raw(str):
    """HTML that is to stay as it is."""

    __slots__ = ()


def frame(title: str, body: str, script: str = "") -> str:
    """Return a whole page.

    Its policy forbids the browser every request, and every script but the given one.
    """
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    if script:
        policy += f"; script-src 'sha256-{digest}'"
    tail = f"<script>{script}</script>" if script else ""
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
    """Return a part of a page; nothing if it holds nothing."""
    content = "\n".join(filter(None, parts))
    return f"<section>\n<h2>{escape(title)}</h2>\n{content}\n</section>" if content else ""


def table(head: Sequence[Any], rows: Iterable[Sequence[Any]], kind: str = "") -> str:
    """Return a table; columns that hold numbers, below the head, go to the right."""
    lines = [list(row) for row in rows]
    if not lines:
        return ""
    numeric = [
        any(map(is_number, column)) and all(is_number(cell) or cell == "" for cell in column)
        for column in zip(*lines, strict=True)
    ]
    marks = [' class="n"' if is_right else "" for is_right in numeric]
    top = "".join(
        f"<th{mark}>{cell_text(cell)}</th>" for cell, mark in zip(head, marks, strict=False)
    )
    body = "\n".join(
        "<tr>"
        + "".join(f"<td{m}>{cell_text(c)}</td>" for c, m in zip(line, marks, strict=True))
        + "</tr>"
        for line in lines
    )
    head_row = f"<thead><tr>{top}</tr></thead>\n" if top else ""
    return (
        f'<div class="scroll"><table class="{kind}">{head_row}<tbody>{body}</tbody></table></div>'
    )


def facts(values: Mapping[str, Any]) -> str:
    """Return names and values in two columns."""
    return table([], ([name, text_of(value)] for name, value in values.items()), "facts")


def tiles(values: Sequence[tuple[str, str]]) -> str:
    """Return a row of large values, each with what it is."""
    cards = "".join(
        f'<div class="tile"><b>{escape(value)}</b><span>{escape(name)}</span></div>'
        for value, name in values
    )
    return f'<div class="tiles">{cards}</div>'


def cell_text(value: Any) -> str:
    """Return what stands in a field of a table."""
    if isinstance(value, Raw):
        return value
    return escape(short(value, 5) if isinstance(value, float) else text_of(value))


def text_of(value: Any) -> str:
    """Return a plain value as a reader would write it."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {text_of(entry)}" for name, entry in value.items())
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(text_of, value))}]"
    return "none" if value is None else str(value)


def is_number(value: Any) -> bool:
    """Whether a field of a table holds a number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def duration(seconds: float) -> str:
    """Return a time in the units that suit it.

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
    """Return a number with so many significant digits and no more than it needs.

    >>> short(0.30000000000000004), short(12345678.0), short(0.00001), short(float("nan"))
    ('0.3', '1.235e7', '1e-5', 'nan')
    """
    text = f"{value:.{digits}g}"
    if "e" in text:
        number, power = text.split("e")
        return f"{number}e{int(power)}"
    return "0" if text == "-0" else text


def when(moment: Any) -> str:
    """Return a moment as people write it.

    >>> when("2026-01-02T03:04:05+0100")
    '2026-01-02 03:04:05 +0100'
    """
    text = str(moment)
    return f"{text[:10]} {text[11:19]} {text[19:]}".rstrip()


def png(pixels: np.ndarray[Any, Any]) -> bytes:
    r"""Return an image as a PNG file, made of nothing but ``zlib``.

    Args:
        pixels: ``[H, W]`` grey or ``[H, W, 3]`` RGB, of type uint8.

    >>> png(np.zeros((2, 2), np.uint8))[:4]
    b'\x89PNG'
    """
    height, width = pixels.shape[:2]
    rows = np.ascontiguousarray(pixels, dtype=np.uint8).reshape(height, -1)
    # Each row is led by its filter: 0, none.
    raw = np.concatenate([np.zeros((height, 1), np.uint8), rows], axis=1).tobytes()
    colour = 2 if pixels.ndim == 3 else 0
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(raw, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


def sample_picture(value: Any) -> str:
    """Return an input as the address of a picture, or '' where it is no image.

    The values are stretched to the full range of grey or colour.

    Args:
        value: ``[H, W]``, or with 1 or 3 channels ``[C, H, W]`` or ``[H, W, C]``.

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
