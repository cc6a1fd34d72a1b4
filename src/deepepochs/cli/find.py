"""Finds the runs that a command names: by the path of a folder, by an id or a part of one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path

from ..errors import CheckpointNotFound
from ..runs.record import RunInfo, is_recorded, is_run, list_runs, read_run, run_folders

MAX_NAMED = 3  # runs that a message names


def runs_at(folder: Path) -> list[RunInfo]:
    """Return the runs in a folder, or the one run whose folder it is.

    Raises:
        CheckpointNotFound: there is no such folder.
    """
    if is_recorded(folder):
        return [read_run(folder)]
    if not folder.is_dir() and (here := run_folders(Path())):
        raise CheckpointNotFound(
            f"There is no folder {folder}, and the working folder has {counted(here)}: "
            "`deepepochs runs .` lists what is there."
        )
    if not folder.is_dir():
        where = folder if folder.is_absolute() else f"{folder} in {Path.cwd()}"
        raise CheckpointNotFound(
            f"There is no folder {where}: no run has been saved here. A CheckCallback, LogCallback "
            "or ReportCallback saves one. For runs elsewhere, give their folder."
        )
    return list_runs(folder) or ([read_run(folder)] if is_run(folder) else [])


def find_run(name: str | None, folder: Path) -> RunInfo:
    """Return one run.

    Args:
        name: the path of its folder, its id, or a part of the id that no other run has; ``None``:
            the run that began last.
        folder: the folder of the runs, where ids are looked for.

    Raises:
        CheckpointNotFound: there is none, or several have this part.
    """
    if name is None:
        return find_runs([], folder)[-1]
    path = Path(name)
    for candidate in (path, folder / path):
        if is_recorded(candidate):
            return read_run(candidate)
    if path.is_dir():
        if inside := list_runs(path):
            raise CheckpointNotFound(
                f"{path} is the folder of {counted(inside)}, and one is wanted: give "
                f"{path / inside[-1].running_id}, for example."
            )
        if is_run(path):
            return read_run(path)
    if is_run(folder / path):
        return read_run(folder / path)
    return _by_part(path, folder)


def find_runs(names: Sequence[str], folder: Path) -> list[RunInfo]:
    """Return several runs, each once.

    Args:
        names: each as for `find_run`, or a folder of runs; none: all runs in `folder`.
        folder: the folder of the runs, where ids are looked for.

    Raises:
        CheckpointNotFound: one is not found, or there is no run at all.
    """
    if not names:
        found = runs_at(folder)
        if not found:
            raise CheckpointNotFound(nothing_in(folder))
        return found
    runs: dict[Path, RunInfo] = {}
    for name in names:
        path = Path(name)
        inside = list_runs(path) if path.is_dir() and not is_recorded(path) else []
        for run in inside or [find_run(name, folder)]:
            runs.setdefault((run.folder or Path()).resolve(), run)
    return list(runs.values())


def _by_part(path: Path, folder: Path) -> RunInfo:
    """Return the run with a part of an id, or raise an error that names near ones."""
    parent = folder if path.parent == Path() else path.parent
    names = [run.running_id for run in list_runs(parent)] if parent.is_dir() else []
    matches = [name for name in names if path.name in name]
    if len(matches) == 1:
        return read_run(parent / matches[0])
    if matches:
        raise CheckpointNotFound(
            f"{len(matches)} runs in {parent} have {path.name!r} in their id: {_some(matches)}."
        )
    text = f"There is no folder {path}, and no run of this name in {parent}."
    if not parent.is_dir():
        raise CheckpointNotFound(
            f"There is no folder {path}, and no folder {parent} with runs: give the path of a run, "
            "or its id with --folder and the folder of the runs."
        )
    if near := get_close_matches(path.name, names, MAX_NAMED, 0.5):
        text += f" Did you mean {' or '.join(near)}?"
    elif names:
        text += f" It has {_some(names[::-1])}."
    else:
        text += f" {nothing_in(parent)}"
    raise CheckpointNotFound(text)


def nothing_in(folder: Path) -> str:
    """Say that a folder has no run, and which of its folders have some."""
    text = f"There is no run in {folder}."
    inner = [path for path in sorted(folder.iterdir()) if path.is_dir() and run_folders(path)]
    return f"{text} There are runs in {_some(map(str, inner))}." if inner else text


def counted(found: Iterable[object]) -> str:
    """Return a number of runs in words."""
    count = len(list(found))
    return "1 run" if count == 1 else f"{count} runs"


def _some(names: Iterable[str]) -> str:
    shown = list(names)
    rest = len(shown) - MAX_NAMED
    return ", ".join(shown[:MAX_NAMED]) + (f" and {rest} more" if rest > 0 else "")
