"""Optimizers whose step is given a closure: LBFGS, and SAM with its two passes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from deepepochs import Callback, EpochTask, GradClipCallback, Optimizer, Trainer
from deepepochs.errors import ConfigError, StepError


def made() -> tuple[nn.Sequential, DataLoader[Any]]:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(40, 4, generator=generator)
    labels = inputs[:, :3].argmax(1)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    return model, DataLoader(TensorDataset(inputs, labels), batch_size=20)


def lbfgs(model: nn.Module, **options: Any) -> torch.optim.LBFGS:
    return torch.optim.LBFGS(model.parameters(), **{"lr": 0.5, "max_iter": 5, **options})


def by_hand(epochs: int, *, clip: float | None = None, **options: Any) -> tuple[Any, list[float]]:
    """The loop of torch's own example, with the loss of each epoch at the first evaluations."""
    model, loader = made()
    opt = lbfgs(model, **options)
    means = []
    for _ in range(epochs):
        total = 0.0
        for inputs, labels in loader:

            def closure(inputs: Tensor = inputs, labels: Tensor = labels) -> Tensor:
                opt.zero_grad()
                loss = F.cross_entropy(model(inputs), labels)
                loss.backward()
                if clip is not None:
                    nn.utils.clip_grad_norm_(model.parameters(), clip)
                return loss.detach()

            total += float(opt.step(closure)) * len(inputs)  # type: ignore[arg-type]
        means.append(total / 40)
    return model, means


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(map(torch.equal, one.state_dict().values(), other.state_dict().values()))


class Closing(EpochTask):
    """A step of one's own, for all stages."""

    def step(self, batch_x: Any, batch_y: Any, **_: Any) -> None:
        def closure() -> Any:
            return self.loss(self.call_model(batch_x), batch_y, do_optimize=False)

        self.optimize(closure=closure)


class ByHand(EpochTask):
    """A step that leaves nothing to the verb `loss`."""

    def train_step(self, batch_x: Any, batch_y: Any, **_: Any) -> None:
        def closure() -> Tensor:
            out = self.model(*batch_x)
            value: Tensor = self.loss_fn(out, batch_y)
            self.backward(value)
            self.do_metric(value, out, batch_y)
            return value

        self.optimize(0, closure=closure)


@pytest.mark.parametrize("search", [None, "strong_wolfe"])
@pytest.mark.parametrize("step", ["default", "own", "by hand"])
def test_lbfgs_gives_the_bits_of_the_loop_by_hand(step: str, search: str | None) -> None:
    expected, losses = by_hand(3, line_search_fn=search)
    model, loader = made()
    trainer = Trainer(
        model, F.cross_entropy, lbfgs(model, line_search_fn=search), epochs=3, console="off"
    )
    kind = {"default": EpochTask, "own": Closing, "by hand": ByHand}[step]
    history = trainer.fit(train_tasks=kind(loader))
    assert same(model, expected)
    assert history["train"]["loss"] == losses
    assert trainer.progress.num_steps == 6  # one a mini-batch, whatever it has evaluated


def test_a_closure_is_called_once_in_validation() -> None:
    model, loader = made()
    trainer = Trainer(model, F.cross_entropy, lbfgs(model), epochs=1, console="off")
    history = trainer.fit(train_tasks=Closing(loader), val_tasks=Closing(loader))
    with torch.no_grad():
        losses = [F.cross_entropy(model(inputs), labels).item() for inputs, labels in loader]
    assert history["val"]["loss"] == [sum(losses) / 2]


def test_gradients_are_clipped_in_each_evaluation() -> None:
    expected, losses = by_hand(2, clip=0.05)
    model, loader = made()
    clip = GradClipCallback(0.05, norm_type=2)
    trainer = Trainer(model, F.cross_entropy, lbfgs(model), epochs=2, callbacks=clip, console="off")
    assert trainer.fit(loader)["train"]["loss"] == losses
    assert same(model, expected)


class Counts(Callback):
    def __init__(self) -> None:
        super().__init__()
        self.calls: dict[str, int] = {}

    def count(self, name: str) -> None:
        self.calls[name] = self.calls.get(name, 0) + 1

    def on_before_optimize(self, **_: Any) -> None:
        self.count("before_optimize")

    def on_after_optimize(self, **_: Any) -> None:
        self.count("after_optimize")

    def on_after_backward(self, **_: Any) -> None:
        self.count("after_backward")

    def on_train_metrics(self, **_: Any) -> None:
        self.count("metrics")


def test_hooks_of_the_step_are_called_once_and_those_of_the_gradients_in_each_evaluation() -> None:
    model, loader = made()
    counts = Counts()
    Trainer(
        model, F.cross_entropy, lbfgs(model), epochs=1, callbacks=counts, console="off",
        metrics="accuracy",
    ).fit(loader)  # fmt: skip
    evaluations = counts.calls["after_backward"]
    assert evaluations > 4
    assert counts.calls == {
        "after_backward": evaluations, "before_optimize": evaluations, "metrics": 2,
        "after_optimize": 2,
    }  # fmt: skip


def test_a_schedule_on_steps_follows_the_loss_of_the_first_evaluation() -> None:
    seen: list[float] = []

    class Follows:
        def step(self, loss: Any) -> None:
            seen.append(float(loss))

        def state_dict(self) -> dict[str, Any]:
            return {}

        def load_state_dict(self, state: dict[str, Any]) -> None: ...

        def get_last_lr(self) -> list[float]:
            return []

    model, loader = made()
    opt = Optimizer(lbfgs(model), Follows(), sched_on="step")
    history = Trainer(model, F.cross_entropy, opt, epochs=1, console="off").fit(loader)
    assert sum(seen) / 2 == pytest.approx(history["train"]["loss"][0], abs=1e-7)


def test_a_line_search_may_try_weights_without_a_finite_loss() -> None:
    class Wild(torch.optim.SGD):
        """It goes much too far, looks, and comes back."""

        def step(self, closure: Any) -> Any:  # type: ignore[override]
            loss = closure()
            (weight,) = self.param_groups[0]["params"]
            kept = weight.detach().clone()
            with torch.no_grad():
                weight.fill_(float("nan"))
                closure()
                weight.copy_(kept)
            closure()
            super().step()
            return loss

    model = nn.Linear(1, 1, bias=False)
    before = model.weight.detach().clone()
    data = [(torch.ones(2, 1), torch.ones(2, 1))]
    history = Trainer(
        model, F.mse_loss, Wild(model.parameters(), lr=0.1), epochs=1, console="off"
    ).fit(data)
    gradient = 2 * (before - 1)
    assert torch.allclose(model.weight, before - 0.1 * gradient)
    assert history["train"]["loss"][0] == pytest.approx(float((before - 1) ** 2))


def trained(**options: Any) -> Trainer:
    model, _ = made()
    return Trainer(
        model, F.cross_entropy, options.pop("opt", None) or lbfgs(model), epochs=1,
        console="off", **options,
    )  # fmt: skip


def test_accumulation_is_refused_when_the_trainer_is_made() -> None:
    with pytest.raises(ConfigError, match=r"grad_accumulate=2 does not work with LBFGS"):
        trained(grad_accumulate=2)


def test_a_closure_is_refused_where_gradients_are_accumulated() -> None:
    model, loader = made()
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    trainer = Trainer(model, F.cross_entropy, opt, 1, grad_accumulate=2, console="off")
    with pytest.raises(ConfigError, match="leave out grad_accumulate"):
        trainer.fit(train_tasks=Closing(loader))


def test_a_closure_for_several_optimizers_is_refused() -> None:
    model, loader = made()
    opts = [lbfgs(model[0]), torch.optim.SGD(model[2].parameters(), lr=0.1)]
    with pytest.raises(ConfigError, match=r"one optimizer, and there are 2.*index, closure"):
        Trainer(model, F.cross_entropy, opts, epochs=1, console="off").fit(loader)


def test_a_step_without_a_closure_says_how_to_write_it() -> None:
    class Plain(EpochTask):
        def train_step(self, batch_x: Any, batch_y: Any, **_: Any) -> None:
            self.loss(self.call_model(batch_x), batch_y)

    _, loader = made()
    with pytest.raises(StepError, match=r"LBFGS computes the loss several times.*closure=lambda"):
        trained().fit(train_tasks=Plain(loader))


def test_a_closure_that_returns_no_loss_says_so() -> None:
    class Silent(EpochTask):
        def train_step(self, batch_x: Any, batch_y: Any, **_: Any) -> None:
            def closure() -> None:
                self.loss(self.call_model(batch_x), batch_y, do_optimize=False)

            self.optimize(closure=closure)

    _, loader = made()
    with pytest.raises(StepError, match="returned None, and the optimizer needs the loss"):
        trained().fit(train_tasks=Silent(loader))


def test_find_lr_works_with_a_closure() -> None:
    _, loader = made()
    trainer = trained()
    before = [weight.detach().clone() for weight in trainer.model.parameters()]
    assert len(trainer.find_lr(loader, max_batch=6).losses) == 6
    assert all(map(torch.equal, before, trainer.model.parameters()))


def test_a_closure_given_by_position_is_told_by_which_name() -> None:
    class Step(EpochTask):
        def train_step(self, batch_x: Any, batch_y: Any) -> None:
            def closure() -> Tensor:
                return self.loss(self.model(*batch_x), batch_y, do_optimize=False)

            self.optimize(closure)  # type: ignore[arg-type]

    model, train_dl = made()
    trainer = Trainer(model, F.cross_entropy, lbfgs(model), epochs=1, console="off")
    with pytest.raises(ConfigError, match=r"self\.optimize\(closure=closure\)"):
        trainer.fit(train_tasks=Step(train_dl))
