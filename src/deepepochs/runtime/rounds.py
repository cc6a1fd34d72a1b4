"""Rounds: what several processes agree on for each mini-batch of a pass.

Their shares of the data differ in length by a mini-batch or so. A process that has no more
fills up the rounds of the others with a mini-batch that weighs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from .. import rng
from ..data.cursor import Cursor

__all__ = ["Rounds"]


class Processes(Protocol):
    """What rounds need of the processes."""

    num_processes: int

    def any(self, flag: bool) -> bool:
        """Whether any process says so."""

    def total(self, values: list[float]) -> list[float]:
        """Add numbers up over the processes."""

    def gather_objects(self, value: Any) -> list[Any]:
        """Give the value of every process."""

    def filler(self, loader: Any) -> Any:
        """Give a mini-batch for a process whose share is empty."""


class Rounds:
    """The mini-batches of one process in step with the others, and their weights.

    Args:
        runtime: the processes; all of them make this object at the same time.
        cursor: the walk over the share of this process.
        hooks: the hooks of the stage.
        hooks_of_fillers: those that are called for a mini-batch that only fills up a round.

    Attributes:
        length: the number of rounds; ``None`` if a loader does not know.
        index: the round that was handed out last.
        is_filler: whether its mini-batch only fills it up.
    """

    def __init__(
        self, runtime: Processes, cursor: Cursor, hooks: Any = None, hooks_of_fillers: Any = None
    ) -> None:
        self.runtime = runtime
        self.cursor = cursor
        self.hooks = hooks
        self.hooks_of_fillers = hooks_of_fillers
        lengths = runtime.gather_objects(cursor.length)
        self.length: int | None = None if None in lengths else max(lengths)
        self.index = -1
        self.is_filler = False
        self.has_samples = False
        self._share = 1.0  # of this process in the samples of the present round
        self._steps_seen = 0
        self._random_state: dict[str, Any] | None = None

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        batches: Iterator[tuple[int, Any]] = iter(()) if self.is_filler else iter(self.cursor)
        last: Any = None
        while True:
            item = next(batches, None)
            if not self.runtime.any(item is not None):
                return
            self.is_filler = item is None
            if item is not None:
                last = item[1]
            elif last is None:
                last = self.runtime.filler(self.cursor.loader)
            self.index = self.index + 1 if item is None else item[0]
            yield self.index, last

    def begin_batch(self, num_steps: int) -> Any:
        """Take in a round before its step; give the hooks that are called for it.

        Args:
            num_steps: the optimizer steps so far.
        """
        # Whether this process has had samples since the last step.
        waits, self._steps_seen = num_steps == self._steps_seen, num_steps
        self.has_samples = not self.is_filler or (waits and self.has_samples)
        self._random_state = rng.get_state() if self.is_filler else None
        return self.hooks_of_fillers if self.is_filler else self.hooks

    def weigh(self, weight: float) -> tuple[float, float]:
        """Give the samples of all processes in this round, and the factor for this one's loss."""
        own = 0.0 if self.is_filler else float(weight)
        total = self.runtime.total([own])[0]
        self._share = own / total if total else 0.0
        return total, (own * self.runtime.num_processes / total if total else 0.0)

    def mean(self, loss: float) -> float:
        """Give the mean loss over the samples of all processes."""
        return self.runtime.total([loss * self._share])[0]

    def end_batch(self) -> bool:
        """Undo what a filler has drawn; give whether it was one.

        It is another mini-batch after a resume, and must leave nothing behind.
        """
        if self._random_state is not None:
            rng.set_state(self._random_state)
            self._random_state = None
        return self.is_filler

    def waits_with_samples(self, num_steps: int) -> bool:
        """Whether this process has had samples for a step that is still to be made."""
        return self.has_samples and num_steps == self._steps_seen

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on after the round of a saved pass."""
        self.index = int(state["batch_idx"])
        self.is_filler = bool(state["ended"])
        self.has_samples = bool(state["has_samples"])
        self._steps_seen = int(state["num_steps"])
