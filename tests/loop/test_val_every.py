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


def test_without_validation_data_it_is_warned_of() -> None:
    with pytest.warns(UserWarning, match="val_every was given, and fit"):
        make_trainer(val_every=4, epochs=1).fit(loader())


def test_verify_resume_proves_a_run_with_limits() -> None:
    trainer = make_trainer(val_every=3, max_time="1h", limit_train_batches=7)
    assert trainer.verify_resume(loader(), loader(), steps=20)
