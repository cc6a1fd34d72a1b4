"""Names of runs, functions and folders.

>>> from deepepochs.legacy.naming import make_runningid, rename
>>> make_runningid(task="mnist", seed=1).endswith("-mnist-1")
True
>>> @rename("top1")
... def accuracy(preds, targets): ...
>>> accuracy.__name__
'top1'
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from ..errors import ConfigError

__all__ = ["check_path", "make_runningid", "rename"]

PathT = TypeVar("PathT", str, "os.PathLike[str]")


def make_runningid(
    task: object = None, seed: object = None, other_info: object = None, time_precision: int = 1
) -> str:
    """Make a name for a run that sorts by time and says what it was.

    Args:
        task: what is trained.
        seed: its seed; 0 counts as given.
        other_info: anything else.
        time_precision: decimals of the second in the leading time, 0 or more: 1 counts
            tenths of a second.

    Returns:
        ``<time>-<task>-<seed>-<info>``, without the parts that are None.

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
    """Decorate a function so that it has another ``__name__``: the name of its metric.

    Args:
        newname: the name. The empty one lets a metric that gives a dict use that dict's
            keys as they are.

    Returns:
        The decorator. It gives the same object, renamed; or, where that takes no name (a
        function of C), a new function that calls it.

    Example:
        >>> rename("longest")(max)([1, 3, 2]), rename("longest")(max).__name__
        (3, 'longest')
    """

    def renamed(function: Any) -> Any:
        try:
            function.__name__ = newname
        except (AttributeError, TypeError):

            @functools.wraps(function)
            def caller(*args: Any, **kwargs: Any) -> Any:
                return function(*args, **kwargs)

            caller.__name__ = newname
            return caller
        return function

    return renamed


def check_path(path: PathT, create: bool = True) -> PathT:
    """Make sure that `path` is a folder.

    Args:
        path: the folder.
        create: make it, and those above it, if it is missing.

    Returns:
        `path` as it was given.

    Raises:
        ConfigError: there is no such folder and none may be made, or it is a file.

    Example:
        >>> check_path(".")
        '.'
    """
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file: give the path of a folder")
    if not folder.exists():
        if not create:
            raise ConfigError(f"there is no folder {folder}: make it, or pass create=True")
        folder.mkdir(parents=True, exist_ok=True)
    return path
