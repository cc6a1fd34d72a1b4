"""Walking a loader: where it is, and how to resume there.

A `Cursor` walks one loader once. Its state can be saved in the middle, and loaded into a cursor
over the same loader in another process: that gives exactly the unread batches, with all that is
drawn at random on the way.

>>> import torch
>>> from torch.utils.data import DataLoader
>>> from deepepochs.data.cursor import Cursor
>>> loader = DataLoader(range(6), batch_size=2)
>>> cursor = Cursor(loader)
>>> for index, batch in cursor:
...     if index == 0:
...         break
>>> resumed = Cursor(loader)
>>> resumed.load_state_dict(cursor.state_dict())
>>> list(resumed)
[(1, tensor([2, 3])), (2, tensor([4, 5]))]
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import chain, islice
from typing import Any

from torch.utils.data import DataLoader, IterableDataset

from .. import rng
from ..errors import CheckpointMismatch, ConfigError, warn_user
from .followed import follow, read_moment, restore_moment
from .routes import Route, choose_route, streams_of, unwrap

# Packages whose loaders and samplers know how many batches they give.
KNOWN = frozenset(["torch", "torchdata", "accelerate"])
MOST_NESTED = 10  # samplers inside of each other


class Cursor:
    """Walks one DataLoader (or any iterable of batches) once, and can be saved and resumed.

    A resumed walk gives the batches and random states of a walk that was not stopped for:

    - map-style ``DataLoader``, subclasses that keep its ``__iter__``, and loaders prepared by
      Accelerate, with any sampler, batch sampler and generator, and any number of workers.
      Consumed samples are skipped: only the samplers run.
    - augmentation that draws from torch, NumPy and Python, in this process or in workers
      (there with ``worker_seeding='position'``), or, in this process, from generators of its own.
    - what samplers, data sets, transforms and the collate function count or shuffle: see
      `Followed`.
    - lists; loaders, iterable data sets and their iterators with ``state_dict`` and
      ``load_state_dict``.

    For all else (other iterables, iterable data sets without state, subclasses with their own
    ``__iter__``) the consumed batches are loaded again and dropped. That is exact if the same
    random states at the start give the same batches.

    A resume is not exact for state that a data set keeps elsewhere or in its worker processes;
    for iterable data sets whose persistent workers have made a pass before; for
    ``in_order=False`` with workers, which has no fixed order; and for a sampler without
    ``state_dict`` that draws one by one from the *global* generator and remembers what it drew.

    Args:
        loader: a ``DataLoader`` or any iterable of batches.
        worker_seeding: ``'position'`` seeds torch, NumPy and Python in the worker for each batch,
            from the epoch's seed and the batch's position, so that augmentation depends neither
            on the number of workers nor on what they load ahead. ``'torch'`` leaves PyTorch's one
            seed per worker, as it is for iterable data sets in any case. Without workers nothing
            is seeded.
        fast_path: whether batches of in-memory tensors are fetched by one index operation,
            where that gives the same batches and random states as the loader.

    Attributes:
        length: batches of this pass; ``None`` if the loader has no length.
        has_exact_length: whether that cannot be wrong.
        is_divided: whether the length is only a guess: of a stream that workers divide or repeat,
            or one without a length that is limited.
        index: batches handed out so far.
        num_skipped: those of them that were ``None``, which a collate function gives to leave
            out a batch.

    Raises:
        ConfigError: ``worker_seeding`` is neither.
    """

    def __init__(
        self, loader: Iterable[Any], *, worker_seeding: str = "position", fast_path: bool = True
    ) -> None:
        if worker_seeding not in ("position", "torch"):
            raise ConfigError(f"worker_seeding is {worker_seeding!r}: give one of position, torch.")
        self.loader = loader
        self.length = _length_of(loader)
        self.index = 0
        self.num_skipped = 0
        self.has_exact_length = counts_exactly(loader)
        self.is_divided = _divides_stream(loader)
        self._followed = follow(loader)
        self._route: Route = choose_route(loader, worker_seeding, fast_path=fast_path)
        self._streams = streams_of(loader)
        self._start: dict[str, Any] | None = None  # of the walk, while it lasts
        self._resume: dict[str, Any] | None = None
        self._was_loaded = False
        self._limit: int | None = None

    def begin_streams(self, seed: int) -> None:
        """Begin the streams that the processes draw from alike, with the same seed in all."""
        if self._streams is not None:
            self._streams.begin(seed)

    def limit_to(self, count: int) -> None:
        """Walk the first ``count`` batches only, and load no others."""
        if self.has_exact_length and self.length is not None and count >= self.length:
            return
        self._limit = count
        self.is_divided = self.is_divided or self.length is None
        self.length = count if self.length is None else min(count, self.length)

    @property
    def is_last(self) -> bool | None:
        """Whether the batch just handed out is the last one; ``None`` if unknown."""
        known = self.has_exact_length and self.length is not None
        return self.index >= self.length if known else None  # type: ignore[operator]

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        """Yield ``(index, batch)``, from where a loaded state was saved."""
        iterator = self._open() if self._resume is None else self._reopen(self._resume)
        index = self.index
        if self._limit is not None:
            iterator = islice(iterator, self._limit - index)
        for batch in iterator:
            self.index = index + 1
            yield index, batch
            index += 1
        if index == self._limit:
            self._route.end_early()
        self._start = None

    def skip(self) -> None:
        """Count a batch that was handed out as ``None``."""
        self.num_skipped += 1

    def state_dict(self) -> dict[str, Any]:
        """Say where the walk is, after ``index`` batches were consumed.

        Call it between batches, together with `deepepochs.rng.get_state`. Before the first batch
        and after the last one it is the state that the loader's next pass begins with, such as
        that of its generators.
        """
        if self._resume is not None:
            return self._resume
        is_running = self._start is not None
        return {
            "kind": self._route.kind,
            "running": is_running,
            "index": self.index if is_running else 0,
            "skipped": self.num_skipped if is_running else 0,
            "length": self.length,
            "start": self._start,
            "parts": self._followed.read(self.loader),
            "is_followed": True,
            "route": self._route.state_dict(self.index, running=is_running),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume where ``state`` was saved, when the cursor is walked.

        Restore the global random states of the save before the walk.

        Raises:
            CheckpointMismatch: the loader is not of the saved one's kind or length.
        """
        if state["kind"] != self._route.kind:
            raise CheckpointMismatch(
                f"The checkpoint was written with a loader that is walked by {state['kind']!r}, "
                f"and this one ({type(self.loader).__name__}) is walked by {self._route.kind!r}. "
                "Give the loader that it was written with."
            )
        if state.get("is_followed"):  # earlier checkpoints have fewer of the generators
            self._followed.check(self.loader, state["parts"])
        if not state["running"]:
            self._followed.restore(self.loader, state["parts"])
            self._route.load_idle(state["route"])
            self._followed.note_stuck(self.loader, state["parts"])
            self._was_loaded = True
            return
        if state["length"] != self.length:
            raise CheckpointMismatch(
                f"The checkpoint was written in the middle of {state['length']} mini-batches, and "
                f"this loader ({type(self.loader).__name__}) has {self.length}. Give the loader "
                "that it was written with, or a checkpoint from the end of an epoch."
            )
        self.index = int(state["index"])
        self.num_skipped = int(state.get("skipped", 0))  # earlier checkpoints have none
        self._resume = dict(state)

    def _open(self) -> Iterator[Any]:
        self.index = self.num_skipped = 0
        start = self._start = read_moment(self.loader)
        if self._streams is not None:
            start["order"] = self._streams.seed
        iterator = self._followed.releasing(self._route.open())
        if not self._was_loaded:
            return iterator
        self._was_loaded = False
        if first := list(islice(iterator, 1)):
            return chain(first, iterator)
        # The state of a sampler or loader said "at the end": now it begins anew.
        restore_moment(self.loader, start)
        if self._streams is not None:
            self._streams.begin(self._streams.seed)
        return self._route.open()

    def _reopen(self, state: dict[str, Any]) -> Iterator[Any]:
        self._start = state["start"]
        now = {"rng": rng.get_state(), "parts": state["parts"]}
        restore_moment(self.loader, state["start"])
        if self._streams is not None and "order" in state["start"]:
            self._streams.begin(state["start"]["order"])
        self._resume = None
        # Without this cursor in it, which would be a circle that keeps the loader alive.
        restore = partial(restore_moment, self.loader, now)
        iterator = self._route.reopen(state["route"], self.index, restore)
        self._followed.note_stuck(self.loader, state["parts"])
        return self._followed.releasing(iterator)


def _length_of(loader: Any) -> int | None:
    try:
        return len(loader)
    except (TypeError, NotImplementedError):
        return None


def counts_exactly(loader: Any) -> bool:
    """Whether the length of a loader is that of its passes, with no ``__len__`` of the user's.

    Streams, batch samplers that fill up to a number of tokens and the like often say a length
    that is only about right.
    """
    if type(loader) in (list, tuple):
        return True
    if hasattr(type(loader), "has_exact_length"):  # a share of another loader
        return bool(loader.has_exact_length)
    owner = unwrap(loader)
    if not isinstance(owner, DataLoader) or isinstance(owner.dataset, IterableDataset):
        return False
    counts: list[Any] = [loader, owner]
    sampler: Any = owner.sampler if owner.batch_sampler is None else owner.batch_sampler
    while sampler is not None and len(counts) < MOST_NESTED:
        counts.append(sampler)
        inner = getattr(sampler, "batch_sampler", None)
        sampler = inner if inner is not None else getattr(sampler, "sampler", None)
    return all(type(one).__module__.partition(".")[0] in KNOWN for one in counts)


def _divides_stream(loader: Any) -> bool:
    owner = unwrap(loader)
    is_stream = isinstance(owner, DataLoader) and isinstance(owner.dataset, IterableDataset)
    return is_stream and owner.num_workers > 1


class Loaders:
    """The loaders of the latest fit, and those of earlier fits that are still there."""

    def __init__(self) -> None:
        self._loaders: dict[str, Any] = {}
        self._prepared: dict[int, Cursor] = {}
        self._idle: dict[int, Cursor] = {}  # read the state of loaders that are not walked
        self._earlier: dict[str, weakref.ref[Any]] = {}
        self._told: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        # A copy of a trainer has its own data; a weak reference cannot be pickled.
        return {**vars(self), "_earlier": {}}

    @property
    def first(self) -> Any:
        """The first loader of the latest fit; ``None`` before a fit."""
        return next(iter(self._loaders.values()), None)

    def keep(self, loaders: Mapping[str, Any], fit_idx: int) -> None:
        """Know the loaders of a fit, from 0, as long as they live: a later fit may walk them.

        To keep them would keep the data of all fits in memory.
        """
        there = {label: each for label, each in self._earlier.items() if each() is not None}
        for label, loader in loaders.items():
            with contextlib.suppress(TypeError):  # a list has no state and no weak references
                there[f"{fit_idx}:{label}"] = weakref.ref(loader)
        self._earlier = there

    def begin(
        self,
        loaders: Mapping[str, Any],
        worker_seeding: str,
        saved: Mapping[str, Any] | None,
        fit_idx: int = 0,
    ) -> None:
        """Begin a fit with the loaders of this process, by ``<stage>/<index of the task>``.

        The saved state of all is loaded at once: they may share a data set with a generator,
        which the first pass advances.
        """
        self._loaders, self._idle = {}, {}
        for label, loader in loaders.items():
            if not any(loader is other for other in self._loaders.values()):
                self._loaders[label] = loader
                follow(loader)  # its values of now are what later ones are compared with
        here = self._known()
        kept = {id(loader) for loader in here.values()} if saved is None else set()
        self._prepared = {key: cursor for key, cursor in self._prepared.items() if key in kept}
        for label, state in (saved or {}).items():
            if label not in here:
                if ":" not in label:
                    _warn_of_other_loader(label, "this fit has no such loader")
                continue
            cursor = Cursor(here[label], worker_seeding=worker_seeding)
            try:
                cursor.load_state_dict(state)
            except CheckpointMismatch as error:
                _warn_of_other_loader(label, str(error))
            else:
                self._prepared[id(cursor.loader)] = cursor
        self.keep(self._loaders, fit_idx)

    def cursor(self, loader: Any, worker_seeding: str) -> Cursor:
        """Give the cursor of a pass that begins."""
        prepared = self._prepared.pop(id(loader), None)
        return prepared or Cursor(loader, worker_seeding=worker_seeding)

    def state_dict(self, walked: Any = None) -> dict[str, Any]:
        """The state of every loader except ``walked``, whose pass has it."""
        self._warn_of_unread()
        return {
            label: (self._prepared.get(id(loader)) or self._idle_cursor(loader)).state_dict()
            for label, loader in self._known().items()
            if loader is not walked
        }

    def _known(self) -> dict[str, Any]:
        """The loaders of the latest fit by label, and of earlier ones by ``<fit>:<label>``."""
        known = dict(self._loaders)
        for label, reference in self._earlier.items():
            loader = reference()
            if loader is not None and not any(loader is other for other in known.values()):
                known[label] = loader
        return known

    def _idle_cursor(self, loader: Any) -> Cursor:
        if id(loader) not in self._idle:
            self._idle[id(loader)] = Cursor(loader, fast_path=False)
        return self._idle[id(loader)]

    def unread(self) -> Iterator[tuple[str, str, str]]:
        """Give what draws or counts and cannot be read: where it is, why, and the remedy."""
        for label, loader in self._loaders.items():
            for name, why, remedy in follow(loader).unread(loader):
                yield f"{name.removeprefix('loader.')} of the loader of {label}", why, remedy

    def _warn_of_unread(self) -> None:
        for where, why, remedy in self.unread():
            if where not in self._told:
                self._told.add(where)
                warn_user(
                    f"{where} {why}: a resume from this checkpoint is not exact to the bit. "
                    f"{remedy} trainer.verify_resume(...) shows what differs.",
                    UserWarning,
                )


def _warn_of_other_loader(label: str, why: str) -> None:
    warn_user(
        f"The checkpoint was saved with another loader of {label}. The fit resumes with other data, so "
        f"its results differ from those of the unbroken run: {why}",
        UserWarning,
    )
