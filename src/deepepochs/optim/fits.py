"""Does a saved state fit this optimizer and this scheduler? Asked before anything is changed.

torch itself checks the number of groups and parameters alone: the state of another kind of
optimizer or scheduler, or of a model with other shapes, loads there and fails later or never.

>>> import torch
>>> from deepepochs.optim.fits import check_opt_state
>>> weight = torch.nn.Parameter(torch.ones(2))
>>> check_opt_state(torch.optim.Adam([weight]), torch.optim.SGD([weight], lr=0.1).state_dict())
Traceback (most recent call last):
...
deepepochs.errors.CheckpointMismatch: The saved state of Adam lacks amsgrad, betas, eps: ...
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointMismatch

__all__ = ["check_opt_state", "check_sched_state", "type_name"]

# Group entries that one version of torch has and another fills in, or that a scheduler adds.
LENIENT_GROUP_KEYS = frozenset(
    [
        "params",
        "initial_lr",
        "foreach",
        "fused",
        "maximize",
        "capturable",
        "differentiable",
        "param_names",
        "decoupled_weight_decay",
    ]
)
# State entries of torch's optimizers that have the shape of their parameter.
PARAM_SHAPED = frozenset(
    [
        "exp_avg",
        "exp_avg_sq",
        "max_exp_avg_sq",
        "exp_inf",
        "momentum_buffer",
        "square_avg",
        "grad_avg",
        "acc_delta",
        "sum",
        "prev",
        "step_size",
        "ax",
    ]
)
LENIENT_SCHED_KEYS = frozenset(("verbose", "default_min_lr", "mode_worse"))


def type_name(thing: Any) -> str:
    """Return what messages call `thing`."""
    return f"the class {thing.__name__}" if isinstance(thing, type) else type(thing).__name__


def check_opt_state(opt: torch.optim.Optimizer, state: Any) -> None:
    """Raise unless `state` fits the groups and parameters of `opt`."""
    what, groups = type_name(opt), opt.param_groups
    if not isinstance(state, dict) or not {"state", "param_groups"} <= state.keys():
        raise CheckpointMismatch(f"The saved state of {what} is not an optimizer's state_dict().")
    saved = state["param_groups"]
    sizes, saved_sizes = ([len(g["params"]) for g in gs] for gs in (groups, saved))
    if sizes != saved_sizes:
        raise CheckpointMismatch(
            f"The saved state of {what} has groups of {saved_sizes} parameters, and here are "
            f"{sizes}: it is of another model or optimizer."
        )
    by_index: dict[Any, Any] = {}
    for group, old in zip(groups, saved, strict=True):
        missing = sorted(group.keys() - old.keys() - LENIENT_GROUP_KEYS)
        decoupled = [g.get("decoupled_weight_decay") for g in (group, old)]
        if missing or (None not in decoupled and decoupled[0] != decoupled[1]):
            lack = ", ".join(missing) or "the same decoupled_weight_decay"
            raise CheckpointMismatch(
                f"The saved state of {what} lacks {lack}: it is of another kind of optimizer."
            )
        by_index.update(zip(old["params"], group["params"], strict=True))
    for index, entry in state["state"].items():
        if index in by_index and isinstance(entry, dict):
            _check_entry(what, index, entry, by_index[index].shape)


def _check_entry(what: str, index: Any, entry: dict[Any, Any], shape: torch.Size) -> None:
    """Raise unless the buffers of one parameter have its shape."""
    for key, value in entry.items():
        if key in PARAM_SHAPED and isinstance(value, Tensor) and value.shape != shape:
            raise CheckpointMismatch(
                f"The saved state of {what} has {key} of shape {list(value.shape)} for "
                f"parameter {index}, which has {list(shape)}: it is of another model."
            )


def check_sched_state(scheduler: Any, state: Any, num_groups: int) -> None:
    """Raise unless `state` is of a scheduler like `scheduler`."""
    if scheduler is None or state is None:
        if scheduler is not state:
            here = "no scheduler" if scheduler is None else f"the scheduler {type_name(scheduler)}"
            there = "none" if state is None else "the state of one"
            raise CheckpointMismatch(
                f"The optimizer has {here}, and the checkpoint has {there}: make the optimizer "
                "as it was saved."
            )
        return
    saved, own = (
        {key for key in one if not key.startswith("_")} for one in (state, scheduler.state_dict())
    )
    odd = sorted((saved ^ own) - LENIENT_SCHED_KEYS)
    if odd or len(state.get("base_lrs", range(num_groups))) != num_groups:
        raise CheckpointMismatch(
            f"The saved state of the scheduler does not fit {type_name(scheduler)} with {num_groups} "
            f"parameter groups (differing: {', '.join(odd) or 'base_lrs'}): make it as saved."
        )
