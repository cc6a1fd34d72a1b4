"""The list of a trainer's callbacks, which checks each callback that is added.

A misspelt hook, or one with a wrong signature, is an error before the first mini-batch.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, SupportsIndex

from ..errors import ConfigError, ConfigTypeError, HookError, warn_user
from ..hints.near import did_you_mean
from ..hooks import BoundHook, HookTable, fire, is_of_library
from .base import HOOKS, Callback


class CallbackPool(list["Callback"]):
    """The callbacks of a trainer: a list that accepts valid callbacks only.

    Raises:
        ConfigTypeError: an entry is no ``Callback``.
        HookError: a method ``on_...`` is no hook, or its signature does not take the
            arguments of the hook.

    Example:
        >>> pool = CallbackPool([Callback()])
        >>> pool.append("early stopping")
        Traceback (most recent call last):
        ...
        deepepochs.errors.ConfigTypeError: 'early stopping' is a str, not a Callback: ...
    """

    def __init__(self, callbacks: Iterable[Callback] = ()) -> None:
        super().__init__()
        self.extend(callbacks)

    def append(self, callback: Callback) -> None:
        self.extend([callback])

    def extend(self, callbacks: Iterable[Callback]) -> None:
        """Add several callbacks; none is added if one is wrong."""
        added = list(callbacks)
        _check_all([*self, *added])
        super().extend(added)

    def __iadd__(self, callbacks: Iterable[Callback]) -> CallbackPool:  # type: ignore[override,misc]
        self.extend(callbacks)
        return self

    def __setitem__(self, index: Any, value: Any) -> None:
        changed = list(self)
        changed[index] = value
        _check_all(changed)
        super().__setitem__(slice(None), changed)

    def insert(self, index: SupportsIndex, callback: Callback) -> None:
        _check_all([*self, callback])
        super().insert(index, callback)

    def prepare(self) -> None:
        """Sort by ``order``; callbacks of equal order keep their places."""
        self.sort(key=lambda callback: callback.order)

    def trigger(self, event: str, **arguments: Any) -> None:
        """Call the hooks of an event, named without ``on_`` as in release 0.6."""
        if f"on_{event}" not in HOOKS:
            raise HookError(f"There is no event {event!r}. {_meant('on_' + event)}")
        fire(HookTable(self, HOOKS)[f"on_{event}"], **arguments)

    def named(self) -> dict[str, Callback]:
        """The callbacks by class name; further ones of a class have ``#2``, ``#3``, …"""
        names: dict[str, Callback] = {}
        counts: Counter[str] = Counter()
        for callback in self:
            base = type(callback).__name__
            counts[base] += 1
            names[base if counts[base] == 1 else f"{base}#{counts[base]}"] = callback
        return names


def match_callbacks(
    saved: Mapping[str, Mapping[str, str]], named: Mapping[str, Callback]
) -> tuple[dict[str, str], list[str]]:
    """Find the callback that each saved state is of.

    Of several callbacks of a class, that one is taken which was made with the same arguments,
    or else with the most of them.

    Args:
        saved: the arguments of each saved callback, by the name that it had.
        named: the callbacks here, by name.

    Returns:
        The name here by the saved name, and a sentence for each state that is left out, or
        goes to a callback that may be another one.
    """
    found: dict[str, str] = {}
    told: list[str] = []
    for kind in dict.fromkeys(name.partition("#")[0] for name in saved):
        states = [name for name in saved if name.partition("#")[0] == kind]
        here = [name for name in named if name.partition("#")[0] == kind]
        pairs = [(_num_equal(saved[s], named[h].made_with), s, h) for s in states for h in here]
        pairs.sort(key=lambda pair: -pair[0])  # of equal ones the first
        for _, state, name in pairs:
            if state in found or name in found.values():
                continue
            found[state] = name
            if named[name].keeps_checkpoints:  # CheckCallback has its own warning of the best value
                continue
            there, now = _other_names(saved[state], named[name].made_with)
            if there:
                told.append(f"the state of {kind}({there}) goes to {kind}({now})")
        told += [
            f"the state of {f'{kind}({_shown(saved[state])})' if states[1:] else f'a {kind}'} is left "
            "out, since there is no such callback here"
            for state in states
            if state not in found
        ]
    return found, told


def _num_equal(one: Mapping[str, str], other: Mapping[str, str]) -> int:
    return sum(other.get(name) == value for name, value in one.items()) - len(other.keys() - one)


def _shown(arguments: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in arguments.items())


def _other_names(saved: Mapping[str, str], here: Mapping[str, str]) -> list[str]:
    """The texts in which the arguments differ, except for folders: numbers are settings."""
    names = [
        name
        for name, value in saved.items()
        if name in here
        and value != here[name]
        and not name.endswith("_dir")
        and (value[0] in "'\"" or here[name][0] in "'\"")
    ]
    return [_shown({name: every[name] for name in names}) for every in (saved, here)]


def _check_all(callbacks: list[Callback]) -> None:
    for index, callback in enumerate(callbacks):
        _check_callback(callback)
        if any(callback is other for other in callbacks[:index]):
            raise ConfigError(
                f"One {type(callback).__name__} object comes twice among the callbacks: its "
                "hooks would run twice. Add it once, or make two."
            )


def _check_callback(callback: object) -> None:
    if not isinstance(callback, Callback):
        hint = "add an object, not the class" if isinstance(callback, type) else "subclass it"
        raise ConfigTypeError(
            f"{callback!r} is a {type(callback).__name__}, not a Callback: {hint}."
        )
    owner = type(callback)
    if isinstance(callback.order, bool) or not isinstance(callback.order, (int, float)):
        raise ConfigTypeError(f"{owner.__name__}.order={callback.order!r}: give an int.")
    for name in HOOKS:
        if not callable(getattr(owner, name)) or name in getattr(callback, "__dict__", {}):
            raise HookError(
                f"{owner.__name__}.{name} is no method of the class: define it there, def "
                f"{name}(self, ...)."
            )
    for name in dir(owner):
        if f"on_{name}" in HOOKS and callable(getattr(owner, name)):
            warn_user(
                f"{owner.__name__}.{name} is never called as a hook. Did you mean 'on_{name}'?",
                UserWarning,
            )
        is_own = getattr(owner, name) is not HOOKS.get(name)
        if name.startswith("on_") and is_own and callable(getattr(owner, name)):
            where = f"{owner.__name__}.{name}"
            if name not in HOOKS:
                raise HookError(f"{where}: there is no such hook. {_meant(name)}")
            if not is_of_library(getattr(owner, name)):  # whose signatures are tested
                _check_signature(where, getattr(callback, name), name)
    for companion in callback.companions:
        _check_callback(companion)


def _check_signature(where: str, method: BoundHook, name: str) -> None:
    expected = [arg for arg in inspect.signature(HOOKS[name]).parameters if arg != "self"]
    try:
        inspect.signature(method).bind(**dict.fromkeys(expected))
    except (TypeError, ValueError) as error:  # the latter from a function without self
        raise HookError(
            f"{where} cannot be called with its arguments ({error}). "
            f"Write: def {name}(self, {', '.join(expected)}), or **others for those not needed."
        ) from None


def _meant(name: str) -> str:
    return did_you_mean(name, HOOKS) or f"The hooks are: {', '.join(HOOKS)}."
