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
``F.cross_entropy``: scores ``[N, C, H, W]`` with targets ``[N, H, W]``. Of outputs that are a dict,
the entry ``'logits'`` is taken. A sample whose largest
score is NaN has no predicted class, and is an error.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from ..errors import ConfigError, ConfigTypeError, MetricError, warn_user
from ..on_demand import on_demand

__all__ = [
    "ClassCounts", "ClassTotals", "accuracy", "cmats_and_weights", "confusion_matrix",
    "count_classes", "f1", "fbeta", "fbeta_fn", "get_class_num", "precision", "precision_fn",
    "read_class_ids", "recall", "recall_fn",
]  # fmt: skip


def __dir__() -> list[str]:
    return sorted(__all__)


if not TYPE_CHECKING:
    __getattr__ = on_demand(__name__, {})


def confusion_matrix(preds: Tensor, targets: Tensor, num_classes: int | None = None) -> Tensor:
    """Count how often each target class was predicted as each class.

    Args:
        preds: scores, probabilities of class 1, or class ids: see the module's docstring.
        targets: class ids or one-hot.
        num_classes: C. Left out, it is the result of `get_class_num`; give it for class ids, of
            which a batch may lack the largest.

    Returns:
        An int64 matrix ``[C, C]``: rows are targets, columns predictions.

    Raises:
        MetricError: shapes that do not fit each other or `num_classes`; on the CPU also ids
            outside 0 … C-1 (an accelerator reports those later, as a failed device assertion).
        ConfigError: `num_classes` is below 1.

    >>> confusion_matrix(torch.tensor([0.9, 0.2, 0.8]), torch.tensor([1, 1, 0])).tolist()
    [[0, 1], [1, 1]]
    """
    preds = scores_of(preds)
    pred_ids, target_ids, size = read_class_ids(preds, targets)
    if size is None:
        size = _largest_id(pred_ids, target_ids) + 1 if num_classes is None else _count(num_classes)
        _check_ids(target_ids, size, "targets")
    elif num_classes is not None and size != _count(num_classes):
        raise MetricError(
            f"num_classes is {num_classes}, but preds {list(preds.shape)} and targets "
            f"{list(targets.shape)} have {size} classes: pass {size} or leave it out."
        )
    if not preds.is_floating_point():
        _check_ids(pred_ids, size, "preds")
    rows, columns = target_ids.reshape(-1).long(), pred_ids.reshape(-1).long()
    if rows.device.type != "cpu":
        return _count_without_reading(rows, columns, size)
    return torch.bincount(rows * size + columns, minlength=size * size).view(size, size)


def get_class_num(preds: Tensor | Sequence[Tensor], targets: Tensor | Sequence[Tensor]) -> int:
    """Give the number of classes of predictions and targets, or of the first ones in lists.

    Returns:
        The number of columns of scores; 2 for probabilities of class 1; for class ids the number of
        columns of one-hot targets, or else the largest id plus one and at least 2 (reading the ids
        waits for an accelerator).

    >>> get_class_num(torch.rand(4, 5), torch.tensor([0, 1, 1, 0]))
    5
    """
    first_preds = preds if isinstance(preds, Tensor) else preds[0]
    first_targets = targets if isinstance(targets, Tensor) else targets[0]
    pred_ids, target_ids, size = read_class_ids(first_preds, first_targets)
    return _largest_id(pred_ids, target_ids) + 1 if size is None else size


def read_class_ids(preds: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, int | None]:
    """Give predicted ids and target ids of the same shape, and the number of classes if known.

    On the CPU all ids are checked against that number. It is unknown if both arguments are ids.

    Raises:
        MetricError: not tensors, shapes that do not fit, or values that cannot be ids.
    """
    preds = scores_of(preds)
    _check_tensor(preds, "preds")
    _check_tensor(targets, "targets")
    num_classes: int | None = None
    if preds.ndim >= 2 and preds.shape[1] != 1:
        num_classes = preds.shape[1]
        if not num_classes:
            raise MetricError(f"preds {list(preds.shape)} have no columns: give one per class.")
        if preds.is_floating_point():
            largest, pred_ids = preds.max(1)  # NaN counts as the largest
            pred_ids = _without_nan(pred_ids, largest, preds)
        else:
            pred_ids = _largest_column(preds)
    else:
        column = preds.squeeze(1) if preds.ndim >= 2 else preds
        if column.is_floating_point():
            _warn_of_logits(column)
            num_classes, pred_ids = 2, _without_nan(column > 0.5, column, preds)
        else:
            pred_ids = column

    target_ids = targets
    if targets.shape != pred_ids.shape:
        fits = targets.shape[:1] + targets.shape[2:] == pred_ids.shape
        columns = targets.shape[1] if fits else 0
        if columns not in {1, num_classes or columns} or not columns:
            raise MetricError(
                f"preds {list(preds.shape)} and targets {list(targets.shape)} do not fit: with "
                "scores [N, C], probabilities or ids [N] or [N, 1], targets are [N], [N, 1] or "
                "one-hot [N, C]."
            )
        if columns != 1:
            _check_one_hot(targets)
            return pred_ids, _largest_column(targets), columns
        target_ids = targets.squeeze(1)
    if num_classes is not None:
        _check_ids(target_ids, num_classes, "targets")
    return pred_ids, target_ids, num_classes


def scores_of(preds: Any) -> Any:
    """Give the entry ``'logits'`` of outputs that are a dict, as those of Hugging Face are.

    Other outputs are returned as they are.
    """
    return preds.get("logits", preds) if isinstance(preds, Mapping) else preds


def _without_nan(pred_ids: Tensor, scores: Tensor, preds: Tensor) -> Tensor:
    """Raise a MetricError if a prediction was made of NaN; on an accelerator its id becomes -1."""
    if scores.device.type != "cpu":
        return torch.where(scores.isnan(), -1, pred_ids)
    if scores.numel() and math.isnan(scores.min().item()):
        sample = int(scores.isnan().nonzero()[0, 0])
        raise MetricError(
            f"preds {list(preds.shape)} have NaN scores, first in sample {sample}: NaN is no class. "
            "Look at the loss, the learning rate and the inputs."
        )
    return pred_ids


def _largest_column(scores: Tensor) -> Tensor:
    # torch has no argmax for bool.
    return (scores.byte() if scores.dtype == torch.bool else scores).argmax(1)


def _largest_id(pred_ids: Tensor, target_ids: Tensor) -> int:
    """Give the largest id, at least 1: there are two classes or more."""
    if pred_ids.numel() == 0:
        return 1
    return max(1, int(pred_ids.max()), int(target_ids.max()))


def _count(num_classes: int) -> int:
    try:
        count = operator.index(num_classes)
    except TypeError:
        raise ConfigTypeError(f"num_classes is {num_classes!r}: give a whole number.") from None
    if count < 1:
        raise ConfigError(f"num_classes is {count}: give the number of classes, 1 or more.")
    return count


def _check_ids(ids: Tensor, num_classes: int, what: str) -> None:
    """Raise a MetricError unless all ids on a CPU are whole and in 0 … num_classes - 1."""
    if ids.device.type != "cpu" or ids.numel() == 0:
        return
    low, high = ids.aminmax()
    fits = low.item() >= 0 and high.item() < num_classes
    if fits and (not ids.is_floating_point() or bool((ids == ids.floor()).all())):
        return
    bad = ~((ids >= 0) & (ids < num_classes))
    if ids.is_floating_point():
        bad |= ids != ids.floor()
    remedy = "Number the classes from 0, and remove samples to be ignored before the metric."
    if ids.is_floating_point() and bool((ids != ids.floor()).any()):
        remedy = (
            "This looks like a regression: take a metric of numbers, such as "
            "torchmetrics.MeanSquaredError()."
        )
    raise MetricError(
        f"{what} {list(ids.shape)} hold {ids[bad][0].item()}, which is no class id: with "
        f"{num_classes} classes ids are whole and from 0 to {num_classes - 1}. {remedy}"
    )


def _count_without_reading(rows: Tensor, columns: Tensor, size: int) -> Tensor:
    # On an accelerator bincount would wait to read the largest value. The cell of a bad id is out of
    # bounds, so that it fails and is not counted for another class.
    good = (columns >= 0) & (columns < size) & (rows >= 0) & (rows < size)
    cells = torch.where(good, rows * size + columns, size * size)
    counts = cells.new_zeros(size * size).scatter_add_(0, cells, torch.ones_like(cells))
    return counts.view(size, size)


def _check_tensor(value: object, what: str) -> None:
    if value is None and what == "targets":
        raise MetricError(
            "There are no targets. Of mini-batches that are dicts, name the entry that is the "
            "target: Trainer(..., targets='labels')."
        )
    if not isinstance(value, Tensor):
        raise MetricError(
            f"{what} are a {type(value).__name__}: give a tensor, such as {_tensor_of(value, what)}."
        )
    if value.ndim == 0:
        raise MetricError(f"{what} are a single number: give one for each sample, of shape [N].")


def _tensor_of(value: object, what: str) -> str:
    """Write how to get a tensor of something else."""
    if isinstance(value, (list, tuple)):
        return f"{what}[0]"
    if not isinstance(value, Mapping):
        held = getattr(value, "logits", None)
        return f"{what}.logits" if isinstance(held, Tensor) else f"torch.as_tensor({what})"
    key = next((key for key, item in value.items() if isinstance(item, Tensor)), "name")
    code = {"preds": f"out[{key!r}], y", "targets": f"out, y[{key!r}]"}.get(what, "out, y")
    return f"{what}[{key!r}]: rename('accuracy')(lambda out, y: accuracy({code}))"


def _check_one_hot(targets: Tensor) -> None:
    if targets.device.type != "cpu" or targets.numel() == 0:
        return
    errors = (targets.sum(1, dtype=torch.float64) - 1).abs()
    # The sums of soft labels in bfloat16 are inexact.
    if targets.min().item() < 0 or not bool((errors < 0.02).all()):
        raise MetricError(
            f"targets {list(targets.shape)} are read as one-hot, but their rows do not sum to 1. "
            "Several labels for a sample are not supported; flatten ids with more dimensions "
            "than [N], both predictions and targets."
        )


def _warn_of_logits(column: Tensor) -> None:
    if column.device.type != "cpu" or column.numel() == 0:
        return
    low, high = column.detach().aminmax()
    if low.item() < 0 or high.item() > 1:
        # One text for all mini-batches, so that it is shown once.
        warn_user(
            "The preds of a metric are read as probabilities of class 1, which is predicted above 0.5, "
            "and some are below 0 or above 1.\nFor scores apply torch.sigmoid: def acc(preds, targets): "
            "return accuracy(preds.sigmoid(), targets). Class ids are to be integers.",
            UserWarning,
            once=True,
        )


AVERAGES = ("micro", "macro", "weighted", "binary")


class ClassTotals(NamedTuple):
    """What all metrics of this module are computed from: three int64 counts ``[C]`` of each class.

    Those of several mini-batches can be added. They take less memory than a confusion matrix
    ``[C, C]``, which has many zeros where there are many classes.
    """

    hits: Tensor
    """How often the class was predicted rightly."""
    of_target: Tensor
    """How often it was the target."""
    of_pred: Tensor
    """How often it was predicted."""


def count_classes(preds: Tensor, targets: Tensor) -> ClassTotals:
    """Count hits, targets and predictions of each class; for arguments see `confusion_matrix`.

    >>> [n.tolist() for n in count_classes(torch.tensor([0.9, 0.2, 0.8]), torch.tensor([1, 1, 0]))]
    [[0, 1], [1, 2], [1, 2]]
    """
    preds = scores_of(preds)
    pred_ids, target_ids, size = read_class_ids(preds, targets)
    if size is None:
        size = _largest_id(pred_ids, target_ids) + 1
        _check_ids(target_ids, size, "targets")
    if not preds.is_floating_point():
        _check_ids(pred_ids, size, "preds")
    rows, columns = target_ids.reshape(-1).long(), pred_ids.reshape(-1).long()
    is_hit = rows == columns
    if rows.device.type == "cpu":
        each = (rows[is_hit], rows, columns)
        return ClassTotals(*(torch.bincount(ids, minlength=size) for ids in each))
    # As in `_count_without_reading`: a bad id is out of bounds.
    good = (columns >= 0) & (columns < size) & (rows >= 0) & (rows < size)
    rows, columns = (torch.where(good, ids, size) for ids in (rows, columns))
    ones, none = torch.ones_like(rows), rows.new_zeros(size)
    return ClassTotals(
        none.scatter_add(0, rows, is_hit.long()),
        none.scatter_add(0, rows, ones),
        none.scatter_add(0, columns, ones),
    )


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
        totals = _totals(preds, targets, conf_mat, "accuracy")
        return _ratio(totals.hits.sum(), totals.of_target.sum())
    preds = scores_of(preds)
    pred_ids, target_ids, _ = read_class_ids(preds, targets)
    hits = pred_ids == target_ids
    if not hits.numel():
        return _as_float(hits.sum())
    share = hits.mean(dtype=_float_dtype(hits))
    if share.device.type != "cpu" and preds.is_floating_point():
        return torch.where((pred_ids < 0).any(), math.nan, share)  # of NaN scores
    return share


def recall(
    preds: Tensor | None = None,
    targets: Tensor | None = None,
    *,
    average: str | None = None,
    conf_mat: Tensor | None = None,
) -> Tensor:
    """Give the share of a class's targets that were found, TP / (TP + FN).

    Args:
        preds: see `fbeta`, as for all arguments.
        targets: class ids or one-hot.
        average: ``'binary'`` (class 1 of two), ``'micro'`` (all classes together, which is the
            `accuracy`), ``'macro'`` (the mean over the classes) or ``'weighted'``. ``None`` is
            ``'binary'`` for two classes and ``'micro'`` for more.
        conf_mat: a confusion matrix, in place of preds and targets.

    >>> recall(torch.tensor([0.9, 0.2]), torch.tensor([1, 1]))
    tensor(0.5000, dtype=torch.float64)
    """
    return _averaged(recall_fn, _totals(preds, targets, conf_mat, "recall"), average)


def precision(
    preds: Tensor | None = None,
    targets: Tensor | None = None,
    *,
    average: str | None = None,
    conf_mat: Tensor | None = None,
) -> Tensor:
    """Give the share of a class's predictions that are right, TP / (TP + FP).

    Args:
        preds: see `fbeta`, as for all arguments.
        targets: class ids or one-hot.
        average: ``'binary'`` (class 1 of two), ``'micro'`` (all classes together, which is the
            `accuracy`), ``'macro'`` (the mean over the classes) or ``'weighted'``. ``None`` is
            ``'binary'`` for two classes and ``'micro'`` for more.
        conf_mat: a confusion matrix, in place of preds and targets.

    >>> precision(torch.tensor([0.9, 0.2]), torch.tensor([1, 1]))
    tensor(1., dtype=torch.float64)
    """
    return _averaged(precision_fn, _totals(preds, targets, conf_mat, "precision"), average)


def f1(
    preds: Tensor | None = None,
    targets: Tensor | None = None,
    *,
    average: str | None = None,
    conf_mat: Tensor | None = None,
) -> Tensor:
    """Give the harmonic mean of precision and recall, which is `fbeta` with beta 1.

    Args:
        preds: see `fbeta`, as for all arguments.
        targets: class ids or one-hot.
        average: ``'binary'`` (class 1 of two), ``'micro'`` (all classes together, which is the
            `accuracy`), ``'macro'`` (the mean over the classes) or ``'weighted'``. ``None`` is
            ``'binary'`` for two classes and ``'micro'`` for more.
        conf_mat: a confusion matrix, in place of preds and targets.

    >>> round(f1(torch.tensor([0.9, 0.2]), torch.tensor([1, 1])).item(), 4)
    0.6667
    """
    return _averaged(fbeta_fn, _totals(preds, targets, conf_mat, "f1"), average)


def fbeta(
    preds: Tensor | None = None,
    targets: Tensor | None = None,
    *,
    beta: float = 1.0,
    average: str | None = None,
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
        average: as in scikit-learn. ``'binary'`` is the value of class 1, for two classes only;
            ``'micro'`` is the value of the summed counts of all classes, which is the
            `accuracy`; ``'macro'`` is the mean over all C classes, in which absent ones count
            0; ``'weighted'`` weighs them by their numbers of targets. ``None`` is ``'binary'``
            for two classes and ``'micro'`` for more.
        conf_mat: a confusion matrix ``[C, C]``, or the `ClassTotals` of several mini-batches.

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
    return _averaged(
        lambda c: fbeta_fn(c, beta), _totals(preds, targets, conf_mat, "fbeta"), average
    )


BY_NAME: dict[str, Callable[..., Tensor]] = {
    metric.__name__: metric for metric in (accuracy, precision, recall, f1, fbeta)
}
"""The metrics that can be computed from `ClassTotals`; ``metrics=['accuracy', 'f1']`` names them."""

for _metric in (precision, recall, f1):
    _macro: Any = functools.partial(_metric, average="macro")
    _macro.__name__ = f"macro_{_metric.__name__}"
    BY_NAME[_macro.__name__] = _macro


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
    counts = _counts(_totals(None, None, conf_mat, "cmats_and_weights"))
    return [ClassCounts(*c) for c in torch.stack(counts, 1)], _weights(counts)


def _averaged(metric: Callable[[Any], Tensor], totals: ClassTotals, average: str | None) -> Tensor:
    size = len(totals.hits)
    if average is None:
        average = "binary" if size == 2 else "micro"
    if average not in AVERAGES:
        known = "'micro', 'macro', 'weighted' or, for two classes, 'binary'"
        raise ConfigError(f"average is {average!r}: choose {known}.")
    if average == "binary" and size != 2:
        raise ConfigError(f"average='binary' needs two classes, not {size}: take 'macro'.")
    counts = _counts(totals)
    if average in ("macro", "weighted"):
        values = metric(counts)
        return values.mean() if average == "macro" else (values * _weights(counts)).sum()
    return metric(ClassCounts(*(n[1] if average == "binary" else n.sum() for n in counts)))


def _counts(totals: ClassTotals) -> ClassCounts:
    hits, of_target, of_pred = map(_as_float, totals)
    missed = of_target - hits
    return ClassCounts(hits, missed, of_pred - hits, of_target.sum() - of_pred - missed)


def _weights(counts: ClassCounts) -> Tensor:
    of_target = counts.TP + counts.FN
    return _ratio(of_target, of_target.sum())


def _totals(
    preds: Tensor | None, targets: Tensor | None, conf_mat: object, name: str
) -> ClassTotals:
    if conf_mat is None and preds is not None and targets is not None:
        return count_classes(preds, targets)
    if conf_mat is None or preds is not None or targets is not None:
        given = {"preds": preds, "targets": targets, "conf_mat": conf_mat}
        names = " and ".join(name for name, value in given.items() if value is not None)
        as_metric = (
            f"partial({name}, beta=2)" if name == "fbeta" else f"partial({name}, average='macro')"
        )
        as_metric = name if name == "accuracy" else as_metric
        hint = "" if names else f" As a metric of a run give it without a call: {as_metric}."
        raise ConfigError(
            f"{name}() was given {names or 'nothing'}: pass either preds and targets, or a confusion "
            f"matrix: {name}(conf_mat=matrix).{hint}"
        )
    if isinstance(conf_mat, ClassTotals):
        return conf_mat
    if not isinstance(conf_mat, Tensor):
        raise MetricError(f"conf_mat is a {type(conf_mat).__name__}: pass torch.as_tensor(it).")
    if conf_mat.ndim != 2 or conf_mat.shape[0] != conf_mat.shape[1] or not conf_mat.numel():
        found = f"conf_mat {list(conf_mat.shape)} is no confusion matrix"
        raise MetricError(f"{found}: give [C, C], targets in rows, predictions in columns.")
    matrix = _as_float(conf_mat) if conf_mat.is_floating_point() else conf_mat
    return ClassTotals(matrix.diagonal(), matrix.sum(1), matrix.sum(0))


def _ratio(part: Any, whole: Any) -> Tensor:
    """Divide, giving 0 for 0 / 0; a branch would wait for an accelerator."""
    below = _as_float(whole)
    return _as_float(part) / (below + (below == 0))


def _as_float(count: Any) -> Tensor:
    tensor = torch.as_tensor(count)
    return tensor.to(_float_dtype(tensor))


def _float_dtype(tensor: Tensor) -> torch.dtype:
    return torch.float32 if tensor.device.type == "mps" else torch.float64
