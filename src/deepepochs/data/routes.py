"""The ways to walk a loader, and to resume in the middle of it.

A loader is resumed by its indices (a map-style ``DataLoader``), by its own ``state_dict``, by
that of its data set, or else by loading the consumed batches again and dropping them.
`choose_route` picks the most exact way for a loader.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    IterDataPipe,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from ..errors import CheckpointMismatch
from ..nest.codec import is_plain
from ..nest.operations import move, walk
from .fast_path import tensor_fetch
from .followed import (
    StandIn,
    Stateful,
    as_before,
    follow,
    is_torchdata,
    keeps_state,
    leaves_out,
    load_state,
    read_moment,
    restore_moment,
    sampler_objects,
    state_of,
)
from .seeding import CommonStreams, SeededIndices, SeededSampler, epoch_seed_from

_END = object()


@dataclass(frozen=True)
class Replay:
    """What a walk needs to resume where it was saved."""

    state: dict[str, Any]  # of the walk
    index: int  # batches that were handed out
    resume: Callable[[], None]  # restores the random states of the save


class IndexSource(StandIn):
    """Stands in for a loader's batch sampler, or for its sampler where it does not batch.

    All other attributes are the sampler's.
    """

    def __init__(self, sampler: Any, streams: CommonStreams | None = None) -> None:
        self.inner_sampler = sampler
        self.streams = streams
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
        self.walk = IndexWalk(self.inner_sampler, self.streams, self.epoch_seed, self._replay)
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
        self,
        sampler: Any,
        streams: CommonStreams | None = None,
        epoch_seed: int | None = None,
        replay: Replay | None = None,
    ) -> None:
        self._sampler = sampler
        self._streams = streams
        self.inner = self._walked()
        self.drawn = 0
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
        place = position if self._streams is None else self._streams.place(position)
        return SeededIndices(indices, self._epoch_seed, place)

    def _walked(self) -> Iterator[Any]:
        if self._streams is None:
            return iter(self._sampler)
        return self._streams.walk(self._sampler, at_start=draws_at_start(self._sampler))

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
            self.inner = self._walked()
        self.drawn = int(state["drawn"])
        self._is_exhausted = bool(state["exhausted"])
        self._again.extend(replayed if state["waiting"] is None else state["waiting"])
        replay.resume()


def walk_state(drawn: int, sampler: Any) -> dict[str, Any]:
    """Give the state of a walk in which all batches that were drawn were handed out."""
    return {"drawn": drawn, "exhausted": False, "waiting": [], "samplers": read_samplers(sampler)}


_DRAW_AT_START = {RandomSampler, SequentialSampler, SubsetRandomSampler, WeightedRandomSampler}


def draws_at_start(sampler: Any) -> bool:
    """Whether a batch sampler, or its share, draws nothing after its first mini-batch."""
    if type(sampler).__name__ == "BatchSamplerShard":  # Accelerate's
        sampler = sampler.batch_sampler
    if type(sampler) is BatchSampler:
        sampler = sampler.sampler
    return type(sampler) in _DRAW_AT_START


def read_samplers(sampler: Any) -> dict[str, Any]:
    """Read the state of each sampler that has one, by its place."""
    return {name: state_of(one) for name, one in _stateful_samplers(sampler).items()}


def load_samplers(sampler: Any, state: dict[str, Any]) -> None:
    """Load what `read_samplers` read; earlier checkpoints have fewer of those inside of others."""
    found = _stateful_samplers(sampler)
    if not state.keys() <= found.keys():
        raise CheckpointMismatch(
            f"The loader has {len(found)} samplers with a state_dict, and the checkpoint has "
            f"{len(state)}. Build the loader as it was when the checkpoint was written."
        )
    for name in state:
        load_state(found[name], state[name])


def _stateful_samplers(sampler: Any) -> dict[str, Stateful]:
    """Find the samplers with a ``state_dict``, the outermost first."""
    found: dict[str, Stateful] = {}
    seen: set[int] = set()
    name, outermost = "sampler", sampler
    while sampler is not None and id(sampler) not in seen:
        seen.add(id(sampler))
        if keeps_state(sampler):
            found[name] = sampler
        inner = getattr(sampler, "batch_sampler", None)
        sampler = inner if inner is not None else getattr(sampler, "sampler", None)
        name += ".sampler"
    for name, one in sampler_objects(outermost):
        if keeps_state(one) and id(one) not in seen:
            found[name] = one
    return found


_COMMON: WeakKeyDictionary[Any, CommonStreams] = WeakKeyDictionary()


def keep_streams(loader: Any, streams: CommonStreams) -> None:
    """Keep the streams of the loader of a share, which the walk over it asks for."""
    _COMMON[loader] = streams


def streams_of(loader: Any) -> CommonStreams | None:
    """Give the streams of the loader of a share; ``None`` in one process."""
    try:
        return _COMMON.get(loader)
    except TypeError:  # a list
        return None


# The source of a loader, and the loader's shadow if it has one. A cursor lives for one pass and
# persistent workers for many, so theirs are kept.
_PERSISTENT: WeakKeyDictionary[Any, tuple[IndexSource, Any]] = WeakKeyDictionary()


@contextmanager
def own_workers(loader: Any) -> Iterator[None]:
    """Use temporary persistent workers for a loader inside of the block.

    The workers that it has are kept for later. If it has none yet, the next pass after the block
    still counts as its first, which draws the seed of the workers.
    """
    owner = unwrap(loader)
    if not getattr(owner, "persistent_workers", False):
        yield
        return
    kept, iterator = _PERSISTENT.pop(owner, None), owner._iterator
    owner._iterator = None
    try:
        yield
    finally:
        _, twin = _PERSISTENT.pop(owner, (None, None))
        for used in (owner, twin):
            if used is not None and used._iterator is not None:
                used._iterator._shutdown_workers()
        owner._iterator = iterator
        if kept is not None:
            _PERSISTENT[owner] = kept


def first_batch(loader: Any, epoch_idx: int) -> Any:
    """Take the first mini-batch of an epoch; the loader is then as before. ``None``: it gives none.

    A ``None`` in place of a mini-batch is passed over, as in a fit.

    >>> loader = DataLoader([1, 2, 3], shuffle=True)
    >>> bool(first_batch(loader, 0) == next(iter(loader)))
    True
    """
    with as_before(loader, epoch_idx), own_workers(loader):
        return next((batch for batch in loader if batch is not None), None)


class IndexRoute:
    """A map-style ``DataLoader``, a subclass of it, or one prepared by Accelerate."""

    kind = "indices"

    def __init__(self, loader: Any, worker_seeding: str, *, fast_path: bool) -> None:
        self.loader = loader
        self.owner = unwrap(loader)
        self.is_prepared = self.owner is not loader
        self.seeds = worker_seeding == "position" and self.owner.num_workers > 0
        self.fetch = tensor_fetch(self.owner) if fast_path else None
        # An __iter__ of a subclass may change attributes, so it must run on the loader itself. And
        # it may join or leave out batches: a resume has to load the consumed ones and drop them.
        stock = type(self.owner).__iter__ is DataLoader.__iter__
        self.is_shadowed = stock or is_torchdata(self.owner)
        self.streams = streams_of(loader)
        self.source: IndexSource | None = None  # of the present pass; None if nothing loads ahead
        self.start_samplers: dict[str, Any] = {}
        self.num_passes = 0  # before the present one; counted for persistent workers only
        self.earlier_passes = 0  # of the run that is resumed

    def open(self) -> Iterator[Any]:
        """Begin a pass."""
        source, twin = self._start()
        if self.owner.persistent_workers:
            self.num_passes = source.num_passes or self.earlier_passes
        self.start_samplers = read_samplers(sampler_of(self.owner))
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
        load_samplers(sampler_of(self.owner), self.start_samplers)
        load_dataset(self.owner, state)
        return self._follow(source, twin, Replay(state["walk"], index, resume), state["epoch_seed"])

    def state_dict(self, index: int, *, running: bool) -> dict[str, Any]:
        """Give what is needed to resume the pass, or to begin the next one."""
        state = dataset_state(self.owner)
        if not running:
            kept = _PERSISTENT.get(self.owner)
            earlier = self.earlier_passes if kept is None else kept[0].num_passes
            return {
                **state,
                "num_passes": earlier,
                "samplers": read_samplers(sampler_of(self.owner)),
            }
        # Where the consumed batches are loaded again, the walk is not needed.
        walked = None if self.source is None or not self.is_shadowed else self.source.walk
        return {
            **state,
            "num_passes": self.num_passes,
            "epoch_seed": None if self.source is None else self.source.epoch_seed,
            "start_samplers": self.start_samplers,
            "walk": walk_state(index, sampler_of(self.owner))
            if walked is None
            else walked.state_dict(),
        }

    def load_idle(self, state: dict[str, Any]) -> None:
        """Load the state of the loader between two passes."""
        self.earlier_passes = int(state["num_passes"])
        load_samplers(sampler_of(self.owner), state["samplers"])
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
            source = IndexSource(sampler_of(self.owner), self.streams)
            twin = (
                shadow(self.owner, _sampler_name(self.owner), source) if self.is_shadowed else None
            )
            if self.owner.persistent_workers:
                _PERSISTENT[self.owner] = source, twin
        if self.owner.persistent_workers and self.earlier_passes and not source.num_passes:
            # The first pass draws a seed for the workers and later ones do not. So the workers are
            # started without a pass where the present one is not the first of the run.
            moment = read_moment(self.loader)
            with source.dry(), _in_place(self.owner, source):
                iter(self.loader if twin is None else twin)
            restore_moment(self.loader, moment)
        return source, twin

    def _follow(
        self, source: IndexSource, twin: Any, replay: Replay | None = None, seed: int | None = None
    ) -> Iterator[Any]:
        self.source = source
        if self.seeds and seed is None:
            if self.streams is None or self.owner.generator is not None:
                seed = epoch_seed_from(self.owner.generator, self.num_passes)
            else:
                seed = self.streams.epoch_seed(self.num_passes)
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
        with _in_place(self.owner, source):
            iterator = iter(self.loader)
            if replay is not None:
                drop(iterator, replay.index)
                replay.resume()
            yield from iterator

    def end_early(self) -> None:
        """Count a pass that is not walked to its end."""
        if self.is_prepared:
            self.loader.set_epoch(self.loader.iteration + 1)

    def _as_prepared(self, batches: Iterator[Any]) -> Iterator[Any]:
        """Move the batches and count the pass, as Accelerate's own iterator does."""
        device = self.loader.device
        if device is None or torch.device(device).type == "cpu":
            yield from batches
        else:
            to_device = partial(move, args=(device,), kwargs={})
            yield from map(partial(walk, to_device), batches)
        self.loader.set_epoch(self.loader.iteration + 1)


class PlainRoute:
    """Any iterable. A list is resumed by index; of others the consumed batches are dropped."""

    kind = "plain"

    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def open(self) -> Iterator[Any]:
        """Begin a pass."""
        return iter(self.loader)

    def reopen(
        self, state: dict[str, Any], index: int, resume: Callable[[], None]
    ) -> Iterator[Any]:
        """Resume a pass after ``index`` batches; the random states are those of its start.

        ``resume`` restores the random states of the save.
        """
        if type(self.loader) in (list, tuple):
            iterator = islice(self.loader, index, None)
        else:
            iterator = iter(self.loader)
            drop(iterator, index)
        resume()
        return iterator

    def state_dict(self, index: int, *, running: bool) -> dict[str, Any]:
        """Give what is needed to resume the pass, or to begin the next one."""
        return {}

    def load_idle(self, state: dict[str, Any]) -> None:
        """Load the state between two passes."""

    def end_early(self) -> None:
        """Count a pass that is not walked to its end."""


class StatefulRoute(PlainRoute):
    """A loader with ``state_dict`` and ``load_state_dict``, which resumes by itself."""

    kind = "stateful"

    def __init__(self, loader: Any, worker_seeding: str = "torch") -> None:
        super().__init__(loader)
        owner = unwrap(loader)
        self.owner = owner
        self.is_torchdata = is_torchdata(owner)
        # Theirs does not keep the workers' random streams, so each batch gets one by its place.
        self.seeds = self.is_torchdata and worker_seeding == "position" and owner.num_workers > 0
        self.num_passes = 0  # before the present one; counted for persistent workers only
        self.start_samplers: dict[str, Any] = {}

    def open(self) -> Iterator[Any]:
        if not self.seeds:
            return iter(self.loader)
        self.num_passes = self._passes_begun()
        self.start_samplers = read_samplers(sampler_of(self.owner))
        return self._seeded()

    def reopen(
        self, state: dict[str, Any], index: int, resume: Callable[[], None]
    ) -> Iterator[Any]:
        load_state(self.loader, state["loader"])
        if self.seeds and "num_passes" in state:
            self.num_passes, self.start_samplers = state["num_passes"], state["samplers"]
            load_samplers(sampler_of(self.owner), self.start_samplers)
            iterator = self._seeded()
        else:
            with _without_restart(self.loader):
                iterator = iter(self.loader)
        resume()
        return iterator

    def state_dict(self, index: int, *, running: bool) -> dict[str, Any]:
        if running:
            seeded = {"num_passes": self.num_passes, "samplers": self.start_samplers}
            return {**(seeded if self.seeds else {}), "loader": state_of(self.loader)}
        # Between passes theirs make an iterator, which draws and starts workers.
        if self.is_torchdata:
            own = dataset_state(self.loader)
            if self.seeds:
                own["samplers"] = read_samplers(sampler_of(self.owner))
                own["num_passes"] = self._passes_begun()
            return own
        if _is_nodes(self.loader) and self.loader._it is None:
            waiting = self.loader._next_iter_state_dict
            return {} if waiting is None else {"loader": waiting}
        return {"loader": state_of(self.loader)}

    def load_idle(self, state: dict[str, Any]) -> None:
        if _is_nodes(self.loader) and "loader" in state:
            # They draw on the way to the end of the pass that was saved.
            with follow(self.loader).same_generators(self.loader):
                load_state(self.loader, state["loader"])
                iter(self.loader)
        elif "loader" in state:
            load_state(self.loader, state["loader"])
        elif self.is_torchdata:
            self.loader.load_state_dict({})  # forget an iterator that was made too early
            load_dataset(self.loader, state)
            if self.seeds and "num_passes" in state:
                self.num_passes = state["num_passes"]
                load_samplers(sampler_of(self.owner), state["samplers"])

    def _passes_begun(self) -> int:
        kept = _SEEDED.get(self.owner) if self.owner.persistent_workers else None
        return self.num_passes if kept is None else kept.num_passes

    def _seeded(self) -> Iterator[Any]:
        """Begin a pass in which the indices carry seeds to the workers."""
        if not self.owner.persistent_workers or self.owner not in _SEEDED:
            _SEEDED[self.owner] = SeededSampler(sampler_of(self.owner))
        seeded = _SEEDED[self.owner]
        seeded.begin_pass(self.num_passes, epoch_seed_from(self.owner.generator, self.num_passes))
        with _in_place(self.owner, seeded):
            return iter(self.loader)


# The samplers that seed the workers of torchdata's loaders; persistent workers keep theirs.
_SEEDED: WeakKeyDictionary[Any, SeededSampler] = WeakKeyDictionary()


def _is_nodes(loader: Any) -> bool:
    """Whether it is the ``Loader`` of ``torchdata.nodes``."""
    return type(loader).__module__ == "torchdata.nodes.loader"


@contextmanager
def _without_restart(loader: Any) -> Iterator[None]:
    """Keep a ``Loader`` of ``torchdata.nodes`` from loading ahead to see whether it is at its end.

    That would draw before the random states of the save are restored; and at the end of a pass
    the next one would be walked instead.
    """
    if not _is_nodes(loader):
        yield
        return
    restarts, loader.restart_on_stop_iteration = loader.restart_on_stop_iteration, False
    try:
        yield
    finally:
        loader.restart_on_stop_iteration = restarts


class IterableRoute(PlainRoute):
    """A ``DataLoader`` over an iterable data set."""

    kind = "iterable"

    def __init__(self, loader: Any) -> None:
        super().__init__(loader)
        # Worker processes have copies of the data set, whose state cannot be read from here.
        self.is_near = (
            loader.num_workers == 0
            and type(loader).__iter__ is DataLoader.__iter__
            and not isinstance(loader.dataset, IterDataPipe)
            and not leaves_out(loader)
        )
        self.items = _Items(loader.dataset)

    def open(self) -> Iterator[Any]:
        if not self.is_near:
            return iter(self.loader)
        self.items = _Items(self.loader.dataset)
        near: Iterator[Any] = iter(shadow(self.loader, "dataset", self.items))
        return near

    def reopen(
        self, state: dict[str, Any], index: int, resume: Callable[[], None]
    ) -> Iterator[Any]:
        if not state:
            iterator = self.open()
            drop(iterator, index)
            resume()
            return iterator
        load_dataset(self.loader, state)
        iterator = self.open()
        self.items.resume(state)
        resume()
        return iter(()) if self.items.ended else iterator

    def state_dict(self, index: int, *, running: bool) -> dict[str, Any]:
        if not self.is_near:
            return {}
        state = dataset_state(self.loader)
        if running:
            state |= self.items.state_dict()
        return {"ended": running and self.items.ended, **state} if state else {}

    def load_idle(self, state: dict[str, Any]) -> None:
        load_dataset(self.loader, state)


class _Items:
    """An iterable data set that keeps its iterator and knows whether it has ended."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        self.iterator: Any = None
        self.ended = False

    def __iter__(self) -> Iterator[Any]:
        self.iterator = iter(self.dataset)
        self.ended = False
        return self._follow(self.iterator)

    def state_dict(self) -> dict[str, Any]:
        has_state = self.iterator is not self.dataset and keeps_state(self.iterator)
        return {"iterator": state_of(self.iterator)} if has_state else {}

    def resume(self, state: dict[str, Any]) -> None:
        """Load the state of the iterator, if one was saved and it had not ended."""
        self.ended = bool(state["ended"])
        if "iterator" in state and not self.ended:
            load_state(self.iterator, state["iterator"])

    def _follow(self, iterator: Iterator[Any]) -> Iterator[Any]:
        yield from iterator
        self.ended = True


Route = PlainRoute | IndexRoute


def choose_route(loader: Any, worker_seeding: str, *, fast_path: bool) -> Route:
    """Pick the most exact way to walk a loader; the arguments are those of a ``Cursor``."""
    owner = unwrap(loader)
    if not isinstance(owner, DataLoader) or (owner is loader and "base_dataloader" in vars(loader)):
        # What Accelerate has prepared has the methods in any case.
        inner = getattr(loader, "base_dataloader", loader)
        both = keeps_state(loader) and keeps_state(inner)
        return StatefulRoute(loader) if both else PlainRoute(loader)
    if is_torchdata(owner):
        # Its own state leaves out the workers' random streams and samplers that draw from the
        # global generator, so it is used only for state that is inside of the data set.
        has_state = isinstance(owner.dataset, IterableDataset) or keeps_state(owner.dataset)
    else:
        has_state = owner is loader and keeps_state(loader)
    if has_state:
        return StatefulRoute(loader, worker_seeding)
    if isinstance(owner.dataset, IterableDataset):
        return IterableRoute(loader)
    return IndexRoute(loader, worker_seeding, fast_path=fast_path)


def dataset_state(loader: Any) -> dict[str, Any]:
    """Read the state of a data set that has one and lives in this process."""
    dataset = loader.dataset
    if loader.num_workers == 0 and keeps_state(dataset):
        return {"dataset": state_of(dataset)}
    return {}


def load_dataset(loader: Any, state: dict[str, Any]) -> None:
    """Load what `dataset_state` read."""
    if "dataset" in state:
        load_state(loader.dataset, state["dataset"])


def shadow(loader: Any, name: str, value: Any) -> Any:
    """Copy a loader, with one attribute changed; the loader itself is left as it is.

    A ``DataLoader`` refuses such a change after it was made, and a new one would not have the
    attributes of a subclass.
    """
    twin = object.__new__(type(loader))
    vars(twin).update(vars(loader))
    vars(twin)[name] = value
    vars(twin)["_iterator"] = None  # the persistent workers are the loader's own
    return twin


def _sampler_name(owner: DataLoader[Any]) -> str:
    return "sampler" if owner.batch_sampler is None else "batch_sampler"


def sampler_of(owner: DataLoader[Any]) -> Any:
    """Give the batch sampler of a loader, or its sampler where it does not batch."""
    sampler = vars(owner)[_sampler_name(owner)]
    return sampler.inner_sampler if isinstance(sampler, StandIn) else sampler


@contextmanager
def _in_place(owner: DataLoader[Any], source: Any) -> Iterator[None]:
    """Put a source in the place of that sampler, in the loader itself."""
    name = _sampler_name(owner)
    sampler = vars(owner)[name]
    vars(owner)[name] = source
    try:
        yield
    finally:
        vars(owner)[name] = sampler


def unwrap(loader: Any) -> Any:
    """Give the ``DataLoader`` inside a loader prepared by Accelerate, or the loader itself."""
    iterate = getattr(type(loader), "__iter__", None)
    is_shard = getattr(iterate, "__qualname__", "") == "DataLoaderShard.__iter__"
    return loader.base_dataloader if is_shard else loader


def drop(iterator: Iterator[Any], count: int) -> None:
    """Load ``count`` batches and drop them; raise ``CheckpointMismatch`` if there are fewer."""
    for consumed in range(count):
        if next(iterator, _END) is _END:
            raise CheckpointMismatch(
                f"The loader ended after {consumed} mini-batches, and {count} were consumed when the "
                "checkpoint was written. Give the data that it was written with."
            )
