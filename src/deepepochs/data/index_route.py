"""Walking a map-style ``DataLoader`` by its indices.

The loader's samplers run as they are; an `IndexSource` in front of them follows what they
give. That makes three things possible: a resume that skips indices instead of loading samples,
random streams in worker processes that belong to the batch, and in-memory tensors fetched by
one index operation.

A loader prepared by Accelerate is walked through the ``DataLoader`` inside of it, whose batch
sampler gives this process's share. Accelerate's own iterator would load each batch one step
early, and its random draws with it.

>>> from torch.utils.data import DataLoader
>>> from deepepochs.data.index_route import IndexRoute
>>> loader = DataLoader(range(6), batch_size=2)
>>> list(IndexRoute(loader, "position").open())
[tensor([0, 1]), tensor([2, 3]), tensor([4, 5])]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch.utils.data import DataLoader

from ..nest.containers import move, walk
from .fast_path import tensor_fetch
from .index_walk import IndexSource, Replay, load_samplers, read_samplers, walk_state
from .loader_state import (
    dataset_state,
    drop,
    is_torchdata,
    load_dataset,
    read_moment,
    restore_moment,
    shadow,
    unwrap,
)
from .seeding import epoch_seed_from

__all__ = ["IndexRoute"]


class _Followed:
    """A loader whose sampler is followed.

    Attributes:
        source: in the sampler's place.
        target: the loader to iterate: a shadow of the user's, or itself.
        num_passes: passes begun so far, counted for persistent workers only.
    """

    def __init__(self, source: IndexSource, target: Any) -> None:
        self.source = source
        self.target = target
        self.num_passes = 0


# A cursor lives for one pass, and persistent workers for many: they belong to these.
_PERSISTENT: WeakKeyDictionary[Any, _Followed] = WeakKeyDictionary()


class IndexRoute:
    """A map-style ``DataLoader``, a subclass of it, or one prepared by Accelerate.

    Args:
        loader: what the user or Accelerate has made.
        worker_seeding: ``'position'`` or ``'torch'``.
        fast_path: whether in-memory tensors are fetched by one index operation.
    """

    kind = "indices"

    def __init__(self, loader: Any, worker_seeding: str, *, fast_path: bool = True) -> None:
        self.loader = loader
        self.owner = unwrap(loader)
        self.is_prepared = self.owner is not loader
        self.seeds = worker_seeding == "position" and self.owner.num_workers > 0
        self.fetch = tensor_fetch(self.owner) if fast_path else None
        self.key = "sampler" if self.owner.batch_sampler is None else "batch_sampler"
        # An __iter__ of a subclass may change attributes, so it must run on the loader itself. And
        # it may join or leave out batches: a resume has to load the consumed ones and drop them.
        stock = type(self.owner).__iter__ is DataLoader.__iter__
        self.is_shadowed = stock or is_torchdata(self.owner)
        self.source: IndexSource | None = None
        self.start_samplers: dict[str, Any] = {}
        self.num_passes = 0
        self.earlier_passes = 0

    def open(self) -> Iterator[Any]:
        """Begin a pass."""
        self._set_epoch()
        followed = self._followed()
        self._warm_up(followed)
        self.num_passes = followed.num_passes
        followed.num_passes += 1
        self.start_samplers = read_samplers(self._sampler())
        if self.fetch is None and self.owner.num_workers == 0 and not self.is_prepared:
            self.source = None  # the samplers are never ahead: the loader as it is
            return iter(self.loader)
        return self._follow(followed, None)

    def prepare(self, state: dict[str, Any]) -> None:
        """Start persistent workers that had been started in an earlier pass."""
        self.earlier_passes = int(state["num_passes"])
        self._warm_up(self._followed())

    def reopen(
        self, state: dict[str, Any], index: int, resume: Callable[[], None]
    ) -> Iterator[Any]:
        """Resume a pass: the sampler runs to where it was, no sample is loaded."""
        self._set_epoch()
        followed = self._followed()
        self.num_passes = int(state["num_passes"])
        followed.num_passes = self.num_passes + 1
        self.start_samplers = state["start_samplers"]
        load_samplers(self._sampler(), self.start_samplers)
        load_dataset(self.owner, state)
        replay = Replay(state["walk"], index, resume)
        return self._follow(followed, replay, state["epoch_seed"])

    def state_dict(self, index: int, *, running: bool) -> dict[str, Any]:
        """Give what is needed to resume the pass, or to begin the next one."""
        state = dataset_state(self.owner)
        if not running:
            followed = _PERSISTENT.get(self.owner)
            earlier = self.earlier_passes if followed is None else followed.num_passes
            return {**state, "num_passes": earlier, "samplers": read_samplers(self._sampler())}
        walked = None if self.source is None else self.source.walk
        return {
            **state,
            "num_passes": self.num_passes,
            "epoch_seed": None if self.source is None else self.source.epoch_seed,
            "start_samplers": self.start_samplers,
            "walk": walk_state(index, self._sampler()) if walked is None else walked.state_dict(),
        }

    def load_idle(self, state: dict[str, Any]) -> None:
        """Load the state of the loader between two passes."""
        self.earlier_passes = int(state["num_passes"])
        load_samplers(self._sampler(), state["samplers"])
        load_dataset(self.owner, state)

    def _follow(
        self, followed: _Followed, replay: Replay | None, epoch_seed: int | None = None
    ) -> Iterator[Any]:
        source = self.source = followed.source
        source.walk = None
        source.replay = replay if self.is_shadowed else None
        source.epoch_seed = None
        if self.seeds:
            seed = epoch_seed_from(self.owner.generator, self.num_passes)
            source.epoch_seed = seed if epoch_seed is None else epoch_seed
        batches = self._batches(followed, replay)
        return self._as_prepared(batches) if self.is_prepared else batches

    def _batches(self, followed: _Followed, replay: Replay | None) -> Iterator[Any]:
        if not self.is_shadowed:
            return self._load_and_drop(followed, replay)
        source = followed.source
        iterator = iter(followed.target)  # draws what the loader draws at the start of a pass
        walked = source.walk
        if self.fetch is None or walked is None or walked.drawn:
            # Without a fast path, or in a DataLoader that is not made as those of today.
            return self._handed(iterator, source)
        if replay is None:
            self.source = None  # nothing is ever drawn ahead
            return map(self.fetch, walked.inner)
        return self._handed(map(self.fetch, walked), source)

    def _handed(self, batches: Iterator[Any], source: IndexSource) -> Iterator[Any]:
        for batch in batches:
            if source.walk is not None:
                source.walk.handed_out()
            yield batch

    def _load_and_drop(self, followed: _Followed, replay: Replay | None) -> Iterator[Any]:
        with self._in_place(followed):
            iterator = iter(self.loader)
            followed.source.walk = None
            if replay is not None:
                drop(iterator, replay.index)
                replay.resume()
            yield from iterator

    def _set_epoch(self) -> None:
        if self.is_prepared:
            self.loader.set_epoch(self.loader.iteration)

    def _as_prepared(self, batches: Iterator[Any]) -> Iterator[Any]:
        """Move the batches and count the pass, as Accelerate's own iterator does."""
        device = self.loader.device
        if device is None or torch.device(device).type == "cpu":
            yield from batches
        else:
            to_device = partial(move, args=(device,), kwargs={})
            yield from map(partial(walk, to_device), batches)
        self.loader.set_epoch(self.loader.iteration + 1)

    @contextmanager
    def _in_place(self, followed: _Followed) -> Iterator[None]:
        """Put the source in the sampler's place, where that is not done in a shadow."""
        if self.is_shadowed:
            yield
            return
        sampler = vars(self.owner)[self.key]
        vars(self.owner)[self.key] = followed.source
        try:
            yield
        finally:
            vars(self.owner)[self.key] = sampler

    def _followed(self) -> _Followed:
        followed = _PERSISTENT.get(self.owner)
        if followed is None:
            if is_torchdata(self.owner):
                # Asked for its state, as Accelerate does, it has made an iterator already.
                self.owner.load_state_dict({})
            source = IndexSource(self._sampler())
            target = shadow(self.owner, self.key, source) if self.is_shadowed else self.loader
            followed = _Followed(source, target)
            if self.owner.persistent_workers:
                _PERSISTENT[self.owner] = followed
        return followed

    def _warm_up(self, followed: _Followed) -> None:
        """Start the persistent workers without a pass, so that this one is not their first.

        The first pass draws a seed for the workers and later ones do not.
        """
        if not self.owner.persistent_workers or followed.num_passes or not self.earlier_passes:
            return
        moment = read_moment(self.loader)
        followed.source.dry = True
        with self._in_place(followed):
            iter(followed.target)
        followed.source.dry = False
        followed.num_passes = self.earlier_passes
        restore_moment(self.loader, moment)

    def _sampler(self) -> Any:
        sampler = vars(self.owner)[self.key]
        return sampler.inner_sampler if isinstance(sampler, IndexSource) else sampler
