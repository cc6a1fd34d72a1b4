"""on_oom='split': a mini-batch that does not fit is computed in parts, with the gradients of the whole."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from deepepochs import Callback, EpochTask, GradClipCallback, Optimizer, Trainer
from deepepochs.errors import ConfigError

X = torch.randn(44, 4, generator=torch.Generator().manual_seed(1))
DL = DataLoader(TensorDataset(X, X[:, :3].argmax(1)), batch_size=16)
ON_A_CPU = (
    "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."
)


class Small(nn.Module):
    """A model for ``most`` samples; another number runs out of memory, at its end."""

    def __init__(self, most: int, dropout: float = 0.0, error: Exception | None = None) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(4, 8), nn.BatchNorm1d(8, affine=False), nn.Dropout(dropout), nn.Linear(8, 3)
        )
        self.layers[1].eval()
        self.most = most
        self.error = error or torch.OutOfMemoryError("CUDA out of memory.")
        self.sizes: list[int] = []

    def train(self, mode: bool = True) -> Small:
        super().train(mode)
        self.layers[1].eval()  # a mean over parts is another one
        return self

    def forward(self, x: Tensor) -> Tensor:
        self.sizes.append(len(x))
        out: Tensor = self.layers(x)
        if len(x) > self.most and self.training:
            raise self.error
        return out


def trained(most: int, loader: Any = DL, **options: Any) -> tuple[Trainer, Any]:
    torch.manual_seed(0)
    model = Small(most, options.pop("dropout", 0.0), options.pop("error", None))
    of_torch = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    opt = Optimizer(of_torch, **options.pop("schedule", {}))
    task = options.pop("task", EpochTask)
    options = {"epochs": 2, "metrics": "accuracy", "console": "off", **options}
    trainer = Trainer(model, F.cross_entropy, opt, on_oom="split", **options)
    return trainer, trainer.fit(train_tasks=task(loader))


def assert_alike(one: tuple[Trainer, Any], other: tuple[Trainer, Any]) -> None:
    for weight, expected in zip(
        one[0].model.parameters(), other[0].model.parameters(), strict=True
    ):
        assert torch.allclose(weight, expected, atol=1e-6)
    assert one[1]["train"]["loss"] == pytest.approx(other[1]["train"]["loss"], abs=1e-6)
    assert one[1]["train"]["accuracy"] == other[1]["train"]["accuracy"]
    assert one[0].progress.num_steps == other[0].progress.num_steps


split = pytest.mark.filterwarnings("ignore:A mini-batch of .* samples does not fit")


@split
@pytest.mark.parametrize("most", [1, 3, 8])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_parts_give_the_gradients_and_values_of_the_whole(most: int, accumulate: int) -> None:
    options: dict[str, Any] = {
        "grad_accumulate": accumulate,
        "callbacks": GradClipCallback(0.05, norm_type=2),
    }
    assert_alike(trained(most, **options), trained(16, **options))


@split
def test_what_nothing_is_split_of_has_the_bits_of_a_plain_fit() -> None:
    torch.manual_seed(0)
    model = Small(16, 0.5)
    opt = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    Trainer(model, F.cross_entropy, opt, 2, metrics="accuracy", console="off").fit(DL)
    other, _ = trained(16, dropout=0.5)
    assert all(map(torch.equal, model.parameters(), other.model.parameters()))


@split
def test_halves_are_tried_and_then_their_halves() -> None:
    trainer, _ = trained(4, epochs=1)
    assert trainer.model.sizes == [16, 8, 4, 4, 4, 4] * 2 + [12, 6, 3, 3, 3, 3]


@split
def test_a_repeated_step_draws_what_the_first_try_drew() -> None:
    one, other = (trained(5, dropout=0.5)[0].model for _ in range(2))
    assert all(map(torch.equal, one.parameters(), other.parameters()))


def test_it_is_said_once_with_the_sizes() -> None:
    with pytest.warns(RuntimeWarning, match="16 samples does not fit.*in parts of 4") as told:
        trained(4)
    assert len(told) == 1
    with pytest.warns(RuntimeWarning, match="parts of 8"):
        trained(8, error=RuntimeError(ON_A_CPU))


class Returning(EpochTask):
    """A step of one's own, in its long form."""

    def train_step(self, batch_x: Any, batch_y: Any, **_: Any) -> Any:
        out = self.model(*batch_x)
        value = self.loss_fn(out, batch_y)
        self.backward(value)
        self.optimize()
        self.do_metric(value, out, batch_y)
        return {"mean": out.detach().mean()}


@split
def test_a_step_of_ones_own_is_repeated_and_its_values_are_joined() -> None:
    whole, parts = trained(16, task=Returning), trained(5, task=Returning)
    assert_alike(parts, whole)
    assert parts[1]["train"]["mean"] == pytest.approx(whole[1]["train"]["mean"], abs=1e-6)


@split
def test_hooks_of_the_optimizer_are_called_once() -> None:
    calls: list[str] = []

    class Looks(Callback):
        def on_before_optimize(self, **_: Any) -> None:
            calls.append("before")

        def on_after_optimize(self, **_: Any) -> None:
            calls.append("after")

    trained(2, callbacks=Looks(), epochs=1)
    assert calls == ["before", "after"] * 3


@split
def test_a_function_of_weights_weighs_the_parts() -> None:
    def tokens(batch_x: Any, batch_y: Tensor) -> float:
        return float((batch_y + 1).sum())

    def loss(out: Tensor, y: Tensor) -> Tensor:
        return (F.cross_entropy(out, y, reduction="none") * (y + 1)).sum() / (y + 1).sum()

    found = []
    for most in (16, 5):
        torch.manual_seed(0)
        model = Small(most)
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        trainer = Trainer(model, loss, opt, 2, on_oom="split", console="off")
        history = trainer.fit(DL, batch_size=tokens)
        found.append((model.layers[3].weight.detach(), history["train"]["loss"]))
    assert torch.allclose(found[0][0], found[1][0], atol=1e-6)
    assert found[0][1] == pytest.approx(found[1][1], abs=1e-6)


def test_one_sample_that_does_not_fit_is_raised() -> None:
    with pytest.raises(Exception, match="out of memory"):
        trained(0)


def test_other_errors_are_raised_at_once() -> None:
    with pytest.raises(RuntimeError, match="quite another"):
        trained(8, error=RuntimeError("quite another"))


@split
def test_a_step_with_steps_in_its_middle_is_refused() -> None:
    class Twice(EpochTask):
        def train_step(self, batch_x: Any, batch_y: Any, **_: Any) -> None:
            self.loss(self.model(*batch_x), batch_y, do_optimize=False)
            self.optimize(0)

    with pytest.raises(ConfigError, match=r"call self.optimize\(\) once"):
        trained(8, task=Twice)


def test_a_wrong_value_and_a_closure_are_told_when_the_trainer_is_made() -> None:
    model = nn.Linear(4, 3)
    with pytest.raises(ConfigError, match="on_oom='halve': give one of 'raise', 'split'"):
        Trainer(model, on_oom="halve")
    with pytest.raises(ConfigError, match="an optimizer that needs a closure"):
        Trainer(model, F.mse_loss, torch.optim.LBFGS(model.parameters()), on_oom="split")


@split
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_fit_with_split_mini_batches_resumes_to_the_bit(accumulate: int) -> None:
    states: list[Any] = []

    class Saves(Callback):
        def on_after_train_batch(self, trainer: Any, **_: Any) -> None:
            trainer.request_save(lambda t: states.append(copy.deepcopy(t.state_dict())))

    def shuffled() -> Any:
        return DataLoader(DL.dataset, 16, shuffle=True)

    options: dict[str, Any] = {"grad_accumulate": accumulate, "dropout": 0.5}
    whole, history = trained(5, shuffled(), callbacks=Saves(), **options)
    assert len(states) == 6
    for state in [*states]:
        torch.manual_seed(9)
        model = Small(5, 0.5)
        opt = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        trainer = Trainer(
            model, F.cross_entropy, opt, 2, metrics="accuracy", console="off", on_oom="split",
            grad_accumulate=accumulate, callbacks=Saves(),
        )  # fmt: skip
        trainer.load_state_dict(state)
        trainer.fit(shuffled())
        assert dict(trainer.history) == dict(history)
        assert all(map(torch.equal, model.parameters(), whole.model.parameters()))


def test_by_default_the_error_is_raised() -> None:
    with pytest.raises(Exception, match="out of memory"):
        Trainer(Small(4), F.cross_entropy, epochs=1, console="off").fit(DL)
