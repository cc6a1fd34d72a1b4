"""Step overhead: every system against the hand-written loop, interleaved, as a ratio.

    python benchmarks/step_overhead.py                     all systems that can be imported
    python benchmarks/step_overhead.py --systems deepepochs --rounds 3

Each measurement is a process of its own on one core and one thread, writing to a
pseudo-terminal of 120x40; only ``fit`` is timed. The table gives the median and the range
over the rounds, and whether the final weights are those of the hand-written loop.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import pty
import statistics
import struct
import subprocess
import sys
import termios
import threading
from pathlib import Path

HERE = Path(__file__).parent
WORKLOADS = ["W1", "W2", "W3", "W4"]


def measure_here(system: str, workload: str) -> None:
    """Measure one system on one workload in this process; print the result as JSON."""
    import torch
    from interleave import Interleaver
    from systems import SYSTEMS
    from workloads import by_hand, cross_entropy, make

    torch.set_num_threads(1)
    # Both warm up alike: imports and lazy initialisation are not what is asked here.
    warm = make("W4")
    warm.train = warm.train[:50]
    SYSTEMS[system](warm, cross_entropy)
    hand = make(workload)
    timer = Interleaver(cross_entropy, lambda loss_fn: by_hand(hand, loss_fn))
    work = make(workload)
    timer._hand_rng = torch.get_rng_state()
    timer.start()
    SYSTEMS[system](work, timer)
    timer.stop()
    same = all(
        torch.equal(a, b)
        for a, b in zip(work.model.parameters(), hand.model.parameters(), strict=True)
    )
    result = {
        "ratio": timer.system_s / timer.hand_s,
        "hand_us": timer.hand_s / timer.num_hand * 1e6,
        "extra_us": (timer.system_s - timer.hand_s) / timer.num_hand * 1e6,
        "same_bits": same,
    }
    os.write(3, json.dumps(result).encode())


def measure(system: str, workload: str) -> dict[str, float]:
    """Measure in a fresh process on one core, its output to a pseudo-terminal."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    read_end, write_end = os.pipe()
    env = {**os.environ, "OMP_NUM_THREADS": "1", "TERM": "xterm"}
    core = max(os.sched_getaffinity(0))

    def in_child() -> None:
        os.dup2(write_end, 3)
        os.set_inheritable(3, True)
        os.sched_setaffinity(0, {core})

    process = subprocess.Popen(
        [sys.executable, str(HERE / "step_overhead.py"), "--one", system, workload],
        stdout=slave,
        stderr=slave,
        env=env,
        close_fds=False,
        preexec_fn=in_child,
    )
    os.close(slave)
    os.close(write_end)
    shown = bytearray()
    drain = threading.Thread(target=_drain, args=(master, shown), daemon=True)
    drain.start()
    with os.fdopen(read_end, "rb") as results:
        answer = results.read()
    process.wait()
    drain.join(5)
    if not answer:
        raise RuntimeError(f"{system} on {workload} failed:\n{shown.decode(errors='replace')}")
    return json.loads(answer)


def _drain(master: int, shown: bytearray) -> None:
    try:
        while chunk := os.read(master, 65536):
            shown += chunk
    except OSError:
        pass


def main() -> None:
    """Measure what was asked for and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--one", nargs=2, metavar=("SYSTEM", "WORKLOAD"))
    parser.add_argument("--systems", nargs="*", help="names or their beginnings")
    parser.add_argument("--workloads", nargs="*", default=WORKLOADS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    sys.path.insert(0, str(HERE))
    if options.one:
        measure_here(*options.one)
        return
    from systems import SYSTEMS

    chosen = [
        name
        for name in SYSTEMS
        if options.systems is None or any(name.startswith(start) for start in options.systems)
    ]
    figures: dict[str, dict[str, list[dict[str, float]]]] = {
        name: {workload: [] for workload in options.workloads} for name in chosen
    }
    for _ in range(options.rounds):
        for name in chosen:
            for workload in options.workloads:
                figures[name][workload].append(measure(name, workload))
    print(table(figures))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))


def table(figures: dict[str, dict[str, list[dict[str, float]]]]) -> str:
    """Give the figures as a Markdown table."""
    workloads = list(next(iter(figures.values())))
    lines = [
        "| system | " + " | ".join(workloads) + " | extra µs a step | bits |",
        "|---" * (len(workloads) + 3) + "|",
    ]
    for name, rows in figures.items():
        cells = []
        for workload in workloads:
            ratios = [row["ratio"] for row in rows[workload]]
            cells.append(f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})")
        last = rows[workloads[-1]]
        extra = statistics.median(row["extra_us"] for row in last)
        same = all(row["same_bits"] for row in (r for all_rows in rows.values() for r in all_rows))
        bits = "equal" if same else "differ"
        lines.append(f"| {name} | {' | '.join(cells)} | {extra:.0f} | {bits} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
