"""A run's folder belongs to one run: an earlier one under its id is moved aside, and told."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from deepepochs import Callback, CheckCallback, LogCallback, ReportCallback, Trainer
from deepepochs.callbacks.event_files import EventFileCallback
from deepepochs.errors import CheckpointError, RunLockedError


def loader(seed: int = 0) -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(32, 4, generator=generator)
    return DataLoader(TensorDataset(x, (x[:, 0] > 0).long()), batch_size=8)


def make(running_id: Any, *callbacks: Callback, epochs: int = 2, **options: Any) -> Trainer:
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    given = list(callbacks) or [CheckCallback("loss"), LogCallback()]
    options = {"epochs": epochs, "show_info": False, "running_id": running_id, **options}
    return Trainer(model, F.cross_entropy, optimizer, callbacks=given, **options)


def fit(trainer: Trainer, **options: Any) -> Any:
    return trainer.fit(loader(), loader(1), **options)


def runs(folder: str = "logs") -> list[str]:
    return sorted(path.name for path in Path(folder).iterdir())


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


# --- what is moved


def test_a_fresh_run_moves_the_folder_of_an_earlier_one_aside_and_says_so(
    capsys: pytest.CaptureFixture[str],
) -> None:
    fit(make("a", epochs=3))
    old = {path.name: path.read_bytes() for path in Path("logs/a").iterdir()}
    capsys.readouterr()
    fit(make("a", epochs=1))
    moved = Path("logs/a.1")
    assert {path.name: path.read_bytes() for path in moved.iterdir()} == old
    assert capsys.readouterr().out.startswith(
        f"running ID a had an earlier run: its folder is {moved.absolute()} now\n"
    )


def test_a_run_under_an_id_of_its_own_moves_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    fit(make("a"))
    fit(make("b"))
    assert runs() == ["a", "b"]
    assert "earlier run" not in capsys.readouterr().out


def test_each_earlier_run_has_the_next_number() -> None:
    for _ in range(3):
        fit(make("a", epochs=1))
    Path("logs/a.1").rename("logs/kept")
    fit(make("a", epochs=1))
    assert runs() == ["a", "a.2", "a.3", "kept"]


@pytest.mark.parametrize("running_id", [0, "试验 1", "lr=0.1 [x] *", "a.1"])
def test_any_id_can_be_run_again(running_id: Any) -> None:
    for _ in range(2):
        fit(make(running_id, epochs=1))
    assert runs() == [str(running_id), f"{running_id}.1"]


class Marks(EventFileCallback):
    """Writes event files, and nothing else."""

    def on_after_train_batch(self, trainer: Any, **others: Any) -> None:
        self.writer(trainer).add_scalar("mark", 1.0, trainer.progress.num_train_batches)


@pytest.mark.parametrize("kind", [CheckCallback, LogCallback, ReportCallback, Marks])
def test_whatever_a_run_has_written_is_moved(kind: type[Callback]) -> None:
    for _ in range(2):
        fit(make("a", kind(), epochs=1))
    assert runs() == ["a", "a.1"]


def test_all_folders_of_a_run_get_one_number() -> None:
    for log_dir in ("other", "lg", "lg"):
        fit(make("a", CheckCallback("loss", ckpt_dir="ck"), LogCallback(log_dir), epochs=1))
    assert runs("ck") == ["a", "a.1", "a.2"]
    assert runs("lg") == ["a", "a.2"]


def test_files_that_are_no_run_stay_where_they_are() -> None:
    Path("logs/a").mkdir(parents=True)
    Path("logs/a/config.yaml").write_text("lr: 0.1")
    fit(make("a"))
    assert runs() == ["a"] and Path("logs/a/config.yaml").exists()


def test_a_folder_of_runs_may_be_a_link() -> None:
    Path("disk").mkdir()
    Path("link").symlink_to("disk")
    for _ in range(2):
        fit(make("a", CheckCallback("loss", ckpt_dir="link")))
    assert runs("disk") == ["a", "a.1"]


def test_a_folder_that_cannot_be_moved_is_an_error_and_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fit(make("a", epochs=1))
    old = Path("logs/a/checkpoint.ckpt").read_bytes()

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", refuse)
        with pytest.raises(CheckpointError, match=r"cannot be moved to a\.1: Permission denied"):
            fit(make("a", epochs=1))
    assert Path("logs/a/checkpoint.ckpt").read_bytes() == old


# --- what goes on in its folder


def test_a_resumed_run_stays_in_its_folder() -> None:
    fit(make("a"))
    fit(make("a", epochs=4, resume="auto"))
    again = make("a", epochs=5)
    again.load_checkpoint("logs/a")
    fit(again)
    other = make("a", epochs=6)
    other.load_state_dict(again.state_dict())
    fit(other)
    assert runs() == ["a"]


def test_a_finished_run_that_is_resumed_and_trained_further_stays_in_its_folder() -> None:
    fit(make("a"))
    again = make("a", resume="auto")
    fit(again)
    fit(again, epochs=2)
    assert again.progress.epoch_idx == 4 and runs() == ["a"]


def test_a_trainer_that_failed_goes_on_in_its_folder() -> None:
    class Fails(Callback):
        def on_after_train_batch(self, **others: Any) -> None:
            raise ZeroDivisionError

    fails = Fails()
    trainer = make("a", CheckCallback("loss"), fails)
    with pytest.raises(ZeroDivisionError):
        fit(trainer)
    trainer.callbacks.remove(fails)
    fit(trainer)
    assert runs() == ["a"]


def test_a_test_before_the_fit_is_no_earlier_run() -> None:
    trainer = make("a")
    trainer.test(loader())
    fit(trainer)
    assert runs() == ["a"]


def test_a_test_alone_adds_to_the_folder_that_is_there() -> None:
    fit(make("a"))
    make("a").test(loader())
    assert runs() == ["a"]


def test_a_state_of_another_run_makes_a_new_run() -> None:
    fit(make("source"))
    fit(make("a", epochs=3))
    old = Path("logs/a/checkpoint.ckpt").read_bytes()
    fit(make("a", epochs=3, resume="logs/source/checkpoint.ckpt"))
    assert Path("logs/a.1/checkpoint.ckpt").read_bytes() == old


def test_a_folder_that_was_removed_between_two_fits_is_made_anew() -> None:
    trainer = make("a")
    fit(trainer)
    Path("logs/a").rename("elsewhere")
    fit(trainer, epochs=1)
    assert Path("logs/a/checkpoint.ckpt").exists() and runs() == ["a"]


# --- several trainers


def test_a_run_that_is_alive_is_not_moved_and_the_second_is_refused() -> None:
    refused = []

    class Starts(Callback):
        def on_after_epoch(self, **others: Any) -> None:
            for callback in (CheckCallback("loss"), LogCallback(), Marks()):
                with pytest.raises(RunLockedError, match="in use by this very process"):
                    fit(make("a", callback))
                refused.append(callback)

    fit(make("a", CheckCallback("loss"), LogCallback(), Starts(), epochs=1))
    assert runs() == ["a"] and len(refused) == 3


def test_a_trainer_finds_its_folder_again_that_a_later_run_has_moved(
    capsys: pytest.CaptureFixture[str],
) -> None:
    first, second = make("a"), make("a")
    fit(first)
    best = Path("logs/a/best.ckpt").read_bytes()
    fit(second, epochs=1)
    later = Path("logs/a/best.ckpt").read_bytes()
    first.test(loader())
    assert first.running_id == "a.1" and second.running_id == "a"
    assert f"this run is {Path('logs/a.1').absolute()} now" in capsys.readouterr().out
    assert Path("logs/a.1/best.ckpt").read_bytes() == best
    fit(first, epochs=1)
    assert first.progress.epoch_idx == 3
    assert Path("logs/a/best.ckpt").read_bytes() == later and runs() == ["a", "a.1"]


def test_a_trainer_whose_folder_is_lost_to_another_run_is_refused() -> None:
    first = make("a")
    fit(first)
    fit(make("a"))
    Path("logs/a.1").rename("elsewhere")
    with pytest.raises(CheckpointError, match="belongs to another run now"):
        fit(first, epochs=1)


def test_a_copy_of_a_trainer_is_another_run() -> None:
    first = make("a")
    fit(first)
    fit(copy.deepcopy(first), epochs=1)
    fit(first, epochs=1)
    assert first.running_id == "a.1" and runs() == ["a", "a.1"]


# --- ids that the library makes


def test_a_copy_of_a_trainer_without_an_id_gets_a_number(
    capsys: pytest.CaptureFixture[str],
) -> None:
    first = make(None)
    fit(first)
    best = Path(first.run_dir, "best.ckpt").read_bytes()
    copies = [copy.deepcopy(first), copy.deepcopy(first)]
    capsys.readouterr()
    for one in copies:
        fit(one, epochs=1)
    name = first.running_id
    assert [one.running_id for one in copies] == [f"{name}-2", f"{name}-3"]
    assert runs() == [name, f"{name}-2", f"{name}-3"]
    assert Path(first.run_dir, "best.ckpt").read_bytes() == best
    assert (
        f"running ID {name} belongs to another run: this run is {name}-2" in capsys.readouterr().out
    )


def test_two_processes_that_make_one_id_get_folders_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("deepepochs.trainer.new_running_id", lambda *_: "same")
    trainers = [make(None), make(None, LogCallback("other")), make(None, Marks(), LogCallback())]
    for trainer in trainers:
        fit(trainer)
    assert [trainer.running_id for trainer in trainers] == ["same", "same", "same-2"]
    assert runs() == ["same", "same-2"] and runs("other") == ["same"]


def test_a_run_that_is_alive_leaves_its_id_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deepepochs.trainer.new_running_id", lambda *_: "same")

    class Starts(Callback):
        def on_before_fit(self, **others: Any) -> None:
            fit(make(None))

    fit(make(None, CheckCallback("loss"), Starts(), epochs=1))
    assert runs() == ["same", "same-2"]


def test_what_the_script_has_put_into_its_folder_stays_there() -> None:
    trainer = make(None)
    trainer.run_dir.mkdir(parents=True)
    (trainer.run_dir / "config.yaml").write_text("lr: 0.1")
    fit(trainer)
    assert runs() == [trainer.running_id] and (trainer.run_dir / "config.yaml").exists()


@pytest.mark.parametrize("running_id", ["a", None])
def test_a_logger_that_is_opened_before_the_fit_is_no_earlier_run(running_id: Any) -> None:
    trainer = make(running_id)
    trainer.open_logger().add_scalar("mine", 1.0, 0)
    fit(trainer)
    assert runs() == [trainer.running_id] and trainer.running_id == (
        running_id or trainer.running_id
    )


# --- folders do not follow the working folder


def test_a_run_stays_where_it_was_made_when_the_working_folder_changes(tmp_path: Path) -> None:
    class Moves(Callback):
        def on_after_epoch(self, epoch_idx: int, **others: Any) -> None:
            (tmp_path / f"after {epoch_idx}").mkdir()
            os.chdir(tmp_path / f"after {epoch_idx}")

    trainer = make("a", CheckCallback("loss"), LogCallback(), ReportCallback(), Moves())
    (tmp_path / "other").mkdir()
    os.chdir(tmp_path / "other")
    fit(trainer)
    trainer.test(loader())
    trainer.report()
    trainer.open_logger().add_scalar("mine", 1.0, 1)
    os.chdir(tmp_path)
    assert trainer.run_dir == tmp_path / "logs" / "a"
    written = {path.parent for path in tmp_path.rglob("*") if path.is_file()}
    assert written == {tmp_path / "logs" / "a"}


def test_the_best_weights_are_found_when_the_working_folder_changes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = make("a", CheckCallback("loss", mode="max"), epochs=3)  # so the first epoch is best
    with pytest.warns(UserWarning, match="would keep the worst state"):
        history = fit(trainer)
    (tmp_path / "other").mkdir()
    os.chdir(tmp_path / "other")
    result = trainer.test(loader(1))
    assert float(result["loss"]) == float(history["val"]["loss"][0])
    assert float(result["loss"]) != float(history["val"]["loss"][-1])
    assert "loading best model from running ID a" in capsys.readouterr().out


def test_a_path_to_resume_starts_where_the_trainer_was_made(tmp_path: Path) -> None:
    fit(make("a"))
    trainer = make("b", epochs=3, resume="logs/a/best.ckpt")
    (tmp_path / "other").mkdir()
    os.chdir(tmp_path / "other")
    assert len(fit(trainer)["train"]["loss"]) == 3


# --- resume='auto'


def test_a_finished_run_that_is_started_again_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    history = fit(make("a"))
    capsys.readouterr()
    assert fit(make("a", resume="auto")) == history
    assert "running ID a has nothing left to do: 2 of 2 epochs are done" in capsys.readouterr().out


def test_the_trials_of_a_search_are_runs_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    trials = [make(None, resume="auto") for _ in range(3)]
    for trial in trials:
        fit(trial)
    assert len({trial.running_id for trial in trials}) == 3
    assert [trial.progress.epoch_idx for trial in trials] == [2, 2, 2]
    assert capsys.readouterr().out.count("give each trainer its own running_id") == 2


def test_the_first_trainer_of_a_process_goes_on_with_the_newest_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    earlier = make(None)
    fit(earlier)
    monkeypatch.setattr("deepepochs.runs.ownership._used_here", set())  # as in a new process
    again = make(None, epochs=3, resume="auto")
    fit(again)
    assert again.running_id == earlier.running_id and again.progress.epoch_idx == 3


def test_where_only_other_runs_have_a_checkpoint_they_are_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    fit(make("a"))
    fit(make("b"))
    fit(make("c", resume="auto"))
    folder = Path("logs").absolute()
    expected = f"no checkpoint of running ID c in {folder}, only of a, b: training starts anew"
    assert expected in capsys.readouterr().out


def test_a_folder_that_is_missing_is_told_with_what_is_beside_it() -> None:
    fit(make("a"))
    with pytest.raises(CheckpointError, match=r"there is no folder logs/b: in logs there is a$"):
        make("c").load_checkpoint("logs/b/best.ckpt")
    with pytest.raises(CheckpointError, match=r"in logs there is a$"):
        make("c").load_checkpoint("logs")
