"""How the samples of a mini-batch are counted, and which lists hold samples."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_sequence

from deepepochs.nest.operations import TensorTuple, concat
from deepepochs.nest.samples import (
    count_samples,
    guess,
    join_outputs,
    mark_lists,
    possible_counts,
)


def zeros(*shape: int) -> Tensor:
    return torch.zeros(shape)


def jagged(*lengths: int) -> Tensor:
    parts = [zeros(length, 3) for length in lengths]
    return torch.nested.nested_tensor(parts, layout=torch.jagged)


class Graphs:
    """A batch of graphs."""

    num_graphs = 4
    num_nodes = 30


class Graph:
    """One graph, whose length is its number of fields."""

    num_nodes = 9

    def __len__(self) -> int:
        return 2


class Lengthless:
    """Has a length that raises, as SciPy's sparse matrices have."""

    def __len__(self) -> int:
        raise TypeError("sparse array length is ambiguous")


class Fields(NamedTuple):
    left: Any
    right: Any


# What a mini-batch has, and its number of samples, without any doubt.
CLEAR: dict[str, tuple[Any, Any, int | None]] = {
    "a pair": ((zeros(8, 3),), zeros(8), 8),
    "no samples": ((zeros(0, 3),), zeros(0), 0),
    "a shared matrix first": ((zeros(5, 5), zeros(8, 3)), zeros(8), 8),
    "a number first": ((0.5, zeros(8, 3)), zeros(8), 8),
    "a tensor of no dimension first": ((torch.tensor(0.5), zeros(8, 3)), zeros(8), 8),
    "texts": ((["a"] * 8,), zeros(8), 8),
    "packed": ((pack_sequence([zeros(3), zeros(2), zeros(1)]),), zeros(3), 3),
    "jagged": ((jagged(4, 2, 1),), zeros(3), 3),
    "a jagged target": ((zeros(3, 2),), jagged(4, 2, 1), 3),
    "a NumPy target": ((zeros(8, 3),), np.zeros(8), 8),
    "a target of numbers": ((zeros(3, 3),), [1, 0, 2], 3),
    "a target of texts": ((zeros(2, 3),), ("cat", "dog"), 2),
    "a target of no dimension": ((zeros(8, 3),), torch.tensor(1.0), 8),
    "no target": ((zeros(8, 3),), None, 8),
    "a target of several parts": ((zeros(8, 3),), (zeros(8), zeros(8, 4)), 8),
    "parts for two samples": ((zeros(2, 3),), (zeros(2), zeros(2, 4)), 2),
    "a named target": ((zeros(8, 3),), Fields(zeros(8), zeros(8, 4)), 8),
    "a dict as target": ((zeros(8, 3),), {"name": "a", "box": zeros(8, 4)}, 8),
    "images of one size": (([zeros(3, 7, 7)] * 4,), zeros(4), 4),
    "images of several sizes": (([zeros(3, n, 7) for n in (5, 6)],), zeros(2), 2),
    "detection": (([zeros(3, 7, 7)] * 4,), [{"box": zeros(2, 4), "label": zeros(2)}] * 4, 4),
    "detection in one image": (([zeros(3, 7, 7)],), [{"box": zeros(2, 4), "label": zeros(2)}], 1),
    "a list of dicts": (({"image": zeros(3, 5, 5), "id": 1},) * 4, None, 4),
    "a list of one dict": (({"image": zeros(3, 5, 5), "id": 1},), None, 1),
    "a dict": ({"name": "a", "x": zeros(8, 3), "labels": zeros(8)}, None, 8),
    "a dict that begins with something else": (
        {"class weights": zeros(3), "x": zeros(8, 3), "labels": zeros(8)}, None, 8,
    ),
    "a dict in a tuple": (({"x": zeros(8, 3), "mask": zeros(8)},), None, 8),
    "a dict with images of several sizes": (
        {"images": [zeros(3, n, 7) for n in (5, 6)], "labels": zeros(2)}, None, 2,
    ),
    "graphs": ((Graphs(),), None, 4),
    "graphs and something else": ((zeros(7), Graphs()), None, 4),
    "a list of graphs": ((Graph(), Graph(), Graph()), None, 3),
    "one graph": ((Graph(),), None, 1),
    "one graph and labels of its nodes": ((Graph(),), (zeros(9), zeros(9)), 9),
    "an object with a length": ((range(6),), None, 6),
    "a length that raises": ((Lengthless(), zeros(8, 3)), None, 8),
    "nothing that tells": ((None, 3.5), None, None),
}  # fmt: skip


@pytest.mark.parametrize("name", CLEAR)
def test_samples_are_counted(name: str) -> None:
    batch_x, batch_y, number = CLEAR[name]
    batch_x = TensorTuple(batch_x) if type(batch_x) is tuple else batch_x
    assert guess(batch_x, batch_y) == (number, "")


DOUBTFUL: dict[str, tuple[Any, Any, int, str]] = {
    "time first": ((zeros(9, 4, 3),), zeros(4), 4, "has 4 samples, and its input has 9"),
    "labels of nodes": ((Graphs(),), zeros(30), 30, "has 30 samples, and its input has 4"),
    "inputs that differ": ((zeros(9, 4), zeros(4)), None, 9, "as 9 samples or as 4"),
    "only a list of tensors": (([zeros(3, 7, 7)] * 4,), None, 3, "as 3 samples or as 4"),
    "two dicts of parts": (({"x": zeros(8)}, {"x": zeros(8)}), None, 2, "as 2 samples or as 8"),
}


@pytest.mark.parametrize("name", DOUBTFUL)
def test_where_a_mini_batch_says_two_numbers_both_are_told(name: str) -> None:
    batch_x, batch_y, number, words = DOUBTFUL[name]
    found = guess(batch_x, batch_y)
    assert found.number == number
    assert words in found.doubt and "batch_size=" in found.doubt


def test_an_empty_list_tells_nothing() -> None:
    assert possible_counts([]) == () and count_samples(([],), []) is None


def boxes(*lengths: int) -> list[dict[str, Tensor]]:
    return [{"box": zeros(n, 4), "score": zeros(n)} for n in lengths]


@pytest.mark.parametrize(
    ("value", "num_samples", "kind"),
    [
        (boxes(3, 1), 2, list),
        (boxes(2, 2), 2, list),
        (boxes(1), 1, list),
        (tuple(boxes(3, 1)), 2, list),
        ([zeros(3, 4), zeros(1, 4)], 2, list),
        ([zeros(5, 5)] * 4, 4, list),
        ([Graph(), Graph()], 2, list),
        (("a", "b"), 2, list),
        (boxes(8, 8), 8, TensorTuple),
        ((zeros(8, 3), zeros(8)), 8, TensorTuple),
        ((zeros(2, 3), zeros(2)), 2, TensorTuple),
        ([zeros(8, 3), zeros(8, 5)], None, TensorTuple),
        ((zeros(), zeros()), 8, TensorTuple),
        ((zeros(2), None), 2, TensorTuple),
        (boxes(3, 1), None, list),
    ],
)
def test_a_list_with_an_entry_for_each_sample_is_told_from_several_outputs(
    value: Any, num_samples: int | None, kind: type
) -> None:
    assert type(mark_lists(value, num_samples)) is kind


def joined(*batches: Any, sizes: tuple[int, ...]) -> Any:
    return join_outputs([mark_lists(one, n) for one, n in zip(batches, sizes, strict=True)])


def test_lists_of_samples_are_joined_end_to_end() -> None:
    found = joined(boxes(3, 1), boxes(2, 2), boxes(1), sizes=(2, 2, 1))
    assert [len(one["box"]) for one in found] == [3, 1, 2, 2, 1]


def test_a_list_that_can_be_read_in_two_ways_is_read_as_the_others_are() -> None:
    parts = joined(tuple(boxes(3, 3)), tuple(boxes(2, 2)), sizes=(3, 2))
    assert [len(one["box"]) for one in parts] == [5, 5]
    samples = joined([zeros(3, 2), zeros(1, 2)], [zeros(2, 2), zeros(2, 2)], sizes=(2, 2))
    assert [len(one) for one in samples] == [3, 1, 2, 2]


def test_outputs_of_unequal_shapes_become_a_list_with_an_entry_for_each_sample() -> None:
    found = joined(
        {"logits": zeros(2, 5, 4), "sum": zeros(2)},
        {"logits": zeros(3, 7, 4), "sum": zeros(3)},
        sizes=(2, 3),
    )
    assert [one.shape[0] for one in found["logits"]] == [5, 5, 7, 7, 7]
    assert found["sum"].shape == (5,)


@pytest.mark.parametrize("tail", [(), (5,)])
def test_the_squeezed_output_of_a_single_sample_gets_its_dimension_back(
    tail: tuple[int, ...],
) -> None:
    whole = torch.arange(4.0 * max(sum(tail), 1)).reshape(4, *tail)
    for join in (concat, join_outputs):
        assert torch.equal(join([whole[:3], whole[3]]), whole)
        assert torch.equal(join([whole[0], whole[1:]]), whole)
