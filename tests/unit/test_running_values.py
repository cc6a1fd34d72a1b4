"""The values of a pass so far: exact, each output looked at once, and cheap."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from deepepochs.errors import ArgumentsChanged
from deepepochs.metrics import accuracy
from deepepochs.nest.operations import TensorTuple
from deepepochs.patches import (
    ConfusionPatch,
    MeanPatch,
    PatchBase,
    TensorPatch,
    ValuePatch,
    running,
)
from deepepochs.patches.plan import make_patch
from deepepochs.patches.running import RunningValues
from deepepochs.patches.totals import PassPatches
from deepepochs.show.screens import UNDEFINED


@pytest.fixture(autouse=True)
def always_due(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "REST", 0)


def share(preds: Tensor, targets: Tensor) -> Tensor:
    return (preds.argmax(1) == targets).float().mean()


def batches(*sizes: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.randn(n, 3, generator=generator), torch.randint(3, (n,), generator=generator))
        for n in sizes
    ]


SIZES = (4, 1, 7, 3, 5, 2)


class Calls:
    """A metric that keeps what it is called with."""

    def __init__(self, metric: Callable[..., Any] = share) -> None:
        self.metric = metric
        self.given: list[int] = []

    def function(self) -> Callable[..., Any]:
        def counted(preds: Any, targets: Any) -> Any:
            self.given.append(len(preds))
            return self.metric(preds, targets)

        return counted


def reads(patch: PatchBase, data: list[Any], *, every: int = 1, weigh: bool = True) -> list[Any]:
    """The values that are read while mini-batches are added to a patch, every so many."""
    values, line = [], RunningValues()
    for index, (preds, targets) in enumerate(data):
        later = patch.copy()
        if weigh and isinstance(later, ValuePatch):
            later.batch_size = len(preds)
        patch = later.load(preds, targets) if not index else patch.add(later.load(preds, targets))
        if index % every == every - 1:
            values.append(line.read(PassPatches({"m": patch}))["m"])
    return values


@pytest.mark.parametrize("every", [1, 2, 3])
@pytest.mark.parametrize("kind", ["tensor", "mean", "own class", "counts"])
def test_a_mean_over_samples_is_exact(kind: str, every: int) -> None:
    class Own(TensorPatch):
        """With nothing of its own."""

    patch: Any = {
        "tensor": lambda: TensorPatch(share),
        "mean": lambda: MeanPatch(share, 1),
        "own class": lambda: Own(share),
        "counts": lambda: make_patch(accuracy, "auto")(1),
    }[kind]()
    data = batches(*SIZES)
    ends = range(every, len(data) + 1, every)
    expected = [share(*map(torch.cat, zip(*data[:end], strict=True))).item() for end in ends]
    assert reads(patch, data, every=every) == pytest.approx(expected)


def test_each_output_is_looked_at_once() -> None:
    calls = Calls()
    reads(TensorPatch(calls.function()), batches(*SIZES), every=2)
    assert calls.given == [5, 10, 7]


def test_nothing_new_costs_nothing() -> None:
    calls, line = Calls(), RunningValues()
    patches = PassPatches({"m": TensorPatch(calls.function()).load(*batches(4)[0])})
    assert line.read(patches) == line.read(patches) and calls.given == [4]


@pytest.mark.parametrize("joined", [0, 1, 2, 3])
def test_chunks_that_are_joined_in_between_are_told_apart_by_their_rows(joined: int) -> None:
    """As on an accelerator, or when a checkpoint is written."""
    calls, line = Calls(), RunningValues()
    metric, data = calls.function(), batches(*SIZES)
    patch = TensorPatch(metric)
    for index, batch in enumerate(data):
        patch.add(TensorPatch(metric).load(*batch))
        if index % 2:
            if index // 2 == joined:
                patch.arguments()
            found = line.read(PassPatches({"m": patch}))["m"]
            whole = [torch.cat(part) for part in zip(*data[: index + 1], strict=True)]
            assert found == pytest.approx(share(*whole).item())
    assert calls.given == [5, 10, 7]


def test_several_outputs_and_dicts_are_split_alike() -> None:
    def both(outputs: Any, targets: Any) -> dict[str, Tensor]:
        return {".one": outputs[0].mean(), ".two": outputs[1]["x"].mean() + targets["y"].mean()}

    patch, line = TensorPatch(both), RunningValues()
    seen = []
    for n in (2, 3, 4):
        outputs = TensorTuple([torch.full((n, 1), float(n)), {"x": torch.ones(n)}])
        patch.add(TensorPatch(both).load(outputs, {"y": torch.full((n,), float(n))}))
        if n > 2:
            patch.arguments()
        seen.append(line.read(PassPatches({"m": patch})))
    assert seen[0] == {"m.one": 2.0, "m.two": 3.0}
    assert seen[2] == {"m.one": pytest.approx(29 / 9), "m.two": pytest.approx(1 + 29 / 9)}


def test_rows_that_cannot_be_told_apart_are_passed_over() -> None:
    """Outputs of one length and others of another one, joined before they were looked at."""

    def first(outputs: Any, targets: Any) -> Tensor:
        return outputs[0].mean()

    patch, line = TensorPatch(first), RunningValues()
    for value in (1.0, 2.0):
        outputs = TensorTuple([torch.full((4,), value), torch.ones(9)])
        patch.add(TensorPatch(first).load(outputs, torch.ones(4)))
        if value == 2.0:
            patch.arguments()
        found = line.read(PassPatches({"m": patch}))
    assert found == {"m": 1.0}
    assert patch() == 1.5


def test_lists_of_samples_and_graphs_are_looked_at_as_they_are() -> None:
    class Graph:
        nodes = 3

    def count(outputs: Any, targets: Any) -> float:
        return float(len(outputs))

    line, patch = RunningValues(), TensorPatch(count)
    for _ in range(3):
        patch.add(TensorPatch(count).load([torch.ones(2), torch.ones(5)], [torch.ones(1)] * 2))
        assert line.read(PassPatches({"m": patch})) == {"m": 2.0}
    graphs = TensorPatch(count).load(Graph(), torch.ones(1))
    assert RunningValues().read(PassPatches({"g": graphs})) == {"g": 1.0}


def test_vectors_are_averaged_entry_by_entry_without_those_that_are_nan() -> None:
    def recall(preds: Tensor, targets: Tensor) -> Tensor:
        hits = [(preds.argmax(1) == targets)[targets == c].float().mean() for c in range(2)]
        return torch.stack(hits)

    right = torch.eye(2)
    data = [(right, torch.tensor([0, 1])), (right[:1], torch.tensor([0])), (right, torch.ones(2))]
    first, second, third = reads(TensorPatch(recall), data)
    assert first.tolist() == second.tolist() == [1.0, 1.0]
    assert third == pytest.approx([1.0, 0.75])
    assert np.isnan(reads(TensorPatch(lambda p, t: p.sum() * float("nan")), data)).all()


def test_a_piece_without_a_value_is_left_out() -> None:
    def two(preds: Tensor, targets: Tensor) -> float:
        if len(preds) < 2:
            raise ValueError("too few")
        return float(len(preds))

    values = reads(TensorPatch(two), batches(1, 4, 1))
    assert values[0] is UNDEFINED and values[1:] == [4.0, 4.0]


def test_a_metric_that_changes_its_arguments_ends_the_run_unless_it_has_copies() -> None:
    def sly(preds: Tensor, targets: Tensor) -> Tensor:
        return preds.sub_(1.0).mean()

    patch = TensorPatch(sly).load(torch.ones(2), torch.ones(2))
    with pytest.raises(ArgumentsChanged):
        RunningValues().read(PassPatches({"m": patch}))
    copying = TensorPatch(sly).load(torch.ones(2), torch.ones(2)).use_copies()
    assert RunningValues().read(PassPatches({"m": copying})) == {"m": 0.0}
    assert copying.outputs.items[0].tolist() == [1.0, 1.0]


class Longest(PatchBase):
    """A patch of a user, which changes when it is read."""

    def load(self, outputs: Any, targets: Any = None) -> Any:
        self.lengths = torch.tensor([float(len(outputs))])
        self.num_read = 0
        return self

    def add(self, other: Any) -> Any:
        self.lengths = torch.cat([self.lengths, other.lengths])
        return self

    def forward(self) -> Any:
        self.num_read += 1
        return self.lengths.max()


def test_a_patch_of_any_class_is_read_on_a_copy_while_it_is_small(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    patch, line = Longest().load([1, 2]), RunningValues()
    for length in (1, 5, 3):
        patch.add(Longest().load([0] * length))
        line.read(PassPatches({"m": patch}))
    assert line.read(PassPatches({"m": patch})) == {"m": 5.0} and patch.num_read == 0
    monkeypatch.setattr(running, "MOST_NUMBERS", 6)  # four lengths, a count and a name
    assert line.read(PassPatches({"m": patch})) == {"m": 5.0}
    patch.add(Longest().load([0]))
    assert line.read(PassPatches({"m": patch}))["m"] is UNDEFINED


def test_torchmetrics_objects_are_exact_while_they_are_small(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from torchmetrics.classification import BinaryAUROC, MulticlassAccuracy

    data = batches(*SIZES)
    ends = range(1, len(data) + 1)
    counted = make_patch(MulticlassAccuracy(3, average="micro"), "auto")(1)
    expected = [share(*map(torch.cat, zip(*data[:end], strict=True))).item() for end in ends]
    assert reads(counted, data) == pytest.approx(expected)

    pairs = [(preds[:, 0].sigmoid(), (targets > 1).long()) for preds, targets in data]
    kept = make_patch(BinaryAUROC(), "auto")(1)  # keeps all outputs
    values = reads(kept, pairs)
    exact = BinaryAUROC()(*map(torch.cat, zip(*pairs, strict=True))).item()
    assert values[-1] == pytest.approx(exact)
    monkeypatch.setattr(running, "MOST_NUMBERS", 20)
    assert reads(make_patch(BinaryAUROC(), "auto")(1), pairs)[-1] is UNDEFINED


def test_a_slow_metric_rests_and_passes_over_what_comes_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    monkeypatch.setattr(running, "REST", 50)
    monkeypatch.setattr(running, "perf_counter", lambda: now[0])

    def slow(preds: Tensor, targets: Tensor) -> Tensor:
        now[0] += 0.1  # a hundredth of what it may take, were it not for the rest
        return share(preds, targets)

    calls, line, times = Calls(slow), RunningValues(), []
    metric = calls.function()
    patch = TensorPatch(metric)
    for batch in batches(*[2] * 120):
        patch.add(TensorPatch(metric).load(*batch))
        num = len(calls.given)
        value = line.read(PassPatches({"m": patch}))["m"]
        assert 0 <= value <= 1
        times += [now[0]] * (len(calls.given) - num)
        now[0] += 0.1
    # The first look may have been slow by chance: the second one follows at once.
    assert len(calls.given) == 4 and set(calls.given) == {2}
    assert times[2] - times[1] > 5.0


def test_reading_a_confusion_matrix_or_a_mean_leaves_it_as_it_is() -> None:
    matrices = ConfusionPatch(lambda matrix: matrix.trace() / matrix.sum())
    data = batches(*SIZES)
    assert reads(matrices, data)[-1] == pytest.approx(
        share(*map(torch.cat, zip(*data, strict=True))).item()
    )
    loss = ValuePatch(2).load(torch.tensor(1.5))
    assert RunningValues().read(PassPatches({"loss": loss})) == {"loss": 1.5}
    assert (loss.total, loss.weight) == (3.0, 2)
