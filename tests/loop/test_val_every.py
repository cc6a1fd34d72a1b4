"""Validation after every n optimizer steps: within the epoch, and without a trace in training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from deepepochs import Callback, CheckCallback, Optimizer, Trainer
from deepepochs.callbacks.run_record import RunRecordCallback

X = torch.randn(40, 3, generator=torch.Generator().manual_seed(7))
Y = torch.arange(40) % 2
NUM = 10  # mini-batches of an epoch


def loader(**options: Any) -> DataLoader[Any]:
    return DataLoader(TensorDataset(X, Y), 4, **{"shuffle": True, **options})


def make_trainer(*callbacks: Callback, patience: int = 1000, **options: Any) -> Trainer:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 2))
    opt = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(opt, patience=patience)
    options = {"epochs": 3, "console": "off", "device": "cpu", **options}
    optimizer = Optimizer(opt, schedule)
    return Trainer(model, F.cross_entropy, optimizer, callbacks=[*callbacks], **options)


def outcome(trainer: Trainer) -> Any:
    weights = {name: value.tolist() for name, value in trainer.model.state_dict().items()}
    history = {stage: dict(table) for stage, table in trainer.history.items()}
    rates, draws = trainer.opt.get_current_lr(), torch.rand(2).tolist()
    return weights, history, trainer.history.steps, trainer.progress, rates, draws


def test_the_history_has_each_validation_with_its_step() -> None:
    history = make_trainer(val_every=4, epochs=2).fit(loader(), loader())
    assert history.steps == {"train": [10, 20], "val": [4, 8, 10, 12, 16, 20]}
    assert history.val_epochs == [0, 0, 0, 1, 1, 1]
    assert len(history["val"]["loss"]) == 6 and len(history["train"]["loss"]) == 2


def test_training_has_the_same_bits_with_and_without_it() -> None:
    def fit(**options: Any) -> Any:
        trainer = make_trainer(**options)
        history = trainer.fit(loader(), loader())
        weights = [weight.tolist() for weight in trainer.model.parameters()]
        ends = [v for v, step in zip(history["val"]["loss"], history.steps["val"], strict=True)
                if step % NUM == 0]  # fmt: skip
        return history["train"]["loss"], ends, weights, torch.rand(2).tolist()

    assert fit(val_every=3) == fit()


def test_a_validation_within_an_epoch_is_a_test_of_the_weights_of_that_step() -> None:
    class Tests(Callback):
        def __init__(self) -> None:
            super().__init__()
            self.losses: list[float] = []

        def on_after_train_batch(self, trainer: Any, **others: Any) -> None:
            if trainer.progress.num_steps in (4, 8):
                self.losses.append(trainer.test(loader(shuffle=False))["loss"])

    tests = Tests()
    history = make_trainer(tests, val_every=4, epochs=1).fit(loader(), loader(shuffle=False))
    assert history["val"]["loss"][:2] == tests.losses


def test_modes_are_as_before_in_the_next_mini_batch() -> None:
    modes = []

    class Looks(Callback):
        def on_before_train_batch(self, trainer: Any, **others: Any) -> None:
            modes.append(trainer.model.training and trainer.model[2].training)

    make_trainer(Looks(), val_every=1, epochs=1).fit(loader(), loader())
    assert modes == [True] * NUM


def test_steps_are_counted_and_not_mini_batches() -> None:
    trainer = make_trainer(val_every=2, grad_accumulate=3, epochs=2)
    assert trainer.fit(loader(), loader()).steps["val"] == [2, 4, 6, 8]


def test_the_mini_batches_of_validation_are_counted() -> None:
    trainer = make_trainer(val_every=5, limit_val_batches=3, epochs=2)
    trainer.fit(loader(), loader())
    assert trainer.progress.num_val_batches == 4 * 3


def test_schedulers_that_follow_the_validation_are_fed() -> None:
    rates = {}
    for every in (None, 2):
        trainer = make_trainer(patience=0, val_every=every, epochs=2)
        trainer.fit(loader(), loader(shuffle=False))
        rates[every] = trainer.opt[0].scheduler.last_epoch
    assert rates == {None: 2, 2: 10}


class Bad(Callback):
    """Makes the weights bad after some steps, and good before."""

    def on_before_val_epochs(self, trainer: Any, **others: Any) -> None:
        with torch.no_grad():
            good = trainer.progress.num_steps <= 4
            trainer.model[-1].weight.zero_()
            trainer.model[-1].weight[0].fill_(0.0 if good else 9.0)


def test_best_and_patience_are_fed(tmp_path: Path) -> None:
    check = CheckCallback("loss", ckpt_dir=tmp_path, patience=2)
    trainer = make_trainer(check, Bad(), val_every=4)
    history = trainer.fit(loader(), loader(shuffle=False))
    losses = history["val"]["loss"]
    assert history.steps["val"] == [4, 8, 10]
    assert str(trainer.stop_reason).startswith("val loss was no better for 2 validations")
    assert trainer.test(loader(shuffle=False))["loss"] == losses[0] == min(losses)


class BreaksOff(Callback):
    """Ends the process, as a kill does, at one moment."""

    def __init__(self, hook: str, at: int) -> None:
        super().__init__()
        self.hook = hook
        self.at = at

    def meet(self, hook: str) -> None:
        self.at -= hook == self.hook
        if self.at == 0 and hook == self.hook:
            raise SystemExit

    def on_after_train_batch(self, **others: Any) -> None:
        self.meet("train batch")

    def on_after_val_batch(self, **others: Any) -> None:
        self.meet("val batch")

    def on_after_val_epochs(self, **others: Any) -> None:
        self.meet("val")


@pytest.mark.parametrize(
    ("hook", "at"),
    [("train batch", n) for n in (4, 5, 8, 10, 11, 12, 13)]
    + [("val batch", n) for n in (1, 5, 13, 25)]
    + [("val", n) for n in (1, 2, 3, 4)],
)
@pytest.mark.parametrize("every", [1, 4])
def test_a_run_that_is_killed_resumes_to_the_bit(
    hook: str, at: int, every: int, tmp_path: Path
) -> None:
    def run(folder: str, *callbacks: Callback) -> Trainer:
        check = CheckCallback("loss", ckpt_dir=tmp_path / folder, every_n_batches=every)
        names = {"running_id": "r", "resume": "auto", "epochs": 2}
        trainer = make_trainer(check, *callbacks, val_every=4, patience=0, **names)
        trainer.fit(loader(), loader())
        return trainer

    with pytest.raises(SystemExit):
        run("killed", BreaksOff(hook, at))
    killed = outcome(run("killed"))
    assert killed == outcome(run("whole"))


def test_a_stop_at_the_step_of_a_validation_does_not_validate_twice(tmp_path: Path) -> None:
    def run(steps: int, folder: str) -> Any:
        check = CheckCallback("loss", ckpt_dir=tmp_path / folder)
        trainer = make_trainer(
            check, running_id="r", resume="auto", epochs=1000, val_every=4, max_steps=steps
        )
        return outcome(trainer) if trainer.fit(loader(), loader()) else None

    steps = run(8, "parts")[2]
    assert steps["val"] == [4, 8]
    assert run(16, "parts")[:-1] == run(16, "whole")[:-1]


def test_the_console_shows_each_validation(capsys: pytest.CaptureFixture[str]) -> None:
    make_trainer(val_every=4, epochs=1, console="rows", show_info=False).fit(loader(), loader())
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("step ")]
    assert [line.split(":")[0] for line in lines] == ["step 4", "step 8"]
    assert "val loss 0." in lines[0]


def test_a_table_has_each_validation_with_its_step(tmp_path: Path) -> None:
    record = RunRecordCallback(tmp_path)
    trainer = make_trainer(record, val_every=4, epochs=1, running_id="r")
    history = trainer.fit(loader(), loader())
    rows = (tmp_path / "r/validations.csv").read_text().splitlines()
    steps = zip(history.steps["val"], history["val"]["loss"], strict=True)
    assert rows == ["step,epoch,val_loss", *(f"{step},1,{loss}" for step, loss in steps)]
    assert history.steps["val"] == [4, 8, 10]  # the last one is that of the epoch
    assert len((tmp_path / "r/metrics.csv").read_text().splitlines()) == 2


class Stream:
    """Mini-batches without a length."""

    def __iter__(self) -> Any:
        return iter([(X[i : i + 4], Y[i : i + 4]) for i in range(0, 40, 4)])


class WrongLength(Stream):
    """A loader that says it has more mini-batches than it gives."""

    def __len__(self) -> int:
        return NUM + 2


@pytest.mark.parametrize("kind", [Stream, WrongLength])
@pytest.mark.parametrize("val_freq", [1, 2])
@pytest.mark.parametrize("every", [5, 4])
@pytest.mark.filterwarnings("ignore:The training loader said")
def test_a_loader_that_does_not_know_its_end_has_one_value_of_its_last_step(
    kind: type[Stream], val_freq: int, every: int, tmp_path: Path
) -> None:
    def run(train_dl: Any, folder: str) -> Any:
        check = CheckCallback("loss", ckpt_dir=tmp_path / folder, patience=7)
        options: dict[str, Any] = {"patience": 2, "val_every": every, "epochs": 4}
        trainer = make_trainer(check, running_id="r", **options)
        trainer.fit(train_dl, loader(shuffle=False), val_freq=val_freq)
        weights, history, steps, _, rates, draws = outcome(trainer)
        return weights, history, steps, rates, draws, check.state_dict()

    known = run([*Stream()], "known")
    assert known == run(kind(), "unknown")


def test_an_epoch_that_val_every_has_validated_at_its_end_shows_these_values(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[Any] = []

    class Looks(Callback):
        def on_after_epoch(self, val_metrics: Any, **others: Any) -> None:
            seen.append(dict(val_metrics))

    record = RunRecordCallback(tmp_path)
    trainer = make_trainer(Looks(), record, val_every=5, running_id="r", console="rows", epochs=2)
    losses = trainer.fit(Stream(), loader(shuffle=False))["val"]["loss"]
    assert seen == [{"loss": losses[1]}, {"loss": losses[3]}]
    rows = (tmp_path / "r/metrics.csv").read_text().splitlines()
    assert [float(row.split(",")[2]) for row in rows[1:]] == [losses[1], losses[3]]


@pytest.mark.parametrize("val_freq", [1, 3])
def test_a_step_that_the_end_of_a_stream_makes_is_validated_once(val_freq: int) -> None:
    trainer = make_trainer(val_every=4, grad_accumulate=3, epochs=2)
    steps = trainer.fit(Stream(), loader(), val_freq=val_freq).steps["val"]
    assert steps == [4, 8]  # each the last step of an epoch, with one mini-batch in its window


@pytest.mark.parametrize("at", [1, 5, 10, 11, 15, 20])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_run_over_a_stream_that_is_killed_resumes_to_the_bit(
    at: int, accumulate: int, tmp_path: Path
) -> None:
    def run(folder: str, *callbacks: Callback) -> Trainer:
        check = CheckCallback("loss", ckpt_dir=tmp_path / folder, every_n_batches=1)
        names = {"running_id": "r", "resume": "auto", "epochs": 2, "grad_accumulate": accumulate}
        trainer = make_trainer(check, *callbacks, val_every=2, patience=0, **names)
        trainer.fit(Stream(), loader())
        return trainer

    with pytest.raises(SystemExit):
        run("killed", BreaksOff("train batch", at))
    assert outcome(run("killed")) == outcome(run("whole"))


def test_epochs_without_a_step_of_the_optimizer_are_validated_each() -> None:
    trainer = make_trainer(val_every=2, epochs=3)
    trainer.train_step = lambda batch_x, batch_y: None
    history = trainer.fit([(X, Y)], [(X, Y)])
    assert history.val_epochs == [0, 1, 2]


def test_without_validation_data_it_is_warned_of() -> None:
    with pytest.warns(UserWarning, match="val_every was given, and fit"):
        make_trainer(val_every=4, epochs=1).fit(loader())


def test_verify_resume_proves_a_run_with_limits() -> None:
    trainer = make_trainer(val_every=3, max_time="1h", limit_train_batches=7)
    assert trainer.verify_resume(loader(), loader(), steps=20)
