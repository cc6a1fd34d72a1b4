"""A Window and Rounds, each made alone: mini-batches that share a step, and processes in step."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from deepepochs.data.cursor import Cursor
from deepepochs.optim.accumulation import Window
from deepepochs.optim.optimizers import Optimizer, Optimizers
from deepepochs.runtime.base import LocalRuntime
from deepepochs.runtime.rounds import Meetings, Rounds, Sizes


@pytest.fixture
def opt() -> Optimizers:
    weight = nn.Parameter(torch.ones(1))
    weight.grad = torch.ones(1)
    return Optimizers([Optimizer(torch.optim.SGD([weight], lr=1.0))])


def test_a_step_waits_until_the_window_closes_and_is_then_due_once(opt: Optimizers) -> None:
    window = Window(2)
    window.open_batch(4, is_last=False)
    assert window.waits(opt, None)
    assert not window.due(opt, at_end=False, is_last=False)
    window.open_batch(4, is_last=False)
    assert window.due(opt, at_end=False, is_last=False) == [None]
    assert not window.waits(opt, None)
    assert not window.due(opt, at_end=False, is_last=False)


def test_the_gradients_of_a_closed_window_are_those_of_its_mean(opt: Optimizers) -> None:
    window = Window(2)
    for weight in (4, 12):
        window.open_batch(weight, is_last=False)
        waits = window.waits(opt, None)
    assert not waits
    assert opt.gradients()[0].item() == 0.25  # the sum counts in units of the first


def test_the_last_mini_batch_closes_a_window_and_the_end_of_the_data_does(opt: Optimizers) -> None:
    for is_last, at_end in ((True, False), (None, True)):
        window = Window(3)
        window.open_batch(4, is_last=False)
        window.waits(opt, 0)
        window.open_batch(4, is_last=is_last)
        assert window.due(opt, at_end=at_end, is_last=is_last) == [0]


def test_a_mini_batch_that_is_left_out_weighs_nothing(opt: Optimizers) -> None:
    window = Window(2)
    window.open_batch(4, is_last=False)
    window.open_batch(12, is_last=False)
    window.leave_out()
    assert (window.total, window.factor, window.count) == (4, 1.0, 2)


def test_a_window_resumes_in_its_middle(opt: Optimizers) -> None:
    window, again = Window(2), Window(2)
    window.open_batch(4, is_last=False)
    window.mean_loss(torch.tensor(1.0))
    window.waits(opt, None)
    again.load_state_dict(window.state_dict())
    for each in (window, again):
        each.open_batch(12, is_last=False)
        assert each.mean_loss(torch.tensor(3.0)).item() == 2.5
        assert each.due(opt, at_end=False, is_last=False) == [None]


def rounds() -> Rounds:
    return Rounds(LocalRuntime("cpu"), Cursor([10, 20, 30]), "hooks", "hooks of fillers")


def test_the_rounds_of_one_process_are_its_mini_batches_and_none_is_a_filler() -> None:
    made = rounds()
    assert made.length == 3
    walked = []
    for index, batch in made:
        assert made.begin_batch(index) == "hooks"
        assert made.weigh(4) == (4.0, 1.0)
        assert made.mean(2.5) == 2.5
        walked.append((index, batch, made.is_filler, made.end_batch()))
    assert walked == [(0, 10, False, False), (1, 20, False, False), (2, 30, False, False)]


def test_a_mini_batch_without_samples_has_no_share_in_its_round() -> None:
    made = rounds()
    made.begin_batch(0)
    assert made.weigh(0) == (0.0, 0.0)
    assert made.mean(float("nan")) == 0.0


def test_what_all_processes_ask_for_waits_for_no_meeting() -> None:
    meetings = Meetings()
    meetings.begin(1e-6)
    made = Rounds(LocalRuntime("cpu"), Cursor([10, 20, 30]), meetings=meetings)
    assert not made.meet(True, "save")
    assert made.meet(True, "save", everywhere=True)


def test_that_no_process_has_a_filler_is_known_where_the_weights_are() -> None:
    made = rounds()
    assert not made.is_full()  # as in a validation, in which nothing is weighed
    made.weigh(4)
    assert made.is_full()
    made.is_filler = True
    made.weigh(4)
    assert not made.is_full()


def test_of_known_sizes_the_round_says_whether_a_process_has_a_filler() -> None:
    made = Rounds(LocalRuntime("cpu"), Cursor([10, 20, 30]), sizes=Sizes(12.0, 1, 5.0))
    full = []
    for made.index in range(3):
        full.append(made.is_full())
    assert full == [True, True, False]


def test_samples_wait_until_the_optimizer_steps() -> None:
    made = rounds()
    next(iter(made))
    made.begin_batch(0)
    assert made.waits_with_samples(0)
    assert not made.waits_with_samples(1)


def test_rounds_that_resume_on_a_filler_have_no_mini_batch_left() -> None:
    made = rounds()
    made.load_state_dict({"batch_idx": 2, "ended": True, "has_samples": False, "num_steps": 3})
    assert (made.index, made.is_filler, list(made)) == (2, True, [])
