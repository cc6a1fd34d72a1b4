"""The first mini-batch of a pass, and the outputs of the model for it: their shapes and kinds.

Looking changes nothing: the model is a copy, and random numbers are put back.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from .. import rng
from ..arguments import default_loss
from ..data.routes import first_batch
from ..nest import operations as nested
from ..nest.samples import count_samples


class Sample(NamedTuple):
    """A mini-batch as a step gets it, and what the model gives for it; ``None``: not known."""

    batch: Any = None
    batch_x: Any = None
    batch_y: Any = None
    out: Any = None

    @property
    def size(self) -> int | None:
        """The number of samples."""
        return count_samples(self.batch_x, self.batch_y)


def sample_of(trainer: Any, loader: Any, targets: str | None) -> Sample:
    """Take the first mini-batch of a loader, which is then as before."""
    batch = first_batch(loader, trainer.init_epoch)
    if batch is None:
        return Sample()
    with rng.preserved():
        batch_x, batch_y = _split(trainer, batch, targets)
        return Sample(batch, batch_x, batch_y, _output(trainer, batch_x))


def _split(trainer: Any, batch: Any, targets: str | None) -> tuple[Any, Any]:
    if trainer.has_own_split:
        inputs: tuple[Any, Any] = trainer.prepare_data(batch)
        return inputs
    entry = targets or trainer.targets
    with_targets = trainer.loss_fn is not default_loss
    moved = nested.to_device(batch, trainer.device)
    return nested.split_batch(moved, with_targets=with_targets, entry=entry)


def _output(trainer: Any, batch_x: Any) -> Any:
    try:
        model = copy.deepcopy(trainer.runtime.unwrap(trainer.model)).eval()
        with torch.no_grad():
            return model(**batch_x) if isinstance(batch_x, Mapping) else model(*batch_x)
    except Exception:  # of a model that cannot be copied, or is not called with inputs alone
        return None
