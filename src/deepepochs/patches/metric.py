"""Calling a metric, the name of a metric, and the names of its values.

>>> from deepepochs.patches import flatten_value, metric_name
>>> metric_name(max), flatten_value("of.", {"cat": 0.5, "dog": 1.0})
('max', {'of.cat': 0.5, 'of.dog': 1.0})
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import ConfigTypeError, MetricError, add_note
from ..nest.containers import describe

__all__ = ["Copyable", "call_metric", "checked_metric", "flatten_value", "metric_name"]


class Copyable:
    """An object with a ``copy`` of its own: a patch, or the chunks in one."""

    def copy(self) -> Any:
        """Give an independent copy."""
        raise NotImplementedError


def checked_metric(metric: Any, owner: str) -> Any:
    """Return `metric`, or raise a ConfigTypeError if it cannot be called."""
    if not callable(metric):
        raise ConfigTypeError(
            f"{owner} got {describe(metric)} as metric: give a function (outputs, targets)."
        )
    return metric


def metric_name(metric: Any) -> str:
    """Give the name under which a metric is printed and returned.

    Args:
        metric: a function (its ``__name__``), a ``functools.partial`` (the function's name), any
            other object or module (its class's name; ``''`` for a torchmetrics
            ``MetricCollection``, whose keys are names), or a patch or patch class.

    Returns:
        The name; one that `rename` has set takes precedence.

    Example:
        >>> import functools
        >>> from deepepochs.metrics import f1
        >>> metric_name(functools.partial(f1, average="macro")), metric_name(torch.nn.L1Loss())
        ('f1', 'L1Loss')
    """
    attribute = "name" if isinstance(metric, Copyable) else "__name__"
    name = getattr(metric, attribute, None)
    if isinstance(name, str):
        return name
    if isinstance(metric, functools.partial):
        return metric_name(metric.func)
    own = type(metric).__name__
    return "" if own == "MetricCollection" else own


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
