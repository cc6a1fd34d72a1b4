"""Which checkpoint a run goes on from, and reading it.

::

    source, state = read_checkpoint("logs/mnist")
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..checkpoint.store import CheckpointStore, latest_run, load
from ..errors import CheckpointNotFound
from ..runs.folder import run_folder

if TYPE_CHECKING:
    from ..contracts import TrainerView

__all__ = ["find_checkpoint", "read_checkpoint"]


def find_checkpoint(trainer: TrainerView, ckpt_dir: Path) -> Path | None:
    """Say where the checkpoint is that a trainer's ``resume`` asks for.

    Args:
        trainer: the trainer.
        ckpt_dir: where the folders of runs are.

    Returns:
        A run's folder or a file; ``None``: there is none, and that may be so.

    Raises:
        CheckpointNotFound: a run that was asked for by name has no checkpoint.
    """
    asked = trainer.resume
    if asked is True or asked == "auto":
        own = run_folder(ckpt_dir, trainer.running_id)
        if trainer.has_own_id and (asked == "auto" or has_checkpoint(own)):
            return own if has_checkpoint(own) else None
        return latest_run(ckpt_dir)
    if isinstance(asked, str) and (os.sep in asked or "/" in asked or asked.endswith(".ckpt")):
        return Path(asked)
    folder = run_folder(ckpt_dir, asked)
    if not has_checkpoint(folder):
        runs = sorted(path.name for path in ckpt_dir.glob("*") if has_checkpoint(path))
        raise CheckpointNotFound(
            f"resume={asked!r}: there is no checkpoint in {folder}. Runs with one: "
            f"{', '.join(runs) or 'none'}."
        )
    return folder


def has_checkpoint(folder: Path) -> bool:
    """Whether a folder has the checkpoint of a run."""
    return folder.is_dir() and any(folder.glob("*.ckpt"))


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
