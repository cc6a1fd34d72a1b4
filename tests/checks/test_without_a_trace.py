"""After `trainer.check()` all is as before: the next fit gives the bits that it gives without it."""

from __future__ import annotations

import copy
import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, TensorDataset

from deepepochs import (
    Callback,
    CheckCallback,
    ConfigError,
    EpochTask,
    GradClipCallback,
    LoopException,
    Optimizer,
    Trainer,
)  # fmt: skip
from deepepochs.nest.compare import differing


@pytest.fixture(autouse=True)
def in_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


class Drawing(Dataset[Any]):
    """Draws from all random streams, and counts its samples."""

    def __init__(self) -> None:
        self.x, self.count = torch.randn(60, 6), 0
        self.generator = torch.Generator().manual_seed(3)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> Any:
        self.count += 1
        noise = 0.1 * random.random() + 0.1 * np.random.rand() + 0.01 * self.count
        x = self.x[index] + noise + 0.1 * torch.rand(6, generator=self.generator)
        return x, int(self.x[index, :3].argmax())


def trained(checks: bool, **options: Any) -> tuple[Any, Any]:
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 3))
    opt = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    sched = torch.optim.lr_scheduler.OneCycleLR(opt, 0.1, total_steps=16)
    trainer = Trainer(
        model, F.cross_entropy, Optimizer(opt, sched, sched_on="step"), epochs=2, console="off",
        device="cpu", metrics="accuracy", **options,
    )  # fmt: skip
    data = Drawing()
    train, val = DataLoader(data, 8, shuffle=True), DataLoader(data, 20)
    fitted = {"train_dl": train, "val_dl": val}
    if checks:
        trainer.check(**fitted)
    history = trainer.fit(**fitted)
    state = copy.deepcopy(trainer.state_dict())
    drawn = [float(torch.rand(())), random.random(), np.random.rand(), data.count]
    return [dict(history["train"]), dict(history["val"]), drawn], state


@pytest.mark.parametrize(
    "options", [{}, {"grad_accumulate": 3}, {"precision": "bf16"}, {"ema": 0.9}, {"max_steps": 9}]
)
def test_a_fit_after_it_has_the_same_bits(options: dict[str, Any]) -> None:
    (before, state), (after, state_after) = trained(False, **options), trained(True, **options)
    assert before == after
    assert not [d for d in differing(state, state_after) if "run" not in d.partition(":")[0]]


def test_a_fit_after_it_has_the_same_bits_with_callbacks_that_save(tmp_path: Path) -> None:
    def callbacks() -> list[Callback]:
        return [CheckCallback("loss", ckpt_dir=tmp_path / "logs"), GradClipCallback(1.0, 2)]

    before, after = (trained(checks, callbacks=callbacks())[0] for checks in (False, True))
    assert before == after


def test_it_writes_no_file(tmp_path: Path) -> None:
    model = nn.Linear(6, 3)
    trainer = Trainer(model, F.cross_entropy, callbacks=CheckCallback("loss"), console="off")
    trainer.check(DataLoader(TensorDataset(torch.randn(40, 6), torch.arange(40) % 3), 8))
    assert not list(tmp_path.iterdir())


def test_it_shows_no_warning_and_the_fit_warns_all_the_same() -> None:
    data = DataLoader(TensorDataset(torch.randn(40, 6), torch.arange(40) % 3), 8)
    model = nn.Sequential(nn.Linear(6, 3), nn.Softmax(1))
    trainer = Trainer(model, F.cross_entropy, epochs=1, console="off", device="cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert trainer.check(data)
    with pytest.warns(UserWarning, match="go through softmax"):
        trainer.fit(data)


def test_hooks_gradients_and_modes_of_the_model_are_as_before() -> None:
    data = DataLoader(TensorDataset(torch.randn(40, 6), torch.arange(40) % 3), 8)
    model = nn.Sequential(nn.Linear(6, 3), nn.Dropout(0.1)).eval()
    trainer = Trainer(model, F.cross_entropy, console="off", device="cpu")
    trainer.check(data, data)
    assert not any(m.training or m._forward_pre_hooks for m in model.modules())
    assert all(weight.grad is None for weight in model.parameters())
    assert (trainer.init_epoch, trainer.history, trainer.is_fit_run) == (0, {}, False)


class Checking(Callback):
    def on_before_epoch(self, trainer: Any, **others: Any) -> None:
        trainer.check([(torch.ones(2, 2), torch.ones(2, 2))])


def test_what_cannot_be_checked_is_refused() -> None:
    data = [(torch.randn(8, 2), torch.randn(8, 2))]
    trainer = Trainer(nn.Linear(2, 2), nn.MSELoss(), epochs=1, console="off", callbacks=Checking())
    with pytest.raises(LoopException, match="inside a running fit"):
        trainer.fit(data)
    trainer = Trainer(nn.Linear(2, 2), nn.MSELoss(), console="off")
    with pytest.raises(ConfigError, match="Did you mean 'metrics'"):
        trainer.check(data, metric="accuracy")
    with pytest.raises(LoopException, match="got neither of train_dl and train_tasks"):
        trainer.check()
    lazy = Trainer(nn.LazyLinear(2), nn.MSELoss(), console="off")
    with pytest.raises(ConfigError, match="lazy layers"):
        lazy.check(data)


class Failing(EpochTask):
    def train_step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> Any:
        raise KeyError("user")


def test_an_error_of_the_user_in_a_step_is_a_finding_and_the_model_stays_as_it_was() -> None:
    data: list[tuple[Tensor, Tensor]] = [(torch.randn(8, 2), torch.randn(8, 2))]
    trainer = Trainer(nn.Linear(2, 2), nn.MSELoss(), console="off")
    before = copy.deepcopy(trainer.model.state_dict())
    (found,) = trainer.check(train_tasks=Failing(data))
    assert found.severity == "error"
    assert "of training fail: KeyError: 'user'" in found.text
    assert not differing(before, trainer.model.state_dict())


def test_an_empty_loader_is_a_finding() -> None:
    (found,) = Trainer(nn.Linear(2, 2), nn.MSELoss(), console="off").check([])
    assert "gave no mini-batch" in found.text


class Torn(Dataset[Any]):
    """Fails at a sample that the first mini-batches do not have."""

    def __len__(self) -> int:
        return 400

    def __getitem__(self, index: int) -> Any:
        if index == 399:
            raise OSError("disk")
        x = torch.full((6,), index / 400)
        return x, index % 3


def test_a_sample_that_fails_late_in_the_check_is_a_finding() -> None:
    trainer = Trainer(nn.Linear(6, 3), F.cross_entropy, console="off", device="cpu")
    found = trainer.check(DataLoader(Torn(), 8))
    assert any("OSError: disk" in one.text for one in found), str(found)


def test_to_ask_whether_something_was_told_tells_nothing() -> None:
    trainer = Trainer(nn.Linear(1, 1))
    assert not trainer.was_told("a")
    assert trainer.tell_once("a")
    assert trainer.was_told("a")
    assert not trainer.tell_once("a")
