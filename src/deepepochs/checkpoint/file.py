"""Saves a state in one checkpoint file, and loads it without running code from the file.

A crash during a save leaves the old file as it was. A file is a ``torch.save`` archive of
``{'format', 'schema', 'state'}``, with a checksum from :mod:`~deepepochs.checkpoint.seal`.
``torch.load(path, weights_only=True)['state']`` reads it without this library.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import torch

from ..errors import (
    CheckpointDamaged,
    CheckpointError,
    CheckpointMismatch,
    CheckpointNotFound,
    MissingExtraError,
)
from ..files.atomic import staged
from ..nest.codec import from_plain, to_plain
from .seal import seal, verify
from .writer import settle

_FORMAT = "deepepochs"
_SCHEMA = 1
_PUSH_BYTES = 4 << 20


def save(path: str | os.PathLike[str], state: Mapping[str, Any]) -> None:
    """Write `state` to `path`. An old file there stays until the new one is whole and on disk.

    Args:
        path: the file. Its folder is made if it is missing.
        state: tensors, NumPy arrays and plain Python values in nested containers.

    Raises:
        CheckpointError: an entry cannot be saved (the message says which), the disk is full,
            there is no permission, or `path` is a folder.

    Example:
        >>> import tempfile
        >>> path = tempfile.mkdtemp() + "/x.ckpt"
        >>> save(path, {"epoch": 3})
        >>> load(path)
        {'epoch': 3}
    """
    write(Path(path), state)


def load(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a checkpoint, with its tensors on the CPU. No code in the file is run.

    Args:
        path: a file from :func:`save` or from release 0.6.

    Returns:
        The saved state. For a file of 0.6: ``{'format': '0.6', 'model': state, 'optimizers':
        [{'opt_state': state, 'sched_state': state or None}, ...], 'progress': {'epoch': int},
        'best_value': float or None}``, where `epoch` is the last finished one.

    Raises:
        CheckpointNotFound: there is no such file; the message lists the files there.
        CheckpointDamaged: the file is cut short, altered by a bit or more, or no checkpoint.
        CheckpointMismatch: it has a newer schema, or `path` is a folder.
    """
    source = Path(path)
    content, sealed = _open(source)
    return _interpret(content, sealed, source)


def read_weights(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a checkpoint, or a file of weights that others have written.

    Args:
        path: a file from :func:`save`, one from ``torch.save``, or a ``.safetensors`` file.

    Returns:
        The saved dict, with its tensors on the CPU.

    Raises:
        CheckpointNotFound: there is no such file; the message lists the files there.
        CheckpointDamaged: the file is cut short or altered, or holds more than weights.
        MissingExtraError: safetensors is not installed.
    """
    source = Path(path)
    if source.suffix == ".safetensors" and source.is_file():
        safetensors = _safetensors(source)
        try:
            return dict(safetensors.load_file(source))
        except Exception as error:  # its own class of errors, and those of the system
            raise CheckpointDamaged(f"{source} cannot be read: {error}") from error
    content, sealed = _open(source, may_be_old=True)
    is_own = isinstance(content, dict) and content.get("format") == _FORMAT
    if is_own or _is_of_0_6(content):
        return _interpret(content, sealed, source)
    if not isinstance(content, Mapping):
        raise CheckpointDamaged(
            f"{source} holds a {type(content).__name__}: give a file with a model's state_dict."
        )
    return dict(content)


def write_weights(path: str | os.PathLike[str], weights: Mapping[str, Any]) -> None:
    """Write a model's weights to a file that ``torch.load`` or safetensors reads.

    Args:
        path: the file; one that ends in ``.safetensors`` gets this format. Its folder is made if
            it is missing, and an old file stays until the new one is whole.
        weights: tensors by name.

    Raises:
        CheckpointError: an entry is no tensor, or the file cannot be written.
        MissingExtraError: safetensors is not installed.
    """
    target = Path(path)
    for name, value in weights.items():
        if not isinstance(value, torch.Tensor):
            raise CheckpointError(
                f"cannot save {target}: {name} is a {type(value).__name__}, and a file of weights "
                "holds tensors alone; trainer.state_dict() has everything"
            )
    if target.suffix == ".safetensors":
        safetensors = _safetensors(target)
        # Tied weights are two tensors there.
        own = {name: _alone(value).clone() for name, value in weights.items()}

        def put(file: BinaryIO) -> None:
            file.write(safetensors.save(own))
    else:
        plain = {name: _alone(value) for name, value in weights.items()}

        def put(file: BinaryIO) -> None:
            torch.save(plain, cast(IO[bytes], _EarlyWriter(file)))

    _stage(target, put)


def _alone(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor on the CPU, without the rest of a larger storage that it is a view of."""
    own = tensor.detach().cpu().contiguous()
    return own.clone() if own.untyped_storage().nbytes() > own.nbytes else own


def _safetensors(path: Path) -> Any:
    try:
        import safetensors.torch
    except ImportError as error:
        raise MissingExtraError(
            f"{path} needs the package safetensors: pip install safetensors"
        ) from error
    return safetensors.torch


def _open(source: Path, *, may_be_old: bool = False) -> tuple[Any, bool]:
    """Read a file of ``torch.save``; also say whether it has a seal.

    The old form of such a file, from before PyTorch 1.6, is a pickle and no archive.
    """
    settle()
    if source.is_dir():
        raise CheckpointMismatch(
            f"{source} is a folder, not a checkpoint file: release 0.6 and Accelerate's "
            "save_state write such folders; load it with accelerator.load_state"
        )
    try:
        with source.open("rb") as file:
            is_old = may_be_old and file.read(1) == b"\x80"
            sealed = not is_old and verify(file, source)
            file.seek(0)
            return _read(file, source), sealed
    except FileNotFoundError:
        raise CheckpointNotFound(not_found(source)) from None
    except OSError as error:
        raise CheckpointError(f"cannot read {source}: {error.strerror or error}") from error


def write(
    target: Path, state: Mapping[str, Any], before_rename: Callable[[Path], object] | None = None
) -> None:
    """Write `state` to `target`; `before_rename` as for :func:`~deepepochs.files.atomic.staged`."""
    content = {"format": _FORMAT, "schema": _SCHEMA, "state": to_plain(dict(state))}

    def put(file: BinaryIO) -> None:
        torch.save(content, cast(IO[bytes], _EarlyWriter(file)))
        seal(file)

    _stage(target, put, before_rename)


def _stage(
    target: Path,
    put: Callable[[BinaryIO], None],
    before_rename: Callable[[Path], object] | None = None,
) -> None:
    """Write a file by a function; the old one stays until the new one is whole."""
    settle()  # also since the option below is of the whole process
    if target.is_dir():
        raise CheckpointError(f"cannot save {target}: there is a folder of that name")
    crc = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(True)
    try:
        with staged(target, before_rename) as file:
            put(file)
    except (OSError, RuntimeError) as error:
        causes = _causes(error)
        for cause in causes:
            if not isinstance(cause, Exception):  # a Ctrl-C that torch's writer covered
                raise cause from None
        fault = next((cause for cause in causes if isinstance(cause, OSError)), error)
        kept = f"{target} is as it was" if target.exists() else "nothing was written"
        raise CheckpointError(f"cannot save {target}: {_reason(fault)}; {kept}") from error
    finally:
        torch.serialization.set_crc32_options(crc)


class _EarlyWriter:
    """Writes to a file, and has the system move each 4 MiB to the disk at once.

    The fsync at the end then takes half of the time at 48 MB.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._written = self._pushed = 0

    def write(self, content: bytes | memoryview) -> int:
        if self._file.closed:
            # After a Ctrl-C, torch's writer still writes the end of its archive when it is
            # collected, and an error there ends the process.
            return len(content)
        size = self._file.write(content)
        self._written += size
        waiting = self._written - self._pushed
        if waiting >= _PUSH_BYTES and hasattr(os, "posix_fadvise"):
            # Linux starts to write the dirty pages that this call says are not needed.
            os.posix_fadvise(self._file.fileno(), self._pushed, waiting, os.POSIX_FADV_DONTNEED)
            self._pushed = self._written
        return size

    def flush(self) -> None:
        if not self._file.closed:
            self._file.flush()


def _causes(error: BaseException | None) -> list[BaseException]:
    return [] if error is None else [error, *_causes(error.__cause__ or error.__context__)]


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError):
        full = error.errno == errno.ENOSPC
        hint = " (free some space, or give another folder)" if full else ""
        return f"{error.strerror or error}{hint}"
    return str(error).partition("\n")[0]


def _read(file: BinaryIO, source: Path) -> Any:
    try:
        return torch.load(file, map_location="cpu", weights_only=True, mmap=False)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # torch's reader raises nearly anything on odd content
        found = re.search(r"GLOBAL (\S+)", str(error))
        fault = _reason(error)
        if found:
            fault = f"it asks for {found[1]}. Of a model, save its state_dict()"
        raise CheckpointDamaged(
            f"{source} holds more than tensors and plain values, and was refused without "
            f"running anything in it: {fault}"
        ) from error


def _interpret(content: Any, sealed: bool, source: Path) -> dict[str, Any]:
    if isinstance(content, dict) and content.get("format") == _FORMAT:
        schema = content.get("schema")
        if isinstance(schema, int) and schema > _SCHEMA:
            raise CheckpointMismatch(
                f"{source} is of schema {schema}, and this release reads up to {_SCHEMA}: "
                "load it with the release that wrote it, or a later one"
            )
        state = content.get("state")
        if not sealed or not isinstance(state, dict):
            raise CheckpointDamaged(f"{source} is damaged: it lost its seal or its state")
        try:
            return dict(from_plain(state))
        except (ValueError, TypeError, RuntimeError) as error:
            raise CheckpointDamaged(f"{source} is damaged: {error}") from error
    if _is_of_0_6(content):
        return _from_0_6(content)
    held = f"the keys {list(content)[:8]}" if isinstance(content, dict) else type(content).__name__
    raise CheckpointDamaged(
        f"{source} is a torch file but no checkpoint of this library: it holds {held}. "
        "Weights alone are loaded with trainer.load_weights(path)"
    )


def _is_of_0_6(content: Any) -> bool:
    return isinstance(content, dict) and {"model_state", "opt_state"} <= content.keys()


def _from_0_6(content: dict[str, Any]) -> dict[str, Any]:
    optimizers = []
    entries = content["opt_state"]
    for entry in entries if isinstance(entries, list) else [entries]:
        is_whole = isinstance(entry, dict) and "opt_state" in entry
        saved = entry if is_whole else {"opt_state": entry}
        optimizers.append({name: saved.get(name) for name in ("opt_state", "sched_state")})
    best = content.get("best_value")
    return {
        "format": "0.6",
        "model": content["model_state"],
        "optimizers": optimizers,
        "progress": {"epoch": int(content.get("epoch") or 0)},
        "best_value": None if best is None else float(best),
    }


def not_found(path: Path) -> str:
    """The message for a missing file, with the files that are in its folder, or beside that."""
    text, folder = f"no checkpoint {path}", path.parent
    if not folder.is_dir():
        text, folder = f"{text}, and there is no folder {folder}", folder.parent
    if not folder.is_dir():
        return text
    names = sorted(found.name for found in folder.iterdir() if not found.name.startswith("."))
    return f"{text}: in {folder} there is {listed(names) or 'nothing'}"


def listed(names: Sequence[str]) -> str:
    """Return at most twelve names as a text."""
    return ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
