"""Metrics in a run: their epoch values do not depend on the batches, their names are in order."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchmetrics
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from deepepochs import Callback, EpochTask, TensorPatch, Trainer, ValuePatch, rename
from deepepochs import metrics as dm
from deepepochs.errors import ConfigTypeError, MetricError

CUTS = {
    "one": [120],
    "equal": [30] * 4,
    "last one small": [32, 32, 32, 24],
    "ragged": [1, 50, 7, 40, 2, 20],
    "singles": [1] * 120,
}


def cut(digits: TensorDataset, sizes: list[int]) -> list[tuple[Tensor, Tensor]]:
    images, labels = digits.tensors
    return list(zip(images[:120].split(sizes), labels[:120].split(sizes), strict=True))


@pytest.fixture(scope="module")
def model(digits: TensorDataset) -> nn.Module:
    """A model that gets most digits right, so that the metrics differ."""
    torch.manual_seed(0)
    model = nn.Linear(64, 10)
    opt = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(15):
        opt.zero_grad()
        F.cross_entropy(model(digits.tensors[0][:100]), digits.tensors[1][:100]).backward()
        opt.step()
    return model


def trainer_of(model: nn.Module, **options: Any) -> Trainer:
    opt = torch.optim.SGD(model.parameters(), lr=0.0)
    return Trainer(model, F.cross_entropy, opt, epochs=1, show_info=False, **options)


def whole(model: nn.Module, digits: TensorDataset) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        return model(digits.tensors[0][:120]), digits.tensors[1][:120]


def error_rate(preds: Tensor, targets: Tensor) -> Tensor:
    return (preds.argmax(1) != targets).double().mean()


def macro_f1(preds: Tensor, targets: Tensor) -> Tensor:
    return dm.f1(preds, targets, average="macro")


def macro_of_matrix(conf_mat: Tensor) -> Tensor:
    return dm.recall(conf_mat=conf_mat, average="macro")


def both(preds: Tensor, targets: Tensor) -> dict[str, Any]:
    return {"p": dm.precision(preds, targets, average="macro"), "of": {"r": 0.5, "n": len(preds)}}


def sklearn_f1(preds: Tensor, targets: Tensor) -> float:
    from sklearn.metrics import f1_score

    return float(f1_score(targets.numpy(), preds.argmax(1).numpy(), average="macro"))


Case = tuple[str, Any, Callable[[Tensor, Tensor], dict[str, Any]]]
CASES: dict[str, Case] = {
    "tensor": ("tensor", macro_f1, lambda p, t: {"macro_f1": sklearn_f1(p, t)}),
    "tensor, dict": ("tensor", both, lambda p, t: {f"both{k}": v for k, v in flat(p, t).items()}),
    "tensor, bare dict": ("tensor", rename("")(lambda p, t: both(p, t)), lambda p, t: flat(p, t)),
    "tensor, prefixed dict": (
        "tensor",
        rename("m.")(lambda p, t: both(p, t)),
        lambda p, t: {f"m.{k}": v for k, v in flat(p, t).items()},
    ),
    "mean": ("mean", error_rate, lambda p, t: {"error_rate": error_rate(p, t)}),
    "confusion": (
        "confusion",
        macro_of_matrix,
        lambda p, t: {"macro_of_matrix": dm.recall(p, t, average="macro")},
    ),
    "class": (TensorPatch, macro_f1, lambda p, t: {"macro_f1": sklearn_f1(p, t)}),
    "torchmetrics object": (
        "mean",  # an object brings its own way
        torchmetrics.F1Score("multiclass", num_classes=10, average="macro"),
        lambda p, t: {"MulticlassF1Score": sklearn_f1(p, t)},
    ),
    "torchmetrics collection": (
        "tensor",
        torchmetrics.MetricCollection(
            {
                "f1": torchmetrics.F1Score("multiclass", num_classes=10, average="macro"),
                "acc": torchmetrics.Accuracy("multiclass", num_classes=10, average="micro"),
            }
        ),
        lambda p, t: {"acc": 1 - error_rate(p, t), "f1": sklearn_f1(p, t)},  # its own order
    ),
    "torchmetrics function": (
        "tensor",
        functools.partial(
            torchmetrics.functional.f1_score, task="multiclass", num_classes=10, average="macro"
        ),
        lambda p, t: {"f1_score": sklearn_f1(p, t)},
    ),
    "partial": (
        "tensor",
        functools.partial(dm.f1, average="macro"),
        lambda p, t: {"f1": sklearn_f1(p, t)},
    ),
    "lambda": (
        "tensor",
        lambda p, t: dm.f1(p, t, average="macro"),
        lambda p, t: {"<lambda>": sklearn_f1(p, t)},
    ),
    "module": ("tensor", nn.CrossEntropyLoss(), lambda p, t: {"CrossEntropyLoss": ce(p, t)}),
}


def flat(preds: Tensor, targets: Tensor) -> dict[str, Any]:
    value = both(preds, targets)
    return {"p": value["p"], "of.r": 0.5, "of.n": len(preds)}


def ce(preds: Tensor, targets: Tensor) -> float:
    return F.cross_entropy(preds, targets).item()


@pytest.mark.parametrize("sizes", CUTS)
@pytest.mark.parametrize("case", CASES)
def test_the_value_of_an_epoch_is_that_of_all_data_however_they_were_cut(
    digits: TensorDataset, model: nn.Module, case: str, sizes: str
) -> None:
    kind, metric, truth = CASES[case]
    wanted = {"loss": ce(*whole(model, digits)), **truth(*whole(model, digits))}
    trainer = trainer_of(model, metric_patch=kind)
    data = cut(digits, CUTS[sizes])
    history = trainer.fit(data, data, metrics=metric)
    tested = trainer.test(data, metrics=metric)
    for stage in ("train", "val"):
        assert list(history[stage]) == list(wanted)
        for name, value in wanted.items():
            assert float(history[stage][name][0]) == pytest.approx(float(value), abs=1e-6), name
    assert {name: float(v) for name, v in tested.items()} == {
        name: pytest.approx(float(value), abs=1e-6) for name, value in wanted.items()
    }
    assert wanted["loss"] > 0 and sklearn_f1(*whole(model, digits)) < 0.999


def test_a_mean_of_a_metric_that_is_no_mean_does_depend_on_the_cut(
    digits: TensorDataset, model: nn.Module
) -> None:
    trainer = trainer_of(model, metric_patch="mean", metrics=macro_f1)
    one, many = (trainer.test(cut(digits, CUTS[cuts])) for cuts in ("one", "ragged"))
    assert abs(float(one["macro_f1"]) - float(many["macro_f1"])) > 1e-3


def test_the_object_of_torchmetrics_that_was_given_is_left_as_it_was(
    digits: TensorDataset, model: nn.Module
) -> None:
    metric = torchmetrics.F1Score("multiclass", num_classes=10)
    trainer = trainer_of(model, metrics=metric)
    first = trainer.test(cut(digits, CUTS["equal"]))
    assert metric.update_count == 0
    assert trainer.test(cut(digits, CUTS["equal"])) == first


# Names.


def named(name: str) -> Any:
    @rename(name)
    def metric(preds: Tensor, targets: Tensor) -> float:
        return 0.5

    return metric


def test_names_come_in_the_order_loss_task_stage_fit_trainer_and_returned(
    digits: TensorDataset, model: nn.Module
) -> None:
    class Returns(EpochTask):
        def step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> Any:
            self.do_metric(None, self.model(*batch_x), batch_y)  # the loss comes after them
            self.loss(self.model(*batch_x), batch_y, do_metric=False)
            return {
                "returned": ValuePatch(len(batch_y)).load(1.0),
                "loss": ValuePatch(len(batch_y)).load(2.0),
            }

    data = cut(digits, CUTS["equal"])
    trainer = trainer_of(model, metrics=[named("trainer")])
    history = trainer.fit(
        train_tasks=Returns(data, metrics=named("task")),
        val_tasks=Returns(data, metrics=[named("own 1"), named("own 2")]),
        metrics=[named("fit 1"), named("fit 2")],
        train_metrics=named("train"),
        val_metrics=[named("val")],
    )
    common = ["fit 1", "fit 2", "trainer", "returned"]
    assert list(history["train"]) == ["loss", "task", "train", *common]
    assert list(history["val"]) == ["loss", "own 1", "own 2", "val", *common]
    tested = trainer.test(tasks=Returns(data, named("task")), metrics=named("test"))
    assert list(tested) == ["loss", "task", "test", "trainer", "returned"]


def test_the_same_function_given_in_several_places_counts_once(
    digits: TensorDataset, model: nn.Module
) -> None:
    metric = named("metric")
    trainer = trainer_of(model, metrics=[metric, metric])
    task = EpochTask(cut(digits, CUTS["equal"]), metrics=metric)
    history = trainer.fit(train_tasks=task, metrics=metric, train_metrics=[metric])
    assert list(history["train"]) == ["loss", "metric"]


@pytest.mark.parametrize(
    "places",
    [
        {"metrics": [named("one"), named("one")]},
        {"metrics": named("one"), "train_metrics": named("one")},
        {"metrics": [lambda p, t: 0, lambda p, t: 1]},
        {"metrics": [functools.partial(dm.f1, average="macro"), dm.f1]},
        {"metrics": [nn.L1Loss(), nn.L1Loss()]},
    ],
    ids=["in one list", "in two lists", "lambdas", "a partial and its function", "modules"],
)
def test_two_metrics_of_one_name_raise_before_the_first_mini_batch(
    digits: TensorDataset, model: nn.Module, places: dict[str, Any]
) -> None:
    class Never(EpochTask):
        def step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> None:
            raise RuntimeError("a mini-batch was met")

    with pytest.raises(MetricError, match=r"named '.*rename"):
        trainer_of(model).fit(train_tasks=Never(cut(digits, CUTS["one"])), **places)


def test_two_metrics_of_one_name_in_different_stages_are_fine(
    digits: TensorDataset, model: nn.Module
) -> None:
    data = cut(digits, CUTS["one"])
    trainer_of(model).fit(data, data, train_metrics=named("one"), val_metrics=named("one"))


def test_several_metrics_renamed_to_nothing_give_their_bare_keys(
    digits: TensorDataset, model: nn.Module
) -> None:
    one = rename("")(lambda p, t: {"a": 1.0})
    two = rename("")(lambda p, t: {"b": 2.0})
    for kind in ("tensor", "mean"):
        trainer = trainer_of(model, metrics=[one, two], metric_patch=kind)
        found = trainer.test(cut(digits, CUTS["ragged"]))
        assert {name: float(value) for name, value in found.items() if name != "loss"} == {
            "a": 1.0,
            "b": 2.0,
        }


def test_two_metrics_whose_dicts_have_a_key_in_common_raise(
    digits: TensorDataset, model: nn.Module
) -> None:
    one, two = (rename("")(lambda p, t, v=value: {"a": v}) for value in (1.0, 2.0))
    with pytest.raises(MetricError, match="'a'"):
        trainer_of(model, metrics=[one, two]).test(cut(digits, CUTS["ragged"]))


@pytest.mark.parametrize("kind", ["tensor", "mean"])
def test_a_metric_named_as_the_loss_raises_and_so_does_one_with_such_a_key(
    digits: TensorDataset, model: nn.Module, kind: str
) -> None:
    for metric in (named("loss"), rename("")(lambda p, t: {"loss": 1.0})):
        with pytest.raises(MetricError, match=r"'loss'.*rename"):
            trainer_of(model, metrics=metric, metric_patch=kind).test(cut(digits, CUTS["equal"]))


@pytest.mark.parametrize(
    ("wrong", "words"), [(3, "For a metric give a function"), ([dm.accuracy, None], "leave it out")]
)
def test_what_cannot_be_called_is_refused_as_a_metric(
    digits: TensorDataset, model: nn.Module, wrong: Any, words: str
) -> None:
    with pytest.raises(ConfigTypeError, match=words):
        trainer_of(model, metrics=wrong)
    with pytest.raises(ConfigTypeError, match=words):
        trainer_of(model).fit(cut(digits, CUTS["one"]), metrics=wrong)


# When they are computed.


class Counting:
    """A metric that counts its calls and the samples it saw."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def __call__(self, preds: Tensor, targets: Tensor) -> float:
        self.sizes.append(len(preds))
        return 0.25


class Reading(Callback):
    """Reads the metrics of some mini-batches, some of them twice."""

    def __init__(self, *which: int) -> None:
        super().__init__()
        self.which = which
        self.values: list[float] = []

    def on_after_train_batch(self, trainer: Any, metrics: Any, batch_idx: int) -> None:
        if batch_idx in self.which:
            self.values.append(float(metrics["Counting"]))
            assert list(metrics) == ["loss", "Counting"] and len(dict(metrics)) == 2


def test_a_metric_is_tried_on_the_first_mini_batch_and_called_for_those_that_are_read(
    digits: TensorDataset, model: nn.Module
) -> None:
    metric, reading = Counting(), Reading(1, 4)

    @rename("Counting")
    def function(preds: Tensor, targets: Tensor) -> float:
        return metric(preds, targets)

    data = cut(digits, CUTS["ragged"])
    trainer_of(model, metrics=function, callbacks=reading).fit(data)
    assert metric.sizes == [len(data[0][0]), 50, 2, 120]
    assert reading.values == [0.25, 0.25]


def test_a_metric_that_counts_its_calls_counts_those_of_the_epochs_alone(
    digits: TensorDataset, model: nn.Module
) -> None:
    metric = Counting()
    trainer_of(model, metrics=metric, callbacks=Reading(1, 4)).fit(cut(digits, CUTS["ragged"]))
    assert metric.sizes == [120]


def test_the_metrics_of_a_mini_batch_are_its_own_even_when_read_later(
    digits: TensorDataset, model: nn.Module
) -> None:
    class Keeping(Callback):
        kept: list[Any] = []  # noqa: RUF012

        def on_after_train_batch(self, trainer: Any, metrics: Any, batch_idx: int) -> None:
            self.kept.append(metrics)

    keeping = Keeping()
    data = cut(digits, CUTS["last one small"])
    trainer_of(model, metrics=[error_rate, macro_f1], callbacks=keeping).fit(data)
    with torch.no_grad():
        outputs = [(model(x), y) for x, y in data]
    for metrics, (out, y) in zip(keeping.kept, outputs, strict=True):
        assert metrics["loss"] == pytest.approx(ce(out, y), abs=1e-7)
        assert metrics["error_rate"] == error_rate(out, y)
        assert metrics["macro_f1"] == macro_f1(out, y)


def test_values_are_floats(digits: TensorDataset, model: nn.Module) -> None:
    trainer = trainer_of(model, metrics=error_rate)
    data = cut(digits, CUTS["equal"])
    history, tested = trainer.fit(data, data), trainer.test(data)
    values = [*tested.values(), *(v for s in history.values() for vs in s.values() for v in vs)]
    assert all(type(value) is float for value in values)


def test_metrics_get_detached_outputs_and_run_without_gradients(
    digits: TensorDataset, model: nn.Module
) -> None:
    def look(preds: Tensor, targets: Tensor) -> float:
        assert not preds.requires_grad and not torch.is_grad_enabled()
        return 0.0

    for kind in ("tensor", "mean"):
        trainer_of(model, metrics=look, metric_patch=kind).fit(cut(digits, CUTS["equal"]))


@pytest.mark.filterwarnings("ignore:batch_size=7 was given")
@pytest.mark.parametrize("weight", [None, 7, lambda batch_x, batch_y: len(batch_x) ** 2])
def test_the_weight_of_a_mini_batch_in_means_is_the_one_asked_for(
    digits: TensorDataset, model: nn.Module, weight: Any
) -> None:
    data = cut(digits, CUTS["ragged"])
    found = trainer_of(model, metrics=error_rate, metric_patch="mean").test(data, batch_size=weight)
    with torch.no_grad():
        outputs = [(model(x), y) for x, y in data]
    weights = [weight(y, y) if callable(weight) else (weight or len(y)) for _, y in outputs]
    total = sum(weights)
    loss = sum(w * ce(*pair) for w, pair in zip(weights, outputs, strict=True)) / total
    rate = sum(w * error_rate(*pair) for w, pair in zip(weights, outputs, strict=True)) / total
    assert float(found["loss"]) == pytest.approx(loss, abs=1e-6)
    assert float(found["error_rate"]) == pytest.approx(float(rate), abs=1e-6)


class ModelOutput(dict[str, Any]):
    """Entries that are attributes too, as in the outputs of Hugging Face."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class Classifier(nn.Module):
    """Gives a dict with scores, and something else before them."""

    def __init__(self, kind: Any = dict, key: str = "logits") -> None:
        super().__init__()
        self.layer, self.kind, self.key = nn.Linear(4, 3), kind, key

    def forward(self, x: Any) -> Any:
        return self.kind({self.key: self.layer(x), "hidden": x})


def of_dicts(metrics: Any, model: nn.Module, **options: Any) -> Any:
    inputs = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    data = DataLoader(TensorDataset(inputs, torch.arange(20) % 3), batch_size=8)
    loss = lambda out, y: F.cross_entropy(next(iter(out.values())), y)  # noqa: E731
    trainer = Trainer(model, loss, None, metrics=metrics, show_info=False, **options)
    return trainer.test(data), model.layer(inputs), torch.arange(20) % 3  # type: ignore[operator]


@pytest.mark.parametrize("kind", [dict, ModelOutput])
@pytest.mark.parametrize("way", ["auto", "tensor", "mean", "confusion"])
def test_the_librarys_metrics_take_the_logits_of_a_dict(kind: Any, way: str) -> None:
    result, scores, targets = of_dicts(["accuracy", "macro_f1"], Classifier(kind), metric_patch=way)
    assert result["accuracy"] == pytest.approx(float(dm.accuracy(scores, targets)))
    if way != "mean":
        assert result["macro_f1"] == float(dm.f1(scores, targets, average="macro"))


@pytest.mark.parametrize("way", ["tensor", "mean"])
def test_a_metric_takes_an_attribute_of_the_outputs_as_the_loss_does(way: str) -> None:
    def error(out: Any, targets: Any) -> Any:
        return (out.logits.argmax(1) != targets).double().mean()

    result, scores, targets = of_dicts(error, Classifier(ModelOutput), metric_patch=way)
    assert result["error"] == pytest.approx(float((scores.argmax(1) != targets).double().mean()))


def test_a_dict_without_logits_is_told_which_entry_to_take() -> None:
    with pytest.raises(MetricError, match=r"\(lambda out, y: accuracy\(out\['scores'\], y\)\)"):
        of_dicts("accuracy", Classifier(key="scores"))
