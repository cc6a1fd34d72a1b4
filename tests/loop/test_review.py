"""What a close reading of the loop found, one rule each."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from deepepochs import Optimizer
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
