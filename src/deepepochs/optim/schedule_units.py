"""Whether a schedule of the learning rate counts optimizer steps or epochs, as far as it shows.

A schedule that was made for steps and moves once an epoch hardly moves at all, and nothing fails.

>>> import torch
>>> opt = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
>>> schedule = torch.optim.lr_scheduler.CosineAnnealingLR(opt, T_max=500)
>>> made_for_steps(schedule, epochs=5, num_steps=[500])
'CosineAnnealingLR has T_max=500'
>>> made_for_steps(schedule, epochs=500, num_steps=[50_000]) is None
True
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from types import FunctionType, MethodType
from typing import Any

from torch.optim import lr_scheduler as torchs

from ..nest.functions import enclosed_by
from .fits import bare
from .schedules import LinearCosineScheduler

# The attribute that says how many moves a schedule has.
LENGTHS = {
    torchs.CosineAnnealingLR: "T_max",
    torchs.CosineAnnealingWarmRestarts: "T_0",
    torchs.PolynomialLR: "total_iters",
    torchs.LinearLR: "total_iters",
    torchs.ConstantLR: "total_iters",
    torchs.CyclicLR: "total_size",
    torchs.OneCycleLR: "total_steps",
    LinearCosineScheduler: "total_steps",
}
# These, and those that rise, are of no use if the fit ends before them.
WHOLE = (torchs.OneCycleLR, torchs.CyclicLR, LinearCosineScheduler)
HARDLY = 0.01  # of the rate that the optimizer was given
VANISHED = 1e-9


def made_for_steps(scheduler: Any, epochs: int, num_steps: Sequence[int]) -> str | None:
    """Say why a schedule that moves on epochs seems to be made for steps, or return ``None``.

    Args:
        scheduler: the schedule, before its first move.
        epochs: the epochs of the fit.
        num_steps: how many optimizer steps these may have; empty if it is not known.
    """
    for one in parts_of(scheduler):
        if getattr(one, "last_epoch", 0) > 0:  # it goes on in another fit or process
            continue
        name, kind = LENGTHS.get(type(one)), type(one).__name__
        length = getattr(one, name) if name else None
        if length is not None and length > epochs and _is_long(one, length, epochs, num_steps):
            return f"{kind} has {name}={length:g}"
        is_function = isinstance(one, torchs.LambdaLR)
        groups = getattr(getattr(one, "optimizer", None), "param_groups", ())
        if groups and all(_is_small(group, HARDLY if is_function else 0.0) for group in groups):
            return f"{kind} begins with a rate of {float(groups[0]['lr']):.3g}"
        if is_function:
            for number in sorted(_numbers_of(one.lr_lambdas)):
                if number > epochs and _is_near(number, epochs, num_steps):
                    return f"the function of {kind} knows the number {number}"
    return None


def made_for_epochs(scheduler: Any, epochs: int, num_steps: Sequence[int]) -> str | None:
    """Say why a schedule that moves on steps seems to be made for epochs, or return ``None``."""
    if epochs < 2 or not num_steps or min(num_steps) <= epochs:
        return None
    for one in parts_of(scheduler):
        name, kind = LENGTHS.get(type(one)), type(one).__name__
        if name and getattr(one, name) == epochs:
            return f"{kind} has {name}={epochs}, the number of epochs"
        if isinstance(one, (torchs.StepLR, torchs.ExponentialLR)):
            times = min(num_steps) // getattr(one, "step_size", 1)
            if one.gamma**times < VANISHED:
                return f"{kind} multiplies the rate by {one.gamma} {times} times"
    return None


def overruns(scheduler: Any, num_moves: int) -> str | None:
    """Say in two lines that a schedule ends before a fit in which it moves so often, or ``None``."""
    one = bare(scheduler)
    if not isinstance(one, torchs.OneCycleLR) or one.last_epoch + num_moves <= one.total_steps:
        return None  # others have no end that they object to
    needed = one.last_epoch + num_moves
    return (
        f"OneCycleLR has total_steps={one.total_steps}, and moves {needed} times by the end of this "
        f"fit: torch raises an error at move {one.total_steps + 1}.\nGive OneCycleLR "
        f"total_steps={needed}, or fit fewer epochs."
    )


def parts_of(scheduler: Any) -> Iterator[Any]:
    """Give a schedule, or those that it is made of."""
    scheduler = bare(scheduler)
    parts = getattr(scheduler, "_schedulers", None)  # of torch's SequentialLR and ChainedScheduler
    if parts is None:
        yield scheduler
    else:
        for part in parts:
            yield from parts_of(part)


def _is_long(one: Any, length: float, epochs: int, num_steps: Sequence[int]) -> bool:
    start = getattr(one, "start_factor", getattr(one, "factor", 1.0))
    rises = start < getattr(one, "end_factor", 1.0)
    if isinstance(one, WHOLE) or rises:
        return all(length >= number / epochs for number in num_steps)
    return _is_near(length, epochs, num_steps)


def _is_near(length: float, epochs: int, num_steps: Sequence[int]) -> bool:
    """Whether a length is the number of steps, but for a part of an epoch."""
    return any(abs(length - number) <= max(number / epochs, 1) for number in num_steps)


def _is_small(group: dict[str, Any], share: float) -> bool:
    rate, full = group.get("lr"), group.get("initial_lr")
    return rate is not None and full is not None and full > 0 and bool(rate <= share * full)


def _numbers_of(functions: Iterable[Any]) -> set[int]:
    """The whole numbers that functions were made with."""
    found: list[Any] = []
    for function in functions:
        if isinstance(function, functools.partial):
            found += [*function.args, *function.keywords.values()]
            function = function.func
        if isinstance(function, (FunctionType, MethodType)):
            found += enclosed_by(function).values()
    return {value for value in found if type(value) is int}
