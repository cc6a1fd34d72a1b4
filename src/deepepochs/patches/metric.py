"""Calls a metric, and names its values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import ConfigTypeError, MetricError, add_note
from ..nest.containers import describe
from .base import metric_name

__all__ = ["call_metric", "checked_metric", "flatten_value"]


def checked_metric(metric: Any, owner: str) -> Any:
    """Return `metric`, or raise a ConfigTypeError if it cannot be called."""
    if not callable(metric):
        raise ConfigTypeError(
            f"{owner} got {describe(metric)} as metric: give a function (outputs, targets)."
        )
    return metric


def flatten_value(name: str, value: Any) -> dict[str, Any]:
    """Give a metric's value as a flat dict, with the names that a user sees.

    Args:
        name: the metric's name; the keys of a dict are appended to it directly.
        value: a number, a NumPy number, a tensor, or a dict of these; the keys of nested dicts
            are joined by a dot.

    Returns:
        Names and values; one pair unless the value is a dict.

    Raises:
        MetricError: a value is none of these.

    Example:
        >>> flatten_value("m.", {"p": 0.5, "of": {"cat": 1.0}})
        {'m.p': 0.5, 'm.of.cat': 1.0}
    """
    if type(value) is float:
        return {name: value}
    if isinstance(value, dict):
        flat: dict[str, Any] = {}
        for key, item in value.items():
            dot = "." if isinstance(item, dict) else ""
            flat.update(flatten_value(f"{name}{key}{dot}", item))
        return flat
    if not isinstance(value, (Tensor, int, float, np.number, np.bool_, np.ndarray)):
        raise MetricError(
            f"metric {name!r} gave {describe(value)}: return a number, a tensor, or a dict of them."
        )
    return {name: value}


def call_metric(metric: Callable[..., Any], *args: Any) -> Any:
    """Call a metric outside autograd; an error gets a note with the metric's arguments."""
    try:
        with torch.no_grad():
            return metric(*args)
    except Exception as error:
        found = " and ".join(describe(arg) for arg in args)
        add_note(error, f"The metric {metric_name(metric)!r} was called with {found}.")
        raise
