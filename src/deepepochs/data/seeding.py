"""Random streams for worker processes that depend on the batch and not on the worker.

PyTorch seeds each worker process once, so what a sample's augmentation draws depends on
how many workers there are and on which batches a worker has loaded before: it cannot be
resumed in the middle of an epoch. Here the indices of each batch carry a seed of their own,
made of the epoch's seed and the batch's position, and set it as they arrive in the worker.
The data set, the collate function and ``get_worker_info()`` stay the user's own.

>>> import pickle
>>> from deepepochs.data.seeding import SeededIndices
>>> pickle.loads(pickle.dumps(SeededIndices([3, 1, 2], epoch_seed=7, position=0)))
[3, 1, 2]
"""

from __future__ import annotations

import hashlib
import random
from typing import Any

import numpy as np
import torch
from torch.utils.data import get_worker_info

__all__ = ["SeededIndices", "epoch_seed_from", "seed_streams"]


def epoch_seed_from(generator: torch.Generator | None, num_passes: int = 0) -> int:
    """Derive an epoch's seed from where a generator stands, drawing nothing from it.

    Args:
        generator: the loader's own, or ``None`` for torch's global one.
        num_passes: passes that persistent workers have made before: PyTorch draws nothing at
            the start of those, so the generator alone may stand where it stood.

    Returns:
        A number from 0 to 2**63 - 1.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> epoch_seed_from(None) == epoch_seed_from(None) != epoch_seed_from(None, 1)
        True
    """
    state = torch.get_rng_state() if generator is None else generator.get_state()
    digest = hashlib.blake2b(state.numpy().tobytes(), digest_size=8)
    digest.update(num_passes.to_bytes(8, "little"))
    return int.from_bytes(digest.digest(), "little") >> 1


def seed_streams(epoch_seed: int, position: int) -> None:
    """Seed Python, NumPy and torch for one batch.

    Args:
        epoch_seed: the epoch's seed.
        position: the batch's index in the epoch, from 0.
    """
    words = hashlib.blake2b(f"{epoch_seed}/{position}".encode(), digest_size=32).digest()
    torch.manual_seed(int.from_bytes(words[:8], "little") >> 1)
    random.seed(int.from_bytes(words[8:16], "little"))
    np.random.seed(np.frombuffer(words[16:], dtype=np.uint32))


class SeededIndices:
    """The indices of one batch, on their way to a worker process.

    Unpickled they are the bare indices again, and the worker's random streams are seeded.
    A hook on arrival rather than a wrapped data set: it works for persistent workers, whose
    copy of the data set is made once, and nothing of the user's is replaced.

    Args:
        indices: what the index sampler gave.
        epoch_seed: the epoch's seed.
        position: the batch's index in the epoch, from 0.
    """

    __slots__ = ("epoch_seed", "indices", "position")

    def __init__(self, indices: Any, epoch_seed: int, position: int) -> None:
        self.indices = indices
        self.epoch_seed = epoch_seed
        self.position = position

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrive, (self.indices, self.epoch_seed, self.position)


def _arrive(indices: Any, epoch_seed: int, position: int) -> Any:
    if get_worker_info() is not None:  # never in the main process, whose stream is the user's
        seed_streams(epoch_seed, position)
    return indices
