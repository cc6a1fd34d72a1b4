"""The patches of ``record``: the mean, sum, maximum, minimum or last of the values it was given.

A value on an accelerator stays there as a tensor: no step waits for it.

>>> patch = recorded_patch("seen", 30, None, "sum")
>>> (patch + recorded_patch("seen", 12, None, "sum"))()
42.0
"""

from __future__ import annotations

from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..arguments import check_choice
from ..errors import ConfigError, ConfigTypeError
from ..nest.operations import describe
from .base import PatchBase
from .values import ValuePatch, wide_dtype

if TYPE_CHECKING:
    from typing_extensions import Self


class FoldedPatch(PatchBase):
    """A single value, made of many by ``fold``, two at a time."""

    def __init__(self, value: float | Tensor) -> None:
        super().__init__()
        self.value = value

    @staticmethod
    def fold(one: Any, two: Any) -> Any:
        """Make one value of two: their sum."""
        return one + two

    def add(self, other: Any) -> Self:
        """Fold the value of another patch into this one's."""
        self.value = self.fold(self.value, other.value)
        return self

    def forward(self) -> Any:
        """Give the number."""
        return self.value


class SumPatch(FoldedPatch):
    """The sum of single values."""


class MaxPatch(FoldedPatch):
    """The largest of single values; NaN if one of them is NaN."""

    @staticmethod
    def fold(one: Any, two: Any) -> Any:
        """Give the larger of two values."""
        return extreme(torch.maximum, max, one, two)


class MinPatch(FoldedPatch):
    """The smallest of single values; NaN if one of them is NaN."""

    @staticmethod
    def fold(one: Any, two: Any) -> Any:
        """Give the smaller of two values."""
        return extreme(torch.minimum, min, one, two)


class LastPatch(PatchBase):
    """The last of single values, in the order of the data, whichever process has recorded it."""

    def __init__(self, value: float | Tensor, at: tuple[int, int]) -> None:
        super().__init__()
        self.value = value
        self.at = at  # the index of the task and of its mini-batch

    def add(self, other: Any) -> Self:
        """Take the value of another patch unless it is an earlier one."""
        if tuple(other.at) >= tuple(self.at):
            self.value, self.at = other.value, other.at
        return self

    def forward(self) -> Any:
        """Give the number."""
        return self.value


HOW = ("mean", "last", "sum", "max", "min")
_KINDS = {"sum": SumPatch, "max": MaxPatch, "min": MinPatch}


def recorded_patch(
    name: str, value: Any, weight: Any, how: str, at: tuple[int, int] = (0, 0)
) -> PatchBase:
    """Make the patch of a value, or raise a ``ConfigError`` that says what to give.

    Args:
        name: under which it is recorded.
        value: a number, or an array or a tensor with one element.
        weight: in the mean; not of the others.
        how: one of ``HOW``.
        at: the index of the task and of the mini-batch.
    """
    if not isinstance(name, str) or not name:
        raise ConfigTypeError(f"record({name!r}, value): the name comes first; give a text.")
    number = _as_number(name, value)
    if check_choice("how", how, HOW) == "mean":
        return ValuePatch(_checked_weight(name, weight)).load(number)
    return LastPatch(number, at) if how == "last" else _KINDS[how](number)


def extreme(of_tensors: Any, of_numbers: Any, one: Any, two: Any) -> Any:
    """Give the larger or the smaller of two values, and NaN if one of them is NaN."""
    tensors = [value for value in (one, two) if isinstance(value, Tensor)]
    if tensors:
        kind = tensors[0].dtype
        return of_tensors(torch.as_tensor(one, dtype=kind), torch.as_tensor(two, dtype=kind))
    return one if one != one else two if two != two else of_numbers(one, two)


def _as_number(name: str, value: Any) -> float | Tensor:
    """Give a float, or a copy in 64 bits on an accelerator: the script may change its tensor."""
    if isinstance(value, Tensor):
        if value.numel() == 1 and not value.is_complex():
            scalar = value.detach().reshape(())
            return float(scalar.item()) if value.is_cpu else scalar.to(wide_dtype(value), copy=True)
    elif isinstance(value, (np.ndarray, np.generic)):
        if value.size == 1 and value.dtype.kind in "biuf":
            return float(value.item())
    elif isinstance(value, Real):
        return float(value)
    raise ConfigTypeError(
        f"record({name!r}, value) got {describe(value)}: give a single number, such as value.mean() "
        "of a tensor, or record each number under a name of its own."
    )


def _checked_weight(name: str, weight: Any) -> Any:
    try:
        return ValuePatch(weight).batch_size
    except (ConfigError, ValueError, RuntimeError):
        raise ConfigError(
            f"record({name!r}, value, weight={weight!r}): give a number of at least 0, such as the "
            "number of samples that the value is a mean of."
        ) from None
