"""`trainer.explain` says what a fit is going to do, and does nothing."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from deepepochs import (
    Callback,
    CheckCallback,
    EarlyStopCallback,
    EpochTask,
    GradClipCallback,
    Optimizer,
    Trainer,
)

X, Y = torch.randn(70, 8), torch.arange(70) % 2
TRAIN = DataLoader(TensorDataset(X, Y), 16, shuffle=True)
VAL = DataLoader(TensorDataset(X[:30], Y[:30]), 12)


class Mine(Callback):
    def on_before_fit(self, trainer: Any, epochs: int) -> None: ...

    def on_after_epoch(self, **others: Any) -> None: ...


class Task(EpochTask):
    def train_step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> None:
        self.loss(self.model(*batch_x), batch_y)


def gap(preds: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return (preds[:, 1] - targets).abs().max()


@pytest.fixture(autouse=True)
def in_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


class Endless:
    def __iter__(self) -> Any:
        while True:
            yield X[:16], Y[:16]


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))


def rows(trainer: Trainer, *loaders: Any, **options: Any) -> dict[str, str]:
    """The rows of an explanation; those of one name are joined."""
    found: dict[str, str] = {}
    for name, text in trainer.explain(*loaders, **options).rows:
        found[name] = f"{found[name]} | {text}" if name in found else text
    return found


def test_plain_fit_is_told_in_a_few_lines() -> None:
    trainer = Trainer(net(), F.cross_entropy, epochs=5, metrics="accuracy", device="cpu")
    assert str(trainer.explain(TRAIN, VAL)).splitlines() == [
        "model      Sequential, 178 parameters · cpu · Adam, lr 0.001",
        "epochs     1 to 5",
        "train      5 mini-batches of 16, shuffled; model, then cross_entropy",
        "val        3 mini-batches of 12, in order, after each epoch; model, then cross_entropy",
        "update     an optimizer step after each mini-batch",
        "optimizer  Adam(lr=0.001, betas=(0.9, 0.999))",
        "metric     accuracy: from counts of each class",
        "files      nothing is saved: give callbacks=CheckCallback() to keep the weights",
    ]


def test_steps_and_callbacks_of_the_user_are_named_with_their_place() -> None:
    found = rows(Trainer(net(), F.cross_entropy, callbacks=Mine()), train_tasks=Task(TRAIN))
    assert "by Task.train_step (test_words.py:" in found["train"]
    assert found["callback"].startswith("Mine (test_words.py:")
    assert found["callback"].endswith(") at on_before_fit, on_after_epoch")


def test_a_step_of_the_user_decides_when_the_optimizer_steps() -> None:
    wherever = "an optimizer step wherever the step of training calls loss() or optimize()"
    trainer = Trainer(net(), F.cross_entropy, callbacks=GradClipCallback(0.5))
    assert (
        rows(trainer, train_tasks=Task(TRAIN))["update"] == f"{wherever}, gradients clipped to ±0.5"
    )
    trainer = Trainer(net(), F.cross_entropy)
    assert rows(trainer, TRAIN, val_tasks=Task(VAL))["update"].endswith("after each mini-batch")


def test_groups_with_other_options_are_told() -> None:
    model = net()
    groups = [
        {"params": model[0].parameters(), "weight_decay": 0.0},
        {"params": model[2].parameters(), "lr": 0.5},
    ]
    opt = torch.optim.AdamW(groups, lr=0.1, weight_decay=0.2)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(opt)
    found = rows(Trainer(model, F.cross_entropy, Optimizer(opt, plateau)), TRAIN)
    options = "lr=0.1 to 0.5, betas=(0.9, 0.999), weight_decay=0.0 to 0.2"
    assert found["optimizer"] == f"AdamW({options}) in 2 groups"
    assert found["scheduler"] == "ReduceLROnPlateau, moved after each epoch by loss"


def test_groups_with_the_same_options_are_told_as_one() -> None:
    model = net()
    opt = torch.optim.SGD([{"params": one.parameters()} for one in (model[0], model[2])], lr=0.1)
    assert rows(Trainer(model, F.cross_entropy, opt), TRAIN)["optimizer"] == "SGD(lr=0.1)"


def test_tasks_have_a_line_each() -> None:
    tasks = [EpochTask(TRAIN, name="night"), EpochTask(VAL, name="day", do_loss=False)]
    found = rows(Trainer(net(), F.cross_entropy), TRAIN, val_tasks=tasks, val_freq=2)
    night, day = found["val"].split(" | ")
    assert night.startswith("task 'night': 5 mini-batches") and "every 2 epochs" in night
    assert day.endswith("model alone, without a loss")


def test_optimizers_are_told_with_their_weights_and_schedules() -> None:
    model = net()
    one = torch.optim.AdamW(model[0].parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(one, 0.1, total_steps=30)
    found = rows(Trainer(model, F.cross_entropy, Optimizer(one, schedule, sched_on="step")), TRAIN)
    assert found["optimizer"].startswith("AdamW(lr=0.004, ")
    assert found["optimizer"].endswith("for 144 parameters in 0")
    assert found["scheduler"] == "OneCycleLR, moved after each step"
    assert found["in no optimizer"] == "34 parameters in 2: these weights stay as they are"


def test_metrics_are_told_with_how_they_are_carried() -> None:
    trainer = Trainer(net(), F.cross_entropy, metrics=["f1", gap])
    found = rows(trainer, TRAIN, VAL, val_metrics="precision")["metric"].split(" | ")
    assert found == [
        "f1: from counts of each class",
        "gap: once, on all outputs of the epoch, which are kept",
        "precision: from counts of each class (val only)",
    ]


def test_limits_and_averages_are_told() -> None:
    trainer = Trainer(
        net(),
        F.cross_entropy,
        epochs=9,
        grad_accumulate=2,
        precision="bf16",
        ema=0.99,
        max_steps=100,
        max_time="2m",
        val_every=3,
        limit_val_batches=2,
        on_oom="split",
        deterministic=True,
        callbacks=GradClipCallback(1.0, norm_type=2),
    )
    found = rows(trainer, TRAIN, VAL)
    assert found["epochs"].startswith("1 to 9, at most 100 optimizer steps, at most 2")
    assert found["val"].startswith("the first 2 mini-batches of 12")
    assert "every 3 optimizer steps" in found["val"]
    assert found["update"] == (
        "an optimizer step after every 2 mini-batches, in bf16, the 2-norm of the gradients clipped "
        "to 1, on parts of a mini-batch where memory is short, by deterministic operations"
    )
    assert found["average of weights"].startswith("EMA(0.99)")


def test_epochs_are_those_that_max_steps_takes() -> None:
    trainer = Trainer(net(), F.cross_entropy, max_steps=12)
    assert rows(trainer, TRAIN)["epochs"] == "1 to 3, at most 12 optimizer steps"
    assert rows(trainer, TRAIN, epochs=2)["epochs"] == "1 to 2, at most 12 optimizer steps"
    said = "from 1 on, as many as the steps take, at most 12 optimizer steps"
    assert rows(trainer, Endless())["epochs"] == said


def test_dry_run_says_that_nothing_is_kept() -> None:
    found = rows(Trainer(net(), F.cross_entropy, dry_run=True, callbacks=CheckCallback()), TRAIN)
    assert found["epochs"].startswith("none: a dry run")
    assert found["files"] == "none: a dry run writes nothing"


def test_overfitting_is_told() -> None:
    found = rows(Trainer(net(), F.cross_entropy, epochs=3, overfit_batches=2), TRAIN)
    assert found["epochs"] == "1 to 3, each on the same 2 mini-batches"


def test_stops_and_files_are_told() -> None:
    callbacks = [CheckCallback("loss", patience=3), EarlyStopCallback("loss", patience=4)]
    trainer = Trainer(net(), F.cross_entropy, callbacks=callbacks, running_id="mine")
    found = rows(trainer, TRAIN, VAL)
    kept = "keeps the state with the best val loss, stops after 3 without a better one"
    assert f"CheckCallback: {kept}" in found["callback"]
    assert "EarlyStopCallback: stops after 4 without a better val loss" in found["callback"]
    assert found["files"] == "in logs/mine"


def test_a_later_fit_begins_after_the_epochs_that_are_done() -> None:
    trainer = Trainer(net(), F.cross_entropy, epochs=2, console="off")
    trainer.fit(TRAIN)
    assert rows(trainer, TRAIN, epochs=3)["epochs"] == "3 to 5"
    assert rows(trainer, TRAIN)["epochs"] == "none is left"


def test_explaining_leaves_no_trace(tmp_path: Path) -> None:
    trainer = Trainer(net(), F.cross_entropy, metrics=gap, callbacks=CheckCallback("loss"))
    states = torch.get_rng_state(), random.getstate(), str(np.random.get_state())

    trainer.explain(TRAIN, VAL)

    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1:] == (random.getstate(), str(np.random.get_state()))
    assert not [*tmp_path.iterdir()] and trainer.session is None


def test_notebook_shows_a_table() -> None:
    shown = Trainer(net(), F.cross_entropy).explain(TRAIN)._repr_html_()
    assert "<table" in shown and "mini-batches of 16" in shown
