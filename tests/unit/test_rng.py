"""Random states: seeded, read, restored; malformed ones refused."""

from __future__ import annotations

import functools
import io
import random
from typing import Any

import numpy as np
import pytest
import torch

from deepepochs.errors import CheckpointMismatch, ConfigError
from deepepochs.rng import get_state, preserved, set_seed, set_state


def draws() -> list[float]:
    """A number from every generator, Gaussians too: they hold a second one back."""
    return [
        random.random(),
        random.gauss(0, 1),
        np.random.rand(),
        np.random.randn(),
        torch.rand(()).item(),
        torch.randn(()).item(),
    ]


def saved_and_loaded(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)
    assert isinstance(loaded, dict)
    return loaded


def test_a_seed_fixes_every_generator() -> None:
    set_seed(5)
    first = draws()
    set_seed(5)
    assert draws() == first
    set_seed(6)
    assert not set(draws()) & set(first)


def test_a_float_seed_is_cut_to_an_int() -> None:
    set_seed(1)
    first = draws()
    set_seed(1.9)
    assert draws() == first


def test_a_seed_gives_the_streams_of_the_libraries_own_seeds() -> None:
    set_seed(3)
    ours = [random.random(), np.random.rand(), torch.rand(()).item()]
    random.seed(3)
    np.random.seed(3)
    torch.manual_seed(3)
    assert ours == [random.random(), np.random.rand(), torch.rand(()).item()]


def test_set_seed_makes_cudnn_deterministic_and_returns_nothing() -> None:
    torch.backends.cudnn.deterministic = False
    torch.backends.cudnn.benchmark = True
    assert set_seed(0) is None  # type: ignore[func-returns-value]
    assert torch.backends.cudnn.deterministic and not torch.backends.cudnn.benchmark


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_out_of_range_is_refused_before_any_generator_is_seeded(seed: int) -> None:
    set_seed(0)
    expected = draws()
    set_seed(0)
    with pytest.raises(ConfigError, match=str(seed)):
        set_seed(seed)
    assert draws() == expected


def test_a_state_restored_from_a_file_gives_the_same_draws() -> None:
    draws()
    random.gauss(0, 1)
    state = saved_and_loaded(get_state())
    first = draws()
    assert draws() != first
    set_state(state)
    assert draws() == first


def test_the_second_gaussian_held_back_is_part_of_the_state() -> None:
    random.gauss(0, 1)
    np.random.randn()
    state = get_state()
    first = random.gauss(0, 1), np.random.randn()
    set_state(state)
    assert (random.gauss(0, 1), np.random.randn()) == first


def test_reading_the_state_draws_nothing() -> None:
    set_seed(2)
    expected = draws()
    set_seed(2)
    get_state()
    assert draws() == expected


def test_a_state_read_is_not_altered_by_later_draws() -> None:
    state = get_state()
    before = saved_and_loaded(state)
    draws()
    assert torch.equal(state["torch"], before["torch"])
    assert torch.equal(state["numpy"]["words"], before["numpy"]["words"])


SHARED = torch.Generator()


def draws_by_a_helper() -> float:
    return torch.rand(1, generator=SHARED).item()


class Holding:
    def __init__(self) -> None:
        self.generator = np.random.RandomState(0)

    def __call__(self) -> float:
        return float(self.generator.rand())

    def method(self) -> float:
        return float(self.generator.rand())


def holders() -> dict[str, Any]:
    own, given = random.Random(0), np.random.default_rng(0)
    return {
        "a closure": lambda: own.random(),
        "a default": lambda generator=given: generator.random(),
        "a global name": lambda: torch.rand(1, generator=SHARED).item(),
        "a function that is called": lambda: draws_by_a_helper(),
        "a partial": functools.partial(lambda generator: generator.random(), generator=given),
        "an attribute": Holding(),
        "an attribute of a method's object": Holding().method,
    }


@pytest.mark.parametrize("kind", holders())
def test_preserved_restores_generators_that_a_function_holds(kind: str) -> None:
    draw = holders()[kind]
    with preserved(draw):
        first = draw()
    assert draw() == first
    with preserved():
        second = draw()
    assert draw() != second


def test_preserved_undoes_the_draws_of_its_block_even_if_it_raises() -> None:
    set_seed(4)
    expected = draws()
    set_seed(4)
    with pytest.raises(KeyError), preserved():
        draws()
        raise KeyError
    assert draws() == expected


def changed(path: str, value: Any) -> Any:
    """A good state but for one entry; a missing one if the value is ``...``."""
    state = get_state()
    *outer, last = path.split(".")
    part = state
    for key in outer:
        part = part[key]
    if value is ...:
        del part[last]
    else:
        part[last] = value
    return state


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("torch", ..., "holds"),
        ("extra", 1, "extra"),
        ("python", None, "'python'"),
        ("python.words", torch.zeros(3, dtype=torch.int64), "'python'"),
        ("python.version", 9, "'python'"),
        ("python.gauss", "x", "'python'"),
        ("numpy.words", torch.zeros(3, dtype=torch.int64), "'numpy'"),
        ("numpy.pos", ..., "'numpy'"),
        ("torch", torch.zeros(7, dtype=torch.uint8), "'torch'"),
        ("torch", "x", "'torch'"),
        ("cuda", 3, "'cuda'"),
        ("cuda", [torch.zeros(16, dtype=torch.uint8)] * 99, "CUDA devices|'cuda'"),
        ("mps", "x", "'mps'"),
    ],
)
def test_a_malformed_state_is_refused_before_anything_changes(
    path: str, value: Any, message: str
) -> None:
    state = changed(path, value)
    set_seed(8)
    expected = draws()
    set_seed(8)
    with pytest.raises(CheckpointMismatch, match=message):
        set_state(state)
    assert draws() == expected


@pytest.mark.parametrize("state", [None, [], {}, 3])
def test_what_is_no_state_at_all_is_refused(state: Any) -> None:
    with pytest.raises(CheckpointMismatch, match="the random state holds"):
        set_state(state)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_states_of_cuda_devices_are_restored_and_seeded() -> None:
    set_seed(1)
    first = torch.rand(2, device="cuda")
    set_seed(1)
    assert torch.equal(torch.rand(2, device="cuda"), first)
    state = saved_and_loaded(get_state())
    assert len(state["cuda"]) == torch.cuda.device_count()
    second = torch.rand(2, device="cuda")
    set_state(state)
    assert torch.equal(torch.rand(2, device="cuda"), second)
