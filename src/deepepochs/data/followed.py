"""What a loader and the objects in it carry from one pass to the next: generators and counters.

The next epoch of a loader depends on more than the global random state: on generators of its
own, its samplers, data set, transforms and collate function, on numbers that they count, on the
order of a list that they shuffle. `Followed` finds all this by walking attributes, lists, dicts
and closures, and reads and restores it.

>>> from torch.utils.data import DataLoader
>>> from deepepochs.data.followed import follow
>>> loader = DataLoader([1, 2, 3])
>>> followed = follow(loader)
>>> loader.dataset.append(4)
>>> followed.read(loader)["loader.dataset"]
[1, 2, 3, 4]
"""

from __future__ import annotations

import copy
import enum
import inspect
import itertools
import random
import re
import types
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple, Protocol
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from .. import rng
from ..errors import CheckpointMismatch
from ..nest.codec import is_plain

# A checkpoint is small beside the data: longer lists, arrays and tensors are watched only.
MAX_ENTRIES = 2**16
MAX_TOTAL = 2**18
# A walk is short, however large the data: 2 us for a thing.
MAX_OBJECTS = 2_000
MAX_CHILDREN = 100

_GENERATORS = rng.GENERATORS
# Always saved, as checkpoints of earlier versions have them.
_COUNTERS = ("epoch", "iteration", "initial_seed")
_NUMBERS = (int, float)
_PLAIN = frozenset({int, float, str, bool, bytes, type(None)})
_SEQUENCES = frozenset({list, tuple, set, deque})
_LIKE_SEQUENCES = (list, tuple, set, deque)
_ITERATORS: tuple[type[Any], ...] = (
    *(types.GeneratorType, type(iter([])), type(iter(())), type(iter({})), type(iter(range(0)))),
    *(map, filter, zip, enumerate, itertools.count, itertools.cycle, itertools.chain),
    *(itertools.islice, itertools.repeat, itertools.product, itertools.permutations),
)
# Objects of these do not hold what is looked for, or are not the loader's own.
_CLOSED = {
    *("PIL", "asyncio", "concurrent", "h5py", "io", "logging", "multiprocessing", "pandas"),
    *("pathlib", "polars", "pyarrow", "queue", "socket", "ssl", "threading", "zipfile"),
}
_CLOSED_PARTS = ("accelerate.state", "accelerate.accelerator", "torch.optim", "torch._C")
# What loaders keep of a pass that runs, and of a loaded state.
_OF_PASSES = {
    *("_iterator", "_IterableDataset_len_called", "next_iter_state", "remainder"),
    *("_initial_iter_for_state_dict", "gradient_state", "end_of_dataloader"),
}
_OF_MODULES = {"_parameters", "_buffers", "_non_persistent_buffers_set"}
# Where a load in the middle of a pass is allowed.
_BY_PARTS = ("dataset", "collate_fn")
_SAMPLERS = ("sampler", "batch_sampler")
# The shuffle buffer of the streams of Hugging Face: their state_dict leaves out what is in it.
_UNSAVED = "BufferShuffledExamplesIterable"
_METHODS = ("__getitem__", "__getitems__", "__iter__", "__next__", "__call__")


class Stateful(Protocol):
    """An object whose state can be read and loaded."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any:
        """Load the state."""


def keeps_state(thing: Any) -> bool:
    """Whether a thing is `Stateful`.

    Each pass asks that of some objects, and ``isinstance`` with a protocol takes ten times as long.
    """
    return callable(getattr(thing, "state_dict", None)) and callable(
        getattr(thing, "load_state_dict", None)
    )


def state_of(owner: Stateful) -> Any:
    """Read the state of a loader, sampler or data set, which may change it in place later."""
    return copy.deepcopy(owner.state_dict())


def load_state(owner: Stateful, state: Any) -> None:
    """Load what `state_of` read; `state` stays as it is."""
    owner.load_state_dict(copy.deepcopy(state))


class StandIn:
    """Takes the place of a sampler in its loader during a pass; a walk goes on to the sampler.

    Attributes:
        inner_sampler: the sampler.
    """

    inner_sampler: Any


class Piece(NamedTuple):
    """Something found on a walk.

    Attributes:
        kind: ``'object'``; ``'generator'``, ``'number'`` or ``'numbers'`` (a container), which
            are followed; ``'own'``, a plain attribute of an object with ``state_dict``;
            ``'large'``, ``'seeds'``, ``'iterator'`` or ``'unreadable'``, which are watched only.
        holder: the attributes, dict or list that it is in.
        key: where it is there.
        value: the thing itself.
        root: the attribute of the loader that leads to it.
    """

    kind: str
    holder: Any
    key: Any
    value: Any
    root: str


def walk(loader: Any) -> Iterator[tuple[str, Piece]]:
    """Walk what a loader holds, the nearest first; give each thing once, with its path."""
    if type(loader) in _SEQUENCES or not _has_attributes(loader):
        return  # the entries of a list are mini-batches
    seen = {id(loader)}
    # A loader that is no DataLoader and has a state of its own: only generators are followed.
    is_bare = _is_stateful(loader) and not isinstance(loader, DataLoader)
    queue: deque[tuple[str, Any, str, bool]] = deque([("loader", loader, "", is_bare)])
    room = MAX_TOTAL
    for _ in range(MAX_OBJECTS):
        if not queue:
            break
        path, owner, root, is_own = queue.popleft()
        is_part, is_dict = False, isinstance(owner, dict)
        if _has_attributes(owner) and not is_bare:
            is_own = _has_own_state(owner, loader, root)
            is_part = is_own and root in _BY_PARTS and owner is not getattr(loader, "dataset", None)
        yield path, Piece("state" if is_part else "object", None, None, owner, root)
        for holder, key, value in children(owner):
            is_item = is_dict and type(key) is not str
            name = f"{path}[{key!r}]" if is_item else f"{path}.{key}"
            top = root or ("" if key == "base_dataloader" else str(key))
            value = value.inner_sampler if isinstance(value, StandIn) else value
            kind = _kind(key, value, is_sampler=top in _SAMPLERS)
            if kind == "generator":
                if value is None or id(value) not in seen:
                    seen.add(id(value))
                    yield name, Piece(kind, holder, key, value, top)
            elif is_own and not (kind == "number" and key in _COUNTERS):
                if top not in _SAMPLERS:
                    yield name, Piece("own", holder, key, value, top)
            elif kind:
                if kind == "numbers":
                    room -= _size(value)
                    kind = kind if room >= 0 else "large"
                yield name, Piece(kind, holder, key, value, top)
            if not kind and id(value) not in seen and is_open(value):
                seen.add(id(value))
                queue.append((name, value, top, is_own))


def _has_own_state(owner: Any, loader: Any, root: str) -> bool:
    """Whether an object says by a ``state_dict`` what its state is, and that is used.

    A data set inside of an iterable one cannot be loaded in the middle: its numbers are followed.
    """
    if isinstance(owner, (torch.nn.Module, DataLoader)) or not _is_stateful(owner):
        return False
    dataset = getattr(loader, "dataset", None)
    if root in _SAMPLERS or owner is dataset:
        return True
    return root in _BY_PARTS and not isinstance(dataset, IterableDataset)


def _is_stateful(owner: Any) -> bool:
    kind = type(owner)
    return hasattr(kind, "state_dict") and hasattr(kind, "load_state_dict")


def children(owner: Any) -> Iterator[tuple[Any, Any, Any]]:
    """Give (holder, key, value) of what an object, a container or a function holds."""
    if isinstance(owner, dict):
        yield from ((owner, key, owner[key]) for key in list(owner) if _is_readable(key))
    elif type(owner) in (list, deque):
        yield from ((owner, index, value) for index, value in enumerate(list(owner)))
    elif type(owner) in (tuple, set):
        yield from ((None, index, value) for index, value in enumerate(owner))
    elif isinstance(owner, types.FunctionType):
        cells = zip(owner.__code__.co_freevars, owner.__closure__ or (), strict=False)
        yield from ((cell, key, cell.cell_contents) for key, cell in cells if _is_filled(cell))
        yield from ((None, f"default{i}", v) for i, v in enumerate(owner.__defaults__ or ()))
        yield from ((None, key, value) for key, value in (owner.__kwdefaults__ or {}).items())
        yield from _globals_of(owner)
    elif isinstance(owner, types.MethodType):
        yield None, "self", owner.__self__
        yield None, "function", owner.__func__
    else:
        if isinstance(owner, partial):
            yield from ((None, key, getattr(owner, key)) for key in ("func", "args", "keywords"))
        left_out: set[str] = set()
        if isinstance(owner, (DataLoader, torch.nn.Module)):
            left_out = _OF_PASSES if isinstance(owner, DataLoader) else _OF_MODULES
        if isinstance(owner, _LIKE_SEQUENCES) and len(owner) <= MAX_CHILDREN:
            holder = owner if isinstance(owner, list) else None
            yield from ((holder, index, value) for index, value in enumerate(list(owner)))
        attributes = vars(owner) if hasattr(owner, "__dict__") else {}
        for key, value in list(attributes.items()):
            if key not in left_out:
                yield attributes, key, value
        slots = Slots(owner)
        yield from ((slots, key, value) for key, value in slots.filled())
        yield from _of_class(type(owner))


class Slots:
    """The attributes that an object has by ``__slots__``, to be set as those of a dict are."""

    def __init__(self, owner: Any) -> None:
        self.owner = owner

    def names(self) -> Iterator[str]:
        """Give the names of all attributes, also of those that are not set."""
        for base in type(self.owner).__mro__:
            slots = vars(base).get("__slots__", ())
            for name in (slots,) if isinstance(slots, str) else slots:
                if name not in ("__dict__", "__weakref__"):
                    is_private = name.startswith("__") and not name.endswith("__")
                    yield f"_{base.__name__.lstrip('_')}{name}" if is_private else name

    def filled(self) -> Iterator[tuple[str, Any]]:
        """Give the attributes that are set."""
        for name in self.names():
            if hasattr(self.owner, name):
                yield name, getattr(self.owner, name)

    def __setitem__(self, name: str, value: Any) -> None:
        object.__setattr__(self.owner, name, value)  # a frozen dataclass lets no other way


def _has_attributes(value: Any) -> bool:
    return hasattr(value, "__dict__") or any(True for _ in Slots(value).names())


def _is_readable(key: Any) -> bool:
    """Whether a key of a dict looks alike in another process."""
    if type(key) is tuple:
        return all(map(_is_readable, key))
    return type(key) in _PLAIN or isinstance(key, enum.Enum)


def _of_class(cls: type) -> Iterator[tuple[Any, Any, Any]]:
    """Give the generators that the class of an object has, and those that its methods name."""
    for base in cls.__mro__:
        if base.__module__.partition(".")[0] in ("builtins", "torch", "typing", "accelerate"):
            continue
        for key, value in list(vars(base).items()):
            if isinstance(value, _GENERATORS):
                yield None, key, value
            elif key in _METHODS and isinstance(value, types.FunctionType):
                yield from _globals_of(value)


def _globals_of(function: types.FunctionType) -> Iterator[tuple[Any, Any, Any]]:
    for name in function.__code__.co_names:
        value = function.__globals__.get(name)
        if isinstance(value, _GENERATORS):
            yield None, name, value


def _is_filled(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018 an empty one raises
    except ValueError:
        return False
    return True


def is_open(value: Any) -> bool:
    """Whether the walk goes into a thing."""
    kind = type(value)
    if kind in _PLAIN:
        return False
    if kind in _SEQUENCES or isinstance(value, dict):
        return len(value) <= MAX_CHILDREN
    if isinstance(value, (types.FunctionType, types.MethodType)):
        return True
    holds = isinstance(value, _LIKE_SEQUENCES) or _has_attributes(value)
    if isinstance(value, (type, types.ModuleType)) or not holds:
        return False
    module = kind.__module__
    if module.partition(".")[0] in _CLOSED or module.startswith(_CLOSED_PARTS):
        return False
    # Of this library only what stands for a loader or data set: not a trainer or its callbacks.
    is_ours = module.startswith("deepepochs.") and not hasattr(kind, "__iter__")
    return not is_ours and not isinstance(value, (torch.Tensor, np.ndarray))


def _kind(key: Any, value: Any, *, is_sampler: bool) -> str:
    """Give the kind of a `Piece`; empty for a thing that is none but may hold some."""
    kind = type(value)
    if kind in _PLAIN:  # most things are: they pay for no further question
        if kind in _NUMBERS or (is_sampler and kind in (bool, str)):
            return "number"  # in a data set a flag may say that a file is open
        return "generator" if key == "generator" and value is None else ""
    if isinstance(value, np.random.SeedSequence):
        return "seeds"
    if isinstance(value, _GENERATORS):
        return "unreadable" if isinstance(value, random.SystemRandom) else "generator"
    if isinstance(value, np.number):
        return "number"
    if kind is torch.Tensor:
        is_left_out = value.requires_grad or value.layout is not torch.strided
        return "" if is_left_out else "numbers" if value.numel() <= MAX_ENTRIES else "large"
    if kind is np.ndarray:
        is_left_out = value.dtype.kind not in "biufcSUMm"
        return "" if is_left_out else "numbers" if value.size <= MAX_ENTRIES else "large"
    is_long_dict = kind is dict and len(value) > MAX_CHILDREN
    if (kind in _SEQUENCES or is_long_dict) and all(map(_is_plain_entry, _sample(value))):
        return "numbers" if len(value) <= MAX_ENTRIES else "large"
    is_iterator = isinstance(value, (*_ITERATORS, torch.utils.data.dataloader._BaseDataLoaderIter))
    return "iterator" if is_iterator else ""


def _size(value: Any) -> int:
    if isinstance(value, torch.Tensor):
        return value.numel()
    return value.size if isinstance(value, np.ndarray) else len(value)


def _sample(values: Any) -> list[Any]:
    """Give about 16 entries of a container, spread over it, or all of a short one."""
    if isinstance(values, np.ndarray):
        values = values.ravel()
    if type(values) in (set, deque, dict):
        entries = values.values() if type(values) is dict else values
        return list(itertools.islice(entries, 16))
    return list(values[:: max(1, len(values) // 16)])


def _is_plain_entry(entry: Any) -> bool:
    kind = type(entry)
    if kind in (list, tuple):
        return len(entry) <= MAX_CHILDREN and all(type(inner) in _PLAIN for inner in entry)
    return kind in _PLAIN or isinstance(entry, np.number)


class _Kept(NamedTuple):
    """A tensor as it was: a change in place moves its version."""

    tensor: torch.Tensor
    version: int
    value: torch.Tensor


_MISSING: Any = object()


class Followed:
    """What is followed of one loader, and its values when the loader was first met.

    A state holds what differs from these. So a setting that a script changes between two
    processes is the script's, and a number that counts is the checkpoint's.
    """

    def __init__(self, loader: Any) -> None:
        self._first: dict[str, Any] = {}
        self._spawned: dict[str, int] = {}
        for name, piece in walk(loader):
            is_plain_own = piece.kind == "own" and type(piece.value) in _PLAIN
            if is_plain_own or piece.kind in ("number", "numbers", "large"):
                self._first[name] = _freeze(piece)
            if count := _num_spawned(piece.value):
                self._spawned[name] = count
        self._iterators: dict[str, Any] = {}  # that were there when the latest pass began
        self._stuck: list[tuple[Any, Any, Any, Any]] = []

    def read(self, loader: Any, *, begins: bool = False) -> dict[str, Any]:
        """Read the generators, and the numbers that have changed, by path.

        ``begins``: a pass is about to begin. An iterator that it finds and goes on with cannot
        be read.
        """
        parts: dict[str, Any] = {}
        if begins:
            self._iterators = {}
        for name, (kind, _, key, value, _) in walk(loader):
            if kind == "generator":
                parts[name] = None if value is None else rng.read_generator(value)
            elif kind == "state":
                parts[name] = state_of(value)
            elif kind == "iterator" and begins:
                self._iterators[name] = value
            elif kind == "own":
                if not _is_same(value, self._first.get(name, value)):
                    parts[name] = True  # its value is its owner's business
            elif kind in ("number", "numbers"):
                is_counter = key in _COUNTERS and type(value) is int
                is_changed = is_counter or not _is_same(value, self._first.get(name, _MISSING))
                if is_changed and is_plain(copied := _copied(value)):
                    parts[name] = copied
        return parts

    def restore(self, loader: Any, parts: Mapping[str, Any]) -> None:
        """Restore what ``read`` has read.

        Raises:
            CheckpointMismatch: the loader has no place for it.
        """
        found, owners = dict[str, Piece](), dict[str, Any]()
        for name, piece in walk(loader):
            if piece.kind in ("object", "state"):
                owners[name] = piece.value
            if piece.kind != "object":
                found[name] = piece
        parts = {_name_here(name, found): saved for name, saved in parts.items()}
        for name, saved in parts.items():
            if name not in found:
                self._put_new(loader, owners, name, saved)
        for name, piece in found.items():
            if piece.kind == "state" and name in parts:
                load_state(piece.value, parts[name])
            elif piece.kind == "generator" and name in parts:
                _write(piece, parts[name])
            elif piece.kind in ("number", "numbers"):
                saved = parts.get(name, self._first.get(name, _MISSING))
                if saved is not _MISSING and not _is_same(piece.value, saved):
                    _put(piece, saved)

    @contextmanager
    def same_generators(self, loader: Any) -> Iterator[None]:
        """Put all generators back after the block, the global ones as well."""
        parts = self.read(loader)
        with rng.preserved():
            yield
        for name, piece in walk(loader):
            if piece.kind == "generator" and name in parts:
                _write(piece, parts[name])

    def check(self, loader: Any, parts: Mapping[str, Any]) -> None:
        """Raise ``CheckpointMismatch`` where the loader has a generator that was not saved."""
        here = dict(walk(loader))
        new = {name for name in here.keys() - parts.keys() if here[name].kind == "generator"}
        if new:
            raise _mismatch(loader, new | (parts.keys() - here.keys()))

    def note_stuck(self, loader: Any, parts: Mapping[str, Any]) -> None:
        """Note what ``load_state_dict`` has set that was not so when the state was saved.

        Some data sets keep a loaded state for good, and would begin every later pass there.
        """
        self._stuck = []
        for name, (kind, holder, key, value, _) in walk(loader):
            if kind == "own" and isinstance(holder, dict):
                first = self._first.get(name, _MISSING)
                if first is not _MISSING and name not in parts and not _is_same(value, first):
                    self._stuck.append((holder, key, value, first))

    def releasing(self, iterator: Iterator[Any]) -> Iterator[Any]:
        """Undo that after the first mini-batch, where the data set has not done so itself."""
        return self._release_first(iterator) if self._stuck else iterator

    def _release_first(self, iterator: Iterator[Any]) -> Iterator[Any]:
        first = list(itertools.islice(iterator, 1))
        for holder, key, loaded, value in self._stuck:
            if holder.get(key) is loaded:
                holder[key] = value
        self._stuck = []
        yield from first
        yield from iterator

    def unread(self, loader: Any) -> Iterator[tuple[str, str, str]]:
        """Give the path of each thing that draws or counts and cannot be read, why, and the remedy."""
        global_draws = "Draw with the functions of torch, NumPy or random instead."
        own_state = "Give the object that holds it state_dict and load_state_dict."
        has_workers = getattr(loader, "num_workers", 0) > 0
        if any(kind.__name__ == "DataLoaderDispatcher" for kind in type(loader).__mro__):
            why = "loads a mini-batch ahead, whose draws are lost"
            yield "loader", why, "Leave out dispatch_batches=True."
        if is_torchdata(loader) and loader.persistent_workers and _is_stateful(loader.dataset):
            why = "keeps a data set with state over several passes"
            yield "loader.persistent_workers", why, "Leave out persistent_workers=True."
        for name, piece in walk(loader):
            kind, value = piece.kind, piece.value
            if kind == "unreadable":
                yield name, "draws from the system, and has no state", global_draws
            elif kind == "iterator" and value is self._iterators.get(name):
                yield name, "is an iterator, whose place cannot be read", own_state
            elif kind == "large" and not _is_same(_freeze(piece), self._first.get(name)):
                why = f"has changed, and is too large for a checkpoint (over {MAX_ENTRIES} entries)"
                yield name, why, own_state
            elif _num_spawned(value) > self._spawned.get(name, 0):
                why = "spawns generators, and their number cannot be restored"
                yield name, why, global_draws
            elif isinstance(value, DataLoader) and _begins_late(loader):
                why = "draws a number when the resumed loader begins to iterate"
                yield name, why, "Give fit() a DataLoader itself."
            elif type(value).__name__ == _UNSAVED and is_torchdata(loader):
                why = "is a buffer, which the state_dict of its data set leaves out"
                yield name, why, "Leave out the buffer, or use a plain DataLoader."
            elif kind == "generator" and has_workers and piece.root in _BY_PARTS and value:
                why = "is copied into the worker processes, whose draws cannot be read"
                yield name, why, global_draws

    def _put_new(self, loader: Any, owners: Mapping[str, Any], name: str, saved: Any) -> None:
        """Set what was made in the run and is not there yet, such as a generator at first use."""
        path, _, last = name.rpartition("[" if name.endswith("]") else ".")
        is_index = name.endswith("]")
        key = int(last[:-1]) if is_index and last[:-1].lstrip("-").isdigit() else last
        owner, made = owners.get(path), _made(key, saved)
        is_generator = made is None or isinstance(made, _GENERATORS)
        slots = Slots(owner)
        if isinstance(owner, dict) and (not is_index or type(key) is int):
            owner[key] = made
        elif last in slots.names() and not _has_own_state(owner, loader, f"{path}.".split(".")[1]):
            slots[last] = made
        elif not hasattr(owner, "__dict__") or (is_generator and not hasattr(owner, last)):
            if is_generator:
                raise _mismatch(loader, {name})
        elif not _has_own_state(owner, loader, f"{path}.".split(".")[1]):
            vars(owner)[last] = made


def _num_spawned(value: Any) -> int:
    """How many children a generator or a sequence of seeds of NumPy has spawned."""
    if isinstance(value, np.random.Generator):
        value = value.bit_generator.seed_seq
    return int(getattr(value, "n_children_spawned", 0))


def is_torchdata(loader: Any) -> bool:
    """Whether it is torchdata's ``StatefulDataLoader``."""
    is_theirs = type(loader).__module__.partition(".")[0] == "torchdata"
    return is_theirs and isinstance(loader, DataLoader)


def _begins_late(loader: Any) -> bool:
    """Whether a loader with a state of its own runs first when its first batch is wanted."""
    is_other = _is_stateful(loader) and not isinstance(loader, DataLoader)
    return is_other and inspect.isgeneratorfunction(type(loader).__iter__)


def sampler_objects(sampler: Any) -> Iterator[tuple[str, Any]]:
    """Give the objects in a sampler, the nearest first, without those of the data set in it."""
    data: list[str] = []
    for path, piece in walk(sampler):
        if piece.kind in ("object", "state") and _has_attributes(piece.value):
            if isinstance(piece.value, Dataset) or path.endswith(".data_source"):
                data.append(f"{path}.")
            elif not path.startswith(tuple(data)):
                yield path, piece.value


def leaves_out(loader: Any) -> bool:
    """Whether the state of the data set is not all of its state."""
    return any(type(piece.value).__name__ == _UNSAVED for _, piece in walk(loader))


def set_epoch(loader: Any, epoch_idx: int) -> None:
    """Call ``set_epoch`` of a loader and of all in it that have it: samplers, data sets."""
    follow(loader)
    owners = [piece.value for _, piece in walk(loader) if piece.kind in ("object", "state")]
    for owner in owners:
        if callable(getattr(type(owner), "set_epoch", None)):
            owner.set_epoch(epoch_idx)


_FOLLOWED: WeakKeyDictionary[Any, Followed] = WeakKeyDictionary()


def follow(loader: Any) -> Followed:
    """Give what is followed of a loader, the same object each time."""
    try:
        if loader not in _FOLLOWED:
            _FOLLOWED[loader] = Followed(loader)
        return _FOLLOWED[loader]
    except TypeError:  # a list, which has nothing to follow, or no weak references to it
        return Followed(loader)


def read_moment(loader: Any) -> dict[str, Any]:
    """Read every random state there is: the global ones and the loader's own, with its counters."""
    return {"rng": rng.get_state(), "parts": follow(loader).read(loader, begins=True)}


@contextmanager
def as_before(loader: Any, epoch_idx: int) -> Iterator[None]:
    """Tell a loader the epoch, as a fit does; after the block it is as before."""
    moment = read_moment(loader)
    try:
        set_epoch(loader, epoch_idx)
        yield
    finally:
        restore_moment(loader, moment)


def restore_moment(loader: Any, moment: dict[str, Any]) -> None:
    """Restore what `read_moment` read."""
    rng.set_state(moment["rng"])
    follow(loader).restore(loader, moment["parts"])


def _name_here(name: str, found: Mapping[str, Any]) -> str:
    """Give the path of a part; early checkpoints leave out the index of a first data set."""
    return name if name in found else re.sub(r"\.datasets\.(?!\d)", ".datasets.0.", name)


def _mismatch(loader: Any, names: set[str]) -> CheckpointMismatch:
    return CheckpointMismatch(
        f"The generators and counters of the loader ({type(loader).__name__}) are not those of "
        f"the saved one: {', '.join(sorted(names))} is in one and not in the other. Build the "
        "loader as it was when the checkpoint was written."
    )


def _freeze(piece: Piece) -> Any:
    """Give what a later value is compared with."""
    value = piece.value
    if piece.kind == "large":
        is_tensor = isinstance(value, torch.Tensor)
        entries = _version(value) if is_tensor else [_copied(entry) for entry in _sample(value)]
        return (id(value), _size(value), entries)
    if isinstance(value, torch.Tensor):
        return _Kept(value, _version(value), value.detach().clone())
    return _copied(value)


def _version(tensor: torch.Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version


def _copied(value: Any) -> Any:
    """Copy a number or container, in the form in which it is saved."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, np.ndarray):
        return value.copy()
    if type(value) is deque:
        return list(value)
    if type(value) is list and value and type(value[0]) is list:
        return copy.deepcopy(value)
    return value.copy() if type(value) in (list, set, dict) else value


def _is_same(value: Any, first: Any) -> bool:
    if isinstance(first, _Kept):
        return value is first.tensor and _version(first.tensor) == first.version
    if isinstance(value, (torch.Tensor, np.ndarray)) or isinstance(first, np.ndarray):
        if not isinstance(value, np.ndarray) or not isinstance(first, np.ndarray):
            return False
        is_alike = value.dtype == first.dtype and value.shape == first.shape
        return is_alike and value.tobytes() == first.tobytes()
    if type(value) is deque:
        value = list(value)
    return value is first or (type(value) is type(first) and bool(value == first))


def _put(piece: Piece, saved: Any) -> None:
    """Give a number or container the value that was saved, in place where that is possible."""
    value = piece.value
    saved = _copied(saved.value if isinstance(saved, _Kept) else saved)
    is_alike = type(value) is type(saved) and getattr(value, "shape", ()) == getattr(
        saved, "shape", ()
    )
    if isinstance(value, torch.Tensor) and is_alike and value.dtype == saved.dtype:
        with torch.no_grad():
            value.copy_(saved)
    elif isinstance(value, np.ndarray) and is_alike and value.flags.writeable:
        value[...] = saved
    elif type(value) is list:
        value[:] = saved
    elif type(value) in (set, deque, dict):
        value.clear()
        value.extend(saved) if type(value) is deque else value.update(saved)
    elif isinstance(piece.holder, types.CellType):
        piece.holder.cell_contents = saved
    elif piece.holder is not None:
        piece.holder[piece.key] = saved


def _write(piece: Piece, state: Any) -> None:
    generator = piece.value
    if state is None or generator is None:
        if piece.holder is not None and state is not generator:
            piece.holder[piece.key] = None if state is None else _made(piece.key, state)
    else:
        rng.write_generator(generator, state)


def _made(key: Any, state: Any) -> Any:
    """Make a generator of its state; give any other value as it is."""
    made: Any = None
    if isinstance(state, torch.Tensor) and (key == "generator" or _is_torch_state(state)):
        made = torch.Generator()
    elif isinstance(state, dict) and "bit_generator" in state:
        bits = getattr(np.random, state["bit_generator"])()
        made = np.random.RandomState(bits) if "has_gauss" in state else np.random.Generator(bits)
    elif type(state) is tuple and len(state) == 3 and type(state[1]) is tuple:
        made = random.Random()
    if made is None:
        return _copied(state)
    _write(Piece("generator", None, key, made, ""), state)
    return made


def _is_torch_state(state: torch.Tensor) -> bool:
    return state.dtype is torch.uint8 and state.shape == torch.Generator().get_state().shape
