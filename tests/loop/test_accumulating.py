"""How metrics are carried from mini-batches to the epoch with `metric_patch='auto'`."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from deepepochs import (
    Callback,
    ConfigError,
    ConfigTypeError,
    ConfusionPatch,
    CountsPatch,
    EpochTask,
    MeanPatch,
    TensorPatch,
    Trainer,
    accumulates,
    recorder,
)
from deepepochs import metrics as dm
from deepepochs.metrics import direction
from deepepochs.patches import confusion, make_patch


@accumulates("mean", direction="min")
def error(preds: Tensor, targets: Tensor) -> Tensor:
    return (preds.argmax(1) != targets).float().mean()


@accumulates("confusion")
def balanced(matrix: Tensor) -> Tensor:
    return (matrix.diagonal() / matrix.sum(1).clamp(min=1)).mean()


def share(preds: Tensor, targets: Tensor) -> Tensor:
    return (preds.argmax(1) == targets).double().mean()


macro_f1 = partial(dm.f1, average="macro")


@pytest.mark.parametrize(
    ("metric", "kind"),
    [
        (dm.accuracy, CountsPatch),
        (macro_f1, CountsPatch),
        (partial(partial(dm.fbeta, beta=2.0), average="weighted"), CountsPatch),
        (partial(dm.accuracy, conf_mat=torch.eye(2)), TensorPatch),
        (error, MeanPatch),
        (partial(error), MeanPatch),
        (balanced, ConfusionPatch),
        (share, TensorPatch),
    ],
)
def test_a_metric_is_kept_as_it_declares(metric: Any, kind: type) -> None:
    assert type(make_patch(metric, "auto")(1)) is kind


def test_what_is_declared_is_also_the_direction() -> None:
    assert direction.direction_of("anything", error) == "min"


@pytest.mark.parametrize("wrong", ["auto", "all", dict])
def test_an_unknown_way_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigError):
        accumulates(wrong)
    with pytest.raises(ConfigError, match="direction"):
        accumulates("mean", direction="up")


def data(num: int = 90, classes: int = 3) -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(num, 4, generator=generator)
    y = torch.randint(0, classes, (num,), generator=generator)
    return DataLoader(TensorDataset(x, y), batch_size=8)


METRICS = [
    dm.accuracy, macro_f1, partial(dm.recall, average="weighted"),
    partial(dm.fbeta, beta=0.5, average="macro"),
]  # fmt: skip


def fitted(kind: str, most_kept: int, monkeypatch: pytest.MonkeyPatch, metric: Any) -> Any:
    monkeypatch.setattr(confusion, "MOST_KEPT", most_kept)
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 3)
    trainer = Trainer(
        model, F.cross_entropy, epochs=2, metrics=metric, metric_patch=kind, show_info=False
    )
    return trainer.fit(data(), data(30))


@pytest.mark.parametrize("metric", METRICS, ids=range(4))
@pytest.mark.parametrize("most_kept", [0, 60, 10**6])
def test_counting_in_parts_gives_the_values_of_all_outputs_to_the_bit(
    metric: Any, most_kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = fitted("auto", most_kept, monkeypatch, metric)
    assert counted == fitted("tensor", most_kept, monkeypatch, metric)


def test_ids_of_classes_that_come_later_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confusion, "MOST_KEPT", 0)
    preds = [torch.tensor([0, 1]), torch.tensor([2, 2]), torch.tensor([0, 3])]
    targets = [torch.tensor([0, 1]), torch.tensor([2, 1]), torch.tensor([1, 3])]
    patch = sum(CountsPatch(macro_f1).load(p, t) for p, t in zip(preds, targets, strict=True))
    assert patch() == macro_f1(torch.cat(preds), torch.cat(targets))  # type: ignore[operator]


def test_no_outputs_are_kept_beyond_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confusion, "MOST_KEPT", 100)
    kept = []

    class Looks(Callback):
        def on_after_train_batch(self, trainer: Any, **others: Any) -> None:
            patch = trainer.run.recorder.patches["accuracy"]
            kept.append(sum(item.numel() for item in patch.outputs.items))

    model = torch.nn.Linear(4, 3)
    Trainer(
        model, F.cross_entropy, epochs=1, metrics=dm.accuracy, callbacks=Looks(), show_info=False
    ).fit(data(400))
    assert len(kept) == 50
    assert max(kept) <= 100


def test_a_metric_that_needs_many_outputs_at_once_is_told_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recorder, "LARGE", 1000)
    trainer = Trainer(
        torch.nn.Linear(4, 3), F.cross_entropy, epochs=2, metrics=share, show_info=False
    )
    with pytest.warns(RuntimeWarning, match="'share' needs all outputs.*@accumulates") as caught:
        trainer.fit(data(8 * 200))
    assert len(caught) == 1


def test_several_tasks_and_a_pass_without_samples_are_pooled() -> None:
    trainer = Trainer(torch.nn.Linear(4, 3), F.cross_entropy, metrics=macro_f1, show_info=False)
    auto = trainer.test(tasks=[EpochTask(data(20)), EpochTask(data(50))])
    trainer = Trainer(
        trainer.model, F.cross_entropy, metrics=macro_f1, metric_patch="tensor", show_info=False
    )
    assert auto == trainer.test(tasks=[EpochTask(data(20)), EpochTask(data(50))])


@pytest.mark.parametrize("lengths", [(3, 5, 4), (5, 3, 3)])
def test_mini_batches_of_other_lengths_are_counted(lengths: tuple[int, ...]) -> None:
    """As texts that are padded to the longest of their mini-batch."""
    generator = torch.Generator().manual_seed(0)
    scores = [torch.randn(2, 4, n, generator=generator) for n in lengths]
    targets = [torch.randint(4, (2, n), generator=generator) for n in lengths]
    patch = sum(CountsPatch(macro_f1).load(p, t) for p, t in zip(scores, targets, strict=True))
    flat = torch.cat([s.movedim(1, 2).flatten(0, 1) for s in scores])
    expected = macro_f1(flat, torch.cat([t.flatten() for t in targets]))
    assert patch() == expected  # type: ignore[operator]


def test_targets_of_other_shapes_are_counted() -> None:
    """As of a loader that drops the second dimension of some."""
    scores, labels = torch.tensor([0.9, 0.2, 0.7, 0.4]).unsqueeze(1), torch.tensor([1, 0, 0, 1])
    patch = CountsPatch(dm.accuracy).load(scores[:2], labels[:2])
    patch = patch + CountsPatch(dm.accuracy).load(scores[2:], labels[2:].unsqueeze(1))
    assert float(patch()) == 0.5
    assert float(patch()) == 0.5


def test_a_partial_can_declare_for_itself() -> None:
    metric = accumulates("mean", direction="min")(partial(share))
    assert type(make_patch(metric, "auto")(1)) is MeanPatch
    assert direction.direction_of("anything", metric) == "min"


def test_what_cannot_be_marked_is_told() -> None:
    with pytest.raises(ConfigTypeError, match=r"cannot mark max.*def metric"):
        accumulates("mean")(max)
