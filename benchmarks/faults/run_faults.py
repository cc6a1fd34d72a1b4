"""Kill training runs at random moments, start them again, and count those that end otherwise.

Every run is a process of its own with dropout, shuffling, augmentation from three random
generators and a scheduler (``tests/resume/killable.py``); the kills are real. A row is as
good as its control, which leaves a part out and must show differences. POSIX only.

    python benchmarks/faults/run_faults.py                  # the whole table
    python benchmarks/faults/run_faults.py --scale 0.1      # a tenth of each row
    python benchmarks/faults/run_faults.py --background     # saved in the background
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "resume"))
from killable import Forked, read_result, same  # noqa: E402

LOADED = ("resuming run", "has nothing left to do")  # what a run says that was resumed
DAMAGED = "is taken instead"


class Faults:
    """Breaks runs off and compares how they end.

    Args:
        folder: where runs are.
        seed: of the moments.
        always: options of every run.
    """

    def __init__(self, folder: Path, seed: int, always: tuple[str, ...] = ()) -> None:
        self.folder = folder
        self.always = always
        self.chance = random.Random(seed)
        self.counter = 0

    def new_folder(self) -> Path:
        self.counter += 1
        return self.folder / str(self.counter)

    def whole(self, *options: str) -> tuple[Any, int]:
        """The result of the run that nobody disturbs, and its mini-batches."""
        folder = self.new_folder()
        process = Forked(folder, "--progress", *self.always, *options)
        lines = [line for line in process.stdout if line.startswith(("train ", "val "))]
        if process.wait():
            raise SystemExit(process.errors)
        return read_result(folder), len(lines)

    def broken_off(
        self, whole: Any, num_lines: int, kind: signal.Signals, times: int, *options: str
    ) -> Counter[str]:
        """One run, broken off so many times, then run to its end."""
        folder, count = self.new_folder(), Counter[str]()
        had = 0
        while count["broken off"] < times:
            moment = self.chance.randrange(1, max(num_lines - had, 2))
            process = Forked(folder, "--progress", *self.always, *options)
            seen = 0
            for line in process.stdout:
                seen += line.startswith(("train ", "val "))
                if seen >= moment:
                    time.sleep(self.chance.random() * 0.006)
                    os.kill(process.pid, kind)
                    break
            code = process.wait()
            if (folder / "run.result.pt").exists():  # it was quicker: another run
                folder, had = self.new_folder(), 0
                count = Counter()
                continue
            had = min(had + moment, num_lines - 2)
            right = 143 if kind is signal.SIGTERM else -kind
            count["broken off"] += 1
            count["wrong exit"] += code != right
            count["damaged"] += DAMAGED in process.errors
            if not any((folder / "run").glob("*.ckpt")):  # killed before the first save
                count["broken off"] -= 1
        process = Forked(folder, *self.always, *options)
        printed = process.stdout.read()
        failed = process.wait() != 0
        count["unreadable"] += failed
        resumed = any(text in printed for text in LOADED)
        count["from scratch"] += not failed and not resumed
        count["resumed"] += not failed and resumed
        count["identical"] += not failed and same(read_result(folder), whole)
        return count

    def row(
        self,
        title: str,
        num: int,
        *options: str,
        kind: signal.Signals = signal.SIGKILL,
        times: int = 1,
    ) -> Counter[str]:
        """Break off so many runs, and print what became of them."""
        begun = time.perf_counter()
        whole, num_lines = self.whole(*(o for o in options if not o.startswith("--without")))
        total: Counter[str] = Counter()
        for _ in range(num):
            total += self.broken_off(whole, num_lines, kind, times, *options)
        shown = ", ".join(
            f"{total[name]} {name}"
            for name in (
                "broken off",
                "resumed",
                "identical",
                "unreadable",
                "from scratch",
                "wrong exit",
            )
        )
        sys.stdout.write(f"{title}: {num} runs: {shown} ({time.perf_counter() - begun:.0f} s)\n")
        sys.stdout.flush()
        return total


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--scale", type=float, default=1.0, help="share of each row's runs")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--background", action="store_true", help="a thread writes the checkpoints")
    options = parser.parse_args()

    def share(num: int) -> int:
        return max(1, round(num * options.scale))

    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        always = ("--background",) if options.background else ()
        faults = Faults(Path(folder), options.seed, always)
        rows: list[tuple[str, int, tuple[str, ...], dict[str, Any]]] = [
            ("SIGKILL at random moments", 100, ("--every=2",), {}),
            ("three SIGKILLs a run", 30, ("--every=2",), {"times": 3}),
            ("SIGKILL, 2 workers, augmentation", 30, ("--every=2", "--workers=2"), {}),
            ("SIGKILL, saved after every mini-batch", 50, ("--every=1",), {}),
            ("SIGTERM inside an epoch", 20, (), {"kind": signal.SIGTERM}),
            ("SIGINT inside an epoch", 20, (), {"kind": signal.SIGINT}),
        ]
        for title, num, arguments, settings in rows:
            count = faults.row(title, share(num), *arguments, **settings)
            wrong += share(num) - count["identical"]
            wrong += count["unreadable"] + count["from scratch"] + count["wrong exit"]
        control = faults.row(
            "control, random states left out", share(10), "--every=2", "--without=random"
        )
        wrong += control["identical"]
        # Resumed from the end of an epoch these are exact as well: only some must differ.
        control = faults.row(
            "control, PyTorch's worker seeds",
            share(10),
            "--every=2",
            "--workers=2",
            "--worker-seeding=torch",
        )
        wrong += control["identical"] == share(10) > 1
    sys.stdout.write("all as it must be\n" if not wrong else f"{wrong} NOT as they must be\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
