"""Patches that average: values of mini-batches, such as losses, or metrics of mini-batches.

>>> import torch
>>> from deepepochs.patches import ValuePatch
>>> (ValuePatch(3).load(1.0) + ValuePatch(1).load(5.0))()
2.0
>>> from deepepochs.metrics import accuracy
>>> from deepepochs.patches import MeanPatch
>>> right = MeanPatch(accuracy, 3).load(torch.tensor([0, 1, 1]), torch.tensor([0, 1, 1]))
>>> wrong = MeanPatch(accuracy, 1).load(torch.tensor([0]), torch.tensor([1]))
>>> (right + wrong)()
0.75
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..errors import ConfigError, MetricError, PatchError
from ..nest.operations import describe
from .base import (
    PatchBase,
    call_metric,
    check_same_metric,
    checked_metric,
    copied,
    flatten_value,
    for_checkpoint,
    metric_name,
    mismatch,
)

if TYPE_CHECKING:
    from typing_extensions import Self


# So many values of an accelerator are collected, then one kernel sums them.
FOLD_EVERY = 64
_SUMS = ("total", "weight", "mean", "pending")


class ValuePatch(PatchBase):
    """A mean, or a dict of means, weighted by batch size.

    Values on the CPU are summed as Python floats (64 bits). Values on an accelerator are summed
    there, in 64 bits if it has them, without waiting for it. Small tensors (one value per class)
    are averaged element by element. A batch of weight 0 is ignored; without any weight the mean
    is nan.

    Args:
        batch_size: the weight of the value: a number of samples or a sum of weights, at least 0.
            Reading a tensor waits for its accelerator.
        name: see `PatchBase`.

    Raises:
        ConfigError: the weight is negative, infinite or not a number.

    Example:
        >>> (ValuePatch(1).load({"a": 1.0}) + ValuePatch(1).load({"a": 2.0, "b": 3.0}))()
        {'a': 1.5, 'b': 3.0}
    """

    def __init__(self, batch_size: float | Tensor, name: str | None = None) -> None:
        super().__init__(name)
        self.batch_size = _checked_weight(batch_size, type(self).__name__)
        self._clear()

    def _clear(self) -> None:
        self.total: Any = 0.0
        self.weight: float = 0
        self.mean: float | None = None  # of a single value: total / weight would be rounded
        self.pending: list[tuple[Tensor, float]] = []  # values on an accelerator, with weights
        self.items: dict[str, ValuePatch] | None = None  # by key, if the value is a dict

    def load(self, mean_value: Any) -> Self:
        """Store the mean of one mini-batch: a number, a tensor, or a (nested) dict of them.

        Raises:
            MetricError: it is none of these.
        """
        self._clear()
        if isinstance(mean_value, dict):
            self.items = {
                key: ValuePatch(self.batch_size).load(item)
                for key, item in flatten_value("", mean_value).items()
            }
            return self
        self.accumulate(mean_value, self.batch_size)
        if self.weight and not self.pending and type(self.total) is float:
            self.mean = float(mean_value.detach() if isinstance(mean_value, Tensor) else mean_value)
        return self

    def accumulate(self, mean_value: Any, weight: float) -> None:
        """Add one more mean in place, as the loop does with the loss of each batch.

        Args:
            mean_value: a number or a tensor. A 0-d tensor on an accelerator is kept, and later
                summed with others on its device.
            weight: its weight, at least 0; not checked.
        """
        self.mean = None
        if type(mean_value) is not float:
            if isinstance(mean_value, Tensor) and not mean_value.ndim:
                if not mean_value.is_cpu:
                    return self._put_aside(mean_value, weight)
                # 0.14 µs; many small tensors that are kept would fragment the heap.
                mean_value = mean_value.item()
            else:
                mean_value = _as_summand(mean_value)
        if weight:  # the mean of an empty batch is nan, and 0 * nan is nan
            self.total = self.total + mean_value * weight
            self.weight += weight
        return None

    def _put_aside(self, mean_value: Tensor, weight: float) -> None:
        if weight:
            self.pending.append((mean_value.detach(), weight))
            self.weight += weight
            self._fold_if_many()

    def _fold_if_many(self) -> None:
        if len(self.pending) >= FOLD_EVERY:
            self.total = _plus(self.total, _folded(self.pending))
            self.pending = []

    def add(self, other: Any) -> Self:
        """Add the sums of another patch to these."""
        if (self.items is None) is not (other.items is None):
            raise PatchError(mismatch(self, ": one is a dict, one a single value", other))
        self.mean = None
        if self.items is not None:
            for key, item in other.items.items():
                self.items[key] = self.items[key].add(item) if key in self.items else item.copy()
            return self
        self.total = _plus(self.total, other.total)
        self.weight += other.weight
        if other.pending:
            self.pending.extend(other.pending)
            self._fold_if_many()
        return self

    def forward(self) -> Any:
        """Give the weighted mean: a float, a tensor, or a dict of them."""
        if self.items is not None:
            return {key: item() for key, item in self.items.items()}
        if self.mean is not None:
            return self.mean
        # Pending values stay pending: reading must not change the order of the sum.
        total = _plus(self.total, _folded(self.pending)) if self.pending else self.total
        return total / self.weight if self.weight else math.nan

    def _amounts(self) -> list[str]:
        if self.items is not None:
            return [f"means of {', '.join(self.items)}"]
        mean = [] if self.pending or type(self.total) is not float else [f"mean {self():.4g}"]
        return [*mean, f"weight {self.weight:g}"] if self.weight else []

    def state_dict(self) -> dict[str, Any]:
        """Give sums, weights and pending values: summing those now would change later bits."""
        sums = {key: for_checkpoint(getattr(self, key), f"ValuePatch.{key}") for key in _SUMS}
        items = None
        if self.items is not None:
            items = {key: item.state_dict() for key, item in self.items.items()}
        return {**sums, "items": items}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load what `state_dict` gave."""
        self._clear()
        for key in _SUMS:
            setattr(self, key, copied(state[key]))
        if state["items"] is not None:
            self.items = {key: ValuePatch(0) for key in state["items"]}
            for key, item in self.items.items():
                item.load_state_dict(state["items"][key])


class MeanPatch(ValuePatch):
    """The metric of each batch, averaged with batch sizes as weights; cheap in time and memory.

    The result is the metric of the whole epoch only if the metric is a mean over samples
    (accuracy, mean squared error). For others, such as precision, use another patch.

    Args:
        metric: a function ``(outputs, targets)`` giving a number, a tensor, or a dict of them.
        batch_size: see `ValuePatch`.
        name: see `PatchBase`.

    Raises:
        ConfigError: the metric cannot be called, or the weight is not valid.
    """

    def __init__(
        self, metric: Callable[..., Any], batch_size: float | Tensor, name: str | None = None
    ) -> None:
        super().__init__(batch_size, name)
        self.metric = checked_metric(metric, type(self).__name__)

    def load(self, outputs: Any, targets: Any = None) -> Self:
        """Call the metric on one mini-batch and store its value.

        Raises:
            MetricError: the value is neither a number, a tensor, nor a dict of them, or the
                metric changes its arguments in place.
        """
        value = call_metric(self.metric, outputs, targets, on_copies=self.on_copies)
        try:
            return super().load(value)
        except MetricError as error:
            raise MetricError(f"metric {metric_name(self.metric)!r}: {error}") from None

    def add(self, other: Any) -> Self:
        """Add the sums of another patch of the same metric to these."""
        check_same_metric(self, other)
        return super().add(other)


def _checked_weight(weight: Any, owner: str) -> float:
    if isinstance(weight, (Tensor, np.generic)):
        weight = weight.item()
    if isinstance(weight, (int, float)) and 0 <= weight < math.inf:
        return weight
    raise ConfigError(
        f"{owner} got batch_size={weight!r}: give the number of samples or the sum of their "
        "weights, 0 or more."
    )


def _as_summand(value: Any) -> Any:
    """Give a float, or a 64-bit tensor of several values."""
    if isinstance(value, (int, float, np.number, np.bool_)):
        return float(value)
    if isinstance(value, (Tensor, np.ndarray)):
        tensor = torch.as_tensor(value).detach()
        return tensor.item() if not tensor.ndim and tensor.is_cpu else tensor.to(wide_dtype(tensor))
    raise MetricError(
        f"the value to average is {describe(value)}: give a number, a tensor, or a dict of them."
    )


def wide_dtype(tensor: Tensor) -> torch.dtype:
    return torch.float32 if tensor.device.type == "mps" else torch.float64


def _folded(pending: list[tuple[Tensor, float]]) -> Tensor:
    """Sum values times weights on their device, without waiting for it.

    A tensor of weights would be a copy that waits. So each weight is a kernel's argument, for all
    neighbours of that weight; nearly all batches have the same size.
    """
    device = pending[-1][0].device  # values from a checkpoint may be on the CPU
    wide = wide_dtype(pending[-1][0])
    sums = [
        torch.stack([value.to(device) for value, _ in group]).sum(dtype=wide) * weight
        for weight, group in itertools.groupby(pending, operator.itemgetter(1))
    ]
    return sums[0] if len(sums) == 1 else torch.stack(sums).sum()


def _plus(one: Any, two: Any) -> Any:
    """Add, without a kernel for the float 0 with which sums begin."""
    if type(two) is float and not two:
        return one
    return two if type(one) is float and not one else one + two
