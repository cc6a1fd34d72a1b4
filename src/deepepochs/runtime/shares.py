"""The share of one process in the data of a loader: every sample is in exactly one share.

Accelerate's own shares repeat samples until all are equally long, so that sums over them are
wrong. Here a share may be shorter, and its process runs fillers at the end (see ``Rounds``).
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    default_collate,
    get_worker_info,
)

from .. import rng
from ..data.cursor import counts_exactly
from ..data.routes import keep_streams
from ..data.seeding import CommonStreams
from ..errors import ConfigError, DataError
from .rounds import Sizes

if TYPE_CHECKING:
    from accelerate import Accelerator


# What the loader of a stream's share has in common with the user's.
_SETTINGS = (
    *("num_workers", "collate_fn", "pin_memory", "drop_last", "timeout", "worker_init_fn"),
    *("multiprocessing_context", "generator", "prefetch_factor", "persistent_workers"),
)


class Shares:
    """Gives the share of this process in a loader, for each loader the same object again.

    The processes take whole mini-batches in turn, or split each with ``split_batches``.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator
        self.num_processes: int = accelerator.num_processes
        self.rank: int = accelerator.process_index
        self._of_loaders: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
        # Lists cannot be weak keys.
        self._of_others: dict[int, tuple[Any, Any]] = {}

    def of(self, loader: Any) -> Any:
        """Return this process's share of a loader; a prepared loader is a share already.

        Raises:
            ConfigError: the loader divides its data among the processes by itself.
        """
        if self.num_processes == 1:
            return loader
        if isinstance(loader, DataLoader) or is_prepared(loader):
            if loader not in self._of_loaders:
                # It may draw a seed, and a resumed process makes it elsewhere: undo the draw.
                with rng.preserved():
                    share = self._of_loaders[loader] = self._share(loader)
                self._keep_streams(share)
            return self._of_loaders[loader]
        if id(loader) not in self._of_others:
            share = EveryNth(loader, self._streams())
            keep_streams(share, share.streams)
            self._of_others[id(loader)] = loader, share
        return self._of_others[id(loader)][1]

    def _streams(self, *, splits: bool = False) -> CommonStreams:
        return CommonStreams(self.num_processes, self.rank, splits=splits)

    def _keep_streams(self, share: Any) -> None:
        dataset = getattr(share, "dataset", None)
        if isinstance(dataset, _StreamShare):
            keep_streams(share, dataset.streams)
            return
        inner = getattr(share, "base_dataloader", share)
        shards = getattr(inner, "batch_sampler", None), getattr(inner, "sampler", None)
        splits = any(getattr(shard, "split_batches", False) for shard in shards)
        keep_streams(share, self._streams(splits=splits))

    @contextlib.contextmanager
    def opened(self, loader: Any) -> Iterator[Any]:
        """Give the share for one pass: nothing is padded, and its generator is the same in all processes.

        All processes must call it at the same time.
        """
        from accelerate.data_loader import BatchSamplerShard, DataLoaderShard
        from accelerate.utils import synchronize_rng_states

        share = self.of(loader)
        if self.num_processes == 1 or not isinstance(share, DataLoaderShard):
            yield share
            return
        # Accelerate synchronizes the random states inside of __iter__, which a process that is
        # resumed without data left does not call: the others would wait for it.
        kinds, share.rng_types = share.rng_types, None
        # Of the global states each process has its own.
        if "generator" in [getattr(kind, "value", kind) for kind in kinds or ()]:
            synchronize_rng_states(["generator"], share.synchronized_generator)
        shard = share.batch_sampler
        evens = isinstance(shard, BatchSamplerShard) and shard.even_batches
        if evens:
            shard.even_batches = False
        try:
            yield share
        finally:
            share.rng_types = kinds
            if evens:
                shard.even_batches = True

    def filler(self, loader: Any) -> Any:
        """Make a mini-batch from samples of the data, for a process that got none."""
        if isinstance(loader, EveryNth):
            if loader.seen is not None:
                return loader.seen
            loader = loader.batches
        dataset = getattr(loader, "dataset", None)
        with rng.preserved():
            batches: Iterable[Any] = loader
            if dataset is not None and loader.collate_fn is not None:
                is_stream = isinstance(dataset, IterableDataset)
                if isinstance(dataset, _StreamShare):
                    dataset = dataset.dataset
                size = len(dataset) if hasattr(dataset, "__len__") else 1
                samples = dataset if is_stream else (dataset[index] for index in range(size))
                no_batches = loader.batch_size is None and loader.batch_sampler is None
                # Two samples: batch normalisation cannot train on one.
                batches = (loader.collate_fn(s if no_batches else [s, s]) for s in samples)
            batch = next((batch for batch in batches if batch is not None), None)
        if batch is None:
            raise DataError(
                f"Process {self.rank} of {self.num_processes} got no mini-batch from "
                f"{type(loader).__name__}, and others did: is it an iterator that was walked before?"
            )
        return batch

    def _share(self, loader: Any) -> Any:
        from accelerate.data_loader import IterableDatasetShard, prepare_data_loader

        if isinstance(getattr(loader, "sampler", None), DistributedSampler):
            raise ConfigError(
                "The loader has a DistributedSampler, which repeats samples: give the plain "
                "DataLoader with shuffle=True. The trainer divides its data among the processes."
            )
        split = bool(self._accelerator.split_batches)
        if isinstance(loader.dataset, IterableDatasetShard):
            return _stream_share(loader, loader.dataset, loader.batch_size, self)
        if is_prepared(loader):
            return loader
        if isinstance(loader.dataset, IterableDataset):
            size = loader.batch_size
            if split and size is not None:
                size = _split(size, self.num_processes)
            return _stream_share(loader, loader, size, self)
        if split and loader.batch_size is not None:
            _split(loader.batch_size, self.num_processes)
        return prepare_data_loader(
            loader,
            num_processes=self.num_processes,
            process_index=self.rank,
            split_batches=split,
            put_on_device=False,
            rng_types=list(self._accelerator.rng_types or ()),
            dispatch_batches=False,
            even_batches=False,
        )


class EveryNth:
    """The mini-batches of one process from an iterable of mini-batches: every n-th.

    All processes make all mini-batches, and draw alike for them.
    """

    def __init__(self, batches: Iterable[Any], streams: CommonStreams) -> None:
        self.batches = batches
        self.streams = streams
        self.seen: Any = None  # the latest mini-batch of any process

    def __iter__(self) -> Iterator[Any]:
        drawn = not isinstance(self.batches, (list, tuple))
        return self.streams.walk(self._own()) if drawn else self._own()

    def _own(self) -> Iterator[Any]:
        for index, batch in enumerate(self.batches):
            self.seen = batch
            if index % self.streams.num_processes == self.streams.rank:
                yield batch

    @property
    def has_exact_length(self) -> bool:
        """Whether the length cannot be wrong."""
        return counts_exactly(self.batches)

    def __len__(self) -> int:
        total, streams = len(self.batches), self.streams  # type: ignore[arg-type]
        return (total - streams.rank + streams.num_processes - 1) // streams.num_processes


class _StreamShare(IterableDataset[Any]):
    """The samples of one process from a stream: blocks of a batch's size in turn.

    All processes walk the whole stream, and draw alike on the way.
    """

    def __init__(self, dataset: Any, block: int, streams: CommonStreams) -> None:
        self.dataset = dataset
        self.block = block
        self.streams = streams

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        if self.streams.rank and worker is not None:
            # What else is drawn there, as by the collate function, is each process's own.
            rng.use_seeds(rng.derive_seeds(f"process {self.streams.rank}"))
        return chain.from_iterable(self.streams.walk(self._blocks()))

    def _blocks(self) -> Iterator[list[Any]]:
        """A block at a time: to change the random streams takes longer than most samples."""
        samples, others = iter(self.dataset), self.streams.rank * self.block
        while True:
            deque(islice(samples, others), maxlen=0)
            own = list(islice(samples, self.block))
            if not own:
                return
            yield own
            others = (self.streams.num_processes - 1) * self.block


def _stream_share(loader: Any, holder: Any, size: int | None, shares: Shares) -> DataLoader[Any]:
    """Make the loader of a share of the stream in ``holder.dataset``, set up as ``loader``."""
    streams = CommonStreams(shares.num_processes, shares.rank)
    share = _StreamShare(holder.dataset, size or 1, streams)
    settings = {name: getattr(loader, name) for name in _SETTINGS}
    return DataLoader(share, batch_size=size, **settings)


def _split(size: int, num_processes: int) -> int:
    """Return the number of samples of one process in a mini-batch that is split."""
    if size % num_processes:
        raise ConfigError(
            f"split_batches=True: mini-batches of {size} samples cannot be shared by "
            f"{num_processes} processes. Give a batch_size that they divide."
        )
    return size // num_processes


def sizes_of(share: Any) -> Sizes | None:
    """Give what the mini-batches of a process's share weigh, if that is known beforehand.

    It does where torch's own batch sampler makes them, in turns for the processes, and torch's own
    collate function stacks their samples.
    """
    inner: Any = getattr(share, "base_dataloader", None)
    shard: Any = getattr(inner, "batch_sampler", None)
    sampler = getattr(shard, "batch_sampler", None)
    if type(sampler) is not BatchSampler or inner.collate_fn is not default_collate:
        return None
    if shard.split_batches or shard.even_batches or not counts_exactly(share):
        return None
    return share_of_sizes(
        len(sampler.sampler),  # type: ignore[arg-type]
        sampler.batch_size,
        shard.num_processes,
        shard.process_index,
        drop_last=sampler.drop_last,
    )


def share_of_sizes(
    num_samples: int, batch_size: int, num_processes: int, rank: int, *, drop_last: bool
) -> Sizes:
    """Give the sizes of every ``num_processes``-th mini-batch, from number ``rank`` on.

    >>> share_of_sizes(70, 16, 2, 0, drop_last=False)  # 16, 16, 6
    Sizes(full=16, num_full=2, last=6)
    >>> share_of_sizes(70, 16, 2, 1, drop_last=False)  # 16, 16
    Sizes(full=16, num_full=2, last=0)
    """
    num_full, rest = divmod(num_samples, batch_size)
    own_full = (num_full - rank + num_processes - 1) // num_processes
    has_rest = bool(rest) and not drop_last and num_full % num_processes == rank
    return Sizes(batch_size, max(0, own_full), rest if has_rest else 0)


def is_prepared(thing: Any) -> bool:
    """Whether Accelerate has prepared a model or loader."""
    return bool(getattr(thing, "_is_accelerate_prepared", False))
