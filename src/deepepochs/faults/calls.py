"""Finds what is wrong where the model cannot be called with what the loader yields.

Each function gives the problem and the remedy, or ``None`` if it knows nothing.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from torch import nn

from ..arguments import default_loss
from .layers import of_data
from .losses import Found, label_key
from .scene import LayerCall, Scene
from .words import brief


def fault_of_call(scene: Scene) -> Found | None:
    """Say why the model, or the loss function, cannot be called with its arguments."""
    call = scene.layer
    if not isinstance(scene.error, TypeError):
        return None
    if call is None and scene.given is not None and not _can_be_called(scene.loss_fn, scene.given):
        name = scene.loss_name
        return (
            f"The loss function {name}{inspect.signature(scene.loss_fn)} is called with two arguments, "
            "the model's output and the target.",
            "Write it as def my_loss(model_out, targets): ...; further arguments need defaults.",
        )
    if call is None or _can_be_called(call.module.forward, call.args, call.kwargs):
        return None
    if call.module is not scene.model or scene.is_own_step:
        return None
    return _of_dict(scene, call) if isinstance(scene.batch_x, Mapping) else _of_tuple(scene, call)


def _can_be_called(
    function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any] = MappingProxyType({})
) -> bool:
    try:
        inspect.signature(function).bind(*args, **kwargs)
    except TypeError:
        return False
    return True


def forward_of(module: nn.Module) -> str:
    """Write the head of a ``forward`` without ``self``: ``Net.forward(x, mask)``."""
    names = ", ".join(_parameters(module))
    return f"{type(module).__name__}.forward({names})"


def _parameters(module: nn.Module) -> list[str]:
    signs = {"VAR_POSITIONAL": "*", "VAR_KEYWORD": "**"}
    parameters = inspect.signature(module.forward).parameters.values()
    return [f"{signs.get(one.kind.name, '')}{one.name}" for one in parameters]


def _of_tuple(scene: Scene, call: LayerCall) -> Found | None:
    inputs: tuple[Any, ...] = scene.batch_x
    if len(inputs) > 1 and all(isinstance(one, tuple) for one in inputs):
        num = len(inputs) + (scene.loss_fn is not default_loss)
        return (
            f"The loader yields a list of {num} samples, and the model wants them as one tensor.",
            "Leave out collate_fn=, or have it give (torch.stack(inputs), torch.stack(targets)).",
        )
    found = next((found for one in inputs if (found := of_data(one, scene.batch_y))), None)
    forward, wanted = forward_of(call.module), len(_parameters(call.module))
    if scene.loss_fn is default_loss:
        return (
            f"No loss function was given, so the model gets the whole mini-batch, {len(inputs)} "
            f"items, and {forward} takes {wanted}.",
            "Give one, as Trainer(model, F.cross_entropy). A model that computes its own loss takes "
            "the targets as well.",
        )
    if len(inputs) > wanted:
        choose = "a step of your own: self.loss(self.model(batch_x[0]), batch_y)"
        if scene.is_prediction:
            choose = "a prepare_data of your own, which returns (batch_x, batch_y)"
        return (
            f"The loader yields {len(inputs) + 1} items: the last is the target, the other "
            f"{len(inputs)} are inputs, and {forward} takes {wanted}.",
            f"Yield (input, target), or choose in {choose}.",
        )
    if found is not None:
        return found
    return (
        f"The loader yields {len(inputs)} input{'s' if len(inputs) > 1 else ''} beside the target, and "
        f"{forward} takes {wanted}.",
        "Yield as many inputs as forward takes, and the target last.",
    )


def _of_dict(scene: Scene, call: LayerCall) -> Found:
    keys, forward = list(scene.batch_x), forward_of(call.module)
    names = inspect.signature(call.module.forward).parameters
    others = [key for key in keys if key not in names]
    problem = f"The loader yields dicts, whose entries the model gets by name, and {forward}"
    if not others:
        missing = [name for name in names if name not in keys]
        return (
            f"{problem} also takes {', '.join(map(repr, missing))}: {brief(scene.batch_x)}.",
            "Yield these as well, or give the arguments of forward defaults.",
        )
    problem = f"{problem} has no {', '.join(map(repr, others))}."
    target = label_key(scene.batch_x)
    if scene.loss_fn is not default_loss and target is not None:
        name = f"Say which entry is the target, Trainer(..., targets={target!r})"
        if others == [target]:
            return problem, f"{name}."
        return problem, f"{name}, and name the arguments of forward as the other entries."
    return problem, (
        "Name the arguments of forward as the entries, add **others to them, or choose in a step of "
        f"your own: self.model(batch_x[{others[0]!r}])."
    )
