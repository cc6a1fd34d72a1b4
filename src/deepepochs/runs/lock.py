"""The lock that keeps a second process out of a run's folder.

It is the operating system's, held by the open file: when the process dies, in whatever way,
the run is free at once, and no stale file has to be judged.

>>> import tempfile
>>> from deepepochs.runs.lock import RunLock
>>> folder = tempfile.mkdtemp()
>>> with RunLock(folder):
...     RunLock(folder).acquire()  # doctest: +ELLIPSIS
Traceback (most recent call last):
deepepochs.errors.RunLockedError: the run in ... is in use by this very process ...
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import sys
import time
import warnings
import weakref
from pathlib import Path
from types import TracebackType

from ..atomic import is_alive
from ..errors import CheckpointError, RunLockedError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

__all__ = ["RunLock", "is_locked"]

_LOCK_NAME = ".run.lock"
_BUSY = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)


class RunLock:
    """Holds a run's folder for one trainer of one living process.

    A second one, be it of another process or of this one, is refused. The lock ends with
    :meth:`release`, with the ``with`` block, and with the process, however it dies; worker
    processes that were forked meanwhile do not hold it. Acquiring what this very object
    holds counts, so that nested fits of one trainer work: it is free when as many releases
    have followed.

    The file ``.run.lock`` in the folder stays: to remove it would let two processes lock
    two files of that name.

    Args:
        folder: the run's folder; made by :meth:`acquire` if it is not there.

    Example:
        >>> import tempfile
        >>> with RunLock(tempfile.mkdtemp()) as lock:
        ...     lock.held
        True
        >>> lock.held
        False
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self._descriptor: int | None = None
        self._depth = 0

    @property
    def held(self) -> bool:
        """Whether this object has the lock."""
        return self._depth > 0

    def acquire(self) -> None:
        """Take the lock; do not wait for it.

        Raises:
            RunLockedError: another live process has it; says which, and since when.
            CheckpointError: the lock file cannot be opened.
        """
        if not self._depth:
            path = self.folder / _LOCK_NAME
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | _NO_INHERIT, 0o666)
            except OSError as error:
                raise CheckpointError(
                    f"cannot lock the run in {self.folder}: {error.strerror or error}"
                ) from error
            try:
                self._take(descriptor)
            except BaseException:
                os.close(descriptor)
                raise
            self._descriptor = descriptor
            _held.add(self)
        self._depth += 1

    def release(self) -> None:
        """Give the lock back; does nothing if it is not held."""
        self._depth = max(self._depth - 1, 0)
        if not self._depth and self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            _held.discard(self)
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, 0)
            os.close(descriptor)

    def __enter__(self) -> RunLock:
        self.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()

    def _take(self, descriptor: int) -> None:
        try:
            _lock(descriptor)
        except OSError as error:
            if error.errno in _BUSY:
                raise RunLockedError(self._refusal()) from None
            warnings.warn(
                f"the file system of {self.folder} has no locks ({error.strerror}): "
                "nothing keeps a second process with this running_id away",
                RuntimeWarning,
                stacklevel=4,
            )
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": int(time.time())}
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, json.dumps(holder).encode())

    def _refusal(self) -> str:
        who = "another process"
        try:
            holder = json.loads((self.folder / _LOCK_NAME).read_bytes())
            pid, host, since = int(holder["pid"]), str(holder["host"]), int(holder["since"])
        except (OSError, ValueError, KeyError, TypeError):
            pass  # it has not written who it is yet
        else:
            own = pid == os.getpid() and host == socket.gethostname()
            when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(since))
            who = f"this very process (pid {pid})" if own else f"process {pid} on {host}"
            who += f" since {when}"
        return (
            f"the run in {self.folder} is in use by {who}: "
            "wait for it, stop it, or give another running_id"
        )


def is_locked(folder: str | os.PathLike[str]) -> bool:
    """Whether a living process holds the lock of a run's folder; nothing is written.

    To look is to take the lock for an instant. That is done only where the file names a
    holder who may live: a run that is about to begin is not refused because of it.
    """
    path = Path(folder) / _LOCK_NAME
    try:
        holder = json.loads(path.read_bytes())
        if holder["host"] == socket.gethostname() and not is_alive(int(holder["pid"])):
            return False
        descriptor = os.open(path, os.O_RDWR | _NO_INHERIT)
    except (OSError, ValueError, KeyError, TypeError):
        return False  # released, or never taken
    try:
        _lock(descriptor)
    except OSError as error:
        return error.errno in _BUSY
    finally:
        os.close(descriptor)
    return False


# Not inherited by programs that are started meanwhile.
_NO_INHERIT = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOINHERIT", 0)
_held: weakref.WeakSet[RunLock] = weakref.WeakSet()


def _lock(descriptor: int) -> None:
    """Lock the open file, which lasts until its last descriptor is closed; never waits.

    Not POSIX record locks: these end when the process closes any descriptor of the file, be
    it after copying the folder.
    """
    if sys.platform == "win32":
        os.lseek(descriptor, 1 << 30, os.SEEK_SET)  # beyond the text, which others read
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _leave_to_parent() -> None:
    """In a forked child: close the lock's file, else the child would hold it after the parent."""
    for lock in list(_held):
        if lock._descriptor is not None:
            os.close(lock._descriptor)
        lock._descriptor, lock._depth = None, 0
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)
