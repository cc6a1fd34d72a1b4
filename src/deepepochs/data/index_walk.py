"""The order of a map-style loader's batches: following it, and resuming inside it.

An `IndexSource` stands in for a loader's batch sampler. It passes on what the sampler gives,
in the same order and with the same draws, and remembers which batches were drawn and not yet
handed out: worker processes load ahead, so the sampler is some batches further than the
training. On a resume it runs the sampler to where it was, without loading a sample.

>>> from deepepochs.data.index_walk import IndexSource
>>> source = IndexSource([[0, 1], [2], [3]])
>>> walk = iter(source)
>>> next(walk), next(walk), walk.drawn
([0, 1], [2], 2)
>>> walk.handed_out()
>>> walk.state_dict()["waiting"]
[[2]]
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ..errors import CheckpointMismatch
from ..nest.codec import is_plain
from .loader_state import Stateful, load_state, state_of
from .seeding import SeededIndices

__all__ = ["IndexSource", "IndexWalk", "Replay", "load_samplers", "read_samplers", "walk_state"]


@dataclass(frozen=True)
class Replay:
    """What a walk needs to resume where it was saved.

    Attributes:
        state: the walk's ``state_dict()``.
        index: how many batches had been handed out.
        resume: restores the random states of the save.
    """

    state: dict[str, Any]
    index: int
    resume: Callable[[], None]


class IndexSource:
    """Stands in for an index sampler; every other attribute is the sampler's own.

    Args:
        sampler: the loader's batch sampler, or its sampler where it does not batch.
    """

    def __init__(self, sampler: Any) -> None:
        self.inner_sampler = sampler
        self.epoch_seed: int | None = None
        self.replay: Replay | None = None
        self.dry = False
        self.walk: IndexWalk | None = None

    def __iter__(self) -> Iterator[Any]:
        if self.dry:
            return iter(())
        # Made at once, as the loader does: some samplers draw when their iterator is made.
        self.walk = IndexWalk(self, iter(self.inner_sampler))
        return self.walk

    def __len__(self) -> int:
        return len(self.inner_sampler)

    def __getattr__(self, name: str) -> Any:
        if name == "inner_sampler":  # not yet there while a copy is made
            raise AttributeError(name)
        return getattr(self.inner_sampler, name)


class IndexWalk:
    """One walk along a sampler.

    Args:
        source: what it walks for.
        inner: the sampler's iterator.
    """

    def __init__(self, source: IndexSource, inner: Iterator[Any]) -> None:
        self.source = source
        self.inner = inner
        self.drawn = 0
        self.exhausted = False
        self._waiting: deque[Any] = deque()
        self._again: deque[Any] = deque()

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        source = self.source
        if source.replay is not None:
            replay, source.replay = source.replay, None
            self._catch_up(replay)
        if self._again:
            position = self.drawn - len(self._again)
            indices = self._again.popleft()
        else:
            if self.exhausted:
                raise StopIteration
            try:
                indices = next(self.inner)
            except StopIteration:
                self.exhausted = True
                raise
            position = self.drawn
            self.drawn += 1
        self._waiting.append(indices)
        if source.epoch_seed is None:
            return indices
        return SeededIndices(indices, source.epoch_seed, position)

    def handed_out(self) -> None:
        """Note that the oldest of the drawn batches has been handed out."""
        self._waiting.popleft()

    def state_dict(self) -> dict[str, Any]:
        """Say where the walk is."""
        waiting = [*self._waiting, *self._again]
        return {
            **walk_state(self.drawn, self.source.inner_sampler),
            "exhausted": self.exhausted,
            "waiting": waiting if is_plain(waiting) else None,
        }

    def _catch_up(self, replay: Replay) -> None:
        """Run the sampler to where it was, then restore the random states of the save."""
        state = replay.state
        replayed: list[Any] = []
        for count in range(int(state["drawn"])):
            try:
                indices = next(self.inner)
            except StopIteration:
                if state["samplers"]:
                    break  # a sampler whose state said that it resumes after its end
                raise CheckpointMismatch(
                    f"The loader's sampler ended after {count} mini-batches, and {state['drawn']} "
                    "had been drawn when the checkpoint was written. Build the loader as it was."
                ) from None
            if count >= replay.index:
                replayed.append(indices)
        from ..nest.compare import differing  # a plain fit does not need it

        if differing(read_samplers(self.source.inner_sampler), state["samplers"]):
            # Its order depends on more than the random states at its start: load its own state.
            load_samplers(self.source.inner_sampler, state["samplers"])
            self.inner = iter(self.source.inner_sampler)
        self.drawn = int(state["drawn"])
        self.exhausted = bool(state["exhausted"])
        self._again.extend(replayed if state["waiting"] is None else state["waiting"])
        replay.resume()


def walk_state(drawn: int, sampler: Any) -> dict[str, Any]:
    """Give the state of a walk that nothing followed: all that was drawn was handed out."""
    return {
        "drawn": drawn,
        "exhausted": False,
        "waiting": [],
        "samplers": read_samplers(sampler),
    }


def stateful_samplers(sampler: Any) -> dict[str, Stateful]:
    """Find the samplers with a ``state_dict``, the outermost first."""
    found: dict[str, Stateful] = {}
    seen: set[int] = set()
    name = "sampler"
    while sampler is not None and id(sampler) not in seen:
        seen.add(id(sampler))
        if isinstance(sampler, Stateful):
            found[name] = sampler
        inner = getattr(sampler, "batch_sampler", None)
        sampler = inner if inner is not None else getattr(sampler, "sampler", None)
        name += ".sampler"
    return found


def read_samplers(sampler: Any) -> dict[str, Any]:
    """Read the state of each stateful sampler, by its place."""
    return {name: state_of(one) for name, one in stateful_samplers(sampler).items()}


def load_samplers(sampler: Any, state: dict[str, Any]) -> None:
    """Load what `read_samplers` read."""
    found = stateful_samplers(sampler)
    if set(found) != set(state):
        raise CheckpointMismatch(
            f"The loader has {len(found)} samplers with a state_dict, and the saved one had "
            f"{len(state)}. Build the loader as it was when the checkpoint was written."
        )
    for name, one in found.items():
        load_state(one, state[name])
