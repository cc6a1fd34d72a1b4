"""Each process draws noise of its own, and the order of the samples is drawn in common."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from launching import results

NUM_SAMPLES = 24
SEEDED = [
    "here", "in workers", "in one worker", "collate", "sampler", "weighted", "stream",
    "stream in a worker", "ready", "prepared", "seeded in a hook",
]  # fmt: skip
CASES = [*SEEDED, "no seed", "seeds of their own"]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Any]:
    """What each process of 1 (without a launcher), 2 and 3 met."""
    folder = tmp_path_factory.mktemp("drawing")
    return {n or 1: results("drawing.py", n, folder) for n in (0, 2, 3)}


def rows_of(processes: list[Any], case: str) -> list[list[float]]:
    return [row for process in processes for row in process[case]["rows"]]


@pytest.mark.parametrize("num_processes", [1, 2, 3])
@pytest.mark.parametrize("case", CASES)
def test_every_sample_is_met_once_over_all_processes(
    found: dict[int, Any], num_processes: int, case: str
) -> None:
    indices = sorted(int(row[0]) for row in rows_of(found[num_processes], case))
    assert indices == list(range(NUM_SAMPLES))


@pytest.mark.parametrize("num_processes", [1, 2, 3])
@pytest.mark.parametrize("case", CASES)
def test_no_sample_has_the_noise_of_another(
    found: dict[int, Any], num_processes: int, case: str
) -> None:
    rows = rows_of(found[num_processes], case)
    for generator in (1, 2, 3):  # of Python, NumPy and torch
        assert len({row[generator] for row in rows}) == NUM_SAMPLES


@pytest.mark.parametrize("num_processes", [2, 3])
@pytest.mark.parametrize("case", CASES)
def test_no_two_processes_have_one_dropout_mask(
    found: dict[int, Any], num_processes: int, case: str
) -> None:
    masks = [process[case]["masks"] for process in found[num_processes]]
    for one, other in itertools.combinations(masks, 2):
        assert not any(mask in other for mask in one)


@pytest.mark.parametrize("num_processes", [2, 3])
def test_noise_made_in_workers_is_that_of_the_place_in_the_epoch(
    found: dict[int, Any], num_processes: int
) -> None:
    """It depends neither on the process nor on the number of workers or processes."""
    expected = sorted(rows_of(found[1], "in workers"))
    assert sorted(rows_of(found[1], "in one worker")) == expected
    for case in ("in workers", "in one worker"):
        assert sorted(rows_of(found[num_processes], case)) == expected
    assert sorted(rows_of(found[num_processes], "here")) != sorted(rows_of(found[1], "here"))


@pytest.mark.parametrize("num_processes", [2, 3])
def test_the_first_process_begins_with_the_draws_of_the_script(
    found: dict[int, Any], num_processes: int
) -> None:
    first = found[num_processes][0]["two fits"]["rows"][:4]
    assert first == found[1][0]["two fits"]["rows"][:4]


@pytest.mark.parametrize("num_processes", [2, 3])
@pytest.mark.parametrize("case", SEEDED)
def test_after_a_fit_the_script_draws_alike_in_all_processes(
    found: dict[int, Any], num_processes: int, case: str
) -> None:
    first, *others = [process[case]["after"] for process in found[num_processes]]
    assert all(other == first for other in others)
    assert first != found[num_processes][0]["two fits"]["after"]


@pytest.mark.parametrize("num_processes", [2, 3])
def test_seeds_that_a_script_gives_each_process_stay_apart_after_a_fit(
    found: dict[int, Any], num_processes: int
) -> None:
    after = [tuple(process["seeds of their own"]["after"]) for process in found[num_processes]]
    assert len(set(after)) == num_processes


@pytest.mark.parametrize("num_processes", [1, 2, 3])
def test_a_second_fit_draws_anew(found: dict[int, Any], num_processes: int) -> None:
    for process in found[num_processes]:
        rows, masks = process["two fits"]["rows"], process["two fits"]["masks"]
        assert len({row[3] for row in rows}) == len(rows) == 2 * NUM_SAMPLES // num_processes
        assert masks[: len(masks) // 2] != masks[len(masks) // 2 :]


@pytest.mark.parametrize("num_processes", [2, 3])
def test_models_of_different_seeds_begin_with_the_weights_of_the_main_process(
    found: dict[int, Any], num_processes: int
) -> None:
    before = [process["seeds of their own"]["before"] for process in found[num_processes]]
    assert all(weights == before[0] for weights in before)
