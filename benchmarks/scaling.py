"""Cost of a step and growth of memory over long epochs, for each kind of metric.

    python benchmarks/scaling.py                both
    python benchmarks/scaling.py --quick        fewer mini-batches

The cost is processor time per step of W4 in epochs of 250 to 16,000 mini-batches. The growth is
that of the address space between two mini-batches of an epoch whose outputs are ``[8, 1000]``;
each kind of metric has a process of its own.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import contextlib
import io
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

COST_LENGTHS = [250, 1_000, 4_000, 16_000]
KINDS = ["loss alone", "mean", "confusion", "torchmetrics", "tensor"]


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


def options_of(kind: str, classes: int) -> dict[str, Any]:
    """Give the trainer's arguments for a kind of metric."""
    import deepepochs as dp

    if kind == "torchmetrics":
        import torchmetrics

        return {"metrics": torchmetrics.classification.MulticlassAccuracy(classes)}
    if kind == "confusion":
        return {"metrics": dp.ConfusionMetrics("recall", average="macro")}
    return {} if kind == "loss alone" else {"metrics": dp.metrics.accuracy, "metric_patch": kind}


def fit(kind: str, batch: tuple[Tensor, Tensor], model: nn.Module, number: int) -> Repeated:
    """Train one epoch of ``number`` mini-batches in silence."""
    import deepepochs as dp

    loader = Repeated(batch, number)
    classes = model(batch[0]).shape[1]
    opt = torch.optim.SGD(model.parameters(), lr=1e-3)
    with contextlib.redirect_stdout(io.StringIO()):
        trainer = dp.Trainer(model, F.cross_entropy, opt, epochs=1, **options_of(kind, classes))
        trainer.fit(loader)
    return loader


def cost(kind: str, lengths: list[int]) -> list[float]:
    """Processor time per step in microseconds, for epochs of several lengths."""
    batch = torch.randn(32, 8), torch.randint(0, 2, (32,))
    fit(kind, batch, nn.Linear(8, 2), 50)
    figures = []
    for length in lengths:
        rounds = []
        for _ in range(max(1, 2_000 // length)):
            began = time.process_time()
            fit(kind, batch, nn.Linear(8, 2), length)
            rounds.append((time.process_time() - began) / length * 1e6)
        figures.append(sorted(rounds)[len(rounds) // 2])
    return figures


def growth(kind: str, number: int) -> float:
    """Growth in MB over 15/16 of an epoch."""
    batch = torch.randn(8, 4), torch.randint(0, 1000, (8,))
    early, late = fit(kind, batch, nn.Linear(4, 1000), number).noted
    return (late - early) / 1e6


def in_process(function: Any, *args: Any) -> Any:
    """Call in a fork of this process."""
    import json

    read_end, write_end = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(read_end)
        torch.set_num_threads(1)
        try:
            os.write(write_end, json.dumps(function(*args)).encode())
        finally:
            os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as answers:
        answer = answers.read()
    os.waitpid(pid, 0)
    return json.loads(answer) if answer else None


def table(*, quick: bool) -> str:
    """Measure and give the figures as a Markdown table."""
    lengths = COST_LENGTHS[:3] if quick else COST_LENGTHS
    number = 2_000 if quick else 8_000
    head = " | ".join(f"µs a step, {length:,} batches" for length in lengths)
    lines = [
        f"| metric | {head} | growth in MB over {number:,} batches of `[8, 1000]` |",
        "| --- " * (len(lengths) + 2) + "|",
    ]
    for kind in KINDS:
        costs = in_process(cost, kind, lengths) or []
        # A matrix of a thousand classes is 8 MB and takes milliseconds a mini-batch.
        grown = in_process(growth, kind, number if kind != "confusion" else number // 8)
        cells = " | ".join(f"{figure:.0f}" for figure in costs)
        suffix = " (an eighth of them)" if kind == "confusion" else ""
        lines.append(f"| {kind} | {cells} | {grown:.1f}{suffix} |")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    print(table(quick=parser.parse_args().quick))
