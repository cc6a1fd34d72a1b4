"""Models sharded with ``fully_shard`` compute, save and resume as those in one process."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

from launching import Ended, launch, results
from test_same_numbers import differences

pytestmark = pytest.mark.skipif(
    torch.__version__ < "2.13", reason="older releases shard over CPUs with wrong gradients"
)

CASES = [
    "function_metrics", "mean_and_confusion", "returned_patches", "whole_batches", "few_samples",
    "streams", "ready_batches", "accumulated", "averaged", "frozen_first", "by_hand", "several", "plateau", "predictions",
    "early_stop", "clipped", "hybrid", "auto", "checkpoints", "watched", "in_bf16", "own_buffers",
]  # fmt: skip


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, Any]]:
    """The results of all cases by number of processes; 1 is whole, without a launcher."""
    folder = tmp_path_factory.mktemp("cases")
    return {n or 1: results("sharded_cases.py", n, folder) for n in (0, 2, 3)}


@pytest.mark.parametrize("num_processes", [2, 3])
@pytest.mark.parametrize("case", CASES)
def test_a_sharded_model_gives_the_numbers_of_a_whole_one(
    found: dict[int, dict[str, Any]], case: str, num_processes: int
) -> None:
    assert differences(found[1][case], found[num_processes][case]) == []


@pytest.mark.parametrize("num_processes", [2, 3])
def test_weights_are_in_shards_after_a_validation_and_the_model_is_not_wrapped(
    found: dict[int, dict[str, Any]], num_processes: int
) -> None:
    assert found[num_processes]["auto"]["one kind of weights"] is True
    assert found[num_processes]["auto"]["not wrapped"] is True


@pytest.mark.parametrize("num_processes", [2, 3])
def test_the_best_weights_are_tested_and_can_be_read_without_processes(
    found: dict[int, dict[str, Any]], num_processes: int
) -> None:
    saved = found[num_processes]["checkpoints"]
    assert saved["tested"] == pytest.approx(saved["best"], rel=1e-5)
    assert saved["alone"] == pytest.approx(saved["best"], rel=1e-5)
    for what in ("put back", "the last is another", "one entry", "back again"):
        assert saved[what] is True, what
    assert saved["steps of the optimizer that read it"] == 0


@pytest.mark.parametrize("num_processes", [2, 3])
def test_a_search_leaves_the_weights_and_a_nan_stops_before_it_spoils_them(
    found: dict[int, dict[str, Any]], num_processes: int
) -> None:
    watched = found[num_processes]["watched"]
    assert watched["the search left the weights"] is True
    assert watched["stopped"] is True
    assert watched["weights kept"] is True


@pytest.mark.parametrize("num_processes", [2, 3])
def test_bf16_is_that_of_the_policy_and_weights_stay_in_float32(
    found: dict[int, dict[str, Any]], num_processes: int
) -> None:
    bf16 = found[num_processes]["in_bf16"]
    assert bf16 == {"seen": ["torch.bfloat16"], "learns": True, "weights": ["torch.float32"]}


@pytest.mark.parametrize("num_processes", [2, 3])
def test_batch_statistics_are_the_same_in_all_processes(
    found: dict[int, dict[str, Any]], num_processes: int
) -> None:
    assert found[num_processes]["own_buffers"] == {"same": True, "counts": [4]}


RESUMES = ["shuffled", "accumulating", "by_hand", "streams"]
OF_THREE = "shuffled in three processes"


@pytest.fixture(scope="module")
def resumed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("resuming")
    of_three = results("sharded_resuming.py", 3, folder, "shuffled")
    return {**results("sharded_resuming.py", 2, folder, *RESUMES), OF_THREE: of_three["shuffled"]}


@pytest.mark.parametrize("case", [*RESUMES, OF_THREE])
def test_a_resume_at_any_save_point_is_exact_in_every_process(
    resumed: dict[str, Any], case: str
) -> None:
    assert len(resumed[case]["tried"]) >= 4
    assert resumed[case]["differing"] == []
    assert resumed[case]["control differs"] is True


def start(folder: Path, kind: str, *kinds: str, num_processes: int = 2) -> Ended:
    folder.mkdir(exist_ok=True)
    return launch("faulty.py", num_processes, folder, kind, *kinds, cwd=folder)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unbroken")
    ended = start(folder, "none", "sharded")
    assert ended.code == 0, ended.err
    assert "2 processes, gloo, cpu, sharded model" in ended.out
    return folder


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {}
    for kind in ("sigterm", "sigkill"):
        folders[kind] = tmp_path_factory.mktemp(kind)
        assert start(folders[kind], kind, "sharded").code != 0
    return folders


@pytest.mark.parametrize("kind", ["sigterm", "sigkill"])
def test_a_stopped_or_killed_run_goes_on_to_the_bit(
    unbroken: Path, broken: dict[str, Path], kind: str, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(broken[kind], folder)
    ended = start(folder, "none", "sharded")
    assert ended.code == 0, ended.err
    assert "resuming run" in ended.out
    first, second = (torch.load(path / "found.pt") for path in (unbroken, folder))
    assert first["history"] == second["history"]
    assert first["weights"].keys() == second["weights"].keys()
    for name, weight in first["weights"].items():
        assert torch.equal(weight, second["weights"][name]), name


@pytest.mark.parametrize("kinds", [["sharded"], []])
def test_a_resume_in_another_way_is_refused_in_time(
    broken: dict[str, Path], tmp_path: Path, kinds: list[str]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(broken["sigterm"], folder)
    number = 3 if kinds else 2  # other processes; or as many, with the whole model in each
    ended = start(folder, "none", *kinds, num_processes=number)
    assert ended.code == 1
    assert "load_weights" in ended.err
    assert ("saved by 2 processes, and this run has 3" in ended.err) == bool(kinds)


def test_the_example_gives_the_same_numbers_alone_and_sharded(tmp_path: Path) -> None:
    example = Path(__file__).parents[2] / "examples" / "23-fsdp.py"
    found = []
    for number in (0, 2):
        ended = launch(example, number, cwd=tmp_path)
        assert ended.code == 0, ended.err
        lines = re.findall(r"^(?:training losses|test loss): (.*)$", ended.out, re.MULTILINE)
        found.append([float(loss) for loss in " ".join(lines).split()])
    assert len(found[0]) == 7
    # Sums in another order may change the last of the four decimals that are shown.
    assert found[1] == pytest.approx(found[0], abs=3e-4)
