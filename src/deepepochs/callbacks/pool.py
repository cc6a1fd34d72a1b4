"""The callbacks of a trainer: a list that takes valid callbacks only.

Names and signatures of hooks are checked when a callback is added, so that a misspelt
one is an error before the first mini-batch.
"""

from __future__ import annotations

import difflib
import inspect
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, SupportsIndex

from ..errors import ConfigError, ConfigTypeError, HookError
from ..hooks import BoundHook, HookTable, fire
from .base import HOOKS, Callback

__all__ = ["CallbackPool"]


class CallbackPool(list["Callback"]):
    """The callbacks of a trainer: a list that takes valid callbacks only.

    Raises:
        ConfigTypeError: something that is no ``Callback``.
        HookError: a method ``on_...`` that no hook has as its name, or whose
            signature does not take the arguments of the hook.

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
        """Add one callback after checking it."""
        self.extend([callback])

    def extend(self, callbacks: Iterable[Callback]) -> None:
        """Add several callbacks, each checked; none is added if one is wrong."""
        added = list(callbacks)
        self._check([*self, *added])
        super().extend(added)

    def __iadd__(self, callbacks: Iterable[Callback]) -> CallbackPool:  # type: ignore[override,misc]
        self.extend(callbacks)
        return self

    def __setitem__(self, index: Any, value: Any) -> None:
        changed = list(self)
        changed[index] = value
        self._check(changed)
        super().__setitem__(slice(None), changed)

    def insert(self, index: SupportsIndex, callback: Callback) -> None:
        """Insert one callback after checking it."""
        self._check([*self, callback])
        super().insert(index, callback)

    def prepare(self) -> None:
        """Sort by ``order``; callbacks of equal order keep their places."""
        self.sort(key=lambda callback: callback.order)

    def trigger(self, event: str, **arguments: Any) -> None:
        """Call an event's hooks by its name without ``on_``, as release 0.6 did."""
        if f"on_{event}" not in HOOKS:
            raise HookError(f"There is no event {event!r}.{_nearest('on_' + event)}")
        fire(HookTable(self, HOOKS)[f"on_{event}"], **arguments)

    def named(self) -> dict[str, Callback]:
        """The callbacks by unique name: the class, and ``#2`` and on for further ones."""
        names: dict[str, Callback] = {}
        for callback in self:
            base = type(callback).__name__
            same = sum(type(other).__name__ == base for other in names.values())
            names[base if not same else f"{base}#{same + 1}"] = callback
        return names

    @staticmethod
    def _check(callbacks: Sequence[object]) -> None:
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
            warnings.warn(
                f"{owner.__name__}.{name} is never called as a hook. Did you mean 'on_{name}'?",
                UserWarning,
                stacklevel=4,
            )
        if name.startswith("on_") and callable(getattr(owner, name)):
            where = f"{owner.__name__}.{name}"
            if name not in HOOKS:
                raise HookError(f"{where}: there is no such hook.{_nearest(name)}")
            _check_signature(where, getattr(callback, name), name)


def _check_signature(where: str, method: BoundHook, name: str) -> None:
    expected = [arg for arg in inspect.signature(HOOKS[name]).parameters if arg != "self"]
    try:
        inspect.signature(method).bind(**dict.fromkeys(expected))
    except (TypeError, ValueError) as error:  # the latter from a function without self
        raise HookError(
            f"{where} cannot be called with its arguments ({error}). "
            f"Write: def {name}(self, {', '.join(expected)}), or **others for those not needed."
        ) from None


def _nearest(name: str) -> str:
    found = difflib.get_close_matches(name, HOOKS, n=1, cutoff=0.6)
    return f" Did you mean {found[0]!r}?" if found else f" The hooks are: {', '.join(HOOKS)}."
