"""Replaces a file in one step: at every instant either the old or the new one is there, whole.

The new content is written to a temporary file, which is then renamed. It is in the same folder,
because a rename to another file system is a copy. The next write removes the temporary files
of processes that were killed.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

_NAME = re.compile(r"\.deepepochs-(?P<pid>\d+)-(?P<host>.*)-[0-9a-f]{8}\.tmp")
_FOREIGN_AGE_S = 3600.0

# The temporary files that this process is writing. Others with its id are leftovers of an
# earlier process with the same id: in containers the id is often 1.
_active: set[str] = set()


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yield the path of a temporary file; after the block it replaces `target`.

    The folder of `target` is made if it is missing. After any exception the temporary file is
    removed, and `target` is as it was. The content is not forced to the disk: a power cut can
    lose it.
    """
    folder = target.parent
    folder.mkdir(parents=True, exist_ok=True)
    _sweep(folder)
    temporary = _temporary(folder)
    _active.add(temporary.name)
    try:
        yield temporary
        temporary.replace(target)
    finally:
        _active.discard(temporary.name)
        # A rename leaves it there if both names are links to one file.
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(target: Path, text: str) -> None:
    """Replace `target` by a text, in UTF-8."""
    with replacing(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def staged(
    target: Path, before_rename: Callable[[Path], object] | None = None
) -> Iterator[BinaryIO]:
    """Yield an open file that replaces `target` as :func:`replacing` does, forced to the disk.

    `before_rename` is called with the temporary file's path when its content is on disk.
    """
    with replacing(target) as temporary:
        with temporary.open("x+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if before_rename is not None:
            before_rename(temporary)
    _sync_folder(target.parent)


def duplicate(source: Path, target: Path) -> None:
    """Make `target` a hard link to `source`, in one step; a copy where there are no links.

    A link serves as well as a copy, because files are replaced and never changed in place.
    """
    with replacing(target) as temporary:
        try:
            os.link(source, temporary)
        except OSError:  # a file system without hard links
            shutil.copyfile(source, temporary)
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())


def leftovers(folder: Path) -> list[Path]:
    """The temporary files in `folder`, also those in use."""
    return [path for path in folder.glob(".deepepochs-*.tmp") if _NAME.fullmatch(path.name)]


def is_alive(pid: int) -> bool:
    """Whether a process of this machine lives; on Windows, where this is unknown, ``True``."""
    if sys.platform == "win32":  # os.kill would end it
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        pass  # it may be another user's
    return True


def _temporary(folder: Path) -> Path:
    return folder / f".deepepochs-{os.getpid()}-{_host()}-{os.urandom(4).hex()}.tmp"


def _host() -> str:
    return re.sub(r"[^\w]", "_", socket.gethostname())[:32]


def _sweep(folder: Path) -> None:
    """Remove the temporary files of dead processes."""
    for path in leftovers(folder):
        with contextlib.suppress(OSError):
            if not _is_in_use(path):
                path.unlink()


def _is_in_use(path: Path) -> bool:
    match = _NAME.fullmatch(path.name)
    if match is None or match["host"] != _host():
        # From another machine on a shared disk, where a live write changes its file often.
        return time.time() - path.stat().st_mtime < _FOREIGN_AGE_S
    if int(match["pid"]) == os.getpid():
        return path.name in _active
    # Windows refuses to remove a file that is in use, so the attempt is safe.
    return sys.platform != "win32" and is_alive(int(match["pid"]))


def _sync_folder(folder: Path) -> None:
    """Force the folder's entries to the disk: else a power cut can undo the rename."""
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems cannot
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
