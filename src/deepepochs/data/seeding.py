"""Seeds for worker processes that depend on the batch and not on the worker.

PyTorch seeds each worker process once, so what augmentation draws for a sample depends on
how many workers there are and on which batches a worker has loaded before: it cannot be
resumed in the middle of an epoch. Here the indices of each batch carry a seed, made of the
epoch's seed and the batch's position, and the worker is seeded when they arrive.
"""

from __future__ import annotations

import hashlib
import random
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
