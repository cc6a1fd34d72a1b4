"""Seconds by part of the work, read from a clock that goes one second at each look."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from deepepochs import Callback, Trainer
from deepepochs.callbacks.timing import TimingCallback

PARTS = ["data", "forward", "backward", "step", "validation", "other"]


class Clock:
    """Stands still, but where somebody makes it go on."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class SlowBatches:
    """Three mini-batches, each of which takes a while to fetch."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self.clock, self.seconds = clock, seconds

    def __len__(self) -> int:
        return 3

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for _ in range(3):
            self.clock.now += self.seconds
            yield torch.randn(4, 2), torch.randint(0, 2, (4,))


class SlowModel(nn.Module):
    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.clock = clock

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.clock.now += 10.0
        out: torch.Tensor = self.linear(x)
        if out.requires_grad:
            out.register_hook(self.in_backward)
        return out

    def in_backward(self, gradient: torch.Tensor) -> None:
        self.clock.now += 100.0


class SlowSGD(torch.optim.SGD):
    def __init__(self, clock: Clock, params: Any) -> None:
        super().__init__(params, lr=0.1)
        self.clock = clock

    def step(self, closure: Any = None) -> Any:
        self.clock.now += 1000.0
        return super().step(closure)


class SlowLogger(Callback):
    """Another callback: what it does counts as other."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock

    def on_after_train_batch(self, trainer: Trainer, **others: Any) -> None:
        self.clock.now += 10_000.0


@pytest.fixture
def fitted() -> tuple[TimingCallback, Any, Clock, Trainer]:
    clock = Clock()
    model, timing = SlowModel(clock), TimingCallback(clock)
    opt = SlowSGD(clock, model.parameters())
    callbacks = [SlowLogger(clock), timing]
    trainer = Trainer(model, F.cross_entropy, opt, epochs=2, callbacks=callbacks)
    history = trainer.fit(SlowBatches(clock, 1.0), SlowBatches(clock, 2.0))
    return timing, history, clock, trainer


def test_each_part_has_the_seconds_that_it_took(fitted: Any) -> None:
    assert fitted[1].timing == {
        "data": 6 * 1.0,
        "forward": 6 * 10.0,
        "backward": 6 * 100.0,
        "step": 6 * 1000.0,
        "validation": 6 * 12.0,
        "other": 6 * 10_000.0,
    }


def test_the_parts_leave_no_gap(fitted: Any) -> None:
    timing, _, clock, _ = fitted
    assert sum(timing.seconds.values()) == clock.now


def test_a_further_fit_adds_its_seconds(fitted: Any) -> None:
    timing, _, clock, trainer = fitted
    clock.now += 5e6  # between two fits nothing is measured
    trainer.fit(SlowBatches(clock, 1.0), epochs=1)
    assert trainer.history.timing is timing.seconds
    assert sum(timing.seconds.values()) == clock.now - 5e6
    assert timing.seconds["data"] == 9.0


def test_without_the_callback_nothing_is_measured() -> None:
    batches = [(torch.randn(4, 2), torch.randint(0, 2, (4,)))]
    assert Trainer(nn.Linear(2, 2), F.cross_entropy, epochs=1).fit(batches).timing == {}


def test_with_a_clock_of_the_machine_every_part_is_there_and_none_negative() -> None:
    timing = TimingCallback()
    batches = [(torch.randn(4, 2), torch.randint(0, 2, (4,)))] * 3
    trainer = Trainer(nn.Linear(2, 2), F.cross_entropy, epochs=1, callbacks=timing)
    history = trainer.fit(batches)
    assert list(history.timing) == PARTS
    assert all(seconds >= 0 for seconds in history.timing.values())
    assert all(history.timing[part] > 0 for part in ("data", "forward", "backward", "step"))


def test_timing_changes_no_bit_of_the_training() -> None:
    weights = []
    for callbacks in ([], [TimingCallback()]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(2, 4), nn.Dropout(), nn.Linear(4, 2))
        batches = [(torch.randn(4, 2), torch.randint(0, 2, (4,))) for _ in range(3)]
        Trainer(model, F.cross_entropy, epochs=2, callbacks=callbacks).fit(batches)
        weights.append([p.detach() for p in model.parameters()])
    assert all(itertools.starmap(torch.equal, zip(*weights, strict=True)))
