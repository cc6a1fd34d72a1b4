"""Calling PyTorch's autograd engine without the checks of ``torch.autograd.backward``."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch

__all__ = ["ENGINE_OPTIONS", "autograd_engine"]

ENGINE_OPTIONS = (False, False, (), True, True)
"""``keep_graph``, ``create_graph``, ``inputs``, ``allow_unreachable``, ``accumulate_grad``."""


@cache
def autograd_engine() -> Callable[..., Any] | None:
    """Return the engine's function, or ``None`` if this PyTorch calls it in another way.

    ``torch.autograd.backward`` checks arguments that a step has checked before, which takes a
    tenth of the time of a small step. Call it as ``engine((loss,), (one,), *ENGINE_OPTIONS)``.
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
