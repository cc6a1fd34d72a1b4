"""Names of metrics, the spreading of their values, and which patch a metric gets."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import BinaryAccuracy

from deepepochs.errors import ConfigError, ConfigTypeError, MetricError
from deepepochs.metrics import accuracy, f1
from deepepochs.patches import (
    ConfusionMetrics,
    ConfusionPatch,
    MeanPatch,
    MetricPatch,
    PatchBase,
    TensorPatch,
    ValuePatch,
    flatten_value,
    make_patch,
    metric_name,
)


class Callable:
    def __call__(self, outputs: Tensor, targets: Tensor) -> float:
        return 0.5

    def score(self, outputs: Tensor, targets: Tensor) -> float:
        return 0.5


def renamed(metric: Any, name: str) -> Any:
    metric.__name__ = name
    return metric


@pytest.mark.parametrize(
    ("metric", "name"),
    [
        (accuracy, "accuracy"),
        (functools.partial(functools.partial(f1, average="macro"), beta=1), "f1"),
        (renamed(functools.partial(f1, average="macro"), "f1_macro"), "f1_macro"),
        (lambda outputs, targets: 0, "<lambda>"),
        (Callable(), "Callable"),
        (Callable().score, "score"),
        (renamed(Callable(), ""), ""),
        (torch.nn.CrossEntropyLoss(), "CrossEntropyLoss"),
        (BinaryAccuracy(), "BinaryAccuracy"),
        (MetricCollection([BinaryAccuracy()]), ""),
        (renamed(MetricCollection([BinaryAccuracy()]), "m."), "m."),
        (ConfusionMetrics, "ConfusionMetrics"),
        (ConfusionMetrics(), "C."),
        (ConfusionMetrics(name=None), "ConfusionMetrics"),
    ],
)
def test_a_metric_is_called_what_a_person_would_call_it(metric: Any, name: str) -> None:
    assert metric_name(metric) == name


@pytest.mark.parametrize(
    ("name", "value", "flat"),
    [
        ("acc", 0.5, {"acc": 0.5}),
        ("acc", 1, {"acc": 1}),
        ("m.", {"p": 0.1, "r": 2}, {"m.p": 0.1, "m.r": 2}),
        ("", {"p": 0.1}, {"p": 0.1}),
        ("m", {"a": {"b": {"c": 1.0}}, 3: 2.0}, {"ma.b.c": 1.0, "m3": 2.0}),
        ("m", {}, {}),
    ],
)
def test_a_dict_is_spread_over_names(name: str, value: Any, flat: dict[str, Any]) -> None:
    assert flatten_value(name, value) == flat


@pytest.mark.parametrize("value", [torch.ones(3), np.float32(1), np.bool_(True), np.ones(2)])
def test_tensors_and_arrays_are_values(value: Any) -> None:
    assert flatten_value("m", value)["m"] is value


@pytest.mark.parametrize("value", [None, "0.5", [1.0], {"a": None}, object()])
def test_other_things_are_no_values(value: Any) -> None:
    with pytest.raises(MetricError, match=r"metric 'ma?' gave"):
        flatten_value("m", value)


class Own(PatchBase):
    def load(self, outputs: Tensor, targets: Tensor) -> Own:
        return self


class OwnSized(Own):
    def __init__(self, batch_size: int, name: str | None = None) -> None:
        super().__init__(name)
        self.batch_size = batch_size


@pytest.mark.parametrize(
    ("metric", "kind", "patch_class"),
    [
        (accuracy, "tensor", TensorPatch),
        (accuracy, "mean", MeanPatch),
        (accuracy, "confusion", ConfusionPatch),
        (accuracy, MeanPatch, MeanPatch),
        (BinaryAccuracy(), "tensor", MetricPatch),
        (BinaryAccuracy(), "mean", MetricPatch),
        (MetricCollection([BinaryAccuracy()]), "confusion", MetricPatch),
        (Own, "mean", Own),
        (OwnSized, "mean", OwnSized),
        (ConfusionMetrics, "tensor", ConfusionMetrics),
        (ConfusionMetrics("f1"), "tensor", ConfusionMetrics),
    ],
)
def test_each_metric_gets_its_patch(metric: Any, kind: Any, patch_class: Any) -> None:
    new_patch = make_patch(metric, kind)
    first, second = new_patch(8), new_patch(4)
    assert type(first) is type(second) is patch_class
    assert first is not second
    assert first.load(torch.rand(2), torch.tensor([0, 1])) is first
    if hasattr(first, "batch_size"):
        assert first.batch_size == 8


def test_a_patch_given_as_a_metric_keeps_its_settings() -> None:
    given = ConfusionMetrics("recall", average="macro", name="R.")
    made = make_patch(given)(2)
    made.load(torch.rand(2), torch.tensor([0, 1]))
    assert given.matrix is None
    assert (list(made()), made.name) == (["r"], "R.")


@pytest.mark.parametrize(
    ("kind", "error"), [("means", ConfigError), (None, ConfigTypeError), (dict, ConfigTypeError)]
)
def test_an_unknown_kind_is_refused_with_those_allowed(kind: Any, error: Any) -> None:
    with pytest.raises(error, match=r"metric_patch is .*'tensor', 'mean', 'confusion', or a sub"):
        make_patch(accuracy, kind)


def test_a_patch_class_that_needs_more_is_refused() -> None:
    with pytest.raises(ConfigError, match="MeanPatch as a metric lacks metric"):
        make_patch(MeanPatch)


def test_a_metric_that_cannot_be_called_is_refused() -> None:
    with pytest.raises(ConfigTypeError, match="a str as metric"):
        make_patch("accuracy")


def test_a_patch_shows_its_metric_and_name() -> None:
    assert repr(MeanPatch(accuracy, 3, name="acc")) == "MeanPatch(accuracy, name='acc')"
    assert repr(ValuePatch(3)) == "ValuePatch()"


def test_a_patch_can_be_given_a_name() -> None:
    patch = ValuePatch(1).named("other")
    assert (patch.name, metric_name(patch)) == ("other", "other")
