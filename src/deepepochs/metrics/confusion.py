"""Class ids of predictions and targets of any shape, and the confusion matrix that counts them.

`deepepochs.metrics` lists the accepted shapes. Values are checked on the CPU only: on an
accelerator a check would wait for the device.
"""

from __future__ import annotations

import operator
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import ConfigError, ConfigTypeError, MetricError

__all__ = ["confusion_matrix", "get_class_num", "read_class_ids"]


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

    On the CPU all ids are checked against that number, which two sets of ids do not give.

    Raises:
        MetricError: not tensors, shapes that do not fit, or values that cannot be ids.
    """
    _check_tensor(preds, "preds")
    _check_tensor(targets, "targets")
    num_classes: int | None = None
    if preds.ndim >= 2 and preds.shape[1] != 1:
        num_classes = preds.shape[1]
        if not num_classes:
            raise MetricError(f"preds {list(preds.shape)} have no columns: give one per class.")
        pred_ids = _largest_column(preds)
    else:
        column = preds.squeeze(1) if preds.ndim >= 2 else preds
        if column.is_floating_point():
            _warn_of_logits(column)
            num_classes, pred_ids = 2, column > 0.5
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
    raise MetricError(
        f"{what} {list(ids.shape)} hold {ids[bad][0].item()}, which is no class id: with "
        f"{num_classes} classes ids are whole and from 0 to {num_classes - 1}. Number the classes "
        "from 0, and remove samples to be ignored before the metric."
    )


def _count_without_reading(rows: Tensor, columns: Tensor, size: int) -> Tensor:
    # On an accelerator bincount would wait to read the largest value. The cell of a bad id is out of
    # bounds, so that it fails and is not counted for another class.
    good = (columns >= 0) & (columns < size) & (rows >= 0) & (rows < size)
    cells = torch.where(good, rows * size + columns, size * size)
    counts = cells.new_zeros(size * size).scatter_add_(0, cells, torch.ones_like(cells))
    return counts.view(size, size)


def _check_tensor(value: object, what: str) -> None:
    if not isinstance(value, Tensor):
        code = f"{what}[0]" if isinstance(value, (list, tuple)) else f"torch.as_tensor({what})"
        raise MetricError(f"{what} are a {type(value).__name__}: give a tensor, such as {code}.")
    if value.ndim == 0:
        raise MetricError(f"{what} are a single number: give one for each sample, of shape [N].")


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
    if not (low.item() >= 0 and high.item() <= 1):  # true for NaN, too
        warnings.warn(
            f"preds {list(column.shape)} are read as probabilities of class 1 (above 0.5), but go "
            f"from {low.item():.4g} to {high.item():.4g}: apply torch.sigmoid to scores, and "
            "give class ids as integers.",
            stacklevel=4,
        )
