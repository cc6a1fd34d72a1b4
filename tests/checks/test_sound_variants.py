"""`trainer.check()` is silent where a training looks like a faulty one and is sound."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import lr_scheduler as schedules
from torch.utils.data import (
    DataLoader,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
)

from deepepochs import Callback, CheckCallback, InterpretCallback, Optimizer, Trainer


@pytest.fixture(autouse=True)
def in_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)


X = torch.randn(96, 6, generator=torch.Generator().manual_seed(1))
Y = X[:, :3].argmax(1)


def net(out: int = 3, *first: nn.Module) -> nn.Sequential:
    return nn.Sequential(*first, nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, out))


def data(y: Tensor = Y, size: int = 8, x: Tensor = X, **options: Any) -> DataLoader[Any]:
    return DataLoader(TensorDataset(x, y), size, **{"shuffle": True, **options})


def check(
    model: nn.Module | None = None, loss: Any = F.cross_entropy, opt: Any = None, train: Any = None,
    val: Any = None, given: dict[str, Any] | None = None, **options: Any,
) -> Any:  # fmt: skip
    model = net() if model is None else model
    opt = torch.optim.Adam(model.parameters(), 0.01) if opt is None else opt(model)
    options = {"epochs": 4, "console": "off", "device": "cpu", **options}
    trainer = Trainer(model, loss, opt, **options)
    return trainer.check(data() if train is None else train, val, **(given or {}))


def scheduled(
    make: Callable[[Any], Any], trainer: dict[str, Any] | None = None, **options: Any
) -> Any:
    def opt(model: nn.Module) -> Optimizer:
        sgd = torch.optim.SGD(model.parameters(), 0.1)
        return Optimizer(sgd, make(sgd), **options)

    return check(opt=opt, **(trainer or {}))


class Mixed:
    """Mixes samples and their labels (mixup)."""

    def __call__(self, samples: Any) -> Any:
        x, y = default_collate(samples)
        marks = F.one_hot(y, 3).float()
        return 0.7 * x + 0.3 * x.flip(0), 0.7 * marks + 0.3 * marks.flip(0)


class FrozenByACallback(Callback):
    def on_before_train_epoch(self, trainer: Any, **others: Any) -> None:
        trainer.model[0].eval()


def frozen_by_a_callback() -> Any:
    body = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6))
    body(X)
    model = nn.Sequential(body.requires_grad_(False), nn.Linear(6, 3))
    return check(model, callbacks=FrozenByACallback())


class WarmedByACallback(Callback):
    def on_before_train_batch(self, trainer: Any, **others: Any) -> None:
        trainer.opt[0].param_groups[0]["lr"] = 0.1


def samples_that_are_weights() -> Any:
    codes = torch.zeros(96, 6, requires_grad=True)
    return check(
        nn.Linear(6, 3), opt=lambda model: torch.optim.Adam([*model.parameters(), codes], 0.01),
        train=DataLoader(TensorDataset(codes, Y), 32),
    )  # fmt: skip


def mini_batches_without_tokens() -> Any:
    labels = torch.randint(3, (96, 5))
    labels[8:16] = -100

    def loss(out: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(out[:, None].expand(-1, 5, -1).flatten(0, 1), y.flatten())

    count = {"batch_size": lambda x, y: (y != -100).sum()}
    return check(loss=loss, train=data(labels, shuffle=False), given=count)


class SmallHead(nn.Module):
    """Brings a head that is not used here."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.unused = net(), nn.Linear(1, 1)

    def forward(self, x: Tensor) -> Any:
        return self.body(x)


def compiled() -> Any:
    model = net(3, nn.Dropout(0.1))
    model.compile(backend="eager")
    return check(model)


def folds() -> Any:
    whole = TensorDataset(X, Y)
    parts = (SubsetRandomSampler(part) for part in (range(64), range(64, 96)))
    train, val = (DataLoader(whole, 8, sampler=part) for part in parts)
    return check(train=train, val=val)


def few_values() -> Any:
    """Of a table with few values, samples are equal by chance."""
    x = torch.randint(2, (400, 6)).float()
    y = x[:, :3].argmax(1)
    return check(train=data(y[:300], x=x[:300]), val=data(y[300:], x=x[300:]))


def segments() -> Any:
    model = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 1))
    x = torch.rand(40, 1, 8, 8)
    y = (x[:, 0] * 3).long().clamp(max=2)
    y[:, 0] = 255  # the border is ignored
    return check(model, nn.CrossEntropyLoss(ignore_index=255), train=data(y, x=x))


VARIANTS: dict[str, Callable[[], Any]] = {
    "labels in turn without shuffling": lambda: check(
        train=data(torch.arange(96) % 3, shuffle=False)
    ),
    "data that are shuffled before": lambda: check(train=data(shuffle=False)),
    "a sampler for rare classes": lambda: check(
        train=data(shuffle=False, sampler=WeightedRandomSampler([1.0] * 96, 96))
    ),
    "one mini-batch an epoch": lambda: check(train=data(Y.sort().values, 96, shuffle=False)),
    "folds of one data set": folds,
    "samples that are equal by chance": few_values,
    "mixed labels": lambda: check(train=data(collate_fn=Mixed())),
    "a border that is ignored": segments,
    "several labels": lambda: check(
        loss=nn.BCEWithLogitsLoss(), train=data((X[:, :3] > 0).float())
    ),
    "a weight for rare yes": lambda: check(
        net(1),
        nn.BCEWithLogitsLoss(pos_weight=torch.tensor([99.0])),
        train=data((X[:, :1] > 1.5).float()),
    ),
    "weights of classes": lambda: check(loss=nn.CrossEntropyLoss(torch.tensor([1.0, 50.0, 1.0]))),
    "yes and no where yes is rare": lambda: check(
        net(1), nn.BCEWithLogitsLoss(), train=data((torch.arange(96) == 50).float()[:, None])
    ),
    "large targets": lambda: check(net(1), nn.MSELoss(), train=data(2e5 + 5e4 * X[:, :1])),
    "a sum of losses": lambda: check(net(1), nn.MSELoss(reduction="sum"), train=data(X[:, :1])),
    "pixels behind a batch norm": lambda: check(net(3, nn.BatchNorm1d(6)), train=data(x=255 * X)),
    "a linear model": lambda: check(nn.Linear(6, 1), nn.MSELoss(), train=data(torch.randn(96, 1))),
    "group norm of one sample": lambda: check(
        nn.Sequential(nn.Linear(6, 16), nn.GroupNorm(2, 16), nn.ReLU(), nn.Linear(16, 3)),
        train=data(size=1),
    ),
    "batch norm that a callback freezes": frozen_by_a_callback,
    "a rate that a callback sets": lambda: check(
        opt=lambda model: torch.optim.SGD(model.parameters(), 1e-8), callbacks=WarmedByACallback()
    ),
    "samples that are weights": samples_that_are_weights,
    "mini-batches that weigh nothing": mini_batches_without_tokens,
    "fine-tuning": lambda: check(opt=lambda model: torch.optim.AdamW(model.parameters(), 1e-5)),
    "Adadelta": lambda: check(opt=lambda model: torch.optim.Adadelta(model.parameters())),
    "Rprop": lambda: check(opt=lambda model: torch.optim.Rprop(model.parameters())),
    "Adafactor": lambda: check(opt=lambda model: torch.optim.Adafactor(model.parameters())),
    "two rates": lambda: check(
        opt=lambda model: torch.optim.Adam(
            [{"params": model[0].parameters(), "lr": 1e-4}, {"params": model[2].parameters()}], 0.01
        )
    ),
    "a cosine on epochs": lambda: scheduled(
        lambda opt: schedules.CosineAnnealingLR(opt, 4), sched_on="epoch"
    ),
    "a cosine on steps": lambda: scheduled(
        lambda opt: schedules.CosineAnnealingLR(opt, 48), sched_on="step"
    ),
    "one cycle": lambda: scheduled(
        lambda opt: schedules.OneCycleLR(opt, 0.1, total_steps=48), sched_on="step"
    ),
    "a rise from 0": lambda: scheduled(
        lambda opt: schedules.LambdaLR(opt, lambda step: min(1.0, step / 20)), sched_on="step"
    ),
    "a rise, then a cosine": lambda: scheduled(
        lambda opt: schedules.SequentialLR(
            opt,
            [schedules.LinearLR(opt, 0.1, total_iters=8), schedules.CosineAnnealingLR(opt, 40)],
            [8],
        ),
        sched_on="step",
    ),
    "a plateau": lambda: scheduled(lambda opt: schedules.ReduceLROnPlateau(opt, patience=2)),
    "files for TensorBoard and checkpoints": lambda: check(
        callbacks=[
            CheckCallback("loss", on_stage="train"),
            InterpretCallback(nn.CrossEntropyLoss(reduction="none")),
        ]
    ),
    "a compiled model": compiled,
    "an average of the weights": lambda: check(ema=0.9, val=data(x=X + 0.5)),
    "LBFGS": lambda: check(opt=lambda model: torch.optim.LBFGS(model.parameters(), 0.1)),
    "steps that are split": lambda: check(on_oom="split"),
    "few mini-batches": lambda: check(limit_train_batches=3, grad_accumulate=4, max_steps=5),
    "learning by heart": lambda: check(overfit_batches=2, val=data()),
    "one mini-batch of each stage": lambda: check(dry_run=True, val=data(x=X + 0.5)),
    "a limit of steps": lambda: scheduled(
        lambda opt: schedules.CosineAnnealingLR(opt, 20), trainer={"max_steps": 20}, sched_on="step"
    ),
    "steps alone": lambda: scheduled(
        lambda opt: schedules.OneCycleLR(opt, 0.1, total_steps=30),
        trainer={"max_steps": 30, "epochs": 1000},
        sched_on="step",
    ),
    "windows of 4": lambda: check(grad_accumulate=4),
    "half precision": lambda: check(precision="bf16"),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_a_sound_training_gives_no_finding(name: str) -> None:
    assert str(VARIANTS[name]()) == "nothing found"


def test_a_small_head_that_is_not_used_is_only_a_note() -> None:
    (found,) = check(SmallHead())
    assert (found.severity, "unused.weight" in found.text) == ("note", True)
