"""Confusion matrices that grow with the mini-batches of each stage.

>>> import torch
>>> from deepepochs.callbacks.confusion_counts import ConfusionCounts
>>> from deepepochs.stages import Stage
>>> counts = ConfusionCounts(num_classes=2)
>>> for preds, targets in (([0, 1], [0, 0]), ([1], [1])):
...     counts.add(Stage.VAL, torch.tensor(preds), torch.tensor(targets))
>>> counts.finish(Stage.VAL).tolist()
[[1, 1], [0, 1]]
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..metrics.confusion import confusion_matrix
from ..stages import Stage

__all__ = ["ConfusionCounts", "add_matrices"]


class ConfusionCounts:
    """Counts predictions against targets, stage by stage.

    Args:
        num_classes: how many; ``None``: from the outputs or the ids.

    Attributes:
        matrices: the latest whole matrix ``[C, C]`` of each stage, rows the true classes.
    """

    def __init__(self, num_classes: int | None = None) -> None:
        self.num_classes = num_classes
        self.matrices: dict[Stage, Tensor] = {}
        self._latest: Stage | None = None
        self._growing: dict[Stage, Tensor] = {}

    @property
    def latest(self) -> Tensor | None:
        """The matrix of the stage that ended last; ``None`` where there is none."""
        return None if self._latest is None else self.matrices[self._latest]

    def begin(self, stage: Stage) -> None:
        """Forget what was counted of a pass that did not end."""
        self._growing.pop(stage, None)

    def add(self, stage: Stage, model_out: Any, batch_y: Any) -> None:
        """Count a mini-batch.

        Raises:
            MetricError: outputs and targets that are no classes, or not of the number given.
        """
        matrix = confusion_matrix(model_out, batch_y, self.num_classes)
        before = self._growing.get(stage)
        self._growing[stage] = matrix if before is None else add_matrices(before, matrix)

    def finish(self, stage: Stage) -> Tensor | None:
        """End a pass: return its matrix, on the CPU; ``None`` where nothing was counted."""
        counts = self._growing.pop(stage, None)
        if counts is None:
            return None
        self.matrices[stage] = counts.cpu()
        self._latest = stage
        return self.matrices[stage]

    def state_dict(self) -> dict[str, Tensor]:
        """What is counted of passes that have not ended."""
        return {str(stage): count for stage, count in self._growing.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on where ``state`` was taken."""
        self._growing = {Stage(name): count.clone() for name, count in state.items()}


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
