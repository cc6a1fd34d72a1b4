"""Chooses the patch of a metric once per run, so that a batch only has to make and load it.

>>> from deepepochs.metrics import accuracy
>>> from deepepochs.patches import make_patch
>>> new_patch = make_patch(accuracy, "mean")
>>> new_patch(32)
MeanPatch(accuracy)
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from typing import Any

from ..errors import ConfigError, ConfigTypeError
from ..nest.containers import describe
from .base import PatchBase
from .confusion import ConfusionPatch
from .means import MeanPatch
from .metric import checked_metric, metric_name
from .tensors import TensorPatch
from .torchmetric import MetricPatch

__all__ = ["check_patch_kind", "is_torchmetric", "make_patch"]

KINDS: dict[str, Callable[..., PatchBase]] = {
    "tensor": TensorPatch,
    "mean": MeanPatch,
    "confusion": ConfusionPatch,
}


def make_patch(metric: Any, kind: str | type[PatchBase] = "tensor") -> Callable[[Any], PatchBase]:
    """Choose how a metric is kept over batches.

    Args:
        metric: a function; a torchmetrics object, which brings its own way; a `PatchBase`
            subclass, made with ``batch_size=`` if it takes one; or a patch, which is copied.
        kind: for functions: ``'tensor'``, ``'mean'``, ``'confusion'``, or a class that is made
            with metric and batch size.

    Returns:
        A function of the batch size that gives a new patch, whose ``load`` takes outputs and
        targets.

    Raises:
        ConfigError: an unknown kind, or a patch class that needs more arguments.
        ConfigTypeError: the metric cannot be called.
    """
    check_patch_kind(kind)  # first: a wrong kind is told whatever the metric
    if isinstance(metric, PatchBase):
        return lambda batch_size: metric.copy()
    if isinstance(metric, type) and issubclass(metric, PatchBase):
        return _of_class(metric)
    checked_metric(metric, "the run")
    if is_torchmetric(metric):
        return functools.partial(MetricPatch, metric)
    return functools.partial(KINDS[kind] if isinstance(kind, str) else kind, metric)


def is_torchmetric(metric: Any) -> bool:
    """Say whether `metric` is an object of torchmetrics, without importing it for others."""
    torchmetrics = sys.modules.get("torchmetrics")
    return torchmetrics is not None and isinstance(
        metric, (torchmetrics.Metric, torchmetrics.MetricCollection)
    )


def check_patch_kind(kind: Any) -> Any:
    """Give `kind` back if `make_patch` knows it.

    Raises:
        ConfigError: an unknown name.
        ConfigTypeError: neither a name nor a subclass of `PatchBase`.
    """
    if isinstance(kind, type) and issubclass(kind, PatchBase):
        return kind
    if isinstance(kind, str) and kind in KINDS:
        return kind
    error = ConfigError if isinstance(kind, str) else ConfigTypeError
    found = repr(kind) if isinstance(kind, str) else describe(kind)
    allowed = ", ".join(map(repr, KINDS))
    raise error(f"metric_patch is {found}: give {allowed}, or a subclass of PatchBase.")


def _of_class(patch_class: type[PatchBase]) -> Callable[[Any], PatchBase]:
    parameters = inspect.signature(patch_class).parameters
    needed = [
        name
        for name, parameter in parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        and name != "batch_size"
    ]
    if needed:
        raise ConfigError(
            f"{metric_name(patch_class)} as a metric lacks {', '.join(needed)}: give a patch made "
            "with them, or a subclass that needs no arguments but batch_size."
        )
    if "batch_size" in parameters:
        return lambda batch_size: patch_class(batch_size=batch_size)  # type: ignore[call-arg]
    return lambda batch_size: patch_class()
