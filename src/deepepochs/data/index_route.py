"""Walking a map-style ``DataLoader`` by its indices.

The loader's samplers run as they are, and an `IndexSource` in front of them follows what they
give. That makes three things possible: a resume that skips indices instead of loading samples,
random streams in worker processes that belong to the batch, and in-memory tensors fetched by
one index operation.

A loader prepared by Accelerate is walked through the ``DataLoader`` inside of it, whose batch
sampler gives this process's share. Accelerate's own iterator would load each batch one step
early, and make its random draws early.
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

# The source of a loader, and the loader's shadow if it has one. A cursor lives for one pass and
# persistent workers for many, so theirs are kept.
_PERSISTENT: WeakKeyDictionary[Any, tuple[IndexSource, Any]] = WeakKeyDictionary()


class IndexRoute:
    """A map-style ``DataLoader``, a subclass of it, or one prepared by Accelerate."""

    kind = "indices"

    def __init__(self, loader: Any, worker_seeding: str, *, fast_path: bool) -> None:
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
        self.source: IndexSource | None = None  # of the present pass; None if nothing loads ahead
        self.start_samplers: dict[str, Any] = {}
        self.num_passes = 0  # before the present one; counted for persistent workers only
        self.earlier_passes = 0  # of the run that is resumed

    def open(self) -> Iterator[Any]:
        """Begin a pass."""
        source, twin = self._start()
        if self.owner.persistent_workers:
            self.num_passes = source.num_passes or self.earlier_passes
        self.start_samplers = read_samplers(self._sampler())
        if self.fetch is None and self.owner.num_workers == 0 and not self.is_prepared:
            return iter(self.loader)
        return self._follow(source, twin)

    def reopen(
        self, state: dict[str, Any], index: int, resume: Callable[[], None]
    ) -> Iterator[Any]:
        """Resume a pass: the sampler runs to where it was, no sample is loaded."""
        self.num_passes = self.earlier_passes = int(state["num_passes"])
        source, twin = self._start()
        self.start_samplers = state["start_samplers"]
        load_samplers(self._sampler(), self.start_samplers)
        load_dataset(self.owner, state)
        return self._follow(source, twin, Replay(state["walk"], index, resume), state["epoch_seed"])

    def state_dict(self, index: int, *, running: bool) -> dict[str, Any]:
        """Give what is needed to resume the pass, or to begin the next one."""
        state = dataset_state(self.owner)
        if not running:
            kept = _PERSISTENT.get(self.owner)
            earlier = self.earlier_passes if kept is None else kept[0].num_passes
            return {**state, "num_passes": earlier, "samplers": read_samplers(self._sampler())}
        # Where the consumed batches are loaded again, the walk is not needed.
        walked = None if self.source is None or not self.is_shadowed else self.source.walk
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

    def _start(self) -> tuple[IndexSource, Any]:
        """Give the source and the shadow for a pass, with persistent workers running if needed."""
        if self.is_prepared:
            self.loader.set_epoch(self.loader.iteration)
        if self.owner in _PERSISTENT:
            source, twin = _PERSISTENT[self.owner]
        else:
            if is_torchdata(self.owner):
                # Accelerate has read its state, and so it has made an iterator already.
                self.owner.load_state_dict({})
            source = IndexSource(self._sampler())
            twin = shadow(self.owner, self.key, source) if self.is_shadowed else None
            if self.owner.persistent_workers:
                _PERSISTENT[self.owner] = source, twin
        if self.owner.persistent_workers and self.earlier_passes and not source.num_passes:
            # The first pass draws a seed for the workers and later ones do not. So the workers are
            # started without a pass where the present one is not the first of the run.
            moment = read_moment(self.loader)
            with source.dry(), self._in_place(source):
                iter(self.loader if twin is None else twin)
            restore_moment(self.loader, moment)
        return source, twin

    def _follow(
        self, source: IndexSource, twin: Any, replay: Replay | None = None, seed: int | None = None
    ) -> Iterator[Any]:
        self.source = source
        if self.seeds and seed is None:
            seed = epoch_seed_from(self.owner.generator, self.num_passes)
        source.begin_pass(
            self.num_passes, seed if self.seeds else None, replay if self.is_shadowed else None
        )
        batches = self._batches(source, twin, replay)
        return self._as_prepared(batches) if self.is_prepared else batches

    def _batches(self, source: IndexSource, twin: Any, replay: Replay | None) -> Iterator[Any]:
        if not self.is_shadowed:
            return self._load_and_drop(source, replay)
        iterator = iter(twin)  # draws what the loader draws at the start of a pass
        walked = source.walk
        if self.fetch is None or walked is None or walked.drawn:
            # Without a fast path, or in a DataLoader that is not made as those of today.
            return self._handed(iterator, source)
        if replay is None:
            self.source = None
            return map(self.fetch, walked.inner)
        return self._handed(map(self.fetch, walked), source)

    def _handed(self, batches: Iterator[Any], source: IndexSource) -> Iterator[Any]:
        for batch in batches:
            if source.walk is not None:
                source.walk.handed_out()
            yield batch

    def _load_and_drop(self, source: IndexSource, replay: Replay | None) -> Iterator[Any]:
        with self._in_place(source):
            iterator = iter(self.loader)
            if replay is not None:
                drop(iterator, replay.index)
                replay.resume()
            yield from iterator

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
    def _in_place(self, source: IndexSource) -> Iterator[None]:
        """Put the source in the sampler's place in the loader itself; a shadow has it there."""
        if self.is_shadowed:
            yield
            return
        sampler = vars(self.owner)[self.key]
        vars(self.owner)[self.key] = source
        try:
            yield
        finally:
            vars(self.owner)[self.key] = sampler

    def _sampler(self) -> Any:
        sampler = vars(self.owner)[self.key]
        return sampler.inner_sampler if isinstance(sampler, IndexSource) else sampler
