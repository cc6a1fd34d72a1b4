"""`Trainer(deterministic=True)`: torch's deterministic operations, for the length of each call."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from deepepochs import Callback, ConfigTypeError, StepError, Trainer
from deepepochs.runtime.deterministic import CUBLAS, deterministic_operations

DATA = [(torch.randn(8, 1, 4), torch.randn(8, 1, 4)) for _ in range(2)]


class Unpooling(nn.Module):
    """With an operation that has no deterministic form."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x: Any) -> Any:
        pooled, where = F.max_pool1d(x * self.weight, 2, return_indices=True)
        return F.max_unpool1d(pooled, where, 2)


def settings() -> tuple[Any, ...]:
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.benchmark,
        os.environ.get(CUBLAS),
    )


@pytest.fixture(params=[False, True], ids=["off before", "warning before"])
def before(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.delenv(CUBLAS, raising=False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    torch.use_deterministic_algorithms(request.param, warn_only=request.param)
    yield settings()
    torch.use_deterministic_algorithms(False)


def trainer(model: nn.Module | None = None, **options: Any) -> Trainer:
    options = {"epochs": 1, "console": "off", "device": "cpu", **options}
    return Trainer(nn.Linear(4, 4) if model is None else model, F.mse_loss, **options)


CALLS = {
    "fit": lambda trainer: trainer.fit(DATA, DATA),
    "test": lambda trainer: trainer.test(DATA),
    "predict": lambda trainer: trainer.predict(DATA),
    "find_lr": lambda trainer: trainer.find_lr(DATA, max_batch=2),
}


@pytest.mark.parametrize("call", CALLS)
def test_it_is_on_in_each_call_and_put_back_after_it(call: str, before: Any) -> None:
    seen = []

    class Looking(nn.Linear):
        def forward(self, x: Any) -> Any:
            seen.append(settings()[:3])
            return super().forward(x)

    CALLS[call](trainer(Looking(4, 4), deterministic=True))
    assert set(seen) == {(True, False, False)}
    assert settings() == before


@pytest.mark.parametrize("call", CALLS)
def test_an_operation_without_a_deterministic_form_is_named_with_what_to_do(
    call: str, before: Any
) -> None:
    if not torch.is_deterministic_algorithms_warn_only_enabled():
        CALLS[call](trainer(Unpooling()))
    with pytest.raises(RuntimeError) as caught:
        CALLS[call](trainer(Unpooling(), deterministic=True))
    assert isinstance(caught.value, StepError)
    problem, remedy = str(caught.value).split("\n")[:2]
    assert "has no deterministic form" in problem and "max_unpool" in problem
    assert "Use another operation" in remedy and "deterministic=True" in remedy
    assert settings() == before


def test_a_test_inside_of_a_fit_leaves_it_on(before: Any) -> None:
    seen = []

    class Testing(Callback):
        def on_after_train_batch(self, trainer: Any, **others: Any) -> None:
            trainer.test(DATA)
            seen.append(settings()[0])

    trainer(deterministic=True, callbacks=Testing()).fit(DATA)
    assert seen == [True, True]
    assert settings() == before


def test_without_it_the_settings_of_the_script_hold(before: Any) -> None:
    seen = []

    class Looking(Callback):
        def on_after_train_batch(self, **others: Any) -> None:
            seen.append(settings())

    trainer(callbacks=Looking()).fit(DATA)
    assert set(seen) == {before}


@pytest.mark.parametrize("given", [None, ":16:8"])
def test_cuda_gets_the_workspace_that_it_needs_unless_the_script_has_set_it(
    given: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(CUBLAS, raising=False)
    if given is not None:
        monkeypatch.setenv(CUBLAS, given)
    with deterministic_operations(torch.device("cuda")):
        assert os.environ[CUBLAS] == (given or ":4096:8")
    assert os.environ.get(CUBLAS) == given


def test_the_losses_are_those_of_a_fit_without_it() -> None:
    def losses(**options: Any) -> Any:
        torch.manual_seed(0)
        return trainer(nn.Linear(4, 4), epochs=3, **options).fit(DATA)["train"]["loss"]

    assert losses(deterministic=True) == losses()


def test_another_value_is_refused() -> None:
    with pytest.raises(ConfigTypeError, match="deterministic='warn' is a str: give True or False"):
        trainer(deterministic="warn")
