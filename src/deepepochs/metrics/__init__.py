"""Classification metrics as pure functions of predictions and targets, or of a confusion matrix.

Two classes: class 1 is the positive one. Everything agrees with scikit-learn, runs on the
tensors' own device, and gives a 0-d float64 tensor (float32 on devices without float64).
Nothing waits for an accelerator; on the CPU, where looking is cheap, the values are checked.

>>> import torch
>>> from deepepochs.metrics import accuracy, confusion_matrix, f1
>>> scores = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0], [0.0, 2.0, 1.0], [1.0, 0.0, 4.0]])
>>> targets = torch.tensor([0, 1, 2, 2])
>>> accuracy(scores, targets)
tensor(0.7500, dtype=torch.float64)
>>> matrix = confusion_matrix(scores, targets)  # matrices of batches may be added up
>>> matrix.tolist()
[[1, 0, 0], [0, 1, 0], [0, 1, 1]]
>>> round(f1(conf_mat=matrix, average="macro").item(), 4)
0.7778

``preds`` are scores ``[N, C]`` (the largest wins), probabilities of class 1 ``[N]`` or
``[N, 1]`` (above 0.5), or class ids ``[N]`` or ``[N, 1]`` of an integer dtype. ``targets`` are
class ids ``[N]`` or ``[N, 1]``, or one-hot ``[N, C]``. Further dimensions follow the classes,
as in ``F.cross_entropy``: scores ``[N, C, H, W]`` with targets ``[N, H, W]``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import ConfigError, ConfigTypeError, MetricError
from .confusion import confusion_matrix, get_class_num, read_class_ids

__all__ = [
    "ClassCounts",
    "accuracy",
    "cmats_and_weights",
    "confusion_matrix",
    "f1",
    "fbeta",
    "fbeta_fn",
    "get_class_num",
    "precision",
    "precision_fn",
    "recall",
    "recall_fn",
]


class ClassCounts(NamedTuple):
    """One class against the rest: true and false positives and negatives, 0-d or ``[C]``."""

    TP: Tensor
    FN: Tensor
    FP: Tensor
    TN: Tensor


def accuracy(
    preds: Tensor | None = None, targets: Tensor | None = None, *, conf_mat: Tensor | None = None
) -> Tensor:
    """Give the share of correct predictions, 0 … 1; 0 without samples. Arguments as `fbeta`.

    >>> accuracy(torch.tensor([0.9, 0.2]), torch.tensor([1, 1]))
    tensor(0.5000, dtype=torch.float64)
    """
    if preds is None or targets is None or conf_mat is not None:
        matrix = _as_float(_matrix(preds, targets, conf_mat))
        return _ratio(matrix.diagonal().sum(), matrix.sum())
    pred_ids, target_ids, _ = read_class_ids(preds, targets)
    hits = pred_ids == target_ids
    return hits.mean(dtype=_float_dtype(hits)) if hits.numel() else _as_float(hits.sum())


def recall(
    preds: Tensor | None = None,
    targets: Tensor | None = None,
    *,
    average: str = "micro",
    conf_mat: Tensor | None = None,
) -> Tensor:
    """Give the share of a class's targets that were found, TP / (TP + FN). Arguments as `fbeta`.

    >>> recall(torch.tensor([0.9, 0.2]), torch.tensor([1, 1]))
    tensor(0.5000, dtype=torch.float64)
    """
    return _averaged(recall_fn, _matrix(preds, targets, conf_mat), average)


def precision(
    preds: Tensor | None = None,
    targets: Tensor | None = None,
    *,
    average: str = "micro",
    conf_mat: Tensor | None = None,
) -> Tensor:
    """Give the share of a class's predictions that are right, TP / (TP + FP). See `fbeta`.

    >>> precision(torch.tensor([0.9, 0.2]), torch.tensor([1, 1]))
    tensor(1., dtype=torch.float64)
    """
    return _averaged(precision_fn, _matrix(preds, targets, conf_mat), average)


def f1(
    preds: Tensor | None = None,
    targets: Tensor | None = None,
    *,
    average: str = "micro",
    conf_mat: Tensor | None = None,
) -> Tensor:
    """Give the harmonic mean of precision and recall: `fbeta` with beta 1.

    >>> round(f1(torch.tensor([0.9, 0.2]), torch.tensor([1, 1])).item(), 4)
    0.6667
    """
    return _averaged(fbeta_fn, _matrix(preds, targets, conf_mat), average)


def fbeta(
    preds: Tensor | None = None,
    targets: Tensor | None = None,
    *,
    beta: float = 1.0,
    average: str = "micro",
    conf_mat: Tensor | None = None,
) -> Tensor:
    """Weigh precision and recall into one number, recall counting `beta` times as much.

    (1 + beta²) TP / ((1 + beta²) TP + beta² FN + FP): van Rijsbergen, "Information Retrieval",
    1979, chapter 7; averaged as ``sklearn.metrics.fbeta_score(labels=range(C), zero_division=0)``.

    Args:
        preds: see the module's docstring; with `targets`, or else `conf_mat` alone. For class
            ids give a matrix made with ``num_classes`` instead: a batch with two of three
            classes looks like a two-class problem.
        targets: see the module's docstring.
        beta: above 0; below 1 precision counts more, above 1 recall.
        average: ``'micro'`` is with two classes the value of class 1 (scikit-learn's
            ``'binary'``; micro over both classes is the `accuracy`), with any other number the
            value of the classes' counts added up. ``'macro'`` is the mean over all C classes,
            absent ones counting 0; ``'weighted'`` weighs them by their targets; ``'binary'``
            is the value of class 1, for two classes only.
        conf_mat: a confusion matrix ``[C, C]``.

    Returns:
        A 0-d tensor, 0 … 1; 0 where a denominator is 0.

    Raises:
        ConfigError: neither preds with targets nor conf_mat, or both; unknown average; beta.
        MetricError: shapes or values that do not fit.

    >>> round(fbeta(conf_mat=torch.tensor([[5, 1], [2, 4]]), beta=2).item(), 4)
    0.6897
    """
    if isinstance(beta, bool) or not isinstance(beta, (int, float)):
        raise ConfigTypeError(f"beta is {beta!r}: give a number above 0.")
    if not (beta > 0 and math.isfinite(beta)):
        raise ConfigError(f"beta is {beta}: give a finite number above 0.")
    return _averaged(lambda c: fbeta_fn(c, beta), _matrix(preds, targets, conf_mat), average)


def precision_fn(c: Any) -> Tensor:
    """Give the precision of counts, TP / (TP + FP), 0 for 0 / 0; `c` has these attributes."""
    return _ratio(c.TP, c.TP + c.FP)


def recall_fn(c: Any) -> Tensor:
    """Give the recall of counts, TP / (TP + FN), 0 for 0 / 0; `c` has these attributes."""
    return _ratio(c.TP, c.TP + c.FN)


def fbeta_fn(c: Any, beta: float = 1.0) -> Tensor:
    """Give the F-beta of counts (see `fbeta`), 0 for 0 / 0; `c` has TP, FN and FP."""
    hits = (1 + beta * beta) * c.TP
    return _ratio(hits, hits + beta * beta * c.FN + c.FP)


def cmats_and_weights(conf_mat: Tensor) -> tuple[list[ClassCounts], Tensor]:
    """Set each class of a matrix ``[C, C]`` against the rest, with its share of the targets.

    >>> counts, weights = cmats_and_weights(torch.tensor([[5, 1], [2, 4]]))
    >>> [int(n) for n in counts[1]], weights.tolist()
    ([4, 2, 1, 5], [0.5, 0.5])
    """
    counts = _counts(_matrix(None, None, conf_mat))
    return [ClassCounts(*c) for c in torch.stack(counts, 1)], _weights(counts)


def _averaged(metric: Callable[[Any], Tensor], matrix: Tensor, average: str) -> Tensor:
    if average not in ("micro", "macro", "weighted", "binary"):
        known = "'micro', 'macro', 'weighted' or, for two classes, 'binary'"
        raise ConfigError(f"average is {average!r}: choose {known}.")
    size = matrix.shape[0]
    if average == "binary" and size != 2:
        raise ConfigError(f"average='binary' needs two classes, not {size}: take 'macro'.")
    counts = _counts(matrix)
    if average in ("macro", "weighted"):
        values = metric(counts)
        return values.mean() if average == "macro" else (values * _weights(counts)).sum()
    if size == 2:
        return metric(ClassCounts(*(n[1] for n in counts)))
    return metric(ClassCounts(*(n.sum() for n in counts)))


def _counts(matrix: Tensor) -> ClassCounts:
    matrix = _as_float(matrix)
    hits, of_target, of_pred = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
    missed = of_target - hits
    return ClassCounts(hits, missed, of_pred - hits, of_target.sum() - of_pred - missed)


def _weights(counts: ClassCounts) -> Tensor:
    of_target = counts.TP + counts.FN
    return _ratio(of_target, of_target.sum())


def _matrix(preds: Tensor | None, targets: Tensor | None, conf_mat: object) -> Tensor:
    if conf_mat is None and preds is not None and targets is not None:
        return confusion_matrix(preds, targets)
    if conf_mat is None or preds is not None or targets is not None:
        given = {"preds": preds, "targets": targets, "conf_mat": conf_mat}
        names = " and ".join(name for name, value in given.items() if value is not None)
        what = "either preds and targets, or a confusion matrix: accuracy(conf_mat=matrix)"
        raise ConfigError(f"A metric was given {names or 'nothing'}: pass {what}.")
    if not isinstance(conf_mat, Tensor):
        raise MetricError(f"conf_mat is a {type(conf_mat).__name__}: pass torch.as_tensor(it).")
    if conf_mat.ndim != 2 or conf_mat.shape[0] != conf_mat.shape[1] or not conf_mat.numel():
        found = f"conf_mat {list(conf_mat.shape)} is no confusion matrix"
        raise MetricError(f"{found}: that is [C, C], targets in rows, predictions in columns.")
    return conf_mat


def _ratio(part: Any, whole: Any) -> Tensor:
    """Divide, 0 where there is nothing to divide; no branch, so that no device is waited for."""
    below = _as_float(whole)
    return _as_float(part) / (below + (below == 0))


def _as_float(count: Any) -> Tensor:
    tensor = torch.as_tensor(count)
    return tensor.to(_float_dtype(tensor))


def _float_dtype(tensor: Tensor) -> torch.dtype:
    return torch.float32 if tensor.device.type == "mps" else torch.float64
