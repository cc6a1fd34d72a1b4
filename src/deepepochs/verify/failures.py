"""What is said of a run that failed: what was raised, where in the user's code, and what to do.

The run is in another process, so its traceback comes as text; it becomes the cause of the error.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ..errors import CheckpointError
from .attributes import INSTALLED

_NOT_THE_USERS = (*INSTALLED, str(Path(__file__).parents[1]), "<")  # "<": it is in no file
_OF_WORKER = "Original Traceback (most recent call last):"
_FRAME = re.compile(r'^ *File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<name>.+)$', re.M)
_MOST_PLACES = 2


class Failure(NamedTuple):
    """How a run failed.

    Attributes:
        when_s: the time.
        kind: ``'failed'``, ``'refused'`` (the fit was not begun) or ``'apart'`` (the new processes
            did not join).
        text: what is said of it.
        trace: the whole traceback; ``''`` if there is none.
    """

    when_s: float
    kind: str
    text: str
    trace: str = ""


class RunFailed(Exception):
    """The traceback of a run in another process, as text."""


def described(error: BaseException) -> str:
    """Say in a few lines what was raised, in which mini-batch, and where in the user's code."""
    said, _, of_worker = str(error).partition(_OF_WORKER)
    if of_worker:  # a data loader gives the traceback of its worker in place of a message
        said = of_worker.rstrip().rpartition("\n")[2]
    else:
        said = f"{type(error).__name__}: {said}" if said else type(error).__name__
    lines = [said, *getattr(error, "__notes__", ())]
    if places := _places_of_user(error, of_worker):
        inner = [f"{file}, line {line}, in {name}" for file, line, name in places[-_MOST_PLACES:]]
        lines.append(f"It was raised in {', called from '.join(inner[::-1])}.")
    return "\n".join(lines)


def _places_of_user(error: BaseException | None, of_worker: str) -> list[tuple[str, int, str]]:
    """Give the user's frames of an error, or of the nearest one behind it that has some."""
    while error is not None:
        every = _places(error, of_worker)
        if found := [place for place in every if not place[0].startswith(_NOT_THE_USERS)]:
            return found
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return []


def _places(error: BaseException, of_worker: str) -> Iterator[tuple[str, int, str]]:
    """Give file, line and function of each frame of a traceback, from the outermost."""
    for frame in traceback.extract_tb(error.__traceback__):
        yield frame.filename, frame.lineno or 0, frame.name
    for found in _FRAME.finditer(of_worker):
        yield found["file"], int(found["line"]), found["name"]


def failure_of_run(
    name: str, failure: Failure, rank: int | None, *, resumes: bool
) -> CheckpointError:
    """Make the error that is raised for a run; ``rank`` is ``None`` in one process."""
    where = "" if rank is None else f" in process {rank}"
    advice = (
        "The unbroken run has passed there: it had something that is in no checkpoint."
        if resumes
        else "fit() fails there as well: mend that first, and then verify again."
    )
    error = CheckpointError(
        f"The run {name!r} of verify_resume failed{where}: {failure.text}\n{advice}"
    )
    error.__cause__ = RunFailed(f"\n{failure.trace}") if failure.trace else None
    error.__suppress_context__ = True
    return error
