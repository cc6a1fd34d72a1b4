"""Counts predictions against targets, whatever shape the two come in.

The lower half of `deepepochs.metrics`, where the accepted shapes are listed and whence these
names are imported. Values are looked at on the CPU only: on an accelerator that would make the
run wait for the device.

>>> import torch
>>> from deepepochs.metrics.confusion import confusion_matrix
>>> confusion_matrix(torch.tensor([0.9, 0.2, 0.8]), torch.tensor([1, 1, 0])).tolist()
[[0, 1], [1, 1]]
"""

from __future__ import annotations

import operator
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import ConfigError, ConfigTypeError, MetricError

__all__ = ["confusion_matrix", "get_class_num", "read_class_ids"]

# A soft label in bfloat16 adds up to 1 only roughly.
_ONE_HOT_SLACK = 0.02


def confusion_matrix(preds: Tensor, targets: Tensor, num_classes: int | None = None) -> Tensor:
    """Count how often each target class was predicted as each class.

    Args:
        preds: scores, probabilities of class 1, or class ids: see the module's docstring.
        targets: class ids or one-hot.
        num_classes: C. Left out, it is what `get_class_num` says; state it for class ids,
            whose largest may be absent from a batch.

    Returns:
        An int64 matrix ``[C, C]``: rows are targets, columns predictions.

    Raises:
        MetricError: shapes that do not fit each other or `num_classes`; on the CPU also ids
            outside 0 … C-1 (an accelerator reports those later, as a failed device assertion).
        ConfigError: `num_classes` below 1.

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
    """Say how many classes the predictions and targets have; of lists the first ones count.

    Returns:
        The number of columns of scores; 2 for probabilities of class 1; for class ids the columns
        of one-hot targets, otherwise the largest id plus one and at least 2 (which reads the ids,
        and so waits for an accelerator).

    >>> get_class_num(torch.rand(4, 5), torch.tensor([0, 1, 1, 0]))
    5
    """
    first_preds = preds if isinstance(preds, Tensor) else preds[0]
    first_targets = targets if isinstance(targets, Tensor) else targets[0]
    pred_ids, target_ids, size = read_class_ids(first_preds, first_targets)
    return _largest_id(pred_ids, target_ids) + 1 if size is None else size


def read_class_ids(preds: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, int | None]:
    """Bring predictions and targets to class ids of the same shape.

    Args:
        preds: scores ``[N, C, ...]``, probabilities of class 1 ``[N]`` or ``[N, 1, ...]``, or ids
            of an integer dtype ``[N]`` or ``[N, 1, ...]``.
        targets: ids ``[N, ...]`` or ``[N, 1, ...]``, or one-hot ``[N, C, ...]``.

    Returns:
        Predicted ids, target ids (of any dtype) and the number of classes, `None` where two ids
        say nothing about it. On the CPU all ids are checked against that number.

    Raises:
        MetricError: not tensors, shapes that do not fit, or values that cannot be ids.
    """
    _check_tensor(preds, "preds")
    _check_tensor(targets, "targets")
    num_classes: int | None = None
    if preds.ndim >= 2 and preds.shape[1] != 1:
        num_classes = preds.shape[1]
        if not num_classes:
            raise MetricError(f"preds {_shape(preds)} have no columns: give one for each class.")
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
        if targets.shape[:1] + targets.shape[2:] != pred_ids.shape:
            raise _misfit(preds, targets)
        columns = targets.shape[1]
        if columns != 1:
            if columns == 0 or columns != (num_classes or columns):
                raise _misfit(preds, targets)
            _check_one_hot(targets)
            return pred_ids, _largest_column(targets), columns
        target_ids = targets.squeeze(1)
    if num_classes is not None:
        _check_ids(target_ids, num_classes, "targets")
    return pred_ids, target_ids, num_classes


def _largest_column(scores: Tensor) -> Tensor:
    # argmax is not defined for bool
    return (scores.byte() if scores.dtype == torch.bool else scores).argmax(1)


def _largest_id(pred_ids: Tensor, target_ids: Tensor) -> int:
    """Give the largest of the ids, at least 1: there are two classes or more."""
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
    """Raise unless all ids are whole and in 0 … num_classes - 1; looks on the CPU only."""
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
        f"{what} {_shape(ids)} hold {ids[bad][0].item()}, which is no class id: with {num_classes} "
        f"classes ids are whole and from 0 to {num_classes - 1}. Number the classes from 0, and "
        f"drop what is to be ignored before the metric."
    )


def _count_without_reading(rows: Tensor, columns: Tensor, size: int) -> Tensor:
    # On an accelerator bincount would read its largest value back. A bad id is sent out of bounds,
    # lest it be counted in another class's cell.
    good = (columns >= 0) & (columns < size) & (rows >= 0) & (rows < size)
    cells = torch.where(good, rows * size + columns, size * size)
    counts = cells.new_zeros(size * size).scatter_add_(0, cells, torch.ones_like(cells))
    return counts.view(size, size)


def _check_tensor(value: object, what: str) -> None:
    if not isinstance(value, Tensor):
        kind = type(value).__name__
        hint = "pick the output to judge, for example" if isinstance(value, (list, tuple)) else "as"
        code = f"{what}[0]" if isinstance(value, (list, tuple)) else f"torch.as_tensor({what})"
        raise MetricError(f"{what} are a {kind}, and a tensor is needed: {hint} {code}.")
    if value.ndim == 0:
        raise MetricError(f"{what} are a single number: give one for each sample, of shape [N].")


def _check_one_hot(targets: Tensor) -> None:
    if targets.device.type != "cpu" or targets.numel() == 0:
        return
    sums = targets.sum(1, dtype=torch.float64)
    if targets.min().item() < 0 or not bool(((sums - 1).abs() < _ONE_HOT_SLACK).all()):
        raise MetricError(
            f"targets {_shape(targets)} are read as one-hot, but their rows do not add up to 1. "
            f"Several labels per sample are not judged here; flatten ids that have more "
            f"dimensions than [N], predictions and targets alike."
        )


def _warn_of_logits(column: Tensor) -> None:
    if column.device.type != "cpu" or column.numel() == 0:
        return
    low, high = column.detach().aminmax()
    if not (low.item() >= 0 and high.item() <= 1):  # so written, NaN is told too
        warnings.warn(
            f"preds {_shape(column)} are read as probabilities of class 1 (above 0.5), but go "
            f"from {low.item():.4g} to {high.item():.4g}: apply torch.sigmoid to scores, and "
            f"give class ids as integers.",
            stacklevel=4,
        )


def _misfit(preds: Tensor, targets: Tensor) -> MetricError:
    return MetricError(
        f"preds {_shape(preds)} and targets {_shape(targets)} do not fit: with scores [N, C], "
        f"probabilities or ids [N] or [N, 1], targets are [N], [N, 1] or one-hot [N, C]."
    )


def _shape(tensor: Tensor) -> str:
    return str(list(tensor.shape))
