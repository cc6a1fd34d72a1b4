"""Reads what the objects of a run hold: attributes, closures, and the global names they use.

Where a resumed run differs from the unbroken one, something holds another value at the place of
the resume. What is read there in both runs names it.

>>> class Model:
...     scale = 1.0
>>> model = Model()
>>> model.scale = 2.0
>>> readings({"model": model})["model.scale"][1]
'2.0'
"""

from __future__ import annotations

import dis
import functools
import inspect
import io
import itertools
import sys
import sysconfig
import types
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from .. import rng
from ..data.followed import children, is_open
from ..nest.compare import digest
from ..nest.functions import enclosed_by
from ..optim.fits import bare

# The walk is short, however large the data: about 20 us for a thing.
MAX_THINGS = 50_000
MAX_NUMBERS = 2**20  # of a larger tensor as many are looked at
MAX_ENTRIES = 2**16  # the same of a longer list or dict
MAX_SHOWN = 40
_PLAIN = (str, bytes, int, float, complex, bool, type(None), np.generic)
_ABSENT = ["", "not there"]
# Their own attributes are in the checkpoint, or differ between two runs.
_OWN_STATE = ("deepepochs.", "torch.optim.", "accelerate.")
_OF_TORCH = (torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler)
_PATHS = sysconfig.get_paths()
INSTALLED = tuple(_PATHS[name] for name in ("stdlib", "platstdlib", "purelib", "platlib"))


def readings(roots: Mapping[str, Any]) -> dict[str, list[str]]:
    """Read all that the roots hold: by path, a digest of the value and a short text for it."""
    found: dict[str, list[str]] = {}
    seen: dict[int, Any] = {}  # with the things: without them others could get their ids
    queue: deque[tuple[str, Any]] = deque(roots.items())
    for _ in range(MAX_THINGS):
        if not queue:
            break
        path, value = queue.popleft()
        if id(value) in seen:
            continue
        if not isinstance(value, _PLAIN):
            seen[id(value)] = value
        if (read := _read(value)) is not None:
            found[path] = read
        else:
            queue.extend(_held(path, value))
            if type(value) in (list, tuple, dict, set, deque):
                found[path] = [str(len(value)), f"{type(value).__name__} of {len(value)} entries"]
    return found


def roots_of(trainer: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Name the objects of a fit whose attributes may be a hidden state."""
    roots: dict[str, Any] = {
        "trainer": trainer,
        "model": trainer.runtime.unwrap(trainer.model),
        "loss": trainer.loss_fn,
        **trainer.callbacks.named(),
    }
    for index, optimizer in enumerate(trainer.opt):
        roots[f"optimizers[{index}]"] = bare(optimizer.opt)
        roots[f"schedulers[{index}]"] = optimizer.scheduler
    roots["metrics"] = trainer.general_metrics
    for name in (*OPTIONS_OF_DATA, *sorted(options.keys() - OPTIONS_OF_DATA)):
        roots[name] = options.get(name)
    return {name: root for name, root in roots.items() if root is not None}


OPTIONS_OF_DATA = ("train_dl", "val_dl", "train_tasks", "val_tasks")


def differing_readings(
    unbroken: Mapping[str, list[str]],
    again: Mapping[str, list[str]],
    resumed: Mapping[str, list[str]],
) -> list[str]:
    """Say which values differ in the resumed run, and are the same in two unbroken ones."""
    lines = []
    for path in {**unbroken, **resumed}:
        here, there = unbroken.get(path, _ABSENT), resumed.get(path, _ABSENT)
        if here[0] != there[0] and again.get(path, _ABSENT)[0] == here[0]:
            shown = there[1] if here[1] != there[1] else f"another {there[1]}"
            lines.append(f"{path}: {here[1]} in the unbroken run, {shown} in the resumed one")
    return lines


def _read(value: Any) -> list[str] | None:
    """Give the digest and the text of a thing that holds no others; ``None`` for one that does."""
    kind = type(value).__name__
    if isinstance(value, _PLAIN):
        return [digest(value), _short(repr(value))]
    if isinstance(value, (torch.Tensor, np.ndarray)):
        return _of_numbers(value)
    if isinstance(value, rng.GENERATORS):
        return [digest(rng.read_generator(value)), f"state of a {kind}"]
    if isinstance(value, io.IOBase):
        where = "closed" if value.closed else f"place {value.tell()}" if _is_seekable(value) else ""
        return [where, f"{where} of a file"]
    if isinstance(value, types.GeneratorType):
        return _of_generator(value)
    if isinstance(value, Iterator) and (place := _place(value)) is not None:
        return [place, f"{kind} at {_short(place)}"]
    if type(value) in (list, tuple, set, dict, deque):
        return _of_entries(value)
    return None


def _of_entries(value: Any) -> list[str] | None:
    entries = value.values() if isinstance(value, dict) else value
    sample = list(itertools.islice(entries, 0, None, 1 + len(value) // MAX_ENTRIES))
    if not all(isinstance(entry, _PLAIN) for entry in sample):
        return None
    if len(value) > MAX_ENTRIES:
        return [digest([len(value), sample]), f"{type(value).__name__} of {len(value)} entries"]
    plain = list(value) if isinstance(value, deque) else value
    shown = repr(plain)
    if len(shown) > MAX_SHOWN:
        shown = f"{type(value).__name__} of {len(value)} entries"
    return [digest(plain), shown]


def _of_numbers(value: Any) -> list[str]:
    size = value.numel() if isinstance(value, torch.Tensor) else value.size
    shown = f"{type(value).__name__} of {'x'.join(map(str, value.shape)) or 'one number'}"
    if size == 1:
        shown = _short(repr(value.item()))
    if getattr(value, "is_meta", False) or getattr(value, "layout", None) not in _STRIDED:
        return [shown, shown]
    if size > MAX_NUMBERS:
        value = value.reshape(-1)[:: size // MAX_NUMBERS]
    return [digest(value), shown]


_STRIDED = (torch.strided, None)  # an array of NumPy has no layout


def _of_generator(value: types.GeneratorType[Any, Any, Any]) -> list[str]:
    if value.gi_frame is None:
        return ["ended", "generator that has ended"]
    plain = {k: v for k, v in value.gi_frame.f_locals.items() if isinstance(v, _PLAIN)}
    shown = ", ".join(f"{name}={_short(repr(plain[name]))}" for name in plain)
    where = f"generator in line {value.gi_frame.f_lineno}"
    return [digest((value.gi_frame.f_lasti, plain)), f"{where} with {shown}" if plain else where]


def _place(value: Any) -> str | None:
    """Say where an iterator of Python is, as far as it can be known without a step."""
    if isinstance(value, itertools.count):
        return repr(value)
    if type(value).__module__ not in ("builtins", "itertools"):
        return None
    try:
        reduced = value.__reduce__()
    except (TypeError, ValueError):
        return None
    inner = [v for v in (*reduced[1], *reduced[2:]) if isinstance(v, (int, tuple))]
    return repr([v for v in inner if isinstance(v, int) or all(isinstance(i, int) for i in v)])


def _is_seekable(file: Any) -> bool:
    try:
        return bool(file.seekable())
    except (OSError, ValueError):
        return False


def _short(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"


def _held(path: str, owner: Any) -> Iterator[tuple[str, Any]]:
    """Give what a thing holds, each with its path."""
    if isinstance(owner, type):
        if is_users(owner):
            yield from _of_class(owner)
        return
    if isinstance(owner, types.ModuleType) or not _may_hold(owner):
        return
    if isinstance(owner, torch.nn.Module):
        yield from ((f"{path}.{name}", module) for name, module in owner._modules.items())
    is_container = isinstance(owner, (list, tuple, set, dict, deque))
    kind: Any = type(owner)
    settings = _set_by_libraries(kind)
    for holder, key, value in children(owner):
        if key == "_modules" or isinstance(value, torch.nn.Parameter):
            continue
        if holder is None and isinstance(value, rng.GENERATORS) and _is_global(owner, key):
            continue  # it is met under its global name
        is_private = isinstance(owner, _OF_TORCH) and str(key).startswith("_")
        if is_private or (key in settings and not _may_be_users(value)):
            continue
        yield f"{path}[{key!r}]" if is_container else f"{path}.{key}", value
    function = getattr(owner, "__wrapped__", owner) if callable(owner) else owner
    if isinstance(function, types.FunctionType):
        yield from _of_function(path, owner, function)
    elif not is_container:
        yield from ((name_of(cls), cls) for cls in kind.__mro__ if is_users(cls))


def _is_global(owner: Any, key: Any) -> bool:
    """Whether a generator that `children` gives without a holder is a global name's."""
    if isinstance(owner, types.FunctionType):
        return key in owner.__code__.co_names
    return not isinstance(owner, (tuple, set, types.MethodType, functools.partial))


def _may_hold(owner: Any) -> bool:
    """Whether a thing is walked: those of a library that only its own code changes are not."""
    if isinstance(owner, (types.FunctionType, types.MethodType)):
        return is_users(owner)
    return is_open(owner) or is_users(type(owner)) or _has_settings(type(owner))


def _may_be_users(value: Any) -> bool:
    """Whether what a library has set as an attribute may be an object of the user's."""
    if isinstance(value, (types.FunctionType, types.MethodType, type, functools.partial)):
        return not isinstance(value, (type, types.FunctionType)) or is_users(value)
    if type(value) in (list, tuple):
        return len(value) < MAX_SHOWN and any(map(_may_be_users, value))
    return is_users(type(value))


def _of_function(path: str, owner: Any, function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """Give the attributes of a function, and what it uses by global names."""
    if hasattr(owner, "cache_info"):
        yield f"{path}.cache_info()", owner.cache_info().currsize
    if function is not owner:
        yield from ((f"{path}.{name}", value) for name, value in enclosed_by(function).items())
    yield from ((f"{path}.{name}", value) for name, value in vars(function).items())
    yield from _globals_of(function.__code__, function.__globals__)


def _globals_of(code: types.CodeType, names: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    module = names.get("__name__", "")
    for name in code.co_names:
        value = names.get(name)
        if isinstance(value, types.ModuleType) and _is_users_file(value.__dict__):
            used = (key for key in code.co_names if key in vars(value))
            yield from ((f"{value.__name__}.{key}", getattr(value, key)) for key in used)
        elif name in names and not isinstance(value, types.ModuleType):
            is_named = isinstance(value, (type, types.FunctionType))
            yield (name_of(value) if is_named else f"{module}.{name}"), value
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            yield from _globals_of(inner, names)


def _of_class(cls: type) -> Iterator[tuple[str, Any]]:
    """Give the attributes of a class, and what its methods use by global names."""
    for key, value in list(vars(cls).items()):
        inner = getattr(value, "fget", None) or getattr(value, "__func__", value)
        if isinstance(inner, types.FunctionType):
            yield f"{name_of(cls)}.{key}", inner
        elif not key.startswith("__") and not isinstance(value, types.MemberDescriptorType):
            yield f"{name_of(cls)}.{key}", value


def name_of(value: Any) -> str:
    """Name a class or a function with its module."""
    return f"{value.__module__}.{value.__qualname__}".replace(".<locals>", "")


def is_users(value: Any) -> bool:
    """Whether a class or a function is neither of Python nor of an installed package."""
    module = sys.modules.get(str(getattr(value, "__module__", "")))
    if isinstance(value, types.FunctionType):
        return _is_users_file(value.__globals__)
    if isinstance(value, types.MethodType):
        return is_users(value.__func__)
    return module is not None and _is_users_file(vars(module))


def _is_users_file(names: Mapping[str, Any]) -> bool:
    name, file = str(names.get("__name__", "")), names.get("__file__")
    if name == "__main__":
        return True
    is_installed = file is None or str(file).startswith(INSTALLED)
    return not is_installed and name.partition(".")[0] not in ("deepepochs", "torch")


def _has_settings(cls: type) -> bool:
    return any(f"{base.__module__}.".startswith(_OWN_STATE) for base in cls.__mro__)


@functools.cache
def _set_by_libraries(cls: type) -> frozenset[str]:
    """The attributes that no user sets: those of this library and torch.optim, and torch's private."""
    found: set[str] = set()
    for base in cls.__mro__:
        is_ours = f"{base.__module__}.".startswith(_OWN_STATE)
        if is_ours or base.__module__.startswith("torch."):
            names = (name for value in vars(base).values() for name in _set_in(value))
            found.update(name for name in names if is_ours or name.startswith("_"))
    return frozenset(found)


def _set_in(method: Any) -> Iterator[str]:
    """Give the attributes that the code of a method sets, of any object."""
    inner = getattr(method, "fget", None) or getattr(method, "__func__", method)
    function = inspect.unwrap(inner) if callable(inner) else inner
    codes = [function.__code__] if isinstance(function, types.FunctionType) else []
    for code in codes:
        codes += [each for each in code.co_consts if isinstance(each, types.CodeType)]
        for instruction in dis.get_instructions(code):
            if instruction.opname == "STORE_ATTR":
                yield str(instruction.argval)
