"""What a close reading of the loop found, one rule each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from deepepochs import Optimizer, Trainer
from deepepochs.errors import ConfigError


def weight() -> list[nn.Parameter]:
    return [nn.Parameter(torch.ones(1))]


class Eager(torch.optim.SGD):
    """Its step wants more than a loop can know."""

    def step(self, closure, *, again):  # type: ignore[no-untyped-def,override]
        return None


@pytest.mark.parametrize("opt", [torch.optim.LBFGS(weight()), Eager(weight(), lr=0.1)])
def test_an_optimizer_that_needs_a_closure_is_refused_by_name(opt: torch.optim.Optimizer) -> None:
    with pytest.raises(ConfigError, match=f"{type(opt).__name__} .*closure"):
        Optimizer(opt)


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
    Trainer(model, summed, opt, epochs=1, show_info=False, device="cpu", **options).fit(loader)
    return model.weight.detach()


@pytest.mark.parametrize("sizes", [(0, 2, 3), (2, 0, 3), (2, 3, 0)])
def test_an_empty_batch_in_a_window_weighs_nothing(sizes: tuple[int, ...]) -> None:
    without = trained(Batches(2, 3), grad_accumulate=2)
    assert torch.allclose(trained(Batches(*sizes), grad_accumulate=3), without, atol=1e-7)


def test_a_window_of_empty_batches_alone_changes_nothing() -> None:
    alone = trained(Batches(0, 0), grad_accumulate=2, on_nan="ignore")
    assert torch.equal(alone, trained(Batches(0), on_nan="ignore"))
