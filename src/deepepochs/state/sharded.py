"""The parts of the state of a model that is spread over processes.

They give and take the same states as those of a model in one process, with whole tensors: a
checkpoint of one can be read by the other. All processes take part in saving and loading.

::

    state = ShardedModule(model, is_main=rank == 0).state_dict()
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ..errors import CheckpointError, CheckpointMismatch
from ..optim.fits import bare, type_name
from ..optim.optimizers import Optimizer, Optimizers
from ..runtime.sharded_tensors import gathered, is_shard, scattered
from .strict import CheckedPart, check_gradients, check_module_state


class ShardedModule(CheckedPart):
    """The weights and buffers of a model or of a loss function."""

    def __init__(self, name: str, module: nn.Module, *, is_main: bool) -> None:
        self._name = name
        self._module = module
        self._is_main = is_main

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = gathered(self._module.state_dict(), is_main=self._is_main)
        return state

    def check_state(self, state: Any) -> None:
        check_module_state(self._name, self._module, state)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        own = self._module.state_dict()
        shards = {
            # Entries that `load_weights(strict=False)` does not replace are present shards already.
            key: scattered(state[key], mine)
            if is_shard(mine) and not is_shard(state[key])
            else state[key]
            for key, mine in own.items()
        }
        self._module.load_state_dict(shards)


class ShardedGradients(CheckedPart):
    """Gradients waiting for an optimizer step; they are the mean over the processes already."""

    def __init__(self, model: nn.Module, *, is_main: bool) -> None:
        self._weights: dict[str, Tensor] = {
            f"model.{name}": weight for name, weight in model.named_parameters()
        }
        self._is_main = is_main

    def state_dict(self) -> dict[str, Tensor]:
        named = {name: weight.grad for name, weight in self._weights.items()}
        there = {name: gradient for name, gradient in named.items() if gradient is not None}
        state: dict[str, Tensor] = gathered(there, is_main=self._is_main)
        return state

    def check_state(self, state: Mapping[str, Tensor]) -> None:
        if "of_processes" in state:
            raise CheckpointMismatch(
                "The state was saved by processes that had the whole model each, and here it is "
                "sharded: take the weights alone with trainer.load_weights(state)."
            )
        check_gradients(self._weights, state)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        for name, weight in self._weights.items():
            saved: Any = state.get(name)
            if saved is not None and is_shard(weight):
                saved = scattered(saved, weight)  # type: ignore[arg-type]
            weight.grad = saved


class ShardedOptimizers:
    """The optimizers, with the state of each weight."""

    def __init__(self, opt: Optimizers, *, is_main: bool) -> None:
        self._opt = opt
        self._is_main = is_main

    def state_dict(self) -> list[dict[str, Any]]:
        states = self._opt.state_dict()
        for optimizer, state in zip(self._opt, states, strict=True):
            _refuse_odd_shapes(optimizer, state)
        whole: list[dict[str, Any]] = gathered(states, is_main=self._is_main)
        return whole

    def load_state_dict(self, state: Any) -> None:
        pairs = zip(self._opt, state, strict=True)
        self._opt.load_state_dict([_sharded(optimizer, one) for optimizer, one in pairs])


def _entries(optimizer: Optimizer, state: dict[str, Any]) -> list[tuple[Tensor, dict[str, Any]]]:
    """The weights in their order, each with its entries in a saved state."""
    saved = state["opt_state"]
    if "param_groups" not in saved:
        raise CheckpointError(
            f"{type_name(bare(optimizer.opt))} has a state of a form of its own, which cannot be "
            "saved or restored with a sharded model. Take an optimizer such as AdamW or SGD."
        )
    indexes = [index for group in saved["param_groups"] for index in group["params"]]
    pairs = zip(optimizer.params, indexes, strict=True)
    return [(weight, saved["state"].get(index, {})) for weight, index in pairs]


def _sharded(optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """Shard each entry that has the shape of its weight."""
    saved = state["opt_state"]
    by_id: dict[int, dict[str, Any]] = {}
    for weight, entries in _entries(optimizer, state):
        by_id[id(entries)] = {
            key: scattered(value, weight)  # type: ignore[arg-type]
            if is_shard(weight) and isinstance(value, Tensor) and value.shape == weight.shape
            else value
            for key, value in entries.items()
        }
    shards = {index: by_id.get(id(entries), entries) for index, entries in saved["state"].items()}
    return {**state, "opt_state": {**saved, "state": shards}}


def _refuse_odd_shapes(optimizer: Optimizer, state: dict[str, Any]) -> None:
    for weight, entries in _entries(optimizer, state):
        for key, value in entries.items():
            odd = is_shard(value) and value.shape != weight.shape
            # Each process has its own plain tensor, and only that of one would be saved.
            own = is_shard(weight) and isinstance(value, Tensor) and not is_shard(value)
            if odd or (own and value.numel() > 1):
                raise CheckpointError(
                    f"{type_name(bare(optimizer.opt))} keeps {key} {list(value.shape)} of a sharded "
                    f"weight {list(weight.shape)}: only entries of the shape of their weight can be "
                    "restored. Take an optimizer such as AdamW or SGD."
                )
