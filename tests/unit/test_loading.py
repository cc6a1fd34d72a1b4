"""A cursor walks anything that gives batches, and knows where it is."""

from __future__ import annotations

import gc
import pickle
import random
import sys
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from deepepochs import rng
from deepepochs.data.cursor import Cursor
from deepepochs.data.followed import follow
from deepepochs.data.routes import first_batch
from deepepochs.data.seeding import SeededIndices, epoch_seed_from, seed_streams, seed_torch
from deepepochs.errors import CheckpointMismatch, ConfigError


class Squares(Dataset):
    def __init__(self, num: int = 5) -> None:
        self.num = num

    def __len__(self) -> int:
        return self.num

    def __getitem__(self, index: int) -> int:
        return index * index


class Stream(IterableDataset):
    def __iter__(self) -> Iterator[int]:
        return iter(range(5))


class SizedStream(Stream):
    def __len__(self) -> int:
        return 5


class EndlessSampler:
    def __iter__(self) -> Iterator[int]:
        return iter([1, 2])


@pytest.mark.parametrize(
    ("loader", "length"),
    [
        (DataLoader(Squares(), batch_size=2), 3),
        (DataLoader(Squares(), batch_size=2, drop_last=True), 2),
        (DataLoader(Stream(), batch_size=2), None),
        (DataLoader(SizedStream(), batch_size=2), 3),
        (DataLoader(Squares(), batch_size=2, sampler=EndlessSampler()), None),
        (DataLoader(Squares(), batch_sampler=[[0], [1, 2]]), 2),
        ([1, 2, 3], 3),
        ((), 0),
        (iter([1, 2]), None),
        ({"a": 1}, 1),
    ],
)
def test_length_is_the_loader_s_where_it_has_one(loader: Any, length: int | None) -> None:
    cursor = Cursor(loader)
    assert cursor.length == length
    batches = list(cursor)
    assert [index for index, _ in batches] == list(range(len(batches)))
    assert length is None or len(batches) == length


def test_the_index_counts_batches_handed_out_and_is_last_is_true_at_the_last() -> None:
    cursor = Cursor(DataLoader(Squares(), batch_size=2))
    assert cursor.index == 0
    assert cursor.is_last is False
    seen = [(index, cursor.index, cursor.is_last) for index, _ in cursor]
    assert seen == [(0, 1, False), (1, 2, False), (2, 3, True)]


def test_the_last_batch_is_unknown_without_a_length() -> None:
    cursor = Cursor(DataLoader(Stream(), batch_size=2))
    assert [cursor.is_last for _ in cursor] == [None] * 3


def test_the_last_batch_of_a_stream_that_workers_split_is_unknown() -> None:
    cursor = Cursor(DataLoader(SizedStream(), batch_size=2, num_workers=1))
    assert cursor.length == 3
    assert cursor.is_last is None


def test_an_empty_loader_gives_nothing() -> None:
    empty = DataLoader(TensorDataset(torch.zeros(0, 2)), batch_size=2)
    for loader in ([], (), iter(()), empty, DataLoader(Squares(0), batch_size=2)):
        cursor = Cursor(loader)
        assert list(cursor) == []
        assert cursor.state_dict()["running"] is False


def test_an_unknown_worker_seeding_is_refused() -> None:
    with pytest.raises(ConfigError, match="worker_seeding is 'worker': give one of position"):
        Cursor([], worker_seeding="worker")


def test_a_second_walk_begins_anew() -> None:
    cursor = Cursor([7, 8])
    assert list(cursor) == list(cursor) == [(0, 7), (1, 8)]


def test_what_the_loader_raises_comes_through() -> None:
    class Broken(Squares):
        def __getitem__(self, index: int) -> int:
            raise OSError("disk gone")

    with pytest.raises(OSError, match="disk gone"):
        list(Cursor(DataLoader(Broken())))


@pytest.mark.parametrize("fast_path", [True, False])
@pytest.mark.parametrize("shuffle", [True, False])
def test_the_random_states_after_a_walk_are_those_after_the_loader(
    fast_path: bool, shuffle: bool
) -> None:
    loader = DataLoader(TensorDataset(torch.arange(7)), batch_size=2, shuffle=shuffle)

    def after(walk: Any) -> list[Any]:
        rng.set_state(start)
        batches = [batch[0].tolist() for batch in walk]
        return [batches, random.random(), np.random.rand(), torch.get_rng_state().tolist()]

    start = rng.get_state()
    cursor = Cursor(loader, fast_path=fast_path)
    assert after(batch for _, batch in cursor) == after(loader)


def test_without_workers_nothing_is_reseeded() -> None:
    class Noise(Squares):
        def __getitem__(self, index: int) -> float:
            return random.random()

    random.seed(3)
    expected = [random.random() for _ in range(5)]
    random.seed(3)
    batches = [batch.tolist() for _, batch in Cursor(DataLoader(Noise(), batch_size=5))]
    assert batches == [expected]


def test_a_batch_costs_two_calls_at_most() -> None:
    def num_calls(num_batches: int) -> int:
        calls = 0

        def count(frame: Any, event: str, arg: Any) -> None:
            nonlocal calls
            calls += event in ("call", "c_call")

        cursor = Cursor([0] * num_batches)
        sys.setprofile(count)
        for _ in cursor:
            pass
        sys.setprofile(None)
        return calls

    assert num_calls(300) - num_calls(100) <= 2 * 200


def test_nothing_keeps_a_loader_alive() -> None:
    loader = DataLoader(Squares(), batch_size=2, num_workers=1, persistent_workers=True)
    list(Cursor(loader))
    watch = weakref.ref(loader)
    del loader
    gc.collect()
    assert watch() is None


def test_a_state_that_was_loaded_is_given_back_until_the_walk_begins() -> None:
    cursor = Cursor([1, 2, 3])
    next(iter(cursor))
    resumed = Cursor([1, 2, 3])
    resumed.load_state_dict(cursor.state_dict())
    assert resumed.index == 1
    assert resumed.state_dict()["index"] == 1
    assert list(resumed) == [(1, 2), (2, 3)]


def test_a_state_does_not_grow_with_the_batches_that_were_consumed() -> None:
    class Own(DataLoader):
        def __iter__(self) -> Iterator[Any]:
            yield from super().__iter__()

    for make in (DataLoader, Own):
        cursor = Cursor(make(Squares(200), batch_size=2, num_workers=1))
        sizes = [len(pickle.dumps(cursor.state_dict())) for _ in cursor]
        # The worker is two batches ahead.
        assert max(sizes) - min(sizes) < 100


# -- what a loader carries ---------------------------------------------------------------------


def test_generators_are_found_wherever_they_are() -> None:
    class Noisy(Squares):
        def __init__(self) -> None:
            super().__init__()
            self.noise = np.random.default_rng(0)
            self.python_noise = random.Random(0)
            self.legacy = np.random.RandomState(0)

    class Wrapper(Squares):
        def __init__(self) -> None:
            super().__init__()
            self.dataset = Noisy()

    loader = DataLoader(Wrapper(), shuffle=True, generator=torch.Generator())
    own = loader.dataset.dataset
    draws = lambda: [  # noqa: E731
        own.noise.random(),
        own.python_noise.random(),
        own.legacy.rand(),
        torch.rand((), generator=loader.generator).item(),
    ]
    state = follow(loader).read(loader)
    first = draws()
    follow(loader).restore(loader, state)
    assert draws() == first


@pytest.mark.parametrize("bits", [np.random.MT19937, np.random.Philox, np.random.SFC64])
def test_every_numpy_generator_is_put_back(bits: Any) -> None:
    class Noisy(Squares):
        def __init__(self) -> None:
            super().__init__()
            self.noise = np.random.Generator(bits(0))

    loader = DataLoader(Noisy())
    state = follow(loader).read(loader)
    first = loader.dataset.noise.random(5).tolist()
    follow(loader).restore(loader, state)
    assert loader.dataset.noise.random(5).tolist() == first


def test_a_generator_made_at_first_use_is_made_again() -> None:
    class Late(EndlessSampler):
        generator: torch.Generator | None

        def __init__(self) -> None:
            self.generator = None

    loader = DataLoader(Squares(), sampler=Late())
    loader.sampler.generator = torch.Generator().manual_seed(4)
    state = follow(loader).read(loader)
    expected = torch.rand((), generator=loader.sampler.generator)
    loader = DataLoader(Squares(), sampler=Late())
    follow(loader).restore(loader, state)
    assert torch.rand((), generator=loader.sampler.generator) == expected


def test_generators_that_are_not_there_are_an_error() -> None:
    shuffled, loader = DataLoader(Squares(), shuffle=True), DataLoader(Squares())
    state = follow(shuffled).read(shuffled)
    with pytest.raises(CheckpointMismatch, match=r"loader\.sampler\.generator"):
        follow(loader).restore(loader, state)


# -- seeds of worker streams -------------------------------------------------------------------


def test_an_epoch_seed_draws_nothing_and_follows_the_generator() -> None:
    before = torch.get_rng_state()
    first = epoch_seed_from(None)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(())
    assert epoch_seed_from(None) != first
    own = torch.Generator().manual_seed(1)
    assert epoch_seed_from(own) == epoch_seed_from(torch.Generator().manual_seed(1))
    assert epoch_seed_from(own, 1) != epoch_seed_from(own, 2)


def test_streams_of_neighbouring_batches_and_epochs_have_nothing_in_common() -> None:
    def draws(epoch_seed: int, position: int) -> tuple[float, ...]:
        seed_streams(epoch_seed, position)
        return (torch.rand(()).item(), float(np.random.rand()), random.random())

    seen = [draws(seed, position) for seed in (0, 1, 2**62) for position in (0, 1, 10)]
    assert draws(0, 1) == seen[1]
    assert len({value for one in seen for value in one}) == 27


def test_indices_that_arrive_in_the_main_process_leave_its_stream_alone() -> None:
    before = rng.get_state()
    function, arguments = SeededIndices([1], 2, 3).__reduce__()
    assert function(*arguments) == [1]
    assert torch.equal(rng.get_state()["torch"], before["torch"])


def test_seeding_a_batch_gives_the_draws_of_torch_manual_seed() -> None:
    with rng.preserved():
        seed_torch(2**62 + 5)
        ours = torch.rand(3), torch.initial_seed()
        torch.manual_seed(2**62 + 5)
        assert torch.equal(torch.rand(3), ours[0])
        assert torch.initial_seed() == ours[1]


class Counting(Dataset):
    """Counts its reads, and draws from a generator of its own."""

    def __init__(self) -> None:
        self.reads, self.draws = 0, np.random.default_rng(3)

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> float:
        self.reads += 1
        return index + float(self.draws.random()) + random.random() + float(torch.rand(()))


LOOKED_INTO = {
    "shuffled": lambda: DataLoader(Squares(), 2, shuffle=True),
    "own generator": lambda: DataLoader(
        Squares(), 2, shuffle=True, generator=torch.Generator().manual_seed(1)
    ),
    "counts and draws": lambda: DataLoader(Counting(), 2, shuffle=True),
    "persistent workers": lambda: DataLoader(
        Squares(), 2, shuffle=True, num_workers=1, persistent_workers=True
    ),
    "stream": lambda: DataLoader(Stream(), 2),
    "list": lambda: [torch.tensor([1]), torch.tensor([2])],
}


@pytest.mark.parametrize("kind", LOOKED_INTO)
def test_to_take_the_first_batch_leaves_a_loader_and_all_draws_as_they_were(kind: str) -> None:
    def walked(*, looks: bool) -> list[Any]:
        rng.set_state(start)
        loader: Any = LOOKED_INTO[kind]()
        first = [first_batch(loader, 0) for _ in range(2 * looks)]
        batches = [batch.tolist() for _ in range(2) for batch in loader]
        assert all(one.tolist() == batches[0] for one in first)
        return [*batches, random.random(), float(np.random.rand()), float(torch.rand(()))]

    start = rng.get_state()
    assert walked(looks=True) == walked(looks=False)


def test_a_loader_without_a_batch_has_no_first_one() -> None:
    assert first_batch([], 0) is None
    assert first_batch(DataLoader(Squares(0), 2), 0) is None


def test_the_first_batch_is_the_first_that_is_not_left_out() -> None:
    assert first_batch([None, None, 3, 4], 0) == 3
    assert first_batch([None], 0) is None


def test_a_loader_whose_first_batch_fails_is_put_back() -> None:
    class Fails(Counting):
        def __getitem__(self, index: int) -> float:
            super().__getitem__(index)
            raise ValueError("torn")

    loader = DataLoader(Fails(), 2, shuffle=True)
    before = torch.get_rng_state(), random.getstate()
    with pytest.raises(ValueError, match="torn"):
        first_batch(loader, 0)
    assert before[0].equal(torch.get_rng_state()) and before[1] == random.getstate()
    assert loader.dataset.reads == 0  # type: ignore[attr-defined]
