"""How the metrics of a pass are written out: what is summed in a mini-batch, and what comes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import metrics

IDS = "class_ids"


class MetricText(NamedTuple):
    """How a metric is written out.

    Attributes:
        start: lines before the loop.
        batch: lines for a mini-batch, with ``{out}`` and ``{y}``.
        value: the entry of its value in the results.
        end: lines after the loop.
        mean: the variable of the sum whose mean comes after ``value``; ``''``: there is none.
    """

    start: list[str]
    batch: list[str]
    value: str
    end: Sequence[str] = ()
    mean: str = ""


def plain_metric(metric: Any) -> tuple[Any, dict[str, Any]]:
    """The function inside of partials, and the options that they give."""
    options: dict[str, Any] = {}
    while isinstance(metric, partial):
        options = {**metric.keywords, **options}
        metric = metric.func
    return metric, options


def ids_of(name: str, like: Any) -> str:
    """The expression of predicted classes, for outputs like these; ``''``: it is not known."""
    if not isinstance(like, Tensor):
        return ""
    if like.ndim > 1 and like.shape[1] != 1:
        return f"{name}.argmax(1)"
    column = f"{name}.squeeze(1)" if like.ndim > 1 else name
    return f"({column} > 0.5)" if like.is_floating_point() else column


def targets_of(name: str, like: Any, out: Any) -> str:
    """The expression of the classes of targets like these."""
    if not isinstance(like, Tensor) or like.ndim < 2:
        return name
    if like.shape[1] == 1:
        return f"{name}.squeeze(1)"
    is_one_hot = isinstance(out, Tensor) and like.ndim == out.ndim and like.shape == out.shape
    return f"{name}.argmax(1)" if is_one_hot else name


def ids_function() -> list[str]:
    """A function for outputs of which nothing is known."""
    return [
        f"def {IDS}(scores):",
        "    if scores.ndim > 1 and scores.shape[1] > 1:",
        "        return scores.argmax(1)",
        "    scores = scores.squeeze(1) if scores.ndim > 1 else scores",
        "    return scores > 0.5 if scores.is_floating_point() else scores",
    ]


def class_metric(
    name: str, kind: str, options: Mapping[str, Any], out: Any = None, y: Any = None
) -> list[str]:
    """Write a metric that is computed from the counts of each class; see ``deepepochs.metrics``.

    ``out`` and ``y`` are like the outputs and targets that it is given.
    """
    preds = ids_of("scores", out) or f"{IDS}(scores)"
    flat = ".flatten()" if not isinstance(y, Tensor) or y.ndim > 1 else ""
    size = "scores.shape[1]" if "argmax" in preds else "2"
    average = options.get("average")
    if preds.startswith(IDS):
        size = "scores.shape[1] if scores.ndim > 1 and scores.shape[1] > 1 else 2"
    elif average is None:
        average = "micro" if "argmax" in preds and out.shape[1] != 2 else "binary"
    lines = [
        f"def {name}(scores, targets):",
        f"    preds = {preds}{flat}{'' if 'argmax' in preds else '.long()'}",
    ]
    targets = targets_of("targets", y, out) + flat
    targets += ".long()" if isinstance(y, Tensor) and y.is_floating_point() else ""
    lines += [f"    targets = {targets}"] if targets != "targets" else []
    if kind == "accuracy":
        return [*lines, "    return (preds == targets).double().mean()"]
    lines.append(f"    size = {size}")
    counts = {"hits": "preds[preds == targets]"}
    if kind != "precision" or average == "weighted":
        counts["of_target"] = "targets"
    if kind != "recall":
        counts["of_pred"] = "preds"
    pick = {"binary": "[1]", "micro": ".sum()"}.get(average or "", "")
    for count, ids in counts.items():
        lines.append(f"    {count} = torch.bincount({ids}, minlength=size).double(){pick}")
    if average is None:
        names = ", ".join(counts)
        first, total = (", ".join(f"{n}{end}" for n in counts) for end in ("[1]", ".sum()"))
        lines += ["    if size == 2:", f"        {names} = {first}"]
        lines += ["    else:", f"        {names} = {total}"]
    return [*lines, *_ratio(kind, options, average)]


def _ratio(kind: str, options: Mapping[str, Any], average: str | None) -> list[str]:
    """The lines that compute the value from the counts, as the library does."""
    square = float(options.get("beta", 1.0)) ** 2
    part, whole = "hits", "of_pred" if kind == "precision" else "of_target"
    lines = []
    if kind in ("f1", "fbeta"):
        part, whole = "2 * hits", "whole"
        text = "of_target + of_pred"
        if square != 1:
            part = f"{1 + square} * hits"
            text = f"{part} + {square} * (of_target - hits) + (of_pred - hits)"
        lines.append(f"    whole = {text}")
    value = f"{part} / ({whole} + ({whole} == 0))"
    if average == "macro":
        return [*lines, f"    return ({value}).mean()"]
    if average == "weighted":
        return [*lines, f"    return ({value} * (of_target / of_target.sum())).sum()"]
    return [*lines, f"    return {value}"]


def is_class_metric(metric: Any) -> bool:
    """Whether a metric is one of the library's, which are computed from counts of classes."""
    known = (metrics.accuracy, metrics.precision, metrics.recall, metrics.f1, metrics.fbeta)
    return any(plain_metric(metric)[0] is one for one in known)


def joined(name: str, like: Any) -> str:
    """The expression that joins a list of outputs like these."""
    if isinstance(like, dict):
        return f"{{key: torch.cat([one[key] for one in {name}]) for key in {name}[0]}}"
    if isinstance(like, tuple):
        return f"tuple(map(torch.cat, zip(*{name}, strict=True)))"
    if isinstance(like, Tensor) and not like.ndim:
        return f"torch.stack({name})"
    return f"torch.cat({name})"


def value_entry(name: str, value: str, like: Any) -> str:
    """The entry of a metric in the dict of a pass; ``like`` is a value of it, if one is known."""
    if isinstance(like, dict):
        prefix = f'f"{name}{{key}}"' if name else "key"
        return f"**{{{prefix}: float(one) for key, one in {value}.items()}}"
    if isinstance(like, Tensor) and like.ndim:
        return f'"{name}": {value}'
    return f'"{name}": float({value})'


def tried(metric: Any, *given: Any) -> Any:
    """A value of a metric, to see whether it is a dict; ``None`` if it cannot be had here."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        try:
            return metric(*given)
        except Exception:
            return None
