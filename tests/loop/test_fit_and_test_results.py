"""What fit and test return: keys, their order, types, and which epochs are in them."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from deepepochs import Callback, EpochTask, History, Trainer, ValuePatch, rename

torch.manual_seed(11)
X, Y = torch.randn(12, 3), torch.arange(12) % 2
DL = DataLoader(TensorDataset(X, Y), batch_size=4)
VAL_DL = DataLoader(TensorDataset(X + 1, Y), batch_size=5)


def metric(name: str) -> Any:
    @rename(name)
    def value(preds: Tensor, targets: Tensor) -> Tensor:
        return preds.float().mean()

    return value


A, B, C, D = (metric(name) for name in "abcd")


def make_trainer(**options: Any) -> Trainer:
    torch.manual_seed(1)
    model = nn.Linear(3, 2)
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    options = {"epochs": 2, "show_info": False, **options}
    return Trainer(model, options.pop("loss", F.cross_entropy), opt, **options)


def test_names_come_as_loss_then_metrics_then_what_the_step_returned() -> None:
    class Returning(EpochTask):
        def step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> Any:
            self.loss(self.model(*batch_x), batch_y)
            return {"z": ValuePatch(len(batch_y)).load(1.0)}

    trainer = make_trainer(metrics=[A])
    history = trainer.fit(
        train_tasks=Returning(DL, metrics=[D]), metrics=[B], train_metrics=[C], val_dl=VAL_DL,
        val_metrics=[D],
    )  # fmt: skip
    assert list(history) == ["train", "val"]
    assert list(history["train"]) == ["loss", "d", "c", "b", "a", "z"]
    assert list(history["val"]) == ["loss", "d", "b", "a"]
    assert list(trainer.test(VAL_DL, metrics=[C])) == ["loss", "c", "a"]


def test_the_same_metric_counts_once_and_where_it_comes_first() -> None:
    trainer = make_trainer(metrics=[A, B])
    history = trainer.fit(DL, metrics=[B, C], train_metrics=[C])
    assert list(history["train"]) == ["loss", "c", "b", "a"]


def test_values_are_floats_one_for_each_epoch() -> None:
    trainer = make_trainer(metrics=[A], epochs=3)
    history = trainer.fit(DL, VAL_DL)
    for stage in ("train", "val"):
        for values in history[stage].values():
            assert len(values) == 3
            assert all(type(value) is float for value in values)
    assert all(type(value) is float for value in trainer.test(DL).values())
    assert isinstance(history, dict) and isinstance(history, History)


def test_without_validation_there_is_no_val() -> None:
    assert list(make_trainer().fit(DL)) == ["train"]


@pytest.mark.parametrize(("freq", "validated"), [(1, [0, 1, 2, 3, 4]), (2, [1, 3]), (5, [4])])
def test_val_freq_counts_epochs_from_one_over_all_fits(freq: int, validated: list[int]) -> None:
    whole = make_trainer(epochs=5).fit(DL, VAL_DL, val_freq=freq)
    assert whole.val_epochs == validated and len(whole["val"]["loss"]) == len(validated)
    trainer = make_trainer(epochs=5)
    parts = []
    if freq != 5:
        parts.append(trainer.fit(DL, VAL_DL, val_freq=freq, epochs=2))
        parts.append(trainer.fit(DL, VAL_DL, val_freq=freq, epochs=3))
        assert [epoch for part in parts for epoch in part.val_epochs] == validated
        joined = [value for part in parts for value in part["val"]["loss"]]
        assert joined == whole["val"]["loss"]


@pytest.mark.parametrize("do_loss", [True, False])
def test_do_val_loss_and_do_loss_leave_the_loss_out(do_loss: bool) -> None:
    trainer = make_trainer(metrics=[A])
    history = trainer.fit(DL, VAL_DL, do_val_loss=do_loss)
    expected = ["loss", "a"] if do_loss else ["a"]
    assert list(history["val"]) == expected
    assert list(history["train"]) == ["loss", "a"]
    assert list(trainer.test(VAL_DL, do_loss=do_loss)) == expected
    assert list(trainer.test(tasks=EpochTask(VAL_DL, do_loss=do_loss))) == expected


def test_without_loss_and_metrics_a_validation_has_no_values() -> None:
    trainer = make_trainer()
    history = trainer.fit(DL, VAL_DL, do_val_loss=False)
    assert history.get("val", {}) == {}
    assert trainer.test(VAL_DL, do_loss=False) == {}


def test_epochs_is_the_total_in_the_first_fit_and_more_in_later_ones() -> None:
    trainer = make_trainer(epochs=7)
    first = trainer.fit(DL, epochs=2)
    assert (len(first["train"]["loss"]), trainer.max_epochs, trainer.init_epoch) == (2, 2, 2)
    second = trainer.fit(DL, epochs=3)
    assert (len(second["train"]["loss"]), trainer.max_epochs, trainer.init_epoch) == (3, 5, 5)
    assert second.epochs == [2, 3, 4]
    whole = make_trainer(epochs=5).fit(DL)
    assert first["train"]["loss"] + second["train"]["loss"] == whole["train"]["loss"]
    assert trainer.history["train"] == whole["train"]


def test_a_second_fit_without_epochs_left_runs_none_and_changes_nothing() -> None:
    trainer = make_trainer()
    trainer.fit(DL)
    before = [p.tolist() for p in trainer.model.parameters()]
    with pytest.warns(UserWarning, match="runs no epoch"):
        history = trainer.fit(DL)
    assert history == {} and isinstance(history, History)
    assert [p.tolist() for p in trainer.model.parameters()] == before


def test_a_metric_that_was_not_computed_in_some_epoch_is_nan_there() -> None:
    class Sometimes(EpochTask):
        def train_step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> Any:
            self.loss(self.model(*batch_x), batch_y)
            return {"odd": ValuePatch(1).load(3.0)} if self.trainer.init_epoch == 1 else None

    history = make_trainer(epochs=3).fit(train_tasks=Sometimes(DL))
    assert [str(value) for value in history["train"]["odd"]] == ["nan", "3.0", "nan"]
    assert list(history["train"]) == ["loss", "odd"]


def test_the_training_loss_is_that_of_the_steps_as_they_were_met() -> None:
    trainer = make_trainer(epochs=1)
    met: list[float] = []

    class Noting(Callback):
        def on_after_train_batch(self, *, metrics: Any, **others: Any) -> None:
            met.append(float(metrics["loss"]))

    trainer.callbacks.append(Noting())
    history = trainer.fit(DL)
    assert history["train"]["loss"][0] == pytest.approx(sum(met) / 3, rel=1e-12)


def test_several_tasks_give_pooled_values_and_their_own() -> None:
    trainer = make_trainer(metrics=[A], epochs=1)
    tasks = [EpochTask(VAL_DL, name="day"), EpochTask(DL)]
    values = trainer.test(tasks=tasks)
    assert list(values) == ["loss", "a", "day/loss", "day/a", "1/loss", "1/a"]
    with torch.no_grad():
        joined = torch.cat([X + 1, X])
        pooled = F.cross_entropy(trainer.model(joined), torch.cat([Y, Y])).item()
    assert values["loss"] == pytest.approx(pooled, rel=1e-6)
    assert values["day/loss"] == trainer.test(VAL_DL)["loss"]


def test_a_test_comes_before_any_fit_and_changes_no_weight() -> None:
    trainer = make_trainer(metrics=[A])
    before = [p.tolist() for p in trainer.model.parameters()]
    values = trainer.test(DL)
    with torch.no_grad():
        out = trainer.model(X)
    assert values["loss"] == pytest.approx(F.cross_entropy(out, Y).item(), rel=1e-6)
    assert values["a"] == pytest.approx(out.mean().item(), rel=1e-6)
    assert [p.tolist() for p in trainer.model.parameters()] == before
    assert trainer.init_epoch == 0 and trainer.history == {}


def test_test_loader_comes_before_tasks_and_fit_metrics_do_not_count_in_a_test() -> None:
    trainer = make_trainer(metrics=[A])
    trainer.fit(DL, metrics=[B])
    values = trainer.test(DL, tasks=EpochTask(VAL_DL, name="other"), metrics=[C])
    assert [name for name in values if "/" in name][:1] == ["0/loss"]
    assert set(values) >= {"loss", "c", "a", "other/c"} and "b" not in values


def test_the_history_of_a_run_is_written_drawn_and_printed(tmp_path: Path) -> None:
    history = make_trainer(metrics=[A], epochs=4).fit(DL, VAL_DL, val_freq=2)
    with history.to_csv(tmp_path / "run.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["epoch", "train_loss", "train_a", "val_loss", "val_a"]
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    assert [float(row["train_loss"]) for row in rows] == [
        float(v) for v in history["train"]["loss"]
    ]
    assert [bool(row["val_loss"]) for row in rows] == [False, True, False, True]
    figure = history.plot()
    assert [axes.get_title() for axes in figure.axes] == ["loss", "a"]
    drawn = figure.axes[0].lines[0].get_ydata()
    assert np.asarray(drawn) == pytest.approx([float(v) for v in history["train"]["loss"]])
    lines = repr(history).splitlines()
    assert lines[0].split() == ["epoch", "train", "loss", "train", "a", "val", "loss", "val", "a"]
    assert (len(lines), lines[-1]) == (6, "* best")
    assert f"{float(history['train']['loss'][0]):.4f}" in lines[1]
