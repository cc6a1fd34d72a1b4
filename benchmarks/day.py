"""A day of six epochs with metrics, logs and checkpoints, against the same day written by hand.

    python benchmarks/day.py
    python benchmarks/day.py --rounds 15

The MLP of W1 learns 10,000 samples in batches of 32, and validates after each epoch. Both count
accuracy and macro F1, write to TensorBoard, and save the last and the best state. By hand this is
a confusion matrix for each pass, scalars for each epoch and `torch.save`; here it is
`LogCallback()` and `CheckCallback()` as they are by default.

Both run in turns in one process on one thread, with output to a pseudo-terminal of 120x40. The
ratio is that of two days that follow each other: the median, and in brackets the range. The final
weights are compared bit by bit, and losses and metrics of each epoch to 1e-6.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("TERM", "xterm")

import argparse
import contextlib
import fcntl
import pty
import statistics
import struct
import subprocess
import tempfile
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from report import spread
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from workloads import cross_entropy, make

EPOCHS = 6
NAMES = ("loss", "accuracy", "macro_f1")
Curves = list[list[float]]  # for each epoch: loss, accuracy and F1 of training, then of validation


class Day(NamedTuple):
    """What one day has found, and what it took."""

    model: nn.Module
    curves: Curves
    wall_s: float
    cpu_s: float


class Row(NamedTuple):
    """The days of one way to spend them, each over the day by hand that it followed or led."""

    name: str
    wall_ms: list[float]
    wall: list[float]
    cpu: list[float]
    is_equal: bool


def loaders() -> tuple[Any, Any]:
    """Make data that can be learnt: the class of a sample is its largest projection of ten."""
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(12_000, 784, generator=generator)
    y = (x @ torch.randn(784, 10, generator=generator)).argmax(1)
    train = DataLoader(TensorDataset(x[:10_000], y[:10_000]), batch_size=32, shuffle=True)
    return train, DataLoader(TensorDataset(x[10_000:], y[10_000:]), batch_size=32)


def macro_f1(matrix: Tensor) -> float:
    """Give the mean F1 of the classes, from a matrix with a row for each true class."""
    hits = matrix.diagonal().double()
    return float((2 * hits / (matrix.sum(0) + matrix.sum(1)).clamp(min=1)).mean())


def by_hand(model: Any, opt: Any, data: tuple[Any, Any], epochs: int, folder: Path) -> Curves:
    """Train as a good engineer writes it."""
    from torch.utils.tensorboard import SummaryWriter

    curves, best = [], float("inf")
    writer = SummaryWriter(str(folder))
    for epoch in range(epochs):
        row: list[float] = []
        for stage, loader in zip(("train", "val"), data, strict=True):
            is_training = stage == "train"
            model.train(is_training)
            total, num_right, count = (
                torch.zeros((), dtype=torch.double),
                torch.zeros((), dtype=torch.long),
                0,
            )
            matrix = torch.zeros(100, dtype=torch.long)
            with torch.set_grad_enabled(is_training):
                for x, y in loader:
                    out = model(x)
                    loss = cross_entropy(out, y)
                    if is_training:
                        opt.zero_grad()
                        loss.backward()
                        opt.step()
                    total += loss.detach() * len(y)
                    count += len(y)
                    preds = out.argmax(1)
                    num_right += (preds == y).sum()
                    matrix += torch.bincount(y * 10 + preds, minlength=100)
            values = total.item() / count, num_right.item() / count, macro_f1(matrix.view(10, 10))
            row += values
            for name, value in zip(NAMES, values, strict=True):
                writer.add_scalar(f"{name}/{stage}", value, epoch + 1)
        writer.add_scalar("lr", opt.param_groups[0]["lr"], epoch + 1)
        writer.flush()
        print(f"epoch {epoch + 1}", *(f"{value:.4f}" for value in row))
        curves.append(row)
        state = {"model": model.state_dict(), "opt": opt.state_dict(), "epoch": epoch + 1}
        save(state, folder / "last.pt")
        if row[3] < best:
            best = row[3]
            save(state, folder / "best.pt")
    writer.close()
    return curves


def save(state: Any, path: Path) -> None:
    """Write a file so that a killed process leaves the old one."""
    torch.save(state, f"{path}.part")
    Path(f"{path}.part").replace(path)


def with_trainer(
    logs: bool = True, checks: bool = True
) -> Callable[[Any, Any, tuple[Any, Any], int, Path], Curves]:
    """Give the day with a trainer."""

    def spend(model: Any, opt: Any, data: tuple[Any, Any], epochs: int, folder: Path) -> Curves:
        from deepepochs import CheckCallback, LogCallback, Trainer

        trainer = Trainer(
            model, cross_entropy, opt, epochs, metrics=["accuracy", "macro_f1"],
            callbacks=[
                *([LogCallback(folder)] if logs else []),
                *([CheckCallback(ckpt_dir=folder)] if checks else []),
            ],
        )  # fmt: skip
        history = trainer.fit(*data)
        columns = [history[s][n] for s in ("train", "val") for n in NAMES]
        return [[float(value) for value in row] for row in zip(*columns, strict=True)]

    return spend


WAYS: dict[str, Callable[..., Curves]] = {
    "LogCallback, CheckCallback": with_trainer(),
    "LogCallback alone": with_trainer(checks=False),
    "no callback": with_trainer(logs=False, checks=False),
}


def spend(way: Callable[..., Curves], epochs: int = EPOCHS) -> Day:
    """Spend a day from the same seed, in a folder of its own."""
    work, data = make("W1"), loaders()
    torch.manual_seed(1)
    with tempfile.TemporaryDirectory() as folder:
        wall, cpu = time.perf_counter(), time.process_time()
        curves = way(work.model, work.opt, data, epochs, Path(folder))
        return Day(work.model, curves, time.perf_counter() - wall, time.process_time() - cpu)


def is_equal(one: Day, other: Day) -> bool:
    """Whether two days have come to the same weights and curves."""
    pairs = zip(one.model.parameters(), other.model.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs) and torch.allclose(
        torch.tensor(one.curves), torch.tensor(other.curves), rtol=0, atol=1e-6
    )


@contextlib.contextmanager
def terminal() -> Iterator[None]:
    """Let what is printed go to a pseudo-terminal, which another process reads."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    reader = subprocess.Popen(
        ["cat"], stdin=master, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    os.close(master)
    with os.fdopen(slave, "w") as stream, contextlib.redirect_stdout(stream):
        yield
    reader.wait()


def rows(rounds: int = 7, names: list[str] | None = None) -> list[Row]:
    """Measure; each round is a day by hand and a day of each way, and begins with another one."""
    torch.set_num_threads(1)
    chosen = names or list(WAYS)
    found: dict[str, list[tuple[Day, Day]]] = {name: [] for name in chosen}
    with terminal():
        for way in (by_hand, *(WAYS[name] for name in chosen)):
            spend(way, epochs=1)  # imports and lazy initialisation are not what is asked here
        for number in range(rounds):
            for name in chosen:
                pair = [by_hand, WAYS[name]]
                days = [spend(way) for way in (pair if number % 2 else pair[::-1])]
                hand, own = days if number % 2 else days[::-1]
                found[name].append((hand, own))
    return [
        Row(
            name,
            [own.wall_s * 1e3 for _, own in pairs],
            [own.wall_s / hand.wall_s for hand, own in pairs],
            [own.cpu_s / hand.cpu_s for hand, own in pairs],
            all(is_equal(hand, own) for hand, own in pairs),
        )
        for name, pairs in found.items()
    ]


def table(rounds: int = 7, names: list[str] | None = None) -> str:
    """Measure and give the figures as a Markdown table."""
    lines = [
        "| six epochs with accuracy and macro F1 | ms | wall time / by hand "
        "| processor time / by hand | results | rounds |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows(rounds, names):
        equal = "equal" if row.is_equal else "differ"
        lines.append(
            f"| {row.name} | {statistics.median(row.wall_ms):.0f} | {spread(row.wall)} | "
            f"{spread(row.cpu)} | {equal} | {len(row.wall)} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--ways", nargs="*", choices=list(WAYS))
    options = parser.parse_args()
    print(table(options.rounds, options.ways))
