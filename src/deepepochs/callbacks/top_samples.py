"""The k samples with the largest or smallest value, out of any number, in the memory of k.

>>> import torch
>>> from deepepochs.callbacks.top_samples import TopSamples
>>> top = TopSamples(k=2)
>>> for x in torch.tensor([[3.0, 1.0], [9.0, 4.0]]):
...     top.add(x, model_out=x, batch_y=None, batch_x=(x,))
>>> [value for value, *_ in top.samples()]
[9.0, 4.0]
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable
from typing import Any

from torch import Tensor

from ..nest.operations import map_tensors

__all__ = ["TopSamples"]


class TopSamples:
    """Keeps the samples with the most extreme values; of equal ones those that came first.

    Args:
        k: how many.
        mode: ``'max'`` or ``'min'``. NaN is larger than all numbers.
    """

    def __init__(self, k: int, mode: str = "max") -> None:
        self.k = k
        self._sign = 1.0 if mode == "max" else -1.0
        # A heap whose first entry is the next to go: (key, minus the place in the data, sample).
        self._heap: list[tuple[float, tuple[int, ...], list[Any]]] = []
        self._num_seen = 0

    def __len__(self) -> int:
        return len(self._heap)

    def clear(self) -> None:
        """Forget all samples."""
        self._heap = []
        self._num_seen = 0

    def add(
        self,
        values: Tensor,
        model_out: Any,
        batch_y: Any,
        batch_x: Any,
        place: tuple[int, ...] = (),
    ) -> None:
        """Take in a mini-batch; samples that are not kept are not copied.

        Args:
            values: one for each sample, ``[N]``. Reading them waits for an accelerator.
            model_out: outputs, whose tensors begin with the dimension ``N``.
            batch_y: the targets, alike.
            batch_x: the inputs, alike.
            place: orders the mini-batches of several processes; of one those that are added
                first come first.
        """
        bare_x = batch_x[0] if isinstance(batch_x, tuple) and len(batch_x) == 1 else batch_x
        for index, value in enumerate(values.tolist()):
            order = (*(-number for number in place), -(self._num_seen + index))
            key = self._sign * (math.inf if math.isnan(value) else value)
            if len(self._heap) == self.k and (key, order) <= self._heap[0][:2]:
                continue
            parts = [pick(part, index, len(values)) for part in (model_out, batch_y, bare_x)]
            entry = (key, order, [value, *parts])
            if len(self._heap) < self.k:
                heapq.heappush(self._heap, entry)
            else:
                heapq.heapreplace(self._heap, entry)
        self._num_seen += len(values)

    def join(self, parts: Iterable[TopSamples]) -> None:
        """Keep the most extreme of the samples that several processes have kept."""
        entries = [entry for part in parts for entry in part._heap]
        self._heap = sorted(entries, key=lambda entry: entry[:2])[-self.k :]

    def samples(self) -> list[list[Any]]:
        """``[value, output, target, input]``, the most extreme first."""
        ranked = sorted(self._heap, key=lambda entry: entry[:2], reverse=True)
        return [list(sample) for _, _, sample in ranked]


def pick(nest: Any, index: int, num: int) -> Any:
    """Copy one sample out of the tensors of a mini-batch of ``num``, to the CPU."""

    def one(tensor: Tensor) -> Tensor:
        has_samples = tensor.ndim > 0 and len(tensor) == num
        return (tensor[index] if has_samples else tensor).detach().cpu().clone()

    return map_tensors(one, nest)
