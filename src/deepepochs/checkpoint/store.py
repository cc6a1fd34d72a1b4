"""The checkpoint files in the folder of a run: which are kept, and which is read.

:class:`CheckpointStore` keeps these:

==================  ==============================================================
``checkpoint.ckpt``  the last one; the only one in 0.6
``previous.ckpt``    the one before
``best.ckpt``        the best so far; ``best-2.ckpt``, ... if more are kept
``last-fit.ckpt``    the end of the fit before the present one, where a script has several
``stopped.ckpt``     the best so far, if a fit has ended with it in the middle of an epoch
==================  ==============================================================
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..arguments import check_count
from ..errors import CheckpointDamaged, CheckpointError, CheckpointNotFound, warn_user
from ..files.atomic import duplicate
from .file import load, not_found, save, write
from .writer import settle

__all__ = ["CheckpointStore", "latest_run", "list_checkpoints", "load", "read_checkpoint", "save"]

_LAST, _PREVIOUS, _LAST_FIT = "checkpoint.ckpt", "previous.ckpt", "last-fit.ckpt"
_STOPPED = "stopped.ckpt"
_BEST = re.compile(r"best(?:-(\d+))?\.ckpt")


class CheckpointStore:
    """The checkpoints in the folder of one run: the last, the one before, and the best.

    Args:
        folder: the folder; the first save makes it.
        keep_best: how many of the best are kept, at least 1.

    Raises:
        ConfigError: `keep_best` is less than 1.
    """

    def __init__(self, folder: str | os.PathLike[str], keep_best: int = 1) -> None:
        self.folder = Path(folder)
        self.keep_best = check_count("keep_best", keep_best, 1)
        self.last = self.folder / _LAST
        self.previous = self.folder / _PREVIOUS
        self.last_fit = self.folder / _LAST_FIT
        self.stopped = self.folder / _STOPPED

    def best(self, place: int = 1) -> Path:
        """The path of the best checkpoint (`place` 1), the second best (2), and so on."""
        return self.folder / ("best.ckpt" if place == 1 else f"best-{place}.ckpt")

    def save(self, state: Mapping[str, Any], best_place: int | None = None) -> Path:
        """Write `state` as the last checkpoint; the last one so far becomes the previous one.

        Args:
            state: as for :func:`save`.
            best_place: its place among the best, from 1; ``None`` if it has none. Those from
                this place on move down by one. It is a second name of the same file.

        Returns:
            The path of the last checkpoint.

        Raises:
            CheckpointError: as for :func:`save`; the files are as they were.
        """
        if best_place is not None:
            check_count("best_place", best_place, 1)

        def keep_others(temporary: Path) -> None:
            # The best first: a run that is killed in between repeats this save.
            if best_place is not None and best_place <= self.keep_best:
                self._insert_best(temporary, best_place)
            if self.last.exists():
                try:
                    duplicate(self.last, self.previous)
                except OSError:  # neither hard links nor space for a copy
                    self.last.replace(self.previous)

        write(self.last, state, keep_others)
        return self.last

    def drop_best(self, beyond: int = 0) -> None:
        """Remove the best checkpoints from a place on, which are of another metric or run."""
        for path in list_checkpoints(self.folder):
            match = _BEST.fullmatch(path.name)
            if match is not None and int(match[1] or 1) > beyond:
                path.unlink()

    def take_best(self, source: Path) -> None:
        """Take over the best checkpoints in the folder of another run, as many as are kept.

        Raises:
            CheckpointError: they cannot be copied.
        """
        other = CheckpointStore(source, self.keep_best)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.drop_best()
            for place in range(1, self.keep_best + 1):
                if other.best(place).is_file():
                    duplicate(other.best(place), self.best(place))
        except OSError as error:
            raise CheckpointError(
                f"cannot copy the best states of {source} to {self.folder}: {error}"
            ) from error

    def keep_stopped(self) -> None:
        """Make the best state at a stop the first of the best: its part of an epoch stays."""
        if self.stopped.exists():
            self._insert_best(self.stopped, 1)

    def _insert_best(self, path: Path, place: int) -> None:
        for index in range(self.keep_best - 1, place - 1, -1):
            if self.best(index).exists():
                duplicate(self.best(index), self.best(index + 1))
        duplicate(path, self.best(place))

    def keep_fit(self) -> None:
        """Keep the last checkpoint as the end of a fit: another fit begins."""
        if self.last.exists():
            duplicate(self.last, self.last_fit)

    def newest_good(self) -> tuple[Path, dict[str, Any], list[str]]:
        """Read the newest checkpoint that is whole.

        Returns:
            Its path, its state, and a warning for each newer one that cannot be used.

        Raises:
            CheckpointNotFound: there is no checkpoint.
            CheckpointDamaged: no checkpoint can be used.
        """
        faults: list[tuple[Path, str]] = []
        for path in list_checkpoints(self.folder):
            try:
                state = load(path)
            except CheckpointError as error:
                faults.append((path, str(error)))
                continue
            sentences = [f"{fault}; {path} is taken instead of {bad}" for bad, fault in faults]
            if path == self.previous and not faults:
                sentences = [f"{self.last} is missing; {path} is taken instead"]
            return path, state, sentences
        if faults:
            listed = "; ".join(fault for _, fault in faults)
            raise CheckpointDamaged(f"no checkpoint in {self.folder} can be used: {listed}")
        raise CheckpointNotFound(not_found(self.last))


def list_checkpoints(folder: str | os.PathLike[str]) -> list[Path]:
    """The checkpoints in a run's folder: the last, the previous, then the best, newest first."""
    settle()
    root = Path(folder)
    best = [path for path in root.glob("best*.ckpt") if _BEST.fullmatch(path.name)]
    best.sort(key=lambda path: (-path.stat().st_mtime_ns, len(path.name), path.name))
    return [path for path in (root / _LAST, root / _PREVIOUS, *best) if path.is_file()]


def latest_run(ckpt_dir: str | os.PathLike[str]) -> Path | None:
    """The sub-folder of `ckpt_dir` with the newest checkpoint; ``None`` if none has one."""
    root = Path(ckpt_dir)
    runs = []
    for folder in root.iterdir() if root.is_dir() else ():
        times = [path.stat().st_mtime_ns for path in list_checkpoints(folder)]
        if times:
            runs.append((max(times), folder))
    return max(runs)[1] if runs else None


def read_checkpoint(path: str | os.PathLike[str]) -> tuple[Path, dict[str, Any]]:
    """Read a checkpoint file, or the newest whole one in a run's folder.

    A damaged file in a folder is skipped with a warning that names both files.
    """
    source = Path(path)
    if not source.is_dir():
        return source, load(source)
    source, state, faults = CheckpointStore(source).newest_good()
    for fault in faults:
        warn_user(fault, UserWarning)
    return source, state
