"""The share of one process in the data of a loader: every sample is in exactly one share.

Accelerate's own shares repeat samples until all are equally long, so that sums over them are
wrong. Here a share may be shorter, and its process runs fillers at the end (see ``Rounds``).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from torch.utils.data import DataLoader, DistributedSampler, IterableDataset

from .. import rng
from ..data.cursor import counts_exactly
from ..errors import ConfigError, DataError

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
                    self._of_loaders[loader] = self._share(loader)
            return self._of_loaders[loader]
        if id(loader) not in self._of_others:
            share = EveryNth(loader, self.num_processes, self.rank)
            self._of_others[id(loader)] = loader, share
        return self._of_others[id(loader)][1]

    @contextlib.contextmanager
    def opened(self, loader: Any) -> Iterator[Any]:
        """Give the share for one pass, in the same order in all processes and without padding.

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
        if kinds:
            synchronize_rng_states(kinds, share.synchronized_generator)
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
            if dataset is None or loader.collate_fn is None:
                batch = next(iter(loader), None)
            else:
                is_stream = isinstance(dataset, IterableDataset)
                if isinstance(dataset, _StreamShare):
                    dataset = dataset.dataset
                sample = next(iter(dataset), None) if is_stream else dataset[0]
                no_batches = loader.batch_size is None and loader.batch_sampler is None
                # Two samples: batch normalisation cannot train on one.
                batch = loader.collate_fn(sample if no_batches else [sample, sample])
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
    """The mini-batches of one process from an iterable of mini-batches: every n-th."""

    def __init__(self, batches: Iterable[Any], num_processes: int, rank: int) -> None:
        self.batches = batches
        self.num_processes = num_processes
        self.rank = rank
        self.seen: Any = None  # the latest mini-batch of any process

    def __iter__(self) -> Iterator[Any]:
        for index, batch in enumerate(self.batches):
            self.seen = batch
            if index % self.num_processes == self.rank:
                yield batch

    @property
    def has_exact_length(self) -> bool:
        """Whether the length cannot be wrong."""
        return counts_exactly(self.batches)

    def __len__(self) -> int:
        total = len(self.batches)  # type: ignore[arg-type]
        return (total - self.rank + self.num_processes - 1) // self.num_processes


class _StreamShare(IterableDataset[Any]):
    """The samples of one process from a stream: blocks of a batch's size in turn."""

    def __init__(self, dataset: Any, block: int, num_processes: int, rank: int) -> None:
        self.dataset = dataset
        self.block = block
        self.num_processes = num_processes
        self.rank = rank

    def __iter__(self) -> Iterator[Any]:
        for index, sample in enumerate(self.dataset):
            if index // self.block % self.num_processes == self.rank:
                yield sample


def _stream_share(loader: Any, holder: Any, size: int | None, shares: Shares) -> DataLoader[Any]:
    """Make the loader of a share of the stream in ``holder.dataset``, set up as ``loader``."""
    share = _StreamShare(holder.dataset, size or 1, shares.num_processes, shares.rank)
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


def is_prepared(thing: Any) -> bool:
    """Whether Accelerate has prepared a model or loader."""
    return bool(getattr(thing, "_is_accelerate_prepared", False))
