"""A run has an id of its own that stays in its folder, and one living process at a time."""

from __future__ import annotations

import errno
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from deepepochs.errors import CheckpointError, ConfigError, ConfigTypeError, RunLockedError
from deepepochs.runs.folder import check_running_id, new_running_id, run_folder
from deepepochs.runs.lock import RunLock

posix = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX")


# --- ids


def test_a_new_id_has_the_time_to_the_minute_and_two_words() -> None:
    before = time.strftime("%Y-%m-%d_%H%M")
    made = new_running_id()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_\d{4}_[a-z]+-[a-z]+", made)
    assert before <= made[:15] <= time.strftime("%Y-%m-%d_%H%M")


def test_a_new_id_is_that_of_no_folder(tmp_path: Path) -> None:
    made = set()
    for _ in range(600):  # of 4096 in a minute: some would come twice
        name = new_running_id([tmp_path / "none", tmp_path])
        (tmp_path / name).mkdir()
        made.add(name)
    assert len(made) == 600


def test_where_all_words_are_taken_ids_get_digits() -> None:
    class Full(type(Path())):  # type: ignore[misc]
        def exists(self, **options: Any) -> bool:
            return True

    made = {new_running_id([Full("logs")]) for _ in range(20)}
    assert len(made) == 20 and all(re.search(r"_[a-z]+-[a-z]+-[0-9a-f]{8}$", name) for name in made)


def test_a_new_id_draws_from_no_random_state_of_the_script() -> None:
    states = random.getstate(), str(np.random.get_state()), torch.get_rng_state()
    new_running_id()
    assert (random.getstate(), str(np.random.get_state())) == states[:2]
    assert torch.equal(torch.get_rng_state(), states[2])


def test_a_new_id_is_a_good_one() -> None:
    running_id = new_running_id()
    assert check_running_id(running_id) == running_id


@pytest.mark.parametrize(
    ("running_id", "name"),
    [
        (1, "1"),
        (np.int64(7), "7"),
        ("lr=0.1 run", "lr=0.1 run"),
        ("试验_1", "试验_1"),
        ("a..b", "a..b"),
    ],
)
def test_a_string_or_integer_is_an_id(running_id: Any, name: str) -> None:
    assert check_running_id(running_id) == name
    assert run_folder("logs", running_id) == Path("logs") / name


@pytest.mark.parametrize(
    "running_id",
    [
        "",
        ".",
        "..",
        "../x",
        "a/b",
        "/etc",
        "a\\b",
        "..\\x",
        "C:x",
        "C:",
        "a\0b",
        "a\nb",
        " a",
        "a ",
        "a.",
        "...",
        "x" * 201,
        "\ud800",
    ],
    ids=repr,
)
def test_an_id_that_is_no_name_of_one_folder_is_refused(running_id: str) -> None:
    with pytest.raises(ConfigError, match="one folder inside ckpt_dir"):
        run_folder("logs", running_id)


@pytest.mark.parametrize("running_id", [None, 1.5, True, b"a", Path("a"), ["a"]], ids=repr)
def test_an_id_of_another_type_is_refused(running_id: Any) -> None:
    with pytest.raises(ConfigTypeError, match="give a string or an integer"):
        check_running_id(running_id)


# --- the lock, within one process


def test_the_lock_is_held_inside_the_block_and_free_after_it(tmp_path: Path) -> None:
    with RunLock(tmp_path / "run") as lock:
        assert lock.held
    assert not lock.held
    with RunLock(tmp_path / "run"):
        pass


def test_an_error_in_the_block_frees_the_lock(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), RunLock(tmp_path):
        raise ZeroDivisionError
    RunLock(tmp_path).acquire()


def test_two_trainers_of_one_process_cannot_share_a_run(tmp_path: Path) -> None:
    with RunLock(tmp_path), pytest.raises(RunLockedError, match="this very process") as caught:
        RunLock(tmp_path).acquire()
    assert str(os.getpid()) in str(caught.value)
    assert "another running_id" in str(caught.value)


def test_one_lock_counts_how_often_it_was_taken(tmp_path: Path) -> None:
    lock = RunLock(tmp_path)
    with lock:
        with lock:
            pass
        with pytest.raises(RunLockedError):
            RunLock(tmp_path).acquire()
    lock.release()
    assert not lock.held


def test_runs_of_other_ids_do_not_meet(tmp_path: Path) -> None:
    with RunLock(tmp_path / "a"), RunLock(tmp_path / "b"):
        pass


def test_copying_the_folder_does_not_free_it(tmp_path: Path) -> None:
    with RunLock(tmp_path / "run"):
        shutil.copytree(tmp_path / "run", tmp_path / "copy")
        assert refused_elsewhere(tmp_path / "run")


def test_a_folder_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(CheckpointError, match=r"cannot lock the run in .*file"):
        RunLock(tmp_path / "file" / "run").acquire()


@posix
@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK])
def test_a_file_system_without_locks_warns(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", no_locks)
    with pytest.warns(RuntimeWarning, match="has no locks"), RunLock(tmp_path):
        pass


# --- the lock, between processes

HOLD = """
import json, os, signal, sys
sys.path[:0] = json.loads(sys.argv[2])
from deepepochs.runs.lock import RunLock
with RunLock(sys.argv[1]):
    {inside}
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(folder: Path, inside: str = "pass") -> subprocess.Popen[str]:
    """A process that holds the lock of the folder until it is killed, or has been refused."""
    code = HOLD.replace("{inside}", inside)
    command = [sys.executable, "-c", code, str(folder), json.dumps(sys.path)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


@contextmanager
def held_elsewhere(folder: Path, inside: str = "pass") -> Iterator[subprocess.Popen[str]]:
    process = holder(folder, inside)
    with process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def refused_elsewhere(folder: Path) -> bool:
    """Whether another process is refused."""
    process = holder(folder)
    with process:
        try:
            assert process.stdout
            assert process.stderr
            return (
                process.stdout.readline() != "held\n" and "RunLockedError" in process.stderr.read()
            )
        finally:
            process.kill()


def test_a_second_process_is_refused_with_a_sentence_until_the_first_is_killed(
    tmp_path: Path,
) -> None:
    with held_elsewhere(tmp_path) as process:
        with pytest.raises(RunLockedError) as caught:
            RunLock(tmp_path).acquire()
        message = str(caught.value)
        assert f"in use by process {process.pid} on " in message
        assert f" since {time.strftime('%Y-')}" in message
        process.send_signal(signal.SIGTERM if os.name == "nt" else signal.SIGKILL)
        process.wait()
        RunLock(tmp_path).acquire()


@posix
def test_a_forked_worker_neither_holds_the_lock_nor_outlives_it(tmp_path: Path) -> None:
    # The child speaks only when the fork is over for it, too.
    fork = "if not os.fork(): print(os.getpid(), flush=True)\n    signal.pause()"
    process = holder(tmp_path, fork)
    with process:
        assert process.stdout
        child = int(process.stdout.readline())
        try:
            process.kill()
            process.wait()
            os.kill(child, 0)  # it lives on
            with RunLock(tmp_path):
                pass
        finally:
            os.kill(child, signal.SIGKILL)


@posix
def test_a_program_started_meanwhile_does_not_hold_the_lock(tmp_path: Path) -> None:
    lock = RunLock(tmp_path)
    lock.acquire()
    with subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE) as child:
        lock.release()
        with RunLock(tmp_path):
            assert child.poll() is None
        child.kill()


@posix
def test_the_child_of_a_fork_does_not_free_its_parents_lock(tmp_path: Path) -> None:
    inside = "child = os.fork()\n    if not child: sys.exit(0)\n    os.waitpid(child, 0)"
    with held_elsewhere(tmp_path, inside), pytest.raises(RunLockedError):
        RunLock(tmp_path).acquire()


def test_an_unreadable_note_still_gives_a_sentence(tmp_path: Path) -> None:
    with held_elsewhere(tmp_path):
        (tmp_path / ".run.holder.json").write_text("half a no")
        with pytest.raises(RunLockedError, match="in use by another process: "):
            RunLock(tmp_path).acquire()


def test_what_a_killed_process_wrote_does_not_lock(tmp_path: Path) -> None:
    (tmp_path / ".run.lock").write_text("")
    (tmp_path / ".run.holder.json").write_text('{"pid": 1, "host": "x", "since": 0}')
    with RunLock(tmp_path) as lock:
        assert lock.held
