"""SIGTERM and Ctrl-C end a fit at the next mini-batch, saved; a second Ctrl-C ends it at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from deepepochs import Callback
from deepepochs.checkpoint import load
from deepepochs.fit.save_points import StopSignals

sys.path.insert(0, str(Path(__file__).parent))
from exact_runs import base_fit
from killable import Forked, read_result, same

SCRIPT = Path(__file__).parent / "killable.py"

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")


def wait_for(process: Forked, line: str) -> None:
    for found in process.stdout:
        if found.strip() == line:
            return
    raise AssertionError(f"the script ended before {line!r}: {process.wait()} {process.errors}")


def finish(folder: Path, *options: str) -> Any:
    """Run the script to its end and give its result."""
    process = Forked(folder, "--epochs=2", *options)
    assert process.wait() == 0, process.errors
    return read_result(folder)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The result of the run that nobody disturbs."""
    return finish(tmp_path_factory.mktemp("whole"))


def num_done(folder: Path) -> tuple[int, int]:
    state = load(folder / "run" / "checkpoint.ckpt")
    progress, epoch = state["progress"], state["epoch"]
    running = 0 if epoch is None else epoch["run"]["batch_idx"] + 1
    if progress["num_train_batches"] % 8:  # 8 mini-batches of training an epoch
        raise AssertionError("finished passes hold whole epochs")
    stages = [] if epoch is None else epoch["begun"]
    if "val" in stages:
        return progress["num_train_batches"], progress["num_val_batches"] + running
    return progress["num_train_batches"] + running, progress["num_val_batches"]


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("place", ["train 11 4", "val 8 2"])
@pytest.mark.parametrize("options", [(), ("--background",)], ids=["at once", "background"])
def test_the_signal_saves_within_a_mini_batch_and_the_resumed_run_is_the_unbroken_one(
    kind: signal.Signals, options: tuple[str, ...], place: str, tmp_path: Path, whole: Any
) -> None:
    process = Forked(tmp_path, "--epochs=2", "--progress", f"--hold={place}", *options)
    wait_for(process, place)
    os.kill(process.pid, kind)
    code = process.wait()
    if kind is signal.SIGTERM:
        assert code == 143, process.errors
    else:
        assert code == -signal.SIGINT and "KeyboardInterrupt" in process.errors
    told = sum(map(int, place.split()[1:]))
    assert told <= sum(num_done(tmp_path)) <= told + 1
    assert not (tmp_path / "run.result.pt").exists()
    assert same(finish(tmp_path), whole)


def test_a_script_started_from_a_shell_ends_with_143_after_sigterm(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), str(tmp_path), "--progress", "--hold=train 1 0"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "no checkpoint in " + f"{tmp_path}: training starts anew\n"
    assert process.stdout.readline() == "train 1 0\n"
    process.terminate()
    process.communicate()
    assert process.returncode == 143
    assert 1 <= num_done(tmp_path)[0] <= 2


def test_ctrl_c_to_the_whole_group_with_workers_saves_and_resumes_exactly(tmp_path: Path) -> None:
    process = Forked(tmp_path, "--epochs=2", "--workers=2", "--progress", "--hold=train 3 0")
    wait_for(process, "train 3 0")
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait() == -signal.SIGINT, process.errors
    assert "DataLoader worker" not in process.errors
    assert 3 <= num_done(tmp_path)[0] <= 4
    resumed = finish(tmp_path, "--workers=2")
    assert same(resumed, finish(tmp_path / "unbroken", "--workers=2"))


@pytest.mark.parametrize(("kind", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_with_return_ctrl_c_ends_the_fit_alone_and_sigterm_the_process_all_the_same(
    kind: signal.Signals, code: int, tmp_path: Path
) -> None:
    process = Forked(tmp_path, "--progress", "--hold=train 2 0", "--on-interrupt=return")
    wait_for(process, "train 2 0")
    os.kill(process.pid, kind)
    assert process.wait() == code, process.errors
    assert (tmp_path / "run" / "checkpoint.ckpt").exists()
    assert (tmp_path / "run.result.pt").exists() == (code == 0)
    if code == 0:
        assert read_result(tmp_path)["history"] == {}


def test_a_second_ctrl_c_stops_at_once_and_saves_nothing() -> None:
    class Twice(Callback):
        def on_after_backward(self, **others: Any) -> None:
            signal.raise_signal(signal.SIGINT)
            reached.append("after the first")
            signal.raise_signal(signal.SIGINT)
            reached.append("after the second")

    reached: list[str] = []
    saved: list[Any] = []
    trainer, options = base_fit(Twice(), Saves(saved))
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(**options)
    assert reached == ["after the first"]
    assert not saved


class Saves(Callback):
    """Asks to be called where a fit is stopped."""

    def __init__(self, saved: list[Any]) -> None:
        super().__init__()
        self.saved = saved

    def on_before_fit(self, trainer: Any, **others: Any) -> None:
        trainer.add_saver(lambda trainer: self.saved.append(trainer.progress))


class Sends(Callback):
    """Sends a signal to this process in the second mini-batch."""

    def __init__(self, kind: signal.Signals) -> None:
        super().__init__()
        self.kind = kind

    def on_before_train_batch(self, batch_idx: int, **others: Any) -> None:
        if batch_idx == 1:
            signal.raise_signal(self.kind)


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
def test_the_handlers_are_put_back_however_the_fit_ends(kind: signal.Signals) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    saved: list[Any] = []
    trainer, options = base_fit(Sends(kind), Saves(saved))
    with pytest.raises(SystemExit if kind is signal.SIGTERM else KeyboardInterrupt) as caught:
        trainer.fit(**options)
    if kind is signal.SIGTERM:
        assert caught.value.code == 143  # type: ignore[attr-defined]
    assert [progress.num_train_batches for progress in saved] == [2]
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_a_handler_of_the_user_is_called_after_the_save() -> None:
    saved: list[Any] = []
    seen: list[int] = []
    outer = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(len(saved)))
    try:
        trainer, options = base_fit(Sends(signal.SIGTERM), Saves(saved))
        trainer.fit(**options)
    finally:
        signal.signal(signal.SIGTERM, outer)
    assert seen == [1]


def test_a_signal_that_the_user_ignores_stays_ignored() -> None:
    outer = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        trainer, options = base_fit(Sends(signal.SIGTERM))
        assert len(trainer.fit(**options)["train"]["loss"]) == 2
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, outer)


def test_in_another_thread_no_handler_is_put_on() -> None:
    inside: list[Any] = []

    class Looks(Callback):
        def on_after_train_batch(self, **others: Any) -> None:
            inside.append(signal.getsignal(signal.SIGTERM))

    def fit() -> None:
        trainer, options = base_fit(Looks())
        trainer.fit(**options)

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=fit)
    thread.start()
    thread.join()
    assert inside and set(inside) == {before}


def test_importing_puts_on_no_handler() -> None:
    code = (
        "import signal; before = [signal.getsignal(n) for n in (2, 15)]; import deepepochs; "
        "assert before == [signal.getsignal(n) for n in (2, 15)]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_outside_of_a_fit_nothing_is_held_back() -> None:
    with StopSignals() as signals:
        assert signals.received is None
        signals.pass_on()
