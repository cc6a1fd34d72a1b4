"""The values of a pass so far, for a line that is drawn again and again while it runs.

Loss and means are there already. A metric that keeps all outputs is computed on those that came
since the last look, and the mean over the samples of all looks is shown: each output is looked at
once, and of a metric that is a mean over samples the value is exact.

Looking takes 2 % of the time at most: a metric that is slow is looked at less often, and the
outputs in between are passed over. It leaves no trace: random states, generators and what metrics
count themselves are as before.
"""

from __future__ import annotations

from contextlib import nullcontext
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import rng
from ..errors import ArgumentsChanged, PatchError
from ..nest.operations import first_tensor, map_tensors, to_cpu
from ..nest.reuse import leaves
from ..show.screens import to_array
from .base import PatchBase, call_metric, flatten_value
from .confusion import ConfusionMetrics, ConfusionPatch, CountsPatch
from .tensors import Chunks, TensorPatch, is_whole, join
from .totals import PassPatches, shown_values
from .trial import copy_of_metric, draws_nothing
from .values import MeanPatch, ValuePatch

# Reading these changes no value that is read later; reading means costs next to nothing.
MEANS = (ValuePatch, MeanPatch)
COUNTS = (ConfusionPatch, ConfusionMetrics, CountsPatch)
REST = 50  # the pause after a look is this many times as long, times the number of metrics
MOST_NUMBERS = 100_000  # in a patch of another class; a larger one is not copied, and has no value


class RunningValues:
    """The values of one pass so far."""

    def __init__(self) -> None:
        self._metrics: dict[str, _Metric] = {}

    def read(self, patches: PassPatches) -> dict[str, Any]:
        """Give the values by name; ``UNDEFINED`` where one cannot be computed."""

        def value_of(key: str, patch: PatchBase) -> Any:
            if type(patch) in MEANS:
                return patch()
            if key not in self._metrics:
                self._metrics[key] = _metric_of(patch)
            return self._metrics[key].value(patch, REST * len(self._metrics))

        others = [p for p in patches.values() if type(p) is not ValuePatch and not draws_nothing(p)]
        holders = [getattr(patch, "metric", None) for patch in others]
        with rng.preserved(*holders) if others else nullcontext(), torch.no_grad():
            return shown_values(patches, value_of)


def _metric_of(patch: PatchBase) -> _Metric:
    if type(patch) in COUNTS:
        return _Metric()
    if isinstance(patch, TensorPatch) and type(patch).forward is TensorPatch.forward:
        return _Kept()
    return _Copied()


class _Metric:
    """A metric that takes time to be read."""

    def __init__(self) -> None:
        self._due_s = 0.0
        # Of the last look. The shorter of two counts, since one may have had to wait.
        self._took_s = 0.0
        self._value: Any = None

    def value(self, patch: Any, rest: float) -> Any:
        """Give the present value, or the last one until the next look is due."""
        began_s = perf_counter()
        if began_s < self._due_s:
            self.pass_over(patch)
        else:
            try:
                self._value = self.look(patch)
            finally:
                ended_s = perf_counter()
                took_s = ended_s - began_s
                self._due_s = ended_s + rest * min(took_s, self._took_s)
                self._took_s = took_s
        if self._value is None:
            raise PatchError(f"{patch} has no value yet")
        return self._value

    def look(self, patch: Any) -> Any:
        """Compute the value; `None`: there is none now."""
        return patch()

    def pass_over(self, patch: Any) -> None:
        """Leave out what came since the last look."""


class _Copied(_Metric):
    """A patch of any class: reading it may change it, so a copy is read."""

    def look(self, patch: PatchBase) -> Any:
        if patch.num_numbers(MOST_NUMBERS) > MOST_NUMBERS:
            return None
        return super().look(patch.copy())


class _Kept(_Metric):
    """A metric of kept outputs, computed on those that are new."""

    def __init__(self) -> None:
        super().__init__()
        self._outputs, self._targets = _Unread(), _Unread()
        self._totals: dict[str, Any] = {}
        self._weights: dict[str, Any] = {}

    def pass_over(self, patch: TensorPatch) -> None:
        self._outputs.take(patch.outputs)
        self._targets.take(patch.targets)

    def look(self, patch: TensorPatch) -> Any:
        new = self._outputs.take(patch.outputs), self._targets.take(patch.targets)
        if all(new):
            weight = sum(map(_num_rows, new[0]))
            given = tuple(map(join, new))
            given = given if patch.keep_on_device else tuple(map(to_cpu, given))
            try:
                metric = copy_of_metric(patch.metric)
                value = call_metric(metric, *given, on_copies=patch.on_copies)
                self._add(flatten_value("", value), weight)
            except ArgumentsChanged:
                raise
            except Exception:  # it has no value on so few samples
                if not self._totals:
                    raise
        with np.errstate(invalid="ignore"):
            return {key: self._totals[key] / self._weights[key] for key in self._totals} or None

    def _add(self, values: dict[str, Any], weight: int) -> None:
        for key, value in values.items():
            array = to_array(value).astype(float)
            counts = weight * np.isfinite(array)
            total = np.where(np.isfinite(array), array, 0.0) * weight
            self._totals[key] = self._totals.get(key, 0.0) + total
            self._weights[key] = self._weights.get(key, 0) + counts


class _Unread:
    """Which chunks of outputs, or of targets, are new."""

    def __init__(self) -> None:
        self._num_joined = 0  # when it was last looked
        self._num_items = 0
        self._num_rows = 0

    def take(self, chunks: Chunks) -> list[Any]:
        """Give what came since the last call."""
        is_same = chunks.num_joined == self._num_joined
        # Chunks that were joined since are told apart by their rows.
        known = self._num_items if is_same else 0
        skip = 0 if is_same else self._num_rows
        new = []
        for item in chunks.items[known:]:
            rows = _num_rows(item)
            if skip >= rows:
                skip -= rows
                continue
            self._num_rows += rows - skip
            if not skip:
                new.append(item)
            elif all(len(tensor) == rows for tensor in leaves(item)):
                new.append(_without(item, skip))
            skip = 0
        self._num_joined, self._num_items = chunks.num_joined, len(chunks.items)
        return new


def _without(item: Any, skip: int) -> Any:
    return map_tensors(lambda tensor: tensor[skip:], item)


def _num_rows(item: Any) -> int:
    """Count the samples of a chunk; what cannot be joined, as a graph, counts as one."""
    if type(item) is Tensor:  # nearly all are
        return item.shape[0] if item.dim() else 1
    if isinstance(item, list):
        return len(item)
    tensor = first_tensor(item) if is_whole(item) else None
    return len(tensor) if tensor is not None and tensor.ndim else 1
