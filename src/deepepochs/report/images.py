r"""Small pictures as PNG, made of nothing but ``zlib``.

>>> import numpy as np
>>> png(np.zeros((2, 2), np.uint8))[:4]
b'\x89PNG'
"""

from __future__ import annotations

import base64
import struct
import zlib
from typing import Any

import numpy as np
import torch

from ..show.lines import to_array

__all__ = ["png", "sample_picture"]

MAX_SIDE = 48
"""Pixels along the longer side of a sample's picture; a larger image is thinned out."""


def png(pixels: np.ndarray[Any, Any]) -> bytes:
    """Return an image as a PNG file.

    Args:
        pixels: ``[H, W]`` grey or ``[H, W, 3]`` RGB, of type uint8.
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
