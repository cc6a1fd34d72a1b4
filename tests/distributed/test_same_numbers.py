"""One, two and three processes give the same numbers for the same global mini-batches."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from launching import results

CASES = [
    "function_metrics", "mean_and_confusion", "metric_objects", "returned_patches",
"whole_batches", "few_samples", "streams", "ready_batches", "accumulated", "averaged",
    "frozen_first", "without_labels", "skipped", "wrong_lengths", "by_hand", "by_hand_sparse",
    "several", "plateau", "weights_outside", "unfrozen", "fillers_and_rare_weights",
    "unfrozen_between_trainers", "frozen_model", "searched", "looked_at_before", "prepared",
    "predictions", "early_stop", "recorded", "interpreted", "limited", "stopped_and_gone_on", "closures", "left_out",
    "stops_of_one", "stops_in_a_part",
]  # fmt: skip


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, Any]]:
    """The results of all cases by number of processes; 1 is without a launcher."""
    folder = tmp_path_factory.mktemp("cases")
    return {n or 1: results("cases.py", n, folder) for n in (0, 2, 3)}


def differences(a: Any, b: Any, path: str = "") -> list[str]:
    """Where two results are not the same to 1e-6."""
    if isinstance(a, dict) and isinstance(b, dict):
        missing = [f"{path}/{key} is only in one" for key in a.keys() ^ b.keys()]
        both = [differences(a[key], b[key], f"{path}/{key}") for key in a if key in b]
        return missing + [one for listed in both for one in listed]
    if isinstance(a, list) and isinstance(b, list):
        if len(a) != len(b):
            return [f"{path}: {len(a)} and {len(b)} entries"]
        both = [
            differences(x, y, f"{path}[{i}]") for i, (x, y) in enumerate(zip(a, b, strict=True))
        ]
        return [one for listed in both for one in listed]
    if isinstance(a, float):
        return [] if abs(a - b) <= 1e-6 * max(1.0, abs(a)) else [f"{path}: {a} and {b}"]
    return [] if a == b else [f"{path}: {a} and {b}"]


@pytest.mark.parametrize("num_processes", [2, 3])
@pytest.mark.parametrize("case", CASES)
def test_several_processes_give_the_numbers_of_one(
    found: dict[int, dict[str, Any]], case: str, num_processes: int
) -> None:
    assert differences(found[1][case], found[num_processes][case]) == []


@pytest.mark.parametrize("num_processes", [1, 2, 3])
def test_what_is_looked_at_before_a_fit_works_in_several_processes_or_says_that_it_does_not(
    found: dict[int, dict[str, Any]], num_processes: int
) -> None:
    looked = found[num_processes]["looked_at_before"]
    assert looked["shapes"][4:] == ["[4, 3]", "[4, 16]", "[4, 16]", "[4, 3]"]
    assert looked["trace"] and looked["refused"] and looked["words"]


@pytest.mark.parametrize("num_processes", [1, 2, 3])
def test_a_confusion_matrix_counts_the_samples_of_all_processes_once(
    found: dict[int, dict[str, Any]], num_processes: int
) -> None:
    interpreted = found[num_processes]["interpreted"]
    for way in ("whole", "split"):
        counts = {
            stage: sum(map(sum, rows)) for stage, rows in interpreted[way]["matrices"].items()
        }
        assert counts == {"train": 53, "val": 31, "test": 28}
        assert interpreted[f"{way} resumed"]["matrices"] == interpreted[way]["matrices"]
        assert len(interpreted[way]["top"]) == 28


@pytest.mark.parametrize("num_processes", [1, 2, 3])
def test_hooks_that_look_at_data_do_not_meet_fillers_unless_their_callback_says_so(
    found: dict[int, dict[str, Any]], num_processes: int
) -> None:
    calls = found[num_processes]["hooks_and_fillers"]
    assert len(calls) == num_processes
    fillers = [of["every"]["before_batch"][1] for of in calls]
    assert sum(fillers) == {1: 0, 2: 1, 3: 1}[num_processes]  # 5 mini-batches are shared
    for of, num_fillers in zip(calls, fillers, strict=True):
        for hook in ("before_batch", "after_forward", "metrics", "after_batch"):
            assert of["plain"][hook] == [of["every"][hook][0], 0]
            assert of["every"][hook][1] == num_fillers
        # Gradients and steps are of all processes: what changes them must do so in each.
        for hook in ("after_backward", "before_optimize"):
            assert of["plain"][hook] == of["every"][hook]
            assert of["plain"][hook][1] == num_fillers


@pytest.mark.parametrize("num_processes", [1, 2, 3])
def test_a_save_that_one_process_alone_is_asked_for_is_refused_by_name(
    found: dict[int, dict[str, Any]], num_processes: int
) -> None:
    answers = found[num_processes]["lone_save"]
    assert answers.pop("added") == "saved"
    for answer in answers.values():
        assert answer == "saved" if num_processes == 1 else "meets_fillers = True" in answer


@pytest.mark.parametrize("num_processes", [1, 2, 3])
def test_what_one_process_alone_returns_is_pooled_over_the_tasks(
    found: dict[int, dict[str, Any]], num_processes: int
) -> None:
    rare = found[num_processes]["returned_by_one"]
    assert rare == {"rare": 1.5, "0/rare": 1.5, "1/rare": 1.5}


def test_the_comparison_sees_a_difference_and_other_cases_are_not_the_same(
    found: dict[int, dict[str, Any]],
) -> None:
    assert differences(found[1]["function_metrics"], found[2]["returned_patches"])
    hand = found[2]["by_hand"]
    assert differences(hand["two"], hand["plain"])
    assert differences(hand["two"], hand["three"])


@pytest.mark.parametrize("num_processes", [1, 2, 3])
def test_accumulation_by_hand_is_that_by_argument_last_window_included(
    found: dict[int, dict[str, Any]], num_processes: int
) -> None:
    hand = found[num_processes]["by_hand"]
    # 4 mini-batches in an epoch: the second window of three has only one.
    for name in ("two", "three"):
        assert differences(hand[name]["weights"], hand[f"{name} by argument"]["weights"]) == []
        assert hand[name]["steps"] == 4
    assert differences(hand["parts"]["weights"], hand["plain"]["weights"]) == []


@pytest.mark.parametrize("num_processes", [2, 3])
def test_all_processes_evaluate_with_the_buffers_of_process_0_within_a_window_too(
    found: dict[int, dict[str, Any]], num_processes: int
) -> None:
    for way in found[num_processes]["buffers"].values():
        assert way["num"] >= 4
        assert way["alike"] is True


@pytest.mark.parametrize("num_processes", [1, 2, 3])
def test_the_average_of_the_weights_is_alike_in_all_processes_and_is_loaded(
    found: dict[int, dict[str, Any]], num_processes: int
) -> None:
    averaged = found[num_processes]["averaged"]
    assert averaged["alike"] is True
    assert averaged["loaded"] is True


@pytest.mark.parametrize("num_processes", [2, 3])
def test_a_prepared_loader_repeats_its_samples_again_after_the_fit(
    found: dict[int, dict[str, Any]], num_processes: int
) -> None:
    assert found[num_processes]["prepared"]["even again"] is True


@pytest.mark.parametrize("num_processes", [2, 3])
def test_a_stop_asked_for_in_one_process_stops_all_at_the_same_batch(
    found: dict[int, dict[str, Any]], num_processes: int
) -> None:
    stopped = found[num_processes]["early_stop"]
    assert stopped["batches"] == [3]
    assert stopped["reasons"] == ["enough"]


@pytest.mark.parametrize("num_processes", [1, 2, 3])
def test_a_fit_that_goes_on_after_a_stop_is_the_one_that_was_not_stopped(
    found: dict[int, dict[str, Any]], num_processes: int
) -> None:
    case = found[num_processes]["stopped_and_gone_on"]
    assert case["stopped first"] and not case["whole first"]
    assert case["stopped"] == case["whole"]


@pytest.mark.parametrize("num_processes", [1, 2, 3])
def test_a_search_ends_in_all_processes_at_one_rate(
    found: dict[int, dict[str, Any]], num_processes: int
) -> None:
    searched = found[num_processes]["searched"]
    assert len(searched["ends"]) == 1
    assert searched["ended early"]


@pytest.mark.parametrize("num_processes", [2, 3])
def test_what_is_known_before_a_pass_is_exchanged_then(
    found: dict[int, dict[str, Any]], num_processes: int
) -> None:
    assert found[num_processes]["exchanges"] == {
        "plain": [],
        "number": [],
        "collated": ["weighs a mini-batch"],
        "ready": ["weighs a mini-batch"],
        "function": ["weighs a mini-batch"],
    }


@pytest.mark.parametrize("num_processes", [2, 3])
def test_an_epoch_has_twelve_exchanges_however_many_mini_batches(
    found: dict[int, dict[str, Any]], num_processes: int
) -> None:
    counted = found[num_processes]["counted"]
    assert counted["rounds"] == {2: 27, 3: 18}[num_processes]
    of_pass = [
        "may save or stop", "may save or stop", "begins a pass", "exchanges a value",
        "ends a stage",
    ]  # fmt: skip
    expected = [*of_pass, "weighs the first mini-batch", *of_pass, "may save or stop"]
    assert sorted(counted["purposes"]) == sorted(expected)
