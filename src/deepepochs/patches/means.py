"""Means of a metric that is called once on each batch.

>>> import torch
>>> from deepepochs.metrics import accuracy
>>> from deepepochs.patches import MeanPatch
>>> right = MeanPatch(accuracy, 3).load(torch.tensor([0, 1, 1]), torch.tensor([0, 1, 1]))
>>> wrong = MeanPatch(accuracy, 1).load(torch.tensor([0]), torch.tensor([1]))
>>> (right + wrong)()
0.75
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..errors import MetricError
from .base import check_same_metric
from .metric import call_metric, checked_metric, metric_name
from .values import ValuePatch

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["MeanPatch"]


class MeanPatch(ValuePatch):
    """The metric of each batch, averaged with batch sizes as weights; cheap in time and memory.

    The epoch's value is that of the whole only where the metric is a mean over samples
    (accuracy, mean squared error); for precision and the like use another patch.

    Args:
        metric: a function ``(outputs, targets)`` giving a number, a tensor, or a dict of them.
        batch_size: see `ValuePatch`.
        name: see `PatchBase`.

    Raises:
        ConfigError: a metric that cannot be called, or a weight that cannot be one.
    """

    def __init__(
        self, metric: Callable[..., Any], batch_size: float | Tensor, name: str | None = None
    ) -> None:
        super().__init__(batch_size, name)
        self.metric = checked_metric(metric, type(self).__name__)

    # The data of a metric, where the base takes a value.
    def load(self, outputs: Any, targets: Any = None) -> Self:
        """Call the metric on one mini-batch.

        Raises:
            MetricError: it gave neither a number nor a tensor nor a dict of them.
        """
        value = call_metric(self.metric, outputs, targets)
        try:
            return super().load(value)
        except MetricError as error:
            raise MetricError(f"metric {metric_name(self.metric)!r}: {error}") from None

    def add(self, other: Any) -> Self:
        """Join the sums of another patch of the same metric into these."""
        check_same_metric(self, other)
        return super().add(other)
