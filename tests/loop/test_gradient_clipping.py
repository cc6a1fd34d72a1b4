"""Gradients are clipped between the backward pass and the optimizer's step."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Subset, TensorDataset

from deepepochs import Callback, EpochTask, GradClipCallback, Trainer
from deepepochs.errors import ConfigError


def make_model() -> nn.Module:
    torch.manual_seed(2)
    return nn.Sequential(nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 10))


def weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def loader_of(digits: TensorDataset) -> DataLoader[Any]:
    return DataLoader(Subset(digits, range(80)), batch_size=16)


def by_hand(digits: TensorDataset, clip: Any) -> Tensor:
    model = make_model()
    opt = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(2):
        for x, y in loader_of(digits):
            opt.zero_grad()
            F.cross_entropy(model(x), y).backward()
            clip(model.parameters())
            opt.step()
    return weights(model)


def by_library(digits: TensorDataset, callbacks: Any, **options: Any) -> Tensor:
    model = make_model()
    opt = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    Trainer(
        model, F.cross_entropy, opt, epochs=2, callbacks=callbacks, show_info=False, **options
    ).fit(loader_of(digits))
    return weights(model)


CLIPS = {
    "value": (GradClipCallback(0.01), lambda p: nn.utils.clip_grad_value_(p, 0.01)),
    "norm 2": (GradClipCallback(0.3, norm_type=2), lambda p: nn.utils.clip_grad_norm_(p, 0.3)),
    "norm 1": (GradClipCallback(2.0, 1), lambda p: nn.utils.clip_grad_norm_(p, 2.0, 1.0)),
    "norm inf": (
        GradClipCallback(0.02, math.inf),
        lambda p: nn.utils.clip_grad_norm_(p, 0.02, math.inf),
    ),
}


@pytest.mark.parametrize("kind", CLIPS)
def test_clipping_has_the_bits_of_the_loop_by_hand_and_an_effect(
    digits: TensorDataset, kind: str
) -> None:
    callback, clip = CLIPS[kind]
    found = by_library(digits, callback)
    assert torch.equal(found, by_hand(digits, clip))
    assert not torch.equal(found, by_library(digits, None))
    assert torch.equal(by_library(digits, None), by_hand(digits, lambda p: None))


def test_a_bound_that_is_never_reached_changes_nothing(digits: TensorDataset) -> None:
    for callback in (GradClipCallback(1e6), GradClipCallback(1e6, norm_type=2)):
        assert torch.equal(by_library(digits, callback), by_library(digits, None))


class Seen(Callback):
    """Notes the gradients before the clipping (outer) and after it (inner)."""

    def __init__(self, order: int) -> None:
        super().__init__(priority=order)
        self.largest: list[float] = []
        self.norms: list[float] = []

    def on_before_optimize(self, trainer: Any, optimize_index: int | None) -> None:
        gradients = torch.cat([p.grad.flatten() for p in trainer.model.parameters()])
        self.largest.append(gradients.abs().max().item())
        self.norms.append(gradients.norm().item())


def test_clipping_lies_between_callbacks_by_order_and_keeps_its_bound(
    digits: TensorDataset,
) -> None:
    before, after = Seen(0), Seen(9)
    by_library(digits, [after, GradClipCallback(0.3, norm_type=2), before])
    assert min(before.norms) > 0.3 >= max(after.norms) - 1e-6
    before, after = Seen(0), Seen(9)
    by_library(digits, [after, GradClipCallback(0.01), before])
    assert min(before.largest) > 0.01 >= max(after.largest) - 1e-9


def test_with_accumulation_the_gradient_of_the_whole_window_is_clipped(
    digits: TensorDataset,
) -> None:
    before, after = Seen(0), Seen(9)
    clip = GradClipCallback(0.3, norm_type=2)
    by_library(digits, [before, clip, after], grad_accumulate=2)
    assert len(before.norms) == 2 * 3
    model = make_model()
    x, y = digits[:32]
    F.cross_entropy(model(x), y).backward()
    whole = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    assert before.norms[0] == pytest.approx(whole.norm().item(), rel=1e-5)
    assert after.norms[0] == pytest.approx(0.3, rel=1e-4)


@pytest.mark.parametrize("by_index", [True, False])
def test_with_two_optimizers_the_gradients_about_to_be_used_are_clipped(
    digits: TensorDataset, by_index: bool
) -> None:
    class Stepping(EpochTask):
        def train_step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> None:
            self.loss(self.model(*batch_x), batch_y, do_optimize=not by_index)
            if by_index:
                self.optimize(1)
                self.optimize(0)

    def run(model: Any) -> list[torch.optim.Optimizer]:
        return [torch.optim.SGD(model[i].parameters(), lr=0.5) for i in (0, 2)]

    model, control = make_model(), make_model()
    clip = GradClipCallback(0.2, norm_type=2)
    trainer = Trainer(model, F.cross_entropy, run(model), epochs=1, callbacks=clip, show_info=False)
    trainer.fit(train_tasks=Stepping(loader_of(digits)))
    opts = run(control)
    for x, y in loader_of(digits):
        F.cross_entropy(control(x), y).backward()
        if by_index:
            for part in (control[2], control[0]):  # type: ignore[index]
                nn.utils.clip_grad_norm_(part.parameters(), 0.2)
        else:
            nn.utils.clip_grad_norm_(control.parameters(), 0.2)
        for opt in opts:
            opt.step()
            opt.zero_grad()
    assert torch.equal(weights(model), weights(control))


@pytest.mark.parametrize("arguments", [(0,), (-1.0,), ("1",), (1.0, 0), (1.0, "2"), (math.nan,)])
def test_a_bound_or_norm_that_cannot_be_raises(arguments: Any) -> None:
    with pytest.raises(ConfigError, match="positive number"):
        GradClipCallback(*arguments)
