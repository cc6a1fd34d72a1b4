"""The short way into the autograd engine gives the gradients of `torch.autograd.backward`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional as F

from deepepochs import EpochTask, Trainer
from deepepochs.runtime.accelerate import AccelerateRuntime
from deepepochs.runtime.base import LocalRuntime, autograd_engine

DATA = [
    (torch.randn(4, 3, generator=torch.Generator().manual_seed(n)), torch.tensor([0, 1, 1, 0]))
    for n in range(5)
]


@pytest.fixture(autouse=True)
def looked_up_anew() -> Iterator[None]:
    autograd_engine.cache_clear()
    yield
    autograd_engine.cache_clear()


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The losses that go through `torch.autograd.backward`."""
    losses: list[Tensor] = []
    backward = torch.autograd.backward

    def counting(loss: Tensor) -> None:
        losses.append(loss)
        backward(loss)

    monkeypatch.setattr("deepepochs.runtime.base.LocalRuntime.backward", staticmethod(counting))
    return losses


def trained(loss: Any = F.cross_entropy, task: type[EpochTask] = EpochTask) -> list[Any]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2))
    trainer = Trainer(model, loss, epochs=3, show_info=False, grad_accumulate=2)
    history = trainer.fit(train_tasks=task(DATA))
    return [
        *(weight.tolist() for weight in model.parameters()),
        [float(value) for value in history["train"]["loss"]],
    ]


def test_the_engine_is_found_and_used(counted: list[Tensor]) -> None:
    assert autograd_engine() is not None
    trained()
    assert not counted


def changed(*arguments: Any, **options: Any) -> None:
    raise TypeError("takes something else")


@pytest.mark.parametrize("now", [None, changed, lambda *arguments: None])
def test_an_engine_that_has_changed_is_left_alone_and_the_bits_are_the_same(
    now: Any, counted: list[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = trained()
    assert not counted
    autograd_engine.cache_clear()
    with monkeypatch.context() as patched:
        patched.setattr(torch.autograd.graph, "_engine_run_backward", now)
        assert autograd_engine() is None
    assert trained() == expected  # what was found once is kept
    assert len(counted) == 3 * len(DATA)


def test_the_lookup_leaves_no_trace_and_works_where_gradients_are_off() -> None:
    state, enabled = torch.get_rng_state(), torch.is_grad_enabled()
    with torch.no_grad(), torch.device("meta"):
        assert autograd_engine() is not None
        assert not torch.is_grad_enabled()
    assert torch.is_grad_enabled() is enabled
    assert torch.equal(torch.get_rng_state(), state)


def test_a_loss_of_another_class_goes_the_public_way(counted: list[Tensor]) -> None:
    class Named(Tensor):
        pass

    def loss(model_out: Tensor, batch_y: Tensor) -> Tensor:
        return F.cross_entropy(model_out, batch_y).as_subclass(Named)

    assert trained(loss) == trained()
    assert len(counted) == 3 * len(DATA)
    assert all(type(one) is Named for one in counted)


def test_another_device_and_accelerate_go_the_public_way() -> None:
    assert LocalRuntime("cpu").engine is autograd_engine()
    assert LocalRuntime("meta").engine is None
    assert AccelerateRuntime(Accelerator(cpu=True)).engine is None


class Halved(torch.autograd.Function):
    """Changes the gradient it is given in place, which the next step must not see."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0].mul_(0.5)


def test_a_function_that_changes_its_gradient_in_place_changes_no_other_step() -> None:
    def in_place(model_out: Tensor, batch_y: Tensor) -> Any:
        return Halved.apply(F.cross_entropy(model_out, batch_y))  # type: ignore[no-untyped-call]

    def as_factor(model_out: Tensor, batch_y: Tensor) -> Tensor:
        value = F.cross_entropy(model_out, batch_y)
        return value * 0.5 + value.detach() * 0.5

    in_place_weights, as_factor_weights = trained(in_place)[:-1], trained(as_factor)[:-1]
    assert in_place_weights == as_factor_weights


def test_hooks_of_the_loss_see_the_same_as_with_the_public_way(
    counted: list[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[float] = []

    class Hooked(EpochTask):
        def step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> None:
            value = self.loss_fn(self.model(*batch_x), batch_y)
            value.register_hook(lambda gradient: seen.append(gradient.item()))
            self.loss(value, batch_y)

    def given(value: Tensor, batch_y: Tensor) -> Tensor:
        return value if value.ndim == 0 else F.cross_entropy(value, batch_y)

    trained(given, task=Hooked)
    short_way, seen[:] = list(seen), []
    monkeypatch.setattr("deepepochs.runtime.base.autograd_engine", lambda: None)
    trained(given, task=Hooked)
    assert len(seen) == len(counted) == 3 * len(DATA)
    assert seen == short_way


def test_anomaly_mode_names_the_operation() -> None:
    def broken(model_out: Tensor, batch_y: Tensor) -> Tensor:
        zeros = (model_out - model_out.detach()).abs().sqrt()  # of slope infinite times 0
        return F.cross_entropy(zeros, batch_y)

    with (
        torch.autograd.set_detect_anomaly(True),
        pytest.warns(UserWarning, match="Error detected in AbsBackward"),
        pytest.raises(RuntimeError, match="'AbsBackward0' returned nan"),
    ):
        trained(broken)
