"""Shapes, values, errors and costs of the metric functions; the figures are by hand."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from deepepochs import metrics
from deepepochs.errors import ConfigError, ConfigTypeError, MetricError
from deepepochs.metrics import (
    accuracy,
    cmats_and_weights,
    confusion_matrix,
    f1,
    fbeta,
    fbeta_fn,
    get_class_num,
    precision,
    precision_fn,
    recall,
    recall_fn,
)

ALL = [accuracy, precision, recall, f1, fbeta]
AVERAGED = [precision, recall, f1, fbeta]

# targets 0 0 0 1 1 2, predictions 0 0 1 1 2 2
THREE = torch.tensor([[2, 1, 0], [0, 1, 1], [0, 0, 1]])
PRED_IDS = torch.tensor([0, 0, 1, 1, 2, 2])
TARGET_IDS = torch.tensor([0, 0, 0, 1, 1, 2])
# targets 0 0 0 0 1 1, predictions 0 0 1 1 1 0: of class 1 one is found, two are false
BINARY = torch.tensor([[2, 2], [1, 1]])

PRED_FORMS: dict[str, Tensor] = {
    "scores": F.one_hot(PRED_IDS, 3) * 2.5 - 1.0,
    "half scores": (F.one_hot(PRED_IDS, 3) * 2.5).half(),
    "one-hot": F.one_hot(PRED_IDS, 3),
    "bool one-hot": F.one_hot(PRED_IDS, 3).bool(),
    "ids": PRED_IDS,
    "column of ids": PRED_IDS[:, None],
    "small ids": PRED_IDS.to(torch.uint8),
}
TARGET_FORMS: dict[str, Tensor] = {
    "ids": TARGET_IDS,
    "column": TARGET_IDS[:, None],
    "float ids": TARGET_IDS.double(),
    "small ids": TARGET_IDS.to(torch.int8),
    "one-hot": F.one_hot(TARGET_IDS, 3),
    "bool one-hot": F.one_hot(TARGET_IDS, 3).bool(),
    "float one-hot": F.one_hot(TARGET_IDS, 3).float(),
}


class OpCounter(TorchDispatchMode):
    """Counts tensor operations."""

    num_ops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.num_ops += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("targets", TARGET_FORMS.values(), ids=TARGET_FORMS.keys())
@pytest.mark.parametrize("preds", PRED_FORMS.values(), ids=PRED_FORMS.keys())
def test_every_form_of_predictions_and_targets_counts_the_same(
    preds: Tensor, targets: Tensor
) -> None:
    assert confusion_matrix(preds, targets).tolist() == THREE.tolist()
    assert confusion_matrix(preds, targets, 3).dtype == torch.int64
    assert accuracy(preds, targets).item() == pytest.approx(4 / 6)
    assert get_class_num(preds, targets) == 3


@pytest.mark.parametrize("targets", [[1, 0, 1], [[1], [0], [1]], [[0, 1], [1, 0], [0, 1]]])
@pytest.mark.parametrize("preds", [[0.9, 0.8, 0.5], [[0.9], [0.8], [0.5]]])
@pytest.mark.parametrize("dtype", [torch.int64, torch.float32, torch.bool])
def test_probabilities_mean_class_one_above_a_half(
    preds: list[Any], targets: list[Any], dtype: torch.dtype
) -> None:
    given = torch.tensor(preds), torch.tensor(targets, dtype=dtype)
    assert confusion_matrix(*given).tolist() == [[0, 1], [1, 1]]
    assert accuracy(*given).item() == pytest.approx(1 / 3)


@pytest.mark.parametrize("one_hot", [False, True])
def test_scores_of_images_are_judged_pixel_by_pixel(one_hot: bool) -> None:
    scores = torch.randn(2, 3, 4, 5)
    ids = torch.randint(3, (2, 4, 5))
    targets = F.one_hot(ids, 3).permute(0, 3, 1, 2) if one_hot else ids
    pixels = scores.permute(0, 2, 3, 1).reshape(-1, 3)
    assert torch.equal(confusion_matrix(scores, targets), confusion_matrix(pixels, ids.reshape(-1)))
    assert accuracy(scores, targets) == accuracy(pixels, ids.reshape(-1))


@pytest.mark.parametrize("column", [False, True])
def test_mask_probabilities_are_judged_pixel_by_pixel(column: bool) -> None:
    mask = torch.tensor([[[0.0, 1.0], [1.0, 1.0]]])
    preds = torch.tensor([[[[0.1, 0.9], [0.2, 0.7]]]])
    assert accuracy(preds, mask[:, None] if column else mask).item() == 0.75


def test_one_column_with_only_class_zero_still_has_two_classes() -> None:
    preds, targets = torch.tensor([[0.9], [0.1]]), torch.tensor([0, 0])
    assert get_class_num(preds, targets) == 2
    assert confusion_matrix(preds, targets).tolist() == [[1, 1], [0, 0]]
    assert accuracy(preds, targets).item() == 0.5


def test_ids_have_two_classes_even_if_only_class_zero_occurs() -> None:
    ids = torch.tensor([0, 0])
    assert get_class_num(ids, ids) == 2
    assert confusion_matrix(ids, ids).tolist() == [[2, 0], [0, 0]]


def test_number_of_classes_comes_from_the_first_of_several_outputs() -> None:
    outputs = [torch.rand(4, 5), torch.rand(4, 2)]
    assert get_class_num(outputs, [torch.tensor([0, 1, 2, 4]), torch.tensor([0, 1, 1, 0])]) == 5


def test_a_soft_label_counts_as_its_largest_class() -> None:
    soft = F.one_hot(TARGET_IDS, 3) * 0.85 + 0.05
    assert accuracy(PRED_FORMS["scores"], soft.bfloat16()).item() == pytest.approx(4 / 6)


def test_ids_with_a_stated_number_of_classes_leave_room_for_absent_ones() -> None:
    assert confusion_matrix(torch.tensor([0, 1]), torch.tensor([0, 0]), 4).shape == (4, 4)


@pytest.mark.parametrize(
    ("metric", "micro", "macro", "weighted"),
    [
        (precision, 4 / 6, (1 + 1 / 2 + 1 / 2) / 3, (3 * 1 + 2 / 2 + 1 / 2) / 6),
        (recall, 4 / 6, (2 / 3 + 1 / 2 + 1) / 3, (3 * 2 / 3 + 2 / 2 + 1) / 6),
        (f1, 4 / 6, (4 / 5 + 1 / 2 + 2 / 3) / 3, (3 * 4 / 5 + 2 / 2 + 2 / 3) / 6),
        (fbeta, 4 / 6, (4 / 5 + 1 / 2 + 2 / 3) / 3, (3 * 4 / 5 + 2 / 2 + 2 / 3) / 6),
    ],
)
def test_averages_of_three_classes_are_those_worked_out_by_hand(
    metric: Callable[..., Tensor], micro: float, macro: float, weighted: float
) -> None:
    assert metric(conf_mat=THREE) == metric(conf_mat=THREE, average="micro")
    assert metric(PRED_IDS, TARGET_IDS, average="micro").item() == pytest.approx(micro)
    assert metric(conf_mat=THREE, average="macro").item() == pytest.approx(macro)
    assert metric(conf_mat=THREE, average="weighted").item() == pytest.approx(weighted)


def test_the_default_of_two_classes_is_the_value_of_class_one() -> None:
    assert precision(conf_mat=BINARY).item() == pytest.approx(1 / 3)
    assert recall(conf_mat=BINARY).item() == pytest.approx(1 / 2)
    assert f1(conf_mat=BINARY).item() == pytest.approx(2 / 5)
    assert fbeta(conf_mat=BINARY, beta=2).item() == pytest.approx(5 / (5 + 4 + 2))


def test_macro_and_weighted_of_two_classes_use_both() -> None:
    assert precision(conf_mat=BINARY, average="macro").item() == pytest.approx((2 / 3 + 1 / 3) / 2)
    weighted = precision(conf_mat=BINARY, average="weighted").item()
    assert weighted == pytest.approx((4 * 2 / 3 + 2 * 1 / 3) / 6)


@pytest.mark.parametrize("metric", AVERAGED)
def test_binary_and_micro_are_two_things_for_two_classes(metric: Callable[..., Tensor]) -> None:
    assert metric(conf_mat=BINARY, average="binary") == metric(conf_mat=BINARY)
    assert metric(conf_mat=BINARY, average="micro") == accuracy(conf_mat=BINARY)


def test_beta_above_one_pulls_towards_recall_and_below_towards_precision() -> None:
    low, middle, high = (fbeta(conf_mat=BINARY, beta=b).item() for b in (0.01, 1.0, 100.0))
    assert low == pytest.approx(1 / 3, abs=1e-3)
    assert low < middle < high
    assert high == pytest.approx(1 / 2, abs=1e-3)


@pytest.mark.parametrize("average", ["micro", "macro", "weighted"])
@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("metric", AVERAGED)
def test_nothing_by_nothing_is_zero(metric: Callable[..., Tensor], size: int, average: str) -> None:
    empty = torch.zeros(size, size, dtype=torch.int64)
    assert metric(conf_mat=empty, average=average).item() == 0.0


@pytest.mark.parametrize("metric", ALL)
@pytest.mark.parametrize(
    "preds", [torch.empty(0, 4), torch.empty(0), torch.empty(0, 1), torch.empty(0).long()]
)
def test_an_empty_batch_gives_zero(metric: Callable[..., Tensor], preds: Tensor) -> None:
    assert metric(preds, torch.empty(0).long()).item() == 0.0


def test_absent_classes_count_zero_in_macro() -> None:
    scores = F.one_hot(torch.tensor([0, 1]), 4).float()
    assert recall(scores, torch.tensor([0, 1]), average="macro").item() == pytest.approx(0.5)


def test_a_matrix_of_weights_is_taken_as_it_is() -> None:
    assert accuracy(conf_mat=torch.tensor([[0.25, 0.0], [0.25, 0.0]])).item() == 0.5
    assert recall(conf_mat=torch.tensor([[0.0, 0.0], [0.1, 0.3]])).item() == pytest.approx(0.75)


def test_counts_too_large_for_float32_stay_exact() -> None:
    matrix = torch.tensor([[2**30, 1], [0, 2**30]])
    assert accuracy(conf_mat=matrix).item() == 2**31 / (2**31 + 1)


@pytest.mark.parametrize("metric", ALL)
def test_a_metric_is_a_float64_number_without_a_gradient(metric: Callable[..., Tensor]) -> None:
    value = metric(torch.rand(6, 3, requires_grad=True), TARGET_IDS)
    assert (value.dtype, value.shape, value.requires_grad) == (torch.float64, (), False)
    assert metric(conf_mat=THREE).dtype == torch.float64


@pytest.mark.parametrize("metric", ALL)
def test_a_change_in_place_is_seen(metric: Callable[..., Tensor]) -> None:
    scores = F.one_hot(TARGET_IDS, 3).float()
    assert metric(scores, TARGET_IDS).item() == 1.0
    scores.copy_(scores.roll(1, dims=1))
    assert metric(scores, TARGET_IDS).item() == 0.0


def test_arguments_are_not_changed() -> None:
    scores, targets, matrix = torch.randn(6, 3), TARGET_IDS.clone(), THREE.clone()
    before = scores.clone()
    f1(scores, targets, average="weighted")
    f1(conf_mat=matrix, average="weighted")
    assert torch.equal(scores, before)
    assert torch.equal(targets, TARGET_IDS)
    assert torch.equal(matrix, THREE)


@pytest.mark.parametrize("metric", ALL)
@pytest.mark.parametrize("preds", [torch.rand(6, 3), torch.rand(6), torch.rand(6, 1)])
@pytest.mark.parametrize("one_hot", [False, True])
def test_nothing_is_read_back_from_an_accelerator(
    metric: Callable[..., Tensor], preds: Tensor, one_hot: bool
) -> None:
    # A meta tensor has no values: whatever asked for one would raise.
    shape = (6, 3 if preds.shape[1:] == (3,) else 2) if one_hot else (6,)
    targets = torch.empty(shape, dtype=torch.int64, device="meta")
    value = metric(preds.to("meta"), targets)
    assert (value.device.type, value.shape) == ("meta", ())


def test_ids_with_a_stated_number_of_classes_are_not_read_back_from_an_accelerator() -> None:
    ids = torch.empty(6, dtype=torch.int64, device="meta")
    assert confusion_matrix(ids, ids, 3).device.type == "meta"


def test_the_way_of_counting_on_accelerators_counts_the_same() -> None:
    rows, columns = torch.randint(4, (50,)), torch.randint(4, (50,))
    counts = metrics._count_without_reading(rows, columns, 4)
    assert torch.equal(counts, confusion_matrix(columns, rows, 4))


@pytest.mark.parametrize("bad", [3, -1])
def test_on_accelerators_a_bad_id_is_out_of_bounds_and_not_another_classs(bad: int) -> None:
    with pytest.raises(RuntimeError, match="out of bounds"):
        metrics._count_without_reading(torch.tensor([1, 1]), torch.tensor([0, bad]), 3)


def test_accuracy_of_a_batch_costs_few_operations() -> None:
    scores, targets = torch.randn(32, 10), torch.randint(10, (32,))
    with OpCounter() as counter:
        accuracy(scores, targets)
    # max, equal, mean, and the checks of scores and targets
    assert counter.num_ops <= 8


def test_counts_of_each_class_and_weights_can_be_taken_apart() -> None:
    counts, weights = cmats_and_weights(THREE)
    assert [[int(n) for n in c] for c in counts] == [[2, 1, 0, 3], [1, 1, 1, 3], [1, 0, 1, 4]]
    assert weights.tolist() == pytest.approx([3 / 6, 2 / 6, 1 / 6])
    assert precision_fn(counts[1]).item() == 0.5
    assert recall_fn(counts[0]).item() == pytest.approx(2 / 3)
    assert fbeta_fn(counts[2], 1).item() == pytest.approx(2 / 3)


def test_lesser_functions_take_any_object_with_counts() -> None:
    counts = SimpleNamespace(TP=3, FN=1, FP=0, TN=5)
    assert precision_fn(counts).item() == 1.0
    assert recall_fn(counts).item() == 0.75
    assert fbeta_fn(counts, 2).item() == pytest.approx(15 / 19)


@pytest.mark.parametrize("metric", ALL)
def test_average_and_matrix_are_keywords_only(metric: Callable[..., Tensor]) -> None:
    parameters = inspect.signature(metric).parameters
    positional = [p.name for p in parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert positional == ["preds", "targets"]


def test_all_names_of_the_module_exist() -> None:
    assert all(hasattr(metrics, name) for name in metrics.__all__)


@pytest.mark.parametrize("metric", ALL)
@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "given nothing"),
        ({"preds": PRED_IDS}, "given preds:"),
        ({"targets": PRED_IDS}, "given targets:"),
        ({"preds": PRED_IDS, "conf_mat": THREE}, "given preds and conf_mat"),
        ({"preds": PRED_IDS, "targets": TARGET_IDS, "conf_mat": THREE}, "preds and targets and c"),
    ],
)
def test_anything_but_one_source_is_refused(
    metric: Callable[..., Tensor], given: dict[str, Tensor], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        metric(**given)


@pytest.mark.parametrize("metric", AVERAGED)
@pytest.mark.parametrize("average", ["samples", "Macro", 1])
def test_an_unknown_average_is_refused(metric: Callable[..., Tensor], average: Any) -> None:
    with pytest.raises(ConfigError, match=r"average is .*choose 'micro'"):
        metric(conf_mat=THREE, average=average)


@pytest.mark.parametrize("metric", AVERAGED)
def test_binary_average_of_three_classes_is_refused(metric: Callable[..., Tensor]) -> None:
    with pytest.raises(ConfigError, match="two classes, not 3"):
        metric(conf_mat=THREE, average="binary")


@pytest.mark.parametrize("beta", [0, -1.0, float("nan"), float("inf")])
def test_a_beta_that_is_not_positive_and_finite_is_refused(beta: float) -> None:
    with pytest.raises(ConfigError, match="finite number above 0"):
        fbeta(conf_mat=BINARY, beta=beta)


@pytest.mark.parametrize("beta", ["1", None, True])
def test_a_beta_that_is_no_number_is_refused(beta: Any) -> None:
    with pytest.raises(ConfigTypeError, match="beta is"):
        fbeta(conf_mat=BINARY, beta=beta)


@pytest.mark.parametrize("metric", ALL)
@pytest.mark.parametrize("shape", [(2, 3), (4,), (2, 2, 2), (0, 0), ()])
def test_a_matrix_that_is_not_square_is_refused(
    metric: Callable[..., Tensor], shape: tuple[int, ...]
) -> None:
    with pytest.raises(MetricError, match="no confusion matrix"):
        metric(conf_mat=torch.ones(shape))


def test_a_matrix_that_is_no_tensor_is_refused() -> None:
    with pytest.raises(MetricError, match=r"ndarray: pass torch\.as_tensor"):
        accuracy(conf_mat=np.eye(2))  # type: ignore[arg-type]


@pytest.mark.parametrize("judge", [confusion_matrix, get_class_num, *ALL])
@pytest.mark.parametrize(
    ("preds", "targets"),
    [
        ((6, 3), (5,)),
        ((6, 3), (6, 2)),
        ((6, 3), (5, 3)),
        ((6, 3), (6, 3, 1)),
        ((6,), (5,)),
        ((6,), (6, 3)),
        ((6, 1), (6, 3)),
        ((6,), (6, 0)),
        ((2, 3, 4, 4), (2, 4, 5)),
        ((2, 3, 4, 4), (2, 2, 4, 4)),
    ],
)
def test_sizes_that_do_not_fit_are_refused(
    judge: Callable[..., Any], preds: tuple[int, ...], targets: tuple[int, ...]
) -> None:
    with pytest.raises(MetricError, match=r"preds \[.*\] and targets \[.*\] do not fit"):
        judge(torch.rand(preds), torch.zeros(targets, dtype=torch.int64))


def test_one_hot_targets_without_columns_are_refused() -> None:
    with pytest.raises(MetricError, match="do not fit"):
        accuracy(PRED_IDS, torch.zeros(6, 0))


def test_scores_without_columns_are_refused() -> None:
    with pytest.raises(MetricError, match="no columns"):
        accuracy(torch.rand(4, 0), torch.zeros(4))


@pytest.mark.parametrize(
    ("preds", "targets"), [(torch.tensor(0.5), torch.zeros(1)), (torch.rand(1), torch.tensor(1))]
)
def test_single_numbers_are_refused(preds: Tensor, targets: Tensor) -> None:
    with pytest.raises(MetricError, match="single number"):
        accuracy(preds, targets)


@pytest.mark.parametrize(
    ("preds", "targets", "told"),
    [
        ([torch.rand(2, 3)], torch.zeros(2), r"preds are a list.*preds\[0\]"),
        (np.ones((2, 3)), torch.zeros(2), r"ndarray.*as_tensor\(preds\)"),
        (torch.rand(2, 3), (torch.zeros(2),), r"targets are a tuple.*targets\[0\]"),
    ],
)
def test_what_is_no_tensor_is_refused(preds: Any, targets: Any, told: str) -> None:
    with pytest.raises(MetricError, match=told):
        accuracy(preds, targets)


@pytest.mark.parametrize("judge", [confusion_matrix, *ALL])
@pytest.mark.parametrize("bad", [3, -1, -100])
def test_targets_that_are_no_class_are_refused(judge: Callable[..., Any], bad: int) -> None:
    with pytest.raises(MetricError, match=rf"targets \[2\] hold {bad}, .* from 0 to 2"):
        judge(torch.rand(2, 3), torch.tensor([0, bad]))


@pytest.mark.parametrize("bad", [0.5, float("nan"), 2.0])
def test_float_targets_that_are_no_class_are_refused(bad: float) -> None:
    with pytest.raises(MetricError, match="no class id"):
        accuracy(torch.rand(2), torch.tensor([0.0, bad]))


@pytest.mark.parametrize(
    ("preds", "targets", "what"),
    [([0, 3], [0, 1], "preds"), ([0, -1], [0, 1], "preds"), ([0, 1], [3, 0], "targets")],
)
def test_ids_beyond_the_stated_classes_are_refused(
    preds: list[int], targets: list[int], what: str
) -> None:
    with pytest.raises(MetricError, match=rf"{what} \[2\] hold"):
        confusion_matrix(torch.tensor(preds), torch.tensor(targets), 3)


@pytest.mark.parametrize(
    "targets", [[[1.0, 1.0, 0.0]], [[0.0, 0.0, 0.0]], [[-1.0, 1.0, 1.0]], [[2, 1, 0]]]
)
def test_targets_that_are_not_one_hot_are_refused(targets: list[Any]) -> None:
    with pytest.raises(MetricError, match="read as one-hot"):
        accuracy(torch.rand(1, 3), torch.tensor(targets))


@pytest.mark.parametrize("preds", [torch.rand(4, 3), torch.rand(4)])
def test_a_number_of_classes_that_contradicts_the_data_is_refused(preds: Tensor) -> None:
    with pytest.raises(MetricError, match="num_classes is 5"):
        confusion_matrix(preds, torch.zeros(4), 5)


@pytest.mark.parametrize("num_classes", [0, -1])
def test_less_than_one_class_is_refused(num_classes: int) -> None:
    with pytest.raises(ConfigError, match="1 or more"):
        confusion_matrix(PRED_IDS, TARGET_IDS, num_classes)


@pytest.mark.parametrize("num_classes", ["3", 3.0])
def test_a_number_of_classes_that_is_not_whole_is_refused(num_classes: Any) -> None:
    with pytest.raises(ConfigTypeError, match="whole number"):
        confusion_matrix(PRED_IDS, TARGET_IDS, num_classes)


@pytest.mark.parametrize("preds", [[-2.0, 3.0], [[0.2], [1.5]]])
def test_values_that_cannot_be_probabilities_are_warned_of(preds: list[Any]) -> None:
    with pytest.warns(UserWarning, match=r"apply torch\.sigmoid"):
        accuracy(torch.tensor(preds), torch.tensor([0, 1]))


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("metric", ALL)
@pytest.mark.parametrize(
    "preds", [[0.2, NAN], [[0.2], [NAN]], [[1.0, 0.0], [NAN, 2.0]], [[1.0, 0.0], [NAN, NAN]]]
)
def test_nan_scores_are_no_class(metric: Callable[..., Tensor], preds: list[Any]) -> None:
    with pytest.raises(MetricError, match=r"NaN scores, first in sample 1"):
        metric(torch.tensor(preds), torch.tensor([0, 1]))


def test_infinite_scores_are_compared_as_any_others() -> None:
    scores = torch.tensor([[INF, 0.0], [-INF, INF], [-INF, -INF]])
    assert accuracy(scores, torch.tensor([0, 1, 0])) == 1.0


def test_probabilities_are_not_warned_of() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert accuracy(torch.tensor([0.0, 1.0]), torch.tensor([0, 1])).item() == 1.0


def test_numbers_that_are_no_class_ids_are_said_to_look_like_a_regression() -> None:
    with pytest.raises(MetricError, match=r"looks like a regression: .*MeanSquaredError\(\)"):
        accuracy(torch.rand(4, 1), torch.tensor([[0.5], [1.5], [0.0], [1.0]]))
    with pytest.raises(MetricError, match="Number the classes from 0"):
        accuracy(torch.rand(4, 3), torch.tensor([1, 2, 3, 1]))
