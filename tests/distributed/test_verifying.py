"""`verify_resume` in two processes proves a sound fit, and names the process of a faulty one."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from launching import SCRIPTS, launch, results

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return results("verifying.py", 2, tmp_path_factory.mktemp("verifying"))


@pytest.mark.parametrize("case", ["sound", "after a fit", "workers", "prepared"])
def test_a_sound_fit_is_proved_in_all_processes(found: dict[str, Any], case: str) -> None:
    report = found[case]
    assert report["ok"] and report["same"], report["repr"]
    assert (report["attributes"], report["not_followed"]) == ([], [])
    assert report["repr"].startswith("Exact resume: saved after mini-batch ")


def test_it_leaves_no_trace_and_the_processes_go_on(found: dict[str, Any]) -> None:
    assert found["no trace"] is True
    assert (found["history"], found["after all"]) == (2, 1)


def test_a_fault_in_one_process_is_found_in_all_and_names_it(found: dict[str, Any]) -> None:
    report = found["one faulty"]
    assert not report["ok"] and report["same"]
    assert [line.partition(": list")[0] for line in report["attributes"]] == [
        "process 1: __main__.CALLS"
    ]
    assert report["cause"].startswith("in process 1, the resume does not bring back __main__.CALLS")
    assert "So mini-batch 9 holds other data." in report["cause"]
    assert any(line.startswith("model.0.weight: ") for line in report["differences"])
    assert any(
        line.startswith("process 1: model.1.running_mean: ") for line in report["differences"]
    )


def test_a_fault_that_the_other_processes_do_not_see_is_found(found: dict[str, Any]) -> None:
    report = found["forgets"]
    assert report["differences"] == ["process 1: callbacks.Forgets.num: 4 and 2"]
    expected = (
        "in process 1, the resume does not bring back Forgets.num: 2 in the unbroken run, not"
    )
    assert report["cause"].startswith(expected)
    assert report["same"]


def test_a_fault_in_all_processes_is_told_once(found: dict[str, Any]) -> None:
    report = found["all faulty"]
    assert report["attributes"] == ["model.scale: 3.5 in the unbroken run, 1.0 in the resumed one"]
    assert report["cause"].startswith("the resume does not bring back model.scale: ")


def test_a_run_that_is_not_deterministic_in_one_process_is_told(found: dict[str, Any]) -> None:
    assert found["random"]["cause"].startswith("two unbroken runs differ as well")
    assert found["random"]["same"]


def test_the_failure_of_one_process_is_raised_in_all(found: dict[str, Any]) -> None:
    assert found["failing"].startswith("The run 'unbroken' of verify_resume failed in process 1:")
    assert "ZeroDivisionError: in the hook" in found["failing"]


def test_a_fit_with_fewer_mini_batches_is_run_whole(found: dict[str, Any]) -> None:
    assert found["shorter"]["ok"] and found["shorter"]["same"]


def test_the_command_proves_each_fit_in_all_processes_and_prints_once(tmp_path: Path) -> None:
    command = ["verify", "--steps", "6", "--fits", "2", SCRIPTS / "verifying.py"]
    ended = launch("command.py", 2, *command, tmp_path / "any", "fits")
    assert ended.code != 0
    first, second = [line for line in ended.out.splitlines() if "exact resume: " in line.lower()]
    assert first.startswith("verifying.py, line ") and ": Exact resume: " in first
    assert ": NOT an exact resume: " in second
    assert "Likely cause: in process 1, the resume does not bring back __main__.CALLS" in ended.out
