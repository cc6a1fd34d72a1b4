"""Gradient accumulation: several mini-batches share one optimizer step.

The gradient of a window equals that of its mini-batches joined into one, whatever their
sizes: each loss is multiplied by its mini-batch's number of samples over that of the first
one, and the summed gradients are made those of the mean before the step.

>>> window = Window(2)
>>> window.open_batch(32, is_last=False); window.scale, window.closes
(1.0, False)
>>> window.open_batch(8, is_last=True); window.scale, window.closes, window.factor
(0.25, True, 0.8)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from .optimizers import Optimizer, Optimizers

NO_WINDOW: dict[str, Any] = {"window": None, "by_hand": {"waiting": [], "count": 0}}
"""The state in a checkpoint if every mini-batch has its own step."""


class AnyWindow(Protocol):
    """Mini-batches that share an optimizer step."""

    size: int  # mini-batches for one step
    scale: float  # the factor for the loss of the present mini-batch
    closes: bool  # whether the present mini-batch is the last one

    def open_batch(self, weight: float, *, is_last: bool | None) -> None:
        """Begin the next mini-batch, of ``weight`` samples."""

    @property
    def count(self) -> int:
        """The mini-batches so far."""

    def leave_out(self) -> None:
        """Let the present mini-batch, which had no backward pass, weigh nothing."""

    def mean_loss(self, loss: Any) -> Any:
        """Return the mean loss over the window, given that of the present mini-batch."""

    def waits(self, optimizers: Sequence[Optimizer], index: int | None) -> bool:
        """Whether a step waits for the end of the window; if not, scale the gradients for it."""

    def due(self, opt: Optimizers, *, at_end: bool, is_last: bool | None) -> list[int | None]:
        """Return the indexes of the optimizers whose waiting steps are to be made now."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state in the middle of a window."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume in the middle of a window."""


class Window:
    """The mini-batches since the last optimizer step, ``size`` at most."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.count = 0
        self.first = 0.0
        self.total = 0.0
        self.scale = 1.0
        self.closes = False
        self.waiting: list[int | None] = []  # indexes of optimizers
        self._weight = 0.0
        self._before = 0.0  # the weight of the mini-batches before the present one
        self._asked = False  # whether the present mini-batch has asked for a step
        # Losses times weights: of the mini-batches before the present one, and of that one.
        self._losses: Any = 0.0
        self._loss: Any = 0.0

    @property
    def factor(self) -> float:
        """The factor for the summed gradients before the step."""
        return self.first / self.total if self.total else 1.0

    def open_batch(self, weight: float, *, is_last: bool | None) -> None:
        if self.closes:
            self.count, self.total = 0, 0.0
            self.waiting = []
            self._losses = self._loss = 0.0
        if not self.total:  # the losses cannot be scaled to those of an empty mini-batch
            self.first = float(weight)
        self._losses, self._loss = self._losses + self._loss, 0.0
        self._weight = float(weight)
        self._before, self._asked = self.total, False
        self.count += 1
        self.total += weight
        self.scale = weight / self.first if weight else 0.0
        self.closes = self.count >= self.size or is_last is True

    def leave_out(self) -> None:
        # A step that was asked for is of gradients that the user has made by hand.
        if not self._asked:
            self.total, self._weight = self._before, 0.0

    def mean_loss(self, loss: Any) -> Any:
        self._loss = loss * self._weight if self._weight else 0.0
        return (self._losses + self._loss) / self.total if self.total else loss

    def waits(self, optimizers: Sequence[Optimizer], index: int | None) -> bool:
        self._asked = True
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
        if at_end and self.count:
            self.closes = True
        return list(self.waiting) if self.closes else []

    def state_dict(self) -> dict[str, Any]:
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
        window = state["window"]
        self.count = int(window["count"])
        self.first = float(window["first"])
        self.total = float(window["total"])
        self.closes = bool(window["closes"])
        self.waiting = list(window["waiting"])
        self._losses, self._loss = window["losses"], 0.0
