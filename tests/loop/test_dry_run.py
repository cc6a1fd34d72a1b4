"""A dry run tries one mini-batch of each stage and every hook, and leaves no trace."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from deepepochs import (
    Callback,
    CheckCallback,
    ConfigError,
    LogCallback,
    Optimizer,
    ReportCallback,
    Trainer,
)
from deepepochs.callbacks.base import HOOKS
from deepepochs.nest.compare import digest

X = torch.randn(40, 3, generator=torch.Generator().manual_seed(7))
Y = torch.arange(40) % 2


def loader(**options: Any) -> DataLoader[Any]:
    return DataLoader(TensorDataset(X, Y), 4, **{"shuffle": True, **options})


CALLED: list[str] = []


def noted(name: str) -> Any:
    def hook(self: Any, *, trainer: Any, **others: Any) -> None:
        CALLED.append(name)
        self.num_calls += 1

    return hook


class Noting(Callback):
    """Notes each hook, and counts in an attribute of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.num_calls = 0


EveryHook: Any = type("EveryHook", (Noting,), {name: noted(name) for name in HOOKS})


def make_trainer(*callbacks: Callback, **options: Any) -> Trainer:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 2))
    opt = torch.optim.Adam(model.parameters(), lr=0.1)
    optimizer = Optimizer(opt, torch.optim.lr_scheduler.StepLR(opt, 1))
    options = {"epochs": 3, "console": "off", "device": "cpu", **options}
    return Trainer(model, F.cross_entropy, optimizer, callbacks=[*callbacks], **options)


def state_of(trainer: Trainer) -> str:
    return digest(trainer.state_dict())


def test_one_mini_batch_of_each_stage_is_tried_and_every_hook() -> None:
    CALLED.clear()
    trainer = make_trainer(EveryHook(), dry_run=True)
    history = trainer.fit(loader(), loader(), val_freq=3)
    results = trainer.test(loader())
    assert {name for name in HOOKS if name not in CALLED} == {"on_exception"}
    assert {CALLED.count(f"on_after_{stage}_batch") for stage in ("train", "val", "test")} == {1}
    assert len(history["train"]["loss"]) == len(history["val"]["loss"]) == 1 and "loss" in results


def test_everything_is_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    noting = EveryHook()
    callbacks = CheckCallback("loss", every_n_batches=1), LogCallback(), ReportCallback(), noting
    trainer = make_trainer(*callbacks, dry_run=True, running_id="run", resume="auto")
    train_dl, val_dl = loader(), loader()
    before, draws = state_of(trainer), torch.get_rng_state()
    trainer.fit(train_dl, val_dl)
    trainer.test(val_dl)
    assert not list(tmp_path.iterdir())
    assert state_of(trainer) == before and torch.equal(torch.get_rng_state(), draws)
    assert not trainer.history and not trainer.is_fit_run and trainer.logger is None
    assert noting.num_calls == 0 and trainer.callbacks[-1] is noting


@pytest.mark.parametrize("options", [{}, {"generator": torch.Generator()}, {"num_workers": 1}])
def test_a_fit_after_a_dry_one_has_the_same_bits(options: dict[str, Any]) -> None:
    def fit(dry: bool) -> Any:
        if "generator" in options:
            options["generator"].manual_seed(4)
        data = loader(**options), loader(shuffle=False)
        trainer = make_trainer()
        if dry:
            tried = Trainer(
                trainer.model, F.cross_entropy, trainer.opt[0], dry_run=True, console="off"
            )
            tried.fit(*data)
        history = trainer.fit(*data)
        return dict(history), torch.rand(2).tolist()

    assert fit(dry=True) == fit(dry=False)


def test_it_says_in_a_line_what_was_tried(capsys: pytest.CaptureFixture[str]) -> None:
    make_trainer(EveryHook(), dry_run=True, console="rows").fit(loader(), loader())
    assert " ".join(capsys.readouterr().out.split()) == (
        "dry run: one mini-batch of training and of validation with EveryHook works; nothing was "
        "written, and all is as before"
    )


def test_an_error_is_raised_and_all_is_put_back() -> None:
    class Broken(Callback):
        def on_after_val_epochs(self, trainer: Any, **others: Any) -> None:
            raise ZeroDivisionError("at the end of a long epoch")

    trainer = make_trainer(Broken(), dry_run=True)
    before = state_of(trainer)
    with pytest.raises(ZeroDivisionError):
        trainer.fit(loader(), loader())
    assert state_of(trainer) == before and trainer.run is None


def test_a_callback_that_cannot_be_copied_is_refused_by_name() -> None:
    class Locked(Callback):
        def __init__(self) -> None:
            super().__init__()
            self.lock = threading.Lock()

    with pytest.raises(ConfigError, match="Locked cannot be copied"):
        make_trainer(Locked(), dry_run=True).fit(loader())


def test_a_stage_that_is_switched_off_stays_off() -> None:
    trainer = make_trainer(dry_run=True, limit_val_batches=0)
    assert list(trainer.fit(loader(), loader())) == ["train"]


def test_attributes_that_a_step_makes_are_gone_after() -> None:
    class Counting(Trainer):
        started = 0

        def train_step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> None:
            self.started += 1
            self.extra = batch_x
            self.loss(self.model(*batch_x), batch_y)

    model = nn.Linear(3, 2)
    trainer = Counting(model, F.cross_entropy, dry_run=True, console="off")
    before = dict(vars(trainer))
    trainer.fit(loader())
    assert vars(trainer) == before
