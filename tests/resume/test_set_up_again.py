"""What hooks set up is there after a resume, and what they drew or counted is undone."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepepochs import Callback, Optimizer, Trainer
from deepepochs.errors import CheckpointMismatch

sys.path.insert(0, str(Path(__file__).parent))
from exact_runs import Fit, SaveAlways, base_fit, check, finish, resumed, through_a_file, unbroken


class FreezeNorm(Callback):
    def on_before_train_epoch(self, trainer: Any, task: Any) -> None:
        trainer.model[1].eval()


class DropInValidation(Callback):
    def on_before_val_epoch(self, trainer: Any, task: Any) -> None:
        trainer.model[3].train()


class DropByEpoch(Callback):
    def on_before_train_epochs(self, trainer: Any, epoch_idx: int, **others: Any) -> None:
        trainer.model[3].p = 0.3 * (epoch_idx + 1)


class FreezeLater(Callback):
    """Not a hook that is called again: its work is in the state."""

    def on_before_train_batch(self, trainer: Any, batch_idx: int, **others: Any) -> None:
        if batch_idx == 1:
            trainer.model[1].eval()


class DrawAndCount(Callback):
    def __init__(self) -> None:
        super().__init__()
        self.drawn: list[float] = []

    def on_before_fit(self, **others: Any) -> None:
        torch.rand(3)

    def on_before_epoch(self, **others: Any) -> None:
        self.drawn.append(float(torch.rand(())))

    on_before_val_epochs = on_before_train_epoch = on_before_epoch

    def state_dict(self) -> dict[str, Any]:
        return {"drawn": list(self.drawn)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.drawn = list(state["drawn"])


class Initialise(Callback):
    def on_before_fit(self, trainer: Any, **others: Any) -> None:
        nn.init.ones_(trainer.model[0].weight)


class Average(Callback):
    """Its state is made in a hook, so there is none at a load."""

    average: dict[str, Tensor]

    def on_before_fit(self, trainer: Any, **others: Any) -> None:
        self.average = {name: value.clone() for name, value in trainer.model.state_dict().items()}

    def on_after_train_batch(self, trainer: Any, **others: Any) -> None:
        for name, value in trainer.model.state_dict().items():
            self.average[name] += value

    def state_dict(self) -> dict[str, Any]:
        return dict(self.average)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.average = {name: value.clone() for name, value in state.items()}


class WeightOfPenalty:
    factor = 0.0

    def __call__(self, model_out: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(model_out, targets) + self.factor * model_out.square().mean()


class RaisePenalty(Callback):
    def on_before_epoch(self, trainer: Any, epoch_idx: int, **others: Any) -> None:
        trainer.loss_fn.factor = 0.3 * epoch_idx


@pytest.mark.parametrize(
    "callback",
    [FreezeNorm, DropInValidation, DropByEpoch, FreezeLater, DrawAndCount, Initialise, Average],
)
def test_what_a_hook_sets_up_is_there_after_a_resume(callback: Callable[[], Callback]) -> None:
    assert check(lambda *cbks: base_fit(callback(), *cbks), every=3) > 3


def test_a_loss_that_a_hook_changes_by_epoch_is_the_same_after_a_resume() -> None:
    def make(*callbacks: Callback) -> Fit:
        return base_fit(RaisePenalty(), *callbacks, loss=WeightOfPenalty())

    assert check(make, every=3) > 3


class Unfreeze(Callback):
    """Adds a group in one hook of the second epoch, and in no other."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where

    def unfreeze(self, trainer: Any, where: str) -> None:
        if where == self.where and trainer.progress.epoch_idx == 1:
            layer = trainer.model[0]
            layer.requires_grad_(True)
            trainer.opt[0].opt.add_param_group({"params": list(layer.parameters()), "lr": 0.1})

    def on_before_epoch(self, trainer: Any, **others: Any) -> None:
        self.unfreeze(trainer, "epoch")

    def on_before_train_epoch(self, trainer: Any, task: Any) -> None:
        self.unfreeze(trainer, "pass")

    def on_before_train_batch(self, trainer: Any, batch_idx: int, **others: Any) -> None:
        self.unfreeze(trainer, f"batch {batch_idx}")


def frozen_at_first() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    model[0].requires_grad_(False)
    return model


def adam(model: nn.Module) -> Any:
    return torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.02)


def sgd_by_steps(model: nn.Module) -> Any:
    opt = torch.optim.SGD(model[1].parameters(), lr=0.1, momentum=0.9)  # type: ignore[index]
    return Optimizer(opt, torch.optim.lr_scheduler.StepLR(opt, 2), sched_on="step")


def unfreezing(where: str, opt: Callable[[nn.Module], Any] = adam) -> Callable[..., Fit]:
    return lambda *cbks: base_fit(Unfreeze(where), *cbks, model=frozen_at_first, opt=opt, epochs=3)


@pytest.mark.parametrize("where", ["epoch", "pass", "batch 1"])
def test_a_group_that_was_added_in_training_is_there_after_a_resume(where: str) -> None:
    assert check(unfreezing(where), every=4) > 3


def test_a_group_that_was_added_beside_a_schedule_is_there_after_a_resume() -> None:
    assert check(unfreezing("epoch", sgd_by_steps), every=5) > 3


def test_a_group_of_an_unknown_weight_is_refused() -> None:
    _, saver = unbroken(unfreezing("epoch"))
    state = through_a_file(saver.states[-1])
    state["optimizers"][0]["names"][1][0] = "model.7.weight"
    trainer = unfreezing("epoch")().trainer
    with pytest.raises(CheckpointMismatch, match="groups of"):
        trainer.load_state_dict(state)
    assert len(trainer.opt[0].param_groups) == 1


def test_a_state_without_names_and_another_number_of_groups_is_refused() -> None:
    _, saver = unbroken(unfreezing("epoch"))
    state = through_a_file(saver.states[-1])
    del state["optimizers"][0]["names"]
    with pytest.raises(CheckpointMismatch, match="groups of"):
        unfreezing("epoch")().trainer.load_state_dict(state)


def test_a_parameter_that_only_the_script_trains_is_refused_by_name() -> None:
    state = through_a_file(unfreezing("never")().trainer.state_dict())
    model = frozen_at_first().requires_grad_(True)
    trainer = Trainer(model, F.cross_entropy, adam(model), show_info=False)
    with pytest.raises(CheckpointMismatch, match=r"here trains model\.0\.weight, model\.0\.bias"):
        trainer.load_state_dict(state)


def test_parameters_in_another_order_get_their_own_state() -> None:
    def make(*callbacks: Callback) -> Fit:
        return base_fit(*callbacks, opt=lambda m: torch.optim.Adam(m.parameters(), lr=0.02))

    def reversed_order(*callbacks: Callback) -> Fit:
        def opt(model: nn.Module) -> Any:
            return torch.optim.Adam(list(model.parameters())[::-1], lr=0.02)

        return base_fit(*callbacks, opt=opt)

    whole, saver = unbroken(make)
    other = resumed(reversed_order, saver.states[2])
    assert all(torch.equal(other.state["model"][k], v) for k, v in whole.state["model"].items())


def lazy() -> nn.Module:
    return nn.Sequential(nn.LazyLinear(6), nn.LazyBatchNorm1d(), nn.ReLU(), nn.LazyLinear(2))


class Bank(nn.Module):
    """Keeps what it has seen in a buffer."""

    bank: Tensor

    def __init__(self, size: int = 0) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2)
        self.register_buffer("bank", torch.zeros(size, 4))

    def forward(self, x: Tensor) -> Any:
        if self.training:
            self.bank = torch.cat([self.bank, x.detach()])
        return self.linear(x) + self.bank.mean()


@pytest.mark.parametrize("model", [lazy, Bank])
def test_shapes_that_come_with_training_are_there_after_a_resume(
    model: Callable[[], nn.Module],
) -> None:
    assert check(lambda *cbks: base_fit(*cbks, model=model, opt=adam_of_all), every=4) > 2


def adam_of_all(model: nn.Module) -> Any:
    return torch.optim.Adam(model.parameters(), lr=0.02)


def test_a_buffer_that_the_script_makes_with_another_shape_is_refused() -> None:
    fit = base_fit(SaveAlways(), model=Bank, opt=adam_of_all)
    finish(fit)
    state = through_a_file(fit.trainer.state_dict())
    with pytest.raises(CheckpointMismatch, match=r"bank is \[22, 4\], and here \[3, 4\]"):
        base_fit(model=lambda: Bank(3), opt=adam_of_all).trainer.load_state_dict(state)
