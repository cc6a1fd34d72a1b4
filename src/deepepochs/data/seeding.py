"""Seeds for worker processes that depend on the batch and not on the worker.

PyTorch seeds each worker process once, so what augmentation draws for a sample depends on
how many workers there are and on which batches a worker has loaded before: it cannot be
resumed in the middle of an epoch. Here the indices of each batch carry a seed, made of the
epoch's seed and the batch's position, and the worker is seeded when they arrive.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import get_worker_info


def epoch_seed_from(generator: torch.Generator | None, num_passes: int = 0) -> int:
    """Derive an epoch's seed, 0 to 2**63 - 1, from a generator's state, without a draw.

    The passes of persistent workers count, too: PyTorch draws nothing at the start of later
    ones, so the generator may be in the state of the pass before.
    """
    state = torch.get_rng_state() if generator is None else generator.get_state()
    digest = hashlib.blake2b(state.numpy().tobytes(), digest_size=8)
    digest.update(num_passes.to_bytes(8, "little"))
    return int.from_bytes(digest.digest(), "little") >> 1


def seed_streams(epoch_seed: int, position: int) -> None:
    """Seed Python, NumPy and torch for the batch at ``position`` in the epoch, from 0."""
    words = hashlib.blake2b(f"{epoch_seed}/{position}".encode(), digest_size=32).digest()
    torch.manual_seed(int.from_bytes(words[:8], "little") >> 1)
    random.seed(int.from_bytes(words[8:16], "little"))
    np.random.seed(np.frombuffer(words[16:], dtype=np.uint32))


class SeededIndices:
    """The indices of one batch, on their way to a worker process.

    To unpickle them gives the bare indices, and seeds the worker. A wrapped data set would not
    do: persistent workers have a copy of it that was made once. And so the data set, the
    collate function and ``get_worker_info()`` stay the user's own.
    """

    __slots__ = ("epoch_seed", "indices", "position")

    def __init__(self, indices: Any, epoch_seed: int, position: int) -> None:
        self.indices = indices
        self.epoch_seed = epoch_seed
        self.position = position

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrive, (self.indices, self.epoch_seed, self.position)


def _arrive(indices: Any, epoch_seed: int, position: int) -> Any:
    if get_worker_info() is not None:  # the main process's random states are the user's
        seed_streams(epoch_seed, position)
    return indices


class SeededSampler:
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
