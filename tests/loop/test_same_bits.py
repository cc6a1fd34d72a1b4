"""A hand-written loop and the library give identical bits, under the same seed.

The loop by hand is what a good engineer writes; nothing in it comes from the library.
Compared are weights, buffers, learning rates, the loss and accuracy of every epoch, and
the random state afterwards.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau, StepLR
from torch.utils.data import DataLoader, Subset, TensorDataset

from deepepochs import EpochTask, GradClipCallback, Optimizer, Trainer

EPOCHS, VAL_FREQ, BATCH = 4, 2, 32

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda weights: torch.optim.SGD(weights, lr=0.05, momentum=0.9, nesterov=True),
    "adamw": lambda weights: torch.optim.AdamW(weights, lr=0.003),
    "rmsprop": lambda weights: torch.optim.RMSprop(weights, lr=0.001, momentum=0.5),
}
SCHEDULERS: dict[str, tuple[Callable[..., Any], str]] = {
    "one cycle on step": (lambda opt: OneCycleLR(opt, 0.01, total_steps=200), "step"),
    "step on epoch": (lambda opt: StepLR(opt, 1, gamma=0.5), "epoch"),
    "plateau": (lambda opt: ReduceLROnPlateau(opt, patience=0, threshold=10.0), "epoch"),
}


@dataclass
class Case:
    """What is trained, and how."""

    data: TensorDataset
    optimizer: str = "sgd"
    scheduler: str = "one cycle on step"
    num_train: int = 250
    accumulate: int = 1
    clip: float | None = 0.05
    dropout: float = 0.25
    seed: int = 7

    def build(self) -> tuple[DataLoader[Any], DataLoader[Any], nn.Module, Any, Any, str]:
        seed_all(self.seed)
        train = Subset(self.data, range(self.num_train))
        val = Subset(self.data, range(300, 370))
        model = nn.Sequential(
            nn.Linear(64, 32), nn.BatchNorm1d(32), nn.Dropout(self.dropout), nn.ReLU(),
            nn.Linear(32, 10),
        )  # fmt: skip
        opt = OPTIMIZERS[self.optimizer](model.parameters())
        make_scheduler, sched_on = SCHEDULERS[self.scheduler]
        train_dl = DataLoader(train, BATCH, shuffle=True)
        return train_dl, DataLoader(val, BATCH), model, opt, make_scheduler(opt), sched_on


@dataclass
class Outcome:
    """All that two runs must have in common."""

    weights: dict[str, torch.Tensor] = field(default_factory=dict)
    values: dict[str, list[float]] = field(default_factory=dict)
    rates: list[float] = field(default_factory=list)
    random_state: tuple[Any, ...] = ()


def seed_all(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def random_state() -> tuple[Any, ...]:
    return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()


def hit_rate(preds: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return (preds.argmax(1) == targets).double().mean()


def by_hand(case: Case) -> Outcome:
    """Train as one writes it without a library."""
    train_dl, val_dl, model, opt, scheduler, sched_on = case.build()
    plateau = isinstance(scheduler, ReduceLROnPlateau)
    outcome = Outcome(values={"loss": [], "hit_rate": [], "val_loss": [], "val_hit_rate": []})

    def note(prefix: str, parts: list[tuple[float, torch.Tensor, torch.Tensor]]) -> float:
        loss = sum(value * len(y) for value, _, y in parts) / sum(len(y) for _, _, y in parts)
        preds, targets = torch.cat([p for _, p, _ in parts]), torch.cat([y for _, _, y in parts])
        outcome.values[f"{prefix}loss"].append(loss)
        outcome.values[f"{prefix}hit_rate"].append(hit_rate(preds, targets).item())
        return loss

    for epoch in range(EPOCHS):
        model.train()
        parts, sizes = [], []
        for index, (x, y) in enumerate(train_dl):
            out = model(x)
            loss = F.cross_entropy(out, y)
            sizes.append(len(y))
            if case.accumulate == 1:
                loss.backward()
            elif case.num_train % BATCH == 0:
                (loss / case.accumulate).backward()
            else:
                (loss * (len(y) / sizes[0])).backward()
            if len(sizes) == case.accumulate or index == len(train_dl) - 1:
                if case.num_train % BATCH and sizes[0] != sum(sizes):
                    for weight in model.parameters():
                        weight.grad *= sizes[0] / sum(sizes)
                if case.clip is not None:
                    nn.utils.clip_grad_norm_(model.parameters(), case.clip)
                opt.step()
                if sched_on == "step":
                    scheduler.step()
                opt.zero_grad()
                sizes = []
            parts.append((loss.item(), out.detach(), y))
        note("", parts)
        if (epoch + 1) % VAL_FREQ == 0:
            model.eval()
            with torch.no_grad():
                outs = [(model(x), y) for x, y in val_dl]
            loss = note("val_", [(F.cross_entropy(out, y).item(), out, y) for out, y in outs])
            if plateau:
                scheduler.step(loss)
        if sched_on == "epoch" and not plateau:
            scheduler.step()
        outcome.rates.append(opt.param_groups[0]["lr"])
    outcome.weights = {name: value.clone() for name, value in model.state_dict().items()}
    outcome.random_state = random_state()
    return outcome


def by_library(
    case: Case, task_class: type[EpochTask] = EpochTask, trainer_class: type[Any] = Trainer
) -> Outcome:
    """Train the same with a trainer."""
    train_dl, val_dl, model, opt, scheduler, sched_on = case.build()
    optimizer = Optimizer(opt, scheduler, sched_on)
    trainer = trainer_class(
        model,
        F.cross_entropy,
        optimizer,
        epochs=EPOCHS,
        metrics=hit_rate,
        callbacks=None if case.clip is None else GradClipCallback(case.clip, norm_type=2),
        grad_accumulate=case.accumulate,
        show_info=False,
    )
    rates = []
    # One fit for each two epochs gives the rates on the way, and must change nothing.
    histories = []
    for _ in range(EPOCHS // VAL_FREQ):
        tasks = {"train_tasks": task_class(train_dl), "val_tasks": task_class(val_dl)}
        histories.append(trainer.fit(**tasks, val_freq=VAL_FREQ, epochs=VAL_FREQ))
        rates.append(optimizer.get_current_lr())
    values: dict[str, list[float]] = {}
    for stage, prefix in (("train", ""), ("val", "val_")):
        for name in ("loss", "hit_rate"):
            values[prefix + name] = [float(v) for h in histories for v in h[stage][name]]
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    return Outcome(weights, values, rates, random_state())


def assert_same(library: Outcome, hand: Outcome) -> None:
    assert library.values == hand.values
    assert library.rates == hand.rates[VAL_FREQ - 1 :: VAL_FREQ]
    assert library.weights.keys() == hand.weights.keys()
    for name, weight in hand.weights.items():
        assert torch.equal(library.weights[name], weight), name
    assert library.random_state == hand.random_state


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_library_gives_the_bits_of_the_loop_by_hand(
    digits: TensorDataset, optimizer: str, scheduler: str
) -> None:
    case = Case(digits, optimizer, scheduler)
    assert_same(by_library(case), by_hand(case))


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_accumulation_over_equal_batches_has_the_bits_of_losses_divided_by_their_number(
    digits: TensorDataset, optimizer: str, scheduler: str
) -> None:
    case = Case(digits, optimizer, scheduler, num_train=256, accumulate=4)
    assert_same(by_library(case), by_hand(case))


@pytest.mark.parametrize("accumulate", [2, 3, 5, 100])
def test_accumulation_over_ragged_batches_has_the_bits_of_the_loop_by_hand(
    digits: TensorDataset, accumulate: int
) -> None:
    case = Case(digits, "adamw", accumulate=accumulate)
    assert_same(by_library(case), by_hand(case))


def test_library_gives_the_bits_of_the_loop_by_hand_without_clipping(digits: TensorDataset) -> None:
    case = Case(digits, clip=None)
    assert_same(by_library(case), by_hand(case))


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 8},
        {"dropout": 0.3},
        {"clip": None},
        {"clip": 0.06},
        {"accumulate": 2},
        {"optimizer": "adamw"},
        {"scheduler": "step on epoch"},
        {"num_train": 249},
    ],
    ids=str,
)
def test_a_control_run_with_one_thing_changed_differs(
    digits: TensorDataset, change: dict[str, Any]
) -> None:
    case = Case(digits)
    library, control = by_library(case), by_hand(replace(case, **change))
    assert any(
        not torch.equal(library.weights[name], weight) for name, weight in control.weights.items()
    )
    assert library.values["loss"] != control.values["loss"]


def test_each_schedule_moves_the_rate_so_that_the_comparison_means_something(
    digits: TensorDataset,
) -> None:
    for scheduler in SCHEDULERS:
        rates = by_library(Case(digits, scheduler=scheduler)).rates
        assert len(set(rates)) == len(rates), scheduler


class Short:
    def step(self: Any, batch_x: Any, batch_y: Any, **step_args: Any) -> None:
        model_out = self.model(*batch_x)
        self.loss(model_out, batch_y)


class Long:
    def step(self: Any, batch_x: Any, batch_y: Any, **step_args: Any) -> None:
        model_out = self.model(*batch_x)
        value = self.loss_fn(model_out, batch_y)
        self.backward(value)
        self.optimize()
        self.do_metric(value, model_out, batch_y)


class ShortTask(Short, EpochTask): ...


class LongTask(Long, EpochTask): ...


class ShortTrainer(Short, Trainer): ...


class LongTrainer(Long, Trainer): ...


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize(
    ("task_class", "trainer_class"),
    [
        (ShortTask, Trainer),
        (LongTask, Trainer),
        (EpochTask, ShortTrainer),
        (EpochTask, LongTrainer),
    ],
)
def test_the_short_and_the_long_form_of_a_step_give_the_bits_of_the_loop_by_hand(
    digits: TensorDataset,
    task_class: type[EpochTask],
    trainer_class: type[Any],
    accumulate: int,
) -> None:
    case = Case(digits, "adamw", "plateau", accumulate=accumulate)
    assert_same(by_library(case, task_class, trainer_class), by_hand(case))


@pytest.mark.parametrize("kind", ["tensors", "samples", "drop last", "generator"])
def test_every_way_of_loading_leaves_the_random_state_of_the_loop_by_hand(
    digits: TensorDataset, kind: str
) -> None:
    def run(walk: Callable[[DataLoader[Any], nn.Module, torch.optim.Optimizer], None]) -> Any:
        seed_all(3)
        data: Any = digits if kind != "samples" else [digits[i] for i in range(100)]
        generator = torch.Generator().manual_seed(5) if kind == "generator" else None
        loader = DataLoader(
            data, 48, shuffle=True, drop_last=kind == "drop last", generator=generator
        )
        model = nn.Sequential(nn.Dropout(0.5), nn.Linear(64, 10))
        opt = torch.optim.SGD(model.parameters(), 0.1)
        walk(loader, model, opt)
        own = None if generator is None else generator.get_state().tolist()
        return [p.tolist() for p in model.parameters()], random_state(), own

    def hand(loader: DataLoader[Any], model: nn.Module, opt: torch.optim.Optimizer) -> None:
        for _ in range(2):
            for x, y in loader:
                opt.zero_grad()
                F.cross_entropy(model(x), y).backward()
                opt.step()

    def library(loader: DataLoader[Any], model: nn.Module, opt: torch.optim.Optimizer) -> None:
        Trainer(model, F.cross_entropy, opt, epochs=2, show_info=False).fit(loader)

    assert run(library) == run(hand)
