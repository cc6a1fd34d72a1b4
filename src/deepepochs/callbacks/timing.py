"""Where the time of a fit goes: data, forward, backward, step, validation, and all the rest.

::

    trainer = Trainer(model, loss, opt, callbacks=TimingCallback())
    history = trainer.fit(train_dl, val_dl)
    history.timing          # {'data': 1.9, 'forward': 4.2, ...} in seconds
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable as Function
from typing import TYPE_CHECKING, Any

from .base import Callback

if TYPE_CHECKING:
    from ..contracts import TrainerView

__all__ = ["TimingCallback"]


class TimingCallback(Callback):
    """Measure the parts of a fit and keep their seconds in ``trainer.history.timing``.

    The parts leave no gap: their sum is the time of the fits. They are

    - ``'data'``: fetching a mini-batch, moving it and taking it apart;
    - ``'forward'``: the step up to the backward pass: model and loss;
    - ``'backward'``: the backward pass;
    - ``'step'``: the optimizer and its scheduler, and dropping the gradients;
    - ``'validation'``: all of the validation passes;
    - ``'other'``: metrics, other callbacks, printing, checkpoints, and tests in between.

    Nothing waits for the device. On an accelerator these are the times of the host, which
    hands out work and goes on: a long part is then one in which the host waits, for data
    or for a number that somebody reads. A trainer without this callback measures nothing.

    Args:
        clock: a function that gives seconds; they must not decrease.

    Attributes:
        seconds: the seconds by part; the very dict that is ``trainer.history.timing``.
    """

    # Outermost: what other callbacks do after a mini-batch is not counted as data.
    order = -math.inf  # type: ignore[assignment]

    def __init__(self, clock: Function[[], float] = time.perf_counter) -> None:
        super().__init__()
        self.seconds = dict.fromkeys(
            ("data", "forward", "backward", "step", "validation", "other"), 0.0
        )
        self._clock = clock
        self._since = 0.0

    def _end(self, part: str) -> None:
        """Give the time since the last end to a part."""
        now = self._clock()
        self.seconds[part] += now - self._since
        self._since = now

    def on_before_fit(self, trainer: TrainerView, **others: Any) -> None:
        """Start the clock."""
        trainer.history.timing.update(self.seconds)
        self.seconds = trainer.history.timing
        self._since = self._clock()

    def on_before_train_epoch(self, trainer: TrainerView, **others: Any) -> None:
        """Count the time before the pass as other."""
        self._end("other")

    def on_before_train_batch(self, trainer: TrainerView, **others: Any) -> None:
        """The mini-batch is there."""
        self._end("data")

    def on_before_backward(self, trainer: TrainerView, **others: Any) -> None:
        """The loss is there."""
        self._end("forward")

    def on_after_backward(self, trainer: TrainerView, **others: Any) -> None:
        """The gradients are there."""
        self._end("backward")

    def on_before_optimize(self, trainer: TrainerView, **others: Any) -> None:
        """What came between gradients and step is neither."""
        self._end("other")

    def on_after_optimize(self, trainer: TrainerView, **others: Any) -> None:
        """The step is done."""
        self._end("step")

    def on_after_train_batch(self, trainer: TrainerView, **others: Any) -> None:
        """Metrics are recorded and the other callbacks done."""
        self._end("other")

    def on_after_train_epoch(self, trainer: TrainerView, **others: Any) -> None:
        """The values of the pass are computed."""
        self._end("other")

    def on_before_val_epochs(self, trainer: TrainerView, **others: Any) -> None:
        """Validation begins."""
        self._end("other")

    def on_after_val_epochs(self, trainer: TrainerView, **others: Any) -> None:
        """Validation is done."""
        self._end("validation")

    def on_after_fit(self, trainer: TrainerView) -> None:
        """Take in the end."""
        self._end("other")
