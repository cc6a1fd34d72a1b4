"""Schedulers that follow a metric: which value they are given, and what is refused."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import (
    ChainedScheduler,
    ConstantLR,
    ExponentialLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)
from torch.utils.data import DataLoader, TensorDataset

from deepepochs import Callback, CheckCallback, EpochTask, Optimizer, Trainer, ValuePatch, rename
from deepepochs.errors import ConfigError, MetricError
from deepepochs.metrics import accuracy

torch.manual_seed(1)
X = torch.randn(48, 2)
Y = (X[:, 0] > 0).long()
DL = DataLoader(TensorDataset(X, Y), batch_size=8)
OTHER_DL = DataLoader(TensorDataset(X[:16], Y[:16]), batch_size=8)


class Seen(ReduceLROnPlateau):
    """Keeps what it is given."""

    def __init__(self, opt: torch.optim.Optimizer, mode: str = "max", **options: Any) -> None:
        self.given: list[float] = []
        super().__init__(opt, mode=mode, **options)  # type: ignore[arg-type]

    def step(self, metrics: Any, epoch: Any = None) -> None:  # type: ignore[override]
        self.given.append(metrics)
        super().step(metrics)


def trainer(monitor: str | None, epochs: int = 3, **options: Any) -> tuple[Trainer, Seen]:
    torch.manual_seed(0)
    model = nn.Linear(2, 2)
    opt = torch.optim.SGD(model.parameters(), lr=0.02)
    seen = Seen(
        opt, mode="min" if monitor is None else "max", factor=0.5, patience=0, threshold=0.2
    )
    options.setdefault("metrics", accuracy)
    optimizer = Optimizer(opt, seen, monitor=monitor)
    return Trainer(model, F.cross_entropy, optimizer, epochs, show_info=False, **options), seen


def test_it_is_given_the_metric_of_validation() -> None:
    one, seen = trainer("accuracy")
    history = one.fit(DL, OTHER_DL)
    assert seen.given == history["val"]["accuracy"]
    assert seen.given != history["train"]["accuracy"]


def test_the_rate_is_that_of_a_loop_by_hand() -> None:
    one, _ = trainer("accuracy", 8)
    accuracies = one.fit(DL, DL)["val"]["accuracy"]
    opt = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.02)
    by_hand = ReduceLROnPlateau(opt, mode="max", factor=0.5, patience=0, threshold=0.2)
    for value in accuracies:
        by_hand.step(float(value))
    assert one.opt.get_current_lr() == [opt.param_groups[0]["lr"]]


def test_without_validation_it_is_given_that_of_training() -> None:
    one, seen = trainer("accuracy")
    assert seen.given == one.fit(DL)["train"]["accuracy"]


def test_epochs_that_do_not_validate_leave_it() -> None:
    one, seen = trainer("accuracy", 4)
    assert seen.given == one.fit(DL, DL, val_freq=2)["val"]["accuracy"]
    assert len(seen.given) == 2


def test_a_metric_may_come_from_validation_without_a_loss() -> None:
    one, seen = trainer("accuracy")
    assert seen.given == one.fit(DL, DL, do_val_loss=False)["val"]["accuracy"]


@pytest.mark.parametrize("name", ["night/accuracy", "day/loss", "accuracy"])
def test_of_several_tasks_it_follows_one_or_all(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        one, seen = trainer(name)
    tasks = [EpochTask(DL, name="day"), EpochTask(OTHER_DL, name="night")]
    history = one.fit(DL, val_tasks=tasks)
    assert seen.given == history["val"][name]


def test_it_may_follow_a_value_that_a_step_returns_or_a_key_of_a_dict() -> None:
    class Margin(EpochTask):
        def val_step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> Any:
            out = self.model(*batch_x)
            self.loss(out, batch_y)
            return {"margin": ValuePatch(len(batch_y)).load(out.std())}

    one, seen = trainer("margin")
    assert seen.given == one.fit(DL, val_tasks=Margin(DL))["val"]["margin"]

    @rename("m.")
    def several(preds: Any, targets: Any) -> dict[str, float]:
        return {"top": float(preds.max()), "low": float(preds.min())}

    one, seen = trainer("m.top", metrics=several)
    assert seen.given == one.fit(DL, DL)["val"]["m.top"]


def test_the_loss_by_its_name_is_the_loss() -> None:
    model = nn.Linear(2, 2)
    opt = torch.optim.SGD(model.parameters(), lr=0.02)
    seen = Seen(opt, mode="min")
    one = Trainer(model, F.cross_entropy, Optimizer(opt, seen, monitor="loss"), 2, show_info=False)
    assert seen.given == one.fit(DL, DL, do_val_loss=False)["train"]["loss"]


class Count(Callback):
    num = 0

    def on_after_train_batch(self, trainer: Any, metrics: Any, batch_idx: int) -> None:
        self.num += 1


@pytest.mark.parametrize("validates", [True, False])
def test_a_name_that_nobody_records_is_told_after_the_first_mini_batch(validates: bool) -> None:
    count = Count()
    one, _ = trainer("acc", callbacks=count)
    with pytest.raises(
        MetricError, match=r"follows 'acc', which .* has loss, accuracy. Did you mean 'accuracy'"
    ):
        one.fit(DL, DL if validates else None)
    assert count.num == 1


@pytest.mark.parametrize("name", ["evening/accuracy", "night/acc"])
def test_so_is_one_of_a_task_that_is_not_there(name: str) -> None:
    count = Count()
    one, _ = trainer(name, callbacks=count)
    tasks = [EpochTask(DL, name="day"), EpochTask(OTHER_DL, name="night")]
    with pytest.raises(MetricError, match="night/accuracy"):
        one.fit(DL, val_tasks=tasks)
    assert count.num == 1


def test_of_a_step_of_ones_own_it_is_told_after_its_first_mini_batch() -> None:
    calls = []

    class Own(EpochTask):
        def val_step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> Any:
            calls.append(1)
            self.loss(self.model(*batch_x), batch_y)

    one, _ = trainer("margin")
    with pytest.raises(MetricError, match="follows 'margin', which val does not have"):
        one.fit(DL, val_tasks=Own(DL))
    assert len(calls) == 1


def test_a_value_that_a_callback_records_is_found() -> None:
    class Adds(Callback):
        def on_val_metrics(
            self, trainer: Any, loss: Any, model_out: Any, batch_y: Any, task: Any
        ) -> None:
            patch = ValuePatch(len(batch_y)).load(float(model_out.std()))
            trainer.run.batch_patches["spread"] = patch

    one, seen = trainer("spread", callbacks=Adds())
    assert seen.given == one.fit(DL, DL)["val"]["spread"]


def test_a_metric_of_several_entries_cannot_be_followed() -> None:
    def both(preds: Any, targets: Any) -> Any:
        return preds.mean(0)

    one, _ = trainer("both", metrics=both)
    with pytest.raises(MetricError, match="'both', which has several entries"):
        one.fit(DL, DL)


def test_a_run_that_follows_a_metric_resumes_to_the_bit(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    whole, _ = trainer("accuracy", 6)
    whole.fit(DL, DL)
    cut, _ = trainer("accuracy", 3, callbacks=CheckCallback("loss"), running_id="cut")
    cut.fit(DL, DL)
    again, _ = trainer(
        "accuracy", 6, callbacks=CheckCallback("loss"), running_id="cut", resume=True
    )
    again.fit(DL, DL)
    assert torch.equal(again.model.weight, whole.model.weight)  # type: ignore[arg-type]
    assert again.opt.get_current_lr() == whole.opt.get_current_lr() != [0.02]


# --- what is refused, or warned of


def sgd() -> torch.optim.SGD:
    return torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)


def test_mode_max_that_follows_the_loss_is_warned_of() -> None:
    opt = sgd()
    with pytest.warns(UserWarning, match="mode='max'.* follows the loss") as seen:
        Optimizer(opt, ReduceLROnPlateau(opt, mode="max"))
    assert "monitor='accuracy'" in str(seen[0].message)
    assert seen[0].filename == __file__


@pytest.mark.parametrize("monitor", ["accuracy", "night/f1"])
def test_mode_min_that_follows_what_more_is_better_of_is_warned_of(monitor: str) -> None:
    opt = sgd()
    with pytest.warns(UserWarning, match=f"mode='min'.* follows {monitor}, of which more"):
        Optimizer(opt, ReduceLROnPlateau(opt), monitor=monitor)


def test_the_usual_plateau_is_not() -> None:
    opt = sgd()
    Optimizer(opt, ReduceLROnPlateau(opt))
    Optimizer(opt, ReduceLROnPlateau(opt, mode="max"), monitor="accuracy")
    Optimizer(opt, ReduceLROnPlateau(opt, mode="max"), monitor="margin")
    Optimizer(opt, ReduceLROnPlateau(opt, mode="min"), monitor="margin")


@pytest.mark.parametrize(
    "make",
    [
        lambda o: StepLR(o, 1),
        lambda o: SequentialLR(o, [ConstantLR(o), ExponentialLR(o, 0.9)], [3]),
        lambda o: ChainedScheduler([ConstantLR(o), ExponentialLR(o, 0.9)], optimizer=o),
    ],
)
def test_a_scheduler_that_takes_no_value_follows_nothing(make: Any) -> None:
    opt = sgd()
    with pytest.raises(ConfigError, match=r"monitor='accuracy', but .*\.step takes no loss"):
        Optimizer(opt, make(opt), monitor="accuracy")


def test_nothing_is_followed_without_a_scheduler_or_on_steps() -> None:
    opt = sgd()
    with pytest.raises(ConfigError, match="there is none"):
        Optimizer(opt, monitor="accuracy")
    with pytest.raises(ConfigError, match="has a value after an epoch"):
        Optimizer(opt, ReduceLROnPlateau(opt), "step", monitor="accuracy")
    with pytest.raises(ConfigError, match="give the name of a metric"):
        Optimizer(opt, ReduceLROnPlateau(opt), monitor="")


class Own:
    """A scheduler of the user's own that needs a value."""

    def __init__(self) -> None:
        self.given: list[float] = []

    def step(self, metric: float) -> None:
        self.given.append(metric)

    def state_dict(self) -> dict[str, Any]:
        return {}


@pytest.mark.parametrize("monitor", [None, "accuracy"])
def test_a_class_of_ones_own_whose_step_needs_a_value_is_given_it(monitor: str | None) -> None:
    model, own = nn.Linear(2, 2), Own()
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    one = Trainer(
        model, F.cross_entropy, Optimizer(opt, own, monitor=monitor), 2, metrics=accuracy,
        show_info=False,
    )  # fmt: skip
    assert own.given == one.fit(DL, DL)["val"][monitor or "loss"]


def test_one_whose_step_needs_the_epoch_is_refused_with_the_way_out() -> None:
    class Timm:
        def step(self, epoch: int, metric: float | None = None) -> None: ...

    with pytest.raises(ConfigError, match=r"scheduler.step\(epoch_idx \+ 1\)"):
        Optimizer(sgd(), Timm())
