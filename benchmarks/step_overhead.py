"""Step overhead: every system against the hand-written loop, interleaved, as a ratio.

    python benchmarks/step_overhead.py                     all systems that can be imported
    python benchmarks/step_overhead.py --systems deepepochs --rounds 3
    python benchmarks/step_overhead.py --results benchmarks/RESULTS.md

Each measurement is a process of its own on one core and one thread, writing to a
pseudo-terminal of 120x40; only ``fit`` is timed. The table gives the median and the range
over the rounds, and whether the final weights are those of the hand-written loop.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("TERM", "xterm")

import argparse
import fcntl
import json
import pty
import struct
import sys
import termios
import threading
import traceback
from pathlib import Path
from typing import Any

import report
import torch
from interleave import Interleaver
from systems import SYSTEMS
from workloads import by_hand, cross_entropy, make

WORKLOADS = ["W1", "W2", "W3", "W4"]
Figures = dict[str, dict[str, list[dict[str, float]]]]


def measure_here(system: str, workload: str) -> dict[str, Any]:
    """Measure one system on one workload in this process."""
    torch.set_num_threads(1)
    # Both warm up alike: imports and lazy initialisation are not what is asked here.
    warm = make("W4")
    warm.train = warm.train[:50]
    SYSTEMS[system](warm, cross_entropy)
    hand = make(workload)
    timer = Interleaver(cross_entropy, lambda loss_fn: by_hand(hand, loss_fn))
    work = make(workload)
    timer.start()
    SYSTEMS[system](work, timer)
    timer.stop()
    same = all(
        torch.equal(a, b)
        for a, b in zip(work.model.parameters(), hand.model.parameters(), strict=True)
    )
    return {
        "ratio": timer.system_s / timer.hand_s,
        "hand_us": timer.hand_s / timer.num_hand * 1e6,
        "extra_us": (timer.system_s - timer.hand_s) / timer.num_hand * 1e6,
        "same_bits": same,
        "same_batches": timer.num_system == timer.num_hand,
    }


def measure(system: str, workload: str, core: int) -> dict[str, Any]:
    """Measure in a fresh process on one core, its output to a pseudo-terminal.

    The process is a fork of this one, which has imported torch and nothing else of weight.
    """
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    read_end, write_end = os.pipe()
    sys.stdout.flush()
    pid = os.fork()
    if not pid:
        os.close(read_end)
        _measure_in_child(system, workload, core, slave, write_end)
    os.close(slave)
    os.close(write_end)
    shown = bytearray()
    drain = threading.Thread(target=_drain, args=(master, shown), daemon=True)
    drain.start()
    with os.fdopen(read_end, "rb") as results:
        answer = results.read()
    os.waitpid(pid, 0)
    drain.join(5)
    os.close(master)
    if not answer:
        raise RuntimeError(f"{system} on {workload} failed:\n{shown.decode(errors='replace')}")
    result: dict[str, Any] = json.loads(answer)
    return result


def _measure_in_child(system: str, workload: str, core: int, terminal: int, answer: int) -> None:
    status = 1
    try:
        os.setsid()
        for stream in (0, 1, 2):
            os.dup2(terminal, stream)
        os.sched_setaffinity(0, {core})
        os.write(answer, json.dumps(measure_here(system, workload)).encode())
        status = 0
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(status)


def _drain(master: int, shown: bytearray) -> None:
    try:
        while chunk := os.read(master, 65536):
            shown += chunk
    except OSError:
        pass


def main() -> None:
    """Measure what was asked for and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--systems", nargs="*", help="names or their beginnings")
    parser.add_argument("--workloads", nargs="*", default=WORKLOADS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)))
    parser.add_argument("--json", type=Path, help="add the figures to those in this file")
    parser.add_argument("--extras", action="store_true", help="also scaling, start-up and parts")
    parser.add_argument("--results", type=Path, help="write the report here")
    options = parser.parse_args()
    chosen = [
        name
        for name in SYSTEMS
        if options.systems is None or any(name.startswith(start) for start in options.systems)
    ]
    figures: Figures = {}
    if options.json and options.json.exists():
        figures = json.loads(options.json.read_text())
    missing: dict[str, str] = {}
    for _ in range(options.rounds):
        for name in chosen:
            for workload in options.workloads:
                if name in missing:
                    continue
                try:
                    result = measure(name, workload, options.core)
                except RuntimeError as error:
                    missing[name] = f"{workload}: {str(error).strip().splitlines()[-1]}"
                    print(error, file=sys.stderr)
                    continue
                figures.setdefault(name, {}).setdefault(workload, []).append(result)
        if options.json:
            options.json.write_text(json.dumps(figures, indent=1))
    print(report.step_table(figures, options.workloads))
    if options.results:
        further = report.further_tables() if options.extras else {}
        text = report.results(figures, options.workloads, missing, further)
        options.results.write_text(text)


if __name__ == "__main__":
    main()
