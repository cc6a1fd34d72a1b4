"""The modules that a loss function holds: they have modes, weights and a state, as the model has.

>>> import functools
>>> import torch
>>> margin, model = torch.nn.Linear(2, 1), torch.nn.Linear(4, 2)
>>> find_loss_module(functools.partial(print, margin), model)
HeldModules(
  (0): Linear(in_features=2, out_features=1, bias=True)
)
"""

from __future__ import annotations

from functools import partial
from types import FunctionType, MethodType
from typing import Any

from torch import nn

from ..nest.functions import enclosed_by, globals_of


class HeldModules(nn.ModuleList):
    """The modules inside of a loss function that is not an ``nn.Module``."""

    is_optional = True
    """Checkpoints of earlier releases do not have their state."""


def find_loss_module(loss_fn: Any, model: nn.Module) -> nn.Module | None:
    """Return the modules of a loss function as one, or ``None`` if there are none.

    It is the loss function itself if that is a module. A ``partial``, a bound method and an object
    that can be called may hold modules, in lists and dicts as well. So may a function, in its
    closure, defaults and globals: there, a module in eval mode is a fixed one that it only calls.
    Those of the model are not the loss function's.
    """
    if isinstance(loss_fn, nn.Module):
        return loss_fn
    known = set(map(id, model.modules()))
    held = [
        one
        for one in _modules_in(loss_fn, depth=3)
        if id(one) not in known and known.isdisjoint(map(id, one.modules()))
    ]
    return HeldModules({id(one): one for one in held}.values()) if held else None


def _modules_in(thing: Any, depth: int) -> list[nn.Module]:
    if isinstance(thing, nn.Module):
        return [thing]
    if isinstance(thing, (list, tuple)):
        inside = list(thing)
    elif isinstance(thing, dict):
        inside = list(thing.values())
    elif isinstance(thing, partial):
        inside = [thing.func, *thing.args, *thing.keywords.values()]
    elif isinstance(thing, MethodType):
        inside = [thing.__self__]
    elif isinstance(thing, FunctionType):
        inside = _named_in(thing)
        found = [one for item in inside if depth for one in _modules_in(item, depth - 1)]
        return [one for one in found if one.training]
    elif callable(thing) and not isinstance(thing, type):
        inside = list(getattr(thing, "__dict__", {}).values())
    else:
        return []
    return [one for item in inside if depth for one in _modules_in(item, depth - 1)]


def _named_in(function: FunctionType) -> list[Any]:
    """Give what a function has in its closure and defaults, and the global modules it names."""
    defaults = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    named = [one for one in globals_of(function).values() if isinstance(one, nn.Module)]
    return [*defaults, *enclosed_by(function).values(), *named]
