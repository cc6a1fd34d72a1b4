"""The metric that CheckCallback monitors: its direction is known, and its absence is told early."""

from __future__ import annotations

import functools
import warnings
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
    ConfigError,
    EpochTask,
    Trainer,
    ValuePatch,
    rename,
)
from deepepochs.metrics import accuracy, f1
from deepepochs.metrics.direction import direction_of
from deepepochs.patches import TensorPatch

generator = torch.Generator().manual_seed(4)
LOADER = [
    (torch.randn(8, 4, generator=generator), torch.randint(2, (8,), generator=generator))
    for _ in range(3)
]


class Counts(Callback):
    """Counts the mini-batches of each stage."""

    def __init__(self) -> None:
        super().__init__()
        self.train = self.val = 0

    def on_after_train_batch(self, **others: Any) -> None:
        self.train += 1

    def on_after_val_batch(self, **others: Any) -> None:
        self.val += 1


class Made:
    """A trainer with a CheckCallback and a count of its mini-batches."""

    def __init__(
        self, folder: Path, monitor: str, cls: type[Trainer] = Trainer, **options: Any
    ) -> None:
        self.counts = Counts()
        check = options.pop("check", {})
        self.check = CheckCallback(monitor, ckpt_dir=folder, **check)
        torch.manual_seed(0)
        model = nn.Linear(4, 2)
        opt = torch.optim.SGD(model.parameters(), 0.1)
        options = {"epochs": 2, "show_info": False, "running_id": "r", **options}
        self.trainer = cls(
            model, F.cross_entropy, opt, callbacks=[self.counts, self.check], **options
        )

    @property
    def batches(self) -> tuple[int, int]:
        return self.counts.train, self.counts.val


def score(preds: Any, targets: Any) -> float:
    return float((preds.argmax(1) == targets).float().mean())


def two_numbers(preds: Any, targets: Any) -> dict[str, float]:
    right = score(preds, targets)
    return {".right": right, ".wrong": 1 - right}


def each_class(preds: Any, targets: Any) -> torch.Tensor:
    return torch.bincount(preds.argmax(1), minlength=2).float()


# --- the direction


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("loss", "min"), ("val_loss", "min"), ("night/loss", "min"), ("error", "min"),
        ("top5_error", "min"), ("RMSE", "min"), ("MyLoss", "min"), ("perplexity", "min"),
        ("accuracy", "max"), ("acc", "max"), ("tm_acc", "max"), ("top5_accuracy", "max"),
        ("night/accuracy", "max"), ("error/accuracy", "max"), ("report.macro f1", "max"),
        ("BinaryF1Score", "max"), ("AUROC", "max"), ("mIoU", "max"), ("R2", "max"),
        ("score", None), ("m", None), ("accuracy_loss", None), ("neg_mse", None), ("lossy", None),
    ],
)  # fmt: skip
def test_a_name_says_the_direction_or_nothing(name: str, expected: str | None) -> None:
    assert direction_of(name) == expected


def test_what_a_metric_declares_comes_before_its_name() -> None:
    class Declared:
        direction = "min"

        def __call__(self, preds: Any, targets: Any) -> float:
            return 0.0

    assert direction_of("accuracy", Declared()) == "min"
    assert direction_of("accuracy", functools.partial(Declared())) == "min"
    wrong = Declared()
    wrong.direction = "down"
    with pytest.raises(ConfigError, match="direction='down': give 'max' or 'min'"):
        direction_of("accuracy", wrong)


def test_a_renamed_metric_is_known_by_the_name_it_was_defined_by() -> None:
    @rename("mine")
    def my_accuracy(preds: Any, targets: Any) -> float:
        return 0.0

    assert direction_of("mine", my_accuracy) == "max"
    assert direction_of("mine", functools.partial(f1, average="macro")) == "max"


def test_torchmetrics_objects_declare_it() -> None:
    import torchmetrics

    accuracy_of_two = torchmetrics.classification.BinaryAccuracy()
    assert direction_of("mine", accuracy_of_two) == "max"
    assert direction_of("mine", torchmetrics.MeanSquaredError()) == "min"


@pytest.mark.parametrize("metric", [accuracy, f1], ids=["accuracy", "f1"])
def test_the_best_of_a_score_is_the_largest(metric: Any, tmp_path: Path) -> None:
    made = Made(tmp_path, metric.__name__, metrics=metric, epochs=5)
    history = made.trainer.fit(LOADER, LOADER)
    values = [float(value) for value in history["val"][metric.__name__]]
    assert made.check.best_values == [max(values)] and max(values) > min(values)


def test_the_metric_of_a_collection_says_its_direction(tmp_path: Path) -> None:
    import torchmetrics

    collection = torchmetrics.MetricCollection(
        {"kappa": torchmetrics.CohenKappa("multiclass", num_classes=2)}
    )
    kinds = {
        "q": torchmetrics.classification.MulticlassAccuracy(2),
        "z": torchmetrics.classification.MulticlassHammingDistance(2),
    }
    other = torchmetrics.MetricCollection(kinds)
    for name, metrics, mode in (
        ("kappa", collection, "max"),
        ("q", other, "max"),
        ("z", other, "min"),
    ):
        made = Made(tmp_path / name, name, metrics=metrics)
        made.trainer.fit(LOADER, LOADER)
        assert made.check.watch.mode == mode


def test_a_metric_of_unknown_direction_is_refused_before_the_first_mini_batch(
    tmp_path: Path,
) -> None:
    made = Made(tmp_path, "score", metrics=score)
    with pytest.raises(ConfigError, match=r"CheckCallback\('score', mode='max'\) or mode='min'"):
        made.trainer.fit(LOADER, LOADER)
    assert made.batches == (0, 0) and not list(tmp_path.iterdir())
    again = Made(tmp_path, "score", metrics=score, check={"mode": "max"})
    again.trainer.fit(LOADER, LOADER)
    assert again.check.watch.mode == "max"


def test_of_a_value_of_a_step_it_is_asked_for_by_a_warning(tmp_path: Path) -> None:
    class Own(Trainer):
        def val_step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> Any:
            return {"m": ValuePatch(1).load(1.0)}

    made = Made(tmp_path, "m", Own)
    with pytest.warns(
        UserWarning, match="Give .*mode='max'.* or mode='min'.*taken as 'min'"
    ) as met:
        made.trainer.fit(LOADER, LOADER)
        made.trainer.fit(LOADER, LOADER, epochs=1)
    assert len(met) == 1


def test_a_direction_against_the_metric_s_is_told(tmp_path: Path) -> None:
    made = Made(tmp_path, "loss", check={"mode": "max"})
    with pytest.warns(UserWarning, match="a lower loss is better") as met:
        made.trainer.fit(LOADER, LOADER)
        made.trainer.fit(LOADER, LOADER, epochs=1)
    assert len(met) == 1
    assert made.check.watch.mode == "max"


# --- a monitor that nobody records


class OwnStep(Trainer):
    """Records `mark` in all stages."""

    def step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> Any:
        super().step(batch_x, batch_y)
        return {"mark": ValuePatch(1).load(1.0)}


class OwnValidation(Trainer):
    def val_step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> Any:
        return {"mark": ValuePatch(1).load(1.0)}


ABSENT: dict[str, tuple[str, dict[str, Any], dict[str, Any], str]] = {
    "a stage in the name": (
        "val_loss", {}, {}, r"it has loss\..*CheckCallback\('loss', on_stage='val'\)"
    ),
    "a stage behind it": (
        "accuracy/train", {"metrics": accuracy}, {}, r"\('accuracy', on_stage='train'\)"
    ),
    "short for it": ("acc", {"metrics": accuracy}, {}, "it has loss, accuracy. Did you mean 'accuracy'"),
    "misspelt": ("acuracy", {"metrics": accuracy}, {}, "Did you mean 'accuracy'"),
    "longer": ("accuracy_macro", {"metrics": accuracy}, {}, "Did you mean 'accuracy'"),
    "of training alone": (
        "accuracy", {}, {"train_metrics": accuracy}, "The train stage has it: give on_stage='train'"
    ),
    "no loss": ("loss", {"metrics": accuracy}, {"do_val_loss": False}, "it has accuracy"),
    "with a task": ("0/accuracy", {"metrics": accuracy}, {}, "the name is 'accuracy'"),
    "nowhere": ("f1", {}, {}, "Give the metric to fit"),
    "a dict": (
        "two_numbers", {"metrics": two_numbers}, {}, r"it has loss, two_numbers\.right"
    ),
    "a vector": ("each_class", {"metrics": each_class}, {}, "has 2 entries"),
}  # fmt: skip


@pytest.mark.parametrize("case", ABSENT)
def test_it_is_told_by_the_first_mini_batch_with_what_there_is(case: str, tmp_path: Path) -> None:
    monitor, options, of_fit, sentence = ABSENT[case]
    check = {"mode": "min"}
    made = Made(tmp_path, monitor, check=check, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this is the worst direction
        with pytest.raises(CallbackException, match=sentence):
            made.trainer.fit(LOADER, LOADER, **of_fit)
    assert made.batches in ((0, 0), (1, 0))


def test_without_validation_it_is_told_at_once(tmp_path: Path) -> None:
    made = Made(tmp_path, "loss")
    with pytest.raises(
        CallbackException, match=r"does not validate.*CheckCallback\('loss', on_stage='train'\)"
    ):
        made.trainer.fit(LOADER)
    assert made.batches == (0, 0)
    assert len(made.trainer.fit(LOADER, LOADER)["val"]["loss"]) == 2  # nothing was changed


def test_with_a_validation_that_never_comes_it_is_told_at_once(tmp_path: Path) -> None:
    made = Made(tmp_path, "loss")
    with (
        pytest.warns(UserWarning, match="never validates"),
        pytest.raises(CallbackException, match="val_freq=3 none of the 2 epochs validates"),
    ):
        made.trainer.fit(LOADER, LOADER, val_freq=3)
    assert made.batches == (0, 0)


def test_a_later_fit_need_not_validate(tmp_path: Path) -> None:
    made = Made(tmp_path, "loss")
    made.trainer.fit(LOADER, LOADER, val_freq=2)
    with pytest.warns(UserWarning, match="never validates"):
        made.trainer.fit(LOADER, LOADER, val_freq=2, epochs=1)
    assert len(made.check.best_values) == 1


def test_a_step_of_training_is_looked_at_in_its_first_mini_batch(tmp_path: Path) -> None:
    made = Made(tmp_path, "marks", OwnStep, check={"on_stage": "train", "mode": "min"})
    with pytest.raises(CallbackException, match=r"it has loss, mark\. Did you mean 'mark'"):
        made.trainer.fit(LOADER)
    assert made.batches == (1, 0)


def test_a_step_of_validation_is_looked_at_in_its_first_mini_batch(tmp_path: Path) -> None:
    made = Made(tmp_path, "marks", OwnValidation, check={"mode": "min"})
    with pytest.raises(CallbackException, match=r"it has mark\. Did you mean 'mark'"):
        made.trainer.fit(LOADER, LOADER)
    assert made.batches == (3, 1)


def test_a_step_of_both_stages_warns_in_training(tmp_path: Path) -> None:
    made = Made(tmp_path, "marks", OwnStep, check={"mode": "min"})
    with (
        pytest.warns(UserWarning, match="'marks', which train does not have.*the same step"),
        pytest.raises(CallbackException, match="which val does not have"),
    ):
        made.trainer.fit(LOADER, LOADER)


@pytest.mark.parametrize("cls", [OwnStep, OwnValidation])
def test_a_value_that_is_there_is_found_without_a_word(cls: type[Trainer], tmp_path: Path) -> None:
    made = Made(tmp_path, "mark", cls, check={"mode": "min"})
    made.trainer.fit(LOADER, LOADER)
    assert made.check.best_values == [1.0]


def test_an_entry_of_a_dict_is_found(tmp_path: Path) -> None:
    made = Made(tmp_path, "two_numbers.wrong", metrics=two_numbers, check={"mode": "min"})
    history = made.trainer.fit(LOADER, LOADER)
    values = history["val"]["two_numbers.wrong"]
    assert made.check.best_values == [min(map(float, values))]


def test_an_entry_of_a_dict_that_is_not_there_warns_early(tmp_path: Path) -> None:
    made = Made(tmp_path, "two_numbers.both", metrics=two_numbers, check={"mode": "min"})
    with (
        pytest.warns(UserWarning, match=r"it has loss, two_numbers\.right.*later mini-batch"),
        pytest.raises(CallbackException, match=r"two_numbers\.both"),
    ):
        made.trainer.fit(LOADER, LOADER)


def test_a_key_that_comes_with_a_later_mini_batch_is_waited_for(tmp_path: Path) -> None:
    def by_size(preds: Any, targets: Any) -> dict[str, float]:
        return {".all": 1.0, **({".many": 2.0} if len(preds) > 8 else {})}

    made = Made(tmp_path, "by_size.many", metrics=by_size, check={"mode": "min"})
    with pytest.warns(UserWarning, match="later mini-batch"):
        made.trainer.fit(LOADER, LOADER)
    assert made.check.best_values == [2.0]


def test_a_callback_of_the_user_may_record_it(tmp_path: Path) -> None:
    class Adds(Callback):
        def on_val_metrics(self, task: Any, model_out: Any, **others: Any) -> None:
            task.batch_patch_dict["spread"] = ValuePatch(1).load(model_out.std())

    made = Made(tmp_path, "spread", check={"mode": "min"})
    made.trainer.callbacks.append(Adds())
    made.trainer.fit(LOADER, LOADER)
    assert len(made.check.best_values) == 1


@pytest.mark.parametrize("monitor", ["loss", "accuracy", "night/loss", "night/accuracy", "1/loss"])
def test_of_several_tasks_the_pooled_value_or_one_of_them_is_monitored(
    monitor: str, tmp_path: Path
) -> None:
    tasks = [EpochTask(LOADER[:1], accuracy, name="night"), EpochTask(LOADER)]
    made = Made(tmp_path, monitor)
    history = made.trainer.fit(LOADER, val_tasks=tasks)
    values = [float(value) for value in history["val"][monitor]]
    best = max(values) if "acc" in monitor else min(values)
    assert made.check.best_values == [best]


@pytest.mark.parametrize("monitor", ["day/loss", "1/accuracy", "night/acc"])
def test_a_task_that_does_not_record_it_is_told(monitor: str, tmp_path: Path) -> None:
    tasks = [EpochTask(LOADER[:1], accuracy, name="night"), EpochTask(LOADER)]
    made = Made(tmp_path, monitor)
    with pytest.raises(
        CallbackException, match="it has loss, accuracy, night/loss, night/accuracy"
    ):
        made.trainer.fit(LOADER, val_tasks=tasks)
    assert made.batches == (0, 0)


def test_a_value_of_the_second_task_alone_is_waited_for(tmp_path: Path) -> None:
    class Second(EpochTask):
        def val_step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> Any:
            out = self.model(*batch_x)
            return {"accuracy": TensorPatch(accuracy).load(out, batch_y)}

    made = Made(tmp_path, "accuracy")
    made.trainer.fit(LOADER, val_tasks=[EpochTask(LOADER), Second(LOADER)])
    assert len(made.check.best_values) == 1
    wrong = Made(tmp_path, "f1")
    with pytest.raises(CallbackException, match="it has loss, 0/loss, accuracy, 1/accuracy"):
        wrong.trainer.fit(LOADER, val_tasks=[EpochTask(LOADER), Second(LOADER)])
    assert wrong.batches[1] == 4  # the first mini-batch of the second task


def test_looking_draws_no_random_number(tmp_path: Path) -> None:
    def noisy(preds: Any, targets: Any) -> float:
        return float(torch.rand(()))

    def weights(*callbacks: Callback) -> list[torch.Tensor]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Linear(4, 2))
        trainer = Trainer(
            model, F.cross_entropy, torch.optim.SGD(model.parameters(), 0.1), epochs=1,
            metrics=noisy, callbacks=list(callbacks), show_info=False,
        )  # fmt: skip
        trainer.fit(LOADER, LOADER)
        return [weight.clone() for weight in model.parameters()]

    plain = weights()
    found = weights(CheckCallback("noisy", mode="min", ckpt_dir=tmp_path))
    assert all(map(torch.equal, plain, found))


def test_a_planned_metric_that_the_step_does_not_compute_is_told_in_its_first_mini_batch(
    tmp_path: Path,
) -> None:
    made = Made(tmp_path, "accuracy", OwnValidation, metrics=accuracy)
    with pytest.raises(CallbackException, match="'accuracy', which val does not have; it has mark"):
        made.trainer.fit(LOADER, LOADER)
    assert made.batches == (3, 1)


def test_a_name_that_begins_as_another_metric_s_is_its_own(tmp_path: Path) -> None:
    @rename("acc")
    def of_second_task(preds: Any, targets: Any) -> float:
        return score(preds, targets)

    tasks = [EpochTask(LOADER, accuracy), EpochTask(LOADER, of_second_task)]
    made = Made(tmp_path, "acc")
    made.trainer.fit(LOADER, val_tasks=tasks)
    assert len(made.check.best_values) == 1


def test_training_tasks_with_other_metrics_do_not_decide_on_validation(tmp_path: Path) -> None:
    made = Made(tmp_path, "f1")
    tasks = [EpochTask(LOADER), EpochTask(LOADER, f1)]
    made.trainer.fit(train_tasks=tasks, val_dl=LOADER, val_metrics=f1)
    assert len(made.check.best_values) == 1
