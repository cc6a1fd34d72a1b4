"""Several tasks in a stage, and several optimizers, each with its own schedule."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau, StepLR
from torch.utils.data import DataLoader, Subset, TensorDataset

from deepepochs import EpochTask, LinearCosineScheduler, Optimizer, Trainer, ValuePatch
from deepepochs import metrics as dm
from deepepochs.errors import ConfigError, MetricError, PatchError


def macro_recall(preds: Tensor, targets: Tensor) -> Tensor:
    return dm.recall(preds, targets, average="macro")


def make_model() -> nn.Module:
    torch.manual_seed(2)
    return nn.Sequential(nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 10)).double()


def loader_of(digits: TensorDataset, first: int, num: int, size: int = 16) -> DataLoader[Any]:
    images, labels = digits.tensors
    doubles = TensorDataset(images.double(), labels)
    return DataLoader(Subset(doubles, range(first, first + num)), batch_size=size)


def make_trainer(opt: Any = None, **options: Any) -> Trainer:
    options = {"epochs": 1, "show_info": False, **options}
    return Trainer(make_model(), F.cross_entropy, opt, **options)


def truth(model: nn.Module, *loaders: DataLoader[Any]) -> dict[str, float]:
    """Loss and macro recall of all samples of the loaders at once."""
    pairs = [pair for loader in loaders for pair in loader]
    x, y = torch.cat([x for x, _ in pairs]), torch.cat([y for _, y in pairs])
    with torch.no_grad():
        out = model(x)
    return {
        "loss": F.cross_entropy(out, y).item(),
        "macro_recall": macro_recall(out, y).item(),
    }


# Tasks.


def test_pooled_and_own_values_are_those_of_the_joined_and_of_the_own_data(
    digits: TensorDataset,
) -> None:
    day, night = loader_of(digits, 0, 50), loader_of(digits, 100, 23, size=7)
    trainer = make_trainer(epochs=3)
    trainer.opt[0].opt.param_groups[0]["lr"] = 0.01
    trainer.fit(loader_of(digits, 200, 200))
    found = trainer.test(
        tasks=[EpochTask(day, macro_recall, name="day"), EpochTask(night, macro_recall)]
    )
    wanted = truth(trainer.model, day, night)
    wanted |= {f"day/{name}": value for name, value in truth(trainer.model, day).items()}
    wanted |= {f"1/{name}": value for name, value in truth(trainer.model, night).items()}
    assert list(found) == list(wanted)
    for name, value in wanted.items():
        assert float(found[name]) == pytest.approx(value, abs=1e-12), name
    mean = (found["day/macro_recall"] + found["1/macro_recall"]) / 2
    assert abs(float(mean) - wanted["macro_recall"]) > 1e-3  # pooling is not averaging


def test_a_loader_comes_before_the_tasks_and_has_the_index_0(digits: TensorDataset) -> None:
    first, second = loader_of(digits, 0, 20), loader_of(digits, 30, 30)
    trainer = make_trainer()
    found = trainer.test(first, tasks=EpochTask(second))
    assert list(found) == ["loss", "0/loss", "1/loss"]
    assert float(found["0/loss"]) == pytest.approx(truth(trainer.model, first)["loss"])


def test_one_task_has_plain_names_even_if_it_has_a_name(digits: TensorDataset) -> None:
    task = EpochTask(loader_of(digits, 0, 20), name="day")
    assert list(make_trainer().test(tasks=task)) == ["loss"]


def test_several_tasks_in_training_and_validation_are_in_the_history_with_their_names(
    digits: TensorDataset,
) -> None:
    trainer = make_trainer(epochs=2)
    history = trainer.fit(
        train_tasks=[EpochTask(loader_of(digits, 0, 20)), EpochTask(loader_of(digits, 20, 9))],
        val_dl=loader_of(digits, 40, 20),
        val_tasks=EpochTask(loader_of(digits, 60, 11), name="far"),
        metrics=macro_recall,
    )
    assert list(history["train"]) == [
        "loss", "macro_recall", "0/loss", "0/macro_recall", "1/loss", "1/macro_recall",
    ]  # fmt: skip
    assert list(history["val"]) == [
        "loss", "macro_recall", "0/loss", "0/macro_recall", "far/loss", "far/macro_recall",
    ]  # fmt: skip
    assert all(len(values) == 2 for stage in history.values() for values in stage.values())
    wanted = truth(trainer.model, loader_of(digits, 40, 20), loader_of(digits, 60, 11))
    assert float(history["val"]["loss"][-1]) == pytest.approx(wanted["loss"], abs=1e-12)


def test_a_value_that_only_one_task_has_is_pooled_over_that_task(digits: TensorDataset) -> None:
    class Own(EpochTask):
        def step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> Any:
            self.loss(self.model(*batch_x), batch_y)
            return {"own": ValuePatch(len(batch_y)).load(3.0)}

    loader = loader_of(digits, 0, 20)
    found = make_trainer().test(tasks=[EpochTask(loader, do_loss=False), Own(loader)])
    assert list(found) == ["loss", "own", "1/loss", "1/own"]
    assert found["own"] == 3.0


def test_one_task_may_be_used_in_all_stages_and_twice_in_one(digits: TensorDataset) -> None:
    stages: list[str] = []

    class Telling(EpochTask):
        def step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> None:
            assert self.stage is not None
            stages.append(self.stage.value)
            self.loss(self.model(*batch_x), batch_y)

    task = Telling(loader_of(digits, 0, 32), macro_recall)
    trainer = make_trainer()
    trainer.fit(train_tasks=task, val_tasks=task)
    once = trainer.test(tasks=task)
    twice = trainer.test(tasks=[task, task])
    assert stages == ["train"] * 2 + ["val"] * 2 + ["test"] * 6
    assert float(twice["macro_recall"]) == pytest.approx(float(once["macro_recall"]), abs=1e-12)
    assert twice["0/loss"] == twice["1/loss"] == once["loss"]
    other = make_trainer()
    other.test(tasks=task)
    assert task.trainer is other


def test_two_tasks_of_one_name_raise(digits: TensorDataset) -> None:
    tasks = [EpochTask(loader_of(digits, 0, 9), name="day") for _ in range(2)]
    with pytest.raises(ConfigError, match="'day'"):
        make_trainer().test(tasks=tasks)
    with pytest.raises(ConfigError, match="'1'"):  # a name that is another's index
        make_trainer().test(tasks=[EpochTask(tasks[0].dataloader, name="1"), EpochTask([1])])


def test_patches_of_two_classes_under_one_name_raise_and_name_the_task(
    digits: TensorDataset,
) -> None:
    class Other(ValuePatch):
        pass

    class Own(EpochTask):
        def step(self, batch_x: Any, batch_y: Any, *, kind: Any) -> Any:
            return {"own": kind(1).load(1.0)}

    loader = loader_of(digits, 0, 9)
    tasks = [Own(loader, kind=ValuePatch), Own(loader, kind=Other, name="other")]
    with pytest.raises(PatchError, match="one kind of patch") as caught:
        make_trainer().test(tasks=tasks)
    notes = "\n".join([str(caught.value), *getattr(caught.value, "__notes__", [])])
    assert "'own'" in notes and "'other'" in notes


def test_training_passes_follow_each_other_as_if_one_loader_had_their_batches(
    digits: TensorDataset,
) -> None:
    def run(*loaders: Any) -> tuple[list[float], list[float]]:
        model = make_model()
        opt = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        trainer = Trainer(model, F.cross_entropy, opt, epochs=2, show_info=False)
        history = trainer.fit(train_tasks=[EpochTask(loader) for loader in loaders])
        values = [value for p in model.parameters() for value in p.flatten().tolist()]
        return values, [float(value) for value in history["train"]["loss"]]

    one, two = list(loader_of(digits, 0, 40)), list(loader_of(digits, 50, 21))
    assert run(one, two)[0] == run([*one, *two])[0]
    assert run(one, two)[1] == pytest.approx(run([*one, *two])[1], abs=1e-12)


# Optimizers.


def halves(model: Any) -> list[torch.optim.Optimizer]:
    return [torch.optim.SGD(model[i].parameters(), lr=1.0) for i in (0, 2)]


def test_each_optimizer_has_its_own_schedule_on_step_epoch_and_metric(
    digits: TensorDataset,
) -> None:
    model = make_model()
    groups: Any = [model[0].weight], [model[0].bias], [model[2].weight, model[2].bias]  # type: ignore[index]
    sgd, adam, last = (torch.optim.SGD(group, lr=1e-3) for group in groups)
    plateau = ReduceLROnPlateau(last, factor=0.1, patience=0, threshold=10.0)
    opts = [
        Optimizer(sgd, LinearCosineScheduler(sgd, 1.0, 0, 8), "step"),
        Optimizer(adam, StepLR(adam, 1, gamma=0.5), "epoch"),
        Optimizer(last, plateau),
    ]
    trainer = Trainer(model, F.cross_entropy, opts, epochs=3, show_info=False)
    trainer.fit(loader_of(digits, 0, 32), loader_of(digits, 40, 8))
    assert trainer.opt.get_current_lr() == [
        pytest.approx(opts[0].scheduler.lr_at(6)),
        pytest.approx(1e-3 * 0.5**3),
        pytest.approx(1e-6),  # no loss is better by that threshold
    ]


def test_one_optimizer_alone_steps_by_its_index_and_keeps_the_gradients_of_the_other(
    digits: TensorDataset,
) -> None:
    kept: list[bool] = []

    class First(EpochTask):
        def train_step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> None:
            model: Any = self.model
            self.loss(self.model(*batch_x), batch_y, do_optimize=False)
            self.optimize(0)
            kept.append(model[2].weight.grad is not None and model[0].weight.grad is None)

    model: Any = make_model()
    before = model[0].weight.tolist(), model[2].weight.tolist()
    trainer = Trainer(model, F.cross_entropy, halves(model), epochs=1, show_info=False)
    trainer.fit(train_tasks=First(loader_of(digits, 0, 32)))
    assert kept == [True, True]
    assert model[0].weight.tolist() != before[0] and model[2].weight.tolist() == before[1]


class Recording(ReduceLROnPlateau):
    """A plateau schedule that keeps what it was fed."""

    def __init__(self, opt: torch.optim.Optimizer) -> None:
        self.fed: list[float] = []
        super().__init__(opt, patience=1000)

    def step(self, metrics: Any, epoch: Any = None) -> None:
        self.fed.append(float(metrics))
        super().step(metrics)


@pytest.mark.parametrize("val_freq", [1, 2, 3])
def test_a_plateau_schedule_is_fed_every_validation_loss_and_no_training_loss(
    digits: TensorDataset, val_freq: int
) -> None:
    model = make_model()
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    schedule = Recording(opt)
    trainer = Trainer(model, F.cross_entropy, Optimizer(opt, schedule), epochs=6, show_info=False)
    history = trainer.fit(loader_of(digits, 0, 32), loader_of(digits, 40, 20), val_freq=val_freq)
    assert schedule.fed == [float(value) for value in history["val"]["loss"]]
    assert len(schedule.fed) == 6 // val_freq


@pytest.mark.parametrize("validation", ["none", "without loss"])
def test_without_a_validation_loss_a_plateau_schedule_is_fed_every_training_loss(
    digits: TensorDataset, validation: str
) -> None:
    model = make_model()
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    schedule = Recording(opt)
    trainer = Trainer(model, F.cross_entropy, Optimizer(opt, schedule), epochs=4, show_info=False)
    val_dl = None if validation == "none" else loader_of(digits, 40, 20)
    history = trainer.fit(
        loader_of(digits, 0, 32), val_dl, do_val_loss=False, val_freq=2, metrics=macro_recall
    )
    assert schedule.fed == [float(value) for value in history["train"]["loss"]]


def test_with_several_validation_tasks_a_plateau_schedule_is_fed_the_pooled_loss(
    digits: TensorDataset,
) -> None:
    model = make_model()
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    schedule = Recording(opt)
    trainer = Trainer(model, F.cross_entropy, Optimizer(opt, schedule), epochs=2, show_info=False)
    tasks = [
        EpochTask(loader_of(digits, 40, 20), macro_recall, do_loss=False),
        EpochTask(loader_of(digits, 60, 20)),
        EpochTask(loader_of(digits, 80, 5)),
    ]
    history = trainer.fit(loader_of(digits, 0, 32), val_tasks=tasks)
    assert schedule.fed == [float(value) for value in history["val"]["loss"]]


def test_a_plateau_schedule_on_step_is_fed_the_loss_of_each_step(digits: TensorDataset) -> None:
    losses: list[float] = []

    class Noting(EpochTask):
        def train_step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> None:
            value = self.loss(self.model(*batch_x), batch_y)
            assert value is not None
            losses.append(value.item())

    model = make_model()
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    schedule = Recording(opt)
    trainer = Trainer(
        model, F.cross_entropy, Optimizer(opt, schedule, "step"), epochs=2, show_info=False
    )
    trainer.fit(train_tasks=Noting(loader_of(digits, 0, 40)))
    assert schedule.fed == losses and len(losses) == 6


def test_a_plateau_schedule_whose_validation_records_no_loss_raises_a_sentence(
    digits: TensorDataset,
) -> None:
    class Silent(EpochTask):
        def val_step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> None:
            self.do_metric(None, self.model(*batch_x), batch_y)

    model = make_model()
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    trainer = Trainer(
        model, F.cross_entropy, Optimizer(opt, ReduceLROnPlateau(opt)), epochs=1, show_info=False
    )
    with pytest.raises(MetricError, match=r"optimizer 0 wants a loss.*do_loss=False"):
        trainer.fit(
            loader_of(digits, 0, 32),
            val_tasks=Silent(loader_of(digits, 0, 9)),
            metrics=macro_recall,
        )


def test_a_schedule_on_epoch_moves_once_an_epoch_whatever_the_tasks_and_val_freq(
    digits: TensorDataset,
) -> None:
    model = make_model()
    opt = torch.optim.SGD(model.parameters(), lr=1.0)
    schedule = LambdaLR(opt, lambda epoch: 0.5**epoch)
    trainer = Trainer(model, F.cross_entropy, Optimizer(opt, schedule), epochs=3, show_info=False)
    loader = loader_of(digits, 0, 20)
    trainer.fit(train_tasks=[EpochTask(loader), EpochTask(loader)], val_dl=loader, val_freq=2)
    assert opt.param_groups[0]["lr"] == 0.5**3
