"""Tables of figures in Markdown, and the file with the results of all parts.

A part is a section of that file. It is written anew when the part has new figures, and the
others stay: a run that is ended loses nothing.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import re
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from workloads import WORKLOADS

PACKAGES = [
    "torch", "numpy", "accelerate", "pytorch-ignite", "skorch", "poutyne", "lightning", "fastai",
    "keras",
]  # fmt: skip
HEAD = """# Results of the benchmarks

Written by `make bench` (`benchmarks/run.py`). A figure is the time of a system over that of the
same work written by hand: the median, and in brackets the range, over the rounds. Below 1.00 is
faster than by hand. The row `hand-written loop` is by hand against itself: it shows how much of a
difference is noise. Both run in turns, in the same process (`interleave.py`), with one thread a
process and with output to a pseudo-terminal. Each figure is of processes of its own.

*results* says whether the weights after training, or the predictions, are those of the work by
hand: `equal` to the bit, `to 1e-6`, or `differ`.

| workload | what |
| --- | --- |
"""
HEAD += "".join(f"| {name} | {what} |\n" for name, what in WORKLOADS.items())

Row = dict[str, Any]
Sections = Iterator[str]
# From the best to the worst.
LIKENESS = ["equal", "to 1e-6", "differ"]


class Options(NamedTuple):
    """What was asked for.

    Attributes:
        rounds: how often each system is measured.
        peer_rounds: the same of other libraries.
        systems: the beginnings of their names; ``None``: all.
        workloads: their names; ``None``: all.
        core: where single processes run.
    """

    rounds: int = 3
    peer_rounds: int = 3
    systems: list[str] | None = None
    workloads: list[str] | None = None
    core: int = 0

    def wants(self, system: str, workload: str) -> bool:
        """Whether a system and a workload are to be measured."""
        return (self.systems is None or system.startswith(tuple(self.systems))) and (
            self.workloads is None or workload in self.workloads
        )

    def rounds_of(self, system: str) -> int:
        """How often a system is measured."""
        is_own = system.startswith(("hand-written loop", "deepepochs,"))
        return self.rounds if is_own else min(self.rounds, self.peer_rounds)


def compared(
    measure: Callable[[str, str], Row], pairs: Sequence[tuple[str, str]], options: Options
) -> Sections:
    """Measure and give the table, after each round.

    Args:
        measure: gives the figures of a system and a column: ``'ratio'``, ``'hand_us'`` and
            ``'results'``.
        pairs: systems and columns.
        options: which of them, and how often.
    """
    pairs = [pair for pair in pairs if options.wants(*pair)]
    figures: dict[tuple[str, str], list[Row]] = {}
    missing: dict[tuple[str, str], str] = {}
    for number in range(options.rounds):
        for pair in pairs:
            if pair in missing or number >= options.rounds_of(pair[0]):
                continue
            began = time.perf_counter()
            try:
                row = measure(*pair)
            except RuntimeError as error:
                missing[pair] = str(error).strip().splitlines()[-1].strip()
                print(f"{pair}: {error}", file=sys.stderr)
                continue
            figures.setdefault(pair, []).append(row)
            took = time.perf_counter() - began
            print(f"{number + 1}  {pair}  {row['ratio']:.2f}  {took:.1f} s", file=sys.stderr)
        yield table(figures, pairs, missing)


def table(
    figures: dict[tuple[str, str], list[Row]],
    pairs: Sequence[tuple[str, str]],
    missing: dict[tuple[str, str], str],
) -> str:
    """Give the figures as a Markdown table, with what could not be measured below it."""
    columns = list(dict.fromkeys(column for _, column in pairs))
    lines = [
        "| system | " + " | ".join(columns) + " | results | rounds |",
        "| --- " * (len(columns) + 3) + "|",
    ]
    for name in dict.fromkeys(name for name, _ in pairs):
        rows = [figures.get((name, column), []) for column in columns]
        cells = [spread([row["ratio"] for row in part]) if part else "–" for part in rows]
        found = [row["results"] for part in rows for row in part]
        if not found:
            continue
        results = max(found, key=LIKENESS.index)
        counts = sorted({len(part) for part in rows if part})
        rounds = "-".join(str(count) for count in counts[:: len(counts) - 1 or 1])
        lines.append(f"| {name} | {' | '.join(cells)} | {results} | {rounds} |")
    text = "\n".join(lines)
    hand_us: dict[str, list[float]] = {column: [] for column in columns}
    for (_, column), part in figures.items():
        hand_us[column] += [row["hand_us"] for row in part]
    listed = [f"{column} {statistics.median(us):,.0f} µs" for column, us in hand_us.items() if us]
    text += f"\n\nA mini-batch by hand takes: {', '.join(listed)}."
    if missing:
        reasons = [f"- {name}, {column}: {why}" for (name, column), why in missing.items()]
        text += "\n\nNot measured:\n\n" + "\n".join(reasons)
    return text


def spread(figures: Sequence[float]) -> str:
    """Give the median and the range."""
    return f"{statistics.median(figures):.2f} ({min(figures):.2f}-{max(figures):.2f})"


class Load:
    """How busy the machine was, from when this was made."""

    def __init__(self) -> None:
        self.before = os.getloadavg()[0]
        self.began = time.perf_counter()
        self.busy = self._others_s()

    def _others_s(self) -> float:
        """Seconds of cores that others than this process and its children have used."""
        line = Path("/proc/stat").read_text().splitlines()[0]
        user, nice, system, _, _, irq, softirq, *_ = map(int, line.split()[1:])
        own = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        ticks = (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")
        return ticks - sum(usage.ru_utime + usage.ru_stime for usage in own)

    def __str__(self) -> str:
        took = time.perf_counter() - self.began
        others = max(0.0, self._others_s() - self.busy) / took
        return (
            f"{datetime.date.today():%Y-%m-%d}, {took:.0f} s. Load average {self.before:.1f} "
            f"before, {os.getloadavg()[0]:.1f} after; other programs used {others:.2f} cores."
        )


def write(path: Path, titles: Sequence[str], title: str, text: str) -> None:
    """Put a section into the file of results, in place of the one of this title.

    Args:
        path: of the file; it need not be there.
        titles: of all sections, in order.
        title: of this one.
        text: what it says.
    """
    sections = {**read(path), title: text.strip(), "Machine": f"{machine()}\n\n{versions()}"}
    kept = [name for name in (*titles, "Machine") if name in sections]
    body = "\n".join(f"## {name}\n\n{sections[name]}\n" for name in kept)
    new = path.with_suffix(".new")
    new.write_text(f"{HEAD}\n{body}", encoding="utf-8")
    new.replace(path)


def read(path: Path) -> dict[str, str]:
    """Give the sections of the file of results by title; none, if it is not there."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    parts = re.split(r"^## (.*)\n", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], (part.strip() for part in parts[2::2]), strict=True))


def machine() -> str:
    """Describe the machine, without its name."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = names[0].partition(":")[2].strip() if names else model
    return (
        f"{model}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}."
    )


def versions() -> str:
    """List the versions of what was measured."""
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"{name}: not installed")
    return ", ".join([*found, "deepepochs 0.6.18"]) + "."
