"""What a script has set of an optimizer and its schedule, to be compared with a checkpoint.

It is noted when the optimizer is given to the library, before a schedule or a hook changes it: two
scripts that set the same have the same settings, wherever they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from types import FunctionType
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import OneCycleLR

from ..errors import CheckpointMismatch
from ..nest.functions import enclosed_by, globals_of

# Of a group: what follows from its rate, or is no setting.
_NO_SETTINGS = frozenset(["initial_lr", "params", "param_names"])
# Of a schedule: what it has counted and computed.
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
        "functions": [_numbers_in(function) for function in _functions(scheduler)],
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
            f"the scheduler of {what} steps after each {here['sched_on']}, as the script says; in the "
            f"checkpoint it stepped after each {saved['sched_on']}"
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
    inside = getattr(scheduler, "scheduler", scheduler)  # of a wrapper
    saved = state.get("total_steps")
    if isinstance(inside, OneCycleLR) and isinstance(saved, int) and saved < inside.total_steps:
        raise CheckpointMismatch(
            f"The OneCycleLR of the checkpoint ends after {saved} steps, and that of the script after "
            f"{inside.total_steps}: a cycle that has begun cannot be made longer. Give "
            f"total_steps={saved} and no more epochs, or take the weights alone with "
            "trainer.load_weights(path) and begin a new cycle."
        )


def _options(group: Mapping[str, Any]) -> dict[str, Any]:
    values = {name: _plain(value) for name, value in group.items() if name not in _NO_SETTINGS}
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


def _numbers_in(function: Any) -> dict[str, Any]:
    """The numbers that a function computes with: its own, its defaults, and what it refers to."""
    if not isinstance(function, FunctionType):
        return {"kind": type(function).__name__}
    code = function.__code__
    named = {**enclosed_by(function), **globals_of(function)}
    values = {name: _plain(value) for name, value in named.items() if value is not None}
    return {
        **{name: value[0] for name, value in values.items() if value},
        "numbers": [value for value in code.co_consts if type(value) in (int, float)],
        "defaults": [value for value in function.__defaults__ or () if type(value) in _SCALARS],
    }


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
