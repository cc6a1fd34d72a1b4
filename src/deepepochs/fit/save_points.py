"""Save points: where a call may save or stop, after a mini-batch and between passes.

::

    trainer.request_save(save)       # called once, at the next save point
    trainer.stop("enough")           # the fit ends there
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..contracts import TrainerView
from ..errors import StopLoopException
from ..run import Run
from .signals import StopSignals

__all__ = ["SavePoints", "Saver"]

Saver = Callable[[Any], None]


class SavePoints:
    """What was asked for at the next save point of a call: to save, or to stop.

    Args:
        trainer: what savers are called with.
        saves: whether this call saves: a fit.
        outer: those of the call around it. Inside another call signals and saves wait for a
            save point of that one, and only a stop is looked at.

    Attributes:
        stop_reason: why the call is to stop, or ``None``.
        signals: a signal that came.
    """

    def __init__(
        self, trainer: TrainerView, *, saves: bool = False, outer: SavePoints | None = None
    ) -> None:
        self.trainer = trainer
        self.outer = outer
        self.saves = saves
        self.signals = StopSignals()
        self.stop_reason: str | None = None
        self._savers: list[Saver] = []
        self._requests: list[Saver] = []

    @property
    def outermost(self) -> SavePoints:
        """Those of the outermost call, which saves if it is a fit."""
        return self if self.outer is None else self.outer.outermost

    def stop(self, reason: str) -> None:
        """End the call at its next save point."""
        self.stop_reason = reason or "stopped"

    def add_saver(self, saver: Saver) -> None:
        """Have ``saver(trainer)`` called where the call is stopped before its end."""
        self._savers.append(saver)

    def request(self, saver: Saver) -> None:
        """Have ``saver(trainer)`` called once, at the next save point."""
        self._requests.append(saver)

    def inherit(self, inner: SavePoints) -> None:
        """Stop, too, where a call inside this one was stopped."""
        self.stop_reason = self.stop_reason or inner.stop_reason

    def check(self, run: Run | None = None) -> None:
        """Save if asked, then stop if asked; a pass on its last mini-batch is ended properly.

        Raises:
            StopLoopException: the call was asked to stop.
        """
        asks: Any = self.stop_reason or self._requests or self.signals.received
        if self.outer is not None:
            asks = self.stop_reason
        elif run is None or run.rounds is not None:
            asks = self.trainer.runtime.any(bool(asks))
        if asks:
            self._save_and_stop(run)

    def _save_and_stop(self, run: Run | None) -> None:
        if self.outer is None:
            if self.signals.received is not None and self.stop_reason is None:
                self.stop(f"{self.signals.received.name} received")
            if self.trainer.runtime.num_processes > 1:
                self._agree()
        stops = self.stop_reason is not None and not (run is not None and run.is_last)
        if self.saves:
            savers, self._requests = self._requests, []
            for saver in dict.fromkeys([*savers, *self._savers] if stops else savers):
                saver(self.trainer)
        if stops:
            raise StopLoopException(self.stop_reason)

    def _agree(self) -> None:
        """Do in all processes what one was asked: stop, for its reason, or save."""
        own = (self.stop_reason, self.signals.received, bool(self._requests))
        asked = self.trainer.runtime.gather_objects(own)
        reasons = [reason for reason, _, _ in asked if reason is not None]
        signals = [received for _, received, _ in asked if received is not None]
        if reasons:
            self.stop_reason = reasons[0]
        if signals:
            self.signals.note(signals[0])
        if any(requested for _, _, requested in asked):
            self._requests = list(dict.fromkeys([*self._requests, *self._savers]))
