"""CheckCallback: what it saves, what is best, when it stops, and what `resume` finds."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from deepepochs import (
    Callback,
    CallbackException,
    CheckCallback,
    CheckpointError,
    CheckpointMismatch,
    CheckpointNotFound,
    ConfigError,
    Optimizer,
    RunLockedError,
    Trainer,
    TrainerBase,
    ValuePatch,
)
from deepepochs.checkpoint import load
from deepepochs.runs.lock import RunLock

sys.path.insert(0, str(Path(__file__).parent))
from exact_runs import Fit, Samples, base_fit, flat, through_a_file


class Scripted(Trainer):
    """Its validation loss is as scripted, one value for each epoch."""

    script: tuple[float, ...] = ()

    def val_step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> Any:
        return {"score": ValuePatch(1).load(self.script[self.progress.epoch_idx])}


def scripted(*values: float) -> type[Scripted]:
    return type("Scripted", (Scripted,), {"script": values})


def make(folder: Path, *values: float, epochs: int | None = None, **options: Any) -> Fit:
    check = CheckCallback(
        options.pop("monitor", "score"),
        ckpt_dir=folder,
        **{"mode": "min", **options.pop("check", {})},
    )
    others = options.pop("callbacks", [])
    options = {"running_id": "r", **options}
    return base_fit(check, *others, cls=scripted(*values), epochs=epochs or len(values), **options)


def run(fit: Fit) -> Any:
    return fit.trainer.fit(**fit.options)


def score_of(path: Path) -> float:
    return float(load(path)["history"]["val"]["values"]["score"][-1])


# --- best, patience, what is kept


def test_the_best_is_kept_beside_the_last_and_the_one_before(tmp_path: Path) -> None:
    run(make(tmp_path, 3.0, 1.0, 2.0, 5.0))
    folder = tmp_path / "r"
    names = ("best.ckpt", "previous.ckpt", "checkpoint.ckpt")
    assert [score_of(folder / name) for name in names] == [1.0, 2.0, 5.0]


def test_of_the_best_as_many_are_kept_as_asked(tmp_path: Path) -> None:
    run(make(tmp_path, 3.0, 1.0, 4.0, 2.0, check={"keep": 3}))
    names = ("best.ckpt", "best-2.ckpt", "best-3.ckpt")
    assert [score_of(tmp_path / "r" / name) for name in names] == [1.0, 2.0, 3.0]
    assert not (tmp_path / "r" / "best-4.ckpt").exists()


def test_the_largest_is_best_in_mode_max(tmp_path: Path) -> None:
    run(make(tmp_path, 1.0, 3.0, 2.0, check={"mode": "max"}))
    assert score_of(tmp_path / "r" / "best.ckpt") == 3.0


def test_best_is_decided_only_in_epochs_that_validate(tmp_path: Path) -> None:
    fit = make(tmp_path, 9.0, 2.0, 9.0, 1.0)
    fit.trainer.fit(**fit.options, val_freq=2)
    check = fit.trainer.checker
    assert check is not None and check.watch.num_steps == 2 and check.best_values == [1.0]


def test_training_metrics_can_decide(tmp_path: Path) -> None:
    fit = make(tmp_path, epochs=2, monitor="loss", check={"on_stage": "train"})
    history = fit.trainer.fit(fit.options["train_dl"])
    check = fit.trainer.checker
    assert check is not None and check.best_values == [min(map(float, history["train"]["loss"]))]


def test_it_stops_after_as_many_checks_without_a_better_value(tmp_path: Path) -> None:
    history = run(make(tmp_path, 3.0, 2.0, 2.0, 2.5, 1.0, check={"patience": 2}))
    assert [float(v) for v in history["val"]["score"]] == [3.0, 2.0, 2.0, 2.5]


def test_patience_goes_on_after_a_resume_and_the_best_value_is_known(tmp_path: Path) -> None:
    run(make(tmp_path, 1.0, 2.0, check={"patience": 3}))
    history = run(make(tmp_path, 1.0, 2.0, 2.0, 2.0, 0.5, resume=True, check={"patience": 3}))
    assert len(history["val"]["score"]) == 4
    assert score_of(tmp_path / "r" / "best.ckpt") == 1.0


def test_a_run_that_stopped_early_stays_stopped_when_resumed(tmp_path: Path) -> None:
    values = (1.0, 2.0, 2.0, 0.5)
    whole = run(make(tmp_path, *values, check={"patience": 2}))
    again = make(tmp_path, *values, check={"patience": 2}, resume=True)
    assert run(again) == whole
    assert again.trainer.progress.epoch_idx == 3


def test_a_monitored_name_that_is_not_there_is_an_error_with_those_that_are(tmp_path: Path) -> None:
    fit = make(tmp_path, 1.0, monitor="grade")
    with pytest.raises(CallbackException, match="'grade', which val does not have; it has score"):
        run(fit)


def test_monitoring_validation_without_one_is_an_error(tmp_path: Path) -> None:
    fit = make(tmp_path, 1.0)
    with pytest.raises(CallbackException, match="does not validate"):
        fit.trainer.fit(fit.options["train_dl"])


# --- when it saves


class Saves(Callback):
    """Notes when there is another file."""

    order = 100

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.seen: list[int] = []
        self.last: Any = None

    def on_before_train_batch(self, trainer: Any, **others: Any) -> None:
        stamp = self.path.stat().st_ino if self.path.exists() else None
        if stamp != self.last:
            self.last = stamp
            self.seen.append(trainer.progress.num_train_batches - 1)


def test_it_saves_after_every_nth_mini_batch_counted_over_epochs(tmp_path: Path) -> None:
    saves = Saves(tmp_path / "r" / "checkpoint.ckpt")
    run(make(tmp_path, 1.0, 1.0, callbacks=[saves], check={"every_n_batches": 3}))
    assert saves.seen == [3, 4, 6]  # 4 is the end of the first epoch


def test_it_saves_after_so_many_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]

    class Ticks(Callback):
        """Ten seconds for each mini-batch."""

        def on_before_train_batch(self, **others: Any) -> None:
            now[0] += 10.0

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    saves = Saves(tmp_path / "r" / "checkpoint.ckpt")
    run(make(tmp_path, 1.0, callbacks=[saves, Ticks()], check={"every_s": 20.0}))
    assert saves.seen == [2]


# --- tests


def test_a_test_leaves_the_counters(tmp_path: Path) -> None:
    fit = make(tmp_path, 1.0, 2.0, 3.0, epochs=2)
    run(fit)
    fit.trainer.test(DataLoader(Samples(5), 2))
    assert fit.trainer.progress.epoch_idx == 2
    history = fit.trainer.fit(**fit.options, epochs=1)
    assert history.epochs == [2]


def test_without_save_best_a_test_takes_the_weights_it_finds(tmp_path: Path) -> None:
    fit = make(tmp_path, 1.0, 2.0, check={"save_best": False})
    run(fit)
    before = through_a_file(fit.trainer.model.state_dict())
    fit.trainer.test(DataLoader(Samples(5), 2))
    assert flat(dict(fit.trainer.model.state_dict())) == flat(dict(before))


# --- resume


@pytest.mark.parametrize("resume", [True, "auto", "r", "path"])
def test_a_run_is_found_by_true_auto_id_and_path(
    resume: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = run(make(tmp_path / "whole", 3.0, 2.0, 1.0))
    run(make(tmp_path, 3.0, 2.0))
    asked = str(tmp_path / "r" / "checkpoint.ckpt") if resume == "path" else resume
    fit = make(tmp_path, 3.0, 2.0, 1.0, resume=asked)
    assert run(fit) == whole
    assert "resuming run r at epoch 3\n" in capsys.readouterr().out


def test_an_id_may_be_a_number(tmp_path: Path) -> None:
    run(make(tmp_path, 3.0, running_id=7))
    fit = make(tmp_path, 3.0, 2.0, running_id=8, resume=7)
    run(fit)
    assert fit.trainer.progress.epoch_idx == 2
    assert (tmp_path / "8" / "checkpoint.ckpt").exists()


@pytest.mark.parametrize("resume", [True, "auto"])
def test_with_nothing_there_true_and_auto_start_anew_and_say_so(
    resume: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit = make(tmp_path, 1.0, resume=resume)
    run(fit)
    assert f"no checkpoint in {tmp_path}: training starts anew" in capsys.readouterr().out
    assert fit.trainer.progress.epoch_idx == 1


def test_true_takes_the_newest_run_and_goes_on_in_its_folder(tmp_path: Path) -> None:
    run(make(tmp_path, 1.0, running_id="old"))
    run(make(tmp_path, 1.0, running_id="new"))
    fit = make(tmp_path, 1.0, 1.0, running_id=None, resume=True)
    run(fit)
    assert fit.trainer.running_id == "new" and fit.trainer.run_dir == tmp_path / "new"


@pytest.mark.parametrize(("own", "told"), [("mine", True), ("other", False), (None, False)])
def test_true_says_so_where_it_takes_another_run_than_the_one_of_the_id(
    own: str | None, told: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(make(tmp_path, 1.0, running_id="other"))
    fit = make(tmp_path, 1.0, 1.0, running_id=own, resume=True)
    run(fit)
    assert len(fit.trainer.history["train"]["loss"]) == 2
    assert fit.trainer.running_id == (own or "other")
    said = (
        "running ID mine has no checkpoint yet: resume=True goes on from the newest run, other. "
        "resume='auto' would begin a new run."
    )
    assert (said in " ".join(capsys.readouterr().out.split())) is told


def test_auto_with_an_id_never_takes_another_run(tmp_path: Path) -> None:
    run(make(tmp_path, 1.0, running_id="other"))
    fit = make(tmp_path, 1.0, running_id="mine", resume="auto")
    run(fit)
    assert len(fit.trainer.history["train"]["loss"]) == 1
    assert fit.trainer.progress.epoch_idx == 1


@pytest.mark.parametrize("asked", ["nobody", 12, "nowhere/x.ckpt"])
def test_a_run_asked_for_by_name_that_is_not_there_is_an_error(asked: Any, tmp_path: Path) -> None:
    run(make(tmp_path, 1.0))
    with pytest.raises(CheckpointNotFound):
        run(make(tmp_path, 1.0, resume=asked))


@pytest.mark.parametrize("asked", ["..", "a\\b", ""])
def test_an_id_that_would_leave_the_folder_is_refused(asked: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        run(make(tmp_path, 1.0, resume=asked))
    with pytest.raises(ConfigError):
        make(tmp_path, 1.0, running_id=asked)


class StopsInside(Callback):
    def on_after_train_batch(self, trainer: TrainerBase, metrics: Any, batch_idx: int) -> None:
        if trainer.progress.epoch_idx == batch_idx == 1:
            trainer.stop()


def test_what_is_loaded_by_hand_after_a_refused_resume_is_kept(tmp_path: Path) -> None:
    run(make(tmp_path, 3.0, 2.0, callbacks=[StopsInside()]))
    fit = make(tmp_path, 3.0, 2.0, resume=True, grad_accumulate=2)
    with pytest.raises(CheckpointMismatch, match="start from a checkpoint of the end of an epoch"):
        run(fit)
    fit.trainer.load_checkpoint(tmp_path / "r" / "best.ckpt")
    run(fit)
    assert fit.trainer.progress.epoch_idx == 2
    assert fit.trainer.progress.num_steps == 4 + 2  # mini-batches of epoch 0, pairs of epoch 1


def test_resume_without_a_check_callback_is_an_error() -> None:
    fit = base_fit(resume=True)
    with pytest.raises(ConfigError, match="needs a CheckCallback"):
        run(fit)


def test_a_damaged_newest_file_falls_back_to_the_previous_with_a_warning_that_names_both(
    tmp_path: Path,
) -> None:
    whole = run(make(tmp_path / "whole", 3.0, 2.0, 1.0))
    run(make(tmp_path, 3.0, 2.0))
    newest = tmp_path / "r" / "checkpoint.ckpt"
    newest.write_bytes(newest.read_bytes()[:-200])
    fit = make(tmp_path, 3.0, 2.0, 1.0, resume=True)
    with pytest.warns(UserWarning, match=r"checkpoint\.ckpt.*previous\.ckpt is taken instead"):
        assert run(fit) == whole


def test_a_damaged_file_asked_for_by_its_path_is_an_error(tmp_path: Path) -> None:
    run(make(tmp_path, 3.0, 2.0))
    newest = tmp_path / "r" / "checkpoint.ckpt"
    newest.write_bytes(newest.read_bytes()[:-200])
    with pytest.raises(CheckpointError):
        run(make(tmp_path, 3.0, 2.0, resume=str(newest)))


# --- strict loading


def wider(model: nn.Module | None = None) -> nn.Module:
    return nn.Sequential(
        nn.Linear(4, 7), nn.BatchNorm1d(7), nn.ReLU(), nn.Dropout(0.3), nn.Linear(7, 2)
    )


def sgd(model: nn.Module) -> Any:
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    return Optimizer(opt, torch.optim.lr_scheduler.StepLR(opt, 1, 0.5))


OTHERS: dict[str, dict[str, Any]] = {
    "shapes": {"model": wider},
    "optimizer": {"opt": sgd},
    "scheduler": {"opt": lambda model: torch.optim.Adam(model.parameters(), lr=0.02)},
    "dtype": {"model": lambda: wider().double()},
}


@pytest.mark.parametrize("other", OTHERS)
def test_a_checkpoint_of_another_trainer_is_refused_and_leaves_no_trace(
    other: str, tmp_path: Path
) -> None:
    run(make(tmp_path, 3.0, 2.0))
    path = tmp_path / "r" / "checkpoint.ckpt"

    def build() -> Fit:
        return make(tmp_path / "other", 3.0, 2.0, **OTHERS[other])

    twin = None if other == "dtype" else run(build())  # nothing here trains in float64
    shutil.rmtree(tmp_path / "other", ignore_errors=True)
    fit = build()
    before = flat(fit.trainer.state_dict())
    state = torch.random.get_rng_state()
    with pytest.raises(CheckpointMismatch):
        fit.trainer.load_checkpoint(path)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert flat(fit.trainer.state_dict()) == before
    if twin is not None:  # its next fit is that of a trainer that never tried to load
        assert run(fit) == twin


@pytest.mark.parametrize("part", ["progress", "epoch", "random", "gradients", "history", "loaders"])
def test_a_state_with_a_part_of_another_form_is_refused_and_leaves_no_trace(
    part: str, tmp_path: Path
) -> None:
    source = make(tmp_path / "a", 3.0, 2.0)
    run(source)
    state = through_a_file(source.trainer.state_dict())
    fit = make(tmp_path / "b", 3.0, 2.0)
    before = flat(fit.trainer.state_dict())
    with pytest.raises(CheckpointMismatch):
        fit.trainer.load_state_dict({**state, part: 5})
    missing = {name: value for name, value in state.items() if name != part}
    with pytest.raises(CheckpointMismatch, match=part):
        fit.trainer.load_state_dict(missing)
    assert flat(fit.trainer.state_dict()) == before
    assert len(run(fit)["train"]["loss"]) == 2


def test_a_callback_that_fails_to_load_undoes_the_load(tmp_path: Path) -> None:
    class Fails(Callback):
        def state_dict(self) -> dict[str, int]:
            return {"n": 1}

        def load_state_dict(self, state: dict[str, int]) -> None:
            if broken:
                broken.pop()
                raise ValueError("not today")

    broken = [True]
    source = make(tmp_path / "a", 3.0, callbacks=[Fails()])
    run(source)
    fit = make(tmp_path / "b", 3.0, callbacks=[Fails()])
    before = flat(fit.trainer.state_dict())
    with pytest.raises(CheckpointMismatch, match="not today"):
        fit.trainer.load_state_dict(through_a_file(source.trainer.state_dict()))
    assert flat(fit.trainer.state_dict()) == before


def test_a_file_of_0_6_loads_with_its_scheduler_and_goes_on_after_its_epoch(
    tmp_path: Path,
) -> None:
    source = make(tmp_path / "a", 3.0, 2.0)
    run(source)
    whole = source.trainer.state_dict()
    path = tmp_path / "old.ckpt"
    old = {
        "model_state": whole["model"],
        "opt_state": whole["optimizers"],
        "best_value": 2.0,
        "epoch": 1,
    }
    torch.save(old, path)
    loss = nn.CrossEntropyLoss(weight=torch.ones(2))  # its weights are a part, which 0.6 left out
    fit = make(tmp_path / "b", 3.0, 2.0, 1.0, resume=str(path), loss=loss)
    fit.trainer.load_checkpoint(path)
    assert fit.trainer.init_epoch == 2
    assert flat(dict(fit.trainer.model.state_dict())) == flat(dict(whole["model"]))
    assert fit.trainer.opt.get_last_lr() == source.trainer.opt.get_last_lr()
    assert len(run(fit)["val"]["score"]) == 1


# --- folders and locks


def test_run_dir_is_the_folder_of_the_run(tmp_path: Path) -> None:
    assert make(tmp_path, 1.0, running_id="x").trainer.run_dir == tmp_path / "x"


def test_two_trainers_without_an_id_have_folders_of_their_own(tmp_path: Path) -> None:
    one, two = (make(tmp_path, 1.0, running_id=None).trainer for _ in range(2))
    assert one.run_dir != two.run_dir


def test_a_run_that_a_living_process_has_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "r"
    code = (
        "import sys; from deepepochs.runs.lock import RunLock; "
        f"RunLock({str(folder)!r}).acquire(); print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        with pytest.raises(RunLockedError, match=f"in use by process {process.pid}"):
            run(make(tmp_path, 1.0))
        process.kill()
    run(make(tmp_path, 1.0))


def test_the_folder_is_given_back_after_a_fit_and_after_an_error(tmp_path: Path) -> None:
    class Fails(Callback):
        def on_after_train_batch(self, **others: Any) -> None:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(make(tmp_path, 1.0, callbacks=[Fails()]))
    run(make(tmp_path, 1.0))
    with RunLock(tmp_path / "r"):
        pass
