"""The four workloads, and the loop that a good engineer writes for them by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset


@dataclass
class Workload:
    """What is trained: made anew, from the same seed, for each run."""

    name: str
    model: nn.Module
    opt: torch.optim.Optimizer
    train: Any
    val: Any
    epochs: int
    with_accuracy: bool


def _digits(num: int, image: bool) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    shape = (num, 1, 28, 28) if image else (num, 784)
    return torch.randn(*shape, generator=generator), torch.randint(
        0, 10, (num,), generator=generator
    )


def make(name: str, num_batches: int = 5_000) -> Workload:
    """Make a workload: ``'W1'``, ``'W2'``, ``'W3'``, or ``'W4'`` of so many mini-batches."""
    torch.manual_seed(0)
    if name in ("W1", "W2"):
        model: nn.Module = nn.Sequential(
            nn.Linear(784, 64), nn.ReLU(), nn.Dropout(0.1),
            nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.1),
            nn.Linear(64, 10),
        )  # fmt: skip
        x, y = _digits(12_000, image=False)
        train = DataLoader(TensorDataset(x[:10_000], y[:10_000]), batch_size=32, shuffle=True)
        val = DataLoader(TensorDataset(x[10_000:], y[10_000:]), batch_size=32)
        epochs = 2
    elif name == "W3":
        model = nn.Sequential(
            nn.Conv2d(1, 8, 3), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 3), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(400, 10),
        )  # fmt: skip
        x, y = _digits(4_800, image=True)
        train = DataLoader(TensorDataset(x[:4_000], y[:4_000]), batch_size=64, shuffle=True)
        val = DataLoader(TensorDataset(x[4_000:], y[4_000:]), batch_size=64)
        epochs = 2
    else:
        model = nn.Linear(8, 2)
        generator = torch.Generator().manual_seed(7)
        train = [
            (
                torch.randn(32, 8, generator=generator),
                torch.randint(0, 2, (32,), generator=generator),
            )
            for _ in range(num_batches)
        ]
        val, epochs = None, 1
    opt = torch.optim.Adam(model.parameters(), lr=1e-3)
    return Workload(name, model, opt, train, val, epochs, name == "W2")


def by_hand(work: Workload, loss_fn: Callable[..., Any]) -> Iterator[None]:
    """The reference: no progress line, no events; loss (and accuracy) of every epoch."""
    for _ in range(work.epochs):
        work.model.train()
        total, right, count = torch.zeros(()), torch.zeros((), dtype=torch.long), 0
        for x, y in work.train:
            work.opt.zero_grad()
            out = work.model(x)
            loss = loss_fn(out, y)
            loss.backward()
            work.opt.step()
            total += loss.detach() * len(y)
            count += len(y)
            if work.with_accuracy:
                right += (out.argmax(1) == y).sum()
            yield
        (total / count).item()
        if work.val is None:
            continue
        work.model.eval()
        total, right, count = torch.zeros(()), torch.zeros((), dtype=torch.long), 0
        with torch.no_grad():
            for x, y in work.val:
                out = work.model(x)
                total += loss_fn(out, y) * len(y)
                count += len(y)
                if work.with_accuracy:
                    right += (out.argmax(1) == y).sum()
                yield
        (total / count).item()


def cross_entropy(out: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(out, y)
