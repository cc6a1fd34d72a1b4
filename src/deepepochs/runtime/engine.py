"""The way into PyTorch's autograd engine below the checks of ``torch.autograd.backward``.

>>> import torch
>>> weight = torch.ones((), requires_grad=True)
>>> loss = weight * 3
>>> engine = autograd_engine()
>>> _ = engine((loss,), (torch.ones_like(loss),), *ENGINE_OPTIONS)
>>> weight.grad
tensor(3.)
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch

__all__ = ["ENGINE_OPTIONS", "autograd_engine"]

ENGINE_OPTIONS = (False, False, (), True, True)
"""Keep no graph, create none, all weights, also of what cannot be reached, into ``grad``."""


@cache
def autograd_engine() -> Callable[..., Any] | None:
    """The way into the engine that ``torch.autograd.backward`` takes, if it is as it was.

    What lies above it checks arguments that a step has checked: a tenth of the time of a small one.

    Returns:
        What computes gradients as ``engine((loss,), (one,), *ENGINE_OPTIONS)``, or ``None``.
    """
    engine: Any = getattr(torch.autograd.graph, "_engine_run_backward", None)
    with torch.enable_grad():
        weight = torch.ones((), device="cpu", requires_grad=True)
        loss = weight * 2
    try:
        engine((loss,), (torch.ones_like(loss),), *ENGINE_OPTIONS)
    except Exception:  # another signature fails in any way
        return None
    return engine if weight.grad is not None and weight.grad.item() == 2 else None
