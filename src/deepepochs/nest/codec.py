"""The form in which a checkpoint holds a state: tensors and plain Python values.

A file that ``torch.load(weights_only=True)`` reads cannot run code, and cannot hold NumPy arrays
either. :func:`to_plain` encodes a nested state for such a file, and :func:`from_plain` decodes it,
so a ``state_dict()`` may hold NumPy arrays. A state may pass through either function twice.

>>> from deepepochs.nest.codec import from_plain, to_plain
>>> state = {"epoch": 3, "rng": (1, b""), "best": float("inf")}
>>> from_plain(to_plain(state)) == state
True
"""

from __future__ import annotations

import copy
import types
from collections import Counter, OrderedDict
from typing import Any, TypeVar

import numpy as np
import torch

from ..errors import CheckpointDamaged, CheckpointError

_TAG = "__deepepochs__"
_KEYS = frozenset({str, int, float, bool, type(None)})
_LEAVES = frozenset({str, float, bool, type(None), complex, bytearray})
_LEAVES |= {torch.Size, torch.dtype, torch.device}
_SEQUENCES = frozenset({list, tuple, set})
_MAPPINGS = frozenset({dict, OrderedDict, Counter})
_ARRAY_KINDS = "biufcSUMm"
# torch's restricted reader knows LONG1 (at most 255 bytes) but not LONG4.
_MAX_INT_BITS = 255 * 8 - 1
_OWN: dict[str, type[Any]] = {}

_Container = TypeVar("_Container", bound=type[Any])


def own_container(kind: _Container) -> _Container:
    """Declare a tuple or dict class whose objects keep their class in a checkpoint."""
    _OWN[kind.__name__] = kind
    return kind


def keeps_class(kind: type[Any]) -> bool:
    """Say whether containers of exactly this class keep it in a checkpoint."""
    return kind in (*_MAPPINGS, *_SEQUENCES, torch.Size) or _OWN.get(kind.__name__) is kind


def is_plain(value: Any) -> bool:
    """Say whether `to_plain` accepts `value`."""
    try:
        to_plain(value)
    except CheckpointError:
        return False
    return True


def to_plain(value: Any, where: str = "state", *, with_meta: bool = False) -> Any:
    """Return `value` in new containers, with only what a checkpoint may hold.

    Tensors are not copied, but lose gradients, hooks and attributes. A view of a storage more than
    twice its size is copied: with a slice, the file would hold its whole base. Of a sharded model
    all processes but the first have tensors without data, on ``'meta'``: ``with_meta`` accepts them.

    Raises:
        CheckpointError: there is something else in it; the message gives the path.
    """
    try:
        return _Encoder(with_meta).encode(value, where)
    except RecursionError:
        raise CheckpointError(f"{where} is nested too deeply, or holds itself") from None


def from_plain(value: Any) -> Any:
    """Return the state that `to_plain` encoded; `value` is not changed.

    Raises:
        CheckpointDamaged: an entry that :func:`to_plain` does not write.
    """
    kind = type(value)
    if kind in _MAPPINGS:
        if _TAG in value:
            return _untagged(value[_TAG])
        if type(value) is dict and _is_early(value):
            return _from_early(value)
        turned = copy.copy(value)  # keeps the _metadata of Module.state_dict
        for key, item in value.items():
            if type(item) not in _LEAVES:
                turned[key] = from_plain(item)
        return turned
    if kind in (list, tuple):
        return kind(map(from_plain, value))
    return value


class _Encoder:
    """Encodes one state; views that are equal are copied once, so that tied weights stay tied."""

    def __init__(self, with_meta: bool) -> None:
        self._with_meta = with_meta
        self._copies: dict[Any, torch.Tensor] = {}

    def encode(self, value: Any, where: str) -> Any:
        kind = type(value)
        if kind in _LEAVES:
            return value
        if kind is int:
            fits = value.bit_length() <= _MAX_INT_BITS
            return value if fits else {_TAG: ["int", hex(value)]}
        if isinstance(value, torch.Tensor):
            return self._tensor(value, where)
        if kind in _MAPPINGS:
            return self._mapping(value, where)
        if kind in _SEQUENCES:
            return self._sequence(value, where)
        if kind is bytes:  # torch's restricted reader refuses empty ones
            return value or {_TAG: ["bytes"]}
        if isinstance(value, np.generic) and value.dtype.kind in _ARRAY_KINDS:
            return {_TAG: ["scalar", *_array(np.asarray(value))]}
        if kind is np.ndarray and value.dtype.kind in _ARRAY_KINDS:
            return {_TAG: ["array", *_array(value)]}
        if _OWN.get(kind.__name__) is kind:
            items = dict(value) if isinstance(value, dict) else list(value)
            return {_TAG: ["own", kind.__name__, self.encode(items, where)]}
        raise _refusal(value, where)

    def _mapping(self, value: Any, where: str) -> Any:
        if value.keys() == {_TAG} and _is_tagged(value[_TAG]):
            return value
        plain = type(value)()
        for key, item in value.items():
            name = self._key(key, where)
            leaf = type(item) in _LEAVES
            plain[name] = item if leaf else self.encode(item, f"{where}[{key!r}]")
        if hasattr(value, "_metadata"):  # the versions of modules, from Module.state_dict
            plain._metadata = self.encode(value._metadata, f"{where}._metadata")
        return plain

    def _sequence(self, value: Any, where: str) -> Any:
        if type(value) is set:
            return {self._key(item, where) for item in value}
        return type(value)(
            item if type(item) in _LEAVES else self.encode(item, f"{where}[{index}]")
            for index, item in enumerate(value)
        )

    def _key(self, key: Any, where: str) -> Any:
        if type(key) is tuple:
            return tuple(self._key(item, where) for item in key)
        plain = key.item() if isinstance(key, np.generic) else key
        small = type(plain) is not int or plain.bit_length() <= _MAX_INT_BITS
        if type(plain) not in _KEYS or not small:
            raise _refusal(key, f"the key {key!r} of {where}")
        if plain == _TAG:
            raise CheckpointError(f"the key {key!r} of {where} is reserved; use another name")
        return plain

    def _tensor(self, value: torch.Tensor, where: str) -> torch.Tensor:
        attached = value.requires_grad or type(value) is not torch.Tensor or value.__dict__
        plain = value.detach() if attached else value
        if type(plain) is not torch.Tensor:
            raise _refusal(value, where)
        if plain.device.type == "meta":
            if self._with_meta:
                return plain
            raise CheckpointError(f"{where}: a tensor on the meta device has no data to save")
        if plain.layout is not torch.strided or plain.is_quantized or plain.is_nested:
            return plain
        storage = plain.untyped_storage()
        if storage.nbytes() <= 2 * plain.numel() * plain.element_size() + 1024:
            return plain
        place = (storage.data_ptr(), plain.storage_offset(), plain.dtype, plain.device)
        key = (*place, plain.shape, plain.stride())
        if key not in self._copies:
            self._copies[key] = plain.clone(memory_format=torch.contiguous_format)
        return self._copies[key]


def _array(value: np.ndarray[Any, Any]) -> list[Any]:
    content = bytearray(value.tobytes())  # torch warns of read-only memory
    data = torch.frombuffer(content, dtype=torch.uint8) if content else torch.empty(0)
    return [value.dtype.str, list(value.shape), data]


def _is_tagged(entry: Any) -> bool:
    match entry:
        case ["bytes"] | ["int", str()] | ["own", str(), dict() | list()]:
            return True
        case ["array" | "scalar", str(), list(), torch.Tensor()]:
            return True
    return False


def _untagged(entry: Any) -> Any:
    match entry:
        case ["int", str(digits)]:
            return int(digits, 16)
        case ["bytes"]:
            return b""
        case ["array" | "scalar" as what, str(name), list(shape), torch.Tensor() as data]:
            dtype = np.dtype(name)
            if dtype.kind in _ARRAY_KINDS:
                array = np.frombuffer(data.numpy().tobytes(), dtype).reshape(shape).copy()
                return array if what == "array" else array[()]
        case ["own", str(name), dict() | list() as items]:
            return _own(name, items)
    raise CheckpointDamaged(f"an entry marked {_TAG!r} of unknown form: {entry!r:.80}")


def _own(name: str, items: Any) -> Any:
    turned = from_plain(items)
    # If the module that declares the class is not imported, the result is a plain dict or list.
    return _OWN[name](turned) if name in _OWN else turned


# Earlier checkpoints hold the states of loaders and patches in these forms.
_EARLY_ARRAY = {"numpy", "dtype", "shape"}
_EARLY_MARKS = {"__numpy__", "__number__", "__set__"}
_EARLY_MARKS |= {"__TensorTuple__", "__TensorDict__", "__ddict__"}


def _is_early(value: dict[Any, Any]) -> bool:
    return (len(value) == 1 and next(iter(value)) in _EARLY_MARKS) or value.keys() == _EARLY_ARRAY


def _from_early(value: dict[str, Any]) -> Any:
    if len(value) == 3:
        return value["numpy"].numpy().view(value["dtype"]).reshape(value["shape"]).copy()
    ((mark, inner),) = value.items()
    if mark == "__numpy__":
        return inner.numpy(force=True)
    if mark == "__number__":
        return inner.numpy(force=True)[()]
    return set(inner) if mark == "__set__" else _own(mark.strip("_"), inner)


def _refusal(value: Any, where: str) -> CheckpointError:
    kind = type(value)
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    what = f"{'an' if name[0] in 'aeioAEIO' else 'a'} {name}"
    if isinstance(value, types.FunctionType):
        named = f"the function {value.__name__}"
        what = "a lambda" if value.__name__ == "<lambda>" else named
    elif isinstance(value, type):
        what = f"the class {value.__qualname__}"
    elif isinstance(value, np.ndarray):
        what = f"a {kind.__name__} of dtype {value.dtype}"
    return CheckpointError(
        f"{where}: {what} cannot be saved. A checkpoint holds tensors, NumPy arrays, numbers, "
        "strings, bytes, None, and dicts, lists, tuples and sets of them: save the values from "
        "which the object is made, and make it again in load_state_dict"
    )
