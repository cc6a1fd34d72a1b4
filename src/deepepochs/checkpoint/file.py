"""Write one state to one file so that a crash cannot harm it; read only what is whole and safe.

A file is a ``torch.save`` archive of ``{'format', 'schema', 'state'}``, sealed as
:mod:`~deepepochs.checkpoint.seal` says. ``torch.load(path, weights_only=True)['state']`` reads it
without this library.

>>> import tempfile, torch
>>> from deepepochs.checkpoint.file import load, save
>>> path = tempfile.mkdtemp() + "/x.ckpt"
>>> save(path, {"epoch": 1, "model": {"weight": torch.ones(2)}})
>>> load(path)
{'epoch': 1, 'model': {'weight': tensor([1., 1.])}}
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import torch

from ..errors import CheckpointDamaged, CheckpointError, CheckpointMismatch, CheckpointNotFound
from ..files.atomic import staged
from ..nest.codec import from_plain, to_plain
from .seal import seal, verify

__all__ = ["SCHEMA", "load", "not_found", "save", "write"]

_PUSH_BYTES = 4 << 20

SCHEMA = 1
"""The schema of the files written here; a file of a higher one is refused."""

_FORMAT = "deepepochs"


def save(path: str | os.PathLike[str], state: Mapping[str, Any]) -> None:
    """Write `state` to `path`; until it is whole and on disk, the file that was there stays.

    Args:
        path: the file. Its folder is made if it is not there.
        state: tensors, NumPy arrays and plain Python values in nested containers.

    Raises:
        CheckpointError: an entry that cannot be saved (the message says which), or a fault
            of the file system: disk full, no permission, `path` is a folder.

    Example:
        >>> import tempfile
        >>> path = tempfile.mkdtemp() + "/x.ckpt"
        >>> save(path, {"epoch": 3})
        >>> load(path)
        {'epoch': 3}
    """
    write(Path(path), state)


def load(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a checkpoint, its tensors to the CPU; nothing in the file is ever run.

    Args:
        path: a file of :func:`save`, or of release 0.6.

    Returns:
        What was saved. Of a file of 0.6: ``{'format': '0.6', 'model': state, 'optimizers':
        [{'opt_state': state, 'sched_state': state or None}, ...], 'progress': {'epoch': int},
        'best_value': float or None}``, `epoch` being the last one that was finished.

    Raises:
        CheckpointNotFound: there is no such file; the message lists what there is.
        CheckpointDamaged: cut short, altered by as much as a bit, or not a checkpoint.
        CheckpointMismatch: of a newer schema, or a folder written through Accelerate.
    """
    source = Path(path)
    if source.is_dir():
        raise CheckpointMismatch(
            f"{source} is a folder, not a checkpoint file: release 0.6 and Accelerate's "
            "save_state write such folders; load it with accelerator.load_state"
        )
    try:
        with source.open("rb") as file:
            sealed = verify(file, source)
            file.seek(0)
            content = _read(file, source)
    except FileNotFoundError:
        raise CheckpointNotFound(not_found(source)) from None
    except OSError as error:
        raise CheckpointError(f"cannot read {source}: {error.strerror or error}") from error
    return _interpret(content, sealed, source)


def write(
    target: Path, state: Mapping[str, Any], before_rename: Callable[[Path], object] | None = None
) -> None:
    """Write `state` to `target`; `before_rename` as for :func:`~deepepochs.files.atomic.staged`."""
    content = {"format": _FORMAT, "schema": SCHEMA, "state": to_plain(dict(state))}
    if target.is_dir():
        raise CheckpointError(f"cannot save {target}: there is a folder of that name")
    crc = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(True)
    try:
        with staged(target, before_rename) as file:
            torch.save(content, cast(IO[bytes], EarlyWriter(file)))
            seal(file)
    except (OSError, RuntimeError) as error:
        for cause in _causes(error):
            if not isinstance(cause, Exception):  # Ctrl-C, which torch's writer covered
                raise cause from None
        fault = _system_fault(error)
        kept = f"{target} is as it was" if target.exists() else "nothing was written"
        raise CheckpointError(f"cannot save {target}: {fault}; {kept}") from error
    finally:
        torch.serialization.set_crc32_options(crc)


class EarlyWriter:
    """Writes to `file` and has the system begin moving to the disk what is written so far.

    The disk then works while the rest is prepared, and the fsync at the end has little left
    to wait for: half of its time is saved at 48 MB.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._written = self._pushed = 0

    def write(self, content: bytes | memoryview) -> int:
        """Write all of `content`; return its size in bytes."""
        if self._file.closed:
            # torch's writer, dropped half-way by a Ctrl-C, still writes an end to its archive
            # when it is collected, and an error there ends the process.
            return len(content)
        size = self._file.write(content)
        self._written += size
        waiting = self._written - self._pushed
        if waiting >= _PUSH_BYTES and hasattr(os, "posix_fadvise"):
            # Linux starts the write-back of dirty pages that it is told are not needed.
            os.posix_fadvise(self._file.fileno(), self._pushed, waiting, os.POSIX_FADV_DONTNEED)
            self._pushed = self._written
        return size

    def flush(self) -> None:
        """Hand what is buffered to the system."""
        if not self._file.closed:
            self._file.flush()


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _system_fault(error: BaseException) -> str:
    """What the file system said, which torch's writer may cover with an error of its own."""
    for cause in _causes(error):
        if isinstance(cause, OSError):
            full = cause.errno == errno.ENOSPC
            hint = " (free some space, or give another folder)" if full else ""
            return f"{cause.strerror or cause}{hint}"
    return str(error).partition("\n")[0]


def _read(file: BinaryIO, source: Path) -> Any:
    try:
        return torch.load(file, map_location="cpu", weights_only=True, mmap=False)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # torch's reader raises nearly anything on odd content
        asked = re.search(r"GLOBAL (\S+)", str(error))
        fault = f"it asks for {asked[1]}" if asked else str(error).partition("\n")[0]
        raise CheckpointDamaged(
            f"{source} holds more than tensors and plain values, and was refused without "
            f"running anything in it: {fault}"
        ) from error


def _interpret(content: Any, sealed: bool, source: Path) -> dict[str, Any]:
    if isinstance(content, dict) and content.get("format") == _FORMAT:
        schema = content.get("schema")
        if isinstance(schema, int) and schema > SCHEMA:
            raise CheckpointMismatch(
                f"{source} is of schema {schema}, and this release reads up to {SCHEMA}: "
                "load it with the release that wrote it, or a later one"
            )
        state = content.get("state")
        if not sealed or not isinstance(state, dict):
            raise CheckpointDamaged(f"{source} is damaged: it lost its seal or its state")
        try:
            return dict(from_plain(state))
        except (ValueError, TypeError, RuntimeError) as error:
            raise CheckpointDamaged(f"{source} is damaged: {error}") from error
    if isinstance(content, dict) and {"model_state", "opt_state"} <= content.keys():
        return _from_0_6(content)
    held = f"the keys {list(content)[:8]}" if isinstance(content, dict) else type(content).__name__
    raise CheckpointDamaged(
        f"{source} is a torch file but no checkpoint of this library: it holds {held}"
    )


def _from_0_6(content: dict[str, Any]) -> dict[str, Any]:
    optimizers = []
    entries = content["opt_state"]
    for entry in entries if isinstance(entries, list) else [entries]:
        whole = isinstance(entry, dict) and "opt_state" in entry
        opt_state = entry["opt_state"] if whole else entry
        sched_state = entry.get("sched_state") if whole else None
        optimizers.append({"opt_state": opt_state, "sched_state": sched_state})
    best = content.get("best_value")
    return {
        "format": "0.6",
        "model": content["model_state"],
        "optimizers": optimizers,
        "progress": {"epoch": int(content.get("epoch") or 0)},
        "best_value": None if best is None else float(best),
    }


def not_found(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f"no checkpoint {path}: there is no folder {folder}"
    names = sorted(found.name for found in folder.iterdir() if not found.name.startswith("."))
    listed = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    return f"no checkpoint {path}: in {folder} there is {listed or 'nothing'}"
