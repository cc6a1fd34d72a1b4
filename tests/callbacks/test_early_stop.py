"""EarlyStopCallback and CheckCallback stop a run in the epoch that a loop by hand finds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from deepepochs import (
    Callback,
    CallbackException,
    CheckCallback,
    ConfigError,
    EarlyStopCallback,
    Trainer,
)
from deepepochs.errors import ConfigTypeError

DATA = [(torch.zeros(2, 1), torch.zeros(2, 1))]
VALUES = [5.0, 4.0, 3.95, 3.9, 3.0, 3.5, 2.99, 3.2, 3.1, 3.3, 3.4, 3.0]


class Gives(Callback):
    """Records a value of each epoch in training and validation."""

    def __init__(self, values: list[float]) -> None:
        super().__init__()
        self.values = values

    def on_after_val_epoch(self, *, trainer: Any, **others: Any) -> None:
        trainer.record("mine", self.values[trainer.init_epoch])

    on_after_train_epoch = on_after_val_epoch


def stopping(kind: str, folder: Path, **options: Any) -> Any:
    options = {"monitor": "mine", "mode": "min", **options}
    if kind == "check":
        return CheckCallback(ckpt_dir=folder, **options)
    return EarlyStopCallback(**options)


def fitted(*callbacks: Callback, values: list[float] = VALUES, **options: Any) -> Trainer:
    model = nn.Linear(1, 1)
    fit = {"val_dl": DATA, **options.pop("fit", {})}
    trainer = Trainer(
        model, nn.MSELoss(), callbacks=[Gives(values), *callbacks], console="off",
        **{"epochs": len(values), **options},
    )  # fmt: skip
    trainer.fit(DATA, **fit)
    return trainer


def epochs_by_hand(values: list[float], patience: int, min_delta: float, sign: int) -> int:
    best, bad = None, 0
    for epoch, value in enumerate(values):
        if best is None or sign * (value - best) > min_delta:
            best, bad = value, 0
        else:
            bad += 1
        if bad >= patience:
            return epoch + 1
    return len(values)


@pytest.mark.parametrize("kind", ["check", "early"])
@pytest.mark.parametrize("patience", [1, 2, 3])
@pytest.mark.parametrize(("min_delta", "mode"), [(0.0, "min"), (0.2, "min"), (0.5, "max")])
def test_a_run_ends_where_a_loop_by_hand_does(
    kind: str, patience: int, min_delta: float, mode: str, tmp_path: Path
) -> None:
    sign = -1 if mode == "min" else 1
    values = [-sign * value for value in VALUES]
    stop = stopping(kind, tmp_path, patience=patience, min_delta=min_delta, mode=mode)
    trainer = fitted(stop, values=values)
    assert len(trainer.history.epochs) == epochs_by_hand(values, patience, min_delta, sign)


def test_the_reason_is_told_in_words() -> None:
    trainer = fitted(EarlyStopCallback("mine", "min", 2, min_delta=0.2, on_stage="train"))
    told = "train mine was no better by more than 0.2 for 2 epochs (best 4 in epoch 2)"
    assert trainer.stop_reason == told


def test_epochs_without_validation_are_not_counted() -> None:
    trainer = fitted(EarlyStopCallback("mine", "max", patience=2), fit={"val_freq": 2})
    assert trainer.history.epochs == [0, 1, 2, 3, 4, 5]
    assert trainer.stop_reason == "val mine was no better for 2 validations (best 4 in epoch 2)"


def test_a_value_that_is_nan_is_never_better() -> None:
    nan = float("nan")
    trainer = fitted(EarlyStopCallback("mine", "min", patience=2), values=[nan, nan, nan])
    assert len(trainer.history.epochs) == 2


def test_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fitted(EarlyStopCallback("mine", "min", patience=1))
    assert not list(tmp_path.iterdir())


class Killed(Exception):
    pass


class Dies(Callback):
    def __init__(self, epoch: int | None) -> None:
        super().__init__()
        self.epoch = epoch

    def on_before_epoch(self, *, epoch_idx: int, **others: Any) -> None:
        if epoch_idx == self.epoch:
            raise Killed


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_a_resumed_run_stops_where_the_unbroken_one_does(epoch: int, tmp_path: Path) -> None:
    def run(at: int | None) -> Trainer:
        early = EarlyStopCallback("mine", "min", patience=2, min_delta=0.2)
        save = CheckCallback("loss", ckpt_dir=tmp_path)
        return fitted(early, save, Dies(at), running_id="r", resume="auto")

    unbroken = fitted(EarlyStopCallback("mine", "min", patience=2, min_delta=0.2))
    with pytest.raises(Killed):
        run(epoch)
    resumed = run(None)
    assert resumed.history.epochs == unbroken.history.epochs == [0, 1, 2, 3]
    assert resumed.stop_reason == unbroken.stop_reason
    again = run(None)  # it has stopped early: started once more, it stops at once
    assert again.history.epochs == unbroken.history.epochs


def test_a_second_fit_counts_anew_and_keeps_the_best_value() -> None:
    early = EarlyStopCallback("mine", "min", patience=2)
    trainer = fitted(early, values=[1.0, 2.0, 2.0, 2.0, 2.0, 0.5, 3.0])
    assert trainer.history.epochs == [0, 1, 2]
    trainer.fit(DATA, DATA, epochs=2)
    assert trainer.history.epochs == [0, 1, 2, 3, 4] and trainer.stop_reason is not None


def test_the_state_of_another_metric_is_reset_with_a_warning() -> None:
    state = fitted(EarlyStopCallback("mine", "min", patience=1)).callbacks[-1].state_dict()
    other = EarlyStopCallback("loss", patience=1)
    told = r"The saved best value, 3, is of val 'mine', and this EarlyStopCallback monitors val "
    with pytest.warns(UserWarning, match=told + r"'loss'. The best value is reset\.$"):
        other.load_state_dict(state)


@pytest.mark.parametrize(
    ("make", "kind", "text"),
    [
        (lambda: EarlyStopCallback(monitor=""), ConfigError, "give the name of a metric"),
        (lambda: EarlyStopCallback(patience=0), ConfigError, "patience=0: give an int of at least"),
        (lambda: EarlyStopCallback(mode="lower"), ConfigError, "Did you mean 'min'"),
        (lambda: EarlyStopCallback(on_stage="test"), ConfigError, "'train', 'val'"),
        (lambda: EarlyStopCallback(min_delta=-0.1), ConfigError, r"min_delta=-0.1\): give a number"),
        (lambda: CheckCallback(min_delta="0"), ConfigTypeError, r"CheckCallback\(min_delta='0'\)"),
    ],
)  # fmt: skip
def test_a_wrong_argument_is_told(make: Any, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text):
        make()


def test_a_metric_that_is_not_there_is_told_before_the_first_mini_batch() -> None:
    trainer = Trainer(
        nn.Linear(1, 1), nn.MSELoss(), callbacks=EarlyStopCallback("acuracy", "max"),
        metrics="accuracy", console="off",
    )  # fmt: skip
    text = "EarlyStopCallback monitors 'acuracy', which val does not have.*Did you mean 'accuracy'"
    with pytest.raises(CallbackException, match=text):
        trainer.fit(DATA, DATA)


def test_a_recorded_value_that_never_comes_is_told_after_the_epoch() -> None:
    with pytest.raises(CallbackException, match="monitors 'yours', which val does not have"):
        fitted(EarlyStopCallback("yours", "min"))


def test_the_best_state_does_not_depend_on_min_delta(tmp_path: Path) -> None:
    check = CheckCallback("mine", mode="min", patience=9, min_delta=2.0, ckpt_dir=tmp_path)
    fitted(check)
    assert check.best_values == [min(VALUES)] and check.watch.best == 2.99
