"""The runtime for a model, and for the ``device`` and ``precision`` of a trainer.

>>> import torch
>>> from deepepochs.runtime.choose import make_runtime
>>> str(make_runtime(torch.nn.Linear(2, 1), "cpu", None))
'cpu'
"""

from __future__ import annotations

from typing import Any

from torch import nn

from ..errors import ConfigError
from .accelerators import is_accelerator, make_accelerator
from .base import LocalRuntime, Runtime
from .sharded_tensors import is_sharded, refuse_precision

__all__ = ["make_runtime"]


def make_runtime(model: nn.Module, device: Any, precision: str | None) -> Runtime:
    """Make the runtime that a model is trained in.

    Args:
        model: as the user gave it, sharded or not.
        device: the trainer's argument.
        precision: the trainer's argument.

    Raises:
        ConfigError: arguments that do not fit together, or the model.
    """
    sharded = is_sharded(model)
    if sharded and not is_accelerator(device):
        refuse_precision(precision)
    accelerator = make_accelerator(device, precision)
    if accelerator is None:
        if sharded:
            raise ConfigError(
                "The model is sharded over processes (fully_shard), which device="
                f"{device!r} knows nothing of. Start the script with torchrun and give "
                "device='auto', or give an accelerate.Accelerator, Accelerator(cpu=True) without "
                "a GPU."
            )
        return LocalRuntime(None if device == "auto" else device)
    if sharded:
        from .sharded import ShardedRuntime

        return ShardedRuntime(accelerator, model)
    from .accelerate import AccelerateRuntime

    return AccelerateRuntime(accelerator)
