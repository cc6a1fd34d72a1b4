"""SIGTERM and Ctrl-C during a fit: noted at once, obeyed at the next save point.

Handlers are put on in the main thread only, for the time of a fit, and never at
import. A second Ctrl-C stops at once.

::

    with StopSignals() as signals:
        ...                          # look at signals.received now and then
    signals.pass_on()                # exit 143, KeyboardInterrupt, or the user's own handler
"""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any

__all__ = ["StopSignals"]


class StopSignals:
    """Notes the first SIGTERM or SIGINT between ``__enter__`` and ``__exit__``.

    Attributes:
        received: the signal that came, or ``None``.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._outer: dict[signal.Signals, Any] = {}
        self._pid = os.getpid()

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                outer = signal.getsignal(number)
                # None: a handler from outside Python, which could not be put back.
                if outer is not None and outer is not signal.SIG_IGN:
                    self._outer[number] = outer
                    signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, outer in self._outer.items():
            signal.signal(number, outer)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:
            self._note_in_worker(number)
            return
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        if self.received is None:
            self.received = signal.Signals(number)

    def _note_in_worker(self, number: int) -> None:
        # A forked worker has these handlers too. The terminal sends Ctrl-C to it as well, and a
        # worker that dies of it would tear the mini-batch the main process is to save after.
        if number == signal.SIGTERM and self.received is not None:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.received = signal.Signals(number)

    def note(self, received: signal.Signals) -> None:
        """Take a signal that another process has received, unless there was one here."""
        self.received = self.received or received

    def pass_on(self) -> None:
        """Do now what the signal would have done without this.

        Raises:
            SystemExit: with code 143, after SIGTERM.
            KeyboardInterrupt: after SIGINT.
        """
        if self.received is None:
            return
        if callable(self._outer.get(self.received)):
            signal.raise_signal(self.received)
        elif self.received is signal.SIGTERM:
            raise SystemExit(128 + signal.SIGTERM)
        else:
            raise KeyboardInterrupt
