"""Locks the folder of a run, so that a second process cannot write to it.

It is a lock of the operating system on an open file. It ends with the process, however the
process dies, so no stale lock can stay behind.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import sys
import time
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from ..errors import CheckpointError, RunLockedError, warn_user
from ..files.atomic import is_alive, write_text

_LOCK_NAME, _HOLDER_NAME = ".run.lock", ".run.holder.json"
_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)


class RunLock:
    """The lock of a run's folder, for one trainer of one process.

    A second lock is refused, also in the same process. A forked worker does not hold it. The
    same object may acquire it several times, for nested fits of one trainer; it is free after
    as many releases.

    The file ``.run.lock`` stays in the folder: without it, two processes could lock two files
    of this name. ``.run.holder.json`` says who holds the lock.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self._lock = _file_lock(self.folder)

    @property
    def held(self) -> bool:
        """Whether this object has the lock."""
        return self._lock.is_locked

    def acquire(self) -> None:
        """Take the lock; do not wait for it.

        Raises:
            RunLockedError: a live process has it; the message says which, and since when.
            CheckpointError: the lock file cannot be opened.
        """
        if self.held:
            self._lock.acquire()
            return
        self._lock = _file_lock(self.folder)  # one from before a fork cannot be used
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
            holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": int(time.time())}
            write_text(self.folder / _HOLDER_NAME, json.dumps(holder))
        except Timeout:
            raise RunLockedError(self._refusal()) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise CheckpointError(
                    f"cannot lock the run in {self.folder}: {error.strerror or error}"
                ) from error
            warn_user(
                f"the file system of {self.folder} has no locks ({error.strerror}): "
                "a second process with this running_id is not refused",
                RuntimeWarning,
            )
            return
        _held.add(self._lock)

    def release(self) -> None:
        """Release the lock; does nothing if it is not held."""
        if self.held and self._lock.lock_counter == 1:
            _held.discard(self._lock)
            with contextlib.suppress(OSError):
                (self.folder / _HOLDER_NAME).unlink()
        self._lock.release()

    def move(self, target: Path) -> None:
        """Rename the folder, and release the lock; a failure is an ``OSError``."""
        if sys.platform == "win32":  # a folder with an open file cannot be renamed
            self.release()
        self.folder.rename(target)
        self.folder = target
        self.release()

    def __enter__(self) -> RunLock:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _refusal(self) -> str:
        who = "another process"  # which may not have written its name yet
        holder = _read_holder(self.folder)
        if holder is not None:
            pid, host, since = holder
            own = pid == os.getpid() and host == socket.gethostname()
            who = f"this very process (pid {pid})" if own else f"process {pid} on {host}"
            who += time.strftime(" since %Y-%m-%d %H:%M:%S", time.localtime(since))
        return (
            f"the run in {self.folder} is in use by {who}: "
            "wait for it, stop it, or give another running_id"
        )


def is_locked(folder: str | os.PathLike[str]) -> bool:
    """Whether a living process holds the lock of a run's folder.

    The test takes the lock for an instant. It does so only if the holder that is named may
    live, so that a run that begins at this instant is not refused.
    """
    root = Path(folder)
    holder = _read_holder(root)
    if holder is None or (holder[1] == socket.gethostname() and not is_alive(holder[0])):
        return False
    try:
        with _file_lock(root):
            return False
    except Timeout:
        return True
    except OSError:
        return False


# A lock is released when it is collected, so that it must be kept until the process ends.
_held: set[BaseFileLock] = set()


def _read_holder(folder: Path) -> tuple[int, str, int] | None:
    """Process id, host and start time of the holder that the folder names, if it names one."""
    try:
        holder = json.loads((folder / _HOLDER_NAME).read_bytes())
        return int(holder["pid"]), str(holder["host"]), int(holder["since"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _file_lock(folder: Path) -> BaseFileLock:
    """A lock that does not wait, and that any thread may release."""
    return FileLock(folder / _LOCK_NAME, timeout=0, thread_local=False, fallback_to_soft=False)
