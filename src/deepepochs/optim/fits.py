"""Checking that a saved state fits an optimizer and its scheduler, before it is loaded.

torch checks only the number of groups and parameters. The state of another class of optimizer
or scheduler, or of a model with other shapes, is loaded and fails later or never. So a state is
saved with what it was `made_by`: the classes, and the shapes of the parameters.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.parameter import is_lazy

from ..errors import CheckpointMismatch


def type_name(thing: Any) -> str:
    """Return the name of `thing` in messages."""
    return f"the class {thing.__name__}" if isinstance(thing, type) else type(thing).__name__


def made_by(opt: torch.optim.Optimizer, scheduler: Any) -> dict[str, Any]:
    """Return the classes, without Accelerate's wrappers, and the shape of each parameter."""
    params = [param for group in opt.param_groups for param in group["params"]]
    bare = getattr(scheduler, "scheduler", scheduler)
    return {
        "optimizer": type_name(getattr(opt, "optimizer", opt)),
        "scheduler": None if scheduler is None else type_name(bare),
        "shapes": [[] if is_lazy(param) else list(param.shape) for param in params],
    }


def check_fit(opt: torch.optim.Optimizer, scheduler: Any, state: dict[str, Any]) -> None:
    """Raise `CheckpointMismatch` unless `state` is of such an optimizer and scheduler."""
    opt_state, sched_state = state["opt_state"], state.get("sched_state")
    here = made_by(opt, scheduler)
    what = here["optimizer"]
    if not isinstance(opt_state, dict) or not {"state", "param_groups"} <= opt_state.keys():
        raise CheckpointMismatch(f"The saved state of {what} is not an optimizer's state_dict().")
    if (scheduler is None) is not (sched_state is None):
        own = "no scheduler" if scheduler is None else f"the scheduler {here['scheduler']}"
        there = "none" if sched_state is None else "the state of one"
        raise CheckpointMismatch(
            f"The optimizer has {own}, and the checkpoint has {there}: make it as it was saved."
        )
    groups = opt_state["param_groups"]
    sizes, saved_sizes = ([len(g["params"]) for g in gs] for gs in (opt.param_groups, groups))
    if sizes != saved_sizes:
        raise CheckpointMismatch(
            f"The saved state of {what} has groups of {saved_sizes} parameters, and here are "
            f"{sizes}: it is of another model or optimizer."
        )
    # Older states have no made_by. Most optimizers differ in the numbers that their step needs.
    saved = opt_state.get("made_by") or {**here, "optimizer": _guessed(opt, what, groups)}
    for part in ("optimizer", "scheduler"):
        if saved[part] != here[part]:
            raise CheckpointMismatch(
                f"The saved state of the {part} {saved[part]} does not fit {here[part]}: make it "
                "as it was saved."
            )
    for index, (shape, own_shape) in enumerate(zip(saved["shapes"], here["shapes"], strict=True)):
        if shape != own_shape:
            raise CheckpointMismatch(
                f"The saved state of {what} is for a parameter {index} of shape {shape}, which "
                f"has {own_shape} here: it is of another model."
            )


def _guessed(opt: torch.optim.Optimizer, name: str, groups: list[dict[str, Any]]) -> str:
    needed = {key for key, value in opt.defaults.items() if type(value) in (int, float, tuple)}
    missing = sorted({key for group in groups for key in needed - group.keys()})
    return f"without {', '.join(missing)}" if missing else name
