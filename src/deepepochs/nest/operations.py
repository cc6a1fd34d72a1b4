"""Functions of nested tuples, lists and dicts of tensors, such as mini-batches or model outputs.

None of them changes its argument. Items that are neither tensors nor containers stay the same.

>>> import torch
>>> from deepepochs.nest.operations import describe, to_device
>>> describe(to_device([torch.zeros(32, 1, 28, 28)], "cpu"))
'a tuple of 1 tensor [32, 1, 28, 28]'
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.utils.rnn import PackedSequence
from torch.utils.data import DataLoader

from ..errors import ConfigError, DataError
from .codec import own_container


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

    Its entries are attributes as well.

    >>> TensorDict(x=torch.ones(2)).int()
    {'x': tensor([1, 1], dtype=torch.int32)}
    >>> TensorDict(logits=torch.ones(1)).logits
    tensor([1.])
    """

    def __getattr__(self, name: str) -> Any:
        """Give an entry, as the outputs of Hugging Face do."""
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"{type(self).__name__} has no entry {name!r}") from None


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


def describe(x: Any, *, dtypes: bool = False) -> str:
    """Say in a few words what `x` is, for a message.

    >>> describe({"x": torch.zeros(2, 3), "id": [1, 2]})
    "a dict with keys 'x' (a tensor [2, 3]), 'id' (a list of 2 int)"
    >>> describe((torch.zeros(2, 3), torch.ones(2)), dtypes=True)
    'a tuple of 2 tensors [2, 3] float32, [2] float32'
    """
    if isinstance(x, Tensor):
        return f"a tensor {_shape(x, dtypes)}"
    if isinstance(x, np.ndarray):
        return f"an array {_shape(x, dtypes)}"
    if isinstance(x, Mapping):
        items = ", ".join(f"{key!r} ({describe(item, dtypes=dtypes)})" for key, item in x.items())
        return f"a dict with keys {items}" if items else "an empty dict"
    if isinstance(x, (tuple, list)):
        kind = "tuple" if isinstance(x, tuple) else "list"
        return f"a {kind} of {_describe_items(x, dtypes)}" if x else f"an empty {kind}"
    if x is None:
        return "None"
    name = type(x).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def _shape(x: Tensor | np.ndarray[Any, Any], with_dtype: bool) -> str:
    return f"{list(x.shape)} {x.dtype}".replace("torch.", "") if with_dtype else f"{list(x.shape)}"


def _describe_items(x: Sequence[Any], dtypes: bool) -> str:
    if all(isinstance(item, Tensor) for item in x):
        shapes = ", ".join(_shape(item, dtypes) for item in x)
        return f"{len(x)} tensor{'s' if len(x) > 1 else ''} {shapes}"
    if len({type(item) for item in x}) == 1 and not isinstance(x[0], (Mapping, tuple, list)):
        return f"{len(x)} {type(x[0]).__name__}"
    more = f" and {len(x) - 5} more" if len(x) > 5 else ""
    count = f"{len(x)} items" if len(x) > 1 else "1 item"
    return f"{count}: " + ", ".join(describe(item, dtypes=dtypes) for item in x[:5]) + more


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


def concat(values: Sequence[Any]) -> Any:
    """Join the values of several mini-batches along dimension 0.

    Args:
        values: tensors or arrays (0-d ones and numbers are stacked; one that lacks dimension 0
            among others that have it is a single sample), tuples or lists
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
        most = max(value.ndim for value in values)
        # A model that squeezes takes dimension 0 from the output of a single sample.
        whole = [value[None] if value.ndim == most - 1 else value for value in values]
        return cat(whole) if most else stack(values)
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


_PAIRS = "Yield (input, target), or (input, None) if there is no target."


def split_batch(batch: Any, *, with_targets: bool, entry: str | None = None) -> tuple[Any, Any]:
    """Give ``(batch_x, batch_y)`` of a mini-batch: a tuple, a list, a dict, or an object.

    Without targets (there is no loss function) all of it is ``batch_x``, and ``batch_y`` is None.
    ``entry`` names the entry of a dict that is ``batch_y``; with targets it is not in ``batch_x``.

    Raises:
        DataError: input and target cannot be told apart, or the dict has no such entry.
    """
    if isinstance(batch, (tuple, list)):
        for item in batch:  # a generator in any() would cost 0.5 µs a mini-batch
            if type(item) is not Tensor:
                batch = [_composed(item) for item in batch]
                break
        if not with_targets:
            return TensorTuple(batch), None
        if len(batch) < 2:
            raise DataError(
                f"The loader yielded {describe(batch)}: its last element is the target, so no "
                f"input is left. {_PAIRS}"
            )
        return TensorTuple(batch[:-1]), batch[-1]
    if isinstance(batch, Mapping):
        return _split_dict(_composed(batch), entry, with_targets=with_targets)
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


def _split_dict(
    batch: Mapping[str, Any], entry: str | None, *, with_targets: bool
) -> tuple[Any, Any]:
    if entry is None:
        return batch, None
    if entry not in batch:
        names = ", ".join(map(repr, batch)) or "none"
        raise DataError(
            f"The loader yielded a dict without the entry {entry!r}, which targets= names; its "
            f"entries are {names}. Give targets= the name of the entry that is the target."
        )
    if not with_targets:  # the model computes the loss
        return batch, batch[entry]
    return {name: value for name, value in batch.items() if name != entry}, batch[entry]


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

    Both have a dimension 0 of the same size, which is the number of samples.
    """
    if type(batch) in (list, tuple) and len(batch) == 2:
        batch_x, batch_y = batch
        if (
            type(batch_x) is Tensor is type(batch_y)
            and batch_x.is_cpu
            and batch_y.is_cpu
            and batch_x.ndim
            and batch_y.ndim
            and not (batch_x.is_nested or batch_y.is_nested)
            and batch_x.shape[0] == batch_y.shape[0]
        ):
            return TensorTuple((batch_x,)), batch_y
    return None


def listify(obj: Any) -> list[Any]:
    """Return a list, whether `obj` is one object, several, or ``None``.

    Args:
        obj: ``None`` gives an empty list. A list is returned as it is. A tuple or another
            iterable gives the list of its elements. Anything else becomes the only element:
            also a dict, a text, a tensor, an array, a module or a DataLoader.

    Example:
        >>> listify(None), listify((1, 2)), listify({"a": 1})
        ([], [1, 2], [{'a': 1}])
    """
    if obj is None:
        return []
    if isinstance(obj, list):
        return obj
    single = (str, bytes, Mapping, Tensor, np.ndarray, Module, DataLoader)
    is_several = isinstance(obj, Iterable) and not isinstance(obj, single)
    return list(obj) if is_several else [obj]
