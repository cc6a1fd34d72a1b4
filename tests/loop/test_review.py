"""What a close reading of the loop found, one rule each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from deepepochs import Callback, EpochTask, Optimizer, Trainer, TrainerBase
from deepepochs.errors import ConfigError, NotFiniteError


def weight() -> list[nn.Parameter]:
    return [nn.Parameter(torch.ones(1))]


class Eager(torch.optim.SGD):
    """Its step wants more than a loop can know."""

    def step(self, closure, *, again):  # type: ignore[no-untyped-def,override]
        return None


def test_an_optimizer_that_needs_more_than_a_closure_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"Eager.step needs closure, again"):
        Optimizer(Eager(weight(), lr=0.1))


class Batches:
    """A loader of mini-batches `[N, 3]` of given sizes, the target being ones."""

    def __init__(self, *sizes: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.items = [(torch.randn(n, 3, generator=generator), torch.ones(n, 1)) for n in sizes]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


def summed(model_out: Tensor, targets: Tensor) -> Tensor:
    """A mean that is 0, not NaN, where there is nothing."""
    return ((model_out - targets) ** 2).sum() / max(len(targets), 1)


def trained(loader: Any, **options: Any) -> Tensor:
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    options = {"epochs": 1, "show_info": False, "device": "cpu", **options}
    Trainer(model, options.pop("loss", summed), opt, **options).fit(loader)
    return model.weight.detach()


@pytest.mark.parametrize("sizes", [(0, 2, 3), (2, 0, 3), (2, 3, 0)])
def test_an_empty_batch_in_a_window_weighs_nothing(sizes: tuple[int, ...]) -> None:
    without = trained(Batches(2, 3), grad_accumulate=2)
    assert torch.allclose(trained(Batches(*sizes), grad_accumulate=3), without, atol=1e-7)


def test_a_window_of_empty_batches_alone_changes_nothing() -> None:
    alone = trained(Batches(0, 0), grad_accumulate=2, on_nan="ignore")
    assert torch.equal(alone, trained(Batches(0), on_nan="ignore"))


def undefined_without(*, ones: bool) -> Any:
    """A loss that is NaN in mini-batches of two, or in all of them, and changes no weight."""

    def loss(model_out: Tensor, targets: Tensor) -> Tensor:
        is_whole = len(targets) == 2 or ones
        return model_out.sum() * 0 + (float("nan") if is_whole else 0.0)

    return loss


class Seeing(torch.optim.lr_scheduler.ReduceLROnPlateau):
    """Notes the losses that it is fed."""

    def __init__(self, opt: torch.optim.Optimizer) -> None:
        self.losses: list[float] = []
        super().__init__(opt)

    def step(self, metrics: Any, epoch: int | None = None) -> None:
        self.losses.append(float(metrics))
        super().step(metrics)


class InParts(EpochTask):
    """Hands each mini-batch to the loss in two parts."""

    def train_step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> None:
        for x, y in ((batch_x[0][:1], batch_y[:1]), (batch_x[0][1:], batch_y[1:])):
            adjust = len(y) / len(batch_y)
            self.loss(self.model(x), y, loss_adjust=adjust, do_optimize=False, do_metric=False)
        self.optimize()


@pytest.mark.parametrize("task", [EpochTask, InParts])
@pytest.mark.parametrize(("window", "steps"), [(1, [[0], [1], [2]]), (2, [[0, 1], [2]])])
def test_a_scheduler_on_steps_is_fed_the_mean_loss_of_all_that_the_step_is_of(
    task: type[EpochTask], window: int, steps: list[list[int]]
) -> None:
    model = nn.Linear(3, 1)
    loader = Batches(4, 2, 3)
    opt = torch.optim.SGD(model.parameters(), lr=0.0)
    scheduler = Seeing(opt)
    options: dict[str, Any] = {"epochs": 1, "show_info": False, "device": "cpu"}
    trainer = Trainer(
        model, summed, Optimizer(opt, scheduler, "step"), grad_accumulate=window, **options
    )
    trainer.fit(train_tasks=task(loader))
    joined = [
        [torch.cat(parts) for parts in zip(*(loader.items[i] for i in s), strict=True)]
        for s in steps
    ]
    with torch.no_grad():
        means = [float(summed(model(x), y)) for x, y in joined]
    assert scheduler.losses == pytest.approx(means)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_loss_that_is_not_finite_is_told_before_it_spoils_the_weights(bad: float) -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    before = model.weight.detach().clone()
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    options: dict[str, Any] = {"epochs": 1, "show_info": False, "device": "cpu"}
    trainer = Trainer(model, lambda model_out, y: model_out.mean() * bad, opt, **options)
    text = r"^The loss is (nan|-?inf) in epoch 1, training batch 1 of 1, though its inputs"
    with pytest.raises(NotFiniteError, match=text):
        trainer.fit(Batches(2))
    assert torch.equal(model.weight, before)
    assert model.weight.grad is None


def test_a_loss_that_is_not_finite_is_warned_of_once_where_asked() -> None:
    with pytest.warns(RuntimeWarning, match="The loss is nan") as caught:
        trained(Batches(2), on_nan="warn", loss=undefined_without(ones=True))
    assert len([w for w in caught if "The loss is" in str(w.message)]) == 1  # not at the end again


class Reads(Callback):
    def on_after_train_batch(self, trainer: TrainerBase, metrics: Any, batch_idx: int) -> None:
        assert dict(metrics).keys() == {"loss"}


def test_each_mini_batch_is_warned_of_once_though_a_callback_reads_its_loss() -> None:
    with pytest.warns(RuntimeWarning, match="The loss is nan") as caught:
        loss = undefined_without(ones=False)
        trained(Batches(2, 1, 2), on_nan="warn", loss=loss, callbacks=Reads())
    told = [str(w.message) for w in caught if "The loss is" in str(w.message)]
    assert [text.split("batch ")[1][0] for text in told] == ["1", "3"]


class Named(Trainer):
    """Its loader yields what only it can split."""

    def prepare_data(self, batch_data: Any, to_device: bool = True) -> tuple[Any, Any]:
        return (batch_data["x"],), batch_data["y"]


def test_predict_splits_as_the_trainer_does() -> None:
    model = nn.Linear(3, 1)
    loader = [{"x": x, "y": y} for x, y in Batches(2, 3)]
    options: dict[str, Any] = {"show_info": False, "device": "cpu"}
    predicted = Named(model, summed, **options).predict(loader)
    with torch.no_grad():
        assert torch.equal(predicted, model(torch.cat([batch["x"] for batch in loader])))


class Pair(NamedTuple):
    left: Any
    right: Any


def kinds(value: Any) -> Any:
    """The classes of a nested value."""
    if isinstance(value, dict):
        return type(value), {key: kinds(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value), [kinds(item) for item in value]
    return type(value)


@pytest.mark.parametrize("loss", [summed, None])
@pytest.mark.parametrize(
    "batch",
    [
        [torch.ones(2, 3), torch.ones(2)],
        [(torch.ones(2, 3), [torch.ones(2)]), [torch.ones(2), torch.ones(2)]],
        [Pair(torch.ones(2), [torch.ones(2)]), {"a": [torch.ones(2)]}],
        [nn.utils.rnn.pack_sequence([torch.ones(2, 3)]), ["a", "b"]],
        {"x": (torch.ones(2), [1, 2])},
    ],
)
def test_a_batch_has_the_same_classes_whether_it_is_moved_or_not(batch: Any, loss: Any) -> None:
    trainer = Trainer(nn.Linear(3, 1), loss, show_info=False, device="cpu")
    moved, left = (trainer.prepare_data(batch, to_device=flag) for flag in (True, False))
    assert kinds(moved) == kinds(left)
