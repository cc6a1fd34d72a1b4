"""The state of an optimizer: saving it, checking that it fits, and loading it.

torch checks only the number of groups and parameters. The state of another class of optimizer
or scheduler, or of a model with other shapes, is loaded and fails later or never. So a state is
saved with what it was `made_by`: the classes, and the shapes of the parameters.

An optimizer may have a state of a form of its own, which need not hold the rates of its groups:
these are saved beside it as `groups`. And it may hold other optimizers, as SAM and Lookahead do:
if its class has torch's own `state_dict`, which does not know of them, their states are saved
beside it as `inner`.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from ..errors import CheckpointMismatch


def type_name(thing: Any) -> str:
    """Return the name of `thing` in messages."""
    return f"the class {thing.__name__}" if isinstance(thing, type) else type(thing).__name__


OWN_FORM = "own form"  # where a state is kept that is no dict


def bare(thing: Any) -> Any:
    """Return an optimizer or scheduler without Accelerate's wrapper."""
    while type(thing).__module__.startswith("accelerate."):
        thing = thing.optimizer if hasattr(thing, "optimizer") else thing.scheduler
    return thing


def has_modes(opt: Any) -> bool:
    """Whether an optimizer has ``train()`` and ``eval()``, as those without schedules have."""
    return all(callable(getattr(opt, name, None)) for name in ("train", "eval"))


def is_optimizer(thing: Any) -> bool:
    """Whether a thing is a torch optimizer, or a wrapper around one that acts as one."""
    if isinstance(thing, torch.optim.Optimizer):
        return True
    verbs = ("step", "zero_grad", "state_dict", "load_state_dict")
    acts = all(callable(getattr(type(thing), verb, None)) for verb in verbs)
    return (
        acts
        and not isinstance(thing, list)
        and isinstance(getattr(thing, "param_groups", None), list)
    )


def held_by(opt: torch.optim.Optimizer) -> dict[str, torch.optim.Optimizer]:
    """Return the optimizers among the attributes of an optimizer."""
    return {
        name: value
        for name, value in getattr(opt, "__dict__", {}).items()
        if isinstance(value, torch.optim.Optimizer)
    }


def unsaved_by(opt: torch.optim.Optimizer) -> dict[str, torch.optim.Optimizer]:
    """Return those of them whose state is not in the optimizer's own `state_dict`."""
    if type(opt).state_dict is not torch.optim.Optimizer.state_dict:
        return {}
    return {name: one for name, one in held_by(opt).items() if one.state is not opt.state}


def state_of(opt: torch.optim.Optimizer, scheduler: Any = None) -> dict[str, Any]:
    """Return the state of an optimizer and its scheduler, with what it was `made_by`."""
    own: Any = opt.state_dict()
    named = own if isinstance(own, dict) else {OWN_FORM: own}
    state = {
        "opt_state": {**named, "made_by": made_by(opt, scheduler)},
        "sched_state": None if scheduler is None else scheduler.state_dict(),
    }
    if not _has_torchs_form(own):
        kinds = (int, float, tuple, Tensor, type(None))
        state["groups"] = [
            {key: value for key, value in group.items() if isinstance(value, kinds)}
            for group in opt.param_groups
        ]
    if unsaved := unsaved_by(bare(opt)):
        state["inner"] = {name: state_of(one) for name, one in unsaved.items()}
    return state


def load_state(opt: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load the state of an optimizer that `check_fit` has let through."""
    outer = bare(opt)
    held, groups = held_by(outer), outer.param_groups
    sharing = [one for one in held.values() if one.param_groups is groups]
    for name, inner_state in state.get("inner", {}).items():
        load_state(held[name], inner_state)
    saved = {key: value for key, value in state["opt_state"].items() if key != "made_by"}
    # The next step must not change the caller's state.
    if type(outer).load_state_dict is not torch.optim.Optimizer.load_state_dict:
        opt.load_state_dict(copy.deepcopy(saved.get(OWN_FORM, saved)))
    else:
        opt.load_state_dict(saved)
        # torch uses the given tensors themselves where they need no cast.
        given = {id(value) for entry in saved["state"].values() for value in entry.values()}
        for entry in outer.state.values():
            for key, value in entry.items():
                if isinstance(value, Tensor) and id(value) in given:
                    entry[key] = value.clone()
    # torch makes new groups: optimizers that shared one list of groups share it again.
    for one in sharing:
        if outer.param_groups is not groups:
            one.param_groups = outer.param_groups
        elif one.param_groups is not groups:
            outer.param_groups = one.param_groups
    for group, options in zip(outer.param_groups, state.get("groups", ()), strict=False):
        group.update(copy.deepcopy(options))


def made_by(opt: torch.optim.Optimizer, scheduler: Any) -> dict[str, Any]:
    """Return the classes, without Accelerate's wrappers, and the shape of each parameter."""
    params = [param for group in opt.param_groups for param in group["params"]]
    return {
        "optimizer": type_name(bare(opt)),
        "scheduler": None if scheduler is None else type_name(bare(scheduler)),
        "shapes": [[] if is_lazy(param) else list(param.shape) for param in params],
    }


def check_fit(opt: torch.optim.Optimizer, scheduler: Any, state: dict[str, Any]) -> None:
    """Raise `CheckpointMismatch` unless `state` is of such an optimizer and scheduler."""
    opt_state, sched_state = state["opt_state"], state.get("sched_state")
    here = made_by(opt, scheduler)
    what = here["optimizer"]
    is_torchs = _has_torchs_form(opt_state)
    if not isinstance(opt_state, dict) or (_has_torchs_form(opt.state_dict()) and not is_torchs):
        raise CheckpointMismatch(f"The saved state of {what} is not an optimizer's state_dict().")
    if (scheduler is None) is not (sched_state is None):
        own = "no scheduler" if scheduler is None else f"the scheduler {here['scheduler']}"
        there = "none" if sched_state is None else "the state of one"
        raise CheckpointMismatch(
            f"The optimizer has {own}, and the checkpoint has {there}: make it as it was saved."
        )
    groups = opt_state["param_groups"] if is_torchs else opt.param_groups
    sizes, saved_sizes = ([len(g["params"]) for g in gs] for gs in (opt.param_groups, groups))
    if sizes != saved_sizes:
        raise CheckpointMismatch(
            f"The saved state of {what} has groups of {saved_sizes} parameters, and here are "
            f"{sizes}: it is of another model or optimizer."
        )
    # Older states have no made_by. Most optimizers differ in the numbers that their step needs.
    saved = opt_state.get("made_by") or {**here, "optimizer": _guessed(opt, what, groups)}
    if len(saved["shapes"]) != len(here["shapes"]):
        raise CheckpointMismatch(
            f"The saved state of {what} is for {len(saved['shapes'])} parameters, and here are "
            f"{len(here['shapes'])}: it is of another model or optimizer."
        )
    for part in ("optimizer", "scheduler"):
        if saved[part] != here[part]:
            raise CheckpointMismatch(
                f"The saved state of the {part} {saved[part]} does not fit {here[part]}: make it "
                "as it was saved."
            )
    _check_shapes(opt, what, saved["shapes"], here["shapes"])
    _check_inner(opt, state)


def _check_shapes(
    opt: torch.optim.Optimizer, what: str, saved: list[list[int]], here: list[list[int]]
) -> None:
    params = [param for group in opt.param_groups for param in group["params"]]
    shapes = zip(params, saved, here, strict=True)
    for index, (param, shape, own_shape) in enumerate(shapes):
        if shape != own_shape and not is_lazy(param):  # a lazy one gets the saved shape
            raise CheckpointMismatch(
                f"The saved state of {what} is for a parameter {index} of shape {shape}, which "
                f"has {own_shape} here: it is of another model."
            )


def _check_inner(opt: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Check the states of the optimizers that an optimizer holds; older states have none."""
    here = unsaved_by(bare(opt))
    for name, saved in state.get("inner", {}).items():
        if name not in here:
            raise CheckpointMismatch(
                f"The checkpoint has the state of an optimizer {type_name(bare(opt))}.{name}, which "
                "is not there: make it as it was saved."
            )
        check_fit(here[name], None, saved)


def _has_torchs_form(state: Any) -> bool:
    return isinstance(state, dict) and {"state", "param_groups"} <= state.keys()


def _guessed(opt: torch.optim.Optimizer, name: str, groups: list[dict[str, Any]]) -> str:
    defaults = getattr(opt, "defaults", {})  # a wrapper may have none
    needed = {key for key, value in defaults.items() if type(value) in (int, float, tuple)}
    missing = sorted({key for group in groups for key in needed - group.keys()})
    return f"without {', '.join(missing)}" if missing else name
