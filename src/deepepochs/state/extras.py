"""What the ``state_dict`` of a module leaves out, and a run needs to go on to the bit.

These are the ``requires_grad`` of each weight, which a callback that unfreezes layers has
changed and will not change again, and buffers that are registered as not persistent.

>>> import torch
>>> from deepepochs.state.extras import ExtrasPart
>>> frozen = torch.nn.Linear(2, 1).requires_grad_(False)
>>> ExtrasPart(frozen, None).state_dict()
{'requires_grad': {'model.weight': False, 'model.bias': False}, 'buffers': {}}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import CheckpointMismatch
from .strict import CheckedPart


def named_modules(model: nn.Module, loss_fn: Any) -> dict[str, nn.Module]:
    """The model and, if it is a module, the loss function."""
    modules = {"model": model, "loss_fn": loss_fn}
    return {name: module for name, module in modules.items() if isinstance(module, nn.Module)}


def named_weights(modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """Their weights, as ``model.0.bias``."""
    return {
        f"{where}.{name}": weight
        for where, module in modules.items()
        for name, weight in module.named_parameters()
    }


class ExtrasPart(CheckedPart):
    """Flags and passing buffers of the model and, if it is a module, of the loss function.

    With ``others``, the weights that only optimizers have, it keeps their flags, too.
    A buffer may come back in another shape than it has here, as one that caches does.
    """

    def __init__(
        self, model: nn.Module, loss_fn: Any, others: Mapping[str, Tensor] | None = None
    ) -> None:
        self._others = dict(others or {})
        self._modules = named_modules(model, loss_fn)

    def _weights(self) -> dict[str, Tensor]:
        return {**named_weights(self._modules), **self._others}

    def _buffers(self) -> dict[str, tuple[nn.Module, str]]:
        """The module and the name in it of each buffer that is not persistent."""
        return {
            f"{where}.{path}.{name}" if path else f"{where}.{name}": (owner, name)
            for where, module in self._modules.items()
            for path, owner in module.named_modules()
            for name in sorted(owner._non_persistent_buffers_set)
        }

    def state_dict(self) -> dict[str, Any]:
        """Give flags and buffers by name."""
        weights, buffers = self._weights(), self._buffers()
        return {
            "requires_grad": {name: weight.requires_grad for name, weight in weights.items()},
            "buffers": {name: owner._buffers[key] for name, (owner, key) in buffers.items()},
        }

    def check_state(self, state: Mapping[str, Any]) -> None:
        """Raise ``CheckpointMismatch`` unless names and kinds are those of the modules here."""
        for name, flag in state["requires_grad"].items():
            if not isinstance(flag, bool):
                raise CheckpointMismatch(f"requires_grad of {name} is {flag!r}, not a bool.")
        for name, value in state["buffers"].items():
            if value is not None and not isinstance(value, Tensor):
                raise CheckpointMismatch(f"The buffer {name} is a {type(value).__name__}.")
        _check_names("weight", state["requires_grad"], self._weights())
        _check_names("buffer that is not persistent,", state["buffers"], self._buffers())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what ``state_dict`` gave."""
        for name, weight in self._weights().items():
            if weight.requires_grad is not state["requires_grad"][name]:
                weight.requires_grad_(state["requires_grad"][name])
        with torch.no_grad():
            for name, (owner, key) in self._buffers().items():
                _put_buffer(owner, key, state["buffers"][name])


def _put_buffer(owner: nn.Module, key: str, saved: Tensor | None) -> None:
    own = owner._buffers[key]
    if saved is None:
        owner._buffers[key] = None
    elif own is not None and (saved.shape, saved.dtype) == (own.shape, own.dtype):
        own.copy_(saved)
    else:
        near = own if own is not None else next(owner.parameters(), None)
        owner._buffers[key] = saved.to(None if near is None else near.device, copy=True)


def _check_names(what: str, saved: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    for one, other, where in ((saved, here, "it alone"), (here, saved, "the model here alone")):
        for name in one:
            if name not in other:
                raise CheckpointMismatch(
                    f"The checkpoint is of another model: the {what} {name} is in {where}."
                )
