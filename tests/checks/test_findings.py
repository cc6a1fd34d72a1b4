"""What `trainer.check()` finds: for each fault a training that has it, and its sound twin."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import (
    DataLoader,
    Dataset,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
)

from deepepochs import (
    Callback,
    CheckCallback,
    FreezeCallback,
    GradClipCallback,
    Optimizer,
    Trainer,
)
from deepepochs.checks.findings import Finding
from deepepochs.checks.loading import slow_loading
from deepepochs.checks.run import CHECKS


@pytest.fixture(autouse=True)
def in_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)


# --- small trainings


def points(num: int = 96, width: int = 6, classes: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(num, width, generator=generator)
    return x, x[:, :classes].argmax(1)


def loader(x: Tensor, y: Tensor, size: int = 8, **options: Any) -> DataLoader[Any]:
    return DataLoader(TensorDataset(x, y), size, **{"shuffle": True, **options})


def net(*layers: nn.Module, width: int = 6, out: int = 3) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, 16), *(layers or (nn.ReLU(),)), nn.Linear(16, out))


def trainer(
    model: nn.Module, loss: Any = F.cross_entropy, opt: Any = None, **options: Any
) -> Trainer:
    opt = torch.optim.Adam(model.parameters(), 0.01) if opt is None else opt
    return Trainer(model, loss, opt, **{"epochs": 4, "console": "off", "device": "cpu", **options})


def check(made: Trainer, train: Any = None, val: Any = None, **options: Any) -> list[Finding]:
    return made.check(loader(*points()) if train is None else train, val, **options)


# --- the faults


def untrained(faulty: bool) -> Any:
    model = net()
    if not faulty:
        model[0].requires_grad_(False)
    return check(trainer(model, opt=torch.optim.Adam(model[2].parameters(), 0.01)))


def frozen(faulty: bool) -> Any:
    model = net()
    for layer in model if faulty else model[:1]:
        layer.requires_grad_(False)
    return check(trainer(model, loss=lambda out, y: F.cross_entropy(out, y)))


def twice_in_optimizers(faulty: bool) -> Any:
    model = net()
    first = list(model.parameters())[: None if faulty else 2]
    opts = [torch.optim.SGD(first, 0.05), torch.optim.SGD(model[2].parameters(), 0.05)]
    return check(trainer(model, opt=opts))


class Unused(nn.Module):
    def __init__(self, faulty: bool) -> None:
        super().__init__()
        self.body, self.side, self.faulty = net(), nn.Linear(6, 3), faulty

    def forward(self, x: Tensor) -> Any:
        return self.body(x) if self.faulty else self.body(x) + self.side(x)


class Dead(nn.Module):
    """With a large negative bias no unit of the ReLU is ever active."""

    def __init__(self, faulty: bool) -> None:
        super().__init__()
        self.body, self.side = net(), nn.Linear(6, 3)
        if faulty:
            nn.init.constant_(self.body[0].bias, -100.0)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Any:
        return self.body(x) + self.side(x)


def labels_from_one(faulty: bool) -> Any:
    x, y = points()
    return check(trainer(net()), loader(x, y + 1 if faulty else y))


def labels_as_column(faulty: bool) -> Any:
    x, _ = points()
    target = x.sum(1)
    made = trainer(net(out=1), nn.MSELoss())
    return check(made, loader(x, target if faulty else target[:, None]))


def ids_for_bce(faulty: bool) -> Any:
    x, y = points()
    target = y if faulty else y.clamp(max=1)
    return check(trainer(net(out=1), nn.BCEWithLogitsLoss()), loader(x, target.float()[:, None]))


def several_labels(faulty: bool) -> Any:
    x, _ = points()
    marks = (x[:, :3] > 0).float()
    return check(
        trainer(net(), F.cross_entropy if faulty else nn.BCEWithLogitsLoss()), loader(x, marks)
    )


def large_first_loss(faulty: bool) -> Any:
    x, y = points()
    return check(trainer(net()), loader(x * (255.0 if faulty else 1.0), y))


def softmax_twice(faulty: bool) -> Any:
    model = net()
    model = model.append(nn.Softmax(1)) if faulty else model
    return check(trainer(model))


class OwnSoftmax(nn.Module):
    def __init__(self, faulty: bool) -> None:
        super().__init__()
        self.body, self.faulty = net(), faulty

    def forward(self, x: Tensor) -> Any:
        out = self.body(x)
        return out.exp() / out.exp().sum(1, keepdim=True) if self.faulty else out


def sigmoid_twice(faulty: bool) -> Any:
    x, y = points()
    model = net(out=1)
    model = model.append(nn.Sigmoid()) if faulty else model
    return check(trainer(model, nn.BCEWithLogitsLoss()), loader(x, (y > 0).float()[:, None]))


def by_heart(faulty: bool) -> Any:
    """A ReLU at the end cuts off the outputs for targets below 0."""
    x, _ = points()
    model = net(out=1)
    nn.init.constant_(model[2].bias, -0.5)  # type: ignore[arg-type]
    model = model.append(nn.ReLU()) if faulty else model
    return check(trainer(model, nn.MSELoss()), loader(x, -3 - x[:, :1].abs()))


def sorted_labels(faulty: bool) -> Any:
    x, y = points()
    order = y.argsort()
    return check(trainer(net()), loader(x[order], y[order], shuffle=not faulty))


def sorted_elsewhere(faulty: bool) -> Any:
    """A data set that computes its samples."""
    x, y = points()
    order = y.argsort() if faulty else torch.arange(len(y))
    data = Computed(x[order], y[order])
    return check(trainer(net()), DataLoader(data, 8))


class Computed(Dataset[Any]):
    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> Any:
        return self.x[index] * 1.0, int(self.y[index])


def shared(faulty: bool) -> Any:
    x, y = points(200)
    rest = slice(40, 140) if faulty else slice(100, 200)
    return check(trainer(net()), loader(x[:100], y[:100]), loader(x[rest], y[rest]))


def shared_indices(faulty: bool) -> Any:
    data = TensorDataset(*points(200))
    train, val = Subset(data, range(100)), Subset(data, range(90 if faulty else 100, 200))
    return check(trainer(net()), DataLoader(train, 8, shuffle=True), DataLoader(val, 8))


def shared_by_samplers(faulty: bool) -> Any:
    data = TensorDataset(*points(200))
    first, second = range(100), range(0 if faulty else 100, 200)
    loaders = (DataLoader(data, 8, sampler=SubsetRandomSampler(part)) for part in (first, second))
    return check(trainer(net()), *loaders)


class Torn(Computed):
    def __getitem__(self, index: int) -> Any:
        if index == 48:
            raise OSError("file 48 is torn")
        return super().__getitem__(index)


def torn_sample(faulty: bool) -> Any:
    data = (Torn if faulty else Computed)(*points())
    x, y = points(128)
    return check(trainer(net()), loader(x[96:], y[96:]), DataLoader(data, 8))


def nan_inputs(faulty: bool) -> Any:
    x, y = points()
    x[::5, 0] = float("nan") if faulty else 0.0
    return check(trainer(net()), loader(x, y))


def nan_targets(faulty: bool) -> Any:
    x, _ = points()
    y = x[:, :1].clone()
    y[::5] = float("nan") if faulty else 0.0
    return check(trainer(net(out=1), nn.MSELoss()), loader(x, y))


def constant(faulty: bool) -> Any:
    x, y = points()
    return check(trainer(net()), loader(torch.ones_like(x) if faulty else x, y))


def scales(faulty: bool) -> Any:
    x, y = points()
    x = x * torch.tensor([1.0, 0.01, 1.0, 1.0, 1.0, 500.0])
    model = net()
    model = model if faulty else nn.Sequential(nn.BatchNorm1d(6), *model)
    return check(trainer(model), loader(x, y))


def one_class(faulty: bool) -> Any:
    x, y = points()
    return check(trainer(net()), loader(x, torch.ones_like(y) if faulty else y))


def one_sample(faulty: bool) -> Any:
    x, y = points()
    model = nn.Sequential(
        nn.Unflatten(1, (1, 2, 3)), nn.Conv2d(1, 4, 2, padding=1), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Flatten(), nn.Linear(48, 3),
    )  # fmt: skip
    return check(trainer(model), loader(x, y, 1 if faulty else 8))


def last_of_one(faulty: bool) -> Any:
    x, y = points(97)
    model = net(nn.BatchNorm1d(16), nn.ReLU())
    return check(trainer(model), loader(x, y, drop_last=not faulty))


class FrozenBody(nn.Module):
    def __init__(self, faulty: bool) -> None:
        super().__init__()
        self.body, self.head = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16)), nn.Linear(16, 3)
        self.faulty = faulty
        self.body(points()[0])
        self.body.requires_grad_(False)

    def train(self, mode: bool = True) -> Any:
        super().train(mode)
        if not self.faulty:
            self.body.eval()
        return self

    def forward(self, x: Tensor) -> Any:
        return self.head(self.body(x))


class EvalInStep(Trainer):
    def train_step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> Any:
        self.model.eval()
        self.loss(self.model(*batch_x), batch_y)


def eval_in_training(faulty: bool) -> Any:
    model = net(nn.ReLU(), nn.Dropout(0.2))
    made = EvalInStep if faulty else Trainer
    opt = torch.optim.Adam(model.parameters(), 0.01)
    return check(made(model, F.cross_entropy, opt, console="off", device="cpu"))


class NeverEval(nn.Module):
    def __init__(self, faulty: bool) -> None:
        super().__init__()
        self.body, self.faulty = net(nn.ReLU(), nn.Dropout(0.2)), faulty

    def train(self, mode: bool = True) -> Any:
        return super().train(True if self.faulty else mode)

    def forward(self, x: Tensor) -> Any:
        return self.body(x)


class FunctionalDropout(nn.Module):
    def __init__(self, faulty: bool) -> None:
        super().__init__()
        self.body, self.faulty = net(), faulty

    def forward(self, x: Tensor) -> Any:
        return self.body(F.dropout(x, 0.2, training=True if self.faulty else self.training))


class Attention(nn.Module):
    def __init__(self, faulty: bool) -> None:
        super().__init__()
        self.take, self.give, self.faulty = nn.Linear(6, 6), nn.Linear(12, 3), faulty

    def forward(self, x: Tensor) -> Any:
        h = self.take(x).unflatten(1, (2, 3))
        share = 0.1 if self.faulty or self.training else 0.0
        seen = F.scaled_dot_product_attention(h, h, h, dropout_p=share)
        return self.give(torch.cat([x, seen.flatten(1)], 1))


def with_validation(model: nn.Module) -> Any:
    x, y = points(128)
    return check(trainer(model), loader(x[:96], y[:96]), loader(x[96:], y[96:]))


def far_apart(faulty: bool) -> Any:
    act = nn.Sigmoid if faulty else nn.ReLU
    layers = [layer for _ in range(8) for layer in (nn.Linear(16, 16), act())]
    return check(trainer(net(act(), *layers)))


def wrong_rate(rate: float) -> Any:
    model = net()
    return check(trainer(model, opt=torch.optim.SGD(model.parameters(), rate)))


def other_units(faulty: bool) -> Any:
    """A schedule of 48 steps that moves once an epoch."""
    model = net()
    opt = torch.optim.SGD(model.parameters(), 0.1)
    sched = torch.optim.lr_scheduler.CosineAnnealingLR(opt, 48 if faulty else 4)
    return check(trainer(model, opt=Optimizer(opt, sched)))


def schedule_of(length: int) -> Any:
    model = net()
    opt = torch.optim.SGD(model.parameters(), 0.1)
    sched = torch.optim.lr_scheduler.CosineAnnealingLR(opt, length)
    return check(trainer(model, opt=Optimizer(opt, sched, sched_on="epoch"), epochs=10))


def accumulates(faulty: bool) -> Any:
    return check(trainer(net(), grad_accumulate=20 if faulty else 4))


def clips(limit: float) -> Any:
    return check(trainer(net(), callbacks=GradClipCallback(limit, norm_type=2)))


class Counting(nn.Module):
    """Counts its calls, in a number that a checkpoint has or does not have."""

    def __init__(self, faulty: bool) -> None:
        super().__init__()
        self.body = net()
        if faulty:
            self.num: Any = 0
        else:
            self.register_buffer("num", torch.zeros(()))

    def forward(self, x: Tensor) -> Any:
        self.num = self.num + 1
        return self.body(x) / (1 + 0.1 * self.num)


def resumes(faulty: bool) -> Any:
    made = trainer(Counting(faulty), callbacks=CheckCallback("loss", on_stage="train"))
    return check(made)


def broken_validation(faulty: bool) -> Any:
    x, y = points(128)
    val = x[96:, :5] if faulty else x[96:]
    return check(trainer(net()), loader(x[:96], y[:96]), loader(val, y[96:]))


class Case(NamedTuple):
    """A fault, and what is said of it; ``made(True)`` has it, ``made(False)`` is its twin."""

    made: Callable[[bool], Any]
    says: str
    severity: str = "warning"


CASES = {
    "weights without an optimizer": Case(untrained, "No optimizer trains 2 trainable weights"),
    "an optimizer of frozen weights": Case(frozen, "trains nothing", "error"),
    "weights in two optimizers": Case(twice_in_optimizers, "2 weights are in several optimizers"),
    "weights without a gradient": Case(
        lambda faulty: check(trainer(Unused(faulty))), r"get no gradient in 8 steps: side.weight"
    ),
    "units that are dead": Case(
        lambda faulty: check(trainer(Dead(faulty))), "exactly 0 in 8 steps: body.0.weight"
    ),
    "labels that count from 1": Case(labels_from_one, "labels go from 1 to 3", "error"),
    "targets that broadcast": Case(labels_as_column, r"The model gives .*\[8, 1\]", "error"),
    "class numbers for yes or no": Case(ids_for_bce, "wants labels from 0 to 1", "error"),
    "several labels for one class": Case(several_labels, "rows add up to", "error"),
    "a first loss of a model that is sure": Case(
        large_first_loss, "guessing one of 3 classes gives 1.1"
    ),
    "softmax twice": Case(softmax_twice, "softmax before cross_entropy"),
    "softmax twice, by hand": Case(
        lambda faulty: check(trainer(OwnSoftmax(faulty))), "they are probabilities"
    ),
    "sigmoid twice": Case(sigmoid_twice, "sigmoid before binary_cross_entropy_with_logits"),
    "outputs that are cut off": Case(by_heart, "cannot be learnt by heart", "error"),
    "sorted labels": Case(sorted_labels, "does not shuffle"),
    "sorted labels of samples that are computed": Case(sorted_elsewhere, "does not shuffle"),
    "shared samples": Case(shared, "60% of the validation samples"),
    "shared indices": Case(shared_indices, "9% of the validation samples"),
    "shared by samplers": Case(shared_by_samplers, "50% of the validation samples"),
    "samples that cannot be read": Case(torn_sample, "Sample 48 cannot be read: OSError", "error"),
    "NaN in inputs": Case(nan_inputs, "numbers in the inputs of a training mini-batch", "error"),
    "NaN in targets": Case(nan_targets, "numbers in the targets of a training", "error"),
    "constant inputs": Case(constant, "All 64 inputs looked at are the same", "error"),
    "columns of other scale": Case(scales, "of very different scale"),
    "labels of one class": Case(one_class, "All 96 labels are 1", "error"),
    "batch norm of one sample": Case(one_sample, "mini-batches of one sample"),
    "a last mini-batch of one sample": Case(last_of_one, "last mini-batch of an epoch", "error"),
    "frozen batch norm that moves": Case(
        lambda faulty: check(trainer(FrozenBody(faulty))), "1 layers of batch norm have frozen"
    ),
    "evaluation mode in training": Case(eval_in_training, "in evaluation mode in training: 2 do"),
    "training mode in validation": Case(
        lambda faulty: with_validation(NeverEval(faulty)), "in training mode in validation: body.2"
    ),
    "dropout in validation": Case(
        lambda faulty: with_validation(FunctionalDropout(faulty)), "F.dropout drops values"
    ),
    "dropout of attention in validation": Case(
        lambda faulty: with_validation(Attention(faulty)), "F.scaled_dot_product_attention drops"
    ),
    "gradients that vanish": Case(far_apart, "Gradients vanish"),
    "a rate that is too high": Case(
        lambda faulty: wrong_rate(300.0 if faulty else 0.1), "At the rate 300 the loss", "error"
    ),
    "a rate that is too low": Case(
        lambda faulty: wrong_rate(1e-7 if faulty else 0.1), "The rate 1e-07 is far below"
    ),
    "a schedule in other units": Case(other_units, "CosineAnnealingLR has T_max=48"),
    "a schedule that is cut off": Case(
        lambda faulty: schedule_of(100 if faulty else 10), "moves 10 times in this training, which"
    ),
    "a schedule that ends early": Case(
        lambda faulty: schedule_of(5 if faulty else 10), "the rate rises again", "note"
    ),
    "windows that never fill": Case(accumulates, "never fills a window"),
    "clipping that never acts": Case(
        lambda faulty: clips(1e5 if faulty else 1.0), "never acts", "note"
    ),
    "clipping that leaves nothing": Case(
        lambda faulty: clips(1e-5 if faulty else 1.0), "less than a thousandth", "note"
    ),
    "a validation that fails": Case(broken_validation, "first mini-batches of validation", "error"),
    "a resume that is not exact": Case(resumes, "resumed run would not be exact"),
}


@pytest.mark.parametrize("name", CASES)
def test_the_fault_is_found_and_its_sound_twin_gives_nothing(name: str) -> None:
    case = CASES[name]
    found = case.made(True)
    told = [one for one in found if re.search(case.says, one.text)]
    assert [one.severity for one in told] == [case.severity], str(found)
    assert all(one.text.strip() and one.remedy.strip() for one in found)
    torch.manual_seed(0)
    assert str(case.made(False)) == "nothing found"


def test_every_check_has_a_test_or_is_judged_by_a_function_alone() -> None:
    tested = {
        "frozen_weights_only", "untrained_weights", "weights_in_two_optimizers",
        "weights_without_gradient", "gradients_apart", "failing_steps", "warnings_of_steps",
        "first_loss", "unfit_labels", "probabilities_twice", "one_class_only", "spoilt_targets",
        "spoilt_inputs", "unreadable_samples", "constant_inputs", "scales_apart", "not_shuffled", "shared_samples",
        "batch_norm_of_one", "frozen_batch_norm", "wrong_mode", "dropout_in_validation",
        "schedules", "ends_of_schedules", "accumulation", "clipping", "one_batch_by_heart",
        "learning_rate", "exact_resume",
    }  # fmt: skip
    by_numbers = {"data_loading", "kept_outputs"}
    on_a_gpu = {"synchronizations"}
    assert {check.__name__ for check in CHECKS} == tested | by_numbers | on_a_gpu


# --- what depends on the machine is judged by given numbers


@pytest.mark.parametrize(
    ("load_s", "step_s", "workers", "remedy"),
    [
        (0.1, 0.04, 0, "num_workers=3"),
        (0.1, 0.001, 0, "num_workers=8"),
        (0.1, 0.1, 0, "num_workers=1"),
        (0.1, 0.04, 4, "more workers"),
        (0.1, 0.2, 0, None),
        (0.01, 0.001, 0, None),
    ],
)
def test_slow_loading_is_told_with_the_workers_that_help(
    load_s: float, step_s: float, workers: int, remedy: str | None
) -> None:
    found = slow_loading([9.0, *[load_s] * 5], [9.0, *[step_s] * 5], workers, cpus=8)
    assert (found is None) if remedy is None else (remedy in found.remedy)  # type: ignore[union-attr]


def test_one_slow_mini_batch_is_no_slow_loader() -> None:
    assert slow_loading([0.001, 0.001, 5.0, 0.001, 0.001], [0.0001] * 5, 0, cpus=8) is None


def mean_of(preds: Tensor, targets: Tensor) -> Tensor:
    return preds.mean()


def test_outputs_that_are_kept_are_told_where_they_are_a_good_part_of_the_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x, y = points()
    epoch = 96 * (3 * 4 + 8)  # outputs of float32, labels of int64
    pages = {"SC_PHYS_PAGES": 5 * epoch, "SC_PAGE_SIZE": 1}
    monkeypatch.setattr(os, "sysconf", lambda name: pages[name])
    keeps = trainer(net(), metrics=mean_of, metric_patch="tensor")
    assert not check(keeps, loader(x, y))
    pages["SC_PHYS_PAGES"] = 3 * epoch
    (found,) = check(keeps, loader(x, y))
    assert "mean_of keeps the outputs of an epoch of train, about 1.92 kB" in found.text
    assert not check(trainer(net(), metrics="accuracy"), loader(x, y)), "it adds up counts"


# --- the list


def test_what_is_found_is_a_list_with_the_worst_first_and_prints_in_words() -> None:
    x, y = points()
    model = net().append(nn.Softmax(1))
    found = trainer(model, callbacks=GradClipCallback(1e6)).check(loader(x, y))
    assert [one.severity for one in found] == ["warning", "note"]
    assert bool(found)
    assert str(found) == repr(found)
    assert str(found).splitlines()[0] == "2 findings, the worst first"
    assert str(found).splitlines()[1].startswith("warning: The outputs go through softmax")
    assert "<table" in found._repr_html_()
    nothing = trainer(net()).check(loader(x, y))
    assert not nothing
    assert (str(nothing), nothing._repr_html_()) == ("nothing found", "nothing found")


class FreezesAtFirst(Callback):
    def on_before_train_epoch(self, trainer: Any, **_: Any) -> None:
        trainer.model[0].requires_grad_(False)

    def on_after_train_epoch(self, trainer: Any, **_: Any) -> None:
        trainer.model[0].requires_grad_(True)


@pytest.mark.parametrize("callback", [FreezeCallback("0", epochs=1), FreezesAtFirst()])
def test_weights_that_a_callback_freezes_for_some_epochs_are_no_finding(callback: Callback) -> None:
    found = check(trainer(net(), callbacks=callback))
    assert not [one for one in found if "gradient" in one.text]
