"""Time a trainer against the loop written by hand, on a machine that others use too.

Timing A and then B measures the machine's mood. Here both run in one process in turns:
after every 20 ms of the system's mini-batches its clock stops, the hand-written loop runs
as many mini-batches of its own model, loader and random state, and the system goes on. Both
meet the same drift, and their final weights can be compared bit by bit.

In one process the time of the processor is measured, which does not run while other programs
do. Where processes wait for each other it is wall time, and they switch after the same
mini-batch.

The switch happens inside a function that both call in each mini-batch: the loss, or the model.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

SLICE_S = 0.02


class Interleaver:
    """A loss function that hands the processor to the hand-written loop every 20 ms.

    Args:
        loss_fn: the loss.
        hand: makes the hand-written loop, a generator that yields after each mini-batch; it
            gets the plain loss function.
        clock: gives seconds.
        every: switch after so many mini-batches, not after 20 ms.
    """

    def __init__(
        self,
        loss_fn: Callable[..., Any],
        hand: Callable[..., Iterator[None]],
        clock: Callable[[], float] = time.process_time,
        every: float = float("inf"),
    ) -> None:
        self.loss_fn = loss_fn
        self.clock = clock
        self.every = every
        self.slice_s = SLICE_S if every == float("inf") else float("inf")
        self.system_s = 0.0
        self.hand_s = 0.0
        self.num_system = 0
        self.num_hand = 0
        self._hand = hand(self._counted)
        self._hand_rng = torch.get_rng_state()
        self._hand_grad = True
        self._since_switch = 0
        self._slice_end = 0.0
        self._started = 0.0

    def _counted(self, *args: Any) -> Any:
        # The same look at the clock as the system's calls pay for.
        time.perf_counter()
        return self.loss_fn(*args)

    def start(self) -> None:
        """Start the system's clock."""
        self._slice_end = time.perf_counter() + self.slice_s
        self._started = self.clock()

    def stop(self) -> None:
        """Stop the clock for good, and let the hand-written loop finish."""
        self._switch(finish=True)

    def row(self) -> dict[str, float]:
        """Give the ratio, and what a mini-batch takes by hand."""
        return {
            "ratio": self.system_s / self.hand_s,
            "hand_us": self.hand_s / self.num_hand * 1e6,
        }

    def __call__(self, *args: Any) -> Any:
        if time.perf_counter() > self._slice_end or self._since_switch >= self.every:
            self._switch()
        self._since_switch += 1
        return self.loss_fn(*args)

    def _switch(self, *, finish: bool = False) -> None:
        self.system_s += self.clock() - self._started
        self.num_system += self._since_switch
        system_rng, grad = torch.get_rng_state(), torch.is_grad_enabled()
        torch.set_rng_state(self._hand_rng)
        with torch.inference_mode(False):  # some validate in that mode
            torch.set_grad_enabled(self._hand_grad)
            begun = self.clock()
            while finish or self.num_hand < self.num_system:
                if next(self._hand, "done") == "done":
                    break
                self.num_hand += 1
            self.hand_s += self.clock() - begun
            self._hand_grad = torch.is_grad_enabled()
        self._hand_rng = torch.get_rng_state()
        torch.set_rng_state(system_rng)
        torch.set_grad_enabled(grad)
        self._since_switch = 0
        self.start()


class Ticking(torch.nn.Module):
    """A layer that changes nothing and calls a function: where nobody asks for a loss."""

    def __init__(self, tick: Callable[[Any], Any]) -> None:
        super().__init__()
        self.tick = tick

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Give what comes."""
        return self.tick(x)
