"""Walking a map-style ``DataLoader`` by its indices.

The loader's samplers are let run, never replaced: an `IndexSource` in front of them follows
what they give. That makes three things possible: a resume that skips indices instead of
loading samples, random streams in worker processes that belong to the batch, and in-memory
tensors fetched by one index operation.

>>> from torch.utils.data import DataLoader
>>> from deepepochs.data.index_route import IndexRoute
>>> loader = DataLoader(range(6), batch_size=2)
>>> list(IndexRoute(loader, loader, "position").open())
[tensor([0, 1]), tensor([2, 3]), tensor([4, 5])]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain
from typing import Any
from weakref import WeakKeyDictionary

from torch.utils.data import DataLoader

from .fast_path import tensor_fetch
from .index_walk import IndexSource, Replay, load_samplers, read_samplers, walk_state
from .loader_state import dataset_state, drop, load_dataset, read_moment, restore_moment, shadow
from .seeding import epoch_seed_from

__all__ = ["IndexRoute"]


_END = object()


class _Line:
    """What stands between a loader and its sampler; kept as long as persistent workers live.

    Attributes:
        source: in the sampler's place.
        target: the loader to iterate: a shadow of the user's, or itself.
        num_passes: passes begun so far, counted for persistent workers only.
    """

    def __init__(self, source: IndexSource, target: Any) -> None:
        self.source = source
        self.target = target
        self.num_passes = 0


# A cursor lives for one pass and persistent workers for many: they hang on this.
_LINES: WeakKeyDictionary[Any, _Line] = WeakKeyDictionary()


class IndexRoute:
    """A map-style ``DataLoader``, a subclass of it, or one wrapped by Accelerate.

    Args:
        loader: what is iterated.
        owner: the ``DataLoader`` that has the sampler: the same, or the one inside a wrapper.
        worker_seeding: ``'position'`` or ``'torch'``.
        fast_path: whether in-memory tensors are fetched by one index operation.
    """

    kind = "indices"

    def __init__(
        self, loader: Any, owner: Any, worker_seeding: str, *, fast_path: bool = True
    ) -> None:
        self.loader = loader
        self.owner = owner
        self.seeds = worker_seeding == "position" and owner.num_workers > 0
        self.fetch = tensor_fetch(loader) if fast_path else None
        self.key = "sampler" if owner.batch_sampler is None else "batch_sampler"
        # An __iter__ of a subclass may change attributes (it must run on the loader itself) and
        # may join or leave out batches (only loading and dropping comes back to the same place).
        # Accelerate's loads one batch ahead: the random states of each draw are noted.
        stock = type(loader).__iter__ is DataLoader.__iter__
        self.is_shadowed = owner is loader and (
            stock or type(loader).__module__.startswith("torchdata.")
        )
        self.is_followed = self.is_shadowed or owner is not loader
        self.source: IndexSource | None = None
        self.start_samplers: dict[str, Any] = {}
        self.num_passes = 0
        self.earlier_passes = 0

    def open(self) -> Iterator[Any]:
        """Begin a pass."""
        line = self._line()
        self._warm_up(line)
        self.num_passes = line.num_passes
        line.num_passes += 1
        self.start_samplers = read_samplers(self._sampler())
        alone = self.is_shadowed or not self.is_followed
        if self.fetch is None and self.owner.num_workers == 0 and alone:
            self.source = None  # the samplers are never ahead: the loader as it is
            return iter(self.loader)
        return self._follow(line, None)

    def prepare(self, state: dict[str, Any]) -> None:
        """Start persistent workers that had been started in an earlier pass."""
        self.earlier_passes = int(state["num_passes"])
        self._warm_up(self._line())

    def reopen(
        self, state: dict[str, Any], index: int, resume: Callable[[], None]
    ) -> Iterator[Any]:
        """Go on with a pass: the sampler runs to where it was, no sample is loaded."""
        line = self._line()
        self.num_passes = int(state["num_passes"])
        line.num_passes = self.num_passes + 1
        self.start_samplers = state["start_samplers"]
        load_samplers(self._sampler(), self.start_samplers)
        load_dataset(self.owner, state)
        restore = partial(restore_moment, self.loader)
        replay = Replay(state["walk"], index, restore, resume)
        return self._follow(line, replay, state["epoch_seed"])

    def state_dict(self, index: int, *, running: bool) -> dict[str, Any]:
        """Say what the pass needs to be gone on with, or the next one to begin."""
        state = dataset_state(self.owner)
        if not running:
            line = _LINES.get(self.owner)
            earlier = self.earlier_passes if line is None else line.num_passes
            return {**state, "num_passes": earlier, "samplers": read_samplers(self._sampler())}
        walk = None if self.source is None else self.source.walk
        return {
            **state,
            "num_passes": self.num_passes,
            "epoch_seed": None if self.source is None else self.source.epoch_seed,
            "start_samplers": self.start_samplers,
            "walk": walk_state(index, self._sampler()) if walk is None else walk.state_dict(),
        }

    def load_idle(self, state: dict[str, Any]) -> None:
        """Take back what belongs to the loader between two passes."""
        self.earlier_passes = int(state["num_passes"])
        load_samplers(self._sampler(), state["samplers"])
        load_dataset(self.owner, state)

    def _follow(
        self, line: _Line, replay: Replay | None, epoch_seed: int | None = None
    ) -> Iterator[Any]:
        source = self.source = line.source
        source.walk = None
        source.replay = replay if self.is_followed else None
        source.epoch_seed = None
        if self.seeds:
            seed = epoch_seed_from(self.owner.generator, self.num_passes)
            source.epoch_seed = seed if epoch_seed is None else epoch_seed
        looks_ahead = not self.is_shadowed and self.is_followed and self.owner.num_workers == 0
        source.take_moment = partial(read_moment, self.loader) if looks_ahead else None
        if self.fetch is None:
            return self._batches(line, replay)
        iterator = iter(line.target)  # draws what the loader draws at the start of a pass
        walk = line.source.walk
        if walk is None or walk.drawn:  # a DataLoader that is not made as those of today
            return iterator if replay is None else self._batches(line, replay)
        if replay is None:
            self.source = None  # nothing is ever drawn ahead
            return map(self.fetch, walk.inner)
        return self._handed(map(self.fetch, walk), line.source)

    def _batches(self, line: _Line, replay: Replay | None) -> Iterator[Any]:
        if vars(self.owner).get("_initial_iter_for_state_dict"):
            # Accelerate has asked torchdata's loader for its state, which made an iterator before
            # anybody could follow it.
            self.owner.load_state_dict({})
        with self._in_place(line):
            iterator = iter(line.target)
            if self.is_followed:
                first = next(iterator, _END)
                if first is not _END:
                    yield from self._handed(chain([first], iterator), line.source)
                elif replay is not None and not self.is_shadowed:
                    # Saved after the last batch: Accelerate counts a pass only at a batch's end.
                    vars(self.loader)["iteration"] += 1
                return
            line.source.walk = None
            if replay is not None:
                drop(iterator, replay.index)
                replay.resume()
            yield from iterator

    def _handed(self, batches: Iterator[Any], source: IndexSource) -> Iterator[Any]:
        for batch in batches:
            if source.walk is not None:
                source.walk.handed_out()
            yield batch

    @contextmanager
    def _in_place(self, line: _Line) -> Iterator[None]:
        """Put the source in the sampler's place, where that is not done in a shadow."""
        if self.is_shadowed:
            yield
            return
        sampler = vars(self.owner)[self.key]
        vars(self.owner)[self.key] = line.source
        try:
            yield
        finally:
            vars(self.owner)[self.key] = sampler

    def _line(self) -> _Line:
        line = _LINES.get(self.owner)
        if line is None:
            source = IndexSource(self._sampler())
            target = shadow(self.loader, self.key, source) if self.is_shadowed else self.loader
            line = _Line(source, target)
            if self.owner.persistent_workers:
                _LINES[self.owner] = line
        return line

    def _warm_up(self, line: _Line) -> None:
        """Start the persistent workers without a pass, so that this one is not their first.

        The first pass draws a seed for the workers and later ones do not.
        """
        if not self.owner.persistent_workers or line.num_passes or not self.earlier_passes:
            return
        moment = read_moment(self.loader)
        line.source.dry = True
        with self._in_place(line):
            iter(line.target if self.is_shadowed else self.owner)
        line.source.dry = False
        line.num_passes = self.earlier_passes
        restore_moment(self.loader, moment)

    def _sampler(self) -> Any:
        sampler = vars(self.owner)[self.key]
        return sampler.inner_sampler if isinstance(sampler, IndexSource) else sampler
