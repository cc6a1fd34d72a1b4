"""Nested batches: moving, copying, joining, cutting, counting and describing them."""

from __future__ import annotations

import collections
import pickle
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from deepepochs.errors import ConfigError, DataError
from deepepochs.legacy.nested import (
    batch_size,
    clone_value,
    compose_data,
    detach_clone,
    tensor_tuple,
    to_numpy,
)
from deepepochs.nest.operations import (
    TensorDict,
    TensorTuple,
    batches,
    concat,
    describe,
    detach,
    first_tensor,
    map_tensors,
    to_cpu,
    to_device,
)


class Graph:
    """Moves like a graph of a graph library: has `to`, is no tensor."""

    def __init__(self, device: str = "cpu", num_nodes: int = 3) -> None:
        self.device = device
        self.num_nodes = num_nodes

    def to(self, device: str) -> Graph:
        return Graph(str(device), self.num_nodes)

    def __len__(self) -> int:
        return 5  # fields, as of a graph: no number of samples


class GraphBatch(Graph):
    num_graphs = 4


class Pair(NamedTuple):
    x: Any
    y: Any


# ---- TensorTuple and TensorDict


@pytest.mark.parametrize("method", ["float", "long", "int", "clone", "detach", "cpu"])
def test_a_tensor_tuple_and_dict_apply_a_method_to_each_tensor_and_keep_their_class(
    method: str,
) -> None:
    x = torch.tensor([1.5, 2.5], requires_grad=True)
    expected = getattr(x, method)()
    as_tuple = getattr(TensorTuple([x, "text", [x]]), method)()
    as_dict = getattr(TensorDict(x=x, id="text"), method)()
    assert type(as_tuple) is TensorTuple and type(as_dict) is TensorDict
    for result in (as_tuple[0], as_tuple[2][0], as_dict["x"]):
        assert torch.equal(result, expected)
        assert result.dtype == expected.dtype and result.requires_grad == expected.requires_grad
    assert as_tuple[1] == as_dict["id"] == "text"


def test_clone_copies_and_detach_shares_memory() -> None:
    x = torch.zeros(2)
    assert TensorTuple([x]).clone()[0].data_ptr() != x.data_ptr()
    assert TensorTuple([x]).detach()[0].data_ptr() == x.data_ptr()


def test_data_gives_the_values_outside_autograd() -> None:
    x = torch.ones(2, requires_grad=True)
    assert not TensorTuple([x]).data[0].requires_grad
    assert not TensorDict(x=x).data["x"].requires_grad


def test_the_device_is_that_of_the_first_tensor_however_deep() -> None:
    assert TensorTuple(["a", {"x": torch.ones(1, device="meta")}]).device == torch.device("meta")
    assert TensorTuple(["a"]).device is None


def test_to_casts_tensors_and_moves_graphs() -> None:
    moved = TensorTuple([torch.ones(1), Graph()]).to("meta")
    assert moved[0].device.type == "meta" and moved[1].device == "meta"
    assert TensorTuple([torch.ones(1)]).to(torch.int64)[0].dtype == torch.int64


def test_a_tensor_tuple_is_a_tuple_that_can_be_pickled() -> None:
    x = TensorTuple([torch.ones(1), 2])
    again = pickle.loads(pickle.dumps(x))
    assert type(again) is TensorTuple and again == x


def test_tensor_tuple_converts_lists_and_tuples_and_nothing_else() -> None:
    result = tensor_tuple([torch.ones(1), (1, 2), {"a": [1]}])
    assert type(result) is TensorTuple and type(result[1]) is TensorTuple
    assert type(result[2]) is dict and type(result[2]["a"]) is list
    assert tensor_tuple("text") == "text"


def test_compose_data_converts_dicts_too_at_every_depth() -> None:
    result = compose_data([{"a": [{"b": 1}]}])
    assert type(result) is TensorTuple and type(result[0]) is TensorDict
    assert type(result[0]["a"]) is TensorTuple and type(result[0]["a"][0]) is TensorDict


# ---- moving


def test_to_device_moves_whatever_has_a_to_method() -> None:
    packed = pack_sequence([torch.ones(2), torch.ones(1)])
    x, graph, (inner,), text, number, none, kind, moved = to_device(
        [torch.ones(1), Graph(), (torch.ones(1),), "id", 3, None, Tensor, packed], "meta"
    )
    assert x.device.type == inner.device.type == "meta" and graph.device == "meta"
    assert (text, number, none, kind) == ("id", 3, None, Tensor)
    assert isinstance(moved, PackedSequence) and moved.data.device.type == "meta"


@pytest.mark.parametrize("non_blocking", [False, True])
def test_to_device_makes_sequences_tensor_tuples_and_keeps_the_classes_of_dicts(
    non_blocking: bool,
) -> None:
    counts = collections.defaultdict(list, {"x": [torch.ones(1)]})
    result = to_device(
        [({"x": torch.ones(1)},), TensorDict(x=torch.ones(1)), counts],
        "meta",
        non_blocking=non_blocking,
    )
    assert type(result) is TensorTuple and type(result[0]) is TensorTuple
    assert type(result[0][0]) is dict and type(result[1]) is TensorDict
    assert type(result[2]) is collections.defaultdict and result[2].default_factory is list
    assert result[2]["x"].device.type == "meta"
    assert counts["x"][0].device.type == "cpu", "the argument must not be altered"


def test_to_device_keeps_a_named_tuple() -> None:
    moved = to_device(Pair(torch.ones(1), "y"), "meta")
    assert type(moved) is Pair and moved.x.device.type == "meta"


class Encoding(dict[str, Any]):
    """Moves itself, as the output of a tokenizer does."""

    moved_to = "cpu"

    def to(self, device: str) -> Encoding:
        moved = Encoding(self)
        moved.moved_to = device
        return moved


def test_a_dict_that_can_move_itself_does() -> None:
    moved = to_device([Encoding(x="text")], "meta")[0]
    assert type(moved) is Encoding and moved.moved_to == "meta"


def test_only_the_data_of_a_packed_sequence_is_mapped_and_moved() -> None:
    packed = pack_sequence([torch.ones(2, requires_grad=True), torch.ones(1)])
    detached = detach([packed])[0]
    assert packed.data.requires_grad and not detached.data.requires_grad
    assert torch.equal(detached.batch_sizes, packed.batch_sizes)
    moved = TensorTuple([packed]).to("meta")[0]
    assert moved.data.device.type == "meta" and moved.batch_sizes.device.type == "cpu"
    assert TensorTuple([packed]).long()[0].data.dtype == torch.int64


def test_to_device_gives_a_tensor_that_is_there_already_itself() -> None:
    x = torch.ones(1)
    assert to_device(x, "cpu") is x and to_device((x,), torch.device("cpu"))[0] is x


# ---- copying


def test_detach_cuts_autograd_without_a_copy() -> None:
    x = torch.ones(2, requires_grad=True)
    for result in (detach(x), detach([x])[0], detach({"x": (x,)})["x"][0]):
        assert not result.requires_grad and result.data_ptr() == x.data_ptr()


def test_detach_clone_cuts_autograd_with_a_copy() -> None:
    x = torch.ones(2, requires_grad=True)
    result = detach_clone({"x": [x], "n": 1})
    assert not result["x"][0].requires_grad and result["x"][0].data_ptr() != x.data_ptr()
    assert result["n"] == 1


def test_clone_value_copies_all_and_keeps_tensors_in_autograd() -> None:
    x = torch.ones(2, requires_grad=True) * 2
    value = {"x": [x], "array": np.ones(2), "n": 1, "pair": (1, [2])}
    copied = clone_value(value)
    copied["array"][0] = 7
    copied["pair"][1].append(3)
    assert copied["x"][0].requires_grad and copied["x"][0].data_ptr() != x.data_ptr()
    assert value["array"][0] == 1 and value["pair"] == (1, [2]) and copied["n"] == 1


def test_to_cpu_keeps_containers() -> None:
    x = torch.ones(1)
    result = to_cpu({"x": [x]})
    assert type(result["x"]) is list and result["x"][0].device.type == "cpu"


def test_to_numpy_takes_what_numpy_itself_refuses() -> None:
    result = to_numpy(
        {"grad": torch.ones(2, requires_grad=True), "half": [torch.ones(1).bfloat16()], "n": 1}
    )
    assert isinstance(result["grad"], np.ndarray) and result["half"][0].dtype == np.float32
    assert result["n"] == 1


def test_map_tensors_keeps_every_container_and_passes_the_rest() -> None:
    value = [(torch.ones(1), 1), Pair(torch.ones(1), "y"), {"k": TensorTuple([torch.ones(1)])}]
    result = map_tensors(lambda t: t + 1, value)
    assert repr(result) == repr(
        [(torch.tensor([2.0]), 1), Pair(torch.tensor([2.0]), "y"), {"k": (torch.tensor([2.0]),)}]
    )
    assert type(result[2]["k"]) is TensorTuple


def test_first_tensor_is_found_depth_first() -> None:
    a, b = torch.zeros(1), torch.ones(1)
    assert first_tensor([1, {"x": [a]}, b]) is a
    assert first_tensor([1, {"x": []}]) is None


# ---- joining and cutting


def test_concat_joins_along_dimension_0_and_stacks_scalars() -> None:
    assert concat([torch.zeros(2, 3), torch.zeros(1, 3)]).shape == (3, 3)
    assert concat([torch.tensor(1.0), torch.tensor(2.0)]).tolist() == [1.0, 2.0]
    assert concat([1, 2]).tolist() == [1, 2]
    assert concat([np.zeros((2, 3)), np.zeros((1, 3))]).shape == (3, 3)
    assert concat([np.float64(1), np.float64(2)]).tolist() == [1, 2]


def test_concat_joins_tuples_item_by_item_and_dicts_key_by_key() -> None:
    joined = concat(
        [[torch.zeros(2), {"m": torch.tensor(1)}], [torch.ones(1), {"m": torch.tensor(2)}]]
    )
    assert type(joined) is TensorTuple and joined[0].tolist() == [0, 0, 1]
    assert joined[1]["m"].tolist() == [1, 2] and type(joined[1]) is dict
    assert type(concat([TensorDict(x=torch.ones(1))])) is TensorDict


def test_concat_leaves_nones_and_chains_lists_of_texts() -> None:
    assert concat([None, None]) == [None, None]
    assert concat([["a", "b"], ["c"]]) == ["a", "b", "c"]
    assert concat(["a", "b"]) == ["a", "b"]


def test_concat_keeps_autograd() -> None:
    assert concat([torch.ones(1, requires_grad=True), torch.ones(1)]).requires_grad


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "empty list"),
        ([torch.ones(2, 3), torch.ones(2, 4)], r"\[2, 3\], \[2, 4\]"),
        ([torch.ones(3), torch.ones(2, 2)], r"\[3\], \[2, 2\]"),
        ([torch.ones(()), torch.ones(2, 2)], r"\[\], \[2, 2\]"),
        ([torch.ones(1), None], "a tensor .1., None"),
        ([{"a": torch.ones(1)}, {"b": torch.ones(1)}], "keys 'a'"),
        ([(torch.ones(1),), (torch.ones(1), torch.ones(1))], "a tuple of 1 tensor"),
        ([Graph(), Graph()], "a Graph"),
        ([1, None], "an int, None"),
    ],
)
def test_concat_refuses_what_does_not_fit_together(values: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        concat(values)


@given(st.integers(0, 12), st.integers(1, 5))
def test_the_slices_of_batches_joined_again_are_the_input(length: int, size: int) -> None:
    x, y = torch.arange(length), torch.rand(length, 2)
    slices = list(batches([x, y], size))
    assert all(type(s) is TensorTuple and 1 <= len(s[0]) <= size for s in slices)
    assert all(len(s[0]) == size for s in slices[:-1])
    if length:
        joined = concat(slices)
        assert torch.equal(joined[0], x) and torch.equal(joined[1], y)
    else:
        assert slices == []


def test_batches_of_a_single_tensor_are_tensors() -> None:
    assert [s.tolist() for s in batches(torch.arange(5), 2)] == [[0, 1], [2, 3], [4]]


def test_batches_refuses_bad_arguments_at_the_call() -> None:
    with pytest.raises(ConfigError, match="batch_size=0"):
        batches(torch.ones(2), 0)
    with pytest.raises(DataError, match=r"\[2, 3\]"):
        batches([torch.ones(2), torch.ones(3)], 1)
    with pytest.raises(DataError, match=r"\[\]"):
        batches([], 1)


# ---- counting


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (torch.zeros(8, 3), 8),
        (torch.zeros(1, 3), 1),
        (torch.tensor(3.0), 1),
        ((torch.zeros(8, 3), torch.zeros(4)), 8),
        ([(torch.zeros(6),)], 6),
        ({"id": 1, "x": torch.zeros(5, 2), "y": torch.zeros(3)}, 5),
        ({"meta": {"x": torch.zeros(7)}}, 7),
        ({"text": ["a", "b", "c"]}, 3),
        (["a text", "another", "third"], 3),
        ((["a text", "another"],), 2),
        (np.zeros((9, 2)), 9),
        (pack_sequence([torch.ones(2), torch.ones(1), torch.ones(1)]), 3),
        (GraphBatch(), 4),
        (Graph(), 1),
        ((Graph(), torch.zeros(9)), 1),
        (range(6), 6),
        ("a text", 1),
        (None, 1),
        ((), 1),
        ({}, 1),
        (3.5, 1),
    ],
)
def test_batch_size_counts_samples(data: Any, expected: int) -> None:
    assert batch_size(data) == expected


def test_batch_size_can_count_another_dimension() -> None:
    assert batch_size(torch.zeros(8, 3), batch_dim=1) == 3
    assert batch_size(torch.zeros(8), batch_dim=1) == 1


# ---- describing


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (torch.zeros(2, 3), "a tensor [2, 3]"),
        (torch.tensor(1), "a tensor []"),
        (np.zeros(2), "an array [2]"),
        ((torch.zeros(32, 1, 28, 28),), "a tuple of 1 tensor [32, 1, 28, 28]"),
        ([torch.zeros(2), torch.zeros(3)], "a list of 2 tensors [2], [3]"),
        ((torch.zeros(2), "a"), "a tuple of 2 items: a tensor [2], a str"),
        ([1] * 7, "a list of 7 int"),
        ([1, "a"] * 4, "a list of 8 items: an int, a str, an int, a str, an int and 3 more"),
        ({"x": torch.zeros(2), "y": None}, "a dict with keys 'x' (a tensor [2]), 'y' (None)"),
        ({}, "an empty dict"),
        ((), "an empty tuple"),
        (Graph(), "a Graph"),
    ],
)
def test_describe_says_briefly_what_a_value_is(value: Any, expected: str) -> None:
    assert describe(value) == expected
