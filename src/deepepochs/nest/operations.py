"""Functions of nested tuples, lists and dicts of tensors, such as mini-batches or model outputs.

None of them changes its argument. Items that are neither tensors nor containers stay the same.

>>> import torch
>>> from deepepochs.nest.operations import describe, to_device
>>> describe(to_device([torch.zeros(32, 1, 28, 28)], "cpu"))
'a tuple of 1 tensor [32, 1, 28, 28]'
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from ..errors import ConfigError, DataError
from .containers import (
    TensorDict,
    TensorTuple,
    batch_size,
    describe,
    first_tensor,
    map_tensors,
    move,
    walk,
)

__all__ = [
    "TensorDict",
    "TensorTuple",
    "batch_size",
    "batches",
    "clone_value",
    "compose_data",
    "concat",
    "describe",
    "detach",
    "detach_clone",
    "map_tensors",
    "tensor_tuple",
    "to_cpu",
    "to_device",
    "to_numpy",
]


def to_device(x: Any, device: str | torch.device, *, non_blocking: bool = False) -> Any:
    """Move every item that has a ``to`` method: tensors, graphs, packed sequences.

    Lists and tuples become `TensorTuple`; named tuples and dicts keep their class. With
    ``non_blocking``, copies of tensors from pinned memory overlap with the computation.

    >>> to_device(["id", {"x": [torch.ones(1)]}], "cpu")
    ('id', {'x': (tensor([1.]),)})
    """
    if isinstance(x, Tensor):
        return x.to(device, non_blocking=non_blocking)
    if isinstance(x, (tuple, list)) and not isinstance(x, PackedSequence):
        if non_blocking:
            moved = [to_device(item, device, non_blocking=True) for item in x]
        else:  # runs for every mini-batch, so a tensor costs no further call
            moved = [i.to(device) if isinstance(i, Tensor) else to_device(i, device) for i in x]
        return type(x)(*moved) if hasattr(x, "_fields") else TensorTuple(moved)
    if isinstance(x, dict) and (type(x) in (dict, TensorDict) or not hasattr(x, "to")):
        rebuilt = {} if type(x) is dict else copy.copy(x)
        for key, item in x.items():
            rebuilt[key] = to_device(item, device, non_blocking=non_blocking)
        return rebuilt
    return move(x, (device,), {})


def to_cpu(x: Any) -> Any:
    """Move every tensor in `x` to the CPU."""
    return map_tensors(Tensor.cpu, x)


def detach(x: Any) -> Any:
    """Detach every tensor in `x` from autograd, sharing its memory."""
    return x.detach() if isinstance(x, Tensor) else map_tensors(Tensor.detach, x)


def detach_clone(x: Any) -> Any:
    """Copy every tensor in `x`, detached from autograd.

    >>> detach_clone({"x": torch.ones(1, requires_grad=True)})
    {'x': tensor([1.])}
    """
    return map_tensors(lambda t: t.detach().clone(), x)


def clone_value(x: Any) -> Any:
    """Copy `x` deeply; unlike in ``copy.deepcopy``, tensors keep their autograd history.

    >>> clone_value({"n": 1, "x": [torch.ones(1)]})
    {'n': 1, 'x': [tensor([1.])]}
    """
    return walk(lambda i: i.clone() if isinstance(i, Tensor) else copy.deepcopy(i), x)


def to_numpy(x: Any) -> Any:
    """Convert every tensor in `x` to a NumPy array; bfloat16, which NumPy lacks, to float32.

    >>> to_numpy([torch.ones(2), {"x": torch.zeros(())}])
    [array([1., 1.], dtype=float32), {'x': array(0., dtype=float32)}]
    """

    def array(t: Tensor) -> Any:
        return (t.float() if t.dtype is torch.bfloat16 else t).numpy(force=True)

    return map_tensors(array, x)


def tensor_tuple(x: Any) -> Any:
    """Make a list or tuple a `TensorTuple`, inner ones too; return anything else unchanged.

    >>> type(tensor_tuple([torch.ones(1)])).__name__
    'TensorTuple'
    """
    return TensorTuple(map(tensor_tuple, x)) if isinstance(x, (list, tuple)) else x


def compose_data(x: Any) -> Any:
    """Make lists and tuples `TensorTuple` and dicts `TensorDict`, inner ones too.

    >>> type(compose_data({"x": torch.ones(1)})).__name__
    'TensorDict'
    """
    if isinstance(x, dict):
        return TensorDict({key: compose_data(item) for key, item in x.items()})
    return TensorTuple(map(compose_data, x)) if isinstance(x, (list, tuple)) else x


def concat(values: Sequence[Any]) -> Any:
    """Join the values of several mini-batches along dimension 0.

    Args:
        values: tensors or arrays (0-d ones and numbers are stacked), tuples or lists
            (joined item by item into a `TensorTuple`), dicts (joined key by key), or lists of
            samples other than tensors, such as texts (chained). Nones are returned as a list.

    Raises:
        DataError: the list is empty, or the values do not fit together.

    Example:
        >>> concat([(torch.ones(1), torch.tensor(1)), (torch.zeros(2), torch.tensor(2))])
        (tensor([1., 0., 0.]), tensor([1, 2]))
    """
    values = list(values)
    if not values:
        raise DataError("concat got an empty list: give it the value of at least one mini-batch")
    first = values[0]
    if all(isinstance(v, Tensor) for v in values):
        return _join(values, torch.stack, torch.cat)
    if all(v is None or isinstance(v, str) for v in values):
        return values
    if all(isinstance(v, (int, float)) for v in values):
        return torch.tensor(values)
    if all(isinstance(v, (np.ndarray, np.generic)) for v in values):
        return _join(values, np.stack, np.concatenate)
    if all(isinstance(v, dict) and v.keys() == first.keys() for v in values):
        joined = {key: concat([v[key] for v in values]) for key in first}
        return TensorDict(joined) if isinstance(first, TensorDict) else joined
    if all(isinstance(v, (tuple, list)) for v in values):
        if isinstance(first, list) and first_tensor(values) is None:
            return [sample for value in values for sample in value]
        if all(len(v) == len(first) for v in values):
            return TensorTuple(concat(items) for items in zip(*values, strict=True))
    found = ", ".join(describe(v) for v in values[:3])
    raise DataError(
        f"concat got {found}, which do not fit together: the values must be of one kind, with the "
        "same length or the same keys"
    )


def _join(values: list[Any], stack: Callable[..., Any], cat: Callable[..., Any]) -> Any:
    try:
        return cat(values) if values[0].ndim else stack(values)
    except (RuntimeError, ValueError) as error:
        shapes = ", ".join(str(list(v.shape)) for v in values[:5])
        raise DataError(
            f"concat got shapes {shapes}: all dimensions but the first must agree"
        ) from error


def batches(inputs: Any, batch_size: int) -> Iterator[Any]:
    """Cut a mini-batch into consecutive smaller ones; the last may be shorter.

    Args:
        inputs: a tensor `[N, ...]`, or a list or tuple of them with one `N` (not nested).
        batch_size: samples per slice, at least 1.

    Returns:
        An iterator over slices, or over a `TensorTuple` of slices.

    Raises:
        ConfigError: `batch_size` is below 1.
        DataError: the tensors differ in length.

    Example:
        >>> [len(x) for x in batches(torch.zeros(5, 2), 2)]
        [2, 2, 1]
    """
    if batch_size < 1:
        raise ConfigError(f"batches got batch_size={batch_size}: give a number of at least 1")
    if not isinstance(inputs, (list, tuple)):
        return (inputs[i : i + batch_size] for i in range(0, len(inputs), batch_size))
    lengths = [len(item) for item in inputs]
    if len(set(lengths)) != 1:
        raise DataError(f"batches got inputs of lengths {lengths}: they must be of one length")
    return (
        TensorTuple(item[i : i + batch_size] for item in inputs)
        for i in range(0, lengths[0], batch_size)
    )
