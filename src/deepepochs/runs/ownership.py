"""Which folders belong to the run of a trainer. A folder belongs to one run.

::

    folders = RunFolders()
    running_id, said = folders.enter([Path("logs").absolute()], "mine")
    # logs/mine is free for this run: an earlier run in it is in logs/mine.1 now
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..errors import CheckpointError
from .folder import run_folder
from .lock import RunLock, is_locked
from .record import is_run

Identity = tuple[int, int]
"""Device and number of a folder: they stay when it is renamed."""

# The folders of runs that trainers of this process have written to.
_used_here: set[Path] = set()


class RunFolders:
    """The folders that one trainer's run has written to.

    Attributes:
        start: the working folder when the trainer was made: relative paths start there.
    """

    def __init__(self) -> None:
        self.start = Path.cwd()
        self._own: dict[Path, Identity | None] = {}
        self._continued: str | None = None

    def continue_run(self, running_id: str) -> None:
        """Note that the trainer has loaded a state of a run, whose folders become its own."""
        self._continued = running_id

    def enter(
        self, parents: Sequence[Path], running_id: str, *, is_given: bool = True
    ) -> tuple[str, list[str]]:
        """Take the folders of this run, before it writes to them.

        If an earlier run has them: with an id that the script has given, they are moved aside; an id
        that the library has made gets a number.

        Args:
            parents: the folders of runs that the callbacks write to.
            running_id: the id of this run.
            is_given: whether the script has given it.

        Returns:
            The id of this run, and sentences that say what has changed.

        Raises:
            CheckpointError: a folder cannot be moved.
            RunLockedError: the earlier run still runs.
        """
        running_id, said = self._find_again(parents, running_id)
        if running_id != self._continued and not is_given:
            wanted, running_id = running_id, self._free_id(parents, running_id)
            if wanted != running_id:
                said.append(f"running ID {wanted} belongs to another run: this run is {running_id}")
        folders = [run_folder(parent, running_id) for parent in parents]
        if running_id != self._continued and is_given:
            foreign = [f for f in folders if f not in self._own and is_run(f)]
            said += move_aside(foreign, free_number(folders))
        for folder in folders:
            use_here(folder.parent)
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError:  # writing to it will raise the error
                continue
            self._own[folder] = identity(folder)
        return running_id, said

    def _free_id(self, parents: Sequence[Path], running_id: str) -> str:
        """The id, or the first of ``<id>-2``, ``<id>-3``, … whose folders no other run has."""
        name = running_id
        for number in itertools.count(2):
            folders = [run_folder(parent, name) for parent in parents]
            if all(folder in self._own or make_free(folder) for folder in folders):
                break
            name = f"{running_id}-{number}"
        return name

    def follow(self, parents: Sequence[Path], running_id: str) -> tuple[str, list[str]]:
        """Find the folders of this run again, if another run has moved them aside.

        Those that no run has used become its own: a test may write to them before a fit.

        Returns:
            The id that they have now, and sentences that say what has changed.

        Raises:
            CheckpointError: another run is where they were, and they are not found.
        """
        running_id, said = self._find_again(parents, running_id)
        for parent in parents:
            self.use(run_folder(parent, running_id))
        return running_id, said

    def use(self, folder: Path) -> None:
        """Note that this run writes to a folder. A folder of an earlier run is not noted."""
        if folder not in self._own and not is_run(folder):
            self._own[folder] = None

    def _find_again(self, parents: Sequence[Path], running_id: str) -> tuple[str, list[str]]:
        for folder in (run_folder(parent, running_id) for parent in parents):
            own, now = self._own.get(folder), identity(folder)
            if own is None or now is None or own == now:
                continue
            found = [path for path, _ in numbered(folder) if identity(path) == own]
            if not found:
                raise CheckpointError(
                    f"{folder} belongs to another run now, and this run's folder is gone: "
                    "give this trainer another running_id"
                )
            for parent in parents:
                path = run_folder(parent, found[0].name)
                self._own[path] = identity(path)
            return found[0].name, [
                f"running ID {running_id} belongs to a later run: this run is {found[0]} now"
            ]
        return running_id, []


def make_free(folder: Path) -> bool:
    """Make a folder, if no run has it; return whether none has it."""
    try:
        folder.mkdir(parents=True)
    except FileExistsError:  # the script may have put something there
        return not is_run(folder) and not is_locked(folder)
    except OSError:  # writing to it will raise the error
        return True
    return True


def use_here(parent: Path) -> bool:
    """Note that this process has a run in a folder of runs; return whether it had one before."""
    used = parent in _used_here
    _used_here.add(parent)
    return used


def identity(folder: Path) -> Identity | None:
    """Return what stays of a folder when it is renamed; ``None`` if there is no such folder."""
    try:
        found = folder.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def numbered(folder: Path) -> list[tuple[Path, int]]:
    """List the folders of earlier runs of one id, ``<folder>.1``, ``<folder>.2``, …"""
    prefix = f"{folder.name}."
    if not folder.parent.is_dir():
        return []
    names = [path for path in folder.parent.iterdir() if path.name.startswith(prefix)]
    ends = [(path, path.name.removeprefix(prefix)) for path in names]
    return [(path, int(end)) for path, end in ends if end.isascii() and end.isdigit()]


def free_number(folders: Iterable[Path]) -> int:
    """Return the first number after those of all earlier runs."""
    return 1 + max((number for folder in folders for _, number in numbered(folder)), default=0)


def move_aside(folders: Iterable[Path], number: int) -> list[str]:
    """Rename folders to ``<folder>.<number>``, and return a sentence for each."""
    said = []
    for folder in folders:
        target = folder.with_name(f"{folder.name}.{number}")
        lock = RunLock(folder)
        lock.acquire()
        try:
            if not is_run(folder):  # another process has moved it meanwhile
                continue
            lock.move(target)
        except OSError as error:
            raise CheckpointError(
                f"{folder} holds an earlier run, and cannot be moved to {target.name}: "
                f"{error.strerror or error}. Give another running_id."
            ) from error
        finally:
            lock.release()
        said.append(f"running ID {folder.name} had an earlier run: its folder is {target} now")
    return said
