"""A state is loaded into another set-up: what fits goes on to the bit, what does not is refused."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from deepepochs import Callback, EpochTask, Optimizer, TensorPatch, Trainer, TrainerBase, ValuePatch
from deepepochs.errors import CheckpointMismatch

sys.path.insert(0, str(Path(__file__).parent))
from exact_runs import (
    EPOCHS,
    Fit,
    Samples,
    SaveAlways,
    base_fit,
    check,
    differences,
    finish,
    flat,
    through_a_file,
    unbroken,
)


def at(make: Any, place: str) -> dict[str, Any]:
    """The state of an unbroken run at a place such as ``epoch 0 train 1``."""
    _, saver = unbroken(make)
    state: dict[str, Any] = through_a_file(saver.states[saver.places.index(place)])
    return state


class Counting(nn.Module):
    """Its outputs depend on a buffer that no ``state_dict`` has, and on one that grows."""

    seen: Tensor
    grown: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2)
        self.register_buffer("seen", torch.zeros(()), persistent=False)
        self.register_buffer("grown", torch.ones(1), persistent=False)
        self.register_buffer("empty", None, persistent=False)

    def forward(self, x: Tensor) -> Any:
        if self.training:
            self.seen += 1
            self.grown = torch.cat([self.grown, self.seen[None]])
        return self.linear(x) * (1 + self.seen / 10) + self.grown.mean()


def test_buffers_that_are_not_persistent_are_resumed() -> None:
    assert check(lambda *callbacks: base_fit(*callbacks, model=Counting), every=3) > 2


class Unfreeze(Callback):
    """Gradual unfreezing, as one writes it."""

    def on_before_epoch(self, trainer: TrainerBase, epoch_idx: int, **values: Any) -> None:
        if epoch_idx == 1:
            trainer.model[0].requires_grad_(True)  # type: ignore[index,operator]


def frozen_at_first() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    model[0].requires_grad_(False)
    return model


def test_layers_that_a_callback_has_unfrozen_stay_so_after_a_resume() -> None:
    assert check(lambda *cbks: base_fit(Unfreeze(), *cbks, model=frozen_at_first), every=3) > 2


class OtherBuffers(Counting):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("more", torch.zeros(1), persistent=False)


@pytest.mark.parametrize(("saved", "here"), [(Counting, OtherBuffers), (OtherBuffers, Counting)])
def test_another_set_of_passing_buffers_is_refused_by_name(
    saved: type[nn.Module], here: type[nn.Module]
) -> None:
    state = through_a_file(base_fit(model=saved).trainer.state_dict())
    trainer = base_fit(model=here).trainer
    before = flat(trainer.state_dict())
    with pytest.raises(CheckpointMismatch, match=r"model\.more"):
        trainer.load_state_dict(state)
    assert flat(trainer.state_dict()) == before


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_load_keeps_no_second_model_on_the_device() -> None:
    model = nn.Linear(1000, 1000)
    size = 4 * 1000 * 1000
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    trainer = Trainer(model, F.mse_loss, opt, show_info=False, device="cuda")
    state = through_a_file(trainer.state_dict())
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    trainer.load_state_dict(state)
    assert torch.cuda.max_memory_allocated() - before < size / 2


class Counted:
    """A metric that tells how often it was asked."""

    __name__ = "counted"

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, model_out: Tensor, targets: Tensor) -> Tensor:
        self.calls += 1
        return model_out.mean()


def test_saving_in_validation_asks_no_metric_of_a_finished_pass_again() -> None:
    with_saves, without = Counted(), Counted()
    base_fit(SaveAlways(), metrics=[with_saves]).trainer.fit(**base_fit().options)
    base_fit(metrics=[without]).trainer.fit(**base_fit().options)
    assert with_saves.calls == without.calls == 2 * EPOCHS


def test_a_save_between_passes_of_a_stage_asks_no_metric_of_a_finished_pass_again() -> None:
    calls = []
    for callbacks in ([], [SaveAlways()]):
        metric = Counted()
        tasks = [EpochTask(base_fit().options["val_dl"], name=name) for name in "ab"]
        fit = base_fit(*callbacks, metrics=[metric])
        fit.trainer.fit(fit.options["train_dl"], val_tasks=tasks)
        calls.append(metric.calls)
    assert calls[0] == calls[1] == 4 * EPOCHS  # train, a, b and both pooled


def test_what_training_has_put_out_is_neither_kept_nor_saved_through_validation() -> None:
    saver = SaveAlways()
    fit = base_fit(saver, metrics=[Counted()])
    fit.trainer.fit(**fit.options)
    sizes = {}
    for place, state in zip(saver.places, saver.states, strict=True):
        sizes[place] = sum(1 for key in flat(state["epoch"]) if key.endswith("outputs.0"))
    assert sizes["epoch 0 train 2"] == sizes["epoch 0 val 1"] == 1


class Scores(EpochTask):
    """Returns a patch of its own, whose class no plan knows."""

    def val_step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> Any:
        model_out = self.model(*batch_x)
        self.loss(model_out, batch_y)
        return {"own": TensorPatch(spread).load(model_out, batch_y)}


def spread(model_out: Tensor, targets: Tensor) -> dict[str, Tensor]:
    return {".std": model_out.std(), ".max": model_out.max()}


def test_values_pooled_over_tasks_are_resumed_to_the_bit() -> None:
    def make(*callbacks: Callback) -> Fit:
        def fit() -> dict[str, Any]:
            data = base_fit().options
            tasks = [Scores(DataLoader(Samples(n), 2), name=f"of {n}") for n in (3, 5, 4)]
            return {"train_dl": data["train_dl"], "val_tasks": tasks}

        return base_fit(*callbacks, fit=fit, metrics=[spread])

    assert check(make, every=2) > 5


class Reports(Trainer):
    """Returns a loss of its own kind, in the place of the planned one."""

    def train_step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> Any:
        model_out = self.model(*batch_x)
        self.loss(model_out, batch_y, do_metric=False)
        return {"loss": TensorPatch(F.cross_entropy).load(model_out, batch_y)}


def test_a_step_that_returns_a_loss_of_another_kind_is_resumed_to_the_bit() -> None:
    assert check(lambda *callbacks: base_fit(*callbacks, cls=Reports), every=3) > 2


def test_a_step_that_returns_another_metric_by_a_planned_name_is_resumed_to_the_bit() -> None:
    class Replaces(Trainer):
        def step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> Any:
            model_out = self.model(*batch_x)
            self.loss(model_out, batch_y)
            return {"spread": TensorPatch(F.cross_entropy).load(model_out, batch_y)}

    assert check(lambda *cbks: base_fit(*cbks, cls=Replaces, metrics=[spread]), every=3) > 2


@pytest.mark.parametrize(
    ("saved", "here", "match"),
    [
        ({}, {"metrics": [spread]}, "'spread' is new"),
        ({"metrics": [spread]}, {}, "'spread' is not computed"),
        (
            {"metrics": [spread]},
            {"metrics": [spread], "metric_patch": "mean"},
            "'spread' was kept in a TensorPatch, and is in a MeanPatch",
        ),
        ({"grad_accumulate": 4}, {}, "grad_accumulate=4, and it is 1 here"),
        ({}, {"grad_accumulate": 2}, "grad_accumulate=1, and it is 2 here"),
    ],
)
def test_a_pass_of_another_setup_is_refused_by_what_differs(
    saved: dict[str, Any], here: dict[str, Any], match: str
) -> None:
    state = at(lambda *callbacks: base_fit(*callbacks, **saved), "epoch 0 train 1")
    fit = base_fit(**here)
    fit.trainer.load_state_dict(state)
    with pytest.raises(CheckpointMismatch, match=f"inside the train pass .*{match}"):
        fit.trainer.fit(**fit.options)


def fit_of_tasks(num_train: int, num_val: int, *callbacks: Callback, **options: Any) -> Fit:
    def tasks() -> dict[str, Any]:
        train, val = ([EpochTask(DataLoader(Samples(), 3)) for _ in range(n)] for n in nums)
        return {"train_tasks": train, "val_tasks": val, **options}

    nums = num_train, num_val
    return base_fit(*callbacks, fit=tasks)


@pytest.mark.parametrize("num", [1, 3])
@pytest.mark.parametrize("place", ["epoch 0 train 0", "epoch 0 val 0", "epoch 1 val 1"])
def test_other_tasks_inside_their_stage_are_refused(place: str, num: int) -> None:
    state = at(partial(fit_of_tasks, 2, 2), place)
    fit = fit_of_tasks(num, num)
    fit.trainer.load_state_dict(state)
    with pytest.raises(CheckpointMismatch, match=r"with the tasks \['0', '1'\], and here"):
        fit.trainer.fit(**fit.options)


@pytest.mark.parametrize(("num", "options"), [(0, {}), (2, {"val_freq": 2})])
def test_a_validation_that_is_under_way_cannot_be_dropped(
    num: int, options: dict[str, Any]
) -> None:
    state = at(partial(fit_of_tasks, 2, 2), "epoch 0 val 0")
    fit = fit_of_tasks(2, num, **options)
    fit.trainer.load_state_dict(state)
    with pytest.raises(CheckpointMismatch, match=r"inside the val stage .*, and here it has none"):
        fit.trainer.fit(**fit.options)


def test_a_fit_refused_for_its_tasks_goes_on_exactly_with_the_right_ones() -> None:
    make = partial(fit_of_tasks, 2, 2)
    whole, saver = unbroken(make)
    state = through_a_file(saver.states[saver.places.index("epoch 1 train 1")])
    fit = make(SaveAlways())
    fit.trainer.load_state_dict(state)
    with pytest.raises(CheckpointMismatch, match="with the tasks"):
        fit.trainer.fit(train_tasks=fit.options["train_tasks"][:1])
    assert not differences(finish(fit), whole)


def refuse(patch: TensorPatch, state: Any) -> None:
    raise KeyError("of another metric")


@pytest.mark.parametrize(
    ("place", "fault"),
    [
        *(
            (f"epoch {place}", f)
            for place in ("0 train 1", "1 train 0")
            for f in ("loader", "window")
        ),
        *(
            (f"epoch {place}", f)
            for place in ("0 train 3", "1 val 0")
            for f in ("metrics", "patch")
        ),
        ("epoch 0 val 1", "loader"),
    ],
)
def test_a_fit_refused_inside_its_pass_goes_on_exactly_when_it_is_called_rightly(
    place: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = partial(base_fit, metrics=[spread])
    whole, saver = unbroken(make)
    fit = make(SaveAlways())
    trainer, options = fit.trainer, dict(fit.options)
    trainer.load_state_dict(through_a_file(saver.states[saver.places.index(place)]))
    with monkeypatch.context() as patched, pytest.raises(CheckpointMismatch):
        if fault == "metrics":
            options["metrics"] = [F.cross_entropy]
        elif fault == "loader":
            options[f"{place.split()[2]}_dl"] = DataLoader(Samples(50), 3)
        elif fault == "order":
            options["train_dl"] = DataLoader(Samples(), 3)
        elif fault == "window":
            patched.setattr(trainer, "grad_accumulate", 2)
        else:
            patched.setattr(TensorPatch, "load_state_dict", refuse)
        trainer.fit(**options)
    assert trainer.is_resumed
    assert not differences(finish(fit), whole)


def test_where_the_warning_of_another_loader_is_an_error_the_next_fit_goes_on_exactly() -> None:
    whole, saver = unbroken(base_fit)
    fit = base_fit(SaveAlways())
    state = saver.states[saver.places.index("epoch 1 train 1")]
    fit.trainer.load_state_dict(through_a_file(state))
    with pytest.raises(UserWarning, match="saved with another loader of val/0"):
        fit.trainer.fit(fit.options["train_dl"], [Samples(5)[:]])
    assert not differences(finish(fit), whole)


def test_other_metrics_are_welcome_after_the_end_of_an_epoch() -> None:
    state = at(lambda *callbacks: base_fit(*callbacks), "epoch 0 end")
    fit = base_fit(metrics=[spread], grad_accumulate=2)
    fit.trainer.load_state_dict(state)
    assert "spread.std" in fit.trainer.fit(**fit.options)["train"]


def test_a_step_that_returns_another_kind_than_before_the_resume_is_refused() -> None:
    class Other(Reports):
        def train_step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> Any:
            value = self.loss(self.model(*batch_x), batch_y, do_metric=False)
            return {"loss": ValuePatch(len(batch_y)).load(value)}

    state = at(lambda *callbacks: base_fit(*callbacks, cls=Reports), "epoch 0 train 1")
    fit = base_fit(cls=Other)
    fit.trainer.load_state_dict(state)
    with pytest.raises(CheckpointMismatch, match="a TensorPatch where a ValuePatch"):
        fit.trainer.fit(**fit.options)


@pytest.mark.filterwarnings("ignore:ReduceLROnPlateau follows the loss")
def test_a_scheduler_on_steps_that_wants_a_loss_is_resumed_inside_a_window() -> None:
    def plateau(model: nn.Module) -> Optimizer:
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        plan = torch.optim.lr_scheduler.ReduceLROnPlateau(opt, patience=0, factor=0.9)
        return Optimizer(opt, plan, sched_on="step")

    assert check(lambda *cbks: base_fit(*cbks, opt=plateau, grad_accumulate=3), every=2) > 4
