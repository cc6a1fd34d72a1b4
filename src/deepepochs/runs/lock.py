"""The lock that keeps a second process out of a run's folder.

It is the operating system's, held by an open file: when the process dies, in whatever way,
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
import time
import warnings
from pathlib import Path
from types import TracebackType

from filelock import BaseFileLock, FileLock, Timeout

from ..errors import CheckpointError, RunLockedError
from ..files.atomic import is_alive, write_text

__all__ = ["RunLock", "is_locked"]

_LOCK_NAME, _HOLDER_NAME = ".run.lock", ".run.holder.json"
_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)


class RunLock:
    """Holds a run's folder for one trainer of one living process.

    A second one, be it of another process or of this one, is refused. The lock ends with
    :meth:`release`, with the ``with`` block, and with the process, however it dies; worker
    processes that were forked meanwhile do not hold it. Acquiring what this very object
    holds counts, so that nested fits of one trainer work: it is free when as many releases
    have followed.

    The file ``.run.lock`` in the folder stays: to remove it would let two processes lock
    two files of that name. Beside it, ``.run.holder.json`` says who holds it.

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
        self._lock = _file_lock(self.folder)

    @property
    def held(self) -> bool:
        """Whether this object has the lock."""
        return self._lock.is_locked

    def acquire(self) -> None:
        """Take the lock; do not wait for it.

        Raises:
            RunLockedError: another live process has it; says which, and since when.
            CheckpointError: the lock file cannot be opened.
        """
        if self.held:
            self._lock.acquire()
            return
        self._lock = _file_lock(self.folder)  # in the child of a fork, its parent's is of no use
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
            warnings.warn(
                f"the file system of {self.folder} has no locks ({error.strerror}): "
                "nothing keeps a second process with this running_id away",
                RuntimeWarning,
                stacklevel=3,
            )
            return
        _held.add(self._lock)

    def release(self) -> None:
        """Give the lock back; does nothing if it is not held."""
        if self.held and self._lock.lock_counter == 1:
            _held.discard(self._lock)
            with contextlib.suppress(OSError):
                (self.folder / _HOLDER_NAME).unlink()
        self._lock.release()

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

    def _refusal(self) -> str:
        who = "another process"
        try:
            holder = json.loads((self.folder / _HOLDER_NAME).read_bytes())
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
    """Whether a living process holds the lock of a run's folder.

    To look is to take the lock for an instant. That is done only where a holder is named who
    may live: a run that is about to begin is not refused because of it.
    """
    root = Path(folder)
    try:
        holder = json.loads((root / _HOLDER_NAME).read_bytes())
        if holder["host"] == socket.gethostname() and not is_alive(int(holder["pid"])):
            return False
        with _file_lock(root):
            return False
    except Timeout:
        return True
    except (OSError, ValueError, KeyError, TypeError):
        return False  # released, or never taken


# A lock that is collected is freed, and this one ends with the process.
_held: set[BaseFileLock] = set()


def _file_lock(folder: Path) -> BaseFileLock:
    """A lock that is taken at once or not at all, in whatever thread."""
    return FileLock(folder / _LOCK_NAME, timeout=0, thread_local=False, fallback_to_soft=False)
