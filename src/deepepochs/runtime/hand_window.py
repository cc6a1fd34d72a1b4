"""A window of mini-batches that the user counts, with ``accelerator.accumulate`` in a step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..optim.accumulation import NO_WINDOW
from ..optim.optimizers import Optimizer, Optimizers, params_of

if TYPE_CHECKING:
    from accelerate import Accelerator


class HandWindow:
    """A window of the user's ``accelerator``, which counts the mini-batches.

    ``join`` averages the gradients that ``accumulate`` has kept in their processes.
    """

    size = 1
    scale = 1.0
    closes = True

    def __init__(
        self, accelerator: Accelerator, join: Callable[[Sequence[Optimizer]], None]
    ) -> None:
        self.accelerator = accelerator
        self.waiting: dict[int | None, None] = {}
        self._join = join
        self._begin(0)

    def _begin(self, count: int) -> None:
        self.accelerator.step = count
        self.accelerator.sync_gradients = True

    @property
    def count(self) -> int:
        """The calls of ``accumulate`` so far in the present window."""
        return int(self.accelerator.step) % int(self.accelerator.gradient_accumulation_steps)

    def open_batch(self, weight: float, *, is_last: bool | None) -> None:
        """Do nothing: the user may accumulate parts of a mini-batch, too."""

    def mean_loss(self, loss: Any) -> Any:
        return loss

    def waits(self, optimizers: Sequence[Optimizer], index: int | None) -> bool:
        if not self.accelerator.sync_gradients:
            self.waiting[index] = None
            return True
        self.waiting.pop(index, None)
        return False

    def due(self, opt: Optimizers, *, at_end: bool, is_last: bool | None) -> list[int | None]:
        """Return the optimizers whose steps wait, if the data end before their window."""
        if not self.waiting or not (at_end or is_last):
            return []
        self._join(opt)
        # The sum of the gradients so far becomes that of the mean loss.
        factor = self.accelerator.gradient_accumulation_steps / max(self.count, 1)
        for weight in params_of(opt):
            if weight.grad is not None:
                weight.grad.mul_(factor)
        self._begin(0)
        return list(self.waiting)

    def state_dict(self) -> dict[str, Any]:
        return {**NO_WINDOW, "by_hand": {"waiting": list(self.waiting), "count": self.count}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.waiting = dict.fromkeys(state["by_hand"]["waiting"])
        self._begin(int(state["by_hand"]["count"]))
