"""Confusion matrices that grow, and their figures without a display.

>>> import torch
>>> from deepepochs.callbacks.confusion_counts import confusion_figure
>>> confusion_figure(torch.tensor([[8, 2], [1, 9]]), ["cat", "dog"]).axes[0].get_xlabel()
'predicted'
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..plotting import draw_confusion

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["add_matrices", "confusion_figure"]


def confusion_figure(
    matrix: Tensor,
    names: Sequence[str] | None = None,
    cmap: str = "Blues",
    title: str = "",
    *,
    make: Callable[..., Any] | None = None,
) -> Figure:
    """Draw a confusion matrix ``[C, C]`` in a figure of a size to read it.

    Args:
        matrix: rows the true classes, columns the predicted.
        names: of the classes; ``None``: their numbers.
        cmap: a colour map of matplotlib.
        title: above the matrix.
        make: makes the figure; ``None``: one that pyplot does not know.
    """
    if make is None:
        from matplotlib.figure import Figure

        make = Figure
    side = min(16.0, max(4.0, 0.7 * len(matrix)))
    figure: Figure = make(figsize=(side + 1, side), layout="constrained")
    draw_confusion(figure, matrix, len(matrix), names, norm_dec=0, cmap=cmap, info=title)
    return figure


def add_matrices(first: Tensor, second: Tensor) -> Tensor:
    """Add two confusion matrices; where ids are counted, one may know more classes.

    >>> import torch
    >>> add_matrices(torch.ones(2, 2, dtype=torch.int64), torch.eye(3, dtype=torch.int64)).tolist()
    [[2, 1, 0], [1, 2, 0], [0, 0, 1]]
    """
    small, large = (first, second) if len(first) <= len(second) else (second, first)
    total = large.to(first.device, copy=True)
    total[: len(small), : len(small)] += small.to(first.device)
    return total
