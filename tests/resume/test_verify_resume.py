"""`verify_resume` finds what keeps a run from being resumed to the bit, and leaves no trace."""

from __future__ import annotations

import copy
import gc
import inspect
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from deepepochs import (
    Callback,
    CheckCallback,
    CheckpointError,
    ConfigError,
    LoopException,
    Trainer,
)
from deepepochs.nest.compare import differing

sys.path.insert(0, str(Path(__file__).parent))
from exact_runs import Samples, base_fit, flat, make_model

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def test_a_run_without_hidden_state_is_proved_exact() -> None:
    trainer, options = base_fit()
    report = trainer.verify_resume(**options, steps=9)
    assert report.ok and bool(report), report
    assert report[1:3] == (9, 4)
    assert repr(report).startswith("Exact resume: saved after mini-batch 4 of 9")


def test_a_run_with_workers_is_proved_exact() -> None:
    loader = DataLoader(Samples(), 3, shuffle=True, num_workers=2, persistent_workers=True)
    next(iter(loader))  # its workers are this process's, and stay
    trainer, _ = base_fit()
    assert trainer.verify_resume(loader, steps=4).ok
    assert len(list(loader)) == 4


class Counting(Samples):
    """Its samples depend on how many were had before, which its module counts."""

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        CALLS.append(1)
        x, y = super().__getitem__(index)
        return x + len(CALLS), y


class FromOutside(Samples):
    """Calls a function that draws from a generator of its module."""

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        x, y = super().__getitem__(index)
        return x + noise(), y


def noise() -> float:
    return float(OUTSIDE.normal())


CALLS: list[int] = []
OUTSIDE = np.random.default_rng(0)


@pytest.mark.parametrize(("samples", "name"), [(Counting, "CALLS"), (FromOutside, "OUTSIDE")])
def test_hidden_state_of_the_data_set_is_found_and_named(samples: type[Samples], name: str) -> None:
    trainer, _ = base_fit()
    report = trainer.verify_resume(DataLoader(samples(), 3), steps=6)
    assert not report.ok
    assert f"does not bring back {__name__}.{name}: " in report.cause
    assert "So mini-batch 4 holds other data. " in report.cause
    assert any(line.startswith("model.0.weight: ") for line in report.differences)
    assert repr(report).startswith("NOT an exact resume: saved after mini-batch 3 of 6; ")


class Warming(nn.Module):
    """Its scale is a plain attribute that grows."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = make_model()
        self.scale = 1.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.scale += 0.5
        return self.inner(x) * self.scale


def test_hidden_state_of_the_model_is_found_and_named() -> None:
    trainer, options = base_fit(
        model=Warming, opt=lambda net: torch.optim.SGD(net.parameters(), lr=0.1)
    )
    report = trainer.verify_resume(**options, steps=4)
    assert not report.ok
    assert "does not bring back model.scale: 2.0 in the unbroken run, 1.0 in the" in report.cause
    assert "So mini-batch 3 is the same and its loss is not. Register it" in report.cause


class Forgetful(Callback):
    """Gives a state and does not take it back."""

    def __init__(self) -> None:
        super().__init__()
        self.num = 0

    def on_after_train_batch(self, **others: Any) -> None:
        self.num += 1

    def state_dict(self) -> dict[str, int]:
        return {"num": self.num}


def test_a_callback_that_forgets_is_named() -> None:
    trainer, options = base_fit(Forgetful())
    report = trainer.verify_resume(**options, steps=4)
    assert report.differences == ("callbacks.Forgetful.num: 4 and 2",)
    assert "callbacks.Forgetful.num is not" in report.cause


class Clocked(Samples):
    """Its samples depend on the time."""

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        x, y = super().__getitem__(index)
        return x + time.time_ns() % 1000, y


def test_a_run_that_is_not_deterministic_is_told_from_one_with_hidden_state() -> None:
    trainer, _ = base_fit()
    report = trainer.verify_resume(DataLoader(Clocked(), 3), steps=4)
    assert not report.ok
    assert report.cause.startswith("two unbroken runs differ as well")


def test_it_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    check = CheckCallback("loss", ckpt_dir=tmp_path / "logs")
    trainer, options = base_fit(check)
    trainer.model[0].eval()  # type: ignore[index]
    before = copy.deepcopy(trainer.state_dict())
    modes = [module.training for module in trainer.model.modules()]
    assert trainer.verify_resume(**options, steps=6).ok
    assert flat(trainer.state_dict()) == flat(before)
    assert [module.training for module in trainer.model.modules()] == modes
    assert len(trainer.callbacks) == 2 and trainer.run is None
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_was_fitted_can_be_verified_too() -> None:
    trainer, options = base_fit()
    trainer.fit(**options)
    report = trainer.verify_resume(**options, steps=4)
    assert report.ok, report


def test_a_shorter_fit_is_run_whole_and_one_of_one_mini_batch_is_refused() -> None:
    trainer, options = base_fit(epochs=1)
    report = trainer.verify_resume(**options, steps=20)
    assert report.ok
    assert repr(report).startswith("Exact resume: saved after mini-batch 3 of 7")
    with pytest.raises(ConfigError, match="fewer than 2 mini-batches"):
        trainer.verify_resume([(torch.randn(8, 4), torch.ones(8).long())], steps=3)


def test_called_inside_a_fit_it_is_refused() -> None:
    class Calls(Callback):
        def on_after_train_batch(self, trainer: Any, **others: Any) -> None:
            trainer.verify_resume([])

    trainer, options = base_fit(Calls())
    with pytest.raises(LoopException, match="inside a running fit"):
        trainer.fit(**options)


class Fails(Callback):
    """Fails in a function that a hook calls."""

    def on_after_train_batch(self, **others: Any) -> None:
        self.fail()

    def fail(self) -> None:
        raise ZeroDivisionError("in the hook")


def test_the_failure_of_a_run_is_told_in_a_few_lines_with_the_place_in_the_users_code() -> None:
    trainer, options = base_fit(Fails())
    with pytest.raises(CheckpointError) as met:
        trainer.verify_resume(**options)
    said, hook, where, advice = str(met.value).splitlines()
    assert hook == "raised in Fails.on_after_train_batch of a callback"
    assert said == "The run 'unbroken' of verify_resume failed: ZeroDivisionError: in the hook"
    _, first = inspect.getsourcelines(Fails)
    assert where == (
        f"It was raised in {__file__}, line {first + 7}, in fail, called from {__file__}, "
        f"line {first + 4}, in on_after_train_batch."
    )
    assert advice == "fit() fails there as well: mend that first, and then verify again."
    assert "run_pass" in str(met.value.__cause__)


class Unread(Samples):
    """Its samples cannot be read."""

    def __getitem__(self, index: int) -> Any:
        raise OSError("no such picture")


class Wide(Samples):
    """Its samples do not fit the model."""

    def __getitem__(self, index: int) -> Any:
        return torch.zeros(9), index % 2


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_sample_that_cannot_be_read_is_told_with_the_line_that_reads_it(num_workers: int) -> None:
    trainer, options = base_fit()
    options["train_dl"] = DataLoader(Unread(), 4, num_workers=num_workers)
    with pytest.raises(CheckpointError) as met:
        trainer.verify_resume(**options)
    said, where, _ = str(met.value).splitlines()
    assert said.endswith("failed: OSError: no such picture")
    assert where.startswith(f"It was raised in {__file__}, line ")
    assert where.endswith("in __getitem__.")


def test_a_mini_batch_that_does_not_fit_the_model_is_told_as_in_fit() -> None:
    trainer, options = base_fit()
    options["train_dl"] = DataLoader(Wide(), 4)
    with pytest.raises(CheckpointError, match="In epoch 1, training batch 1 of") as met:
        trainer.verify_resume(**options)
    assert len(str(met.value).splitlines()) <= 8 and "Traceback" not in str(met.value)


class Heavy(Callback):
    """Its state cannot be loaded."""

    def state_dict(self) -> dict[str, Any]:
        return {"num": 1}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        raise KeyError("weight")


def test_a_resume_that_fails_is_told_in_a_few_lines_too() -> None:
    trainer, options = base_fit(Heavy())
    (difference,) = trainer.verify_resume(**options).differences
    assert "The run 'resumed' of verify_resume failed: " in difference
    assert f"It was raised in {__file__}, line " in difference
    assert "The unbroken run has passed" in difference and "Traceback" not in difference


def test_differing_names_the_path_and_the_size_of_a_difference() -> None:
    one = {"a": [torch.zeros(3), 1.0], "b": {"c": float("nan")}, "d": 1}
    other = {"a": [torch.tensor([0.0, 2.0, 0.0]), 1.0], "b": {"c": float("nan")}, "e": 1}
    assert differing(one, other) == [
        "a[0]: 1 of 3 numbers, by up to 2",
        "d: only in the first",
        "e: only in the second",
    ]


def test_a_fit_that_is_refused_says_why_without_a_traceback(tmp_path: Path) -> None:
    check = CheckCallback("loss", ckpt_dir=tmp_path)
    trainer, options = base_fit(check)
    with pytest.raises(ConfigError, match="verify_resume: CheckCallback monitors") as met:
        trainer.verify_resume(options["train_dl"])
    assert "Give fit() a val_dl" in str(met.value) and "Traceback" not in str(met.value)


class Collects(Callback):
    def on_before_train_batch(self, **others: Any) -> None:
        gc.collect()


def test_what_the_script_has_dropped_is_not_collected_in_a_run(tmp_path: Path) -> None:
    # It may be a group of processes, whose end waits for threads that a fork does not have.
    class Dropped:
        def __init__(self) -> None:
            self.itself, self.owner = self, os.getpid()

        def __del__(self) -> None:
            (tmp_path / ("here" if os.getpid() == self.owner else "in a run")).touch()

    gc.collect()
    gc.disable()
    try:
        Dropped()
        trainer, options = base_fit(Collects())
        assert trainer.verify_resume(**options, steps=4).ok
        assert not gc.isenabled() and list(tmp_path.iterdir()) == []
    finally:
        gc.enable()
    gc.collect()
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


class NeedsWholeEpochs(Callback):
    """Its hook fails where an epoch is not whole."""

    def on_after_epoch(self, val_metrics: Any, **others: Any) -> None:
        assert val_metrics["loss"] > 0


def test_hooks_of_an_epoch_are_not_called_for_a_part_of_one() -> None:
    trainer, options = base_fit(NeedsWholeEpochs())
    for steps in (4, 9):
        assert trainer.verify_resume(**options, steps=steps).ok


class StopsAfterFive(Callback):
    """Counts by itself when to stop."""

    def __init__(self) -> None:
        super().__init__()
        self.num = 0

    def on_after_train_batch(self, trainer: Any, **others: Any) -> None:
        self.num += 1
        if self.num == 5:
            trainer.stop("enough")


def test_runs_that_end_at_different_places_are_told_apart() -> None:
    trainer, options = base_fit(StopsAfterFive())
    report = trainer.verify_resume(**options, steps=12)
    assert (report.num_batches, report.saved_after) == (8, 6)
    assert report.attributes == ("StopsAfterFive.num: 4 in the unbroken run, 0 in the resumed one",)
    expected = "the unbroken run ends after 8 mini-batches, and the resumed one after 12. Give the"
    assert f"So {expected} callback state_dict" in report.cause


def test_runs_that_cannot_be_forks_leave_the_weights_of_the_script(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5), nn.Linear(3, 1))
    before = copy.deepcopy(model.state_dict())
    x = torch.randn(20, 4)
    data = DataLoader(TensorDataset(x, x[:, :1]), 5, shuffle=True)
    trainer = Trainer(model, nn.MSELoss(), epochs=3, console="off")
    assert trainer.verify_resume(data, steps=4).ok
    assert flat(model.state_dict()) == flat(before)
    assert not any(weight.is_shared() for weight in model.parameters())
