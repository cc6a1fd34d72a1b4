"""Rounds: one mini-batch in each process, all at the same time.

The processes' shares of the data may differ in length by a mini-batch. In a round in which a
process has no mini-batch left, it runs a filler: a mini-batch with the weight 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from .. import rng
from ..data.cursor import Cursor
from ..nest.operations import detach

ASIDE = "exchanges a value"
UNUSED = (
    "Every process must use all trained weights of the model in every mini-batch, and make a "
    "backward pass. Where a process may leave some out, give the trainer device=Accelerator("
    "kwargs_handlers=[accelerate.DistributedDataParallelKwargs(find_unused_parameters=True)])."
)


class Processes(Protocol):
    """What rounds need of the processes.

    The ``purpose`` of an exchange, as ``'begins a pass'``, must be the same in all of them.
    """

    num_processes: int

    def any(self, flag: bool, purpose: str = ASIDE) -> bool:
        """Whether ``flag`` is true in any process."""

    def total(self, values: list[float], purpose: str = ASIDE) -> list[float]:
        """Add numbers up over the processes."""

    def gather_objects(self, value: Any, purpose: str = ASIDE) -> list[Any]:
        """Return the value of every process, in the order of their ranks."""

    def filler(self, loader: Any) -> Any:
        """Return a mini-batch for a process whose share is empty."""


class Rounds:
    """The rounds of one process's pass, and the weights of its mini-batches.

    All processes make this object at the same time.

    Attributes:
        length: the number of rounds; ``None`` if a loader has no length.
        index: the present round.
        is_filler: whether its mini-batch is a filler here.
        weight: of the mini-batches of all processes in the round, in training.
        has_samples: whether this process had samples since the last optimizer step.
    """

    def __init__(
        self, runtime: Processes, cursor: Cursor, hooks: Any = None, hooks_of_fillers: Any = None
    ) -> None:
        self.runtime = runtime
        self.cursor = cursor
        self.hooks = hooks
        self.hooks_of_fillers = hooks_of_fillers
        lengths = runtime.gather_objects(cursor.length, "begins the rounds of a pass")
        self.length: int | None = None if None in lengths else max(lengths)
        self.index = -1
        self.is_filler = False
        self.has_samples = False
        self.weight = 0.0
        self._share = 1.0  # of this process in the samples of the present round
        self._steps_seen = 0
        self._random_state: dict[str, Any] | None = None

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        batches: Iterator[tuple[int, Any]] = iter(()) if self.is_filler else iter(self.cursor)
        last: Any = None
        while True:
            item = next(batches, None)
            if not self.runtime.any(item is not None, "asks for a mini-batch"):
                return
            self.is_filler = item is None
            if item is not None:
                last = item[1]
            else:
                # Samples may be weights, and the graph of the latest mini-batch is gone.
                last = detach(self.runtime.filler(self.cursor.loader) if last is None else last)
            self.index = self.index + 1 if item is None else item[0]
            yield self.index, last

    def begin_batch(self, num_steps: int) -> Any:
        """Begin a round after ``num_steps`` optimizer steps; return the hooks to call in it."""
        waits, self._steps_seen = num_steps == self._steps_seen, num_steps
        self.has_samples = not self.is_filler or (waits and self.has_samples)
        self._random_state = rng.get_state() if self.is_filler else None
        return self.hooks_of_fillers if self.is_filler else self.hooks

    def weigh(self, weight: float) -> tuple[float, float]:
        """Return the samples of all processes in this round, and the factor for the loss here."""
        own = 0.0 if self.is_filler else float(weight)
        total = self.weight = self.runtime.total([own], "weighs a mini-batch")[0]
        self._share = own / total if total else 0.0
        return total, (own * self.runtime.num_processes / total if total else 0.0)

    def mean(self, loss: float) -> float:
        """Return the mean loss over the samples of all processes."""
        # The loss of no samples may be NaN.
        share = loss * self._share if self._share else 0.0
        return self.runtime.total([share], "takes the mean of a loss")[0]

    def end_batch(self) -> bool:
        """End a round; return whether it was a filler, and undo its random draws if so.

        After a resume the filler is another mini-batch, so it must not change later draws.
        """
        if self._random_state is not None:
            rng.set_state(self._random_state)
            self._random_state = None
        return self.is_filler

    def waits_with_samples(self, num_steps: int) -> bool:
        """Whether this process had samples, and the optimizer step with them is still to come."""
        return self.has_samples and num_steps == self._steps_seen

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume after the round in which a pass was saved."""
        self.index = int(state["batch_idx"])
        self.is_filler = bool(state["ended"])
        self.has_samples = bool(state["has_samples"])
        self._steps_seen = int(state["num_steps"])
