"""Which metrics a pass computes: decided, named and checked before it begins.

>>> from deepepochs import metrics as dm
>>> [name for name, _ in plan_metrics([[dm.accuracy], [dm.accuracy, dm.recall]], "tensor")]
['accuracy', 'recall']
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ..errors import ConfigTypeError, MetricError
from ..legacy.mappings import listify
from . import PatchBase, make_patch, metric_name

__all__ = ["Metric", "MetricPlan", "check_metrics", "complete_patches", "plan_metrics"]

Metric = Callable[..., Any]
"""A function of outputs and targets, an object of torchmetrics, or a class of patches."""

MetricPlan = tuple[str, Callable[[Any], PatchBase]]


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
    """Make the patches of a mini-batch that ``made`` lacks, all of which only keep.

    Args:
        plan: the metrics of the pass.
        kept: outputs and targets of the mini-batch.
        made: its patches so far.
    """
    # Of no weight: a patch that keeps all has no use for it.
    planned = {name: made[name] if name in made else make(1).load(*kept) for name, make in plan}
    return {**planned, **made}


def _unnamed(make: Callable[[Any], PatchBase]) -> Callable[[Any], PatchBase]:
    def make_unnamed(batch_size: Any) -> PatchBase:
        patch = make(batch_size)
        patch.name = ""
        return patch

    return make_unnamed
