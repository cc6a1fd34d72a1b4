"""The tuple and dict that hold the inputs of a mini-batch, and functions that read nested values.

Both can be moved, cast and detached like a tensor.

>>> import torch
>>> from deepepochs.nest.containers import TensorTuple
>>> TensorTuple([torch.ones(2), "a text"]).to(torch.int64)
(tensor([1, 1]), 'a text')
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence, Sized
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from .codec import own_container

__all__ = [
    "TensorDict",
    "TensorTuple",
    "batch_size",
    "describe",
    "first_tensor",
    "map_tensors",
    "move",
    "walk",
]


class _TensorMethods:
    """Methods of a tensor, applied to each tensor in a container."""

    __slots__ = ()

    @property
    def device(self) -> torch.device | None:
        """The device of the first tensor; None without one."""
        first = first_tensor(self)
        return None if first is None else first.device

    @property
    def data(self) -> Any:
        """The same values, outside autograd."""
        return map_tensors(lambda t: t.data, self)

    def to(self, *args: Any, **kwargs: Any) -> Any:
        """Move or cast tensors and other items that have a ``to`` method (graphs)."""
        return walk(lambda x: move(x, args, kwargs), self)

    def cpu(self) -> Any:
        """Move to the CPU, graphs too."""
        return self.to("cpu")

    def clone(self) -> Any:
        """Copy each tensor."""
        return map_tensors(torch.clone, self)

    def detach(self) -> Any:
        """Leave autograd without a copy."""
        return map_tensors(Tensor.detach, self)

    def float(self) -> Any:
        """Cast to 32-bit floats."""
        return map_tensors(Tensor.float, self)

    def long(self) -> Any:
        """Cast to 64-bit integers."""
        return map_tensors(Tensor.long, self)

    def int(self) -> Any:
        """Cast to 32-bit integers."""
        return map_tensors(Tensor.int, self)


@own_container
class TensorTuple(_TensorMethods, tuple[Any, ...]):
    """A tuple with a tensor's ``device, data, to, cpu, clone, detach, float, long, int``.

    >>> TensorTuple([torch.ones(2), torch.zeros(1)]).long()
    (tensor([1, 1]), tensor([0]))
    """

    __slots__ = ()


@own_container
class TensorDict(_TensorMethods, dict[Any, Any]):
    """A dict with a tensor's ``device, data, to, cpu, clone, detach, float, long, int``.

    >>> TensorDict(x=torch.ones(2)).int()
    {'x': tensor([1, 1], dtype=torch.int32)}
    """


def walk(leaf: Callable[[Any], Any], x: Any) -> Any:
    """Copy the containers in `x`, keeping their classes, with ``leaf(item)`` for each item."""
    if isinstance(x, dict):
        if type(x) is dict:
            return {key: walk(leaf, item) for key, item in x.items()}
        rebuilt = copy.copy(x)  # keeps the attributes of a subclass
        for key, item in x.items():
            rebuilt[key] = walk(leaf, item)
        return rebuilt
    if isinstance(x, (tuple, list)) and not isinstance(x, PackedSequence):
        items = [walk(leaf, item) for item in x]
        return type(x)(*items) if hasattr(x, "_fields") else type(x)(items)
    return leaf(x)


def move(x: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Call ``x.to(*args, **kwargs)`` if `x` has such a method, else return `x`."""
    if isinstance(x, type) or not callable(getattr(x, "to", None)):
        return x
    return x.to(*args, **kwargs)


def map_tensors(fn: Callable[[Tensor], Any], x: Any) -> Any:
    """Apply `fn` to every tensor in `x`; the containers keep their classes.

    >>> map_tensors(torch.sum, {"x": [torch.ones(2), "as it is"]})
    {'x': [tensor(2.), 'as it is']}
    """

    def leaf(item: Any) -> Any:
        if isinstance(item, PackedSequence):  # its lengths must not change
            return item._replace(data=fn(item.data))
        return fn(item) if isinstance(item, Tensor) else item

    return walk(leaf, x)


def first_tensor(x: Any) -> Tensor | None:
    """Find the first tensor in `x`, depth first."""
    if isinstance(x, Tensor):
        return x
    if isinstance(x, (tuple, list, Mapping)):
        for item in x.values() if isinstance(x, Mapping) else x:
            found = first_tensor(item)
            if found is not None:
                return found
    return None


def batch_size(data: Any, batch_dim: int = 0) -> int:
    """Guess the number of samples in a mini-batch.

    Args:
        data: a tensor or array (its dimension `batch_dim`; a 0-d one counts 1), a list or
            tuple (its first element; of texts, their number), a dict (its first tensor), a
            batch of graphs (``num_graphs``), or anything with a length.
        batch_dim: the dimension that counts samples.

    Returns:
        The number; 1 if it cannot be guessed.

    Example:
        >>> batch_size((torch.zeros(8, 3), torch.zeros(4))), batch_size({"x": torch.zeros(5)})
        (8, 5)
    """
    if isinstance(data, (Tensor, np.ndarray)):
        return int(data.shape[batch_dim]) if data.ndim > batch_dim else 1
    if isinstance(data, PackedSequence):
        return int(data.batch_sizes[0])
    if isinstance(data, Mapping):
        first = first_tensor(data)
        if first is not None:
            return batch_size(first, batch_dim)
        return batch_size(next(iter(data.values()), None), batch_dim)
    if isinstance(data, (list, tuple)):
        if data and isinstance(data[0], (str, bytes)):
            return len(data)
        return batch_size(data[0], batch_dim) if data else 1
    num_graphs = getattr(data, "num_graphs", None)
    if isinstance(num_graphs, int):
        return num_graphs
    # The length of one graph is its number of fields, that of a text its number of letters.
    is_one = isinstance(data, (str, bytes)) or hasattr(data, "num_nodes")
    return len(data) if isinstance(data, Sized) and not is_one else 1


def describe(x: Any) -> str:
    """Say in a few words what `x` is, for a message.

    >>> describe({"x": torch.zeros(2, 3), "id": [1, 2]})
    "a dict with keys 'x' (a tensor [2, 3]), 'id' (a list of 2 int)"
    """
    if isinstance(x, Tensor):
        return f"a tensor {list(x.shape)}"
    if isinstance(x, np.ndarray):
        return f"an array {list(x.shape)}"
    if isinstance(x, Mapping):
        items = ", ".join(f"{key!r} ({describe(item)})" for key, item in x.items())
        return f"a dict with keys {items}" if items else "an empty dict"
    if isinstance(x, (tuple, list)):
        kind = "tuple" if isinstance(x, tuple) else "list"
        return f"a {kind} of {_describe_items(x)}" if x else f"an empty {kind}"
    if x is None:
        return "None"
    name = type(x).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def _describe_items(x: Sequence[Any]) -> str:
    if all(isinstance(item, Tensor) for item in x):
        shapes = ", ".join(str(list(item.shape)) for item in x)
        return f"{len(x)} tensor{'s' if len(x) > 1 else ''} {shapes}"
    if len({type(item) for item in x}) == 1 and not isinstance(x[0], (Mapping, tuple, list)):
        return f"{len(x)} {type(x[0]).__name__}"
    more = f" and {len(x) - 5} more" if len(x) > 5 else ""
    return f"{len(x)} items: " + ", ".join(describe(item) for item in x[:5]) + more
