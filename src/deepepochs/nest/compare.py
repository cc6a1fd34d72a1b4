"""Compares nested states bit by bit: what differs, and by how much."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

_PLAIN = (str, bytes, bytearray, int, float, complex, np.generic, type(None))


def differing(one: Any, other: Any) -> list[str]:
    """Give a line ``path: how`` for each entry that differs; NaN equals NaN of the same bits."""
    return list(_differing(one, other, ""))


def digest(value: Any) -> str:
    """Give a short text that is the same for nested values of the same bits.

    Of an object of any other class, only the class counts.
    """
    sink = hashlib.blake2b(digest_size=12)
    for path, leaf in _leaves(value, ""):
        sink.update(f"{path}|{type(leaf).__name__}|".encode())
        if isinstance(leaf, (Tensor, np.ndarray)):
            sink.update(f"{leaf.dtype}{tuple(leaf.shape)}".encode())
            sink.update(_bits(leaf))
        elif isinstance(leaf, _PLAIN):
            sink.update(repr(leaf).encode())
    return sink.hexdigest()


def _differing(one: Any, other: Any, path: str) -> Iterator[str]:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in [*one, *(key for key in other if key not in one)]:
            place = f"{path}.{key}" if path else str(key)
            if key in one and key in other:
                yield from _differing(one[key], other[key], place)
            else:
                yield f"{place}: only in {'the first' if key in one else 'the second'}"
    elif isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        if len(one) != len(other):
            yield f"{path}: {len(one)} entries and {len(other)}"
            return
        for index, (first, second) in enumerate(zip(one, other, strict=True)):
            yield from _differing(first, second, f"{path}[{index}]")
    elif digest(one) != digest(other):
        yield f"{path}: {_how(one, other)}"


def _how(one: Any, other: Any) -> str:
    if not isinstance(one, Tensor) or not isinstance(other, Tensor):
        return f"{one!r:.60} and {other!r:.60}"
    if one.dtype != other.dtype or one.shape != other.shape:
        return f"{one.dtype} {list(one.shape)} and {other.dtype} {list(other.shape)}"
    first, second = one.detach().cpu().double(), other.detach().cpu().double()
    apart = (first - second).abs()
    count = int((apart != 0).sum())
    return f"{count} of {one.numel()} numbers, by up to {float(apart.max()):.3g}"


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(item, f"{path}.{key}")
    elif isinstance(value, (list, tuple, set, frozenset)):
        yield f"{path}#", len(value)
        items = sorted(value, key=repr) if isinstance(value, (set, frozenset)) else value
        for index, item in enumerate(items):
            yield from _leaves(item, f"{path}[{index}]")
    else:
        yield path, value


def _bits(value: Tensor | np.ndarray[Any, Any]) -> bytes:
    if isinstance(value, np.ndarray):
        return value.tobytes() if value.dtype != object else repr(value.tolist()).encode()
    plain = value.detach().cpu()
    if plain.layout is not torch.strided or plain.is_quantized:
        return repr(plain).encode()
    return plain.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
