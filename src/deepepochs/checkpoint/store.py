"""Write one dict of parts so that a crash cannot harm it; read only what is whole and safe.

:func:`save` and :func:`load` handle one file (see :mod:`~deepepochs.checkpoint.file`);
:class:`CheckpointStore` keeps those of a run:

==================  ==============================================================
``checkpoint.ckpt``  the last one written; the name that 0.6 gives its only one
``previous.ckpt``    the one before
``best.ckpt``        the best so far; ``best-2.ckpt``, ... if more are kept
==================  ==============================================================

>>> import tempfile, torch
>>> from deepepochs.checkpoint import CheckpointStore
>>> store = CheckpointStore(tempfile.mkdtemp())
>>> _ = store.save({"epoch": 1, "model": {"weight": torch.ones(2)}})
>>> path, state, warnings = store.newest_good()
>>> path.name, state["epoch"], warnings
('checkpoint.ckpt', 1, [])
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import CheckpointDamaged, CheckpointError, CheckpointNotFound, ConfigError
from ..files.atomic import duplicate
from .file import SCHEMA, load, not_found, save, write

__all__ = [
    "SCHEMA",
    "CheckpointStore",
    "latest_run",
    "list_checkpoints",
    "load",
    "read_checkpoint",
    "save",
]

_LAST, _PREVIOUS = "checkpoint.ckpt", "previous.ckpt"
_BEST = re.compile(r"best(?:-(\d+))?\.ckpt")


class CheckpointStore:
    """The checkpoints in the folder of one run: the last, the one before, and the best.

    Args:
        folder: where they are; made by the first save.
        keep_best: how many of the best are kept, at least 1.

    Raises:
        ConfigError: `keep_best` is less than 1.
    """

    def __init__(self, folder: str | os.PathLike[str], keep_best: int = 1) -> None:
        if keep_best < 1:
            raise ConfigError(f"keep_best={keep_best}: at least 1 of the best is kept")
        self.folder = Path(folder)
        self.keep_best = keep_best
        self.last = self.folder / _LAST
        self.previous = self.folder / _PREVIOUS

    def best(self, place: int = 1) -> Path:
        """The path of the best one (`place` 1), the second best (2), and so on."""
        return self.folder / ("best.ckpt" if place == 1 else f"best-{place}.ckpt")

    def save(self, state: Mapping[str, Any], best_place: int | None = None) -> Path:
        """Write `state` as the last one, making the last so far the previous one.

        Args:
            state: as for :func:`save`.
            best_place: the place from 1 that it takes among the best, those from there on
                moving down by one; ``None`` if it is not among them. It is the same file
                under a second name, at no cost.

        Returns:
            The path of the last one.

        Raises:
            CheckpointError: as for :func:`save`; the files are as they were.
        """
        if best_place is not None and best_place < 1:
            raise ConfigError(f"best_place={best_place}: places count from 1")

        def keep_others(temporary: Path) -> None:
            # The best first: killed in between, the run repeats this save, and nothing is lost.
            if best_place is not None and best_place <= self.keep_best:
                for place in range(self.keep_best - 1, best_place - 1, -1):
                    if self.best(place).exists():
                        duplicate(self.best(place), self.best(place + 1))
                duplicate(temporary, self.best(best_place))
            if self.last.exists():
                self._keep_previous()

        write(self.last, state, keep_others)
        return self.last

    def newest_good(self) -> tuple[Path, dict[str, Any], list[str]]:
        """Read the newest checkpoint that is whole.

        Returns:
            Its path; its state; and one sentence for each newer one that could not be used,
            naming both files, for the caller to show.

        Raises:
            CheckpointNotFound: there is none at all.
            CheckpointDamaged: there are some, and not one can be used.
        """
        faults: list[tuple[Path, str]] = []
        for path in list_checkpoints(self.folder):
            try:
                state = load(path)
            except CheckpointError as error:
                faults.append((path, str(error)))
                continue
            warnings = [f"{fault}; {path} is taken instead of {bad}" for bad, fault in faults]
            if path == self.previous and not faults:
                warnings = [f"{self.last} is missing; {path} is taken instead"]
            return path, state, warnings
        if faults:
            listed = "; ".join(fault for _, fault in faults)
            raise CheckpointDamaged(f"no checkpoint in {self.folder} can be used: {listed}")
        raise CheckpointNotFound(not_found(self.last))

    def _keep_previous(self) -> None:
        try:
            duplicate(self.last, self.previous)
        except (
            OSError
        ):  # no hard links and no space for a copy: for a moment only this one is there
            self.last.replace(self.previous)


def list_checkpoints(folder: str | os.PathLike[str]) -> list[Path]:
    """The checkpoints of a run's folder, newest first: last, previous, then the best by age."""
    root = Path(folder)
    best = [path for path in root.glob("best*.ckpt") if _BEST.fullmatch(path.name)]
    best.sort(key=lambda path: (-path.stat().st_mtime_ns, len(path.name), path.name))
    return [path for path in (root / _LAST, root / _PREVIOUS, *best) if path.is_file()]


def latest_run(ckpt_dir: str | os.PathLike[str]) -> Path | None:
    """The sub-folder of `ckpt_dir` with the newest checkpoint in it; ``None`` if none has one."""
    root = Path(ckpt_dir)
    runs = []
    for folder in root.iterdir() if root.is_dir() else ():
        times = [path.stat().st_mtime_ns for path in list_checkpoints(folder)]
        if times:
            runs.append((max(times), folder))
    return max(runs)[1] if runs else None


def read_checkpoint(path: str | os.PathLike[str]) -> tuple[Path, dict[str, Any]]:
    """Read a checkpoint file, or the newest whole one of a run's folder.

    A damaged one in a folder is passed over with a warning that names both.
    """
    source = Path(path)
    if not source.is_dir():
        return source, load(source)
    source, state, faults = CheckpointStore(source).newest_good()
    for fault in faults:
        warnings.warn(fault, UserWarning, stacklevel=3)
    return source, state
