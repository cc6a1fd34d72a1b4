"""Measures where the time of a fit goes: data, forward, backward, step, validation or other.

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

PARTS = ("data", "forward", "backward", "step", "validation", "other")


def _ends(part: str) -> Any:
    """Make a hook that is called where a part ends."""

    def hook(self: TimingCallback, **others: Any) -> None:
        self._end(part)

    return hook


class TimingCallback(Callback):
    """Measures the parts of a fit; the seconds are in ``trainer.history.timing``.

    The sum of the parts is the time of the fits. The parts are

    - ``'data'``: fetching a mini-batch, and moving it to the device;
    - ``'forward'``: the step up to the backward pass: model and loss;
    - ``'backward'``: the backward pass;
    - ``'step'``: the optimizer, its scheduler, and clearing the gradients;
    - ``'validation'``: all validation passes;
    - ``'other'``: metrics, other callbacks, printing, checkpoints, and tests during the fit.

    The callback does not synchronize with the device. On an accelerator the seconds are those
    of the host, which only queues the work. A long part is one in which the host waits, for
    data or for a value that is read from the device.

    Args:
        clock: a function that returns seconds; they must not decrease.

    Attributes:
        seconds: the seconds by part; the same dict as ``trainer.history.timing``.
    """

    # Outermost: the work of other callbacks after a mini-batch is not counted as data.
    order = -math.inf  # type: ignore[assignment]

    def __init__(self, clock: Function[[], float] = time.perf_counter) -> None:
        super().__init__()
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self._clock = clock
        self._since = 0.0

    def on_before_fit(self, trainer: TrainerView, **others: Any) -> None:
        trainer.history.timing.update(self.seconds)
        self.seconds = trainer.history.timing
        self._since = self._clock()

    def _end(self, part: str) -> None:
        """Add the time since the last call to a part."""
        now = self._clock()
        self.seconds[part] += now - self._since
        self._since = now

    on_before_train_epoch = _ends("other")
    on_before_train_batch = _ends("data")
    on_before_backward = _ends("forward")
    on_after_backward = _ends("backward")
    on_before_optimize = _ends("other")
    on_after_optimize = _ends("step")
    on_after_train_batch = _ends("other")
    on_after_train_epoch = _ends("other")
    on_before_val_epochs = _ends("other")
    on_after_val_epochs = _ends("validation")
    on_after_fit = _ends("other")
