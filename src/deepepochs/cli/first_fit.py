"""Runs a script up to its first ``fit``, and does something else there, such as a check.

What the script does before is done: it reads its data, and makes its model and its trainer.
"""

from __future__ import annotations

import inspect
import os
import runpy
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from types import FrameType
from typing import Any

from ..errors import ConfigError
from ..trainer import TrainerBase

Doing = Callable[[Any, dict[str, Any], FrameType], Any]


class ScriptEnds(BaseException):
    """Ends a script in its first fit; no ``except Exception`` of the script stops it."""


def at_first_fit(script: str | os.PathLike[str], arguments: Sequence[str], do: Doing) -> Any:
    """Run a script as ``python script arguments`` does, and call ``do`` in place of its first fit.

    The script ends there. Its folder is the first one in ``sys.path``, and it is ``__main__``.

    Args:
        script: the file.
        arguments: those after its name.
        do: a function of the trainer, the arguments that ``fit`` was given by name, and the frame
            of the code that called ``fit``.

    Returns:
        What ``do`` returns.

    Raises:
        ConfigError: there is no such file, or the script ends without a fit.
    """
    path = Path(script)
    if not path.is_file():
        raise ConfigError(f"There is no script {path}: give the file that calls fit().")
    results: list[Any] = []

    def end(trainer: Any, options: dict[str, Any], frame: FrameType) -> None:
        results.append(do(trainer, options, frame))
        raise ScriptEnds

    with running_as_main(path, arguments), in_place_of_fit(end):
        try:
            runpy.run_path(str(path), run_name="__main__")
        except ScriptEnds:
            return results[0]
        except SystemExit as end_of_script:
            if end_of_script.code not in (None, 0):
                raise
    raise ConfigError(f"{path} has ended, and no trainer.fit(...) was called in it.")


def place_of(frame: FrameType) -> str:
    """Name the line of a script that is under way, as ``train.py, line 12``."""
    return f"{Path(frame.f_code.co_filename).name}, line {frame.f_lineno}"


@contextmanager
def running_as_main(path: Path, arguments: Sequence[str]) -> Iterator[None]:
    """Set what Python sets for the script that it is started with."""
    before = sys.argv, sys.path[:]
    sys.argv = [str(path), *arguments]
    sys.path.insert(0, str(path.resolve().parent))
    try:
        yield
    finally:
        sys.argv, sys.path[:] = before


@contextmanager
def in_place_of_fit(do: Callable[[Any, dict[str, Any], FrameType], None]) -> Iterator[None]:
    """Have ``do`` called for the first ``fit`` of a trainer, also where a class overrides it."""
    fit = TrainerBase.fit
    signature = inspect.signature(fit)

    @wraps(fit)
    def instead(trainer: Any, *args: Any, **options: Any) -> None:
        try:
            bound = signature.bind(trainer, *args, **options).arguments
        except TypeError:
            fit(trainer, *args, **options)  # which says what is wrong
            raise
        given = {name: value for name, value in bound.items() if name != "self"}
        setattr(TrainerBase, "fit", fit)  # noqa: B010  # what is done may train
        do(trainer, given, sys._getframe(1))

    setattr(TrainerBase, "fit", instead)  # noqa: B010
    try:
        yield
    finally:
        setattr(TrainerBase, "fit", fit)  # noqa: B010
