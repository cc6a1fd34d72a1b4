"""MetricPatch: torchmetrics objects agree with the whole data and are never touched."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from torch import Tensor
from torchmetrics import MeanMetric, Metric, MetricCollection, MinMetric
from torchmetrics.classification import (
    BinaryAccuracy,
    BinaryAUROC,
    MulticlassAccuracy,
    MulticlassAveragePrecision,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
    MulticlassStatScores,
)
from torchmetrics.functional import mean_squared_error
from torchmetrics.regression import (
    KendallRankCorrCoef,
    MeanAbsoluteError,
    MeanSquaredError,
    NormalizedRootMeanSquaredError,
    PearsonCorrCoef,
    R2Score,
)
from torchmetrics.wrappers import ClasswiseWrapper, MultioutputWrapper

from deepepochs.errors import PatchError
from deepepochs.patches import MetricPatch, TensorPatch
from deepepochs.patches.torchmetric import counts_whole_numbers

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:torchmetrics")

CLASSES = 4
SCORES = torch.rand(41, CLASSES, generator=torch.Generator().manual_seed(1)).softmax(1)
LABELS = torch.randint(CLASSES, (41,), generator=torch.Generator().manual_seed(2))
GROUPED = MetricCollection(
    {
        "acc": MulticlassAccuracy(CLASSES),
        "f1": MulticlassF1Score(CLASSES),
        "all": MetricCollection([MulticlassConfusionMatrix(CLASSES)], prefix="of_"),
    },
    postfix="_x",
)

METRICS: dict[str, tuple[Any, Tensor, Tensor]] = {
    "accuracy": (MulticlassAccuracy(CLASSES), SCORES, LABELS),
    "samplewise": (
        MulticlassStatScores(CLASSES, multidim_average="samplewise"),
        LABELS[:40].reshape(20, 2),
        LABELS[:40].flip(0).reshape(20, 2),
    ),
    "average_precision": (MulticlassAveragePrecision(CLASSES), SCORES, LABELS),
    "binned": (MulticlassAveragePrecision(CLASSES, thresholds=9), SCORES, LABELS),
    "auroc": (BinaryAUROC(), SCORES[:, 0], LABELS > 1),
    "mse": (MeanSquaredError(), SCORES[:, 0], SCORES[:, 1]),
    "mse_of_columns": (MeanSquaredError(num_outputs=2), SCORES[:, :2], SCORES[:, 2:]),
    "r2": (R2Score(), SCORES[:, 0], SCORES[:, 1]),
    "pearson": (PearsonCorrCoef(), SCORES[:, 0], SCORES[:, 1]),
    "pearson_of_columns": (PearsonCorrCoef(num_outputs=2), SCORES[:, :2], SCORES[:, 2:]),
    "kendall": (KendallRankCorrCoef(), SCORES[:, 0], SCORES[:, 1]),
    "nrmse": (NormalizedRootMeanSquaredError("range"), SCORES[:, 0], SCORES[:, 1]),
    "no_sync": (MeanAbsoluteError(sync_on_compute=False), SCORES[:, 0], SCORES[:, 1]),
    "collection": (MetricCollection([MeanSquaredError(), R2Score()]), SCORES[:, 0], SCORES[:, 1]),
    "groups": (GROUPED, SCORES, LABELS),
    "classwise": (ClasswiseWrapper(MulticlassAccuracy(CLASSES, average=None)), SCORES, LABELS),
    "columns": (MultioutputWrapper(R2Score(), 2), SCORES[:, :2], SCORES[:, 2:]),
}
each_metric = pytest.mark.parametrize(("metric", "x", "y"), METRICS.values(), ids=METRICS)
# The formula of torchmetrics 1.9 for several processes fails for this one.
mergeable = pytest.mark.parametrize(
    ("metric", "x", "y"),
    [case for name, case in METRICS.items() if name != "nrmse"],
    ids=[name for name in METRICS if name != "nrmse"],
)


def whole(metric: Any, x: Tensor, y: Tensor) -> Any:
    fresh = metric.clone()
    fresh.update(x, y)
    return fresh.compute()


def epoch(metric: Any, x: Tensor, y: Tensor, size: int) -> MetricPatch:
    """As the run does it: in place on its own sum."""
    first, *rest = (
        MetricPatch(metric).load(*batch) for batch in zip(x.split(size), y.split(size), strict=True)
    )
    total = first.copy()
    for patch in rest:
        total = total.add(patch)
    return total


def assert_close(one: Any, two: Any) -> None:
    torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


@each_metric
def test_an_epoch_has_the_value_of_the_whole(metric: Any, x: Tensor, y: Tensor) -> None:
    assert_close(epoch(metric, x, y, 7)(), whole(metric, x, y))
    assert_close(MetricPatch(metric).load(x, y)(), whole(metric, x, y))


@mergeable
def test_two_epochs_merge_into_the_value_of_the_whole(metric: Any, x: Tensor, y: Tensor) -> None:
    parts = [epoch(metric, x[i : i + 14], y[i : i + 14], 5) for i in range(0, len(x), 14)]
    before = [part() for part in parts]
    assert len(parts) > 1
    total = sum(parts)
    assert_close(total(), whole(metric, x, y))
    assert_close(total(), whole(metric, x, y))  # to look changes nothing
    for part, value in zip(parts, before, strict=True):
        torch.testing.assert_close(part(), value, rtol=0, atol=0)


@mergeable
def test_merged_epochs_take_further_batches(metric: Any, x: Tensor, y: Tensor) -> None:
    total = epoch(metric, x[:10], y[:10], 5) + epoch(metric, x[10:18], y[10:18], 4)
    total()
    total = total.add(MetricPatch(metric).load(x[18:], y[18:]))
    assert_close(total(), whole(metric, x, y))


@each_metric
def test_a_saved_epoch_goes_on_with_the_same_bits(metric: Any, x: Tensor, y: Tensor) -> None:
    straight, stopped = epoch(metric, x[:15], y[:15], 5), epoch(metric, x[:15], y[:15], 5)
    file = io.BytesIO()
    torch.save(stopped.state_dict(), file)
    file.seek(0)
    resumed = MetricPatch(metric)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    torch.testing.assert_close(resumed(), straight(), rtol=0, atol=0)
    for begin in range(15, len(x), 9):
        for total in (straight, resumed):
            total.add(MetricPatch(metric).load(x[begin : begin + 9], y[begin : begin + 9]))
    torch.testing.assert_close(resumed(), straight(), rtol=0, atol=0)


@each_metric
def test_the_users_object_is_never_touched(metric: Any, x: Tensor, y: Tensor) -> None:
    used = metric.clone()
    used.update(x[:20], y[:20])
    used.compute()
    before = repr(vars(used)), repr(used.metric_state)
    patch = epoch(used, x, y, 7) + MetricPatch(used).load(x, y)
    patch()
    patch.load_state_dict(patch.state_dict())
    assert (repr(vars(used)), repr(used.metric_state)) == before
    # and what it has seen itself does not count
    assert_close(epoch(used, x, y, 7)(), whole(metric, x, y))


def held(metric: Any, num_batches: int) -> int:
    """Elements of all tensors that the sum of an epoch holds."""
    x, y = torch.rand(8 * num_batches, CLASSES), torch.arange(8 * num_batches) % CLASSES
    total = epoch(metric, x, y, 8)
    tensors: list[Tensor] = []

    def collect(value: Any) -> None:
        if isinstance(value, Tensor):
            tensors.append(value)
        elif isinstance(value, dict):
            list(map(collect, value.values()))
        elif isinstance(value, (list, tuple)):
            list(map(collect, value))

    collect(total.state_dict())
    assert total.batch is None
    return sum(tensor.numel() for tensor in tensors)


@pytest.mark.parametrize(
    "metric", [MulticlassAccuracy(CLASSES), MetricCollection([MulticlassF1Score(CLASSES)])]
)
def test_memory_does_not_grow_with_the_number_of_batches(metric: Any) -> None:
    assert held(metric, 2) == held(metric, 60) > 0


def test_outputs_alone_reach_a_metric_that_wants_no_targets() -> None:
    patches = [MetricPatch(MEAN).load(torch.tensor(values)) for values in ([1.0, 2.0], [6.0])]
    assert sum(patches)() == 3.0


MEAN = MeanMetric()


def test_outputs_are_taken_out_of_autograd() -> None:
    outputs = torch.ones(3, requires_grad=True) * 2
    patch = MetricPatch(MEAN).load(outputs)
    assert patch.batch is not None
    assert not patch.batch[0].requires_grad
    assert not (patch + patch)().requires_grad


def test_functions_of_torchmetrics_are_ordinary_metrics() -> None:
    patches = [
        TensorPatch(mean_squared_error).load(*batch)
        for batch in zip(SCORES[:, 0].split(6), SCORES[:, 1].split(6), strict=True)
    ]
    assert_close(sum(patches)(), mean_squared_error(SCORES[:, 0], SCORES[:, 1]))


def test_the_smallest_of_all_batches_is_found() -> None:
    metric = MinMetric()
    one = MetricPatch(metric).load(torch.tensor([3.0])) + MetricPatch(metric).load(
        torch.tensor([2.0])
    )
    two = MetricPatch(metric).load(torch.tensor([5.0])) + MetricPatch(metric).load(
        torch.tensor([1.0])
    )
    assert (one + two)() == 1.0


def test_an_update_that_fails_tells_the_metric_and_the_shapes() -> None:
    patch = MetricPatch(MulticlassAccuracy(CLASSES)).load(torch.ones(2, 9), torch.ones(2).long())
    with pytest.raises(Exception) as caught:
        patch()
    assert "'MulticlassAccuracy' was updated with a tensor [2, 9] and a tensor [2]" in "".join(
        getattr(caught.value, "__notes__", [str(caught.value)])
    )


class Product(Metric):
    """Its state cannot be merged: the reduction is refused by torchmetrics itself."""

    full_state_update = False

    def __init__(self) -> None:
        super().__init__()
        self.add_state("product", torch.ones(()), dist_reduce_fx=lambda states: states["product"])

    def update(self, x: Tensor) -> None:
        self.product = self.product * x.prod()

    def compute(self) -> Tensor:
        return self.product


def test_a_metric_that_cannot_be_merged_says_so_only_when_it_must_be() -> None:
    metric = Product()
    one = MetricPatch(metric).load(torch.ones(1)) + MetricPatch(metric).load(torch.ones(1))
    assert one() == 1.0
    with pytest.raises(PatchError, match="cannot merge two sums"):
        (one + one)()


def test_a_metric_waits_for_no_other_process() -> None:
    # With torch.distributed running, torchmetrics' compute would gather from all processes.
    metric = MulticlassAccuracy(CLASSES, distributed_available_fn=lambda: True)
    assert_close(epoch(metric, SCORES, LABELS, 7)(), MulticlassAccuracy(CLASSES)(SCORES, LABELS))


def test_a_metric_of_counts_is_updated_for_many_batches_at_once() -> None:
    updates = []

    class Watched(MulticlassAccuracy):
        def update(self, preds: torch.Tensor, target: torch.Tensor) -> None:
            updates.append(len(preds))
            super().update(preds, target)

    Watched.__module__ = MulticlassAccuracy.__module__
    metric = Watched(3, average="micro")
    ids = [torch.tensor([0, 1]), torch.tensor([2, 2, 1])]
    parts = [MetricPatch(metric).load(x, x.flip(0)) for x in ids]
    patch = sum(parts)
    assert updates == []
    assert patch() == MulticlassAccuracy(3, average="micro")(
        torch.cat(ids), torch.cat([x.flip(0) for x in ids])
    )  # type: ignore[operator]
    assert updates == [5]


def test_batches_that_differ_in_shape_are_not_joined() -> None:
    metric = MulticlassAccuracy(3, average="micro")
    scores = torch.eye(3)
    patch = MetricPatch(metric).load(scores, torch.arange(3))
    patch = patch + MetricPatch(metric).load(torch.tensor([0, 1]), torch.tensor([0, 2]))
    assert float(patch()) == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("metric", "joins"),
    [
        (MulticlassAccuracy(3), True),
        (MetricCollection([MulticlassAccuracy(3), MulticlassF1Score(3)]), True),
        (MeanMetric(), False),
        (MeanSquaredError(), False),
        (BinaryAUROC(), False),
    ],
)
def test_only_counts_of_whole_numbers_are_joined(metric: Any, joins: bool) -> None:
    assert counts_whole_numbers(metric) is joins


@pytest.mark.parametrize("metric", [BinaryAccuracy(), BinaryAUROC(thresholds=11)])
def test_scores_and_probabilities_are_not_joined(metric: Any) -> None:
    """A sigmoid is applied to an update in which one number is not from 0 to 1."""
    generator = torch.Generator().manual_seed(0)
    batches = [
        (
            torch.randn(2, generator=generator) * 0.7 + 0.3,
            torch.randint(2, (2,), generator=generator),
        )
        for _ in range(30)
    ]
    one_by_one, patch = metric.clone(), MetricPatch(metric)
    for index, batch in enumerate(batches):
        one_by_one.update(*batch)
        patch = patch + MetricPatch(metric).load(*batch)
        if index % 7 == 0:
            patch.copy()()  # somebody looks
    assert patch() == one_by_one.compute()
    assert patch.sums[0].update_count == len(batches)
