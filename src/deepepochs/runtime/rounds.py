"""Rounds: one mini-batch in each process, all at the same time.

The processes' shares of the data may differ in length by a mini-batch. In a round in which a
process has no mini-batch left, or a ``None`` that is to be left out, it runs a filler: a mini-batch
with the weight 0.

What can be known before the pass is exchanged then: how many rounds there are, what each
mini-batch weighs, and the seed of what all draw alike. So in most rounds no process waits for
another but for the gradients.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from time import monotonic
from typing import Any, NamedTuple, Protocol

from .. import rng
from ..data.cursor import Cursor
from ..data.seeding import epoch_seed_from
from ..errors import DataError
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


class Sizes(NamedTuple):
    """What the mini-batches of one process weigh: ``num_full`` weigh ``full``, the next one ``last``."""

    full: float
    num_full: int
    last: float = 0.0

    def at(self, index: int) -> float:
        """Give the weight of the mini-batch in a round; 0 where there is none."""
        if index < self.num_full:
            return self.full
        return self.last if index == self.num_full else 0.0


FIRST_ROUNDS = 4  # the first ones are slow, and not measured
MEET_EVERY_S = 0.25


class Meetings:
    """When the processes agree on stops and saves: a few times a second, after the same rounds.

    One object serves all passes of a task: a pass begins at the pace of the one before.
    """

    def __init__(self) -> None:
        self._round_s: float | None = None  # the same number in all processes
        self._num_rounds = self._last_round = 0  # of this pass: in all, and at the last meeting
        self._now_s = self._last_s = 0.0

    def pace(self) -> float | None:
        """The seconds of a round in this process since the last meeting, if there were some."""
        num = self._num_rounds - self._last_round
        return (self._now_s - self._last_s) / num if num else None

    def begin(self, round_s: float | None) -> None:
        """Begin a pass, after one of this pace; ``round_s`` is the same in all processes."""
        self._take(round_s)
        self._num_rounds = self._last_round = 0

    def is_due(self) -> bool:
        """Count a round, and say whether a meeting follows it."""
        self._num_rounds += 1
        self._num_left -= 1
        self._now_s = monotonic()
        if self._num_rounds == 1:  # which is slow
            self._last_round, self._last_s = 1, self._now_s
        return self._num_left <= 0

    def plan(self, round_s: float) -> None:
        """Set the next meeting; ``round_s`` is the same in all processes."""
        self._take(round_s if self._num_rounds >= FIRST_ROUNDS else None)
        self._last_round, self._last_s = self._num_rounds, self._now_s

    def _take(self, round_s: float | None) -> None:
        self._round_s = self._round_s if round_s is None else round_s
        known = MEET_EVERY_S if self._round_s is None else max(self._round_s, 1e-6)
        self._num_left = max(1, int(MEET_EVERY_S / known))


class Rounds:
    """The rounds of one process's pass, and the weights of its mini-batches.

    All processes make this object at the same time.

    Attributes:
        length: the number of rounds; ``None`` if a loader has no length.
        index: the present round.
        has_ended: whether this process has no mini-batch left.
        is_filler: whether its mini-batch is a filler here.
        is_empty: whether it is one in all processes, which then leave out the round, in training.
        num_empty: the rounds that were left out.
        weight: of the mini-batches of all processes in the round, in training.
        has_samples: whether this process had samples since the last optimizer step.
    """

    def __init__(
        self,
        runtime: Processes,
        cursor: Cursor,
        hooks: Any = None,
        hooks_of_fillers: Any = None,
        sizes: Sizes | None = None,
        meetings: Meetings | None = None,
    ) -> None:
        self.runtime = runtime
        self.cursor = cursor
        self._hooks = hooks, hooks_of_fillers
        self._meetings = Meetings() if meetings is None else meetings
        seed = epoch_seed_from(None)
        own = cursor.length, cursor.has_exact_length, sizes, self._meetings.pace(), seed
        gathered = runtime.gather_objects(own, "begins a pass")
        lengths, exact, of_all, paces, seeds = zip(*gathered, strict=True)
        cursor.begin_streams(seeds[0])
        self._meetings.begin(None if None in paces else sum(paces) / len(paces))
        self.length: int | None = None if None in lengths else max(lengths)
        self.is_exact = self.length is not None and all(exact)
        self._sizes: list[Sizes] | None = None if None in of_all else [Sizes(*s) for s in of_all]
        self._own_sizes = sizes
        self._are_tried = False
        self.index = -1
        self.has_ended = self.is_filler = self.is_empty = False
        self.num_empty = 0
        self._num_fillers: int | None = None  # in this round, where they are counted in each
        self.has_samples = False
        self.weight = 0.0
        self._share = 1.0  # of this process in the samples of the present round
        self._steps_seen = 0
        self._random_state: dict[str, Any] | None = None

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        batches: Iterator[tuple[int, Any]] = iter(()) if self.has_ended else iter(self.cursor)
        last: Any = None
        while True:
            item = next(batches, None)
            self.has_ended = item is None
            if not self._is_round(item is not None):
                return
            self.index, batch = (self.index + 1, None) if item is None else item
            self.is_filler = batch is None
            if batch is not None:
                last = batch
            else:
                if item is not None:
                    self.cursor.skip()
                # Samples may be weights, and the graph of the latest mini-batch is gone.
                last = detach(self.runtime.filler(self.cursor.loader) if last is None else last)
            yield self.index, last

    def _is_round(self, has_batch: bool) -> bool:
        """Whether any process has a mini-batch for one more round."""
        if not self.is_exact:
            return self.runtime.any(has_batch, "asks for a mini-batch")
        if has_batch and self.index + 1 >= self.length:  # type: ignore[operator]
            raise DataError(
                f"The loader of this process said that it has at most {self.length} mini-batches, "
                "and gives more: mend its __len__."
            )
        return self.index + 1 < self.length  # type: ignore[operator]

    def begin_batch(self, num_steps: int) -> Any:
        """Begin a round after ``num_steps`` optimizer steps; return the hooks to call in it."""
        waits, self._steps_seen = num_steps == self._steps_seen, num_steps
        self.has_samples = not self.is_filler or (waits and self.has_samples)
        self._random_state = rng.get_state() if self.is_filler else None
        return self._hooks[self.is_filler]

    def weigh(self, weight: float) -> tuple[float, float]:
        """Return the samples of all processes in this round, and the factor for the loss here."""
        own = 0.0 if self.is_filler else float(weight)
        total = self.weight = self._total(own)
        self._share = own / total if total else 0.0
        return total, (own * self.runtime.num_processes / total if total else 0.0)

    def _total(self, own: float) -> float:
        """Give the sum of the weights of all processes in this round."""
        sizes, own_sizes = self._sizes, self._own_sizes
        if sizes is None or own_sizes is None:
            fills = float(self.is_filler)
            total, fillers = self.runtime.total([own, fills], "weighs a mini-batch")
            self._note_fillers(fillers)
            return total
        expected = own_sizes.at(self.index)
        if not self._are_tried:
            self._are_tried = True
            total, others, fillers = self.runtime.total(
                [own, float(own != expected), float(self.is_filler)], "weighs the first mini-batch"
            )
            self._note_fillers(fillers)
            if others:  # they are not as the loader promises: exchange them in each round
                self._sizes = None
            return total
        if own != expected:
            raise DataError(
                f"A mini-batch of this process weighs {own:g}, and by the batch size of its loader "
                f"{expected:g}. Give batch_size=, a function (batch_x, batch_y) -> number, to fit() or "
                "the EpochTask: then the processes tell each other what each mini-batch weighs."
            )
        return sum(of_one.at(self.index) for of_one in sizes)

    def _note_fillers(self, number: float) -> None:
        self._num_fillers = int(number)
        self.is_empty = number == self.runtime.num_processes
        self.num_empty += self.is_empty

    def meet(self, asks: bool, purpose: str, *, everywhere: bool = False) -> bool:
        """Whether any process asks for something; ``False`` until the next meeting is due.

        ``everywhere`` says that all processes ask for it in this round. The end of the pass is no
        meeting: the processes agree between passes.
        """
        if not self.is_exact:
            return self.runtime.any(asks, purpose)
        meetings = self._meetings
        is_due = meetings.is_due()
        if everywhere:
            return True
        if not is_due:
            return False
        num, seconds = self.runtime.total([float(asks), meetings.pace() or 0.0], purpose)
        meetings.plan(seconds / self.runtime.num_processes)
        return num > 0

    def is_full(self) -> bool:
        """Whether all processes know that none has a filler in this round."""
        if self._sizes is None:
            return self._num_fillers == 0
        return all(of_one.at(self.index) for of_one in self._sizes)

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
        self.is_filler = self.has_ended = bool(state["ended"])
        self.has_samples = bool(state["has_samples"])
        self._steps_seen = int(state["num_steps"])
