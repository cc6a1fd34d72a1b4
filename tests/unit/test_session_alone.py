"""A Session, made alone from a trainer and a plan: what it sets for its call, it puts back."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from deepepochs import Callback, EpochTask, Trainer
from deepepochs.errors import LoopException, StopLoopException
from deepepochs.fit.plan import FitPlan, plan_test
from deepepochs.fit.session import Kind, Session
from deepepochs.loop import run_pass
from deepepochs.stages import Stage

BATCHES = [(torch.ones(2, 3), torch.tensor([0, 1])), (torch.zeros(1, 3), torch.tensor([1]))]


@pytest.fixture
def trainer() -> Trainer:
    model = nn.Sequential(nn.Linear(3, 2), nn.Dropout())
    model[1].eval()
    return Trainer(model, F.cross_entropy, show_info=False)


def plan(trainer: Trainer) -> FitPlan:
    return plan_test(trainer, BATCHES, None, None, True, None)


def make(trainer: Trainer, *callbacks: Callback, outer: Session | None = None) -> Session:
    return Session(trainer, plan(trainer), Kind.TEST, callbacks, outer)


def run(session: Session) -> dict[str, Any]:
    return run_pass(session, session.plan.tasks[Stage.TEST][0], Stage.TEST)


def test_a_pass_in_a_session_gives_what_test_gives(trainer: Trainer) -> None:
    with make(trainer) as session:
        values = run(session)
        assert session.run is None
        assert session.stage_values(session.totals) == values
    assert values == trainer.test(BATCHES)


def test_gradients_are_off_inside_and_modes_are_put_back(trainer: Trainer) -> None:
    modes = [module.training for module in trainer.model.modules()]
    with make(trainer) as session:
        assert not torch.is_grad_enabled()
        run(session)
        assert not trainer.model.training
    assert torch.is_grad_enabled()
    assert [module.training for module in trainer.model.modules()] == modes


def test_its_own_callbacks_are_called_and_no_hook_is_left_on_the_model(trainer: Trainer) -> None:
    class Looks(Callback):
        def __init__(self) -> None:
            super().__init__()
            self.losses: list[float] = []

        def on_before_test_forward(self, *, trainer: Any) -> None:
            raise AssertionError("the trainer runs nothing")

        def on_after_test_batch(self, *, trainer: Any, metrics: Any, batch_idx: int) -> None:
            self.losses.append(metrics["loss"])

    looks = Looks()
    with make(trainer, looks) as session:
        assert trainer.model._forward_pre_hooks
        run(session)
    assert len(looks.losses) == len(BATCHES)
    assert not trainer.model._forward_pre_hooks


def test_a_stop_ends_the_session_and_the_one_around_it(trainer: Trainer) -> None:
    outer = make(trainer)
    with outer:
        with make(trainer, outer=outer) as inner:
            assert inner.outer is outer
            raise StopLoopException("enough")
        with pytest.raises(StopLoopException, match="enough"):
            run(outer)


def test_a_task_of_another_call_is_refused(trainer: Trainer) -> None:
    with make(trainer) as session, pytest.raises(LoopException, match="not a test task"):
        run_pass(session, EpochTask(BATCHES), Stage.TEST)
