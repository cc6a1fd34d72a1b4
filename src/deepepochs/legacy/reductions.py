"""Small tools that reduce many values to few: a moving mean, the k largest, a row per group."""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import ConfigError, DataError


class MovingAverage:
    """A function that returns the mean of the last `length` values it was called with.

    Args:
        length: number of values, at least 1.

    Raises:
        ConfigError: `length` is below 1.

    Example:
        >>> smooth = MovingAverage(3)
        >>> smooth(1.0), smooth(2.0)
        (1.0, 1.5)
    """

    def __init__(self, length: int = 10) -> None:
        if length < 1:
            raise ConfigError(f"MovingAverage got length={length}: give a number of at least 1")
        self._values: deque[Any] = deque(maxlen=length)

    def __call__(self, value: Any) -> Any:
        """Add a number or a tensor, which is detached, and return the mean."""
        self._values.append(value.detach() if isinstance(value, Tensor) else value)
        return sum(self._values) / len(self._values)


Moveing = MovingAverage  # the spelling of 0.6


class TopKQueue:
    """Keeps the `k` items with the largest scores; of equal scores, those added first.

    Args:
        k: number of items, at least 1.

    Raises:
        ConfigError: `k` is below 1.

    Example:
        >>> queue = TopKQueue(2)
        >>> for item in [(1, "a"), (3, "b"), (2, "c")]:
        ...     queue.put(item)
        >>> queue.items()
        [(3, 'b'), (2, 'c')]
    """

    def __init__(self, k: int) -> None:
        if k < 1:
            raise ConfigError(f"TopKQueue got k={k}: give a number of at least 1")
        self._k = k
        self._num_put = 0
        self._heap: list[tuple[float, int, Sequence[Any]]] = []

    def put(self, item: Sequence[Any]) -> None:
        """Add an item whose first element is its score; NaN ranks below every number."""
        score = float(item[0])
        # Items may hold tensors, which cannot be compared: of equal scores the count decides.
        entry = (-math.inf if math.isnan(score) else score, -self._num_put, item)
        self._num_put += 1
        heapq.heappush(self._heap, entry)
        if len(self._heap) > self._k:
            heapq.heappop(self._heap)

    def items(self) -> list[Sequence[Any]]:
        """Return the items, largest score first."""
        return [item for *_, item in sorted(self._heap, key=lambda e: e[:2], reverse=True)]

    def __len__(self) -> int:
        return len(self._heap)


def groupby_apply(values: Tensor, keys: Tensor, reduction: str = "mean") -> Tensor:
    """Average or sum the rows of `values` that have the same key.

    Args:
        values: `[N, ...]`; the mean of integers is a float.
        keys: `[N]`, in any order.
        reduction: `'mean'` or `'sum'`.

    Returns:
        `[K, ...]`: a row for each of the K different keys, keys ascending.

    Raises:
        ConfigError: the reduction is unknown.
        DataError: the shapes do not fit together.

    Example:
        >>> groupby_apply(torch.tensor([1, 2, 4]), torch.tensor([1, 0, 1]), "sum")
        tensor([2, 5])
    """
    if reduction not in ("mean", "sum"):
        raise ConfigError(f"groupby_apply got reduction={reduction!r}: give 'mean' or 'sum'")
    if keys.ndim != 1 or values.ndim < 1 or len(keys) != len(values):
        raise DataError(
            f"groupby_apply got values {list(values.shape)} and keys {list(keys.shape)}: "
            "there must be one key for each row"
        )
    unique, group_idx, num_rows = torch.unique(keys, return_inverse=True, return_counts=True)
    if reduction == "mean" and not (values.is_floating_point() or values.is_complex()):
        values = values.float()
    group_idx = group_idx.to(values.device)
    sums = values.new_zeros(len(unique), *values.shape[1:]).index_add(0, group_idx, values)
    if reduction == "sum":
        return sums
    num_rows = num_rows.to(values.device).view(-1, *[1] * (values.ndim - 1))
    return sums.div(num_rows)
