"""Cost of a step and growth of memory over long epochs, for each kind of metric.

The cost is processor time per step of W4 in epochs of 250 to 16,000 mini-batches. The growth is
that of the address space between two mini-batches of an epoch whose outputs are ``[8, 1000]``;
each has a process of its own.
"""

from __future__ import annotations

import contextlib
import io
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import forks
import report
import torch
from torch import Tensor, nn
from torch.nn import functional as F

COST_LENGTHS = [250, 1_000, 4_000, 16_000]
NUM_GROWN = 8_000
# What is measured, by its name in the table: the metric, and its patch.
KINDS = {
    "loss alone": None,
    "accuracy": "accuracy",
    "accuracy, metric_patch='tensor'": "tensor",
    "accuracy, metric_patch='mean'": "mean",
    "ConfusionMetrics": "confusion",
    "a torchmetrics object": "torchmetrics",
}


class Repeated:
    """One mini-batch many times; notes the memory at two of them."""

    def __init__(self, batch: tuple[Tensor, Tensor], number: int) -> None:
        self.batch = batch
        self.number = number
        self.noted: list[int] = []

    def __len__(self) -> int:
        return self.number

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for index in range(self.number):
            if index in (self.number // 16, self.number - 1):
                self.noted.append(reserved())
            yield self.batch


def reserved() -> int:
    """Bytes of address space: resident pages come and go with what other programs do."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def options_of(kind: str | None, classes: int) -> dict[str, Any]:
    """Give the trainer's arguments for a kind of metric."""
    import deepepochs as dp

    if kind == "torchmetrics":
        import torchmetrics

        return {"metrics": torchmetrics.classification.MulticlassAccuracy(classes)}
    if kind == "confusion":
        return {"metrics": dp.ConfusionMetrics("recall", average="macro")}
    if kind is None:
        return {}
    patch = {} if kind == "accuracy" else {"metric_patch": kind}
    return {"metrics": dp.metrics.accuracy, **patch}


def fit(kind: str | None, batch: tuple[Tensor, Tensor], model: nn.Module, number: int) -> Repeated:
    """Train one epoch of ``number`` mini-batches in silence."""
    import deepepochs as dp

    loader = Repeated(batch, number)
    classes = model(batch[0]).shape[1]
    opt = torch.optim.SGD(model.parameters(), lr=1e-3)
    with contextlib.redirect_stdout(io.StringIO()):
        trainer = dp.Trainer(model, F.cross_entropy, opt, epochs=1, **options_of(kind, classes))
        trainer.fit(loader)
    return loader


def cost(kind: str | None) -> list[float]:
    """Processor time per step in microseconds, for epochs of several lengths."""
    batch = torch.randn(32, 8), torch.randint(0, 2, (32,))
    fit(kind, batch, nn.Linear(8, 2), 50)
    figures = []
    for length in COST_LENGTHS:
        rounds = []
        for _ in range(max(1, 2_000 // length)):
            began = time.process_time()
            fit(kind, batch, nn.Linear(8, 2), length)
            rounds.append((time.process_time() - began) / length * 1e6)
        figures.append(sorted(rounds)[len(rounds) // 2])
    return figures


def growth(kind: str | None, number: int) -> float:
    """Growth in MB over 15/16 of an epoch."""
    batch = torch.randn(8, 4), torch.randint(0, 1000, (8,))
    early, late = fit(kind, batch, nn.Linear(4, 1000), number).noted
    return (late - early) / 1e6


def sections(options: report.Options) -> report.Sections:
    """Give the table, after each kind of metric."""
    head = " | ".join(f"µs a step, {length:,} batches" for length in COST_LENGTHS)
    lines = [
        f"| metric | {head} | growth in MB over {NUM_GROWN:,} batches of `[8, 1000]` |",
        "| --- " * (len(COST_LENGTHS) + 2) + "|",
    ]
    for name, kind in KINDS.items():
        cells = " | ".join(f"{us:.0f}" for us in forks.call(cost, kind, cores=[options.core]))
        # A matrix of a thousand classes is 8 MB and takes milliseconds a mini-batch.
        number, suffix = NUM_GROWN, ""
        if kind == "confusion":
            number, suffix = NUM_GROWN // 8, " (an eighth of them)"
        grown = forks.call(growth, kind, number, cores=[options.core])
        lines.append(f"| {name} | {cells} | {grown:.1f}{suffix} |")
        yield "\n".join(lines)
