"""Small tools for the names of runs, functions and folders."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Any, TypeVar

from ..errors import ConfigError

PathT = TypeVar("PathT", str, "os.PathLike[str]")


def make_runningid(
    task: object = None, seed: object = None, other_info: object = None, time_precision: int = 1
) -> str:
    """Make a name for a run. Such names sort by time.

    Args:
        task: what is trained.
        seed: the seed of the run.
        other_info: anything else.
        time_precision: decimals of the seconds in the leading time, 0 or more; 1 counts
            tenths of a second.

    Returns:
        ``<time>-<task>-<seed>-<info>``, without the parts that are ``None``.

    Raises:
        ConfigError: `time_precision` is negative.

    Example:
        >>> make_runningid(seed=0).split("-")[1:]
        ['0']
    """
    if time_precision < 0:
        raise ConfigError(f"make_runningid got time_precision={time_precision}: give 0 or more")
    stamp = time.time_ns() * 10**time_precision // 10**9
    parts = (stamp, task, seed, other_info)
    return "-".join(str(part) for part in parts if part is not None)


def rename(newname: str) -> Callable[[Any], Any]:
    """Make a decorator that sets a function's ``__name__``, which names its metric.

    Args:
        newname: the name. With an empty one, a metric that returns a dict keeps the keys of
            this dict as they are.

    Returns:
        The decorator. It renames the function that is being defined. One that is there already,
        as ``F.l1_loss``, keeps its name for everybody else: what is renamed is a new function
        around it.

    Example:
        >>> @rename("top1")
        ... def accuracy(preds, targets): ...
        >>> accuracy.__name__
        'top1'
    """

    def renamed(function: Any) -> Any:
        if isinstance(function, FunctionType) and _is_in_its_module(function):
            function = functools.partial(function)
        with contextlib.suppress(AttributeError, TypeError):
            function.__name__ = newname
            return function

        @functools.wraps(function)
        def caller(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        caller.__name__ = newname
        return caller

    return renamed


def _is_in_its_module(function: FunctionType) -> bool:
    """Whether a module has a function under its name; not yet, while it is being decorated."""
    found: Any = sys.modules.get(function.__module__)
    for name in function.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is function


def check_path(path: PathT, create: bool = True) -> PathT:
    """Make sure that `path` is a folder.

    Args:
        path: the folder.
        create: make it, and its parents, if it is missing.

    Returns:
        `path` as it was given.

    Raises:
        ConfigError: `path` is a file, or it is missing and `create` is false.

    Example:
        >>> check_path(".")
        '.'
    """
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file: give the path of a folder")
    if not create and not folder.exists():
        raise ConfigError(f"there is no folder {folder}: make it, or pass create=True")
    folder.mkdir(parents=True, exist_ok=True)
    return path
