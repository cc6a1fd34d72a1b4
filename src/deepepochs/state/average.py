"""The average of the weights as a part of the state: what the model itself does not have.

In a training pass these are the averages, and else the weights that are trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.nn.parameter import is_lazy

from ..contracts import TrainerView
from ..errors import CheckpointMismatch
from ..runtime.sharded_tensors import gathered, is_shard, scattered
from .strict import CheckedPart


class AveragePart(CheckedPart):
    """The average of the weights.

    Args:
        trainer: its trainer.
        weights: the weights of model, loss function and optimizers by name.
    """

    is_optional = True

    def __init__(self, trainer: TrainerView, weights: Mapping[str, Tensor]) -> None:
        self._ema: Any = trainer.ema
        self._weights = weights
        # In the others the tensors of a sharded model have no data.
        self._is_main = trainer.runtime.is_main

    def state_dict(self) -> dict[str, Any]:
        names = {id(weight): name for name, weight in self._weights.items()}
        state: dict[str, Any] = gathered(self._ema.state_dict(names), is_main=self._is_main)
        return state

    def check_state(self, state: Mapping[str, Any]) -> None:
        here = self._ema.num_optimizers
        if len(state["weights"]) != here or len(state["num_steps"]) != here:
            raise CheckpointMismatch(
                f"The checkpoint has the average weights of {len(state['weights'])} optimizers, and "
                f"the trainer has {here}."
            )
        for name, value in (pair for of in state["weights"] for pair in of.items()):
            weight = self._weights.get(name)
            if weight is None or not (is_lazy(weight) or weight.shape == value.shape):
                there = "no such weight" if weight is None else f"{list(weight.shape)}"
                raise CheckpointMismatch(
                    f"The checkpoint is of another model: it has the average {list(value.shape)} of "
                    f"{name}, and here is {there}."
                )

    def differences(self, state: Mapping[str, Any]) -> list[str]:
        saved, here = state["settings"], repr(self._ema.settings)
        return [f"it goes on with {here} ({saved} in the checkpoint)"] if saved != here else []

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        own = [
            {name: self._shard(self._weights[name], value) for name, value in of.items()}
            for of in state["weights"]
        ]
        self._ema.load_state_dict({**state, "weights": own}, self._weights)

    def _shard(self, weight: Any, value: Tensor) -> Tensor:
        if is_shard(weight) and not is_shard(value):
            return scattered(value, weight)
        return value
