"""What `record` is given in steps and hooks is one value of the epoch, as computed by hand."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from deepepochs import (
    Callback,
    CheckCallback,
    ConfigError,
    EpochTask,
    LoopException,
    MetricError,
    Trainer,
    set_seed,
)
from deepepochs.errors import CheckpointMismatch, ConfigTypeError
from deepepochs.patches.recorded import HOW, recorded_patch

NAN = math.nan
SIZES = (4, 4, 2)
DATA = [(torch.full((n, 1), float(i)), torch.zeros(n, 1)) for i, n in enumerate(SIZES)]


def trainer_of(callbacks: Any = None, **options: Any) -> Trainer:
    model = nn.Linear(1, 1)
    opt = torch.optim.SGD(model.parameters(), lr=0.0)
    options = {"epochs": 1, "console": "off", **options}
    return Trainer(model, nn.functional.mse_loss, opt, callbacks=callbacks, **options)


def task_with(act: Callable[[Any, int], Any], data: Any = None, **options: Any) -> EpochTask:
    """A task whose step calls ``act(task, batch_idx)``."""

    class Task(EpochTask):
        def step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> Any:
            self.loss(self.model(*batch_x), batch_y)
            assert self.run is not None
            return act(self, self.run.batch_idx)

    return Task(DATA if data is None else data, **options)


def recorded(act: Callable[[Any, int], Any], **options: Any) -> dict[str, float]:
    """What one epoch of training has, without the loss."""
    history = trainer_of(**options).fit(train_tasks=task_with(act))
    return {name: values[-1] for name, values in history["train"].items() if name != "loss"}


@pytest.mark.parametrize(
    ("how", "value"),
    [("mean", (4 * 3 + 4 * 1 + 2 * 2) / 10), ("last", 2), ("sum", 6), ("max", 3), ("min", 1)],
)
def test_the_epoch_has_the_value_that_is_computed_by_hand(how: str, value: float) -> None:
    values = [3.0, 1.0, 2.0]
    assert recorded(lambda task, i: task.record("mine", values[i], how=how)) == {"mine": value}


def test_a_weight_of_ones_own_replaces_that_of_the_mini_batch() -> None:
    def act(task: Any, i: int) -> None:
        task.record("mine", float(i), weight=[1, 0, 3][i])

    assert recorded(act) == {"mine": 1.5}


def test_several_values_of_a_mini_batch_count_as_those_of_several() -> None:
    def act(task: Any, i: int) -> None:
        for value in (1.0, 5.0):
            task.record("mean", value)
            task.record("sum", value, how="sum")

    assert recorded(act) == {"mean": 3.0, "sum": 18.0}


@pytest.mark.parametrize(
    "value",
    [2, 2.0, True + 1, np.float32(2), np.array([[2]]), torch.tensor([2.0]), torch.tensor(2)],
    ids=repr,
)
def test_any_single_number_can_be_recorded(value: Any) -> None:
    assert recorded(lambda task, i: task.record("mine", value)) == {"mine": 2.0}


@pytest.mark.parametrize("how", HOW)
def test_nan_is_not_hidden(how: str) -> None:
    values = [1.0, NAN, 2.0]
    found = recorded(lambda task, i: task.record("mine", values[i], how=how))["mine"]
    assert found == 2.0 if how == "last" else math.isnan(found)


def test_a_value_with_a_gradient_keeps_no_graph() -> None:
    def act(task: Any, i: int) -> None:
        task.record("mine", (task.model.weight * 0 + 2).sum())
        assert not any(
            isinstance(v, torch.Tensor) for v in vars(task.run.batch_patches["mine"]).values()
        )

    assert recorded(act) == {"mine": 2.0}


class Hooks(Callback):
    """Records one under the name of each hook that is given."""

    def __init__(self, *hooks: str, how: str = "sum") -> None:
        super().__init__()
        self.hooks, self.how = hooks, how

    def _record(self, trainer: Any, hook: str) -> None:
        if hook in self.hooks:
            trainer.record(hook, 1, how=self.how)

    def on_before_train_epoch(self, *, trainer: Any, **others: Any) -> None:
        self._record(trainer, "before_epoch")

    def on_before_train_batch(self, *, trainer: Any, **others: Any) -> None:
        self._record(trainer, "before_batch")

    def on_after_backward(self, *, trainer: Any, **others: Any) -> None:
        self._record(trainer, "after_backward")

    def on_after_optimize(self, *, trainer: Any, **others: Any) -> None:
        self._record(trainer, "after_optimize")

    def on_after_train_batch(self, *, trainer: Any, **others: Any) -> None:
        self._record(trainer, "after_batch")

    def on_after_train_epoch(self, *, trainer: Any, **others: Any) -> None:
        self._record(trainer, "after_epoch")

    def on_after_epoch(self, *, trainer: Any, **others: Any) -> None:
        self._record(trainer, "after_all")


def test_hooks_of_a_mini_batch_and_of_the_end_of_a_pass_record() -> None:
    num = {"before_batch": 3, "after_backward": 3, "after_optimize": 3, "after_batch": 3}
    num["after_epoch"] = 1
    trainer = trainer_of(Hooks(*num), epochs=2)
    history = trainer.fit(DATA)["train"]
    assert {name: list(history[name]) for name in num} == {n: [v, v] for n, v in num.items()}


def test_a_step_of_the_last_window_is_recorded_too() -> None:
    trainer = trainer_of(Hooks("after_optimize"), grad_accumulate=2)
    assert trainer.fit(DATA)["train"]["after_optimize"] == [2.0]


@pytest.mark.parametrize("hook", ["before_epoch", "after_all"])
def test_where_no_pass_takes_a_value_the_error_says_where_one_does(hook: str) -> None:
    trainer = trainer_of(Hooks(hook))
    with pytest.raises(LoopException, match=r"no pass runs. Call it in a step, in a hook"):
        trainer.fit(DATA)


def test_outside_of_a_call_recording_is_an_error() -> None:
    for place in (trainer_of(), EpochTask(DATA)):
        with pytest.raises(LoopException, match=r"record\('mine'\) was called where no pass runs"):
            place.record("mine", 1)


def test_validation_and_test_record_and_tasks_are_pooled() -> None:
    trainer = trainer_of()

    def act(task: Any, i: int) -> None:
        task.record("mean", float(i))
        task.record("last", 10.0 * task.run.task_idx + i, how="last")

    tasks = [task_with(act, name="one"), task_with(act, DATA[:2], name="two")]
    val = trainer.fit(DATA, val_tasks=tasks)["val"]
    assert {name: value[0] for name, value in val.items() if "loss" not in name} == {
        "mean": (0 * 4 + 1 * 4 + 2 * 2 + 0 * 4 + 1 * 4) / 18,
        "last": 11.0,
        "one/mean": 0.8,
        "one/last": 2.0,
        "two/mean": 0.5,
        "two/last": 11.0,
    }
    assert trainer.test(tasks=task_with(act))["mean"] == 0.8


def test_a_value_of_the_end_of_a_pass_weighs_as_the_pass() -> None:
    class Late(Callback):
        def on_after_val_epoch(self, *, trainer: Any, task: Any, metrics: Any) -> None:
            trainer.record("late", {"one": 1.0, "two": 4.0}[task.name])
            assert metrics["late"] in (1.0, 4.0)

    tasks = [EpochTask(DATA, name="one"), EpochTask(DATA[:2], name="two")]
    val = trainer_of(Late()).fit(DATA, val_tasks=tasks)["val"]
    assert val["late"] == [(10 * 1.0 + 8 * 4.0) / 18]


def test_hooks_of_a_mini_batch_see_what_its_step_recorded() -> None:
    seen = []

    class See(Callback):
        def on_after_train_batch(self, *, metrics: Any, **others: Any) -> None:
            seen.append(metrics["mine"])

    recorded(lambda task, i: task.record("mine", i), callbacks=See())
    assert seen == [0.0, 1.0, 2.0]


@pytest.mark.parametrize(
    ("act", "kind", "text"),
    [
        (lambda t, i: t.record("loss", 1), MetricError, "the loss of each mini-batch"),
        (lambda t, i: t.record("size", 1), MetricError, "a metric has that name"),
        (
            lambda t, i: t.record("mine", torch.ones(3)),
            ConfigTypeError,
            r"record\('mine', value\) got a tensor .*: give a single number",
        ),
        (lambda t, i: t.record("mine", {"a": 1}), ConfigTypeError, "give a single number"),
        (lambda t, i: t.record("mine", "1"), ConfigTypeError, "give a single number"),
        (lambda t, i: t.record("mine", 1j), ConfigTypeError, "give a single number"),
        (lambda t, i: t.record(1.0, "mine"), ConfigTypeError, "the name comes first"),
        (lambda t, i: t.record("mine", 1, how="avg"), ConfigError, "Did you mean 'mean'"),
        (lambda t, i: t.record("mine", 1, weight=-1), ConfigError, "weight=-1.*at least 0"),
        (lambda t, i: t.record("mine", 1, weight=1, how="max"), ConfigError, "is that of a mean"),
        (
            lambda t, i: t.record("mine", 1, how=["max", "sum", "sum"][i]),
            MetricError,
            "it was recorded with how='max'",
        ),
        (lambda t, i: t.record("mine", 1) or {"mine": 1}, MetricError, "returned a value of that"),
        (
            lambda t, i: {"mine": 1} if i == 0 else t.record("mine", 1),
            MetricError,
            "returned a value of that name. Record the value under another",
        ),
    ],
)  # fmt: skip
def test_a_mistake_is_told(act: Any, kind: type[Exception], text: str) -> None:
    def size(outputs: Any, targets: Any) -> float:
        return len(outputs)

    with pytest.raises(kind, match=text):
        recorded(act, metrics=size)


def test_a_name_of_a_pass_that_is_over_cannot_be_recorded_again() -> None:
    class Late(Callback):
        def on_after_train_epoch(self, *, trainer: Any, **others: Any) -> None:
            trainer.record("mine", 1)

    with pytest.raises(MetricError, match="this pass, which is over, has a value of that name"):
        recorded(lambda task, i: task.record("mine", i), callbacks=Late())


class Dies(Callback):
    """Ends the process at a mini-batch, or at the end of a pass before anything more is saved."""

    def __init__(self, at: int | str | None) -> None:
        super().__init__()
        self.at, self.num = at, 0

    def on_before_train_batch(self, **others: Any) -> None:
        if self.num == self.at:
            raise Killed
        self.num += 1

    def on_after_train_epoch(self, **others: Any) -> None:
        if self.at == "end of the pass":
            raise Killed


class CountsSteps(Callback):
    def on_after_optimize(self, *, trainer: Any, **others: Any) -> None:
        trainer.record("steps", trainer.progress.num_steps)


class Killed(Exception):
    pass


def all_kinds(task: Any, i: int) -> None:
    for how in HOW:
        task.record(how, torch.tensor([0.1, 0.7, 0.4][i]), how=how)


class WithoutLength:
    """Mini-batches of which nobody knows which is the last: its window is closed after it."""

    def __iter__(self) -> Any:
        return iter(DATA)


def run_to(folder: Path, at: int | str | None) -> Any:
    set_seed(1)
    check = CheckCallback(ckpt_dir=folder, on_stage="train", every_n_batches=1)
    callbacks = [check, CountsSteps(), Hooks("after_batch"), Dies(at)]
    options: Any = {"running_id": "r", "resume": "auto", "epochs": 2, "grad_accumulate": 2}
    trainer = trainer_of(callbacks, **options)
    with pytest.raises(Killed) if at is not None else nullcontext():
        trainer.fit(train_tasks=task_with(all_kinds, WithoutLength()))
    return trainer.history


@pytest.mark.parametrize("at", [1, 2, "end of the pass", 3, 5])
def test_a_resumed_run_records_the_same_bits(tmp_path: Path, at: int | str) -> None:
    unbroken = run_to(tmp_path / "unbroken", None)["train"]
    run_to(tmp_path / "broken", at)
    resumed = run_to(tmp_path / "broken", None)["train"]
    assert {name: list(resumed[name]) for name in resumed} == {
        name: list(unbroken[name]) for name in unbroken
    }


def test_another_way_after_a_resume_is_an_error() -> None:
    from deepepochs.patches.resumed import RestoredPatch, join_patches

    restored = RestoredPatch.of(recorded_patch("mine", 1.0, None, "sum"))
    with pytest.raises(CheckpointMismatch, match="holds a SumPatch where a MaxPatch is added"):
        join_patches(restored, recorded_patch("mine", 1.0, None, "max"))


@pytest.mark.parametrize("how", HOW)
def test_a_value_on_an_accelerator_is_not_read_in_a_step(how: str) -> None:
    # To read a tensor of the device "meta" is an error, as it is a wait on an accelerator.
    value = torch.ones(1, device="meta", requires_grad=True)
    merged = recorded_patch("mine", value, 2, how)
    for index in range(200):
        merged = merged.add(recorded_patch("mine", value, 2, how, (0, index)))
    found = merged()
    assert found.is_meta and not found.ndim and not found.requires_grad


def test_a_tensor_on_an_accelerator_is_copied_for_the_script_may_change_it() -> None:
    value = torch.ones((), device="meta", dtype=torch.float64)
    patch: Any = recorded_patch("mine", value, None, "max")
    assert patch.value is not value and patch.value._base is None


@pytest.mark.parametrize(("how", "expected"), [("max", 3.0), ("min", 1.0), ("sum", 6.0)])
def test_tensors_and_numbers_may_come_under_one_name(how: str, expected: float) -> None:
    from deepepochs.patches.recorded import MaxPatch, MinPatch, SumPatch

    kind: Any = {"max": MaxPatch, "min": MinPatch, "sum": SumPatch}[how]
    parts = [kind(2.0), kind(torch.tensor(1.0, dtype=torch.float64)), kind(3.0)]
    assert float(sum(parts)()) == expected


@pytest.mark.parametrize("how", HOW)
def test_the_processes_may_add_their_parts_in_any_order(how: str) -> None:
    parts = [
        recorded_patch("mine", v, 2.0, how, (i // 2, i)) for i, v in enumerate([3.0, 1.0, 2.0])
    ]
    expected = {"mean": 2.0, "last": 2.0, "sum": 6.0, "max": 3.0, "min": 1.0}[how]
    for a, b, c in itertools.permutations(parts):
        assert ((a + b) + c)() == (a + (b + c))() == expected
