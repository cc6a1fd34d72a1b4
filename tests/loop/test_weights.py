"""What a mini-batch weighs in means and in windows, and lists with an entry for each sample."""

from __future__ import annotations

import copy
import itertools
import math
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    SequentialSampler,
    Subset,
    TensorDataset,
)

from deepepochs import Callback, EpochTask, Optimizer, StepError, Trainer

GENERATOR = torch.Generator().manual_seed(4)
X = torch.randn(12, 3, generator=GENERATOR)
Y = torch.randn(12, 2, generator=GENERATOR)
SIZES = (5, 5, 2)
PAIRS = list(zip(X.split(SIZES), Y.split(SIZES), strict=True))


def linear() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(3, 2)


def trainer_of(
    model: nn.Module, loss: Any = F.mse_loss, lr: float = 0.1, **options: Any
) -> Trainer:
    opt = options.pop("opt", None) or torch.optim.SGD(model.parameters(), lr)
    options = {"epochs": 1, "show_info": False, "device": "cpu", **options}
    return Trainer(model, loss, opt, **options)


def weighted(weights: Sequence[float], values: Sequence[Any]) -> Any:
    used = [(w, v) for w, v in zip(weights, values, strict=True) if w]
    return sum(w * v for w, v in used) / sum(w for w, _ in used)


# Means


class Popping(EpochTask):
    """Takes the labels out of the dict of its mini-batch."""

    def step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> None:
        labels = batch_x.pop("labels")
        model_out = self.model(batch_x.pop("inputs"))
        self.do_metric(F.mse_loss(model_out, labels), model_out, labels)


@pytest.mark.parametrize("given", [None, lambda batch_x, batch_y: len(batch_x["labels"])])
def test_a_mini_batch_that_the_step_changes_weighs_what_it_did_before(given: Any) -> None:
    batches = [{"labels": y, "inputs": x} for x, y in PAIRS]
    model = linear()
    found = trainer_of(model).test(tasks=Popping(batches, batch_size=given))
    assert float(found["loss"]) == pytest.approx(F.mse_loss(model(X), Y).item(), rel=1e-6)


def test_the_doubt_about_a_weight_is_told_once_at_the_line_of_the_user() -> None:
    class TimeFirst(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.mean(0))

    batches = [(torch.randn(7, len(y), 3), y) for _, y in PAIRS]
    trainer = trainer_of(TimeFirst(3, 2))
    with pytest.warns(
        UserWarning, match="has 5 samples, and its input has 7: .*batch_size="
    ) as told:
        found = trainer.fit(batches)["train"]["loss"][0]
        trainer.test(batches)
    assert [Path(one.filename).name for one in told] == [Path(__file__).name]
    assert math.isfinite(found)


@pytest.mark.parametrize("number", [lambda n: torch.tensor([n / 4]), np.float32, float])
def test_a_weight_may_be_a_fraction_of_any_kind(number: Any) -> None:
    model = linear()
    found = trainer_of(model).test(PAIRS, batch_size=lambda x, y: number(len(y)))
    assert float(found["loss"]) == pytest.approx(F.mse_loss(model(X), Y).item(), rel=1e-6)


def test_a_batch_size_of_one_says_that_mini_batches_weigh_alike() -> None:
    model = linear()
    found = trainer_of(model).test(PAIRS, batch_size=1)  # warnings are errors
    losses = [F.mse_loss(model(x), y).item() for x, y in PAIRS]
    assert float(found["loss"]) == pytest.approx(sum(losses) / 3, rel=1e-6)


# Mini-batches that weigh nothing


def positive(model_out: Tensor, targets: Tensor) -> Tensor:
    """The mean over the samples with a positive first target: 0/0, with gradients, if none has."""
    counts = (targets[:, 0] > 0).float()
    return ((model_out - targets).square().mean(1) * counts).sum() / counts.sum()


def num_positive(batch_x: Any, targets: Tensor) -> Tensor:
    return (targets[:, 0] > 0).sum()


EMPTY_SECOND = [(x, -y.abs() if i == 1 else y.abs()) for i, (x, y) in enumerate(PAIRS)]


def test_the_loss_of_no_samples_is_no_part_of_the_mean_of_an_epoch() -> None:
    model = linear()
    found = trainer_of(model, positive).test(EMPTY_SECOND, batch_size=num_positive)
    losses = [positive(model(x), y).item() for x, y in EMPTY_SECOND]
    assert math.isnan(losses[1])
    assert float(found["loss"]) == pytest.approx(weighted((5, 0, 2), losses), rel=1e-6)


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam])
def test_a_mini_batch_without_samples_has_gradients_of_zero(size: int, kind: Any) -> None:
    by_hand = linear()
    opt = kind(by_hand.parameters(), 0.1, weight_decay=0.1)
    for start in range(0, 3, size):
        opt.zero_grad()
        window = EMPTY_SECOND[start : start + size]
        weights = [float(num_positive(x, y)) for x, y in window]
        for weight, (x, y) in zip(weights, window, strict=True):
            loss = positive(by_hand(x), y) if weight else by_hand(x).sum() * 0
            (loss * weight / max(sum(weights), 1)).backward()
        opt.step()
    model = linear()
    opt = kind(model.parameters(), 0.1, weight_decay=0.1)
    trainer = trainer_of(model, positive, opt=opt, grad_accumulate=size)
    history = trainer.fit(EMPTY_SECOND, EMPTY_SECOND, batch_size=num_positive)
    assert torch.allclose(model.weight, by_hand.weight, atol=1e-7)
    assert math.isfinite(history["train"]["loss"][0]) and math.isfinite(history["val"]["loss"][0])


@pytest.mark.parametrize("size", [1, 2])
def test_a_schedule_is_not_fed_the_loss_of_no_samples(size: int) -> None:
    model = linear()
    opt = torch.optim.SGD(model.parameters(), 0.1)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(opt)
    trainer = trainer_of(
        model, positive, opt=Optimizer(opt, scheduler, "step"), grad_accumulate=size
    )
    trainer.fit(EMPTY_SECOND[1::-1], batch_size=num_positive)
    assert scheduler.best > 0  # NaN is never the best


# Windows


class Skipping(EpochTask):
    """Returns without a backward pass in some mini-batches."""

    def train_step(self, batch_x: Any, batch_y: Any, *, skips: Any = (), **step_args: Any) -> None:
        assert self.run is not None
        if self.run.batch_idx not in skips:
            self.loss(self.model(*batch_x), batch_y)


@pytest.mark.filterwarnings("ignore:.*returned without a backward pass")
@pytest.mark.parametrize("skips", [(0,), (1,), (2,), (0, 1), (1, 2), (0, 1, 2)])
@pytest.mark.parametrize("size", [2, 3])
def test_a_mini_batch_that_the_step_skips_weighs_nothing_in_its_window(
    size: int, skips: tuple[int, ...]
) -> None:
    by_hand = linear()
    opt = torch.optim.SGD(by_hand.parameters(), 0.1)
    for start in range(0, 3, size):
        used = [PAIRS[i] for i in range(start, min(start + size, 3)) if i not in skips]
        opt.zero_grad()
        if used:
            x, y = (torch.cat(parts) for parts in zip(*used, strict=True))
            F.mse_loss(by_hand(x), y).backward()
        opt.step()
    model = linear()
    task = Skipping(PAIRS, skips=skips)
    trainer_of(model, grad_accumulate=size).fit(train_tasks=task)
    assert torch.allclose(model.weight, by_hand.weight, atol=1e-7)


def test_gradients_made_by_hand_count_in_their_window() -> None:
    class ByHand(EpochTask):
        def train_step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> None:
            F.mse_loss(self.model(*batch_x), batch_y).backward()
            self.optimize()

    model, by_hand = linear(), linear()
    trainer = trainer_of(model, grad_accumulate=2)
    with pytest.warns(RuntimeWarning, match="without a backward pass"):
        trainer.fit(train_tasks=ByHand(PAIRS[:2]))
    F.mse_loss(by_hand(X[:10]), Y[:10]).backward()
    torch.optim.SGD(by_hand.parameters(), 0.1).step()
    assert torch.allclose(model.weight, by_hand.weight, atol=1e-7)


class Counting(Callback):
    def __init__(self) -> None:
        super().__init__()
        self.num_steps = 0

    def on_after_optimize(self, trainer: Any, optimize_index: Any) -> None:
        self.num_steps += 1


class OwnLoader:
    def __init__(self, says: int) -> None:
        self.says = says

    def __len__(self) -> int:
        return self.says

    def __iter__(self) -> Iterator[Any]:
        return iter(zip(X.split(1), Y.split(1), strict=True))


class OwnStream(IterableDataset[Any], OwnLoader):
    def __iter__(self) -> Iterator[Any]:
        return iter(zip(X, Y, strict=True))


class OwnSampler(BatchSampler):
    def __init__(self, says: int) -> None:
        super().__init__(SequentialSampler(range(12)), 1, False)
        self.says = says

    def __len__(self) -> int:
        return self.says


LOADERS = {
    "loader": OwnLoader,
    "stream": lambda says: DataLoader(OwnStream(says), 1),
    "batch sampler": lambda says: DataLoader(TensorDataset(X, Y), batch_sampler=OwnSampler(says)),
}


@pytest.mark.filterwarnings("ignore:Length of IterableDataset")
@pytest.mark.parametrize("says", [0, 5, 11, 12, 13, 100])
@pytest.mark.parametrize("kind", LOADERS)
def test_a_wrong_length_closes_no_window_early_and_is_told(kind: str, says: int) -> None:
    by_hand = linear()
    opt = torch.optim.SGD(by_hand.parameters(), 0.1)
    for x, y in zip(X.split(5), Y.split(5), strict=True):
        opt.zero_grad()
        F.mse_loss(by_hand(x), y).backward()
        opt.step()
    model, counting = linear(), Counting()
    with warnings.catch_warnings(record=True) as told:
        warnings.filterwarnings("always", ".*mend its __len__")
        history = trainer_of(model, grad_accumulate=5, callbacks=counting, epochs=1).fit(
            LOADERS[kind](says), LOADERS[kind](says)
        )
    assert torch.allclose(model.weight, by_hand.weight, atol=1e-6)
    assert counting.num_steps == 3
    assert float(history["val"]["loss"][0]) == pytest.approx(F.mse_loss(model(X), Y).item(), 1e-5)
    text = f"said that it has {says} mini-batches, and gave 12"
    assert [text in str(one.message) for one in told] == ([] if says == 12 else [True, True])


# Numbers that a step returns


class Telling(EpochTask):
    def step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> Any:
        model_out = self.model(*batch_x)
        self.loss(model_out, batch_y)
        gap = (model_out - batch_y).abs().mean()
        return {"gap": gap, "size": len(batch_y), "share": np.float32(0.5), "whole": True}


def test_numbers_that_a_step_returns_are_means_and_weigh_what_the_loss_weighs() -> None:
    model = linear()
    history = trainer_of(model, lr=0.0, epochs=2).fit(
        train_tasks=Telling(PAIRS), val_tasks=Telling(PAIRS)
    )
    gap = (model(X) - Y).abs().mean().item()
    for stage in ("train", "val"):
        values = {name: float(of[1]) for name, of in history[stage].items()}
        assert values["gap"] == pytest.approx(gap, rel=1e-6)
        assert values["size"] == pytest.approx((25 + 25 + 4) / 12)
        assert (values["share"], values["whole"]) == (0.5, 1.0)


def test_a_returned_number_of_a_mini_batch_that_weighs_nothing_is_left_out() -> None:
    class Told(EpochTask):
        def step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> Any:
            return {"value": math.nan if num_positive(batch_x, batch_y) == 0 else 3.0}

    found = trainer_of(linear()).test(tasks=Told(EMPTY_SECOND, batch_size=num_positive))
    assert float(found["value"]) == 3.0


@pytest.mark.parametrize("value", ["0.5", torch.ones(1), [0.5], None, 1j])
def test_what_is_no_number_is_refused_with_what_it_is(value: Any) -> None:
    class Wrong(EpochTask):
        def step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> Any:
            return {"acc": value}

    with pytest.raises(StepError, match=r"numbers or 0-d tensors, and .* is (a|None)"):
        trainer_of(linear()).test(tasks=Wrong(PAIRS))


# Lists with an entry for each sample


class Detector(nn.Module):
    """Gives as many boxes for an image as its sum says, in a list or in a tuple."""

    def __init__(self, kind: type) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.kind = kind

    def forward(self, images: Sequence[Tensor]) -> Any:
        return self.kind(boxes_of(int(image[0, 0, 0])) for image in images)


def boxes_of(number: int) -> dict[str, Tensor]:
    return {"boxes": torch.zeros(2, 4), "labels": torch.full((2,), number)}


class Looking(EpochTask):
    def evaluate_step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> None:
        self.do_metric(None, self.model(*batch_x), batch_y)


def share_found(preds: Any, targets: Any) -> float:
    assert len(preds) == len(targets)
    right = [torch.equal(p["labels"], t["labels"]) for p, t in zip(preds, targets, strict=True)]
    return sum(right) / len(right)


IMAGES = [(torch.full((3, 4, 4 + i % 2), float(i)), boxes_of(i if i == 2 else 9)) for i in range(6)]


def images_by(size: int) -> DataLoader[Any]:
    return DataLoader(IMAGES, size, collate_fn=lambda batch: tuple(zip(*batch, strict=True)))  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("kind", [list, tuple])
@pytest.mark.parametrize("patch", ["tensor", "mean"])
def test_lists_of_samples_reach_a_metric_end_to_end(size: int, kind: type, patch: str) -> None:
    # With 2 images in a mini-batch, and 2 boxes in each, the lists look like several outputs.
    trainer = trainer_of(Detector(kind), metric_patch=patch)
    found = trainer.test(tasks=Looking(images_by(size), metrics=share_found))
    assert float(found["share_found"]) == pytest.approx(1 / 6)


@pytest.mark.parametrize("size", [1, 2, 4, 6])
def test_predict_gives_a_list_with_an_entry_for_each_sample(size: int) -> None:
    found = trainer_of(Detector(list)).predict(images_by(size))
    assert [int(one["labels"][0]) for one in found] == [0, 1, 2, 3, 4, 5]


class Both(nn.Linear):
    def forward(self, x: Tensor) -> Any:
        out = super().forward(x)
        return out, out.sum(1)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_several_outputs_are_joined_one_by_one(size: int) -> None:
    def look(preds: Any, targets: Any) -> float:
        return float(preds[0].shape == (12, 2) and preds[1].shape == (12,))

    loader = DataLoader(TensorDataset(X, Y), size)
    trainer = trainer_of(Both(3, 2), lambda out, y: F.mse_loss(out[0], y), metrics=look)
    assert float(trainer.test(loader)["look"]) == 1.0
    assert [one.shape[0] for one in trainer.predict(loader)] == [12, 12]


class Squeezing(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).squeeze()


@pytest.mark.parametrize("num_outputs", [1, 2])
def test_a_squeezed_last_mini_batch_of_one_is_a_sample_like_the_others(num_outputs: int) -> None:
    loader = DataLoader(TensorDataset(X[:9], Y[:9]), 4)
    model = Squeezing(3, num_outputs)

    def total(preds: Tensor, targets: Tensor) -> Tensor:
        return preds.sum()

    trainer = trainer_of(model, lambda out, y: out.sum(), metrics=total)
    assert torch.equal(trainer.predict(loader), model(X[:9]).detach())
    assert float(trainer.test(loader)["total"]) == pytest.approx(model(X[:9]).sum().item(), 1e-5)


def test_predicted_outputs_of_unequal_shapes_come_as_a_list_of_samples() -> None:
    model = nn.Linear(3, 2)
    batches = [(torch.randn(2, 5, 3), None), (torch.randn(1, 7, 3), None)]
    found = trainer_of(model).predict(batches)
    assert [tuple(one.shape) for one in found] == [(5, 2), (5, 2), (7, 2)]


# Samples that are weights


class Latents(Dataset[Any]):
    """Codes of samples that are learnt."""

    def __init__(self) -> None:
        self.codes = nn.Parameter(torch.zeros(12, 3))

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> Any:
        return self.codes[index], Y[index]


def latents(kind: str) -> tuple[DataLoader[Any], Tensor]:
    dataset = Latents()
    codes: Tensor = dataset.codes
    chosen: Any = dataset
    if kind == "tensors":
        codes = torch.zeros(12, 3, requires_grad=True)
        chosen = TensorDataset(codes, Y)
    if kind == "subset":
        chosen = Subset(dataset, range(1, 11))
    if kind == "targets":
        codes = torch.zeros(12, 2, requires_grad=True)
        chosen = TensorDataset(X, codes)
    return DataLoader(chosen, 3, shuffle=True), codes


@pytest.mark.parametrize("kind", ["data set", "tensors", "subset", "targets"])
def test_samples_that_are_weights_are_trained_to_the_bit(kind: str) -> None:
    found = []
    for by_hand in (True, False):
        model = linear()
        loader, codes = latents(kind)
        opt = torch.optim.Adam([*model.parameters(), codes], 0.1)
        torch.manual_seed(1)
        if by_hand:
            for x, y in itertools.chain(loader, loader):
                opt.zero_grad()
                F.mse_loss(model(x), y).backward()
                opt.step()
        else:
            trainer_of(model, opt=opt, epochs=2).fit(loader)
        found.append((model.weight.detach(), codes.detach()))
    assert all(map(torch.equal, *found))
    assert found[0][1].any()


def test_gradients_are_on_where_training_fetches_and_nowhere_else() -> None:
    seen: dict[str, list[bool]] = {"train": [], "val": [], "hooks": []}

    class Noting(Dataset[Any]):
        def __init__(self, stage: str) -> None:
            self.stage = stage

        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> Any:
            seen[self.stage].append(torch.is_grad_enabled())
            return X[index], Y[index]

    class Hooks(Callback):
        def on_before_train_batch(
            self, trainer: Any, batch_x: Any, batch_y: Any, batch_idx: int
        ) -> None:
            seen["hooks"].append(torch.is_grad_enabled())

        def on_after_train_batch(self, trainer: Any, metrics: Any, batch_idx: int) -> None:
            seen["hooks"].append(torch.is_grad_enabled())

        def on_after_train_epoch(self, trainer: Any, task: Any, metrics: Any) -> None:
            seen["hooks"].append(torch.is_grad_enabled())

    trainer = trainer_of(linear(), callbacks=Hooks())
    trainer.fit(DataLoader(Noting("train"), 2), DataLoader(Noting("val"), 2))
    assert seen == {"train": [True] * 4, "val": [False] * 4, "hooks": [False] * 5}


def test_a_control_without_gradients_learns_no_code() -> None:
    model = linear()
    loader, codes = latents("data set")
    opt = torch.optim.Adam([*model.parameters(), codes], 0.1)
    before = copy.deepcopy(codes)
    with torch.no_grad():
        batches = list(loader)
    trainer_of(model, opt=opt).fit(batches)
    assert torch.equal(codes, before)


def test_a_search_leaves_out_mini_batches_that_weigh_nothing() -> None:
    model = linear()
    found = trainer_of(model, positive).find_lr(
        EMPTY_SECOND, max_batch=6, max_lr=1e-4, batch_size=num_positive
    )
    assert len(found.lrs) == len(found.losses) == 6
    assert all(map(math.isfinite, found.losses)) and found.lrs == sorted(set(found.lrs))
    nothing = trainer_of(model, positive).find_lr(
        EMPTY_SECOND[1:2], max_batch=3, batch_size=num_positive
    )
    assert nothing.lrs == nothing.losses == []
