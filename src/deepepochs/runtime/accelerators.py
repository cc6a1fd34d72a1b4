"""The ``Accelerator`` that a trainer's ``device`` and ``precision`` ask for.

::

    make_accelerator("auto", "bf16")      # made, as precision asks for one
    make_accelerator("cpu", None)         # None: there is nothing for it to do
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import torch

from ..errors import ConfigError

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["is_accelerator", "make_accelerator", "refuse_setup"]


def is_accelerator(device: Any) -> bool:
    """Whether ``device`` is an ``Accelerator``, without importing Accelerate to ask."""
    return any(
        base.__name__ == "Accelerator" and base.__module__.startswith("accelerate.")
        for base in type(device).__mro__
    )


def make_accelerator(device: Any, precision: str | None) -> Any:
    """Make the ``Accelerator`` that ``device`` and ``precision`` ask for; ``None`` for none.

    ``device='auto'`` takes one exactly when started by torchrun or accelerate launch.
    """
    if is_accelerator(device):
        if precision is not None and device.mixed_precision != precision:
            raise ConfigError(
                f"precision={precision!r}, and the Accelerator has {device.mixed_precision!r}: give "
                "it to one of them."
            )
        return device
    launched = device == "auto" and int(os.environ.get("WORLD_SIZE", "1")) > 1
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
        # Without a GPU Accelerate joins the processes only when it is told to.
        on_cpu = name == "cpu" or (launched and not torch.cuda.is_available())
        return Accelerator(mixed_precision=precision, cpu=on_cpu)
    except ValueError as error:
        raise ConfigError(
            f"device={device!r} with precision={precision!r} cannot be used here: {error} All "
            "Accelerators of a program have one precision and kind of device."
        ) from error


def refuse_setup(accelerator: Accelerator) -> None:
    """Raise ``ConfigError`` for processes not joined, and for models spread over processes."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != world:
        raise ConfigError(
            f"The script was started in {world} processes, and the Accelerator knows of "
            f"{accelerator.num_processes}: without a GPU it joins them with Accelerator(cpu=True)."
        )
    kind = str(accelerator.distributed_type).rpartition(".")[2]
    if kind not in ("FSDP", "DEEPSPEED", "MEGATRON_LM", "XLA"):
        if kind != "MULTI_CPU" or os.environ.get("ACCELERATE_USE_FSDP", "false") != "true":
            return
        kind = "FSDP (which Accelerate would leave out on CPUs, without a word)"
    raise ConfigError(
        f"The Accelerator is set up for {kind}, which is not supported: the state of the model "
        "could not be saved and resumed. To spread a model over processes, shard it with "
        "torch.distributed.fsdp.fully_shard before you give it to the trainer, with an Accelerator "
        "that is not set up for this or device='auto' (docs/distributed.md)."
    )
