"""Runs a script up to a ``fit``, and does something else there, such as a check.

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
    """Ends a script in a fit; no ``except Exception`` of the script stops it."""


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
    return at_fits(script, arguments, do, 1)[0]


def at_fits(
    script: str | os.PathLike[str], arguments: Sequence[str], do: Doing, num_fits: int
) -> list[Any]:
    """Run a script up to a fit, and call ``do`` before each fit on the way and in place of it.

    The fits before it are run as they are: the next one begins with what they leave.

    Args:
        script: the file.
        arguments: those after its name.
        do: a function as in `at_first_fit`.
        num_fits: the fit where the script ends, from 1.

    Returns:
        What ``do`` returns, for each fit.

    Raises:
        ConfigError: there is no such file, or the script ends with fewer fits.
    """
    path = Path(script)
    if not path.is_file():
        raise ConfigError(f"There is no script {path}: give the file that calls fit().")
    results: list[Any] = []

    def reach(trainer: Any, options: dict[str, Any], frame: FrameType) -> None:
        if len(results) < num_fits:
            results.append(do(trainer, options, frame))
        if len(results) == num_fits:
            raise ScriptEnds

    with running_as_main(path, arguments), before_fits(reach):
        try:
            runpy.run_path(str(path), run_name="__main__")
        except ScriptEnds:
            return results
        except SystemExit as end_of_script:
            if end_of_script.code not in (None, 0):
                raise
    if results:
        raise ConfigError(f"{path} has ended after {len(results)} of {num_fits} fits.")
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
def before_fits(do: Callable[[Any, dict[str, Any], FrameType], None]) -> Iterator[None]:
    """Have ``do`` called before each ``fit`` of a trainer, also where a class overrides it.

    Not before a fit that is called within ``do`` or within another fit.
    """
    fit = TrainerBase.fit
    signature = inspect.signature(fit)

    @wraps(fit)
    def instead(trainer: Any, *args: Any, **options: Any) -> Any:
        try:
            bound = signature.bind(trainer, *args, **options).arguments
        except TypeError:
            fit(trainer, *args, **options)  # which says what is wrong
            raise
        given = {name: value for name, value in bound.items() if name != "self"}
        setattr(TrainerBase, "fit", fit)  # noqa: B010  # what is done may train
        try:
            do(trainer, given, sys._getframe(1))
            return fit(trainer, *args, **options)
        finally:
            setattr(TrainerBase, "fit", instead)  # noqa: B010

    setattr(TrainerBase, "fit", instead)  # noqa: B010
    try:
        yield
    finally:
        setattr(TrainerBase, "fit", fit)  # noqa: B010
