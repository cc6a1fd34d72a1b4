"""Classification metrics: functions of predictions and targets, or of a confusion matrix.

Of two classes, class 1 is the positive one. The results agree with scikit-learn; each is a 0-d
float64 tensor on the device of the inputs (float32 if the device has no float64). Nothing waits
for an accelerator. On the CPU, where it is cheap, the values of the inputs are checked.

>>> import torch
>>> from deepepochs.metrics import accuracy, confusion_matrix, f1
>>> scores = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0], [0.0, 2.0, 1.0], [1.0, 0.0, 4.0]])
>>> targets = torch.tensor([0, 1, 2, 2])
>>> accuracy(scores, targets)
tensor(0.7500, dtype=torch.float64)
>>> matrix = confusion_matrix(scores, targets)  # matrices of batches can be added
>>> matrix.tolist()
[[1, 0, 0], [0, 1, 0], [0, 1, 1]]
>>> round(f1(conf_mat=matrix, average="macro").item(), 4)
0.7778

``preds`` are scores ``[N, C]`` (the largest is the prediction), probabilities of class 1 ``[N]``
or ``[N, 1]`` (above 0.5), or class ids ``[N]`` or ``[N, 1]`` of an integer dtype. ``targets`` are
class ids ``[N]`` or ``[N, 1]``, or one-hot ``[N, C]``. More dimensions may follow, as in
``F.cross_entropy``: scores ``[N, C, H, W]`` with targets ``[N, H, W]``.
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


AVERAGES = ("micro", "macro", "weighted", "binary")


class ClassCounts(NamedTuple):
    """One class against the rest: true and false positives and negatives, 0-d or ``[C]``."""

    TP: Tensor
    FN: Tensor
    FP: Tensor
    TN: Tensor


def accuracy(
    preds: Tensor | None = None, targets: Tensor | None = None, *, conf_mat: Tensor | None = None
) -> Tensor:
    """Give the share of correct predictions, 0 … 1; 0 without samples. For arguments see `fbeta`.

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
    """Give the share of a class's targets that were found, TP / (TP + FN). See `fbeta`.

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
    """Give the harmonic mean of precision and recall, which is `fbeta` with beta 1.

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
    """Give the weighted mean of precision and recall, in which recall counts `beta` times as much.

    (1 + beta²) TP / ((1 + beta²) TP + beta² FN + FP): van Rijsbergen, "Information Retrieval",
    1979, chapter 7; averaged as ``sklearn.metrics.fbeta_score(labels=range(C), zero_division=0)``.

    Args:
        preds: see the module's docstring; give them with `targets`, or give `conf_mat` alone. For
            class ids give a matrix made with ``num_classes``: a batch that has two of three
            classes looks like a problem of two classes.
        targets: see the module's docstring.
        beta: above 0; precision counts more below 1, recall above 1.
        average: ``'micro'`` gives, for two classes, the value of class 1 (scikit-learn's
            ``'binary'``; micro over both classes is the `accuracy`), and else the value of the
            summed counts of all classes. ``'macro'`` is the mean over all C classes, in which
            absent ones count 0; ``'weighted'`` weighs them by their numbers of targets;
            ``'binary'`` is the value of class 1, for two classes only.
        conf_mat: a confusion matrix ``[C, C]``.

    Returns:
        A 0-d tensor, 0 … 1; 0 if a denominator is 0.

    Raises:
        ConfigError: not exactly one of preds with targets and conf_mat; wrong average or beta.
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
    """Give TP / (TP + FP), the precision, or 0 for 0 / 0; `c` has these attributes."""
    return _ratio(c.TP, c.TP + c.FP)


def recall_fn(c: Any) -> Tensor:
    """Give TP / (TP + FN), the recall, or 0 for 0 / 0; `c` has these attributes."""
    return _ratio(c.TP, c.TP + c.FN)


def fbeta_fn(c: Any, beta: float = 1.0) -> Tensor:
    """Give the F-beta (see `fbeta`), or 0 for 0 / 0; `c` has TP, FN and FP."""
    hits = (1 + beta * beta) * c.TP
    return _ratio(hits, hits + beta * beta * c.FN + c.FP)


def cmats_and_weights(conf_mat: Tensor) -> tuple[list[ClassCounts], Tensor]:
    """Give the `ClassCounts` of each class of a matrix ``[C, C]``, and its share of the targets.

    >>> counts, weights = cmats_and_weights(torch.tensor([[5, 1], [2, 4]]))
    >>> [int(n) for n in counts[1]], weights.tolist()
    ([4, 2, 1, 5], [0.5, 0.5])
    """
    counts = _counts(_matrix(None, None, conf_mat))
    return [ClassCounts(*c) for c in torch.stack(counts, 1)], _weights(counts)


def _averaged(metric: Callable[[Any], Tensor], matrix: Tensor, average: str) -> Tensor:
    if average not in AVERAGES:
        known = "'micro', 'macro', 'weighted' or, for two classes, 'binary'"
        raise ConfigError(f"average is {average!r}: choose {known}.")
    size = matrix.shape[0]
    if average == "binary" and size != 2:
        raise ConfigError(f"average='binary' needs two classes, not {size}: take 'macro'.")
    counts = _counts(matrix)
    if average in ("macro", "weighted"):
        values = metric(counts)
        return values.mean() if average == "macro" else (values * _weights(counts)).sum()
    return metric(ClassCounts(*(n[1] if size == 2 else n.sum() for n in counts)))


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
        raise MetricError(f"{found}: give [C, C], targets in rows, predictions in columns.")
    return conf_mat


def _ratio(part: Any, whole: Any) -> Tensor:
    """Divide, giving 0 for 0 / 0; a branch would wait for an accelerator."""
    below = _as_float(whole)
    return _as_float(part) / (below + (below == 0))


def _as_float(count: Any) -> Tensor:
    tensor = torch.as_tensor(count)
    return tensor.to(_float_dtype(tensor))


def _float_dtype(tensor: Tensor) -> torch.dtype:
    return torch.float32 if tensor.device.type == "mps" else torch.float64
