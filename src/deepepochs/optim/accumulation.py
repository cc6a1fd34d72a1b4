"""Gradient accumulation: several mini-batches share one optimizer step.

The gradient of a window equals that of the mini-batches joined into one, whatever
their sizes: each loss is weighted by its number of samples against the first
mini-batch's, and the sum is brought back to a mean before the step.

>>> window = Window(2)
>>> window.open_batch(32, is_last=False); window.scale, window.closes
(1.0, False)
>>> window.open_batch(8, is_last=True); window.scale, window.closes, window.factor
(0.25, True, 0.8)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from .optimizer import Optimizer
from .optimizers import Optimizers

__all__ = ["NO_WINDOW", "AnyWindow", "Window"]

NO_WINDOW: dict[str, Any] = {"window": None, "by_hand": {"waiting": [], "count": 0}}
"""What a checkpoint keeps where every mini-batch has a step of its own."""


class AnyWindow(Protocol):
    """Mini-batches that share an optimizer step, whoever counts them.

    Attributes:
        size: mini-batches for one step.
        scale: what the loss of the present mini-batch is multiplied by.
        closes: the present mini-batch is the window's last.
    """

    size: int
    scale: float
    closes: bool

    def open_batch(self, weight: float, *, is_last: bool | None) -> None:
        """Take in the next mini-batch, of ``weight`` samples."""

    def mean_loss(self, loss: Any) -> Any:
        """Take the loss of the present mini-batch; give the mean over the window so far."""

    def waits(self, optimizers: Sequence[Optimizer], index: int | None) -> bool:
        """Whether a step is put off until further mini-batches have added their gradients."""

    def due(self, opt: Optimizers, *, at_end: bool, is_last: bool | None) -> list[int | None]:
        """The optimizer indexes whose steps were put off and are to be made now."""

    def state_dict(self) -> dict[str, Any]:
        """What is needed to go on inside a window."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on inside the window of a saved pass."""


class Window:
    """The mini-batches since the last optimizer step, of ``size`` at most.

    Args:
        size: mini-batches for one step.

    Attributes:
        scale: what the loss of the present mini-batch is multiplied by.
        factor: what the summed gradients are multiplied by before the step.
        closes: the present mini-batch is the window's last.
        waiting: optimizer indexes whose step waits for the end of the window.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.count = 0
        self.first = 0.0
        self.total = 0.0
        self.scale = 1.0
        self.closes = False
        self.waiting: list[int | None] = []
        self._weight = 0.0
        # Losses times weights: of the mini-batches before the present one, and of it.
        self._losses: Any = 0.0
        self._loss: Any = 0.0

    @property
    def factor(self) -> float:
        return self.first / self.total if self.total else 1.0

    def open_batch(self, weight: float, *, is_last: bool | None) -> None:
        """Take in the next mini-batch, of ``weight`` samples."""
        if self.closes:
            self.reset()
        if not self.total:  # an empty mini-batch has no gradient that others could be scaled to
            self.first = float(weight)
        self._losses, self._loss = self._losses + self._loss, 0.0
        self._weight = float(weight)
        self.count += 1
        self.total += weight
        self.scale = weight / self.first if weight else 0.0
        self.closes = self.count >= self.size or is_last is True

    def mean_loss(self, loss: Any) -> Any:
        """Take the loss of the present mini-batch; give the mean over the window so far."""
        self._loss = loss * self._weight if self._weight else 0.0
        return (self._losses + self._loss) / self.total if self.total else loss

    def waits(self, optimizers: Sequence[Optimizer], index: int | None) -> bool:
        """Whether a step is put off; where it is not, make sums of gradients those of the mean."""
        if not self.closes:
            if index not in self.waiting:
                self.waiting.append(index)
            return True
        if index in self.waiting:
            self.waiting.remove(index)
        if self.factor != 1.0:
            for gradient in {id(g): g for opt in optimizers for g in opt.gradients()}.values():
                gradient.mul_(self.factor)
        return False

    def due(self, opt: Optimizers, *, at_end: bool, is_last: bool | None) -> list[int | None]:
        """The optimizer indexes whose steps wait, where the window or the data end here."""
        if at_end and self.count:
            self.closes = True
        return list(self.waiting) if self.closes else []

    def reset(self) -> None:
        """Begin anew after a step."""
        self.count = 0
        self.total = 0.0
        self.closes = False
        self.waiting = []
        self._losses = self._loss = 0.0

    def state_dict(self) -> dict[str, Any]:
        """What is needed to go on inside a window."""
        window = {
            "size": self.size,
            "count": self.count,
            "first": self.first,
            "total": self.total,
            "closes": self.closes,
            "waiting": list(self.waiting),
            "losses": self._losses + self._loss,
        }
        return {**NO_WINDOW, "window": window}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on inside the window of a saved pass."""
        window = state["window"]
        self.count = int(window["count"])
        self.first = float(window["first"])
        self.total = float(window["total"])
        self.closes = bool(window["closes"])
        self.waiting = list(window["waiting"])
        self._losses, self._loss = window["losses"], 0.0
