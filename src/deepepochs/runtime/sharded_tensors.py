"""Models that ``torch.distributed.fsdp.fully_shard`` has sharded, and their tensors.

A checkpoint has whole tensors, which only the main process holds. The other processes hold
tensors of the same shape without data, so that each needs little memory.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..nest.operations import walk

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

HOW = (
    "Call torch.distributed.fsdp.fully_shard on the layers and then on the model itself, over all "
    "processes, before the optimizer is made (docs/distributed.md)."
)


def is_shard(value: Any) -> bool:
    """Whether a value is a tensor that is sharded over processes."""
    # Without this module there is no such tensor; to import it takes half a second.
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(value, module.DTensor)


def is_sharded(model: nn.Module) -> bool:
    """Whether a model is sharded, by ``fully_shard`` or in another way.

    Raises:
        ConfigError: it is sharded by the older ``FullyShardedDataParallel``.
    """
    module = sys.modules.get("torch.distributed.fsdp")
    if module is not None:
        kinds = {type(layer) for layer in model.modules()}
        if any(issubclass(kind, module.FullyShardedDataParallel) for kind in kinds):
            raise ConfigError(
                "The model is wrapped in FullyShardedDataParallel, which is not supported. " + HOW
            )
        if any(issubclass(kind, module.FSDPModule) for kind in kinds):
            return True
    return any(is_shard(weight) for weight in model.parameters())


def reshard(model: nn.Module) -> None:
    """Free the whole weights that a forward pass without a backward pass has gathered."""
    from torch.distributed.fsdp import FSDPModule

    for layer in model.modules():
        if isinstance(layer, FSDPModule):
            layer.reshard()


def refuse_precision(precision: str | None) -> None:
    """Raise ``ConfigError`` for a precision that an Accelerator would apply to the model."""
    if precision not in (None, "no"):
        raise ConfigError(
            f"precision={precision!r} cannot be applied to a sharded model: give fully_shard(..., "
            "mp_policy=MixedPrecisionPolicy(param_dtype=torch.bfloat16)), and no precision to the "
            "trainer or the Accelerator."
        )


def refuse_layout(model: nn.Module, num_processes: int, device: torch.device) -> None:
    """Raise ``ConfigError`` unless all trained weights are sharded alike over all processes."""
    from torch.distributed.fsdp import FSDPModule
    from torch.distributed.tensor.placement_types import Replicate, Shard

    if not isinstance(model, FSDPModule):
        raise ConfigError(f"Layers of {type(model).__name__} are sharded, and it is not. {HOW}")
    weight: Any
    for name, weight in model.named_parameters():
        if not is_shard(weight):
            if weight.requires_grad:
                raise ConfigError(
                    f"{name} is trained and not sharded: its gradients would differ among "
                    f"processes. {HOW}"
                )
            continue
        mesh, (*outer, inner) = weight.device_mesh, weight.placements
        spread = type(inner) is Shard and all(type(place) is Replicate for place in outer)
        if not spread or mesh.size() != num_processes:
            raise ConfigError(
                f"{name} is placed as {weight.placements} on {mesh.size()} of {num_processes} "
                "processes: tensor parallelism and meshes of a part of the processes are not "
                f"supported. {HOW}"
            )
        if weight.is_meta or mesh.device_type != device.type:
            here = "meta" if weight.is_meta else mesh.device_type
            raise ConfigError(
                f"{name} is on {here!r}, and the Accelerator on {device.type!r}: shard on a mesh of "
                f"that device, init_device_mesh({device.type!r}, ...), and give the weights values."
            )
    if num_processes > 1 and device.type == "cpu" and torch.__version__ < "2.13":
        # Seen with 2.8.0; 2.13.0 and 2.14.1 are right.
        raise ConfigError(
            f"With torch {torch.__version__} a model that is sharded over CPUs trains with wrong "
            "gradients: take torch 2.13 or newer, or GPUs."
        )


def gathered(state: Any, *, is_main: bool) -> Any:
    """Gather the sharded tensors of a state on the CPU of the main process.

    All processes must call it. The others get tensors on the device ``'meta'``, without data.
    """

    def whole(item: Any) -> Any:
        if not is_shard(item):
            return item
        full = item.detach().full_tensor()
        return full.cpu() if is_main else torch.empty_like(full, device="meta")

    return walk(whole, state)


def scattered(whole: Tensor, like: DTensor) -> DTensor:
    """Shard a tensor of the main process like another one of the same shape.

    All processes must call it; except in the main process only the type of ``whole`` is used.
    """
    from torch import distributed
    from torch.distributed.tensor import DTensor, Replicate

    mesh = like.device_mesh
    if distributed.get_rank() == 0:
        full = whole.detach().to(mesh.device_type).contiguous()
    else:
        full = torch.empty(whole.shape, dtype=whole.dtype, device=mesh.device_type)
    distributed.broadcast(full, src=0)
    everywhere = DTensor.from_local(full, mesh, [Replicate()] * mesh.ndim, run_check=False)
    placed = everywhere.redistribute(placements=like.placements)
    # With CPU offload the shards are on another device than their mesh.
    local = placed.to_local().to(like.to_local().device, copy=True)
    return DTensor.from_local(
        local, mesh, like.placements, run_check=False, shape=like.shape, stride=like.stride()
    )


def share_buffers(model: nn.Module, _inputs: Any = None) -> None:
    """Copy the buffers of the main process to all, such as statistics of batch normalisation.

    A forward pre-hook: ``DistributedDataParallel`` does this, and ``fully_shard`` does not.
    """
    from torch import distributed

    by_kind: dict[Any, list[Tensor]] = {}
    for buffer in model.buffers():
        if not is_shard(buffer) and not buffer.is_meta:
            by_kind.setdefault((buffer.dtype, buffer.device), []).append(buffer)
    with torch.no_grad():
        for buffers in by_kind.values():
            joined = torch.cat([buffer.flatten() for buffer in buffers])
            distributed.broadcast(joined, src=0)
            if distributed.get_rank() == 0:
                continue
            parts = torch.split(joined, [buffer.numel() for buffer in buffers])
            for buffer, part in zip(buffers, parts, strict=True):
                # By .data: a step may call the model twice before the backward pass.
                buffer.data.copy_(part.view(buffer.shape))
