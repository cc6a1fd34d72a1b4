"""The parts of a Run, each made alone: Weigher, StepLosses, LossWatch and Recorder."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

from deepepochs.errors import ConfigError, MetricError, NotFiniteError
from deepepochs.metrics import accuracy
from deepepochs.optim.accumulation import Window
from deepepochs.patches.plan import plan_metrics
from deepepochs.recorder import LossWatch, Recorder
from deepepochs.run import StepLosses, Weigher
from deepepochs.runtime.base import LocalRuntime

X, Y = (torch.ones(4, 3),), torch.tensor([0, 1, 1, 0])
NAN = float("nan")


def weighed(batch_size: Any, number: int = 4) -> Weigher:
    weigher = Weigher(batch_size)
    weigher.open_batch((torch.ones(number, 3),), torch.zeros(number))
    return weigher


def test_a_mini_batch_weighs_its_samples_or_what_batch_size_says() -> None:
    assert weighed(None).weight == 4
    assert weighed(32).weight == 32
    assert weighed(lambda x, y: len(y) / 2).weight == 2
    assert weighed(32).num_samples == 4


def test_one_number_for_mini_batches_of_several_lengths_is_doubted_but_not_1() -> None:
    for number, is_doubted in ((4, True), (1, False)):
        weigher = weighed(number)
        assert not weigher.doubt
        weigher.open_batch((torch.ones(3, 3),), torch.zeros(3))
        assert ("4 samples, another one 3" in weigher.doubt) is is_doubted


def test_a_function_that_gives_no_weight_is_refused() -> None:
    with pytest.raises(ConfigError, match="batch_size"):
        weighed(lambda x, y: -1)


def step_losses(window: Window | None = None) -> tuple[Weigher, StepLosses]:
    weigher = Weigher(None)
    return weigher, StepLosses(weigher, window, None, is_wanted=True)


def kept(losses: StepLosses, value: float, share: float = 1.0, batch_idx: int = 0) -> float:
    losses.keep(torch.tensor(value), share, batch_idx)
    assert losses.mean is not None
    return losses.mean.item()


def test_without_a_window_the_mean_is_the_loss_of_the_latest_mini_batch() -> None:
    weigher, losses = step_losses()
    weigher.open_pair(4)
    losses.begin_batch(is_last=None)
    assert losses.scale == 1.0
    assert kept(losses, 2.0) == 2.0
    assert kept(losses, 3.0, batch_idx=1) == 3.0


def test_the_parts_of_a_mini_batch_are_added_up() -> None:
    weigher, losses = step_losses()
    weigher.open_pair(4)
    kept(losses, 2.0, 0.25)
    assert kept(losses, 4.0, 0.75) == 3.5
    assert kept(losses, 8.0, 0.5, batch_idx=1) == 4.0


def test_in_a_window_losses_are_scaled_to_the_first_and_weigh_their_samples() -> None:
    weigher, losses = step_losses(Window(2))
    weigher.open_pair(4)
    losses.begin_batch(is_last=False)
    assert (losses.scale, kept(losses, 1.0)) == (1.0, 1.0)
    weigher.open_pair(12)
    losses.begin_batch(is_last=False)
    assert (losses.scale, kept(losses, 3.0, batch_idx=1)) == (3.0, 2.5)


def test_a_mini_batch_that_weighs_nothing_leaves_the_mean_as_it_is() -> None:
    weigher, losses = step_losses()
    weigher.open_pair(0)
    assert kept(losses, 7.0) != kept(losses, 7.0)  # NaN: there was none before
    losses.load(torch.tensor(1.5))
    assert kept(losses, 7.0) == 1.5


def test_a_nan_stops_or_is_warned_of_once_a_mini_batch_or_is_ignored() -> None:
    with pytest.raises(NotFiniteError, match="The loss is nan"):
        LossWatch("stop", "my task").report(NAN, 3)
    watch = LossWatch("warn", "my task")
    with pytest.warns(RuntimeWarning, match="The loss is nan") as record:
        watch.report(NAN, 3, is_late=True)
        watch.report(NAN, 3)
    assert len(record) == 1
    assert watch.warned_of == 3
    LossWatch("ignore", "my task").report(NAN, 3)


def recorder(policy: str = "stop") -> Recorder:
    return Recorder(plan_metrics([[accuracy]], "tensor"), "my step", LossWatch(policy, "my task"))


def recorded(made: Recorder, loss: Tensor, outputs: Tensor, batch_idx: int, **end: Any) -> None:
    made.record_loss(loss)
    made.record_metrics(outputs, Y, len(Y))
    made.end_batch(len(Y), batch_idx, **end)


ALL_RIGHT, HALF_RIGHT = torch.eye(2)[Y], torch.eye(2)[torch.zeros(4, dtype=torch.long)]


def test_a_recorder_gives_the_mini_batch_and_at_the_end_the_pass_without_fillers() -> None:
    made = recorder()
    recorded(made, torch.tensor(1.0), ALL_RIGHT, 0)
    assert dict(made.metrics(0)) == {"loss": 1.0, "accuracy": 1.0}
    recorded(made, torch.tensor(3.0), HALF_RIGHT, 1)
    recorded(made, torch.tensor(9.0), HALF_RIGHT, 1, counts=False)
    assert made.close(LocalRuntime("cpu"), 1) == {"loss": 2.0, "accuracy": 0.75}


def test_what_is_recorded_twice_in_a_mini_batch_is_refused() -> None:
    made = recorder()
    made.record_loss(torch.tensor(1.0))
    with pytest.raises(MetricError, match="my step"):
        made.record_loss(torch.tensor(1.0))


def test_a_nan_is_reported_before_the_backward_pass_and_not_again_after_it() -> None:
    made, loss = recorder("warn"), torch.tensor(NAN)
    with pytest.warns(RuntimeWarning, match="The loss is nan"):
        made.see(loss, 5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        recorded(made, loss, ALL_RIGHT, 5)
    assert made.seen is None  # it would hold the graph


def test_a_recorder_resumes_in_the_middle_of_a_pass() -> None:
    made, again, runtime = recorder(), recorder(), LocalRuntime("cpu")
    recorded(made, torch.tensor(1.0), ALL_RIGHT, 0)
    again.load_state_dict(made.state_dict(runtime, may_be_last=False))
    for each in (made, again):
        recorded(each, torch.tensor(3.0), HALF_RIGHT, 1)
    assert again.close(runtime, 1) == made.close(runtime, 1) == {"loss": 2.0, "accuracy": 0.75}
