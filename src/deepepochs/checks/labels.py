"""Checks on outputs, labels and the first loss, and what the library itself warns of."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import DeepEpochsError
from ..faults.first_batch import TITLES
from ..faults.words import span
from ..nest.operations import listify
from .data import labels_of
from .findings import Finding
from .look import Look, Seen

LOSSES = TITLES | {
    F.binary_cross_entropy: "binary_cross_entropy",
    F.binary_cross_entropy_with_logits: "binary_cross_entropy_with_logits",
    nn.BCELoss: "binary_cross_entropy",
    nn.BCEWithLogitsLoss: "binary_cross_entropy_with_logits",
}
OVER = 5.0
"""How far the first loss may be above that of guessing.

Outputs of a fresh network that are within 2 of one another add less than 1 to it. To add 5 they
must differ by 5 or more: the network is sure of classes that it knows nothing of.
"""
FEW = 64  # labels, of which a class may be missing by chance
SUM = 1e-3  # rounding of the sum of a row of probabilities


def loss_name(loss_fn: Any) -> str | None:
    """Name a loss function of PyTorch that gives a mean; ``None`` for any other."""
    function = loss_fn.func if isinstance(loss_fn, partial) else loss_fn
    given = loss_fn.keywords if isinstance(loss_fn, partial) else {}
    reduction = given.get("reduction", getattr(function, "reduction", "mean"))
    key = function if isinstance(function, FunctionType) else type(function)
    name = LOSSES.get(key) or LOSSES.get(function if callable(function) else None)
    return name if reduction == "mean" else None


def failing_steps(look: Look) -> Iterator[Finding]:
    """Find steps of training and validation that raise an error."""
    stages = [("training", look.seen)]
    if not look.failed:
        stages.append(("validation", look.seen_in_validation))
    for stage, listed in stages:
        for seen in listed:
            if seen.error is not None:
                yield of_error(stage, seen.error)


def of_error(stage: str, error: Exception) -> Finding:
    """Make a finding of the error of a step; those of the library name the remedy in line 2."""
    problem, _, rest = str(error).partition("\n")
    remedy = rest.partition("\n")[0]
    if not isinstance(error, DeepEpochsError):
        problem = f"{type(error).__name__}: {problem}"
        notes = [note for note in getattr(error, "__notes__", ()) if note]
        remedy = notes[0] if notes else "Call fit() to see where it comes from."
    return Finding("error", f"The first mini-batches of {stage} fail: {problem}", remedy)


def warnings_of_steps(look: Look) -> Iterator[Finding]:
    """Pass on what the library warns of in the first steps, such as a softmax taken twice."""
    for seen in [*look.seen, *look.seen_in_validation]:
        for text in seen.warned:
            if (told := of_warning(text)) is not None:
                yield told


def of_warning(text: str) -> Finding | None:
    """Make a finding of a warning of the library, which has its remedy in the second line."""
    problem, _, remedy = text.partition("\n")
    return Finding("warning", problem, remedy.replace("\n", " ")) if remedy else None


def first_loss(look: Look) -> Iterator[Finding]:
    """Find a first loss that is not finite, negative, or far above that of guessing."""
    for seen in look.seen:
        if seen.error is not None or not seen.probe.losses:
            continue
        loss = seen.probe.losses[0]
        if not math.isfinite(loss):
            yield Finding(
                "error",
                f"The loss of the first mini-batch is {loss}.",
                "Look for NaN in the data, and for divisions, logarithms and square roots of 0 in "
                "model and loss.",
            )
            continue
        num_classes = classes_of(look, seen)
        if num_classes is None or (num_classes == 2 and has_weights(look.trainer.loss_fn)):
            continue
        guess = math.log(num_classes)
        if loss > guess + OVER:
            yield Finding(
                "warning",
                f"The first loss is {loss:.3g}, and guessing one of {num_classes} classes gives "
                f"{guess:.3g}: the model begins sure of what it does not know.",
                "Bring the inputs to a scale of about 1, or begin with smaller weights in the last "
                "layer.",
            )


def has_weights(loss_fn: Any) -> bool:
    """Whether a loss weighs its terms without dividing by the sum of the weights, as BCE does."""
    given = loss_fn.keywords if isinstance(loss_fn, partial) else {}
    names = ("weight", "pos_weight")
    return any(given.get(name, getattr(loss_fn, name, None)) is not None for name in names)


def classes_of(look: Look, seen: Seen) -> int | None:
    """The number of classes that a loss of classes is told of; 2 for yes or no."""
    if not look.is_plain(seen.task) or not seen.probe.outputs:
        return None
    out, name = seen.probe.outputs[0], loss_name(look.trainer.loss_fn)
    if not isinstance(out, Tensor) or name is None:
        return None
    if name.startswith("binary"):
        return 2
    is_classes = name in ("cross_entropy", "nll_loss") and out.ndim > 1
    return int(out.shape[1]) if is_classes else None


def pairs(look: Look) -> Iterator[tuple[str, Tensor, Tensor]]:
    """The loss, the outputs and the targets of the first mini-batch of each plain task."""
    for seen in look.seen:
        name, probe = loss_name(look.trainer.loss_fn), seen.probe
        if name is None or not look.is_plain(seen.task) or not probe.outputs:
            continue
        out, targets = probe.outputs[0], probe.batches[0][1]
        if isinstance(out, Tensor) and isinstance(targets, Tensor):
            yield name, out, targets


def unfit_labels(look: Look) -> Iterator[Finding]:
    """Find labels that a loss takes without an error, and that are not what it wants."""
    for name, out, targets in pairs(look):
        if name.startswith("binary") and targets.numel():
            low, high = float(targets.min()), float(targets.max())
            if low < 0 or high > 1:
                yield Finding(
                    "error",
                    f"{name} wants labels from 0 to 1, and they go {span(targets)}.",
                    "Give 0 and 1; for numbers of classes take F.cross_entropy, and labels.long().",
                )
        is_soft = name == "cross_entropy" and targets.shape == out.shape and out.ndim > 1
        if is_soft and targets.dtype.is_floating_point and len(targets):
            sums = targets.sum(1)
            if bool(((sums - 1).abs() > SUM).any()):
                yield Finding(
                    "error",
                    f"cross_entropy takes labels {list(targets.shape)} for probabilities, and their "
                    f"rows add up to numbers {span(sums)}, not to 1.",
                    "For several labels a sample take F.binary_cross_entropy_with_logits; for one, "
                    "give its number: labels.argmax(1).",
                )


def probabilities_twice(look: Look) -> Iterator[Finding]:
    """Find outputs for cross_entropy that are probabilities already, however they were made."""
    if any("softmax" in text for seen in look.seen for text in seen.warned):
        return  # the library has seen it in the graph
    for name, out, _ in pairs(look):
        if name != "cross_entropy" or out.ndim < 2 or out.shape[1] < 2 or not out.numel():
            continue
        sums = out.double().sum(1)
        if bool((out >= 0).all()) and bool(((sums - 1).abs() < SUM).all()):
            yield Finding(
                "warning",
                "The rows of the outputs add up to 1: they are probabilities, and cross_entropy "
                "takes the softmax itself.",
                "Leave out the softmax at the end of the model; where you want probabilities, take "
                "outputs.softmax(1).",
            )


def one_class_only(look: Look) -> Iterator[Finding]:
    """Find labels that are all the same."""
    for seen, name in ((seen, loss_name(look.trainer.loss_fn)) for seen in look.seen):
        if name not in ("cross_entropy", "nll_loss") and not (name or "").startswith("binary"):
            continue
        num_classes = classes_of(look, seen)
        found = labels_of(look, seen.task)
        if found is None or num_classes is None:
            continue
        labels, is_all = found.values, found.is_all
        # Of two classes, one may be too rare to be in some samples.
        if len(labels) < 2 or not (is_all or (num_classes > 2 and len(labels) >= FEW)):
            continue
        if bool((labels == labels[0]).all()):
            yield Finding(
                "error",
                f"All {len(labels)} labels {'' if is_all else 'looked at '}are {labels[0].item():g}: "
                "there is nothing to tell apart.",
                "Look at how the labels are read, and at how the data were split.",
            )


def spoilt_targets(look: Look) -> Iterator[Finding]:
    """Find targets with NaN or infinite numbers where the loss is not finite."""
    for seen in look.seen:
        if all(map(math.isfinite, seen.probe.losses)):
            continue
        for _, targets in seen.probe.batches:
            bad = [t for t in listify(targets) if isinstance(t, Tensor) and t.is_floating_point()]
            num = sum(int((~torch.isfinite(t)).sum()) for t in bad)
            if num:
                yield Finding(
                    "error",
                    f"{num} numbers in the targets of a training mini-batch are NaN or infinite.",
                    "Mend or drop these samples in the data set.",
                )
                break
