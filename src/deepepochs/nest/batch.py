"""Splits a mini-batch of a loader into ``batch_x`` and ``batch_y``, and gives its weight.

``batch_y`` is the last element; ``batch_x`` is a tuple of the others, or the dict that was yielded.

>>> import torch
>>> batch_x, batch_y = split_batch([torch.zeros(4, 2), torch.ones(4)], with_targets=True)
>>> len(batch_x), batch_y.shape
(1, torch.Size([4]))
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any

from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from ..errors import ConfigError, ConfigTypeError, DataError, add_note
from .containers import TensorTuple, describe
from .containers import batch_size as guessed_size

__all__ = ["BatchSize", "check_batch_size", "split_batch", "split_pair", "weigh_batch"]

BatchSize = int | Callable[[Any, Any], int] | None
_PAIRS = "Yield (input, target), or (input, None) if there is no target."


def split_batch(batch: Any, *, with_targets: bool) -> tuple[Any, Any]:
    """Give ``(batch_x, batch_y)`` of a mini-batch: a tuple, a list, a dict, or an object.

    Without targets (there is no loss function) all of it is ``batch_x``, and ``batch_y`` is None.

    Raises:
        DataError: input and target cannot be told apart.
    """
    if isinstance(batch, (tuple, list)):
        items = [item if type(item) is Tensor else _composed(item) for item in batch]
        if not with_targets:
            return TensorTuple(items), None
        if len(items) < 2:
            raise DataError(
                f"The loader yielded {describe(batch)}: its last element is the target, so no "
                f"input is left. {_PAIRS}"
            )
        return TensorTuple(items[:-1]), items[-1]
    if isinstance(batch, Mapping):
        return _composed(batch), None
    if isinstance(batch, Tensor) and with_targets:
        raise DataError(
            f"The loader yielded {describe(batch)}, not a tuple or list: input and target cannot "
            f"be told apart. {_PAIRS}"
        )
    if batch is None or isinstance(batch, (str, bytes, int, float)):
        raise DataError(
            f"The loader yielded {describe(batch)}; a mini-batch is a tuple or list whose last "
            "element is the target, a dict, or an object such as a graph."
        )
    return TensorTuple((batch,)), None


def _composed(item: Any) -> Any:
    """Make lists and tuples ``TensorTuple``, inner ones too, as a move to the device does."""
    if isinstance(item, (tuple, list)) and not isinstance(item, PackedSequence):
        items = map(_composed, item)
        return type(item)(*items) if hasattr(item, "_fields") else TensorTuple(items)
    if isinstance(item, dict) and not hasattr(item, "to"):
        rebuilt: Any = {} if type(item) is dict else copy.copy(item)
        for key, value in item.items():
            rebuilt[key] = _composed(value)
        return rebuilt
    return item


def split_pair(batch: Any) -> tuple[TensorTuple, Tensor] | None:
    """Split the usual mini-batch, a list or tuple of two CPU tensors; give None for any other.

    The input has a dimension 0, whose size is the number of samples.
    """
    if type(batch) in (list, tuple) and len(batch) == 2:
        batch_x, batch_y = batch
        if (
            type(batch_x) is Tensor is type(batch_y)
            and batch_x.is_cpu
            and batch_y.is_cpu
            and batch_x.ndim
        ):
            return TensorTuple((batch_x,)), batch_y
    return None


def check_batch_size(batch_size: object) -> None:
    """Raise ``ConfigError`` unless ``batch_size`` is ``None``, a positive int or a function."""
    if batch_size is None or callable(batch_size):
        return
    if isinstance(batch_size, bool) or not isinstance(batch_size, int):
        raise ConfigTypeError(
            f"batch_size={batch_size!r} is {describe(batch_size)}: give a positive int, a function "
            "(batch_x, batch_y) -> int, or None to guess it from the inputs."
        )
    if batch_size < 1:
        raise ConfigError(f"batch_size={batch_size!r}: the weight of a mini-batch is at least 1.")


def weigh_batch(batch_size: BatchSize, batch_x: Any, batch_y: Any) -> float:
    """Give the number of samples in a mini-batch, which is its weight in means.

    A ``batch_size`` of None is guessed from ``batch_x``; a function gets a single input unwrapped.

    Raises:
        ConfigError: the function did not return a positive number.
    """
    if batch_size is None:
        if type(batch_x) is TensorTuple and batch_x:
            first = batch_x[0]
            if type(first) is Tensor and first.ndim:
                return first.size(0)
        return guessed_size(batch_x)
    if isinstance(batch_size, int):
        return batch_size
    is_single = isinstance(batch_x, tuple) and len(batch_x) == 1
    given = batch_x[0] if is_single else batch_x
    try:
        weight: Any = batch_size(given, batch_y)
    except Exception as error:
        what = f"the input{'' if is_single else 's'}, {describe(given)},"
        text = f"raised in the batch_size function, called with {what} and the target"
        add_note(error, f"{text}, {describe(batch_y)}")
        raise
    if isinstance(weight, Tensor) and weight.numel() == 1:
        weight = weight.item()
    is_number = isinstance(weight, Real) and not isinstance(weight, bool)
    if not is_number or not 0 < weight < math.inf:
        found = repr(weight) if isinstance(weight, (str, Real)) else describe(weight)
        raise ConfigError(
            f"The batch_size function gave {found} for inputs {describe(batch_x)}: it must give "
            "the number of samples, above 0."
        )
    return float(weight)
