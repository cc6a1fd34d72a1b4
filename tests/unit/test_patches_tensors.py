"""TensorPatch keeps everything and joins it once; ConfusionPatch keeps a matrix."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor

from deepepochs.errors import ConfigError, ConfigTypeError, MetricError, PatchError
from deepepochs.metrics import accuracy, confusion_matrix, f1, fbeta, precision, recall
from deepepochs.nest.operations import TensorTuple
from deepepochs.patches import ConfusionMetrics, ConfusionPatch, TensorPatch, tensors


def seen(*batches: tuple[Any, Any]) -> tuple[Any, Any]:
    """What the metric of an epoch of these batches is given."""
    found: list[tuple[Any, Any]] = []

    def metric(outputs: Any, targets: Any) -> float:
        found.append((outputs, targets))
        return 0.0

    sum(TensorPatch(metric).load(*batch) for batch in batches)()
    return found[0]


def test_outputs_and_targets_are_joined_in_order() -> None:
    outputs, targets = seen(
        (torch.ones(2, 3), torch.tensor([1, 2])), (torch.zeros(1, 3), torch.tensor([3]))
    )
    assert outputs.tolist() == [[1.0] * 3] * 2 + [[0.0] * 3]
    assert targets.tolist() == [1, 2, 3]


def test_missing_targets_reach_the_metric_as_none() -> None:
    assert seen((torch.ones(2), None), (torch.ones(1), None))[1] is None
    assert seen((torch.ones(2), None))[1] is None


def test_outputs_of_no_dimension_are_stacked() -> None:
    outputs, targets = seen((torch.tensor(1.0), 3), (torch.tensor(2.0), 4), (torch.ones(()), 5))
    assert outputs.tolist() == [1.0, 2.0, 1.0]
    assert targets.tolist() == [3, 4, 5]


def test_outputs_of_no_dimension_may_be_read_between() -> None:
    total = TensorPatch(lambda outputs, targets: outputs.sum()).load(torch.tensor(1.0))
    values = [total()]
    for value in (2.0, 3.0):
        total = total.add(TensorPatch(total.metric).load(torch.tensor(value)))
        values.append(total())
    assert values == [1.0, 3.0, 6.0]
    assert seen((torch.tensor(1.0), None))[0].shape == (1,)


def test_tuples_lists_and_dicts_are_joined_item_by_item() -> None:
    batch = ((torch.ones(2, 1), [torch.ones(2)]), {"y": torch.ones(2), "z": (torch.zeros(2),)})
    outputs, targets = seen(batch, batch)
    assert isinstance(outputs, TensorTuple)
    assert (outputs[0].shape, outputs[1][0].shape) == ((4, 1), (4,))
    assert (targets["y"].shape, targets["z"][0].shape) == ((4,), (4,))


def test_what_differs_in_shape_reaches_the_metric_as_a_list_of_batches() -> None:
    outputs, targets = seen(
        (torch.ones(2, 3), (torch.ones(2), torch.ones(2, 5))),
        (torch.ones(2, 4), (torch.ones(2), torch.ones(2, 6))),
    )
    assert [list(chunk.shape) for chunk in outputs] == [[2, 3], [2, 4]]
    assert targets[0].shape == (4,)
    assert [list(chunk.shape) for chunk in targets[1]] == [[2, 5], [2, 6]]


class Graph:
    def __init__(self, x: Tensor) -> None:
        self.x = x


def test_graphs_reach_the_metric_as_a_list_of_batches_even_if_there_is_one() -> None:
    graphs = [Graph(torch.ones(1)), Graph(torch.ones(1))]
    assert seen((graphs[0], graphs[0]), (graphs[1], graphs[1])) == (graphs, graphs)
    assert seen((graphs[0], None))[0] == graphs[:1]


def test_a_graph_of_torch_geometric_is_kept_without_autograd_and_left_as_it_was() -> None:
    geometric = pytest.importorskip("torch_geometric.data")
    graph = geometric.Data(x=torch.ones(2, requires_grad=True) * 2)
    outputs, _ = seen((graph, None))
    assert graph.x.requires_grad
    assert not outputs[0].x.requires_grad


def test_texts_are_chained() -> None:
    assert seen((["a", "b"], ["x", "y"]), (["c"], ["z"])) == (["a", "b", "c"], ["x", "y", "z"])


def test_nothing_is_kept_of_the_autograd_graph() -> None:
    weight = torch.ones(2, requires_grad=True)
    patch = TensorPatch(accuracy).load((weight * 2, {"a": weight * 3}), weight * 4)
    assert not patch.outputs.items[0][0].requires_grad
    assert not patch.outputs.items[0][1]["a"].requires_grad
    assert not patch.targets.items[0].requires_grad


def work(monkeypatch: pytest.MonkeyPatch, num_batches: int) -> tuple[int, int]:
    """Elements copied by joining, and calls that join, in an epoch read twice."""
    copied: list[int] = []

    def counting_concat(chunks: list[Tensor]) -> Tensor:
        copied.append(sum(map(len, chunks)))
        return torch.cat(chunks)

    monkeypatch.setattr(tensors, "concat", counting_concat)
    total = None
    for _ in range(num_batches):
        patch = TensorPatch(accuracy).load(torch.ones(4, 2), torch.zeros(4))
        total = patch.copy() if total is None else total.add(patch)
    assert total is not None
    assert total() == total() == 1.0
    return sum(copied), len(copied)


def test_the_cost_of_an_epoch_is_linear_in_its_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    assert work(monkeypatch, 50) == (2 * 4 * 50, 2)  # outputs and targets, once each
    assert work(monkeypatch, 800) == (2 * 4 * 800, 2)


def test_merging_in_place_does_not_make_new_lists() -> None:
    total = TensorPatch(accuracy).load(torch.ones(4, 2), torch.zeros(4))
    chunks = total.outputs.items
    for _ in range(10):
        assert total.add(TensorPatch(accuracy).load(torch.ones(4, 2), torch.zeros(4))) is total
    assert total.outputs.items is chunks


def test_the_parts_are_let_go_once_they_are_joined() -> None:
    total = sum(TensorPatch(accuracy).load(torch.ones(4, 2), torch.zeros(4)) for _ in range(5))
    total()
    assert [len(chunk) for chunk in total.outputs.items] == [20]
    total = total.add(TensorPatch(accuracy).load(torch.ones(4, 2), torch.ones(4)))
    assert total() == pytest.approx(20 / 24)


@pytest.fixture
def everything_is_away(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Takes the CPU for an accelerator, and counts the copies from there."""
    copies: list[int] = []

    def to_cpu(chunk: Any) -> Any:
        copies.append(len(chunk))
        return chunk

    monkeypatch.setattr(tensors, "_any_on_accelerator", lambda chunks: True)
    monkeypatch.setattr(tensors, "_is_on_accelerator", lambda chunk: chunk is not None)
    monkeypatch.setattr(tensors, "to_cpu", to_cpu)
    return copies


def test_chunks_of_an_accelerator_are_copied_in_bulk(everything_is_away: list[int]) -> None:
    total = TensorPatch(accuracy).load(torch.ones(2, 2), torch.zeros(2))
    for _ in range(200):
        total = total.add(TensorPatch(accuracy).load(torch.ones(2, 2), torch.zeros(2)))
    assert everything_is_away == [2 * tensors.MOVE_EVERY] * 6  # outputs and targets, three times
    assert total() == 1.0
    assert sum(everything_is_away) == 2 * 2 * 201


@pytest.mark.parametrize(
    ("chunks", "is_away"),
    [
        ([torch.ones(1), torch.ones(1)], False),
        ([torch.ones(1), torch.ones(1, device="meta")], True),
        ([None, {"x": torch.ones(1, device="meta")}], True),
        ([None, "text"], False),
    ],
)
def test_one_chunk_of_an_accelerator_is_seen(chunks: list[Any], is_away: bool) -> None:
    assert tensors._any_on_accelerator(chunks) is is_away


def test_keeping_is_adding() -> None:
    added, kept = (TensorPatch(accuracy).load(torch.ones(1, 2), torch.zeros(1)) for _ in "ab")
    for number in range(2 * tensors.MOVE_EVERY + 3):
        outputs, targets = torch.eye(2), torch.tensor([0, number % 2])
        added = added.add(TensorPatch(accuracy).load(outputs, targets))
        kept.keep(tensors.as_chunk(outputs), tensors.as_chunk(targets))
        if number in (5, tensors.MOVE_EVERY + 5):
            assert kept() == added()
    copied = kept.copy()
    copied.keep(torch.eye(2), torch.tensor([1, 0]))
    assert kept() == added()
    assert copied() < kept()
    assert torch.equal(kept.outputs.joined(False), added.outputs.joined(False))
    assert torch.equal(kept.targets.joined(False), added.targets.joined(False))


def test_chunks_stay_on_the_accelerator_if_asked(everything_is_away: list[int]) -> None:
    class Staying(TensorPatch):
        keep_on_device = True

    total = Staying(accuracy).load(torch.ones(2, 2), torch.zeros(2))
    for _ in range(200):
        total = total.add(Staying(accuracy).load(torch.ones(2, 2), torch.zeros(2)))
    assert total() == 1.0
    assert everything_is_away == []


def test_outputs_that_a_checkpoint_cannot_hold_are_told() -> None:
    with pytest.raises(PatchError, match=r"outputs holds a Graph"):
        TensorPatch(accuracy).load(Graph(torch.ones(1))).state_dict()


@pytest.mark.parametrize("patch", [TensorPatch(accuracy), ConfusionPatch(len), ConfusionMetrics()])
def test_a_patch_without_data_says_so(patch: Any) -> None:
    with pytest.raises(PatchError, match="holds no data: call load"):
        patch()


@pytest.mark.parametrize("patch_class", [TensorPatch, ConfusionPatch])
def test_a_metric_that_cannot_be_called_is_refused(patch_class: Any) -> None:
    with pytest.raises(ConfigTypeError, match="a str as metric"):
        patch_class("accuracy")


# ---- confusion matrices


def labelled(num: int, num_classes: int) -> tuple[Tensor, Tensor]:
    return torch.rand(num, num_classes), torch.randint(num_classes, (num,))


def test_the_metric_is_given_the_summed_matrix_alone() -> None:
    x, y = labelled(30, 4)
    patches = [
        ConfusionPatch(lambda matrix: matrix).load(*batch)
        for batch in zip(x.split(7), y.split(7), strict=True)
    ]
    matrix = sum(patches)()
    assert torch.equal(matrix, confusion_matrix(x, y))
    assert matrix.dtype is torch.int64


def test_a_metric_that_changes_its_matrix_does_not_change_the_sum() -> None:
    def spoiled(matrix: Tensor) -> int:
        return int(matrix.zero_().sum())

    patch = ConfusionPatch(spoiled).load(*labelled(5, 2))
    patch()
    assert patch.matrix is not None
    assert patch.matrix.sum() == 5


def test_a_smaller_matrix_is_padded() -> None:
    ids = [torch.tensor([0, 1, 1]), torch.tensor([0, 3]), torch.tensor([2, 2])]
    parts = [ConfusionPatch(lambda matrix: matrix).load(i, i) for i in ids]
    assert sum(parts)().diagonal().tolist() == [2, 2, 2, 1]
    assert sum(reversed(parts))().diagonal().tolist() == [2, 2, 2, 1]


def test_memory_does_not_grow_with_the_number_of_batches() -> None:
    total = ConfusionPatch(len).load(*labelled(8, 3))
    for _ in range(100):
        total = total.add(ConfusionPatch(len).load(*labelled(8, 3)))
    held = [value for value in vars(total).values() if isinstance(value, Tensor)]
    assert [tensor.numel() for tensor in held] == [9]


def test_the_first_of_several_outputs_counts() -> None:
    x, y = labelled(9, 3)
    one = ConfusionPatch(lambda matrix: matrix).load((x, x * 2), [y])
    assert torch.equal(one(), confusion_matrix(x, y))


def test_a_matrix_without_targets_is_refused() -> None:
    with pytest.raises(MetricError, match="no targets"):
        ConfusionMetrics().load(torch.rand(3, 2), None)


@pytest.mark.parametrize("average", ["micro", "macro", "weighted"])
def test_the_built_in_metrics_are_those_of_the_metrics_module(average: str) -> None:
    x, y = labelled(50, 5)
    patches = [
        ConfusionMetrics(average=average, beta=2.0).load(*batch)
        for batch in zip(x.split(9), y.split(9), strict=True)
    ]
    total = sum(patches)
    wanted = {
        "acc": accuracy(x, y),
        "p": precision(x, y, average=average),
        "r": recall(x, y, average=average),
        "f1": f1(x, y, average=average),
        "fb": fbeta(x, y, beta=2.0, average=average),
    }
    assert list(total()) == list(wanted)
    assert {key: float(v) for key, v in total().items()} == pytest.approx(
        {key: float(v) for key, v in wanted.items()}
    )
    assert total.f1() == total()["f1"]
    assert total.name == "C."


def test_the_metrics_come_in_the_order_asked_for() -> None:
    assert list(ConfusionMetrics(["recall", "accuracy"]).load(*labelled(5, 2))()) == ["r", "acc"]
    assert list(ConfusionMetrics("f1").load(*labelled(5, 2))()) == ["f1"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"metrics": ["acc"]}, "metrics 'acc': choose from 'accuracy'"),
        ({"average": "samples"}, "average 'samples': choose from None, 'micro'"),
        ({"beta": 0}, "beta=0"),
        ({"beta": -1.0}, "beta=-1.0"),
        ({"beta": "2"}, "beta='2'"),
    ],
)
def test_settings_that_cannot_be_right_are_refused(settings: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ConfusionMetrics(**settings)


def test_the_order_of_batches_does_not_matter_for_a_matrix() -> None:
    x, y = labelled(40, 3)
    parts = [
        ConfusionPatch(lambda matrix: matrix).load(*batch)
        for batch in zip(x.split(3), y.split(3), strict=True)
    ]
    whole = sum(parts)()
    random.shuffle(parts)
    assert torch.equal(sum(parts)(), whole)
