"""The parts of a step, one by one, in microseconds of processor time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.data import DataLoader, TensorDataset

from deepepochs.callbacks.base import HOOKS, Callback
from deepepochs.data.fast_path import tensor_fetch
from deepepochs.hooks import HookTable, fire
from deepepochs.metrics import accuracy
from deepepochs.nest.operations import split_pair
from deepepochs.optim.optimizers import Optimizer
from deepepochs.patches import TensorPatch, ValuePatch
from deepepochs.patches.tensors import as_chunk
from deepepochs.runtime.base import ENGINE_OPTIONS, autograd_engine


class Listener(Callback):
    """Listens and does nothing."""

    def on_after_train_batch(self, trainer: Any, **others: Any) -> None:
        """Do nothing."""


def parts() -> dict[str, Callable[[], Any]]:
    """What is measured, by name."""
    x, y = torch.randn(32, 784), torch.randint(0, 10, (32,))
    out = torch.randn(32, 10)
    model = torch.nn.Sequential(torch.nn.Linear(784, 64), torch.nn.Linear(64, 10))
    plain = torch.optim.Adam(model.parameters())
    opt = Optimizer(plain)
    loader = DataLoader(TensorDataset(torch.randn(320, 784), torch.randint(0, 10, (320,))), 32)
    indices = list(range(32))
    fetch = tensor_fetch(loader)
    assert fetch is not None
    samples = loader.dataset
    collate = loader.collate_fn
    total, device_sum, loss = ValuePatch(0), torch.zeros(()), torch.tensor(0.5)
    kept = TensorPatch(accuracy, 32)
    nobody, somebody = (HookTable(c, HOOKS)["on_after_train_batch"] for c in ([], [Listener()]))

    def sum_on_device() -> None:
        device_sum.add_(loss.detach() * 32)

    weight, engine = torch.ones((), requires_grad=True), autograd_engine()
    assert engine is not None

    def by_engine() -> None:
        value = weight * 2
        engine((value,), (torch.ones_like(value),), *ENGINE_OPTIONS)

    def look() -> None:
        if nobody:
            fire(nobody, None, metrics={}, batch_idx=0)  # type: ignore[arg-type]

    return {
        "fetch 32 samples of 784 as DataLoader does": lambda: collate(
            [samples[i] for i in indices]
        ),
        "fetch them by one index operation": lambda: fetch(indices),
        "optimizer.zero_grad()": plain.zero_grad,
        "drop the gradients instead": opt.drop_gradients,
        "add the loss to a tensor": sum_on_device,
        "add loss.item() to a float": lambda: total.accumulate(loss.item(), 32),
        "a product and its gradient by torch.autograd.backward": lambda: torch.autograd.backward(
            weight * 2
        ),
        "the same below its checks": by_engine,
        "an event that nobody listens to": look,
        "an event with one listener": lambda: fire(
            somebody,
            None,
            metrics={},
            batch_idx=0,  # type: ignore[arg-type]
        ),
        "split a mini-batch": lambda: split_pair([x, y]),
        "keep outputs for a metric": lambda: kept.keep(as_chunk(out), as_chunk(y)),
        "compute accuracy of the mini-batch": lambda: accuracy(out, y),
    }


def microseconds(part: Callable[[], Any], number: int = 2_000, rounds: int = 7) -> float:
    """The fastest of several rounds: others on the machine only ever add."""
    best = float("inf")
    for _ in range(rounds):
        began = time.process_time()
        for _ in range(number):
            part()
        best = min(best, time.process_time() - began)
    return best / number * 1e6


def table() -> str:
    """Measure and give the figures as a Markdown table."""
    lines = ["| part | µs |", "| --- | --- |"]
    lines += [f"| {name} | {microseconds(part):.2f} |" for name, part in parts().items()]
    return "\n".join(lines)
