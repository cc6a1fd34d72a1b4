"""Keeps a run going when a log or record cannot be written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import warn_user


class DiskFaults:
    """Warns of the first fault of the disk, and lets the run go on.

    ::

        faults = DiskFaults("the log")
        with faults.survived():
            file.write(text)

    Args:
        what: what is written, for the warning.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._has_warned = False

    @contextmanager
    def survived(self) -> Iterator[None]:
        """Warn of the first ``OSError`` in the block and continue."""
        try:
            yield
        except OSError as error:
            if self._has_warned:
                return
            self._has_warned = True
            warn_user(
                f"{self._what} cannot be written ({error.strerror or error}): the run goes on, and "
                "its values are in trainer.history.",
                RuntimeWarning,
            )
