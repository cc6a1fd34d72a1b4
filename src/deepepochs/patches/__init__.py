"""Patches: a patch holds what a metric needs of some mini-batches, and patches can be added.

A step returns patches. The run adds them up to the epoch's value; the same ``add`` merges tasks,
processes, and the two halves of a resumed epoch. For a patch of your own, subclass `PatchBase`,
which states the laws, and write ``add`` and ``forward``.

>>> import torch
>>> from deepepochs.metrics import accuracy
>>> from deepepochs.patches import ConfusionMetrics, MeanPatch, TensorPatch, ValuePatch
>>> scores, targets = torch.tensor([[0.9, 0.1], [0.2, 0.8]]), torch.tensor([0, 0])
>>> patches = [TensorPatch(accuracy).load(scores[i], targets[i]) for i in ([0], [1])]
>>> sum(patches)()
tensor(0.5000, dtype=torch.float64)

=================== ============================== ==========================
patch               what it keeps of the batches   exact for
=================== ============================== ==========================
`ValuePatch`        weighted sum of a value        means
`MeanPatch`         weighted sum of a metric       metrics that are means
`TensorPatch`       all outputs and targets        every metric
`ConfusionPatch`    a confusion matrix             metrics of such a matrix
`ConfusionMetrics`  a confusion matrix             accuracy, precision, …
`CountsPatch`       counts of each class           `deepepochs.metrics`
`MetricPatch`       states of a torchmetrics       torchmetrics' objects
                    object
=================== ============================== ==========================
"""

from __future__ import annotations

from .base import PatchBase, flatten_value, metric_name
from .confusion import ConfusionMetrics, ConfusionPatch, CountsPatch
from .plan import accumulates, check_patch_kind, is_torchmetric, make_patch
from .tensors import TensorPatch
from .torchmetric import MetricPatch
from .values import MeanPatch, ValuePatch

__all__ = [
    "ConfusionMetrics", "ConfusionPatch", "CountsPatch", "MeanPatch", "MetricPatch", "PatchBase",
    "TensorPatch", "ValuePatch", "accumulates", "check_patch_kind", "flatten_value", "is_torchmetric", "make_patch",
    "metric_name",
]  # fmt: skip


def __dir__() -> list[str]:
    return sorted(__all__)
