"""Saves in the background: a thread writes the state of the moment while training goes on."""

from __future__ import annotations

import copy
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import warnings
from collections import Counter, OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from deepepochs import Callback, CheckCallback, CheckpointError, Trainer
from deepepochs.checkpoint import CheckpointStore, load, save
from deepepochs.checkpoint.writer import Writer
from deepepochs.files.atomic import leftovers
from deepepochs.nest.codec import to_plain

sys.path.insert(0, str(Path(__file__).parent))
from exact_runs import Fit, base_fit, flat

LIMIT_S = 60  # against a hang alone
posix = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX")


class Gate:
    """Lets a thread that writes a checkpoint wait within the write, until it is opened."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()
        self.save = torch.save

    def __call__(self, *arguments: Any, **options: Any) -> None:
        if threading.current_thread() is not threading.main_thread():
            self.reached.set()
            assert self.opened.wait(LIMIT_S)
        self.save(*arguments, **options)

    def open_soon(self) -> None:
        """Open it in a moment, from another thread."""
        threading.Timer(0.05, self.opened.set).start()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    gate = Gate()
    monkeypatch.setattr(torch, "save", gate)
    yield gate
    gate.opened.set()


class At(Callback):
    """Does something before a mini-batch of training, the first being 0."""

    def __init__(self, batch: int, action: Any) -> None:
        super().__init__()
        self.batch, self.action = batch, action

    def on_before_train_batch(self, trainer: Any, **others: Any) -> None:
        if trainer.progress.num_train_batches - 1 == self.batch:
            self.action(trainer)


def make(folder: Path, *others: Callback, background: bool = True, **check: Any) -> Fit:
    """A fit of two epochs of four mini-batches."""
    callback = CheckCallback("loss", ckpt_dir=folder, background=background, **check)
    return base_fit(callback, *others, running_id="r", epochs=2)


def run(fit: Fit) -> Any:
    return fit.trainer.fit(**fit.options)


def content(path: Path) -> dict[str, Any]:
    """What a checkpoint holds, without the arguments of callbacks and what a clock has said."""
    state = load(path)
    del state["callbacks"]["made with"]
    return {name: value for name, value in flat(state).items() if "timing" not in name}


def a_state() -> dict[str, Any]:
    """One with memory that is shared, odd tensors, and containers that are not plain."""
    base, tied = torch.arange(12.0), torch.ones(3, dtype=torch.float64)
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    return dict(
        to_plain(
            {
                "tied": [tied, tied.detach(), tied],
                "views": (base[2:9], base.reshape(3, 4).t(), base[::2]),
                "empty": torch.empty(0, 3),
                "half": torch.ones(2, dtype=torch.bfloat16),
                "sparse": torch.eye(3).to_sparse(),
                "module": module.state_dict(),
                "counts": Counter(a=2),
                "ordered": OrderedDict(b=[1, {2.0, None}]),
                "bytes": bytearray(b"abc"),
            }
        )
    )


def change(value: Any) -> None:
    """Change everything that can be changed in place."""
    if isinstance(value, torch.Tensor) and value.layout is torch.strided:
        value.add_(1)
    elif isinstance(value, bytearray):
        value[:] = b"xyz"
    elif isinstance(value, dict):
        for item in value.values():
            change(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            change(item)


# --- what is written


def test_the_file_is_to_the_bit_the_one_that_a_save_at_once_writes(
    tmp_path: Path, gate: Gate
) -> None:
    state, writer = a_state(), Writer(background=True)
    for name in ("one", "two"):  # the second goes to the memory of the first
        gate.opened.clear()
        save(tmp_path / f"{name} at once", state)
        writer.write(lambda copied, name=name: save(tmp_path / f"{name} later", copied), state)  # type: ignore[misc]
        assert gate.reached.wait(LIMIT_S)
        change(state)
        gate.opened.set()
        writer.wait()
        at_once, later = (tmp_path / f"{name} {way}" for way in ("at once", "later"))
        assert at_once.read_bytes() == later.read_bytes()
    assert (tmp_path / "one later").read_bytes() != (tmp_path / "two later").read_bytes()


def test_a_tensor_that_is_a_conjugate_is_copied_with_its_values(tmp_path: Path) -> None:
    value, writer = torch.tensor([1 + 2j]).conj(), Writer(background=True)
    writer.write(lambda state: save(tmp_path / "x.ckpt", state), {"value": value})
    writer.wait()
    assert load(tmp_path / "x.ckpt")["value"].tolist() == [1 - 2j]


def test_training_goes_on_while_the_state_of_the_moment_is_written(
    tmp_path: Path, gate: Gate
) -> None:
    seen = []

    def look(trainer: Trainer) -> None:
        seen.append(
            (gate.reached.wait(LIMIT_S), trainer.run_dir.joinpath("checkpoint.ckpt").exists())
        )
        gate.opened.set()

    # Saved after the third mini-batch, and written after the fourth.
    run(make(tmp_path / "later", At(3, look), every_n_batches=3))
    run(make(tmp_path / "once", every_n_batches=3, background=False))
    assert seen == [(True, False)]
    for name in ("checkpoint.ckpt", "previous.ckpt", "best.ckpt"):
        one, other = (content(tmp_path / way / "r" / name) for way in ("later", "once"))
        assert one == other


def test_a_run_of_either_kind_resumes_as_the_other(tmp_path: Path) -> None:
    whole = run(make(tmp_path / "whole"))
    for background in (True, False):
        folder = tmp_path / str(background)
        fit = make(folder, At(5, lambda trainer: trainer.stop("enough")), background=background)
        run(fit)
        check = CheckCallback("loss", ckpt_dir=folder, background=not background)
        again = base_fit(check, running_id="r", epochs=2, resume="auto")
        assert run(again) == whole
        assert again.trainer.is_resumed or again.trainer.progress.epoch_idx == 2


# --- what waits for it


def test_the_next_save_waits_for_the_one_before() -> None:
    gate, done = threading.Event(), list[int]()
    writer, other = Writer(background=True), Writer(background=True)

    def first(state: Any) -> None:
        assert gate.wait(LIMIT_S)
        done.append(1)

    for second in (writer, other):  # of the same callback and of another one
        gate.clear()
        done.clear()
        writer.write(first, {})
        threading.Timer(0.05, gate.set).start()
        second.write(lambda _: None, {})
        assert done == [1]
        second.wait()


def test_what_reads_a_checkpoint_waits_for_the_write(tmp_path: Path, gate: Gate) -> None:
    found = []

    def read(trainer: Trainer) -> None:
        gate.open_soon()
        found.append(load(trainer.run_dir / "checkpoint.ckpt")["progress"]["epoch_idx"])

    run(make(tmp_path, At(5, read)))
    assert found == [1]


def test_load_best_in_a_hook_takes_what_the_thread_writes(tmp_path: Path, gate: Gate) -> None:
    found = []

    def take(trainer: Trainer) -> None:
        gate.open_soon()
        found.append(trainer.load_best() is trainer)

    run(make(tmp_path, At(5, take)))
    assert found == [True]


def test_the_hooks_after_a_fit_find_all_written_and_nothing_is_kept(tmp_path: Path) -> None:
    found = []

    class Looks(Callback):
        def on_after_fit(self, trainer: Any) -> None:
            path = trainer.run_dir / "checkpoint.ckpt"
            found.append(torch.load(path, weights_only=True)["state"]["progress"]["epoch_idx"])

    fit = make(tmp_path, Looks())
    run(fit)
    assert found == [2]
    writer = fit.trainer.checker._writer
    assert writer._thread is None and not writer._copies._used


def test_the_lock_of_the_folder_is_kept_until_all_is_written(tmp_path: Path, gate: Gate) -> None:
    found = []

    def fail(trainer: Trainer) -> None:
        folder = trainer.run_dir

        def look() -> None:
            found.append((folder / ".lock").exists() or any(folder.glob("*lock*")))
            gate.opened.set()

        threading.Timer(0.2, look).start()
        raise ValueError("the fault of the test")

    with pytest.raises(ValueError, match="the fault of the test"):
        run(make(tmp_path, At(5, fail)))
    assert found == [True]
    assert load(tmp_path / "r" / "checkpoint.ckpt")["progress"]["epoch_idx"] == 1


@posix
def test_a_ctrl_c_while_it_is_waited_for_ends_the_waiting_alone() -> None:
    gate, done, writer = threading.Event(), list[int](), Writer(background=True)

    def write(_: Any) -> None:
        assert gate.wait(LIMIT_S)
        done.append(1)

    writer.write(write, {})
    main = threading.main_thread().ident
    threading.Timer(0.05, signal.pthread_kill, [main, signal.SIGINT]).start()
    with pytest.raises(KeyboardInterrupt):
        writer.wait()
    assert not done
    threading.Timer(0.05, gate.set).start()
    writer.wait()
    assert done == [1]


@posix
def test_the_interpreter_does_not_exit_before_all_is_written(tmp_path: Path) -> None:
    script = """
import sys, time, torch
from deepepochs.checkpoint import save
from deepepochs.checkpoint.writer import Writer
def write(state):
    time.sleep(0.2)
    save(sys.argv[1], state)
Writer(background=True).write(write, {"epoch": 3})
"""
    path = tmp_path / "x.ckpt"
    subprocess.run([sys.executable, "-c", script, str(path)], check=True)
    assert load(path) == {"epoch": 3}


# --- faults


def block(trainer: Trainer) -> None:
    """Have each write of the last checkpoint fail."""
    trainer.run_dir.joinpath("checkpoint.ckpt").mkdir(parents=True)


@pytest.mark.parametrize("every", [2, None])
def test_an_error_in_the_thread_is_raised_by_the_next_save_or_the_end_of_the_fit(
    every: int | None, tmp_path: Path
) -> None:
    seen = []

    class Looks(Callback):
        def on_before_train_batch(self, trainer: Any, **others: Any) -> None:
            seen.append(trainer.progress.num_train_batches - 1)

        def on_after_fit(self, trainer: Any) -> None:
            seen.append("finished")

    fit = make(tmp_path, At(0, block), Looks(), every_n_batches=every)
    with pytest.raises(CheckpointError, match=r"cannot save .*there is a folder of that name"):
        fit.trainer.fit(**fit.options, epochs=2 if every else 1)
    assert seen == [0, 1, 2, 3]
    record = json.loads((tmp_path / "r" / "run.json").read_text())
    assert record["state"] == "failed"
    assert "there is a folder of that name" in record["error"]


@posix
def test_a_full_disk_in_the_thread_leaves_the_older_file(tmp_path: Path) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    state = {"w": torch.ones(100_000)}
    store, writer = CheckpointStore(tmp_path), Writer(background=True)
    writer.write(store.save, {**state, "epoch": 1})
    writer.wait()
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        writer.write(store.save, {**state, "epoch": 2})
        with pytest.raises(CheckpointError, match="File too large"):
            writer.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert load(store.last)["epoch"] == 1
    assert not leftovers(tmp_path)
    writer.wait()  # told once
    writer.write(store.save, {**state, "epoch": 3})
    writer.wait()
    assert load(store.last)["epoch"] == 3


def test_where_the_fit_fails_of_itself_the_failed_save_is_a_warning(tmp_path: Path) -> None:
    def fail(trainer: Trainer) -> None:
        raise ValueError("the fault of the test")

    fit = make(tmp_path, At(0, block), At(5, fail))
    with (
        pytest.warns(UserWarning, match="The last save failed: cannot save"),
        pytest.raises(ValueError, match="the fault of the test"),
    ):
        run(fit)


def test_a_second_ctrl_c_ends_the_fit_and_the_write_is_waited_for(
    tmp_path: Path, gate: Gate
) -> None:
    def interrupt(trainer: Trainer) -> None:
        gate.open_soon()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(make(tmp_path, At(5, interrupt)))
    assert load(tmp_path / "r" / "checkpoint.ckpt")["progress"]["epoch_idx"] == 1


@posix
def test_a_kill_while_the_thread_writes_leaves_the_older_file(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    store.save({"w": torch.zeros(1000), "epoch": 1}, best_place=1)
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks with threads
        pid = os.fork()
    if not pid:
        real = torch.save

        def stop_inside(content: Any, file: Any) -> None:
            real(content, file)
            file.flush()
            os.write(writing, b"x")
            threading.Event().wait(LIMIT_S)

        torch.save = stop_inside
        Writer(background=True).write(store.save, {"w": torch.ones(1000), "epoch": 2})
        threading.Event().wait(LIMIT_S)
        os._exit(1)
    os.read(reading, 1)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(reading)
    os.close(writing)
    assert len(leftovers(tmp_path)) == 1
    assert [load(path)["epoch"] for path in (store.last, store.best())] == [1, 1]
    store.save({"epoch": 3})
    assert not leftovers(tmp_path)


# --- beside other things


@posix
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_workers_that_are_forked_while_the_thread_writes_change_nothing(
    tmp_path: Path, gate: Gate
) -> None:
    at_work = []

    def look(trainer: Trainer) -> None:
        at_work.append(gate.reached.is_set() and not gate.opened.is_set())
        gate.opened.set()

    whole = run(with_workers(make(tmp_path / "once", background=False)))
    assert run(with_workers(make(tmp_path / "later", At(4, look)))) == whole
    assert at_work == [True]
    one, other = (content(tmp_path / way / "r" / "checkpoint.ckpt") for way in ("later", "once"))
    assert one == other


def with_workers(fit: Fit) -> Fit:
    loader = fit.options["train_dl"]
    workers = torch.utils.data.DataLoader(
        loader.dataset,
        loader.batch_size,
        shuffle=True,
        num_workers=2,
        multiprocessing_context="fork",
    )
    return fit._replace(options={**fit.options, "train_dl": workers})


def test_a_copy_or_pickle_of_the_callback_has_no_thread_and_saves_in_the_background(
    tmp_path: Path, gate: Gate
) -> None:
    copies: list[Any] = []

    def take(trainer: Trainer) -> None:
        check = trainer.checker
        copies.extend([copy.deepcopy(check), pickle.loads(pickle.dumps(check))])
        gate.opened.set()

    run(make(tmp_path, At(5, take)))
    for one in copies:
        assert one._writer.background and one._writer._thread is None
        run(base_fit(one, running_id="copy", epochs=1))
        assert load(tmp_path / "copy" / "checkpoint.ckpt")["progress"]["epoch_idx"] == 1


def test_background_is_true_or_false() -> None:
    with pytest.raises(TypeError, match="background='yes' is a str: give True or False"):
        CheckCallback("loss", background="yes")  # type: ignore[arg-type]
