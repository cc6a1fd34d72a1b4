"""GradNormCallback records the norms that a loop by hand computes, and they can be monitored."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from deepepochs import (
    Callback,
    CallbackException,
    CheckCallback,
    EarlyStopCallback,
    GradClipCallback,
    GradNormCallback,
    Optimizer,
    Trainer,
    set_seed,
)

generator = torch.Generator().manual_seed(2)
DATA = [
    (torch.randn(n, 3, generator=generator), torch.randn(n, 1, generator=generator))
    for n in (8, 8, 5)
]


def make_model() -> nn.Module:
    set_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))


def fitted(*callbacks: Callback, **options: Any) -> Trainer:
    model = make_model()
    opt = options.pop("opt", None) or torch.optim.SGD(model.parameters(), 0.1)
    options = {"epochs": 2, "console": "off", **options}
    trainer = Trainer(model, F.mse_loss, opt, callbacks=callbacks, **options)
    trainer.fit(DATA)
    return trainer


def norms_by_hand(clip: float, window: int = 1) -> list[list[tuple[float, int]]]:
    """For each epoch the norm before each step, and the samples of its last mini-batch."""
    model = make_model()
    opt = torch.optim.SGD(model.parameters(), 0.1)
    epochs = []
    for _ in range(2):
        norms = []
        for start in range(0, len(DATA), window):
            batches = DATA[start : start + window]
            whole = torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])
            F.mse_loss(model(whole[0]), whole[1]).backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), clip)
            opt.step()
            opt.zero_grad()
            norms.append((norm.item(), len(batches[-1][0])))
        epochs.append(norms)
    return epochs


def mean(norms: list[tuple[float, int]]) -> float:
    return sum(norm * n for norm, n in norms) / sum(n for _, n in norms)


@pytest.mark.parametrize("window", [1, 2])
@pytest.mark.parametrize("is_first", [True, False])
def test_the_norms_are_those_before_clipping(is_first: bool, window: int) -> None:
    callbacks = [GradNormCallback(with_max=True), GradClipCallback(0.3, norm_type=2)]
    trainer = fitted(*callbacks[:: 1 if is_first else -1], grad_accumulate=window)
    by_hand, found = norms_by_hand(0.3, window), trainer.history["train"]
    assert list(found["grad_norm"]) == pytest.approx([mean(n) for n in by_hand], rel=1e-5)
    largest = [max(norm for norm, _ in n) for n in by_hand]
    assert list(found["grad_norm_max"]) == pytest.approx(largest, rel=1e-5) and largest[0] > 0.3


def test_the_losses_are_those_without_it_to_the_bit() -> None:
    plain, watched = fitted(), fitted(GradNormCallback())
    assert list(plain.history["train"]["loss"]) == list(watched.history["train"]["loss"])
    assert list(watched.history["train"]) == ["loss", "grad_norm"]


def test_each_of_several_optimizers_counts_for_itself() -> None:
    model = make_model()
    opts = [torch.optim.SGD(model[i].parameters(), 0.0) for i in (0, 2)]  # type: ignore[index]

    class Two(Trainer):
        def train_step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> None:
            self.backward(F.mse_loss(self.model(*batch_x), batch_y))
            self.optimize(0)
            self.optimize(1)

    trainer = Two(model, F.mse_loss, opts, epochs=1, console="off", callbacks=GradNormCallback())
    found = trainer.fit(DATA[:1])["train"]["grad_norm"][0]
    F.mse_loss(model(DATA[0][0]), DATA[0][1]).backward()
    parts = [
        torch.cat([w.grad.flatten() for w in model[i].parameters()]).norm().item()  # type: ignore[index,union-attr]
        for i in (0, 2)
    ]
    assert found == pytest.approx(sum(parts) / 2, rel=1e-5)


def test_it_is_in_the_record_of_the_run(tmp_path: Path) -> None:
    check = CheckCallback("loss", on_stage="train", ckpt_dir=tmp_path)
    fitted(GradNormCallback(), check, running_id="r")
    with (tmp_path / "r" / "metrics.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    column = next(name for name in rows[0] if name.endswith("grad_norm"))
    assert [float(row[column]) > 0 for row in rows] == [True, True]


@pytest.mark.parametrize("window", [1, 2])
def test_it_can_be_monitored(window: int, tmp_path: Path) -> None:
    stop = EarlyStopCallback("grad_norm", mode="max", patience=1, on_stage="train")
    check = CheckCallback("grad_norm", on_stage="train", mode="min", ckpt_dir=tmp_path)
    trainer = fitted(GradNormCallback(), stop, check, epochs=9, grad_accumulate=window)
    values = list(trainer.history["train"]["grad_norm"])
    assert len(values) < 9 and values[-1] <= max(values[:-1])
    assert check.best_values == [min(values)]


def test_a_name_of_nobody_s_is_still_told_before_the_first_mini_batch() -> None:
    stop = EarlyStopCallback("grad_norms", mode="max", on_stage="train")
    with pytest.raises(CallbackException, match="'grad_norms', which train does not have"):
        fitted(GradNormCallback(), stop)


def test_a_schedule_can_follow_a_value_that_comes_with_a_later_mini_batch() -> None:
    class Late(Callback):
        def on_after_train_epoch(self, *, trainer: Any, **others: Any) -> None:
            trainer.record("late", 1.0)

    model = make_model()
    opt = torch.optim.SGD(model.parameters(), 0.1)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(opt, factor=0.5, patience=0)
    trainer = Trainer(
        model, F.mse_loss, Optimizer(opt, plateau, monitor="late"), epochs=3, console="off",
        callbacks=Late(),
    )  # fmt: skip
    trainer.fit(DATA)
    assert opt.param_groups[0]["lr"] == 0.1 * 0.5 * 0.5


def record_outside(trainer: Any) -> None:
    trainer.record("outside", 1.0)


def test_a_value_that_a_function_records_for_a_hook_can_be_monitored(tmp_path: Path) -> None:
    class Calls(Callback):
        def on_after_train_batch(self, *, trainer: Any, **others: Any) -> None:
            record_outside(trainer)

    check = CheckCallback("outside", on_stage="train", mode="min", ckpt_dir=tmp_path)
    fitted(Calls(), check)
    assert check.best_values == [1.0]


@pytest.mark.parametrize("sparse", [False, True])
def test_sparse_gradients_have_a_norm_too(sparse: bool) -> None:
    set_seed(0)
    model = nn.Sequential(nn.Embedding(5, 3, sparse=sparse), nn.Flatten(), nn.Linear(6, 1))
    data = [(torch.tensor([[0, 1], [1, 1]]), torch.ones(2, 1))]
    opt = torch.optim.SGD(model.parameters(), 0.1)
    callbacks = GradNormCallback()
    trainer = Trainer(model, F.mse_loss, opt, epochs=1, console="off", callbacks=callbacks)
    found = trainer.fit(data)["train"]["grad_norm"][0]
    set_seed(0)
    again = nn.Sequential(nn.Embedding(5, 3), nn.Flatten(), nn.Linear(6, 1))
    F.mse_loss(again(data[0][0]), data[0][1]).backward()
    norm = nn.utils.clip_grad_norm_(again.parameters(), 1e9).item()
    assert found == pytest.approx(norm, rel=1e-5)
