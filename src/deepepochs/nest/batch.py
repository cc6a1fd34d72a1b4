"""From what a loader yields to ``batch_x`` and ``batch_y``.

One rule: ``batch_x`` is all but the last element, always a tuple (or the dict,
where the loader yields one); ``batch_y`` is the last element.

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
from . import operations as nested
from .containers import TensorTuple

__all__ = ["BatchSize", "check_batch_size", "split_batch", "split_pair", "weigh_batch"]

BatchSize = int | Callable[[Any, Any], int] | None

_SEQUENCES = frozenset((list, tuple))


def split_batch(batch: Any, *, with_targets: bool) -> tuple[Any, Any]:
    """Give ``(batch_x, batch_y)`` of one mini-batch.

    Args:
        batch: a tuple or list, a dict, or one object such as a graph.
        with_targets: the last element is the target (a loss function is given);
            otherwise the whole mini-batch is input.

    Returns:
        ``batch_x``, a tuple or a dict, and ``batch_y``, which is ``None`` without targets.

    Raises:
        DataError: a mini-batch in which input and target cannot be told apart.
    """
    if type(batch) in (list, tuple) or isinstance(batch, (tuple, list)):
        if not with_targets:
            return TensorTuple(map(_composed, batch)), None
        for item in batch:
            if type(item) is not Tensor:
                batch = [_composed(item) for item in batch]
                break
        batch_x = TensorTuple(batch[:-1])
        if not batch_x:
            raise DataError(
                f"The loader yielded {nested.describe(batch)}: its last element is the target, so "
                "no input is left. Yield (input, target), or (input, None) where there is no target."
            )
        return batch_x, batch[-1]
    if isinstance(batch, Mapping):
        return _composed(batch), None
    if isinstance(batch, Tensor) and with_targets:
        raise DataError(
            f"The loader yielded {nested.describe(batch)}, not a tuple or list: input and target "
            "cannot be told apart. Yield (input, target), or (input, None) where there is no target."
        )
    if batch is None or isinstance(batch, (str, bytes, int, float)):
        raise DataError(
            f"The loader yielded {nested.describe(batch)}; a mini-batch is a tuple or list whose "
            "last element is the target, a dict, or an object such as a graph."
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
    """Split a plain list or tuple of two CPU tensors, the usual mini-batch; ``None`` for others.

    The first has samples ``[B, ...]``: its size 0 is what ``weigh_batch`` guesses.

    >>> import torch
    >>> split_pair([torch.zeros(4, 2), torch.ones(4)])[0][0].shape
    torch.Size([4, 2])
    """
    if type(batch) in _SEQUENCES and len(batch) == 2:
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
            f"batch_size={batch_size!r} is {nested.describe(batch_size)}: give a positive int, a "
            "function (batch_x, batch_y) -> int, or None to have it guessed."
        )
    if batch_size < 1:
        raise ConfigError(f"batch_size={batch_size!r}: the weight of a mini-batch is at least 1.")


def weigh_batch(batch_size: BatchSize, batch_x: Any, batch_y: Any) -> float:
    """Give the weight of a mini-batch in means: its number of samples.

    Args:
        batch_size: the number itself; a function of ``(batch_x, batch_y)``, which
            gets a single input unwrapped; ``None`` guesses it from ``batch_x``.
        batch_x: the inputs.
        batch_y: the targets.

    Raises:
        ConfigError: the function gave something that is no positive number.
    """
    if batch_size is None:
        if type(batch_x) is TensorTuple and batch_x:
            first = batch_x[0]
            if type(first) is Tensor and first.ndim:
                return first.size(0)
        return nested.batch_size(batch_x)
    if isinstance(batch_size, int):
        return batch_size
    single = isinstance(batch_x, tuple) and len(batch_x) == 1
    try:
        weight: Any = batch_size(batch_x[0] if single else batch_x, batch_y)
    except Exception as error:
        what = "the input" if single else "the inputs"
        given = nested.describe(batch_x[0] if single else batch_x)
        text = f"raised in the batch_size function, called with {what}, {given}, and the target"
        add_note(error, f"{text}, {nested.describe(batch_y)}")
        raise
    if isinstance(weight, Tensor) and weight.numel() == 1:
        weight = weight.item()
    is_number = isinstance(weight, Real) and not isinstance(weight, bool)
    if not is_number or not 0 < weight < math.inf:
        found = repr(weight) if isinstance(weight, (str, Real)) else nested.describe(weight)
        raise ConfigError(
            f"The batch_size function gave {found} for inputs {nested.describe(batch_x)}: it must "
            "give the number of samples, above 0."
        )
    return float(weight)
