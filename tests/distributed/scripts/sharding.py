"""Shard the small models of the scripts over the processes, as a user does."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard


def shard(model: nn.Module, *, hybrid: bool = False, **options: Any) -> nn.Module:
    """Shard each layer, then the model; ``hybrid``: whole in each process, exchanged as shards."""
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo")
    num = torch.distributed.get_world_size()
    names = {"mesh_dim_names": ("copies", "shards")} if hybrid else {}
    mesh = init_device_mesh("cpu", (num, 1) if hybrid else (num,), **names)
    for layer in model.children():
        if next(layer.parameters(), None) is not None:
            fully_shard(layer, mesh=mesh, **options)
    fully_shard(model, mesh=mesh, **options)
    return model
