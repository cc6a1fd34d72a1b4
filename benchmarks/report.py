"""The report of a run: tables in Markdown, with versions and machine."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

PACKAGES = [
    "torch", "numpy", "accelerate", "pytorch-ignite", "skorch", "poutyne", "lightning", "fastai",
]  # fmt: skip

Figures = dict[str, dict[str, list[dict[str, Any]]]]

HEAD = """# Results of the benchmarks

Written by `make bench`; each row and each column is a process of its own. The figure is the
processor time of a system's `fit` over that of the loop written by hand, both run in turns of
20 ms in one process on one core and one thread (`interleave.py`), with output to a
pseudo-terminal: the median, and in brackets the range, over the rounds. Below 1.00 is faster
than the loop by hand. `hand-written loop` against itself shows how much of a difference is noise.

| workload | what |
| --- | --- |
| W1 | MLP 784-64-64-10 with dropout, Adam, batches of 32 of 10,000 samples in a `DataLoader`, 2 epochs with validation |
| W2 | the same with accuracy |
| W3 | a small CNN on images of 28x28, batches of 64 of 4,000 samples, 2 epochs with validation |
| W4 | `Linear(8, 2)`, Adam, 5,000 batches of 32 that are ready |

*extra* is what a W4 step takes beyond that of the loop by hand. *bits* says whether the weights
after training are those of the loop by hand.
"""


def step_table(figures: Figures, workloads: list[str]) -> str:
    """Give the figures as a Markdown table."""
    lines = [
        "| system | " + " | ".join(workloads) + " | extra µs | bits | rounds |",
        "| --- " * (len(workloads) + 4) + "|",
    ]
    for name, rows in figures.items():
        cells = [_cell([row["ratio"] for row in rows.get(workload, [])]) for workload in workloads]
        last = [row["extra_us"] for row in rows.get("W4", [])]
        extra = f"{statistics.median(last):+.0f}" if last else ""
        measured = [row for all_rows in rows.values() for row in all_rows]
        bits = "equal" if all(row["same_bits"] for row in measured) else "differ"
        rounds = min(len(all_rows) for all_rows in rows.values())
        lines.append(f"| {name} | {' | '.join(cells)} | {extra} | {bits} | {rounds} |")
    return "\n".join(lines)


def _cell(ratios: list[float]) -> str:
    if not ratios:
        return "not measured"
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"


def further_tables() -> dict[str, str]:
    """Run the other benchmarks, each in a process of its own."""
    tables = {}
    for title, script in (
        ("Long epochs", "scaling"),
        ("Start-up", "import_time"),
        ("Parts of a step", "micro"),
    ):
        command = [sys.executable, str(Path(__file__).with_name(f"{script}.py"))]
        tables[title] = subprocess.run(command, stdout=subprocess.PIPE, text=True).stdout.strip()
    return tables


def results(
    figures: Figures,
    workloads: list[str],
    missing: dict[str, str],
    further: dict[str, str] | None = None,
) -> str:
    """Give the whole report."""
    hand = [row["hand_us"] for rows in figures.values() for row in rows.get("W4", [])]
    parts = [HEAD, "## Step overhead\n", step_table(figures, workloads) + "\n"]
    if hand:
        parts.append(f"A W4 step of the loop by hand took {statistics.median(hand):.0f} µs.\n")
    if missing:
        listed = "\n".join(f"- {name}: {why}" for name, why in missing.items())
        parts.append(f"Not measured:\n\n{listed}\n")
    parts += [f"## {title}\n\n{table}\n" for title, table in (further or {}).items()]
    parts += [f"## Machine\n\n{machine()}\n", f"## Versions\n\n{versions()}\n"]
    return "\n".join(parts)


def machine() -> str:
    """Describe the machine, without its name."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = names[0].partition(":")[2].strip() if names else model
    load = os.getloadavg()[0]
    return (
        f"{model}, {os.cpu_count()} cores, {platform.system()}, Python "
        f"{platform.python_version()}, {datetime.date.today():%Y-%m-%d}. {load:.1f} programs wanted "
        "a core when the run ended."
    )


def versions() -> str:
    """List the versions of what was measured."""
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"{name}: not installed")
    return ", ".join([*found, "deepepochs 0.6.18"])
