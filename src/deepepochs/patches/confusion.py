"""Patches that keep counts of classes: exact for the metrics of such counts, in constant memory.

>>> import torch
>>> from deepepochs.patches import ConfusionMetrics
>>> scores = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6]])
>>> patch = ConfusionMetrics(("accuracy", "recall")).load(scores, torch.tensor([0, 1, 0]))
>>> {key: round(float(value), 4) for key, value in patch().items()}
{'acc': 0.6667, 'r': 1.0}
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import metrics as functions
from ..errors import ConfigError, MetricError, PatchError
from ..nest.reuse import any_changed
from .base import PatchBase, call_metric, check_same_metric, checked_metric, copied, mismatch
from .tensors import Chunks, as_chunk, changed_in_place

if TYPE_CHECKING:
    from typing_extensions import Self

MOST_KEPT = 2**20
"""Numbers in the outputs that a `CountsPatch` keeps before it counts: 4 MB of float32."""

KEYS = {"accuracy": "acc", "precision": "p", "recall": "r", "f1": "f1", "fbeta": "fb"}


class _MatrixPatch(PatchBase):
    """Sums int64 confusion matrices; the smaller of two is padded to the size of the larger."""

    matrix: Tensor | None = None
    num_classes: int | None = None

    def load(self, outputs: Any, targets: Any) -> Self:
        """Count the predictions of one mini-batch.

        Args:
            outputs: see `deepepochs.metrics.confusion_matrix`; of several outputs, the first.
            targets: likewise.

        Raises:
            MetricError: there are no targets, or the shapes do not fit.
        """
        if targets is None:
            raise MetricError(
                f"{self} got no targets: a confusion matrix counts predictions by their targets; "
                "use TensorPatch or MeanPatch."
            )
        with torch.no_grad():
            self.matrix = functions.confusion_matrix(
                _first(outputs), _first(targets), self.num_classes
            )
        return self

    def add(self, other: Any) -> Self:
        """Add the counts of another patch."""
        if other.matrix is not None:
            if self.matrix is None:
                self.matrix = other.matrix.clone()
            elif self.matrix.shape == other.matrix.shape:
                self.matrix += other.matrix.to(self.matrix.device)
            else:
                size = max(len(self.matrix), len(other.matrix))
                more = _padded(other.matrix.to(self.matrix.device), size)
                self.matrix = _padded(self.matrix, size) + more
        return self

    def state_dict(self) -> dict[str, Any]:
        """Give a copy of the matrix."""
        return {"matrix": copied(self.matrix)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load what `state_dict` gave."""
        self.matrix = copied(state["matrix"])

    def _amounts(self) -> list[str]:
        if self.matrix is None or not self.matrix.is_cpu:
            return []
        return [f"{int(self.matrix.sum())} samples"]

    def _counts(self) -> Tensor:
        if self.matrix is None:
            raise PatchError(f"{self} holds no data: call load(outputs, targets).")
        return self.matrix


class ConfusionPatch(_MatrixPatch):
    """The summed confusion matrix; the metric is computed from it when the value is read.

    Args:
        metric: a function of an int64 matrix ``[C, C]`` (rows targets, columns predictions)
            giving a number, a tensor, or a dict of them. It gets the matrix as its argument
            ``conf_mat`` if it has one of this name, as `deepepochs.metrics` have, or else as
            its first argument.
        batch_size: not used; all patches of metrics are made with the same arguments.
        name: see `PatchBase`.
        num_classes: C; with ``None`` it is read off the outputs or the ids.

    Raises:
        ConfigTypeError: the metric cannot be called.

    Example:
        >>> patch = ConfusionPatch(lambda matrix: matrix.trace() / matrix.sum())
        >>> patch.load(torch.tensor([[0.9, 0.1], [0.2, 0.8]]), torch.tensor([0, 0]))()
        tensor(0.5000)
    """

    def __init__(
        self,
        metric: Callable[..., Any],
        batch_size: Any = None,
        name: str | None = None,
        *,
        num_classes: int | None = None,
    ) -> None:
        super().__init__(name)
        self.metric = checked_metric(metric, type(self).__name__)
        self.batch_size = batch_size
        self.num_classes = num_classes

    def add(self, other: Any) -> Self:
        """Add the counts of another patch of the same metric."""
        check_same_metric(self, other)
        return super().add(other)

    def forward(self) -> Any:
        """Give the metric of the matrix.

        Raises:
            PatchError: nothing was loaded.
        """
        matrix = self._counts()
        if takes_matrix_by_name(self.metric):
            return call_metric(self.metric, conf_mat=matrix.clone())
        return call_metric(self.metric, matrix, on_copies=True)


class CountsPatch(PatchBase):
    """The counts of each class, for the functions of `deepepochs.metrics`.

    Outputs and targets are kept for some mini-batches, and then counted together, which is cheaper
    than to count each mini-batch. The value is that of all outputs and targets at once.

    Args:
        metric: a function of `deepepochs.metrics`, or a partial of one.
        batch_size: not used; all patches of metrics are made with the same arguments.
        name: see `PatchBase`.

    Example:
        >>> one = CountsPatch(functions.accuracy).load(torch.tensor([0.9]), torch.tensor([1]))
        >>> (one + CountsPatch(functions.accuracy).load(torch.tensor([0.2]), torch.tensor([1])))()
        tensor(0.5000, dtype=torch.float64)
    """

    def __init__(
        self, metric: Callable[..., Any], batch_size: Any = None, name: str | None = None
    ) -> None:
        super().__init__(name)
        self.metric = checked_metric(metric, type(self).__name__)
        self.batch_size = batch_size
        self._begin(None)

    def load(self, outputs: Any, targets: Any = None) -> Self:
        """Keep the outputs and targets of one mini-batch."""
        self._begin(None)
        self.keep(as_chunk(outputs), as_chunk(targets))
        return self

    def keep(self, outputs: Any, targets: Any = None) -> None:
        """Add one more mini-batch in place; both arguments come from ``as_chunk``."""
        if not isinstance(outputs, Tensor):
            outputs = functions.scores_of(outputs)
        if any_changed((outputs, targets)):
            raise changed_in_place()
        self.outputs.items.append(outputs)
        self.targets.items.append(targets)
        self._num_kept += outputs.numel() if isinstance(outputs, Tensor) else 0
        if self._num_kept > MOST_KEPT:
            self._count()

    def _begin(self, totals: functions.ClassTotals | None) -> None:
        """Have these counts, and nothing that is not counted yet."""
        self.totals = totals
        self.outputs, self.targets = Chunks(), Chunks()
        self._num_kept = 0

    def _count(self) -> None:
        """Count what was kept."""
        if not self.outputs.items:
            return
        pairs = list(zip(self.outputs.items, self.targets.items, strict=True))
        outputs, targets = self.outputs.joined(True), self.targets.joined(True)
        if isinstance(outputs, Tensor) and isinstance(targets, Tensor):
            pairs = [(outputs, targets)]
        # Else mini-batches have other shapes, as images and texts of other sizes: each is counted alone.
        totals = self.totals
        with torch.no_grad():
            for pair in pairs:
                counted = functions.count_classes(*pair)
                totals = counted if totals is None else _sum(totals, counted)
        self._begin(totals)

    def add(self, other: Any) -> Self:
        """Add the counts of another patch of the same metric."""
        check_same_metric(self, other)
        for outputs, targets in zip(other.outputs.items, other.targets.items, strict=True):
            self.keep(outputs, targets)
        if other.totals is not None:
            self.totals = other.totals if self.totals is None else _sum(self.totals, other.totals)
        return self

    def forward(self) -> Any:
        """Give the metric of the counts.

        Raises:
            PatchError: nothing was loaded.
            MetricError: outputs and targets do not fit the metric, or were changed in place.
        """
        self._count()
        if self.totals is None:
            raise PatchError(f"{self} holds no data: call load(outputs, targets).")
        return call_metric(self.metric, conf_mat=self.totals)

    def state_dict(self) -> dict[str, Any]:
        """Give the counts."""
        self._count()
        return {"totals": None if self.totals is None else list(map(copied, self.totals))}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load what `state_dict` gave, or that of a `TensorPatch`, which earlier files have."""
        if "totals" not in state:
            self._begin(None)
            for outputs, targets in zip(state["outputs"], state["targets"], strict=True):
                self.keep(copied(outputs), copied(targets))
            return
        saved = state["totals"]
        self._begin(None if saved is None else functions.ClassTotals(*map(copied, saved)))


def _sum(one: functions.ClassTotals, other: functions.ClassTotals) -> functions.ClassTotals:
    size = max(len(one.hits), len(other.hits))
    pairs = zip(one, other, strict=True)
    return functions.ClassTotals(
        *(
            F.pad(a, (0, size - len(a))) + F.pad(b, (0, size - len(b))).to(a.device)
            for a, b in pairs
        )
    )


def is_of_classes(metric: Any) -> bool:
    """Say whether a metric is one of the library's, or a partial of one with options alone."""
    while isinstance(metric, functools.partial):
        if metric.args or not {"average", "beta"}.issuperset(metric.keywords):
            return False
        metric = metric.func
    return any(metric is known for known in functions.BY_NAME.values())


def takes_matrix_by_name(metric: Callable[..., Any]) -> bool:
    """Say whether a metric has an argument ``conf_mat``, also inside of a partial or a wrapper."""
    try:
        parameter = inspect.signature(metric).parameters.get("conf_mat")
    except (TypeError, ValueError):  # a function written in C
        return False
    return parameter is not None and parameter.kind is not parameter.POSITIONAL_ONLY


class ConfusionMetrics(_MatrixPatch):
    """Accuracy, precision, recall, F1 and F-beta of the summed confusion matrix.

    Args:
        metrics: one or several of the names ``accuracy, precision, recall, f1, fbeta``.
        average: ``'micro'``, ``'macro'``, ``'weighted'``, ``'binary'`` or ``None``: see
            `deepepochs.metrics.fbeta`.
        beta: for F-beta; above 0.
        name: the value's keys ``acc, p, r, f1, fb`` are appended to it: ``C.acc``.

    Raises:
        ConfigError: the metric or average is unknown, or beta is not a number above 0.
    """

    def __init__(
        self,
        metrics: str | Iterable[str] = tuple(KEYS),
        average: str | None = None,
        beta: float = 1.0,
        name: str | None = "C.",
    ) -> None:
        super().__init__(name)
        self.metrics = (metrics,) if isinstance(metrics, str) else tuple(metrics)
        choices = [("metrics", metric, tuple(KEYS)) for metric in self.metrics]
        for what, found, known in [*choices, ("average", average, (None, *functions.AVERAGES))]:
            if found not in known:
                names = ", ".join(map(repr, known))
                raise ConfigError(f"ConfusionMetrics got {what} {found!r}: choose from {names}.")
        if not isinstance(beta, (int, float)) or not 0 < beta < math.inf:
            raise ConfigError(f"ConfusionMetrics got beta={beta!r}: give a number above 0.")
        self.average = average
        self.beta = beta

    def accuracy(self) -> Tensor:
        """Give the share of correct predictions, 0 … 1."""
        return functions.accuracy(conf_mat=self._counts())

    def precision(self) -> Tensor:
        """Give the share of a class's predictions that are right, averaged."""
        return functions.precision(conf_mat=self._counts(), average=self.average)

    def recall(self) -> Tensor:
        """Give the share of a class's targets that were found, averaged."""
        return functions.recall(conf_mat=self._counts(), average=self.average)

    def f1(self) -> Tensor:
        """Give the harmonic mean of precision and recall, averaged."""
        return functions.f1(conf_mat=self._counts(), average=self.average)

    def fbeta(self) -> Tensor:
        """Give the mean of precision and recall in which recall counts `beta` times as much."""
        return functions.fbeta(conf_mat=self._counts(), beta=self.beta, average=self.average)

    def add(self, other: Any) -> Self:
        """Add the counts of another patch with the same settings."""
        mine = (self.metrics, self.average, self.beta)
        theirs = (other.metrics, other.average, other.beta)
        if mine != theirs:
            raise PatchError(mismatch(self, f" with {mine} and {theirs}", other))
        return super().add(other)

    def forward(self) -> dict[str, Tensor]:
        """Give the metrics under their short names.

        Raises:
            PatchError: nothing was loaded.
        """
        return {KEYS[metric]: getattr(self, metric)() for metric in self.metrics}


def _first(data: Any) -> Any:
    return data[0] if isinstance(data, (tuple, list)) and data else data


def _padded(matrix: Tensor, size: int) -> Tensor:
    more = size - len(matrix)
    return F.pad(matrix, (0, more, 0, more))
