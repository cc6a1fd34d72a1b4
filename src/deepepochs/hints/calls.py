"""Finds what is wrong with the arguments of a call, and says what to write instead.

>>> def fit(trainer, train_dl=None, metrics=None, epochs=None): ...
>>> print(refusal(fit, ["a trainer"], {"metric": "accuracy"}))
fit() has no argument 'metric'. Did you mean 'metrics'?
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..errors import ConfigTypeError

_ONE_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def refusal(
    method: Callable[..., Any], args: Sequence[Any], options: Mapping[str, Any]
) -> ConfigTypeError | None:
    """The error for a call that does not fit a method; ``None`` if it fits.

    Args:
        method: the method, or the ``__init__`` of a class.
        args: the arguments by position, the object (or its class) first.
        options: the arguments by name.
    """
    parameters = [*inspect.signature(method).parameters.values()][1:]
    names = [one.name for one in parameters if one.kind in _ONE_NAME]
    by_position = [one.name for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD]
    kinds = {one.kind for one in parameters}
    called = _called(method, args)
    faults: list[str] = []
    if inspect.Parameter.VAR_KEYWORD not in kinds:
        faults = _unknown(called, [name for name in options if name not in names], names)
    if len(args) - 1 > len(by_position) and inspect.Parameter.VAR_POSITIONAL not in kinds:
        faults.append(
            f"{called} got {len(args) - 1} arguments by position and takes {len(by_position)}, "
            f"{_usage(called, by_position)}: give the others by name."
        )
    given = by_position[: len(args) - 1]
    faults += [_twice(called, by_position, args, name) for name in given if name in options]
    missing = [
        one.name
        for one in parameters
        if one.kind in _ONE_NAME and one.default is one.empty and one.name not in (*given, *options)
    ]
    if missing and not faults:
        faults = [f"{called} needs {missing[0]!r}: {_usage(called, by_position)}."]
    return ConfigTypeError("\n".join(faults)) if faults else None


def _unknown(called: str, given: Sequence[str], known: Sequence[str]) -> list[str]:
    """Say that there are no arguments of some names; those with one remedy share a sentence."""
    if not given:
        return []
    from .names import advice_on_argument

    by_advice: dict[str, list[str]] = {}
    for name in given:
        by_advice.setdefault(advice_on_argument(name, known), []).append(repr(name))
    return [
        f"{called} has no argument{'s' if len(names) > 1 else ''} {' and '.join(names)}. {advice}"
        for advice, names in by_advice.items()
    ]


def _called(method: Callable[..., Any], args: Sequence[Any]) -> str:
    """The name of what is called: ``fit()``, or a class."""
    name = method.__name__
    if name != "__init__" or not args:
        return f"{name}()"
    # A class of the user's may call it by super(): then it is the class that defines it.
    made = args[0] if isinstance(args[0], type) else type(args[0])
    of = [cls for cls in made.__mro__ if inspect.unwrap(cls.__init__) is inspect.unwrap(method)]  # type: ignore[misc]
    return (of or [made])[0].__name__


def _twice(called: str, by_position: Sequence[str], args: Sequence[Any], name: str) -> str:
    from .roles import named

    given = named(args[by_position.index(name) + 1])
    return (
        f"{called} got {name} twice: {given} by its position, and {name}=... by its name. The order is "
        f"{_usage(called, by_position)}."
    )


def _usage(called: str, by_position: Sequence[str]) -> str:
    more = ", ..." if len(by_position) > 4 else ""
    return f"{called.removesuffix('()')}({', '.join(by_position[:4])}{more})"
