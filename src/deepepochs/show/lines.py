"""Formats metrics as lines of text that fit a terminal.

>>> from deepepochs.show.lines import batch_line, epoch_line
>>> batch_line("TRAIN", {"loss": 2.28}, (1, 2), (1, 16), widths=(1, 2)).rstrip()
'E 1/2  B  1/16  TRAIN> loss: 2.2800'
>>> epoch_line({"TRAIN": {"loss": 2.2457}, "VAL": {"loss": 2.1551}}, (1, 2), width=1).rstrip()
'E 1/2  TRAIN> loss: 2.2457   VAL> loss: 2.1551'
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "batch_line", "cut", "epoch_line", "format_value", "info", "pad", "spread", "task_line",
    "text_width", "to_array",
]  # fmt: skip

MAX_SHOWN = 6
"""Of a longer vector only the first and the last entries are written."""

Count = tuple[int, int | None]
"""A number from 1, and the total, which may be unknown."""


def to_array(value: Any) -> np.ndarray[Any, Any]:
    """Return a number, an array or a tensor on any device as a new NumPy array."""
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        # NumPy has no bfloat16; float32 has all its values.
        value = value.float().numpy() if value.dtype is torch.bfloat16 else value.numpy()
    return np.array(value)


def spread(metrics: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield each metric as NumPy numbers, and an array entry by entry.

    >>> [(name, float(value)) for name, value in spread({"loss": 0.5, "recall": [1.0, 0.0]})]
    [('loss', 0.5), ('recall[0]', 1.0), ('recall[1]', 0.0)]
    """
    for name, value in metrics.items():
        array = to_array(value)
        for index in np.ndindex(array.shape):
            suffix = f"[{','.join(map(str, index))}]" if index else ""
            yield f"{name}{suffix}", array[index]


def format_value(value: Any, round_to: int = 4) -> str:
    """Return a number with `round_to` decimals, or an array of them in brackets.

    >>> format_value(0.184), format_value([0.5, 1.0], 2), format_value(range(10), 0)
    ('0.1840', '[0.50 1.00]', '[0 1 2 ... 7 8 9]')
    """
    array = to_array(value)
    if array.dtype.kind not in "fiub":
        return str(value)
    if array.ndim == 0:
        return f"{float(array):.{round_to}f}"
    shown = [f"{float(entry):.{round_to}f}" for entry in array.flat[:MAX_SHOWN]]
    if array.size > MAX_SHOWN:
        half = MAX_SHOWN // 2
        shown[half:] = ["...", *(f"{float(entry):.{round_to}f}" for entry in array.flat[-half:])]
    return f"[{' '.join(shown)}]"


def info(m_dict: Mapping[str, Any], round_to: int = 4) -> str:
    """Return metrics as `name: value` pairs, each value padded to `round_to + 3` characters.

    Args:
        m_dict: metric values by name.
        round_to: decimals, from 0.

    Example:
        >>> info({"loss": 2.2457, "acc": 0.184})
        'loss: 2.2457  acc: 0.1840 '
    """
    return " ".join(
        f"{name}: {format_value(value, round_to):<{round_to + 3}}" for name, value in m_dict.items()
    )


def counted(count: Count, width: int) -> str:
    """Return `number/total`: the number aligned right, the total left, both `width` wide."""
    number, total = count
    shown = "?" if total is None else str(total)
    return f"{number:>{width}}/{shown:<{width}}"


def batch_line(
    label: str,
    metrics: Mapping[str, Any],
    epoch: Count,
    batch: Count,
    widths: tuple[int, int] = (4, 5),
    round_to: int = 4,
) -> str:
    """Return the line of a mini-batch; in a test `epoch` counts tasks."""
    return (
        f"E {counted(epoch, widths[0])}  B {counted(batch, widths[1])}  {label}> "
        f"{info(metrics, round_to)}"
    )


def epoch_line(
    stages: Mapping[str, Mapping[str, Any]], epoch: Count, width: int = 4, round_to: int = 4
) -> str:
    """Return the line of an epoch, with the metrics by label; empty stages are left out."""
    parts = [f"{label}> {info(metrics, round_to)}" for label, metrics in stages.items() if metrics]
    return f"E {counted(epoch, width)}  {'  '.join(parts)}"


def task_line(metrics: Mapping[str, Any], task: Count, width: int = 4, round_to: int = 4) -> str:
    """Return the line of a tested task."""
    return f"E {counted(task, width)}  TEST>  {info(metrics, round_to)}"


def text_width(text: str) -> int:
    """Return the columns of a text in a terminal; a Chinese character has two."""
    return len(text) if text.isascii() else sum(_char_width(char) for char in text)


def cut(text: str, columns: int) -> str:
    """Return the start of a text that fits in `columns`.

    >>> cut("loss: 2.2457", 6), cut("准确率", 5)
    ('loss: ', '准确')
    """
    kept = 0
    for index, char in enumerate(text):
        kept += _char_width(char)
        if kept > columns:
            return text[:index]
    return text


def pad(text: str, columns: int) -> str:
    """Return a text with blanks on the right up to `columns`."""
    return text + " " * max(0, columns - text_width(text))


def _char_width(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1
