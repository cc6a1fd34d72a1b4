"""The laws of patches, for every built-in one and for a user's own."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassAUROC,
    MulticlassConfusionMatrix,
    MulticlassPrecision,
)
from torchmetrics.regression import MeanSquaredError, PearsonCorrCoef

from deepepochs.metrics import accuracy, recall
from deepepochs.nest.codec import from_plain, to_plain
from deepepochs.patches import (
    ConfusionMetrics,
    ConfusionPatch,
    MeanPatch,
    MetricPatch,
    PatchBase,
    TensorPatch,
    ValuePatch,
)

NUM_CLASSES = 3


class Sums(PatchBase):
    """A patch as users wrote them for 0.6: a value in a dict, adding in place."""

    def __init__(self, metric: Any, name: str | None = None) -> None:
        super().__init__(name)
        self.metric = metric

    def load(self, preds: Tensor, targets: Tensor) -> Sums:
        self.sums = {"hits": (preds.argmax(1) == targets).sum(), "n": len(targets)}
        self.rows = [preds.sum(0).double().numpy()]
        return self

    def add(self, obj: Sums) -> Sums:
        self.sums["hits"] += obj.sums["hits"]
        self.sums["n"] += obj.sums["n"]
        self.rows.append(obj.rows.pop())
        self.rows = [sum(self.rows)]
        return self

    def forward(self) -> dict[str, Any]:
        hits, n = self.sums["hits"], self.sums["n"]
        return {"acc": hits / n if n else hits * torch.nan, "first": float(self.rows[0][0])}


def multi(outputs: Tensor, targets: Tensor) -> dict[str, Any]:
    return {"top": (outputs.argmax(1) == targets).double().mean(), "gap": {"max": outputs.max()}}


def mean_score(outputs: Tensor, targets: Tensor) -> Tensor:
    return outputs.double().mean(0)


def trace_share(matrix: Tensor) -> Tensor:
    return matrix.trace() / matrix.sum()


def regression(metric: Any) -> Callable[[Tensor, Tensor], PatchBase]:
    """Compare column 0 with column 1."""
    return lambda x, y: MetricPatch(metric).load(x[:, 0].clone(), x[:, 1].clone())


MSE, PEARSON = MeanSquaredError(), PearsonCorrCoef()
ACC, AUROC = MulticlassAccuracy(NUM_CLASSES, average="micro"), MulticlassAUROC(NUM_CLASSES)
COLLECTION = MetricCollection(
    [
        MulticlassAccuracy(NUM_CLASSES),
        MulticlassPrecision(NUM_CLASSES),
        MulticlassConfusionMatrix(NUM_CLASSES),
    ]
)
MAKERS: dict[str, Callable[[Tensor, Tensor], PatchBase]] = {
    "value": lambda x, y: ValuePatch(len(x)).load(x.mean()),
    "value_float": lambda x, y: ValuePatch(len(x)).load(x.mean().item()),
    "value_dict": lambda x, y: ValuePatch(len(x)).load(
        {"m": x.mean(), "of": {"y": y.double().mean()}}
    ),
    "value_per_class": lambda x, y: ValuePatch(len(x)).load(x.mean(0)),
    "mean": lambda x, y: MeanPatch(accuracy, len(x)).load(x, y),
    "mean_per_class": lambda x, y: MeanPatch(mean_score, len(x)).load(x, y),
    "tensor": lambda x, y: TensorPatch(recall).load(x, y),
    "tensor_dict": lambda x, y: TensorPatch(multi).load(x, y),
    "confusion": lambda x, y: ConfusionPatch(trace_share).load(x, y),
    "confusion_metrics": lambda x, y: ConfusionMetrics(average="macro").load(x, y),
    "torchmetrics": lambda x, y: MetricPatch(ACC).load(x, y),
    "torchmetrics_lists": lambda x, y: MetricPatch(AUROC).load(x, y),
    "torchmetrics_collection": lambda x, y: MetricPatch(COLLECTION).load(x, y),
    "torchmetrics_mean": regression(MSE),
    "torchmetrics_no_reduction": regression(PEARSON),
    "own": lambda x, y: Sums(len).load(x, y),
}
every_patch = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
pytestmark = pytest.mark.filterwarnings(
    "ignore:(No|.*variance).*:UserWarning:torchmetrics", "ignore::UserWarning:torchmetrics"
)


class Data(NamedTuple):
    x: Tensor
    y: Tensor
    sizes: list[int]

    def batches(self) -> list[tuple[Tensor, Tensor]]:
        return list(zip(self.x.split(self.sizes), self.y.split(self.sizes), strict=True))


@st.composite
def data(draw: st.DrawFn, num_batches: int | None = None) -> Data:
    low, high = (1, 6) if num_batches is None else (num_batches, num_batches)
    sizes = draw(st.lists(st.integers(2, 7), min_size=low, max_size=high))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    x = torch.rand(sum(sizes), NUM_CLASSES, generator=generator)
    y = torch.randint(NUM_CLASSES, (len(x),), generator=generator)
    return Data(x / x.sum(1, keepdim=True), y, sizes)


few = settings(max_examples=12)


def flat(value: Any) -> np.ndarray:
    leaves = value.values() if isinstance(value, dict) else [value]
    return np.concatenate(
        [flat(v) if isinstance(v, dict) else np.ravel(np.asarray(v, float)) for v in leaves]
    )


def assert_equal(one: Any, two: Any, **tolerance: float) -> None:
    assert type(one) is type(two)
    if isinstance(one, dict):
        assert list(one) == list(two)
    np.testing.assert_allclose(flat(one), flat(two), **tolerance or {"rtol": 0, "atol": 0})


def bits(patch: PatchBase) -> bytes:
    """What the patch holds, as it would go into a file."""
    return b"".join(repr(leaf).encode() for leaf in leaves(patch.state_dict()))


def leaves(state: Any) -> list[Any]:
    if isinstance(state, dict):
        return [leaf for key, value in state.items() for leaf in [key, *leaves(value)]]
    if isinstance(state, (list, tuple)):
        return [leaf for value in state for leaf in leaves(value)]
    return [state.tolist()] if isinstance(state, (Tensor, np.ndarray)) else [state]


def through_a_file(state: Any) -> Any:
    file = io.BytesIO()
    torch.save(to_plain(state), file)
    file.seek(0)
    return from_plain(torch.load(file, weights_only=True))


@every_patch
@few
@given(data=data(num_batches=2))
def test_adding_leaves_both_patches_unchanged(make: Any, data: Data) -> None:
    a, b = (make(*batch) for batch in data.batches())
    before = bits(a), bits(b), a(), b()
    total = a + b
    total.add(make(*data.batches()[0]))  # nor does what happens to the sum later
    assert (bits(a), bits(b)) == before[:2]
    assert_equal(a(), before[2])
    assert_equal(b(), before[3])


@pytest.mark.parametrize("make", list(MAKERS.values())[:-1], ids=list(MAKERS)[:-1])
@pytest.mark.parametrize("are_sums", [True, False])
def test_merging_in_place_leaves_the_other_patch_unchanged(make: Any, are_sums: bool) -> None:
    x, y = torch.rand(12, NUM_CLASSES), torch.arange(12) % NUM_CLASSES
    a, b, c = (make(*batch) for batch in zip(x.split(4), y.split(4), strict=True))
    if are_sums:
        a, b = a + c, b + c
    before = bits(b)
    a.add(b).add(c).add(c)
    assert bits(b) == before


def test_merging_in_place_leaves_keys_of_the_other_patch_unchanged() -> None:
    total, other = ValuePatch(1).load({"a": 1.0}), ValuePatch(1).load({"b": 1.0})
    total.add(other).add(ValuePatch(1).load({"b": 3.0}))
    assert (total(), other()) == ({"a": 1.0, "b": 2.0}, {"b": 1.0})


@every_patch
@few
@given(data=data(num_batches=3))
def test_the_order_of_grouping_does_not_matter(make: Any, data: Data) -> None:
    a, b, c = (make(*batch) for batch in data.batches())
    assert_equal(((a + b) + c)(), (a + (b + c))(), rtol=1e-5, atol=1e-6)


@every_patch
@few
@given(data=data(num_batches=1))
def test_zero_is_neutral(make: Any, data: Data) -> None:
    a = make(data.x, data.y)
    for same in (0 + a, a + 0, sum([a])):
        assert same is not a
        assert type(same) is type(a)
        assert_equal(same(), a())


@every_patch
@few
@given(data=data())
def test_the_cut_into_batches_does_not_matter(make: Any, data: Data) -> None:
    whole = make(data.x, data.y)()
    parts = [make(*batch) for batch in data.batches()]
    assert_equal(sum(parts)(), whole, rtol=2e-5, atol=1e-5)
    merged = parts[0].copy()  # as the run does it
    for part in parts[1:]:
        merged = merged.add(part)
    assert_equal(merged(), whole, rtol=2e-5, atol=1e-5)


@every_patch
@few
@given(data=data())
def test_state_dict_and_back_is_the_identity(make: Any, data: Data) -> None:
    merged = sum(make(*batch) for batch in data.batches())
    restored = make(data.x[:2] * 0.5, data.y[:2])
    restored.load_state_dict(through_a_file(merged.state_dict()))
    assert bits(restored) == bits(merged)
    assert_equal(restored(), merged())


@every_patch
@few
@given(data=data(num_batches=5), stop=st.integers(1, 4))
def test_an_epoch_saved_midway_goes_on_with_the_same_bits(make: Any, data: Data, stop: int) -> None:
    def run(patch: PatchBase, batches: list[Any]) -> PatchBase:
        for batch in batches:
            patch = patch.add(make(*batch))
        return patch

    first, *rest = data.batches()
    straight = run(make(*first).copy(), rest)
    stopped = run(make(*first).copy(), rest[: stop - 1])
    state = through_a_file(stopped.state_dict())
    resumed = make(*rest[-1])
    resumed.load_state_dict(state)
    resumed = run(resumed, rest[stop - 1 :])
    assert_equal(resumed(), straight())
    assert bits(resumed) == bits(straight)


@every_patch
def test_saving_does_not_change_what_follows_nor_share_memory(make: Any) -> None:
    x, y = torch.rand(4, NUM_CLASSES), torch.tensor([0, 1, 2, 0])
    patch = make(x, y) + make(x, y)
    state = patch.state_dict()
    before = copy.deepcopy(state)
    patch.add(make(x.flip(0), y))
    assert leaves(state) == leaves(before)


@every_patch
def test_a_copy_is_independent(make: Any) -> None:
    x, y = torch.rand(4, NUM_CLASSES), torch.tensor([0, 1, 2, 0])
    patch = make(x, y) + make(x, y)
    before = bits(patch)
    patch.copy().add(make(x.flip(0), y))
    assert bits(patch) == before


@every_patch
def test_the_parts_of_an_epoch_may_be_merged_as_a_tree(make: Any) -> None:
    # Two processes, each with two tasks, each with several batches.
    x = torch.rand(40, NUM_CLASSES)
    x = x / x.sum(1, keepdim=True)
    y = torch.arange(40) % NUM_CLASSES
    batches = list(zip(x.split(5), y.split(5), strict=True))
    pairs = [make(*batches[i]) + make(*batches[i + 1]) for i in range(0, 8, 2)]
    tree = (pairs[0] + pairs[1]) + (pairs[2] + pairs[3])
    assert_equal(tree(), make(x, y)(), rtol=2e-5, atol=1e-5)


def topped(k: int) -> Callable[..., Any]:
    return lambda outputs, targets, best=True: outputs.topk(k, largest=best)[0].sum()


@pytest.mark.parametrize(
    "make_metric",
    [
        lambda: lambda outputs, targets: len(outputs),
        lambda: partial(recall, average="macro"),
        lambda: topped(2),
        lambda: LABELS.count,
    ],
)
def test_a_metric_made_anew_in_each_step_is_one_metric(make_metric: Any) -> None:
    TensorPatch(make_metric()) + TensorPatch(make_metric())


LABELS = ["a"]


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (ValuePatch(1).load(1.0), MeanPatch(accuracy, 1).load(torch.eye(2), torch.arange(2))),
        (TensorPatch(accuracy), TensorPatch(recall)),
        (MeanPatch(accuracy, 1), MeanPatch(recall, 1)),
        (ConfusionPatch(len), ConfusionPatch(trace_share)),
        (TensorPatch(partial(recall, average="macro")), TensorPatch(partial(recall))),
        (TensorPatch(topped(1)), TensorPatch(topped(2))),
        (MetricPatch(MSE), MetricPatch(PEARSON)),
        (ConfusionMetrics("f1"), ConfusionMetrics("recall")),
        (ValuePatch(1).load(1.0), ValuePatch(1).load({"a": 1.0})),
        (ValuePatch(1).load(1.0), 1),
        (ValuePatch(1).load(1.0), 0.0),
        (1, ValuePatch(1).load(1.0)),
    ],
)
def test_what_does_not_belong_together_is_not_added(one: Any, two: Any) -> None:
    with pytest.raises(TypeError, match="only patches of one class and one metric"):
        one + two
