"""Metrics of one mini-batch: tried on the first one, shown without a trace, and never the end of a run."""

from __future__ import annotations

import functools
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from deepepochs import Callback, EpochTask, LogCallback, PatchBase, TensorPatch, Trainer, rename
from deepepochs import metrics as dm
from deepepochs.errors import ArgumentsChanged, ConfigError, MetricError, NotFiniteError
from deepepochs.legacy.printing import info
from deepepochs.show.screens import UNDEFINED, spread

N = 24


def points() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(N, 4, generator=generator)
    return x, (x[:, 0] > 0).long()


class Reading(Callback):
    """Reads all metrics of each mini-batch."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[dict[str, Any]] = []

    def on_after_train_batch(self, trainer: Any, metrics: Any, batch_idx: int) -> None:
        self.read.append(dict(metrics))


def fit(
    metrics: Any,
    *callbacks: Callback,
    batch: int = 8,
    labels: Tensor | None = None,
    patch: Any = "tensor",
) -> Trainer:
    x, y = points()
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    model = nn.Sequential(nn.Linear(4, 2), nn.Dropout(0.5))
    opt = torch.optim.SGD(model.parameters(), 0.1)
    trainer = Trainer(
        model, F.cross_entropy, opt, 2, metrics=metrics, metric_patch=patch, show_info=False,
        callbacks=list(callbacks),
    )  # fmt: skip
    trainer.fit(DataLoader(TensorDataset(x, y if labels is None else labels), batch))
    return trainer


def outcome(trainer: Trainer) -> Any:
    draws = [torch.rand(2).tolist(), float(np.random.rand()), random.random()]
    return dict(trainer.history), [p.tolist() for p in trainer.model.parameters()], draws


# ---- looking leaves no trace


def drawing(kind: str) -> Callable[[Tensor, Tensor], Any]:
    if kind == "torch":
        return rename("drawn")(lambda preds, targets: torch.rand(1))
    if kind == "numpy":
        return rename("drawn")(lambda preds, targets: np.random.rand())
    if kind == "python":
        return rename("drawn")(lambda preds, targets: random.random())
    if kind == "a generator of its own":
        own = torch.Generator().manual_seed(3)
        return rename("drawn")(lambda preds, targets: torch.rand(1, generator=own))
    given = np.random.default_rng(3)
    return rename("drawn")(functools.partial(lambda p, t, rng: rng.random(), rng=given))


@pytest.mark.parametrize(
    "kind", ["torch", "numpy", "python", "a generator of its own", "one that it is given"]
)
def test_what_a_metric_draws_does_not_depend_on_who_looks(kind: str, tmp_path: Path) -> None:
    unseen = outcome(fit(drawing(kind)))
    assert outcome(fit(drawing(kind), Reading())) == unseen
    assert outcome(fit(drawing(kind), LogCallback(tmp_path))) == unseen


def test_a_callback_that_draws_itself_does_change_a_run() -> None:
    class Drawing(Callback):
        def on_after_train_batch(self, **others: Any) -> None:
            torch.rand(1)

    assert outcome(fit(dm.accuracy, Drawing())) != outcome(fit(dm.accuracy))


# ---- no value on a mini-batch


def two_classes(preds: Tensor, targets: Tensor) -> float:
    if targets.min() == targets.max():
        raise ValueError("only one class")
    return float(preds.mean())


def two_samples(preds: Tensor, targets: Tensor) -> float:
    if len(preds) < 2:
        raise ValueError("at least two samples")
    return float(preds.mean())


def share(preds: Tensor, targets: Tensor) -> float:
    return (targets == 1).sum().item() / (targets == 1).sum().item()


@pytest.mark.parametrize(
    ("metric", "batch", "text"),
    [
        (two_classes, 8, "ValueError: only one class"),
        (two_samples, 1, "ValueError: at least two samples"),
        (share, 8, "ZeroDivisionError"),
    ],
)
def test_a_metric_without_a_value_on_a_mini_batch_is_told_and_trains_on(
    metric: Any, batch: int, text: str
) -> None:
    reading, labels = Reading(), torch.arange(N) // (N // 2)
    with pytest.warns(RuntimeWarning, match=f"no value on the first mini-batch.*{text}") as told:
        trainer = fit(metric, reading, batch=batch, labels=labels)
    assert len(told) == 1
    assert told[0].filename == __file__
    assert reading.read[0][metric.__name__] is UNDEFINED
    assert len(trainer.history["train"][metric.__name__]) == 2


def test_it_is_shown_as_a_dash_and_not_sent_anywhere() -> None:
    metrics = {"loss": 0.5, "auc": UNDEFINED, "rate": float("nan")}
    assert info(metrics).split() == ["loss:", "0.5000", "auc:", "–", "rate:", "nan"]
    assert [name for name, _ in spread(metrics)] == ["loss", "rate"]


def test_a_fault_of_a_later_mini_batch_that_is_shown_ends_no_run() -> None:
    def sometimes(preds: Tensor, targets: Tensor) -> float:
        if len(preds) == 4:
            raise KeyError("of the last mini-batch")
        return 1.0

    reading = Reading()
    fit(sometimes, reading, batch=10)
    assert [read["sometimes"] is UNDEFINED for read in reading.read] == [False, False, True] * 2


def test_the_update_of_a_torchmetrics_object_must_work_and_its_value_may_be_missing() -> None:
    torchmetrics = pytest.importorskip("torchmetrics")
    x, y = points()
    data = DataLoader(TensorDataset(x, y[:, None].float()), 1)
    model = nn.Linear(4, 1)

    def test(metric: Any) -> Any:
        trainer = Trainer(model, F.mse_loss, metrics=metric, show_info=False)
        return trainer.test(data)

    with pytest.warns(RuntimeWarning, match="'R2Score' has no value on the first mini-batch"):
        assert type(test(torchmetrics.R2Score())["R2Score"]) is float
    with pytest.raises(ValueError, match="one more dimension"):
        test(torchmetrics.AUROC("multiclass", num_classes=5))


# ---- what can never work


def raises_always(preds: Tensor, targets: Tensor) -> float:
    raise ValueError("never")


NEVER: dict[str, tuple[Any, type[Exception], str]] = {
    "three arguments": (lambda p, t, z: 0.0, ConfigError, "missing a required argument: 'z'"),
    "one argument": (lambda p: 0.0, ConfigError, "too many positional arguments"),
    "None": (lambda p, t: None, MetricError, "gave None"),
    "a text": (lambda p, t: "good", MetricError, "gave a str"),
    "no such method": (lambda p, t: p.nonsense(), AttributeError, "nonsense"),
    "no such name": (lambda p, t: no_such_name, NameError, "no_such_name"),  # type: ignore[name-defined] # noqa: F821
    "shapes": (lambda p, t: (p - t).mean(), RuntimeError, "must match the size"),
    "a column that is not there": (lambda p, t: p[:, 5].mean(), IndexError, "out of bounds"),
    "an error whatever is given": (raises_always, ValueError, "never"),
    "a value for each sample": (
        lambda p, t: (p.argmax(1) == t).float(), MetricError, "each of the 8 samples",
    ),
}  # fmt: skip


@pytest.mark.parametrize("patch", ["tensor", "mean"])
@pytest.mark.parametrize("kind", NEVER)
def test_a_metric_that_cannot_work_is_told_at_the_first_mini_batch(kind: str, patch: str) -> None:
    metric, error, text = NEVER[kind]
    reading = Reading()
    with pytest.raises(error, match=text):
        fit(metric, reading, patch=patch)
    assert not reading.read


def test_a_vector_with_a_value_for_each_class_is_none_with_one_for_each_sample() -> None:
    trainer = fit(rename("mean")(lambda p, t: p.mean(0)), batch=2)
    assert [value.shape for value in trainer.history["train"]["mean"]] == [(2,), (2,)]


def test_patches_that_a_step_returns_are_tried_as_well() -> None:
    class Returning(EpochTask):
        def step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> Any:
            model_out = self.model(*batch_x)
            self.loss(model_out, batch_y)
            return {"wrong": TensorPatch(lambda p, t: p.nonsense()).load(model_out, batch_y)}

    reading = Reading()
    trainer = Trainer(
        nn.Linear(4, 2), F.cross_entropy, epochs=1, callbacks=reading, show_info=False
    )
    with pytest.raises(AttributeError, match="nonsense"):
        trainer.fit(train_tasks=Returning(DataLoader(TensorDataset(*points()), 8)))
    assert not reading.read


class Thinning(PatchBase):
    """Keeps a random sample of each mini-batch."""

    def load(self, preds: Tensor, targets: Tensor) -> Thinning:
        self.total = float(preds[torch.randint(len(preds), (1,))].sum())
        return self

    def add(self, other: Thinning) -> Thinning:
        self.total += other.total
        return self

    def forward(self) -> float:
        return self.total


def test_trying_a_patch_that_draws_when_it_is_loaded_draws_nothing() -> None:
    torch.manual_seed(3)
    x, y = points()
    Trainer(nn.Linear(4, 2), F.cross_entropy, metrics=Thinning, show_info=False).test([(x, y)])
    drawn = torch.rand(1)
    torch.manual_seed(3)
    nn.Linear(4, 2)
    torch.randint(N, (1,))
    assert drawn == torch.rand(1)


# ---- metrics that change their arguments


def changes_preds(preds: Tensor, targets: Tensor) -> Tensor:
    return preds.mul_(2).mean()


def changes_targets(preds: Tensor, targets: Tensor) -> Tensor:
    targets.zero_()
    return preds.mean()


def changes_by_numpy(preds: Tensor, targets: Tensor) -> Tensor:
    targets.numpy()[:] = 0
    return preds.mean()


@pytest.mark.parametrize("batch", [8, N])
@pytest.mark.parametrize("patch", ["tensor", "mean"])
@pytest.mark.parametrize("metric", [changes_preds, changes_targets, changes_by_numpy])
def test_a_metric_that_changes_its_arguments_is_named_and_given_copies(
    metric: Any, patch: str, batch: int
) -> None:
    right = fit(dm.accuracy, batch=batch, patch=patch).history["train"]["accuracy"]
    with pytest.warns(RuntimeWarning, match=f"'{metric.__name__}' changes its arguments") as told:
        history = fit([metric, dm.accuracy], Reading(), batch=batch, patch=patch).history
    assert history["train"]["accuracy"] == right
    assert len(told) == 1


def test_one_that_does_so_later_ends_the_run_and_is_named() -> None:
    def sometimes(preds: Tensor, targets: Tensor) -> Tensor:
        return preds.mul_(2).mean() if len(preds) == 4 else preds.mean()

    with pytest.raises(ArgumentsChanged, match="'sometimes' has changed its arguments in place"):
        fit([sometimes, dm.accuracy], Reading(), batch=10)


# ---- the library's own metrics on a confusion matrix, and NaN


OWN = {
    "accuracy": dm.accuracy,
    "f1": dm.f1,
    "a partial": functools.partial(dm.f1, average="macro"),
    "renamed": rename("F")(functools.partial(dm.fbeta, beta=2.0)),
    "a function of a matrix": lambda matrix: matrix.trace() / matrix.sum(),
    "a function with a name for it": lambda *, conf_mat: conf_mat.trace() / conf_mat.sum(),
}


@pytest.mark.parametrize("kind", OWN)
def test_metrics_of_a_matrix_and_those_of_the_library_work_with_confusion(kind: str) -> None:
    x, y = points()
    model = nn.Linear(4, 3)
    trainer = Trainer(
        model, F.cross_entropy, metrics=OWN[kind], metric_patch="confusion", show_info=False
    )
    value = list(trainer.test(DataLoader(TensorDataset(x, y), 10)).values())[1]
    with torch.no_grad():
        outputs = model(x)
    right = dm.accuracy(outputs, y) if "function" in kind else OWN[kind](outputs, y)
    assert value == pytest.approx(float(right), abs=1e-6)


def test_a_nan_loss_is_told_before_the_metrics_that_come_of_it() -> None:
    x, y = points()
    trainer = Trainer(nn.Linear(4, 2), F.cross_entropy, metrics=dm.accuracy, show_info=False)
    with pytest.raises(NotFiniteError):
        trainer.test([(x * float("nan"), y)])
    with pytest.raises(MetricError, match="NaN is no class"):
        trainer.test([(x * float("nan"), y)], do_loss=False)


def test_warnings_of_a_nan_loss_fill_no_registry() -> None:
    x, y = points()

    def nan(preds: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(preds, targets) * float("nan")

    trainer = Trainer(nn.Linear(4, 2), nan, epochs=1, on_nan="warn", show_info=False)
    with pytest.warns(RuntimeWarning, match="The loss is nan") as told:
        trainer.fit([(x, y)] * 3)
    assert len(told) == 3
    registries = [vars(module).get("__warningregistry__", {}) for module in [*sys.modules.values()]]
    assert not any("The loss is nan" in str(key) for known in registries for key in known)
