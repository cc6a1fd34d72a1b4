"""What one process meets reaches all: signals, exceptions, kills; and how a script is started."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))

import read_console
from launching import Ended, launch

# From the fault to the end of the last process.
LIMIT_S = 60


def start(
    folder: Path, kind: str, num_processes: int = 2, *arguments: str, **options: Any
) -> Ended:
    folder.mkdir(exist_ok=True)
    return launch("faulty.py", num_processes, folder, kind, *arguments, cwd=folder, **options)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ended]:
    folder = tmp_path_factory.mktemp("unbroken")
    # As a user starts it: how the interpreter begins and ends is looked at, too.
    return folder, start(folder, "none", warm=False)


@pytest.fixture(scope="module")
def terminated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ended]:
    folder = tmp_path_factory.mktemp("terminated")
    return folder, start(folder, "sigterm")


def test_console_files_and_prints_are_those_of_the_main_process_only(
    unbroken: tuple[Path, Ended],
) -> None:
    folder, ended = unbroken
    assert ended.code == 0, ended.err
    assert ended.out.count("starts in 2") == 1
    assert [row.epoch for row in read_console.rows(ended.out)] == ["1/3", "2/3", "3/3"]
    assert ended.out.count("2 processes, gloo, cpu") == 1
    assert sorted(path.name for path in folder.iterdir()) == ["found.pt", "run"]
    assert len(list((folder / "run").glob("events.out.*"))) == 1
    assert len(list((folder / "run").glob("best*.ckpt"))) == 1


def test_all_processes_leave_their_group_before_the_interpreter_ends(
    unbroken: tuple[Path, Ended],
) -> None:
    out = unbroken[1].out
    assert out.count("in a group at the end: False") == 2
    if Path("/proc/self/task").is_dir():
        # A thread that lives on can abort the process; the script's own variables hold the model.
        assert out.count("threads of gloo at the end: 0") == 2


def test_sigterm_in_one_process_saves_and_ends_all_with_143(
    terminated: tuple[Path, Ended],
) -> None:
    folder, ended = terminated
    assert ended.code != 0
    # torchrun lists the processes that failed.
    assert ended.err.count("exitcode  : 143") >= 1
    assert "exitcode  : 1 " not in ended.err
    assert (folder / "run" / "checkpoint.ckpt").exists()
    assert not (folder / "found.pt").exists()


def test_a_resume_after_sigterm_is_the_unbroken_run(
    unbroken: tuple[Path, Ended], terminated: tuple[Path, Ended], tmp_path: Path
) -> None:
    folder = tmp_path / "resumed"
    shutil.copytree(terminated[0], folder)
    ended = start(folder, "none")
    assert ended.code == 0, ended.err
    assert "resuming run" in ended.out
    first, second = (torch.load(path / "found.pt") for path in (unbroken[0], folder))
    assert first["history"] == second["history"]
    assert first["weights"].keys() == second["weights"].keys()
    for name, weight in first["weights"].items():
        assert torch.equal(weight, second["weights"][name]), name


def test_a_resume_in_another_number_of_processes_is_refused(
    terminated: tuple[Path, Ended], tmp_path: Path
) -> None:
    folder = tmp_path / "alone"
    shutil.copytree(terminated[0], folder)
    ended = start(folder, "none", 0)
    assert ended.code == 1
    assert "saved by 2 processes, and this run has 1" in ended.err
    assert "load_weights" in ended.err


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
def test_the_end_of_a_process_is_noticed_while_a_fork_of_it_lives(tmp_path: Path) -> None:
    ended = launch("forking.py", 2, tmp_path)
    assert ended.code == 0, ended.err
    found = json.loads((tmp_path / "found.json").read_text())
    assert "has lost the connection to another process" in found["process 0"]
    assert found["is early"] is True
    assert "This process is a fork of process 1" in found["in fork"]


def test_saved_in_the_background_two_processes_stop_resume_and_end_as_unbroken(
    unbroken: tuple[Path, Ended], tmp_path: Path
) -> None:
    assert start(tmp_path, "sigterm", 2, "background").err.count("exitcode  : 143") >= 1
    ended = start(tmp_path, "none", 2, "background")
    assert ended.code == 0, ended.err
    assert "resuming run" in ended.out
    first, second = (torch.load(path / "found.pt") for path in (unbroken[0], tmp_path))
    assert first["history"] == second["history"]
    saved = torch.load(tmp_path / "run" / "checkpoint.ckpt", weights_only=True)["state"]["model"]
    for name, weight in first["weights"].items():
        assert torch.equal(weight, second["weights"][name]), name
        assert torch.equal(weight, saved[name]), name


def test_an_error_of_the_thread_that_writes_ends_all_processes(tmp_path: Path) -> None:
    ended = start(tmp_path, "blocked", 2, "background")
    assert ended.code == 1, ended.err
    assert "there is a folder of that name" in ended.err
    assert "Process 0 cannot save its checkpoint" in ended.err


@pytest.mark.parametrize("kind", ["exception", "metric", "waiting", "sigkill"])
def test_a_fault_in_one_process_ends_all_soon(kind: str, tmp_path: Path) -> None:
    ended = start(tmp_path, kind)
    ended_at_s = time.monotonic()
    assert ended.code == 1, ended.err
    faults = re.findall(r"^fault at (.+)$", ended.out, re.MULTILINE)
    assert ended_at_s - float(faults[0]) < LIMIT_S
    if kind == "sigkill":
        assert ended.err.count("Signal 9 (SIGKILL)") == 1
    else:
        assert ended.err.count("ValueError: the fault of the test") == 1


def test_the_same_script_runs_alone_and_under_accelerate_launch(tmp_path: Path) -> None:
    alone = start(tmp_path / "alone", "none", 0)
    assert alone.code == 0, alone.err
    assert "starts in 1" in alone.out
    assert " parameters · cpu · " in alone.out
    # Without GPUs or MPI it starts one process.
    launched = start(tmp_path / "launched", "none", 1, launcher="accelerate")
    assert launched.code == 0, launched.err
    assert "starts in 1" in launched.out
