"""Where a trainer may save or stop: after a mini-batch and after an epoch.

::

    trainer.request_save(save)       # called once, at the next save point
    trainer.stop("enough")           # the fit ends there
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..errors import StopLoopException
from ..run import Run
from ..runtime.base import Runtime
from ..stages import Stage
from ..steps import Steps
from .plan import FitPlan
from .signals import StopSignals

if TYPE_CHECKING:
    from ..trainer import TrainerBase

__all__ = ["SavePoints", "Saver"]

Saver = Callable[["TrainerBase"], None]


class SavePoints(Steps):
    """The part of a trainer that saves or stops where that was asked."""

    runtime: Runtime
    stop_reason: str | None
    _plan: FitPlan | None
    _is_acting: bool
    _is_nested: bool
    _signals: StopSignals
    _savers: list[Saver]
    _requests: list[Saver]

    @property
    def _trainer(self) -> TrainerBase:
        raise NotImplementedError

    def stop(self, reason: str = "") -> None:
        """End the fit or test at the next mini-batch; epochs that are done stay done."""
        if not self._is_acting:
            warnings.warn(
                "stop() was called while nothing runs, and does nothing: call it in a hook or a "
                "step of a fit or test.",
                UserWarning,
                stacklevel=2,
            )
            return
        self.stop_reason = reason or "stopped"

    def add_saver(self, saver: Saver) -> None:
        """Have ``saver(trainer)`` called where a fit is stopped before its end."""
        self._savers.append(saver)

    def request_save(self, saver: Saver) -> None:
        """Have ``saver(trainer)`` called at the next save point.

        Save points are after a mini-batch of training or validation and after an epoch,
        when all ``after_`` hooks have run: only there is the state whole.
        """
        self._requests.append(saver)

    def at_save_point(self, run: Run | None) -> None:
        """Save if asked, then stop if asked; a pass on its last mini-batch is ended properly.

        Raises:
            StopLoopException: the trainer was asked to stop.
        """
        if self._is_nested:
            # Signals and saves wait for a save point of the fit around this test.
            if self.stop_reason is not None and not (run is not None and run.is_last):
                raise StopLoopException(self.stop_reason)
            return
        asks: Any = self._requests or self.stop_reason or self._signals.received
        if run is None or run.is_shared:
            asks = self.runtime.any(bool(asks))
        if asks:
            self._save_and_stop(run)

    def _save_and_stop(self, run: Run | None) -> None:
        if self._signals.received is not None and self.stop_reason is None:
            self.stop(f"{self._signals.received.name} received")
        if self.runtime.num_processes > 1:
            self._agree_to_stop()
        stops = self.stop_reason is not None and not (run is not None and run.is_last)
        if self._plan is not None and Stage.TRAIN in self._plan.tasks:
            # Not in a test, which may be one inside a mini-batch of a fit.
            savers, self._requests = self._requests, []
            for saver in dict.fromkeys([*savers, *self._savers] if stops else savers):
                saver(self._trainer)
        if stops:
            raise StopLoopException(self.stop_reason)

    def _agree_to_stop(self) -> None:
        """Do in all processes what one was asked: stop, for its reason, or save."""
        own = (self.stop_reason, self._signals.received, bool(self._requests))
        asked = self.runtime.gather_objects(own)
        reasons = [reason for reason, _, _ in asked if reason is not None]
        signals = [received for _, received, _ in asked if received is not None]
        if reasons:
            self.stop_reason = reasons[0]
        if signals and self._signals.received is None:
            self._signals.received = signals[0]
        if any(requested for _, _, requested in asked):
            self._requests = list(dict.fromkeys([*self._requests, *self._savers]))
