"""Time a save that is forced to the disk: by hand, by a `CheckCallback`, and in the background.

By hand it is ``torch.save`` to a temporary file, an fsync and a rename. The ways run in turns in
one process, so that all meet the same machine; wall time, since the disk is most of it. In the
background, what counts is how long training waits.

    python benchmarks/saving.py                      # 100 MB
    python benchmarks/saving.py --mb 400 --folder /data
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import nn

from deepepochs import CheckCallback, Trainer
from deepepochs.checkpoint import load
from deepepochs.checkpoint.writer import settle

HAND, OURS, WAITS = "torch.save, fsync, rename", "CheckCallback", "background: training waits"


class Row(NamedTuple):
    """One way to save.

    Attributes:
        way: its name.
        times_s: seconds of each round.
        ratios: of each round, the time through that of the save by hand.
        of_save: of each round, the time through that of the save by a `CheckCallback`.
    """

    way: str
    times_s: list[float]
    ratios: list[float]
    of_save: list[float]


def make(folder: Path, megabytes: float, background: bool) -> tuple[Trainer, CheckCallback]:
    """A trainer whose weights have that size, and its callback."""
    torch.manual_seed(0)
    width = 1024
    depth = max(round(megabytes * 1e6 / 4 / width**2), 1)
    model = nn.Sequential(*(nn.Linear(width, width) for _ in range(depth)))
    check = CheckCallback("loss", ckpt_dir=folder, background=background)
    opt = torch.optim.SGD(model.parameters())
    options: dict[str, Any] = {"running_id": f"background={background}", "show_info": False}
    return Trainer(model, nn.MSELoss(), opt, callbacks=check, device="cpu", **options), check


def measure(folder: Path, megabytes: float = 100.0, rounds: int = 20) -> list[Row]:
    """Save in turns, and give a row for each way.

    Raises:
        AssertionError: the files are not the same.
    """
    trainer, check = make(folder, megabytes, background=False)
    other, behind = make(folder, megabytes, background=True)

    def by_hand() -> None:
        state = {"model": trainer.model.state_dict(), "opt": trainer.opt[0].opt.state_dict()}
        temporary = folder / "by_hand.tmp"
        with temporary.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(folder / "by_hand.pt")

    ways: dict[str, Callable[[], None]] = {
        HAND: by_hand,
        OURS: lambda: check.save(trainer),
        WAITS: lambda: behind.save(other),
    }
    times: dict[str, list[float]] = {way: [] for way in ways}
    for round_ in range(rounds + 2):
        for way, save in ways.items():
            start = time.perf_counter()
            save()
            spent = time.perf_counter() - start
            if round_ >= 2:  # before, the folders are made, and the memory of the copy
                times[way].append(spent)
            settle()
    weights = [load(one.run_dir / "checkpoint.ckpt")["model"] for one in (trainer, other)]
    weights.append(torch.load(folder / "by_hand.pt")["model"])
    assert all(torch.equal(w[name], weights[0][name]) for w in weights for name in weights[0])
    hand, ours = times[HAND], times[OURS]
    return [
        Row(
            way,
            spent,
            [s / h for s, h in zip(spent, hand, strict=True)],
            [s / o for s, o in zip(spent, ours, strict=True)],
        )
        for way, spent in times.items()
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--mb", type=float, default=100.0, help="size of the weights")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--folder", type=Path, help="where to write; else that of temporary files")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        rows = measure(Path(folder), args.mb, args.rounds)
    out = sys.stdout.write
    out(f"{args.mb:g} MB, {args.rounds} rounds, medians (quartiles); ")
    out(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores\n\n")
    out("| way | ms | / by hand | / CheckCallback |\n| --- | ---: | ---: | ---: |\n")
    for row in rows:
        cells = [shown([1000 * s for s in row.times_s], 0), shown(row.ratios), shown(row.of_save)]
        out(f"| {row.way} | {' | '.join(cells)} |\n")


def shown(values: list[float], digits: int = 2) -> str:
    """The median and the quartiles."""
    ordered = sorted(values)
    low, high = ordered[len(ordered) // 4], ordered[3 * len(ordered) // 4]
    return f"{median(values):.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


if __name__ == "__main__":
    main()
