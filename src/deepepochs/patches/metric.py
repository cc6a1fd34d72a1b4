"""How a metric is called, what it is called, and what its value may be.

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
    """What copies itself: patches, also inside of other patches' attributes."""

    def copy(self) -> Any:
        """Give an independent copy."""
        raise NotImplementedError


def checked_metric(metric: Any, owner: str) -> Any:
    """Give `metric` back, or raise a ConfigTypeError where it cannot be called."""
    if not callable(metric):
        raise ConfigTypeError(
            f"{owner} got {describe(metric)} as metric: give a function (outputs, targets)."
        )
    return metric


def metric_name(metric: Any) -> str:
    """Give the name under which a metric is printed and returned.

    Args:
        metric: a function (its ``__name__``), a ``functools.partial`` (its function's), any other
            object or module (its class's; nothing for a torchmetrics ``MetricCollection``, whose
            keys are names already), or a patch or patch class.

    Returns:
        The name. What `rename` has set on any of them comes first.

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
    """Spread a metric's value over the names under which it is returned.

    Args:
        name: the metric's name; a dict's keys are appended to it directly.
        value: a number, a NumPy number, a tensor, or a dict of these; nested dicts' keys are
            joined by a dot.

    Returns:
        Names and values; one pair for a value that is no dict.

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
            if isinstance(item, dict):
                flat.update(flatten_value(f"{name}{key}.", item))
            else:
                flat.update(flatten_value(f"{name}{key}", item))
        return flat
    if not isinstance(value, (Tensor, int, float, np.number, np.bool_, np.ndarray)):
        raise MetricError(
            f"metric {name!r} gave {describe(value)}: return a number, a tensor, or a dict of them."
        )
    return {name: value}


def call_metric(metric: Callable[..., Any], *args: Any) -> Any:
    """Call a metric outside autograd; an error gets a note that tells what the metric was given."""
    try:
        with torch.no_grad():
            return metric(*args)
    except Exception as error:
        found = " and ".join(describe(arg) for arg in args)
        add_note(error, f"The metric {metric_name(metric)!r} was called with {found}.")
        raise
