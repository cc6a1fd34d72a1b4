"""The four endings of a run: what returns, which epochs are in it, and what is put back."""

from __future__ import annotations

import signal
from contextlib import suppress
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from deepepochs import Callback, EpochTask, StopLoopException, Trainer
from deepepochs.callbacks.base import HOOKS

torch.manual_seed(13)
X, Y = torch.randn(8, 3), torch.arange(8) % 2
DL = DataLoader(TensorDataset(X, Y), batch_size=4)  # two mini-batches
ONE = DataLoader(TensorDataset(X, Y), batch_size=8)  # one

# Epochs that a stop asked for in a hook's first call leaves done, of three. A pass that is on
# its last mini-batch, as every validation here, is ended properly.
DONE = dict.fromkeys((name for name in HOOKS if "test" not in name), 0)
del DONE["on_exception"]
DONE |= {name: 1 for name in DONE if "_val_" in name and "epochs" not in name}
DONE |= {"on_after_val_epochs": 1, "on_after_epoch": 1, "on_after_fit": 3}


def acting_in(hook: str, action: Any) -> Callback:
    """A callback that calls ``action(trainer)`` in the first call of one hook."""
    calls: list[Any] = []

    def act(self: Any, *, trainer: Any, **others: Any) -> None:
        calls.append(trainer)
        if len(calls) == 1:
            action(trainer)

    made: Callback = type("Acting", (Callback,), {hook: act})()
    return made


class Ends(Callback):
    """Notes how a fit ended."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []

    def on_after_fit(self, *, trainer: Any) -> None:
        self.told.append("after_fit")

    def on_exception(self, *, trainer: Any, exception: BaseException) -> None:
        self.told.append(repr(exception))


def make_trainer(*callbacks: Callback, **options: Any) -> Trainer:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(), nn.Linear(4, 2))
    model[1].eval()  # a mode of the user's, to be put back
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    options = {"epochs": 3, "show_info": False, "callbacks": list(callbacks), **options}
    return Trainer(model, F.cross_entropy, opt, **options)


def assert_put_back(trainer: Trainer) -> None:
    assert [module.training for module in trainer.model.modules()] == [True, True, False, True]
    assert not trainer.model._forward_hooks and not trainer.model._forward_pre_hooks
    assert torch.is_grad_enabled()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert trainer.run is None and trainer.stage is None and trainer.current_task is None


def reason_of(trainer: Trainer) -> str | None:
    return trainer.stop_reason


def raise_stop(trainer: Any) -> None:
    raise StopLoopException("enough")


def ask_stop(trainer: Any) -> None:
    trainer.stop("enough")


@pytest.mark.parametrize("action", [ask_stop, raise_stop])
@pytest.mark.parametrize("hook", DONE)
def test_a_stop_in_any_hook_keeps_what_was_finished(hook: str, action: Any) -> None:
    ends = Ends()
    trainer = make_trainer(acting_in(hook, action), ends)
    history = trainer.fit(DL, ONE)
    done = DONE[hook]
    whole = [index for index in history.epochs if index not in history.partial]
    assert whole == list(range(done)) and trainer.init_epoch == done
    assert history.epochs in (whole, [*whole, done])  # what was trained of the next one counts
    assert len(history.get("val", {}).get("loss", [])) == done
    assert trainer.stop_reason == "enough"
    assert ends.told == ["after_fit"]
    assert_put_back(trainer)
    again = trainer.fit(DL, ONE, epochs=2)
    assert again.epochs == [done, done + 1] and not again.partial
    assert trainer.history.epochs == list(range(done + 2)) and not trainer.history.partial
    assert reason_of(trainer) is None
    assert_put_back(trainer)


@pytest.mark.parametrize("hook", [name for name in HOOKS if "test" in name])
def test_a_stop_in_any_hook_of_a_test_ends_it_and_the_next_one_is_whole(hook: str) -> None:
    trainer = make_trainer(acting_in(hook, ask_stop))
    stopped = trainer.test(DL)
    late = hook in ("on_after_test_epoch", "on_after_test_epochs")
    assert set(stopped) == ({"loss"} if late else set())
    assert_put_back(trainer)
    assert set(trainer.test(DL)) == {"loss"}
    assert trainer.init_epoch == 0


def test_a_step_may_stop_the_fit() -> None:
    class Stopping(EpochTask):
        def train_step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> None:
            self.loss(self.model(*batch_x), batch_y)
            if self.trainer.init_epoch == 1:
                raise StopLoopException("enough")

    trainer = make_trainer()
    history = trainer.fit(train_tasks=Stopping(DL))
    assert history.epochs == [0] and trainer.stop_reason == "enough"
    assert_put_back(trainer)


def test_a_finished_fit_has_all_epochs_and_no_reason() -> None:
    ends = Ends()
    trainer = make_trainer(ends)
    assert trainer.fit(DL, ONE).epochs == [0, 1, 2]
    assert trainer.stop_reason is None and ends.told == ["after_fit"]
    assert_put_back(trainer)


def press_ctrl_c(trainer: Any) -> None:
    signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize(("hook", "done"), [("on_after_train_batch", 0), ("on_after_epoch", 1)])
def test_ctrl_c_ends_at_the_next_save_point_and_is_raised_again(hook: str, done: int) -> None:
    ends = Ends()
    trainer = make_trainer(acting_in(hook, press_ctrl_c), ends)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(DL)
    assert trainer.history.epochs == list(range(done))
    assert ends.told == ["after_fit"]
    assert trainer.stop_reason == "SIGINT received"
    assert_put_back(trainer)
    assert len(trainer.fit(DL, epochs=1)["train"]["loss"]) == 1


def test_ctrl_c_may_return_what_was_finished() -> None:
    trainer = make_trainer(acting_in("on_after_epoch", press_ctrl_c), on_interrupt="return")
    assert trainer.fit(DL).epochs == [0]
    assert_put_back(trainer)


@pytest.mark.parametrize("on_interrupt", ["raise", "return"])
def test_a_second_ctrl_c_ends_at_once(on_interrupt: str) -> None:
    steps: list[int] = []

    class Pressing(EpochTask):
        def step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> None:
            steps.append(1)
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            raise AssertionError("not reached")

    ends = Ends()
    trainer = make_trainer(ends, on_interrupt=on_interrupt)
    if on_interrupt == "raise":
        with pytest.raises(KeyboardInterrupt):
            trainer.fit(train_tasks=Pressing(DL))
    else:
        assert trainer.fit(train_tasks=Pressing(DL)) == {}
    assert len(steps) == 1 and ends.told == ["after_fit"]
    assert_put_back(trainer)


def fail(trainer: Any) -> None:
    raise RuntimeError("no disk")


@pytest.mark.parametrize("hook", [*DONE, "step"])
def test_an_error_anywhere_goes_through_and_leaves_a_usable_trainer(hook: str) -> None:
    class Broken(EpochTask):
        def step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> None:
            if hook == "step" and self.trainer.init_epoch == 1:
                fail(self.trainer)
            self.loss(self.model(*batch_x), batch_y)

    ends = Ends()
    callbacks = [ends] if hook == "step" else [acting_in(hook, fail), ends]
    trainer = make_trainer(*callbacks)
    with pytest.raises(RuntimeError, match="no disk"):
        trainer.fit(train_tasks=Broken(DL), val_dl=ONE)
    # on_after_fit goes from the inner callback to the outer: ends is inner here.
    assert ends.told == (["after_fit"] if hook == "on_after_fit" else []) + [
        "RuntimeError('no disk')"
    ]
    done = {"on_after_fit": 3, "step": 1}.get(hook, 0)
    assert trainer.history.epochs == list(range(done)) and trainer.init_epoch == done
    assert_put_back(trainer)
    assert trainer.fit(DL, ONE, epochs=1).epochs == [done]
    assert_put_back(trainer)


def test_an_error_in_a_test_goes_through_and_is_told() -> None:
    ends = Ends()
    trainer = make_trainer(acting_in("on_after_test_batch", fail), ends)
    with pytest.raises(RuntimeError, match="no disk"):
        trainer.test(DL)
    assert ends.told == ["RuntimeError('no disk')"]
    assert_put_back(trainer)
    assert set(trainer.test(DL)) == {"loss"}


def test_an_error_in_on_exception_does_not_hide_the_first() -> None:
    class Worse(Callback):
        def on_exception(self, *, trainer: Any, exception: BaseException) -> None:
            raise ValueError("even worse")

    trainer = make_trainer(acting_in("on_after_train_batch", fail), Worse())
    with pytest.raises((RuntimeError, ValueError)) as caught:
        trainer.fit(DL)
    told = [caught.value, caught.value.__context__]
    assert "no disk" in " ".join(map(str, told))
    assert_put_back(trainer)


def test_the_lists_of_the_user_are_never_changed_in_any_ending() -> None:
    for action in (ask_stop, fail, press_ctrl_c):
        callbacks = [acting_in("on_after_train_batch", action)]
        tasks, val_tasks, metrics = [EpochTask(DL)], [EpochTask(ONE)], [F.cross_entropy]
        lists: list[list[Any]] = [callbacks, tasks, val_tasks, metrics]
        before = [list(one) for one in lists]
        trainer = make_trainer(*callbacks, callbacks=callbacks, metrics=metrics)
        with suppress(RuntimeError, KeyboardInterrupt):
            trainer.fit(train_tasks=tasks, val_tasks=val_tasks, val_dl=ONE, metrics=metrics)
        assert lists == before
