"""Which metrics a pass computes, and in which patch each is kept: decided before it begins.

`plan_metrics` names and checks the metrics of a pass. `make_patch` chooses the patch of one
metric, so that a mini-batch only has to make and load it.

>>> from deepepochs import metrics as dm
>>> [name for name, _ in plan_metrics([[dm.accuracy], [dm.accuracy, dm.recall]], "tensor")]
['accuracy', 'recall']
>>> make_patch(dm.accuracy, "mean")(32)
MeanPatch(accuracy)
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ..errors import ConfigError, ConfigTypeError, MetricError
from ..legacy.mappings import listify
from ..nest.containers import describe
from .base import PatchBase
from .confusion import ConfusionPatch
from .metric import checked_metric, metric_name
from .tensors import TensorPatch
from .torchmetric import MetricPatch
from .values import MeanPatch

__all__ = [
    "Metric",
    "MetricPlan",
    "check_metrics",
    "check_patch_kind",
    "complete_patches",
    "is_torchmetric",
    "make_patch",
    "plan_metrics",
]

Metric = Callable[..., Any]
"""A function of outputs and targets, an object of torchmetrics, or a class of patches."""

MetricPlan = tuple[str, Callable[[Any], PatchBase]]

KINDS: dict[str, Callable[..., PatchBase]] = {
    "tensor": TensorPatch,
    "mean": MeanPatch,
    "confusion": ConfusionPatch,
}


def check_metrics(metrics: Any, where: str) -> list[Any]:
    """Give ``metrics`` as a list.

    Raises:
        ConfigTypeError: something that is not callable, such as a name.
    """
    listed = list(listify(metrics))
    for metric in listed:
        if not callable(metric):
            raise ConfigTypeError(
                f"{where}={metric!r} is a {type(metric).__name__}: a metric is a function "
                "(preds, targets) -> number or dict, a torchmetrics object or a patch class."
            )
    return listed


def plan_metrics(groups: Iterable[Sequence[Any]], kind: Any) -> tuple[MetricPlan, ...]:
    """Name the metrics of a pass and say how each is carried from mini-batches to the epoch.

    Args:
        groups: lists of metrics, the nearest first; the same object counts once.
        kind: ``metric_patch`` of the trainer.

    Raises:
        MetricError: two different metrics with one name, or one named as the loss.
    """
    planned: dict[str, Any] = {}
    plan: list[MetricPlan] = []
    for metric in (metric for group in groups for metric in group):
        if any(metric is known for known in planned.values()):
            continue
        name = metric_name(metric)
        if name == "loss":
            raise MetricError(
                f"The metric {metric!r} is named {name!r}, as the loss itself is. Give it another "
                "name, for example with the decorator rename('other')."
            )
        if name in planned and name:
            raise MetricError(
                f"Two different metrics are named {name!r}: {planned[name]!r} and {metric!r}. Give "
                "one another name, for example with the decorator rename('other')."
            )
        make = make_patch(metric, kind)
        if name in planned:
            # Several metrics renamed to '' give bare keys, told apart by the dicts they return.
            name, make = f"#{len(planned)}", _unnamed(make)
        planned[name] = metric
        plan.append((name, make))
    return tuple(plan)


def complete_patches(
    plan: Sequence[MetricPlan], kept: tuple[Any, Any], made: Mapping[str, PatchBase]
) -> dict[str, PatchBase]:
    """Make the patches of a mini-batch that are missing in ``made``; they only keep its data.

    Args:
        plan: the metrics of the pass.
        kept: outputs and targets of the mini-batch.
        made: its patches so far.
    """
    # Of no weight: a patch that keeps all has no use for it.
    planned = {name: made[name] if name in made else make(1).load(*kept) for name, make in plan}
    return {**planned, **made}


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


def _unnamed(make: Callable[[Any], PatchBase]) -> Callable[[Any], PatchBase]:
    def make_unnamed(batch_size: Any) -> PatchBase:
        patch = make(batch_size)
        patch.name = ""
        return patch

    return make_unnamed


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
