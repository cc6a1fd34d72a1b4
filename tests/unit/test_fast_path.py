"""The tensor fast path gives what the loader gives: batches, random states, errors."""

from __future__ import annotations

import cProfile
import itertools
import pstats
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    random_split,
)
from torch.utils.data._utils import collate as torch_collate

from deepepochs.data.cursor import Cursor
from deepepochs.data.fast_path import tensor_fetch

NUM = 13


def table() -> TensorDataset:
    return TensorDataset(
        torch.arange(NUM * 6.0).reshape(NUM, 2, 3), torch.arange(NUM), torch.arange(NUM) % 2 == 0
    )


def split() -> Subset:
    return random_split(table(), [NUM - 3, 3], generator=torch.Generator().manual_seed(1))[0]


class OneByOne:
    """A sampler that draws as it is asked, from torch, NumPy and Python."""

    def __init__(self, dataset: Any) -> None:
        self.num = len(dataset)

    def __iter__(self) -> Iterator[int]:
        for turn in range(self.num):
            draw = (torch.randint(self.num, ()), np.random.randint(self.num), random.random())
            yield int(draw[turn % 2]) if turn % 3 else int(draw[2] * self.num)

    def __len__(self) -> int:
        return self.num


class OwnBatches:
    """A batch sampler of tensors, tuples, arrays and lists."""

    def __init__(self, dataset: Any) -> None:
        self.num = len(dataset)

    def __iter__(self) -> Iterator[Any]:
        order = torch.randperm(self.num)
        yield order[:2]
        yield tuple(order[1:3].tolist())
        yield order[2:4].numpy()
        yield list(order[1:].numpy())
        yield [0, -1]

    def __len__(self) -> int:
        return 5


DATASETS: dict[str, Callable[[], Any]] = {
    "tensors": table,
    "one tensor": lambda: TensorDataset(torch.arange(NUM)),
    "random_split": split,
    "nested": lambda: Subset(Subset(split(), range(1, 10)), torch.tensor([5, 0, 8, 0, 3])),
    "subset by array": lambda: Subset(table(), np.array([4, 2, 2, 9])),
    "subset by tuple": lambda: Subset(table(), (4, 2, 2, 9)),
    "subset backwards": lambda: Subset(table(), range(9, 0, -2)),
}
ORDERS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "in order": lambda d: {"batch_size": 4},
    "shuffled": lambda d: {"batch_size": 4, "shuffle": True},
    "drop_last": lambda d: {"batch_size": 4, "shuffle": True, "drop_last": True},
    "own generator": lambda d: {
        "batch_size": 4,
        "shuffle": True,
        "generator": torch.Generator().manual_seed(8),
    },
    "larger than the data": lambda d: {"batch_size": 50, "shuffle": True},
    "replacement": lambda d: {
        "batch_size": 5,
        "sampler": RandomSampler(d, replacement=True, num_samples=37),
    },
    "sampler with a generator": lambda d: {
        "batch_size": 5,
        "sampler": RandomSampler(d, generator=torch.Generator().manual_seed(3)),
    },
    "subset sampler": lambda d: {"batch_size": 2, "sampler": SubsetRandomSampler([0, 2, 3])},
    "weighted": lambda d: {"batch_size": 3, "sampler": WeightedRandomSampler([1.0, 2.0, 3.0], 8)},
    "own sampler": lambda d: {"batch_size": 3, "sampler": OneByOne(d)},
    "list as sampler": lambda d: {"batch_size": 3, "sampler": [3, -1, 0, 2]},
    "batch sampler": lambda d: {"batch_sampler": BatchSampler(SequentialSampler(d), 3, False)},
    "own batch sampler": lambda d: {"batch_sampler": OwnBatches(d)},
}


def trace(make: Callable[[], DataLoader], use: Callable[[Any], Iterator[Any]]) -> list[Any]:
    """Two passes: the batches, and what is drawn between and after them."""
    random.seed(2)
    np.random.seed(2)
    torch.manual_seed(2)
    loader = make()
    seen: list[Any] = []
    for _ in range(2):
        for batch in use(loader):
            seen.append((type(batch), [(t.dtype, t.stride(), t.tolist()) for t in batch]))
            seen.append(torch.rand(()).item())
        seen.append((random.random(), np.random.rand(), torch.rand(()).item()))
        for one in (loader.generator, getattr(loader.sampler, "generator", None)):
            seen.append(None if one is None else one.get_state().tolist())
    return seen


def by_cursor(loader: Any) -> Iterator[Any]:
    for _, batch in Cursor(loader):
        yield batch


@pytest.mark.parametrize(("data", "order"), list(itertools.product(DATASETS, ORDERS)))
def test_batches_and_random_states_are_those_of_the_loader(data: str, order: str) -> None:
    def make() -> DataLoader:
        dataset = DATASETS[data]()
        return DataLoader(dataset, **ORDERS[order](dataset))

    assert tensor_fetch(make()) is not None
    assert trace(make, by_cursor) == trace(make, iter)


def test_the_fast_path_takes_whole_batches_and_no_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    loader = DataLoader(table(), batch_size=4)
    fetch = tensor_fetch(loader)
    assert fetch is not None
    monkeypatch.setattr(TensorDataset, "__getitem__", None)
    assert fetch([1, 2])[1].tolist() == [1, 2]


def test_a_batch_is_a_copy() -> None:
    dataset = table()
    for _, batch in Cursor(DataLoader(dataset, batch_size=NUM)):
        batch[0].zero_()
    assert dataset.tensors[0].sum() > 0


class OtherTable(TensorDataset):
    pass


class OtherSubset(Subset):
    pass


class OtherLoader(DataLoader):
    pass


class OtherTensor(torch.Tensor):
    pass


def with_own_getitems() -> TensorDataset:
    dataset = table()
    dataset.__getitems__ = lambda indices: [(torch.zeros(1),) for _ in indices]
    return dataset


NOT_STOCK: dict[str, Callable[[], DataLoader]] = {
    "subclass of DataLoader": lambda: OtherLoader(table(), batch_size=4),
    "subclass of TensorDataset": lambda: DataLoader(OtherTable(*table().tensors), batch_size=4),
    "subclass of Subset": lambda: DataLoader(OtherSubset(table(), [1, 2]), batch_size=4),
    "own collate": lambda: DataLoader(table(), batch_size=4, collate_fn=list),
    "own __getitems__": lambda: DataLoader(with_own_getitems(), batch_size=4),
    "not batched": lambda: DataLoader(table(), batch_size=None),
    "workers": lambda: DataLoader(table(), batch_size=4, num_workers=1),
    "tensor subclass": lambda: DataLoader(
        TensorDataset(torch.arange(4).as_subclass(OtherTensor)), batch_size=2
    ),
    "parameter": lambda: DataLoader(TensorDataset(torch.nn.Parameter(torch.rand(4))), batch_size=2),
    "requires grad": lambda: DataLoader(
        TensorDataset(torch.rand(4, requires_grad=True)), batch_size=2
    ),
    "not contiguous": lambda: DataLoader(TensorDataset(torch.rand(3, 4).t()), batch_size=2),
    "sparse": lambda: DataLoader(TensorDataset(torch.eye(4).to_sparse()), batch_size=2),
    "odd dtype": lambda: DataLoader(
        TensorDataset(torch.zeros(4, dtype=torch.float8_e5m2)), batch_size=2
    ),
    "no tensors": lambda: DataLoader(without_tensors(), batch_sampler=[[0]]),
}


def without_tensors() -> TensorDataset:
    dataset = table()
    dataset.tensors = ()
    return dataset


@pytest.mark.parametrize("kind", NOT_STOCK)
def test_whatever_could_differ_is_left_to_the_loader(kind: str) -> None:
    assert tensor_fetch(NOT_STOCK[kind]()) is None


def test_a_patched_data_set_class_is_left_to_the_loader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TensorDataset, "__getitem__", lambda self, index: (torch.zeros(1),))
    assert tensor_fetch(DataLoader(table(), batch_size=4)) is None


def test_another_collation_of_tensors_is_left_to_the_loader(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from torch.utils.data._utils import collate

    monkeypatch.setitem(collate.default_collate_fn_map, torch.Tensor, lambda *a, **k: None)
    assert tensor_fetch(DataLoader(table(), batch_size=4)) is None


@pytest.mark.parametrize("batch", [[0, NUM], [-NUM - 1], [1.5], ["a"], [], [0, 2**70]], ids=repr)
@pytest.mark.parametrize("data", ["tensors", "random_split"])
def test_wrong_indices_raise_what_the_loader_raises(batch: list[Any], data: str) -> None:
    loader = DataLoader(DATASETS[data](), batch_sampler=[[0], batch])
    with pytest.raises(Exception) as of_loader:
        list(loader)
    with pytest.raises(type(of_loader.value)) as of_cursor:
        list(Cursor(loader))
    assert str(of_cursor.value) == str(of_loader.value)


def test_booleans_as_indices_mean_what_they_mean_to_the_loader() -> None:
    loader = DataLoader(table(), batch_sampler=[[True, True]])
    assert [b[0].shape for _, b in Cursor(loader)] == [b[0].shape for b in loader]


def test_the_fast_path_can_be_left_out() -> None:
    loader = DataLoader(table(), batch_size=4, shuffle=True)
    torch.manual_seed(0)
    fast = [batch[1].tolist() for _, batch in Cursor(loader)]
    torch.manual_seed(0)
    assert fast == [batch[1].tolist() for _, batch in Cursor(loader, fast_path=False)]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_batches_are_pinned_or_on_the_device_as_the_loader_s_are(device: str) -> None:
    dataset = TensorDataset(*[tensor.to(device) for tensor in table().tensors])
    loader = DataLoader(dataset, batch_size=4, pin_memory=device == "cpu")
    assert tensor_fetch(loader) is not None
    for (_, fast), slow in zip(Cursor(loader), loader, strict=True):
        for a, b in zip(fast, slow, strict=True):
            assert a.device == b.device
            assert a.is_pinned() == b.is_pinned() == (device == "cpu")
            assert torch.equal(a, b)


# -- what changes in the course of a pass ------------------------------------------------------


class FromTheEnd(list[int]):
    """Indices that mean something of their own."""

    def __getitem__(self, index: Any) -> Any:
        return NUM - 1 - list.__getitem__(self, index)


def other_tensors(dataset: Any) -> None:
    dataset.tensors = tuple(tensor.flip(0) for tensor in dataset.tensors)


def other_indices(dataset: Any) -> None:
    dataset.indices[:] = dataset.indices[::-1]


def own_indices(dataset: Any) -> None:
    dataset.indices = FromTheEnd(dataset.indices)


def other_data_set(dataset: Any) -> None:
    dataset.dataset = TensorDataset(*(tensor.flip(0) for tensor in table().tensors))


def other_values(dataset: Any) -> None:
    dataset.tensors[1].add_(1)


def other_collate(dataset: Any) -> None:
    torch_collate.default_collate_fn_map[tuple] = lambda batch, *, collate_fn_map=None: len(batch)


def nested() -> Subset:
    return Subset(Subset(table(), list(range(NUM - 1, 0, -1))), np.arange(2, 11))


CHANGES: dict[str, tuple[Callable[[], Any], Callable[[Any], None]]] = {
    "tensors": (table, other_tensors),
    "fewer tensors": (table, lambda dataset: vars(dataset).update(tensors=dataset.tensors[:1])),
    "weights": (
        table,
        lambda dataset: vars(dataset).update(tensors=(torch.ones(NUM, requires_grad=True),)),
    ),
    "values": (table, other_values),
    "indices": (lambda: Subset(table(), list(range(NUM))), other_indices),
    "array of indices": (lambda: Subset(table(), np.arange(NUM)), other_indices),
    "own indices": (lambda: Subset(table(), list(range(NUM))), own_indices),
    "negative indices": (
        lambda: Subset(table(), list(range(NUM))),
        lambda dataset: dataset.indices.__setitem__(slice(None), range(-1, -NUM - 1, -1)),
    ),
    "inner indices": (nested, lambda dataset: other_indices(dataset.dataset)),
    "data set of a subset": (nested, lambda dataset: other_data_set(dataset.dataset)),
    "collate function": (table, other_collate),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_in_the_course_of_a_pass_is_seen(
    change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, act = CHANGES[change]
    kept = dict(torch_collate.default_collate_fn_map)

    def batches(use: Callable[[Any], Any], *, acts: bool = True) -> list[str]:
        dataset = make()
        loader = DataLoader(dataset, batch_size=2)
        assert tensor_fetch(loader) is not None
        seen: list[str] = []
        try:
            for batch in use(loader):
                seen.append(repr(batch))
                if acts and len(seen) in (1, 3):
                    act(dataset)
        finally:
            torch_collate.default_collate_fn_map.clear()
            torch_collate.default_collate_fn_map.update(kept)
        return seen

    by_cursor = batches(lambda loader: (batch for _, batch in Cursor(loader)))
    assert by_cursor == batches(iter)
    assert by_cursor != batches(iter, acts=False)


@pytest.mark.parametrize(
    "indices",
    [[-1, 2], [NUM - 1, 0], (3, 3), range(2, 9, 3), np.array([4, -2], np.int32), torch.tensor([5])],
    ids=str,
)
def test_indices_of_every_kind_mean_what_they_mean_to_the_loader(indices: Any) -> None:
    loader = DataLoader(Subset(table(), indices), batch_size=2)
    assert repr([batch for _, batch in Cursor(loader)]) == repr(list(loader))


@pytest.mark.parametrize("indices", [[NUM], [True, False], ["a"], [0.5]], ids=str)
def test_wrong_indices_of_a_subset_are_the_data_sets_business(indices: Any) -> None:
    def outcome(use: Callable[[Any], Any]) -> str:
        try:
            return repr(list(use(DataLoader(Subset(table(), indices), batch_size=2))))
        except Exception as error:  # the same, whatever it is
            return repr(error)

    by_cursor = outcome(lambda loader: (batch for _, batch in Cursor(loader)))
    assert by_cursor == outcome(iter)


@pytest.mark.parametrize("kind", [tuple, object])
def test_a_collate_function_of_the_users_is_left_to_the_loader(
    kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = DataLoader(table(), batch_size=2)
    assert tensor_fetch(loader) is not None
    monkeypatch.setitem(torch_collate.default_collate_fn_map, kind, lambda batch, **_: batch)
    assert tensor_fetch(loader) is None


def test_a_change_is_looked_for_with_no_call() -> None:
    def calls(dataset: Any) -> int:
        fetch = tensor_fetch(DataLoader(dataset, batch_size=2))
        assert fetch is not None
        profiler = cProfile.Profile()
        with profiler:
            fetch([0, 1])
        return int(pstats.Stats(profiler).total_calls)  # type: ignore[attr-defined]

    # The list, an array, a tensor, and one index operation for each of the three tensors.
    assert calls(table()) <= 10
    assert calls(Subset(table(), list(range(NUM)))) <= calls(table()) + 4
