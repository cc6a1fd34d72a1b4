"""Measures all parts, or those that are named, and writes the file of results part by part.

    python benchmarks/run.py --results benchmarks/RESULTS.md      all
    python benchmarks/run.py --parts steps --systems deepepochs   to the screen

A part that fails is noted in its section, and the next one begins.
"""

from __future__ import annotations

import forks  # first: it sets the number of threads before torch is imported

# isort: split
import argparse
import importlib
import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import report

Part = Callable[[report.Options], report.Sections]


def _sections(module: str) -> Part:
    """A part that gives its section again and again, each time with more figures."""
    return lambda options: importlib.import_module(module).sections(options)


def _table(module: str, number: Callable[[report.Options], tuple[Any, ...]]) -> Part:
    """A part with one table, made in a process of its own, which alone imports the module."""

    def make(*args: Any) -> str:
        table: str = importlib.import_module(module).table(*args)
        return table

    def sections(options: report.Options) -> report.Sections:
        yield forks.call(make, *number(options))

    return sections


def _script(name: str, number: Callable[[report.Options], tuple[Any, ...]]) -> Part:
    """A part that is a program of its own and prints its section."""
    path = Path(__file__).with_name(f"{name}.py")

    def sections(options: report.Options) -> report.Sections:
        rounds = [str(argument) for argument in number(options)]
        command = [sys.executable, str(path), "--rounds", *rounds]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=forks.LIMIT_S)
        if done.returncode:
            raise RuntimeError(f"{path.name} ended with {done.returncode}")
        yield done.stdout

    return sections


# By the name of a part: the title of its section, and what measures it.
PARTS: dict[str, tuple[str, Part]] = {
    "steps": ("Steps", _sections("step_overhead")),
    "processes": ("Two processes", _sections("processes")),
    "loading": ("Worker processes", _sections("loading")),
    "day": ("A day of training", _table("day", lambda options: (options.rounds + 2,))),
    "saving": ("Saving", _script("saving", lambda options: (4 * options.rounds,))),
    "inference": ("Test and predict", _sections("inference")),
    "scaling": ("Long epochs", _sections("scaling")),
    "start": ("Start-up", _table("import_time", lambda options: (2 * options.rounds + 1,))),
    "parts": ("Parts of a step", _table("micro", lambda options: ())),
}


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peer-rounds", type=int, help="of other libraries (default: --rounds)")
    parser.add_argument("--systems", nargs="*", help="names or their beginnings")
    parser.add_argument("--workloads", nargs="*", help="W1 and so on")
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)))
    parser.add_argument("--results", type=Path, help="put the sections into this file")
    given = parser.parse_args()
    options = report.Options(
        given.rounds, given.peer_rounds or given.rounds, given.systems, given.workloads, given.core
    )
    for name in given.parts:
        title, part = PARTS[name]
        load, text = report.Load(), ""
        try:
            for text in part(options):
                if given.results:
                    report.write(given.results, _titles(), title, f"{text}\n\n{load}")
        except Exception as error:
            traceback.print_exc()
            text += f"\n\nEnded early: {(str(error).strip() or repr(error)).splitlines()[-1]}"
        text = f"{text}\n\n{load}"
        if given.results:
            report.write(given.results, _titles(), title, text)
        print(f"## {title}\n\n{text}\n", flush=True)


def _titles() -> list[str]:
    return [title for title, _ in PARTS.values()]


if __name__ == "__main__":
    main()
