"""A pass broken off after any batch and gone on with elsewhere is the pass that was not."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from deepepochs import rng
from deepepochs.data.cursor import Cursor
from deepepochs.errors import CheckpointMismatch

sys.path.insert(0, str(Path(__file__).parent))
from cursor_kinds import (
    KINDS,
    NUM,
    Augmented,
    EagerSampler,
    LazySampler,
    StatefulStream,
    generator,
    resume,
    through_a_file,
    walk,
)

NUM_PASSES = 3


@pytest.mark.parametrize("kind", KINDS)
def test_a_walk_resumed_after_any_batch_or_pass_goes_on_as_if_unbroken(kind: str) -> None:
    make = KINDS[kind]
    whole, saved = walk(make, NUM_PASSES)
    for done, (state, number) in enumerate(saved, start=1):
        assert resume(make, state, number, NUM_PASSES) == whole[done:], f"{kind}, after {done}"


@pytest.mark.parametrize("kind", KINDS)
def test_saving_changes_nothing(kind: str) -> None:
    assert walk(KINDS[kind], 2)[0] == walk(KINDS[kind], 2, save=False)[0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_walk_can_be_saved_and_resumed_again(kind: str) -> None:
    make = KINDS[kind]
    whole, saved = walk(make, 1)
    state, _ = saved[0]
    first = Cursor(make())
    first.load_state_dict(state["cursor"])
    rng.set_state(state["rng"])
    assert through_a_file(first.state_dict()).keys() == state["cursor"].keys()
    for _ in first:
        break
    # What a step draws does not matter here, only that the second resume starts from there.
    again = {"rng": rng.get_state(), "cursor": through_a_file(first.state_dict())}
    rest = [entry[1] for entry in resume(make, again, 0, 1)]
    assert rest == [entry[1] for entry in whole[2:]]


@pytest.mark.parametrize("kind", ["in order", "shuffled", "stateful stream", "any iterable"])
def test_without_the_random_states_of_the_save_the_rest_differs(kind: str) -> None:
    whole, saved = walk(KINDS[kind], 1)
    assert resume(KINDS[kind], *saved[0], 1, with_rng=False) != whole[1:]


@pytest.mark.parametrize("kind", ["shuffled", "tensors", "any iterable", "own batch sampler"])
def test_without_the_random_states_of_the_start_the_rest_differs(kind: str) -> None:
    whole, saved = walk(KINDS[kind], 1)
    state, number = copy.deepcopy(saved[0])
    state["cursor"]["start"]["rng"] = state["rng"]
    assert resume(KINDS[kind], state, number, 1) != whole[1:]


@pytest.mark.parametrize(
    "kind", ["own generator", "eager sampler", "data set with generators", "replacement"]
)
def test_without_the_generators_of_the_loader_the_rest_differs(kind: str) -> None:
    whole, saved = walk(KINDS[kind], 2)
    state, number = copy.deepcopy(saved[0])
    fresh = Cursor(KINDS[kind]()).state_dict()["parts"]
    state["cursor"]["parts"] = state["cursor"]["start"]["parts"] = fresh
    if kind == "own generator":
        fresh["loader.generator"] = torch.Generator().manual_seed(1).get_state()
    if kind == "eager sampler":
        fresh["loader.sampler.own_rng"]["state"]["inc"] += 2
    assert resume(KINDS[kind], state, number, 2) != whole[1:]


def test_samples_that_were_had_are_not_loaded_again() -> None:
    loaded: list[int] = []

    class Watched(Augmented):
        def __getitem__(self, index: int) -> torch.Tensor:
            loaded.append(index)
            return super().__getitem__(index)

    def make() -> DataLoader[Any]:
        return DataLoader(Watched(), batch_size=3, shuffle=True)

    _, saved = walk(make, 1)
    loaded.clear()
    resume(make, *saved[1], 1)
    assert len(loaded) == NUM - 6


def test_a_stream_with_state_is_not_loaded_again() -> None:
    made: list[StatefulStream] = []

    def make() -> DataLoader[Any]:
        made.append(StatefulStream())
        return DataLoader(made[-1], batch_size=3)

    _, saved = walk(make, 1)
    resume(make, *saved[1], 1)
    assert made[-1].num_loaded == NUM - 6


@pytest.mark.parametrize("fast_first", [True, False])
def test_a_walk_saved_on_one_path_goes_on_on_the_other(fast_first: bool) -> None:
    make = KINDS["tensors, own generator"]
    whole, saved = walk(make, 2, fast_path=fast_first)
    for done, (state, number) in enumerate(saved, start=1):
        assert resume(make, state, number, 2, fast_path=not fast_first) == whole[done:]


def test_a_generator_that_two_loaders_share_is_put_back_once() -> None:
    def make() -> tuple[DataLoader[Any], DataLoader[Any]]:
        shared = generator()
        return (
            DataLoader(Augmented(), batch_size=4, shuffle=True, generator=shared),
            DataLoader(Augmented(), batch_size=4, shuffle=True, generator=shared),
        )

    def go_on(train: Cursor, val_loader: Any) -> list[Any]:
        rest = [batch.tolist() for _, batch in train]
        return rest + [batch.tolist() for _, batch in Cursor(val_loader)]

    train_dl, val_dl = make()
    train = Cursor(train_dl)
    next(iter(train))
    states = through_a_file([rng.get_state(), train.state_dict(), Cursor(val_dl).state_dict()])
    iterator = Cursor(train_dl)
    iterator.load_state_dict(states[1])
    expected = go_on(iterator, val_dl)

    torch.manual_seed(5)
    train_dl, val_dl = make()
    val_dl.generator.manual_seed(1)
    train = Cursor(train_dl)
    train.load_state_dict(states[1])
    Cursor(val_dl).load_state_dict(states[2])
    rng.set_state(states[0])
    assert go_on(train, val_dl) == expected


def mid_pass(kind: str) -> Any:
    return walk(KINDS[kind], 1)[1][0][0]["cursor"]


def test_another_length_in_the_middle_of_a_pass_is_refused() -> None:
    other = DataLoader(Augmented(), batch_size=2, shuffle=True)
    with pytest.raises(CheckpointMismatch, match=r"4 mini-batches.* has 6"):
        Cursor(other).load_state_dict(mid_pass("shuffled"))


def test_another_length_between_passes_is_taken() -> None:
    other = DataLoader(Augmented(), batch_size=2, shuffle=True)
    state = walk(KINDS["shuffled"], 1)[1][-1][0]["cursor"]
    cursor = Cursor(other)
    cursor.load_state_dict(state)
    assert len(list(cursor)) == 6


def test_another_kind_of_loader_is_refused() -> None:
    with pytest.raises(CheckpointMismatch, match=r"'indices'.*'plain'"):
        Cursor([1, 2, 3, 4]).load_state_dict(mid_pass("shuffled"))


def test_other_generators_are_refused() -> None:
    with pytest.raises(CheckpointMismatch, match=r"sampler\.generator"):
        cursor = Cursor(DataLoader(Augmented(), batch_size=3, sampler=EagerSampler()))
        cursor.load_state_dict(mid_pass("shuffled"))
        list(cursor)


def test_a_sampler_that_ends_before_the_place_is_refused() -> None:
    class Short(LazySampler):
        def __iter__(self) -> Any:
            return iter([1, 2])

    cursor = Cursor(DataLoader(Augmented(), batch_size=1, sampler=Short()))
    state = walk(lambda: DataLoader(Augmented(), batch_size=1, sampler=LazySampler()), 1)[1][4][0]
    cursor.load_state_dict(state["cursor"])
    with pytest.raises(CheckpointMismatch, match="ended after 2 mini-batches, and 5"):
        list(cursor)


def test_a_stream_that_ends_before_the_place_is_refused() -> None:
    state = mid_pass("any iterable")
    cursor = Cursor(iter(()))
    cursor.load_state_dict(state)
    with pytest.raises(CheckpointMismatch, match="ended after 0 mini-batches, and 1"):
        list(cursor)
