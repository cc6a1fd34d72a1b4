"""Replace a file so that at every instant the old one or the new one is there, whole.

The new content goes to a temporary file in the same folder (a rename across file systems is
a copy, hence not ``TMPDIR``), which is then renamed. What a killed process leaves behind is
recognised by its name and removed by the next write.

>>> import tempfile
>>> from pathlib import Path
>>> from deepepochs.files.atomic import write_text
>>> target = Path(tempfile.mkdtemp()) / "page.html"
>>> write_text(target, "whole")
>>> target.read_text()
'whole'
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

__all__ = ["duplicate", "is_alive", "leftovers", "replacing", "staged", "write_text"]

_NAME = re.compile(r"\.deepepochs-(?P<pid>\d+)-(?P<host>.*)-[0-9a-f]{8}\.tmp")
_FOREIGN_AGE_S = 3600.0

# The temporary files this process is writing now: all others that bear its id are leftovers,
# be it of an earlier process that had the same (in containers the id is often 1 each time).
_active: set[str] = set()


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Give the path of a temporary file to write; after the block it takes the place of `target`.

    The content is not forced to the disk: only a power cut could tell.

    Args:
        target: the file to be replaced. Its folder is made if it is not there.

    Yields:
        The path. After an exception, of whatever kind, the temporary file is removed, and
        `target` is as it was.
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
        # It is still there after a rename, too, if both names were links to one file already.
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(target: Path, text: str) -> None:
    """Replace `target` by a text in UTF-8."""
    with replacing(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def staged(
    target: Path, before_rename: Callable[[Path], object] | None = None
) -> Iterator[BinaryIO]:
    """As :func:`replacing`, with an open file, which is forced to the disk before it is renamed.

    Args:
        target: the file to be replaced. Its folder is made if it is not there.
        before_rename: is given the temporary file's path when all of it is on disk.

    Yields:
        The file, open for writing and reading.

    Raises:
        OSError: no space, no permission, or another fault of the file system.
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
    """Give `source` a second name, `target`, in one step: a hard link, or else a copy.

    Files that are only ever replaced are never changed in place, so two names of one file are
    as good as two files.
    """
    with replacing(target) as temporary:
        try:
            os.link(source, temporary)
        except OSError:  # a file system without hard links
            shutil.copyfile(source, temporary)
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())


def leftovers(folder: Path) -> list[Path]:
    """The temporary files in `folder`, those in use among them."""
    return [path for path in folder.glob(".deepepochs-*.tmp") if _NAME.fullmatch(path.name)]


def is_alive(pid: int) -> bool:
    """Whether a process of this machine lives, as far as can be told: on Windows always true."""
    if sys.platform == "win32":  # os.kill would end it
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _temporary(folder: Path) -> Path:
    return folder / f".deepepochs-{os.getpid()}-{_host()}-{os.urandom(4).hex()}.tmp"


def _host() -> str:
    return re.sub(r"[^\w]", "_", socket.gethostname())[:32]


def _sweep(folder: Path) -> None:
    """Remove what dead processes have left."""
    for path in leftovers(folder):
        with contextlib.suppress(OSError):
            if not _is_in_use(path):
                path.unlink()


def _is_in_use(path: Path) -> bool:
    match = _NAME.fullmatch(path.name)
    if match is None or match["host"] != _host():
        # Of another machine on a shared disk: a live write changes its file all the time.
        return time.time() - path.stat().st_mtime < _FOREIGN_AGE_S
    if int(match["pid"]) == os.getpid():
        return path.name in _active
    # Windows does not remove a file that is in use, so that trying is safe there.
    return sys.platform != "win32" and is_alive(int(match["pid"]))


def _sync_folder(folder: Path) -> None:
    """Force the folder's entries to the disk: without it a power cut can undo the rename."""
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems cannot
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
