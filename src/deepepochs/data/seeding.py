"""Seeds for worker processes that depend on the batch and not on the worker.

PyTorch seeds each worker process once, so what augmentation draws for a sample depends on
how many workers there are and on which batches a worker has loaded before: it cannot be
resumed in the middle of an epoch. Here the indices of each batch carry a seed, made of the
epoch's seed and the batch's position, and the worker is seeded when they arrive.

In several processes each draws on its own, and the order of the samples is drawn alike in all:
the samplers and streams of a loader draw from its ``CommonStreams``.
"""

from __future__ import annotations

import functools
import hashlib
import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.data import get_worker_info

from .followed import StandIn


def epoch_seed_from(generator: torch.Generator | None, num_passes: int = 0) -> int:
    """Derive an epoch's seed, 0 to 2**63 - 1, from a generator's state, without a draw.

    The passes of persistent workers count, too: PyTorch draws nothing at the start of later
    ones, so the generator may be in the state of the pass before.
    """
    state = torch.get_rng_state() if generator is None else generator.get_state()
    digest = hashlib.blake2b(state.numpy().tobytes(), digest_size=8)
    digest.update(num_passes.to_bytes(8, "little"))
    return int.from_bytes(digest.digest(), "little") >> 1


def seed_streams(epoch_seed: int, position: int | str) -> None:
    """Seed Python, NumPy and torch for the batch at ``position`` in the epoch, from 0."""
    for_torch, for_python, for_numpy = _seeds_at(epoch_seed, position)
    seed_torch(for_torch)
    random.seed(for_python)
    np.random.seed(for_numpy)


def seed_torch(seed: int) -> None:
    """Do what ``torch.manual_seed`` does, which takes 100 us to look for accelerators.

    Where there is none that this process can use, it seeds the generator of the CPU alone.
    """
    if can_use_accelerator():
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


@functools.cache
def can_use_accelerator() -> bool:
    """Whether this process can draw on an accelerator: not in a fork of one that has used CUDA."""
    return torch.accelerator.is_available() and not torch.cuda._is_in_bad_fork()


def _seeds_at(epoch_seed: int, position: int | str) -> tuple[int, int, Any]:
    words = hashlib.blake2b(f"{epoch_seed}/{position}".encode(), digest_size=32).digest()
    for_torch = int.from_bytes(words[:8], "little") >> 1
    return for_torch, int.from_bytes(words[8:16], "little"), np.frombuffer(words[16:], np.uint32)


class CommonStreams:
    """The random streams that the order of a loader's samples is drawn from in several processes.

    They begin alike in all processes, whatever each has drawn of its own, so that all have the
    same order and every sample is in exactly one share.

    Args:
        num_processes: of the run.
        rank: of this process, from 0.
        splits: each mini-batch is split among the processes, which do not take them in turn.

    Attributes:
        seed: of the present pass.
    """

    def __init__(self, num_processes: int, rank: int, *, splits: bool = False) -> None:
        self.num_processes = num_processes
        self.rank = rank
        self.splits = splits
        self.seed = 0
        self._states: Any = None  # where the streams are; None: at their beginning

    def begin(self, seed: int) -> None:
        """Begin a pass, with the same seed in all processes."""
        self.seed = seed
        self._states = None

    def epoch_seed(self, num_passes: int) -> int:
        """Give the seed for workers of the present pass, see ``epoch_seed_from``."""
        if not num_passes:
            return self.seed
        words = hashlib.blake2b(f"{self.seed}/{num_passes}".encode(), digest_size=8).digest()
        return int.from_bytes(words, "little") >> 1

    def place(self, position: int) -> int | str:
        """Give the place in the epoch of the mini-batch at a position in this process's share."""
        if not self.splits:
            return position * self.num_processes + self.rank
        return f"{position}/{self.rank}" if self.rank else position

    def walk(self, batches: Iterable[Any], *, at_start: bool = False) -> Iterator[Any]:
        """Walk something that draws from these streams; ``at_start``: before its first item only.

        Its iterator is made at once.
        """
        with self._drawn_from():
            iterator = iter(batches)
        return self._items(iterator, at_start)

    def _items(self, iterator: Iterator[Any], at_start: bool) -> Iterator[Any]:
        while True:
            with self._drawn_from():
                item = next(iterator, _END)
            if item is _END:
                return
            yield item
            if at_start:
                yield from iterator
                return

    @contextmanager
    def _drawn_from(self) -> Iterator[None]:
        own = _states()
        _set_states(*(self._states or self._first_states()))
        try:
            yield
        finally:
            self._states = _states()
            _set_states(*own)

    def _first_states(self) -> tuple[Any, Any, Any]:
        worker = get_worker_info()
        name = "order" if worker is None else f"order of worker {worker.id}"
        for_torch, for_python, for_numpy = _seeds_at(self.seed, name)
        # Seeding torch itself would seed its accelerators, too.
        return (
            random.Random(for_python).getstate(),
            np.random.RandomState(for_numpy).get_state(),
            torch.Generator().manual_seed(for_torch).get_state(),
        )


_END = object()


def _states() -> tuple[Any, Any, Any]:
    return random.getstate(), np.random.get_state(), torch.get_rng_state()


def _set_states(python: Any, numpy: Any, torch_state: torch.Tensor) -> None:
    random.setstate(python)
    np.random.set_state(numpy)
    torch.set_rng_state(torch_state)


class SeededIndices:
    """The indices of one batch, on their way to a worker process.

    To unpickle them gives the bare indices, and seeds the worker. A wrapped data set would not
    do: persistent workers have a copy of it that was made once. And so the data set, the
    collate function and ``get_worker_info()`` stay the user's own.
    """

    __slots__ = ("epoch_seed", "indices", "position")

    def __init__(self, indices: Any, epoch_seed: int, position: int | str) -> None:
        self.indices = indices
        self.epoch_seed = epoch_seed
        self.position = position

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrive, (self.indices, self.epoch_seed, self.position)


def _arrive(indices: Any, epoch_seed: int, position: int | str) -> Any:
    if get_worker_info() is not None:  # the main process's random states are the user's
        seed_streams(epoch_seed, position)
    return indices


class SeededSampler(StandIn):
    """Stands in for the sampler of a loader of torchdata, whose indices then carry seeds.

    Its state is the number of batches that were drawn. The random states are those of the start
    of the pass when it is loaded, so it draws them again.
    """

    def __init__(self, sampler: Any) -> None:
        self.inner_sampler = sampler
        self.num_passes = 0  # that were begun
        self.epoch_seed = 0
        self._latest: SeededWalk | None = None

    def begin_pass(self, num_passes: int, epoch_seed: int) -> None:
        """Begin a pass, of which ``num_passes`` were made before."""
        self.num_passes = num_passes + 1
        self.epoch_seed = epoch_seed
        self._latest = None

    def __iter__(self) -> SeededWalk:
        # A loader that resumes asks twice, and some samplers draw each time.
        if self._latest is None or self._latest.drawn:
            self._latest = SeededWalk(iter(self.inner_sampler), self.epoch_seed)
        return self._latest

    def __len__(self) -> int:
        return len(self.inner_sampler)


class SeededWalk:
    """One walk along a sampler."""

    def __init__(self, inner: Iterator[Any], epoch_seed: int) -> None:
        self.drawn = 0
        self._inner = inner
        self._epoch_seed = epoch_seed

    def __iter__(self) -> SeededWalk:
        return self

    def __next__(self) -> SeededIndices:
        indices = next(self._inner)
        self.drawn += 1
        return SeededIndices(indices, self._epoch_seed, self.drawn - 1)

    def state_dict(self) -> dict[str, Any]:
        """Say where the walk is."""
        return {"drawn": self.drawn}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go there."""
        while self.drawn < state["drawn"]:
            next(self)
