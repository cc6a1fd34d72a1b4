"""The metrics of a pass: named, checked, and each given a kind of patch before the pass begins.

>>> from deepepochs import metrics as dm
>>> make_patch(dm.accuracy, "mean")(32)
MeanPatch(accuracy)
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from torch.utils.data import DataLoader, Dataset

from ..arguments import found, in_order, place_of, targets_first
from ..errors import ConfigError, ConfigTypeError, MetricError
from ..metrics import BY_NAME
from ..nest.operations import describe, listify
from .base import PatchBase, checked_metric, metric_name
from .confusion import ConfusionPatch, CountsPatch, is_of_classes, takes_matrix_by_name
from .tensors import TensorPatch
from .torchmetric import MetricPatch
from .values import MeanPatch

Metric = Callable[..., Any] | str
"""A function of outputs and targets, an object of torchmetrics, a class of patches, or the name of
one of the library's own functions."""

MetricPlan = tuple[str, Callable[[Any], PatchBase]]

KINDS: dict[str, Callable[..., PatchBase]] = {
    "tensor": TensorPatch,
    "mean": MeanPatch,
    "confusion": ConfusionPatch,
}


KEEPING = (TensorPatch, CountsPatch)
"""The patches that keep the outputs of mini-batches, which all of them can share."""

Keeping = TensorPatch | CountsPatch


def check_metrics(metrics: Any, where: str) -> list[Any]:
    """Give ``metrics`` as a list, with the function in place of a name.

    Raises:
        ConfigTypeError: one is not callable.
        ConfigError: one is a text, and none of the library's metrics has this name.
    """
    if isinstance(metrics, (DataLoader, Mapping, Dataset)):
        raise _not_a_metric(where, metrics)
    listed = list(listify(metrics))
    for index, metric in enumerate(listed):
        entry = where if metrics is metric else f"{where}[{index}]"
        if isinstance(metric, str):
            listed[index] = _of_name(metric, entry)
        elif not callable(metric) or _is_other_class(metric):
            raise _not_a_metric(entry, metric)
    return listed


def _is_other_class(metric: Any) -> bool:
    return isinstance(metric, type) and not issubclass(metric, PatchBase)


def _of_name(name: str, where: str) -> Any:
    """The library's own metric of a name."""
    if name in BY_NAME:
        return BY_NAME[name]
    from ..hints.names import advice_on_metric_name

    advice = advice_on_metric_name(name, list(BY_NAME))
    raise ConfigError(f"{where}={name!r} is no metric of deepepochs. {advice}")


def _not_a_metric(where: str, given: Any) -> ConfigTypeError:
    """The error for something that was given as a metric; ``where`` names the argument."""
    advice = place_of(given) or (
        "give a function (preds, targets) -> number or dict, a torchmetrics object, a patch class, or "
        f"one of the names {', '.join(map(repr, BY_NAME))}."
    )
    if given is None:
        advice = "leave it out."
    elif isinstance(given, type):
        advice = f"give an object, {given.__name__}(...)."
    elif isinstance(given, int):
        advice = f"for a number of epochs write epochs={given}. For a metric {advice}"
    elif isinstance(given, Mapping):
        name, metric = next(iter(given.items()), ("acc", "accuracy"))
        code = metric if isinstance(metric, str) else metric_name(metric)
        advice = (
            f"give a list, in which a metric may have another name: [rename({name!r})({code})]."
        )
    elif isinstance(given, DataLoader):
        advice = (
            "fit(train_dl, val_dl) takes two loaders; a third is given to trainer.test(test_dl)."
        )
    return ConfigTypeError(f"{found(where, given)}: {advice}")


def plan_metrics(groups: Iterable[Sequence[Any]], kind: Any) -> tuple[MetricPlan, ...]:
    """Give the names of the metrics of a pass, each with a function that makes its patch.

    The task's own metrics are the first of the ``groups``; an object in several counts once.

    Raises:
        MetricError: two different metrics have one name, or one has the name of the loss.
        ConfigError: a function names its parameters ``(y_true, y_pred)``, in this order.
    """
    planned: dict[str, Any] = {}
    plan: list[MetricPlan] = []
    for metric in (metric for group in groups for metric in group):
        if any(metric is known for known in planned.values()):
            continue
        name = metric_name(metric)
        if name == "loss":
            raise MetricError(
                f"The metric {where_defined(metric)} is named 'loss', as the loss itself is. "
                f"{_renaming(metric)}"
            )
        if name in planned and name:
            raise MetricError(
                f"Two metrics are named {name!r}: {where_defined(planned[name])} and "
                f"{where_defined(metric)}. {_renaming(metric)}"
            )
        make = make_patch(metric, kind)
        order = targets_first(metric) if _gets_pairs(metric, kind) else None
        if order is not None:
            raise ConfigError(_swapped(metric, order))
        if name in planned:
            # Several metrics may be renamed to '': the keys of their dicts are the names.
            name, make = f"#{len(planned)}", _unnamed(make)
        planned[name] = metric
        plan.append((name, make))
    return tuple(plan)


def _gets_pairs(metric: Any, kind: Any) -> bool:
    """Whether a metric is a function that is called with outputs and targets."""
    is_own = isinstance(metric, (type, PatchBase)) or is_torchmetric(metric)
    return not is_own and (kind_of(metric) if kind == "auto" else kind) in ("tensor", "mean")


def _swapped(metric: Any, order: tuple[str, str]) -> str:
    name = metric_name(metric)
    renamed = f"rename({name!r})" if name.isidentifier() else "rename('name')"
    return (
        f"The metric {name!r} takes ({', '.join(order)}), and a metric is called as "
        f"metric(preds, targets). Give {renamed}({in_order(metric, 'preds', 'targets')})."
    )


def where_defined(metric: Any) -> str:
    """Say which metric it is, by its code: ``the lambda in line 12 of train.py``."""
    if isinstance(metric, functools.partial):
        given = [repr(value) for value in metric.args]
        given += [f"{name}={value!r}" for name, value in metric.keywords.items()]
        return f"partial({', '.join([metric_name(metric.func), *given])})"
    code = getattr(inspect.unwrap(metric) if callable(metric) else metric, "__code__", None)
    if code is None:
        return f"the {type(metric).__name__} {metric_name(metric)}"
    module = str(getattr(metric, "__module__", ""))
    if module.partition(".")[0] == __package__.partition(".")[0]:
        return f"{module}.{code.co_name}"
    name = "the lambda" if code.co_name == "<lambda>" else code.co_name
    file = Path(code.co_filename)
    # Cells of a notebook have files of their own, whose names say nothing.
    where = "a cell" if "ipykernel" in code.co_filename else file.name
    return f"{name} in line {code.co_firstlineno} of {where}"


def _renaming(metric: Any) -> str:
    if metric_name(metric) == "<lambda>":
        return "Give each a name of its own: rename('error')(lambda preds, targets: ...)."
    is_partial = isinstance(metric, functools.partial)
    made = f"partial({metric_name(metric)}, ...)" if is_partial else metric_name(metric)
    return f"Give one another name: rename('other')({made})."


def complete_patches(
    plan: Sequence[MetricPlan],
    kept: tuple[Any, Any],
    made: Mapping[str, PatchBase],
    on_copies: Container[str],
) -> dict[str, PatchBase]:
    """Give the patches of a mini-batch: those ``made``, and the rest of the plan from ``kept``.

    The patches made here are of ``KEEPING``, which ignore the batch size. The metrics that are in
    ``on_copies`` are given copies.
    """
    planned: dict[str, PatchBase] = {}
    for name, make in plan:
        planned[name] = made[name] if name in made else make(1)
        if name not in made:
            cast(Keeping, planned[name]).keep(*kept)
        if name in on_copies:
            planned[name].use_copies()
    return {**planned, **made}


def accumulates(
    patch: str | type[PatchBase], *, direction: str | None = None
) -> Callable[[Any], Any]:
    """Make a decorator that declares how a metric is carried from mini-batches to the epoch.

    A function that declares nothing is called once with all outputs and targets of the epoch,
    which are kept until then.

    Args:
        patch: ``'mean'`` for a metric that is a mean over samples, ``'confusion'`` for a function
            of a confusion matrix, ``'tensor'``, or a `PatchBase` subclass that is made with metric
            and batch size.
        direction: ``'max'`` or ``'min'``: which values are better, for `CheckCallback`.

    Raises:
        ConfigError: an unknown kind or direction.

    Example:
        >>> @accumulates("mean", direction="min")
        ... def absolute_error(preds, targets):
        ...     return (preds - targets).abs().mean()
    """
    check_patch_kind(patch)
    if patch == "auto":
        raise ConfigError("accumulates('auto'): give 'mean', 'confusion', 'tensor' or a class.")
    if direction not in (None, "max", "min"):
        raise ConfigError(f"accumulates got direction={direction!r}: give 'max' or 'min'.")

    def declare(metric: Any) -> Any:
        metric.accumulates = patch
        if direction is not None:
            metric.direction = direction
        return metric

    return declare


def kind_of(metric: Any) -> str | type[PatchBase]:
    """Give the kind of patch that a metric declares, also inside of a partial."""
    while isinstance(metric, functools.partial):
        metric = metric.func
    declared: Any = getattr(metric, "accumulates", "tensor")
    return declared if isinstance(declared, (str, type)) else "tensor"


def make_patch(metric: Any, kind: str | type[PatchBase] = "tensor") -> Callable[[Any], PatchBase]:
    """Choose the patch in which a metric is kept.

    Args:
        metric: a function; a torchmetrics object, kept in a `MetricPatch`; a `PatchBase`
            subclass, made with ``batch_size=`` if it takes one; or a patch, which is copied.
        kind: for functions: ``'tensor'``, ``'mean'``, ``'confusion'``, a class that is made with
            metric and batch size, or ``'auto'``: as the metric declares.

    Returns:
        A function of the batch size that makes a new patch, whose ``load`` takes outputs and
        targets.

    Raises:
        ConfigError: the kind is unknown, or the patch class needs more arguments.
        ConfigTypeError: the metric cannot be called, or not with these arguments.
    """
    check_patch_kind(kind)  # also for metrics that do not use it
    if isinstance(metric, PatchBase):
        return lambda batch_size: metric.copy()
    if isinstance(metric, type) and issubclass(metric, PatchBase):
        return _of_class(metric)
    checked_metric(metric, "the run")
    if is_torchmetric(metric):
        return functools.partial(MetricPatch, metric)
    if kind == "auto":
        if is_of_classes(metric):
            return functools.partial(CountsPatch, metric)
        kind = kind_of(metric)
    if isinstance(kind, str):
        _check_arguments(metric, kind)
        return functools.partial(KINDS[kind], metric)
    return functools.partial(kind, metric)


def _check_arguments(metric: Any, kind: str) -> None:
    """Raise a ConfigTypeError if a function cannot be called with what a patch hands it."""
    if kind == "confusion" and takes_matrix_by_name(metric):
        return
    given = "(conf_mat)" if kind == "confusion" else "(preds, targets)"
    try:
        inspect.signature(metric).bind(*given.split(","))
    except ValueError:  # a function written in C has no signature
        return
    except TypeError as error:
        raise ConfigTypeError(
            f"The metric {metric_name(metric)!r} is called as {metric_name(metric)}{given} with "
            f"metric_patch={kind!r}, and cannot be: {error}. Write: def metric{given}."
        ) from None


def is_torchmetric(metric: Any) -> bool:
    """Say whether `metric` is a torchmetrics object; without one, torchmetrics is not imported."""
    torchmetrics = sys.modules.get("torchmetrics")
    return torchmetrics is not None and isinstance(
        metric, (torchmetrics.Metric, torchmetrics.MetricCollection)
    )


def check_patch_kind(kind: Any) -> Any:
    """Return `kind` if `make_patch` accepts it.

    Raises:
        ConfigError: an unknown name.
        ConfigTypeError: neither a name nor a subclass of `PatchBase`.
    """
    is_name, is_class = isinstance(kind, str), isinstance(kind, type)
    if (is_name and (kind in KINDS or kind == "auto")) or (
        is_class and issubclass(kind, PatchBase)
    ):
        return kind
    from ..hints.names import value_meant

    error, shown = (ConfigError, repr(kind)) if is_name else (ConfigTypeError, describe(kind))
    allowed = ("auto", *KINDS)
    raise error(
        f"metric_patch is {shown}: give {', '.join(map(repr, allowed))}, or a subclass of PatchBase."
        f"{value_meant(kind, allowed)}"
    )


def _unnamed(make: Callable[[Any], PatchBase]) -> Callable[[Any], PatchBase]:
    return lambda batch_size: make(batch_size).named("")


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
            "with them, or a subclass that needs no argument but batch_size."
        )
    if "batch_size" in parameters:
        return lambda batch_size: patch_class(batch_size=batch_size)  # type: ignore[call-arg]
    return lambda batch_size: patch_class()
