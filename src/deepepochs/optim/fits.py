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
import types
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy
from torch.optim.lr_scheduler import OneCycleLR

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
        # torch keeps tensors that need no cast.
        given = {id(value) for entry in saved["state"].values() for value in entry.values()}
        for entry in outer.state.values():
            for key, value in entry.items():
                if isinstance(value, Tensor) and id(value) in given:
                    entry[key] = value.clone()
    # torch loads into new groups: who had the same list before has the same after.
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
                f"The saved state has one of an optimizer in {type_name(bare(opt))}.{name}, which is "
                "not there: make it as it was saved."
            )
        check_fit(here[name], None, saved)


def _has_torchs_form(state: Any) -> bool:
    return isinstance(state, dict) and {"state", "param_groups"} <= state.keys()


def _guessed(opt: torch.optim.Optimizer, name: str, groups: list[dict[str, Any]]) -> str:
    defaults = getattr(opt, "defaults", {})  # a wrapper may have none
    needed = {key for key, value in defaults.items() if type(value) in (int, float, tuple)}
    missing = sorted({key for group in groups for key in needed - group.keys()})
    return f"without {', '.join(missing)}" if missing else name


# What a script has set. It is noted when the optimizer is given to the library, before a schedule
# or a hook changes it: two scripts that set the same have the same settings, wherever they are.

# They follow from the rate of the group, or are no settings.
_OF_THE_RATE = frozenset(["initial_lr", "params", "param_names"])
_COUNTED = frozenset(
    ["_last_lr", "base_lrs", "last_lr", "_step_count", "last_epoch", "_schedule_phases"]
)
_SCALARS = (str, int, float, bool, type(None))


def read_settings(opt: torch.optim.Optimizer, scheduler: Any, sched_on: str) -> dict[str, Any]:
    """Note the groups and their options, the numbers of the schedule, and its functions."""
    state = scheduler.state_dict() if hasattr(scheduler, "state_dict") else {}
    return {
        "sizes": [len(group["params"]) for group in opt.param_groups],
        "groups": [_options(group) for group in opt.param_groups],
        "sched_on": None if scheduler is None else sched_on,
        "schedule": dict(_numbers(state)),
        "functions": [_describe(function) for function in _functions(scheduler)],
    }


def compare_settings(
    what: str, saved: Mapping[str, Any], here: Mapping[str, Any], state: Mapping[str, Any]
) -> list[str]:
    """Say where the settings of a checkpoint and of the script differ, and which are used.

    Args:
        what: what the optimizer is called.
        saved: the settings of the script that saved.
        here: those of the script that resumes.
        state: the saved state, with the values that are used.
    """
    groups = state["opt_state"].get("param_groups", [])
    kept = [
        text
        for group in zip(saved["groups"], here["groups"], map(_options, groups), strict=False)
        for text in _kept(*group)
    ]
    if saved["sizes"] != here["sizes"]:
        sizes = [len(group["params"]) for group in groups]
        kept.append(f"groups of {sizes} parameters ({here['sizes']} in the script)")
    scheduled = _kept(
        saved["schedule"], here["schedule"], dict(_numbers(state["sched_state"] or {}))
    )
    told = [
        f"{what}{part} goes on with {', '.join(dict.fromkeys(texts))}: to change that, set it after "
        "trainer.load_checkpoint(path)"
        for part, texts in (("", kept), ("'s schedule", scheduled))
        if texts
    ]
    for theirs, ours in zip(saved["functions"], here["functions"], strict=False):
        if theirs != ours:
            told.append(
                f"{what}'s schedule follows the function in the script ({_shown(ours)}), and was saved "
                f"with another one ({_shown(theirs)})"
            )
    if saved["sched_on"] != here["sched_on"]:
        told.append(
            f"{what}'s schedule moves after each {here['sched_on']}, as the script says, and has moved "
            f"after each {saved['sched_on']}"
        )
    return told


def _kept(saved: Mapping[str, Any], here: Mapping[str, Any], used: Mapping[str, Any]) -> list[str]:
    """The values that are used in place of those in the script."""
    return [
        f"{name}={_text(used.get(name))} ({_text(wanted)} in the script)"
        for name, wanted in here.items()
        if name in saved and saved[name] != wanted and used.get(name) != wanted
    ]


def _text(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else repr(value)


def check_length(scheduler: Any, state: Mapping[str, Any]) -> None:
    """Raise ``CheckpointMismatch`` for a saved schedule that ends before the one of the script."""
    inner = zip(getattr(scheduler, "_schedulers", []), state.get("_schedulers", []), strict=False)
    for one, its_state in inner:
        check_length(one, its_state)
    bare = getattr(scheduler, "scheduler", scheduler)
    saved = state.get("total_steps")
    if isinstance(bare, OneCycleLR) and isinstance(saved, int) and saved < bare.total_steps:
        raise CheckpointMismatch(
            f"The OneCycleLR of the checkpoint ends after {saved} steps, and that of the script after "
            f"{bare.total_steps}: a cycle that has begun cannot be made longer. Give "
            f"total_steps={saved} and no more epochs, or take the weights alone with "
            "trainer.load_weights(path) and begin a new cycle."
        )


def _options(group: Mapping[str, Any]) -> dict[str, Any]:
    values = {name: _plain(value) for name, value in group.items() if name not in _OF_THE_RATE}
    return {name: value[0] for name, value in values.items() if value}


def _numbers(state: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The plain values in the state of a schedule, with those of the schedules inside of it."""
    for name, value in state.items():
        if name == "_schedulers":
            for index, inner in enumerate(value):
                yield from _numbers(inner, f"{prefix}{index}.")
        elif name == "lr_lambdas":
            for index, inner in enumerate(value):  # the attributes of a callable object
                yield from _numbers(inner or {}, f"{prefix}lr_lambdas[{index}].")
        elif name not in _COUNTED and (plain := _plain(value)):
            yield prefix + name, plain[0]


def _functions(scheduler: Any) -> list[Any]:
    """The functions that a schedule calls, which no state has."""
    inner = getattr(scheduler, "_schedulers", None)
    if isinstance(inner, (list, tuple)):
        return [function for one in inner for function in _functions(one)]
    found = getattr(getattr(scheduler, "scheduler", scheduler), "lr_lambdas", None)
    return list(found) if isinstance(found, (list, tuple)) else []


def _describe(function: Any) -> dict[str, Any]:
    """The numbers that a function computes with: its own, its defaults, and what it refers to."""
    if not isinstance(function, types.FunctionType):
        return {"kind": type(function).__name__}
    code = function.__code__
    closure = zip(code.co_freevars, function.__closure__ or (), strict=False)
    named = {name: cell.cell_contents for name, cell in closure if _is_filled(cell)}
    named |= {name: function.__globals__.get(name) for name in code.co_names}
    values = {name: _plain(value) for name, value in named.items() if value is not None}
    return {
        **{name: value[0] for name, value in values.items() if value},
        "numbers": [value for value in code.co_consts if type(value) in (int, float)],
        "defaults": [value for value in function.__defaults__ or () if type(value) in _SCALARS],
    }


def _is_filled(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False


def _plain(value: Any) -> tuple[Any, ...]:
    """A plain value in a tuple; empty for any other."""
    if isinstance(value, Tensor):
        return (value.item(),) if value.numel() == 1 and not value.is_meta else ()
    if isinstance(value, Counter):
        value = sorted(value.elements())
    if isinstance(value, Mapping):
        value = sorted(value.items()) if all(type(key) in _SCALARS for key in value) else None
    if isinstance(value, (list, tuple)):
        parts = [_plain(each) for each in value]
        return (tuple(part[0] for part in parts),) if all(parts) else ()
    return (value,) if type(value) in _SCALARS else ()


def _shown(numbers: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name}={value!r}" for name, value in numbers.items() if value not in ([], ())
    )
