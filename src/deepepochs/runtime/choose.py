"""Choosing the runtime for a model, and for a trainer's ``device`` and ``precision``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import nn

from ..errors import ConfigError, warn_user
from .base import LocalRuntime, Runtime
from .sharded_tensors import is_sharded, refuse_precision

if TYPE_CHECKING:
    from accelerate import Accelerator

Device: TypeAlias = "str | torch.device | Accelerator | None"
"""What a trainer takes as its device."""


def make_runtime(model: nn.Module, device: Any, precision: str | None) -> Runtime:
    """Make the runtime for a model, from the trainer's arguments.

    Raises:
        ConfigError: arguments that fit neither each other nor the model.
    """
    sharded = is_sharded(model)
    if sharded and not is_accelerator(device):
        refuse_precision(precision)
    accelerator = make_accelerator(device, precision)
    if accelerator is None:
        if sharded:
            raise ConfigError(
                "The model is sharded over processes (fully_shard), which does not work with device="
                f"{device!r}. Start the script with torchrun and give "
                "device='auto', or give an accelerate.Accelerator, Accelerator(cpu=True) without "
                "a GPU."
            )
        if device is None and (num := _num_launched()) > 1:
            warn_user(
                f"The script was started in {num} processes, and the trainer got no device: each of "
                "them trains a model of its own, on all of the data.\nGive device='auto' (or an "
                "Accelerator), which joins them, or the name of a device if this is meant.",
                UserWarning,
            )
        return LocalRuntime(None if device == "auto" else device)
    if sharded:
        from .sharded import ShardedRuntime

        return ShardedRuntime(accelerator, model)
    from .accelerate import AccelerateRuntime

    return AccelerateRuntime(accelerator)


def is_accelerator(device: Any) -> bool:
    """Whether ``device`` is an ``Accelerator``, without importing Accelerate to ask."""
    return any(
        base.__name__ == "Accelerator" and base.__module__.startswith("accelerate.")
        for base in type(device).__mro__
    )


def _num_launched() -> int:
    """The processes that torchrun or accelerate launch has started."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def make_accelerator(device: Any, precision: str | None) -> Any:
    """Make the ``Accelerator`` that ``device`` and ``precision`` need; ``None`` if they need none.

    ``device='auto'`` needs one if torchrun or accelerate launch has started several processes.
    """
    if is_accelerator(device):
        if precision is not None and device.mixed_precision != precision:
            raise ConfigError(
                f"precision={precision!r}, and the Accelerator has {device.mixed_precision!r}: give "
                "the precision to one of them only."
            )
        return device
    launched = device == "auto" and _num_launched() > 1
    if not launched and precision in (None, "no"):
        return None
    from accelerate import Accelerator

    name = str(device) if device not in (None, "auto") else ""
    if name not in ("", "cpu", "cuda", "mps"):
        raise ConfigError(
            f"device={device!r} with precision={precision!r}: make the device visible alone (for "
            "example CUDA_VISIBLE_DEVICES=1) and give device='cuda'."
        )
    try:
        # Without a GPU Accelerate joins the processes only with cpu=True.
        on_cpu = name == "cpu" or (launched and not torch.cuda.is_available())
        return Accelerator(mixed_precision=precision, cpu=on_cpu)
    except ValueError as error:
        raise ConfigError(
            f"device={device!r} with precision={precision!r} cannot be used here: {error} All "
            "Accelerators of a program have one precision and kind of device."
        ) from error
