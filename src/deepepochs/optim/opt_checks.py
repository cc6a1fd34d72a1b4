"""Whether an optimizer and a scheduler can be stepped by a trainer, and what their steps want.

>>> import torch
>>> needs_closure(torch.optim.LBFGS([torch.nn.Parameter(torch.ones(1))]))
True
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from ..errors import ConfigError, ConfigTypeError
from .fits import type_name

__all__ = ["needs_closure", "takes_loss"]

_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def needs_closure(opt: torch.optim.Optimizer) -> bool:
    """Say whether `opt` cannot step without an argument."""
    try:
        # Of the class: a scheduler has put a wrapper around the bound one.
        parameters = list(inspect.signature(type(opt).step).parameters.values())[1:]
    except (TypeError, ValueError):  # a step written in C tells no signature
        return False
    named = (parameter for parameter in parameters if parameter.kind not in _VARIADIC)
    return any(parameter.default is parameter.empty for parameter in named)


def takes_loss(opt: torch.optim.Optimizer, scheduler: Any, sched_with_loss: bool) -> bool:
    """Check that `scheduler` is one, and of `opt`; return True where its step wants a loss."""
    if scheduler is None:
        return False
    if isinstance(scheduler, type) or not callable(getattr(scheduler, "step", None)):
        raise ConfigTypeError(
            f"Optimizer got {type_name(scheduler)} as scheduler: it must be a learning-rate scheduler, "
            "for example torch.optim.lr_scheduler.StepLR(opt, 10)."
        )
    # Accelerate's scheduler holds torch's as `scheduler`; its optimizer shares the groups' list.
    bare = getattr(scheduler, "scheduler", scheduler)
    owner = getattr(bare, "optimizer", None)
    if owner is not None and getattr(owner, "param_groups", None) is not opt.param_groups:
        raise ConfigError(
            f"The {type_name(bare)} of an Optimizer was made for another optimizer than its "
            f"{type_name(opt)}: make it with that one."
        )
    if sched_with_loss and type(bare).step is LRScheduler.step:
        raise ConfigError(
            f"sched_with_loss=True, but {type_name(bare)}.step takes no loss: leave it out."
        )
    return sched_with_loss or isinstance(bare, ReduceLROnPlateau)
