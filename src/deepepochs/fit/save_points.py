"""Save points: where a call may save or stop, after a mini-batch and between passes.

::

    trainer.request_save(save)       # called once, at the next save point
    trainer.stop("enough")           # the fit ends there
"""

from __future__ import annotations

import os
import signal
import threading
from collections import defaultdict
from collections.abc import Callable
from contextlib import nullcontext
from types import FrameType
from typing import Any

from ..contracts import TrainerView
from ..errors import LoopException, StopLoopException
from ..run import Run
from ..runtime.rounds import Meetings
from ..stages import Stage

Saver = Callable[[Any], None]


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

    def pass_on(self) -> BaseException | None:
        """Do now what the signal would have done without this, or give what is to be raised."""
        handler = self._outer.get(self.received) if self.received is not None else None
        # Its frames would make the traceback of a Ctrl-C longer, and tell nothing.
        if callable(handler) and handler is not signal.default_int_handler:
            signal.raise_signal(self.received or signal.SIGINT)
        elif self.received is signal.SIGTERM:
            return SystemExit(128 + signal.SIGTERM)
        elif self.received is not None:
            return KeyboardInterrupt()
        return None


class SavePoints:
    """What is to be done at the next save point of a call: save, or stop.

    Inside another call only a stop counts: signals and saves wait for a save point of that one,
    ``outer``. A call ``saves`` if it is a fit.
    """

    def __init__(
        self, trainer: TrainerView, *, saves: bool = False, outer: SavePoints | None = None
    ) -> None:
        self.trainer = trainer
        self.outer = outer
        self.saves = saves
        self.signals = StopSignals()
        self.stop_reason: str | None = None
        self.validates = False  # before the stop
        self.has_part = False  # a pass of training was ended by the stop
        self._savers: list[Saver] = []
        self._finishers: list[Saver] = []
        self._requests: list[Saver] = []
        self._everywhere = False
        self.meetings: defaultdict[tuple[Stage, int], Meetings] = defaultdict(Meetings)

    @property
    def outermost(self) -> SavePoints:
        """Those of the outermost call, which saves if it is a fit."""
        return self if self.outer is None else self.outer.outermost

    def stop(self, reason: str, *, validate: bool = False, everywhere: bool = False) -> None:
        """End the call at its next save point, in a fit after a validation if that is asked.

        Of several reasons the first counts, and a validation that any of them asks for.
        ``everywhere`` says that all processes ask for it after the same mini-batch.
        """
        self._everywhere = self._everywhere or everywhere
        self.stop_reason = self.stop_reason or reason or "stopped"
        self.validates = self.validates or validate

    def stop_at_once(self, reason: str) -> None:
        """End the call at its next save point without a validation, as signals and Ctrl-C do."""
        self.stop(reason)
        self.validates = False

    def add_saver(self, saver: Saver, finish: Saver | None = None) -> None:
        """Have ``saver(trainer)`` called where the call is stopped, and ``finish`` at its end."""
        self._savers.append(saver)
        if finish is not None:
            self._finishers.append(finish)

    def finish(self) -> None:
        """Have the saves that are under way ended: there will be no more."""
        for finish in self._finishers:
            finish(self.trainer)

    def request(self, saver: Saver, *, everywhere: bool = False) -> None:
        """Have ``saver(trainer)`` called once, at the next save point.

        ``everywhere`` says that all processes ask for it after the same mini-batch: they need not
        agree on it, unless one of them may have a filler there, of which hooks are not told.
        """
        self._requests.append(saver)
        run = self.trainer.run
        if everywhere and (run is None or run.rounds is None or run.rounds.is_full()):
            self._everywhere = True

    def inherit(self, inner: SavePoints) -> None:
        """Stop, too, where a call inside this one was stopped."""
        self.stop_reason = self.stop_reason or inner.stop_reason
        self.validates = self.validates or inner.validates

    def is_over(self, run: Run | None = None) -> bool:
        """Whether a fit that resumes inside a pass has nothing left to do."""
        return False

    def save_requested(self) -> None:
        """Save what is asked for, in a fit that has stopped."""
        self.agree()
        savers, self._requests = self._requests, []
        for saver in dict.fromkeys(savers):
            saver(self.trainer)

    def check(self, run: Run | None = None, *, stage: Stage | None = None) -> bool:
        """Save if asked, then stop if asked; a pass on its last mini-batch is ended properly.

        Several processes agree on that between passes, and within one a few times a second.

        Args:
            run: the pass that runs.
            stage: between passes the stage that is about to begin, if there is one.

        Returns:
            Whether a pass of training ends here, as a part of an epoch that counts.

        Raises:
            StopLoopException: the call was asked to stop elsewhere.
        """
        stage = stage if run is None else run.stage
        # A stop that asked for a validation waits for the end of one.
        waits = self.validates and stage is Stage.VAL
        asks: Any = (not waits and self.stop_reason) or self._requests or self.signals.received
        if self.outer is not None:
            asks = self.stop_reason
        elif run is None:
            asks = self.trainer.runtime.any(bool(asks), "may save or stop")
        elif run.rounds is not None:
            asks = run.rounds.meet(bool(asks), "may save or stop", everywhere=self._everywhere)
        self._everywhere = False  # that was for this mini-batch
        return bool(asks) and self._save_and_stop(run, stage)

    def agree(self) -> None:
        """Have all processes know what one was asked to do, and do nothing of it yet."""
        asks = self.stop_reason or self._requests or self.signals.received
        if self.trainer.runtime.any(bool(asks), "may save or stop"):
            self._share_wishes()

    def _save_and_stop(self, run: Run | None, stage: Stage | None) -> bool:
        if self.outer is None:
            if self.signals.received is not None:
                self.stop_at_once(f"{self.signals.received.name} received")
            self._share_wishes()
        is_last = run is not None and run.batch_idx + 1 == run.num_batches
        waits = is_last or (self.validates and stage is Stage.VAL)
        stops = self.stop_reason is not None and not waits
        if self.saves:
            if stops and self.trainer.session is not None:
                self.trainer.session.keep_part()
            savers, self._requests = self._requests, []
            ema = self.trainer.ema
            with nullcontext() if ema is None else ema.applied():
                for saver in dict.fromkeys([*savers, *self._savers] if stops else savers):
                    saver(self.trainer)
        if stops and self.saves and run and run.is_training and self.signals.received is None:
            self.has_part = True
        elif stops:
            raise StopLoopException(self.stop_reason)
        return self.has_part

    def _share_wishes(self) -> None:
        """Have all processes stop for the reason of one, or save what it was asked to save.

        Raises:
            LoopException: the processes would not save the same.
        """
        if self.trainer.runtime.num_processes == 1:
            return
        requested = [i for i, saver in enumerate(self._savers) if saver in self._requests]
        others = [saver for saver in self._requests if saver not in self._savers]
        stop = self.stop_reason, self.validates
        own = stop, self.signals.received, requested, len(others), len(self._savers)
        stops, signals, known, num_others, num_savers = zip(
            *self.trainer.runtime.gather_objects(own, "saves or stops"), strict=True
        )
        self.stop_reason = next((reason for reason, _ in stops if reason), None)
        self.validates = any(validates for _, validates in stops)
        for received in filter(None, signals):
            self.signals.note(received)
        if len({*num_others}) > 1 or len({*num_savers}) > 1:
            raise LoopException(
                f"request_save() was called {num_others} times and add_saver() {num_savers} times in "
                "the processes, which must save together. A hook of a mini-batch is not called where "
                "one only fills up a round: set meets_fillers = True in the callback, or call "
                "add_saver() in on_before_fit, in all processes."
            )
        self._requests = [self._savers[i] for i in sorted({i for of in known for i in of})] + others
