"""The order of a map-style loader's batches: following it, and resuming inside it.

An `IndexSource` takes the place of a loader's batch sampler. It passes the sampler's indices
on, in the same order and with the same draws, and remembers the unread batches: worker
processes load ahead, so the sampler is some batches further than the training. On a resume
it runs the sampler to where it was, without loading a sample.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ..errors import CheckpointMismatch
from ..nest.codec import is_plain
from .loader_state import Stateful, load_state, state_of
from .seeding import SeededIndices

__all__ = ["IndexSource", "IndexWalk", "Replay", "load_samplers", "read_samplers", "walk_state"]

_END = object()


@dataclass(frozen=True)
class Replay:
    """What a walk needs to resume where it was saved."""

    state: dict[str, Any]  # of the walk
    index: int  # batches that were handed out
    resume: Callable[[], None]  # restores the random states of the save


class IndexSource:
    """Stands in for a loader's batch sampler, or for its sampler where it does not batch.

    All other attributes are the sampler's.
    """

    def __init__(self, sampler: Any) -> None:
        self.inner_sampler = sampler
        self.num_passes = 0  # that were begun
        self.epoch_seed: int | None = None  # of the present pass, if workers are seeded by it
        self.walk: IndexWalk | None = None  # the latest one of the present pass
        self._replay: Replay | None = None
        self._is_dry = False

    def begin_pass(self, num_passes: int, epoch_seed: int | None, replay: Replay | None) -> None:
        """Begin a pass, of which ``num_passes`` were made before."""
        self.num_passes = num_passes + 1
        self.epoch_seed = epoch_seed
        self.walk = None
        self._replay = replay

    @contextmanager
    def dry(self) -> Iterator[None]:
        """Give no indices in the meantime."""
        self._is_dry = True
        yield
        self._is_dry = False

    def __iter__(self) -> Iterator[Any]:
        if self._is_dry:
            return iter(())
        # The sampler's iterator is made at once, as the loader does it: some samplers draw then.
        # The loader may make several walks, of which it uses the last one only.
        self.walk = IndexWalk(self.inner_sampler, self.epoch_seed, self._replay)
        return self.walk

    def __len__(self) -> int:
        return len(self.inner_sampler)

    def __getattr__(self, name: str) -> Any:
        if name == "inner_sampler":  # not yet there while a copy is made
            raise AttributeError(name)
        return getattr(self.inner_sampler, name)


class IndexWalk:
    """One walk along a sampler."""

    def __init__(
        self, sampler: Any, epoch_seed: int | None = None, replay: Replay | None = None
    ) -> None:
        self.inner: Iterator[Any] = iter(sampler)
        self.drawn = 0
        self._sampler = sampler
        self._epoch_seed = epoch_seed
        self._replay = replay
        self._is_exhausted = False
        self._waiting: deque[Any] = deque()
        self._again: deque[Any] = deque()

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self._replay is not None:
            self._catch_up(self._replay)
        if self._again:
            position = self.drawn - len(self._again)
            indices = self._again.popleft()
        else:
            indices = _END if self._is_exhausted else next(self.inner, _END)
            if indices is _END:
                self._is_exhausted = True
                raise StopIteration
            position = self.drawn
            self.drawn += 1
        self._waiting.append(indices)
        if self._epoch_seed is None:
            return indices
        return SeededIndices(indices, self._epoch_seed, position)

    def handed_out(self) -> None:
        """Note that the oldest of the drawn batches was handed out."""
        self._waiting.popleft()

    def state_dict(self) -> dict[str, Any]:
        """Say where the walk is."""
        waiting = [*self._waiting, *self._again]
        return {
            **walk_state(self.drawn, self._sampler),
            "exhausted": self._is_exhausted,
            "waiting": waiting if is_plain(waiting) else None,
        }

    def _catch_up(self, replay: Replay) -> None:
        """Run the sampler to where it was, then restore the random states of the save."""
        self._replay = None
        state = replay.state
        replayed: list[Any] = []
        for count in range(int(state["drawn"])):
            indices = next(self.inner, _END)
            if indices is _END:
                if state["samplers"]:
                    break  # its state says that it was at its end, where it resumes
                raise CheckpointMismatch(
                    f"The loader's sampler ended after {count} mini-batches, and {state['drawn']} "
                    "had been drawn when the checkpoint was written. Build the loader as it was."
                )
            if count >= replay.index:
                replayed.append(indices)
        from ..nest.compare import differing  # a fit that is not resumed does not need it

        if differing(read_samplers(self._sampler), state["samplers"]):
            # Its order depends on more than the random states at its start: load its own state.
            load_samplers(self._sampler, state["samplers"])
            self.inner = iter(self._sampler)
        self.drawn = int(state["drawn"])
        self._is_exhausted = bool(state["exhausted"])
        self._again.extend(replayed if state["waiting"] is None else state["waiting"])
        replay.resume()


def walk_state(drawn: int, sampler: Any) -> dict[str, Any]:
    """Give the state of a walk in which all batches that were drawn were handed out."""
    return {"drawn": drawn, "exhausted": False, "waiting": [], "samplers": read_samplers(sampler)}


def read_samplers(sampler: Any) -> dict[str, Any]:
    """Read the state of each sampler that has one, by its place."""
    return {name: state_of(one) for name, one in _stateful_samplers(sampler).items()}


def load_samplers(sampler: Any, state: dict[str, Any]) -> None:
    """Load what `read_samplers` read."""
    found = _stateful_samplers(sampler)
    if set(found) != set(state):
        raise CheckpointMismatch(
            f"The loader has {len(found)} samplers with a state_dict, and the checkpoint has "
            f"{len(state)}. Build the loader as it was when the checkpoint was written."
        )
    for name, one in found.items():
        load_state(one, state[name])


def _stateful_samplers(sampler: Any) -> dict[str, Stateful]:
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
