"""Accumulated gradients equal those of the joined mini-batch, whatever the sizes of the pieces."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from deepepochs import Callback, EpochTask, Optimizer, Trainer, batches, concat

Pair = tuple[Tensor, Tensor]

SIZES = {
    "equal": [4, 4, 4, 4, 4, 4],
    "last one small": [8, 8, 8, 8, 8, 3],
    "ragged": [5, 3, 8, 1, 7, 2, 6],
    "ones": [1, 1, 1, 1, 1],
    "first one small": [1, 9, 9, 4],
    "a single one": [6],
}
OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda weights: torch.optim.SGD(weights, lr=0.5, momentum=0.9),
    "adam": lambda weights: torch.optim.Adam(weights, lr=0.01),
}


class NoLength:
    """A loader that does not know how long it is."""

    def __init__(self, pairs: list[Pair]) -> None:
        self.pairs = pairs

    def __iter__(self) -> Iterator[Pair]:
        return iter(self.pairs)


def cut(digits: TensorDataset, sizes: list[int]) -> list[Pair]:
    """Mini-batches of these sizes, in 64 bits."""
    images, labels = digits.tensors
    starts = [sum(sizes[:index]) for index in range(len(sizes))]
    return [
        (images[start : start + size].double(), labels[start : start + size])
        for start, size in zip(starts, sizes, strict=True)
    ]


def joined(pairs: list[Pair], num: int) -> list[Pair]:
    """Every `num` neighbours as one mini-batch."""
    groups = [pairs[start : start + num] for start in range(0, len(pairs), num)]
    return [(torch.cat([x for x, _ in g]), torch.cat([y for _, y in g])) for g in groups]


def make_model() -> nn.Module:
    torch.manual_seed(2)
    return nn.Sequential(nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 10)).double()


def weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def by_hand(pairs: list[Pair], optimizer: str, epochs: int = 2) -> Tensor:
    model = make_model()
    opt = OPTIMIZERS[optimizer](model.parameters())
    for _ in range(epochs):
        for x, y in pairs:
            opt.zero_grad()
            F.cross_entropy(model(x), y).backward()
            opt.step()
    return weights(model)


def by_library(
    loader: Any, optimizer: str = "sgd", task_class: Any = EpochTask, **options: Any
) -> Tensor:
    model = make_model()
    opt = OPTIMIZERS[optimizer](model.parameters())
    options = {"epochs": 2, "show_info": False, **options}
    trainer = Trainer(model, F.cross_entropy, opt, **options)
    trainer.fit(train_tasks=task_class(loader))
    return weights(model)


def is_close(one: Tensor, two: Tensor) -> bool:
    return torch.allclose(one, two, rtol=0, atol=1e-10)


@pytest.mark.parametrize("loader", [list, NoLength])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("num", [2, 3, 4, 100])
@pytest.mark.parametrize("sizes", SIZES)
def test_grad_accumulate_equals_the_big_batch(
    digits: TensorDataset, sizes: str, num: int, optimizer: str, loader: Any
) -> None:
    pairs = cut(digits, SIZES[sizes])
    found = by_library(loader(pairs), optimizer, grad_accumulate=num)
    assert is_close(found, by_hand(joined(pairs, num), optimizer))


@pytest.mark.parametrize("sizes", ["ragged", "first one small"])
def test_a_plain_mean_of_the_losses_would_not_equal_the_big_batch(
    digits: TensorDataset, sizes: str
) -> None:
    pairs = cut(digits, SIZES[sizes])
    model = make_model()
    opt = OPTIMIZERS["sgd"](model.parameters())
    for _ in range(2):
        for start in range(0, len(pairs), 2):
            group = pairs[start : start + 2]
            for x, y in group:
                (F.cross_entropy(model(x), y) / len(group)).backward()
            opt.step()
            opt.zero_grad()
    assert not is_close(weights(model), by_hand(joined(pairs, 2), "sgd"))
    assert not is_close(by_hand(pairs, "sgd"), by_hand(joined(pairs, 2), "sgd"))


def test_accumulation_in_32_bits_is_as_near_to_the_big_batch_as_rounding_allows(
    digits: TensorDataset,
) -> None:
    pairs = [(x.float(), y) for x, y in cut(digits, SIZES["ragged"])]

    def run(loader: list[Pair], num: int) -> Tensor:
        model = make_model().float()
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        trainer = Trainer(
            model, F.cross_entropy, opt, epochs=2, show_info=False, grad_accumulate=num
        )
        trainer.fit(loader)
        return weights(model)

    assert torch.allclose(run(pairs, 3), run(joined(pairs, 3), 1), rtol=0, atol=1e-6)


def test_the_batch_size_function_gives_the_weights_of_the_window(digits: TensorDataset) -> None:
    pairs = cut(digits, [4, 6, 5, 5])

    def twice_for_the_small(batch_x: Any, batch_y: Any) -> int:
        return 8 if len(batch_y) == 4 else 5

    model = make_model()
    opt = OPTIMIZERS["sgd"](model.parameters())
    trainer = Trainer(model, F.cross_entropy, opt, epochs=1, show_info=False, grad_accumulate=2)
    trainer.fit(pairs, batch_size=twice_for_the_small)
    control = make_model()
    opt = OPTIMIZERS["sgd"](control.parameters())
    for (x1, y1), (x2, y2) in ((pairs[0], pairs[1]), (pairs[2], pairs[3])):
        one, two = twice_for_the_small(x1, y1), twice_for_the_small(x2, y2)
        loss = F.cross_entropy(control(x1), y1) * one + F.cross_entropy(control(x2), y2) * two
        (loss / (one + two)).backward()
        opt.step()
        opt.zero_grad()
    assert is_close(weights(model), weights(control))


@pytest.mark.parametrize(("num_batches", "num", "steps"), [(6, 3, 2), (7, 3, 3), (2, 5, 1)])
@pytest.mark.parametrize("loader", [list, NoLength])
def test_there_is_one_step_of_optimizer_and_schedule_for_each_window(
    digits: TensorDataset, num_batches: int, num: int, steps: int, loader: Any
) -> None:
    model = make_model()
    opt = torch.optim.SGD(model.parameters(), lr=1.0)
    schedule = torch.optim.lr_scheduler.StepLR(opt, 1, gamma=0.5)
    trainer = Trainer(
        model, F.cross_entropy, Optimizer(opt, schedule, "step"), epochs=2, show_info=False,
        grad_accumulate=num,
    )  # fmt: skip
    trainer.fit(loader(cut(digits, [2] * num_batches)))
    assert trainer.progress.num_steps == 2 * steps
    assert trainer.progress.num_train_batches == 2 * num_batches
    assert opt.param_groups[0]["lr"] == 0.5 ** (2 * steps)


def test_losses_and_metrics_of_the_epoch_are_those_met_on_the_way(digits: TensorDataset) -> None:
    def hit_rate(preds: Tensor, targets: Tensor) -> Tensor:
        return (preds.argmax(1) == targets).double().mean()

    pairs = cut(digits, SIZES["ragged"])
    model = make_model()
    with torch.no_grad():
        out = [(model(x), y) for x, y in pairs]
    opt = torch.optim.SGD(model.parameters(), lr=0.0)
    trainer = Trainer(
        model, F.cross_entropy, opt, epochs=1, metrics=hit_rate, show_info=False, grad_accumulate=3
    )
    train = trainer.fit(pairs)["train"]
    whole, targets = torch.cat([o for o, _ in out]), torch.cat([y for _, y in out])
    assert train["loss"][0] == pytest.approx(F.cross_entropy(whole, targets).item(), abs=1e-12)
    assert train["hit_rate"][0] == hit_rate(whole, targets).item()


# By hand: a mini-batch cut into parts.


class Parts(EpochTask):
    def train_step(self, batch_x: Any, batch_y: Any, part_size: int = 3, **step_args: Any) -> None:
        outputs, total = [], torch.zeros(())
        for part_x, part_y in batches([batch_x[0], batch_y], part_size):
            share = len(part_y) / len(batch_y)
            model_out = self.model(part_x)
            value = self.loss(
                model_out, part_y, loss_adjust=share, do_optimize=False, do_metric=False
            )
            outputs.append(model_out)
            total = total + value.detach() * share
        self.optimize()
        self.do_metric(total, concat(outputs), batch_y)


@pytest.mark.parametrize("part_size", [1, 2, 3, 4, 7, 100])
@pytest.mark.parametrize("sizes", SIZES)
def test_parts_of_a_mini_batch_equal_the_whole(
    digits: TensorDataset, sizes: str, part_size: int
) -> None:
    def hit_rate(preds: Tensor, targets: Tensor) -> Tensor:
        return (preds.argmax(1) == targets).double().mean()

    def run(task: EpochTask) -> tuple[Tensor, Any]:
        model = make_model()
        opt = OPTIMIZERS["sgd"](model.parameters())
        trainer = Trainer(
            model, F.cross_entropy, opt, epochs=2, metrics=hit_rate, show_info=False,
            auto_traindata_to_device=False,
        )  # fmt: skip
        history = trainer.fit(train_tasks=task)
        assert trainer.progress.num_steps == 2 * len(SIZES[sizes])
        return weights(model), history["train"]

    pairs = cut(digits, SIZES[sizes])
    found, train = run(Parts(pairs, part_size=part_size))
    whole, plain = run(EpochTask(pairs))
    assert is_close(found, whole)
    assert [float(v) for v in train["loss"]] == pytest.approx([float(v) for v in plain["loss"]])
    assert train["hit_rate"] == plain["hit_rate"]


@pytest.mark.parametrize("num", [2, 3, 100])
def test_parts_by_hand_and_grad_accumulate_together_equal_the_big_batch(
    digits: TensorDataset, num: int
) -> None:
    pairs = cut(digits, SIZES["ragged"])
    found = by_library(pairs, task_class=Parts, grad_accumulate=num)
    assert is_close(found, by_hand(joined(pairs, num), "sgd"))


# Several optimizers.


def two_optimizers(model: nn.Module) -> list[torch.optim.Optimizer]:
    first, last = model[0], model[2]  # type: ignore[index]
    return [OPTIMIZERS["sgd"](first.parameters()), OPTIMIZERS["adam"](last.parameters())]


class OneByOne(EpochTask):
    def train_step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> None:
        model_out = self.model(*batch_x)
        value = self.loss_fn(model_out, batch_y)
        self.backward(value)
        self.optimize(1)
        self.optimize(0)
        self.do_metric(value, model_out, batch_y)


@pytest.mark.parametrize("loader", [list, NoLength])
@pytest.mark.parametrize("task_class", [OneByOne, EpochTask])
@pytest.mark.parametrize("num", [1, 2, 4])
def test_two_optimizers_stepped_by_index_or_together_equal_the_big_batch(
    digits: TensorDataset, num: int, task_class: Any, loader: Any
) -> None:
    pairs = cut(digits, SIZES["ragged"])
    model, control = make_model(), make_model()
    trainer = Trainer(
        model, F.cross_entropy, two_optimizers(model), epochs=2, show_info=False,
        grad_accumulate=num,
    )  # fmt: skip
    trainer.fit(train_tasks=task_class(loader(pairs)))
    opts = two_optimizers(control)
    for x, y in joined(pairs, num) * 2:
        F.cross_entropy(control(x), y).backward()
        for opt in opts:
            opt.step()
            opt.zero_grad()
    assert is_close(weights(model), weights(control))


@pytest.mark.parametrize("num", [1, 3])
def test_two_optimizers_over_the_same_weights_scale_the_gradients_once(
    digits: TensorDataset, num: int
) -> None:
    pairs = cut(digits, SIZES["ragged"])
    model, control = make_model(), make_model()
    make = OPTIMIZERS["sgd"], OPTIMIZERS["adam"]
    opts = [f(model.parameters()) for f in make]
    Trainer(
        model, F.cross_entropy, opts, epochs=2, show_info=False, grad_accumulate=num
    ).fit(pairs)  # fmt: skip
    opts = [f(control.parameters()) for f in make]
    for x, y in joined(pairs, num) * 2:
        control.zero_grad()
        F.cross_entropy(control(x), y).backward()
        for opt in opts:
            opt.step()
    assert is_close(weights(model), weights(control))


class Gan(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.generator = nn.Linear(4, 64)
        self.critic = nn.Sequential(nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, 1))


def realness(score: Tensor, real: float) -> Tensor:
    return F.binary_cross_entropy_with_logits(score, torch.full_like(score, real))


class GanTask(EpochTask):
    def train_step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> None:
        gan: Any = self.model
        real = batch_x[0]
        fake = gan.generator(torch.randn(len(real), 4, dtype=real.dtype))
        self.backward(realness(gan.critic(real), 1.0) + realness(gan.critic(fake.detach()), 0.0))
        self.optimize(1)
        gan.critic.requires_grad_(False)
        self.backward(realness(gan.critic(fake), 1.0))
        gan.critic.requires_grad_(True)
        self.optimize(0)


@pytest.mark.parametrize("num", [1, 2])
@pytest.mark.parametrize("loader", [list, NoLength])
def test_steps_of_a_gan_equal_those_of_the_loop_by_hand(
    digits: TensorDataset, num: int, loader: Any
) -> None:
    pairs = cut(digits, [4, 4, 4, 4, 4])

    def make() -> tuple[Any, list[torch.optim.Optimizer]]:
        torch.manual_seed(4)
        gan = Gan().double()
        both = gan.generator.parameters(), gan.critic.parameters()
        return gan, [torch.optim.Adam(weights) for weights in both]

    gan, opts = make()
    trainer = Trainer(gan, F.mse_loss, opts, epochs=2, show_info=False, grad_accumulate=num)
    trainer.fit(train_tasks=GanTask(loader(pairs)))
    found = weights(gan)
    gan, opts = make()
    for _ in range(2):
        for index, (real, _) in enumerate(pairs):
            share = 1 / min(num, len(pairs) - index // num * num)
            # A loader without length says only afterwards that its last window is shorter.
            closes = (index + 1) % num == 0 or (loader is list and index == len(pairs) - 1)
            fake = gan.generator(torch.randn(len(real), 4, dtype=real.dtype))
            critic_loss = realness(gan.critic(real), 1.0) + realness(gan.critic(fake.detach()), 0.0)
            (critic_loss * share).backward()
            if closes:
                opts[1].step()
                opts[1].zero_grad()
            gan.critic.requires_grad_(False)
            (realness(gan.critic(fake), 1.0) * share).backward()
            gan.critic.requires_grad_(True)
            if closes:
                opts[0].step()
                opts[0].zero_grad()
        if not closes:
            for opt in reversed(opts):
                opt.step()
                opt.zero_grad()
    assert is_close(found, weights(gan))
    assert trainer.progress.num_steps == 2 * 2 * -(-len(pairs) // num)


def test_gradients_are_whole_and_scaled_when_the_hook_before_optimize_sees_them(
    digits: TensorDataset,
) -> None:
    seen: list[Tensor] = []

    class Look(Callback):
        def on_before_optimize(self, trainer: Any, optimize_index: int | None) -> None:
            gradients = [p.grad.flatten() for p in trainer.model.parameters()]
            seen.append(torch.cat(gradients))

    pairs = cut(digits, [5, 3, 8, 2])
    by_library(pairs, grad_accumulate=3, callbacks=Look(), epochs=1)
    model = make_model()
    x, y = joined(pairs, 3)[0]
    F.cross_entropy(model(x), y).backward()
    whole = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    assert len(seen) == 2 and is_close(seen[0], whole)
