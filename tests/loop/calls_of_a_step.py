"""Says how many Python and C calls a step makes that the library takes, as cProfile counts them.

    python calls_of_a_step.py

The step is that of W4 of ``benchmarks/``: ``Linear(8, 2)``, Adam and mini-batches of 32 that are
ready.
"""

from __future__ import annotations

import cProfile
import gc
import itertools
import pstats
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepepochs import Trainer, loop

Batch = tuple[Tensor, Tensor]


@contextmanager
def same_on_every_machine() -> Iterator[None]:
    """Leave out what is a matter of speed, and what others do when they like.

    What is shown ten times a second is shown once, and no garbage is collected, which others may
    have callbacks on.
    """
    gc.collect()
    gc.disable()
    now_s = time.monotonic()
    try:
        with mock.patch.object(loop, "monotonic", itertools.repeat(now_s).__next__):
            yield
    finally:
        gc.enable()


def setting() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Linear(8, 2)
    return model, torch.optim.Adam(model.parameters(), lr=1e-3)


def ready_batches(number: int) -> list[Batch]:
    generator = torch.Generator().manual_seed(7)
    one = torch.randn(32, 8, generator=generator), torch.randint(0, 2, (32,), generator=generator)
    return [one] * number


def train_bare(batches: list[Batch]) -> None:
    """What nobody can leave out: model, loss, backward, step, and no gradients after it."""
    model, opt = setting()
    weights = list(model.parameters())
    for x, y in batches:
        torch.autograd.backward(F.cross_entropy(model(x), y))
        opt.step()
        for weight in weights:
            weight.grad = None


def train_by_hand(batches: list[Batch]) -> None:
    """The loop of a good engineer, with the loss of the epoch."""
    model, opt = setting()
    model.train()
    total, count = torch.zeros(()), 0
    for x, y in batches:
        opt.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        opt.step()
        total += loss.detach() * len(y)
        count += len(y)
    (total / count).item()


def train_by_library(batches: list[Batch]) -> None:
    model, opt = setting()
    Trainer(model, F.cross_entropy, opt, epochs=1, show_info=False).fit(batches)


def calls_per_step(train: Callable[[list[Batch]], None]) -> float:
    """Count the calls of 200 steps, without those of starting and ending."""
    totals = []
    train(ready_batches(5))  # what is imported or cached at the first use
    for number in (50, 250):
        batches = ready_batches(number)
        profiler = cProfile.Profile()
        profiler.enable()
        train(batches)
        profiler.disable()
        totals.append(pstats.Stats(profiler).total_calls)  # type: ignore[attr-defined]
    return (totals[1] - totals[0]) / 200


def main() -> None:
    """Count and print."""
    with same_on_every_machine():
        print(calls_per_step(train_by_library))


if __name__ == "__main__":
    main()
