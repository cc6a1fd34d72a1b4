"""A data set in Python with worker processes, against the loop by hand with the same workers.

Whole fits in turns, in wall time: workers go on while the main process does something else, so a
fit cannot be cut into slices. Which of the two begins changes from fit to fit.
"""

from __future__ import annotations

import statistics
import time
from functools import partial
from typing import Any

import forks
import report
from systems import SYSTEMS, with_deepepochs
from workloads import cross_entropy, likeness, make

HAND = "hand-written loop"
NAMES = (HAND, "deepepochs, default", "Accelerate in a raw loop", "Lightning, default")
FITS = {name: SYSTEMS[name] for name in NAMES}
FITS["deepepochs, worker_seeding='torch'"] = partial(with_deepepochs, worker_seeding="torch")
NUM_PAIRS = 4


def timed_fit(system: str) -> tuple[float, list[Any]]:
    """Give the seconds of one fit, and the weights."""
    work = make("W7")
    began = time.perf_counter()
    FITS[system](work, cross_entropy)
    return time.perf_counter() - began, list(work.model.parameters())


def measure(system: str, workload: str) -> dict[str, Any]:
    """Measure one system in this process."""
    pair = [system, HAND]
    times: list[dict[int, float]] = []
    results = "equal"
    # The first pair warms up.
    for number in range(NUM_PAIRS + 1):
        order = (0, 1) if number % 2 else (1, 0)
        done = {index: timed_fit(pair[index]) for index in order}
        times.append({index: seconds for index, (seconds, _) in done.items()})
        results = likeness(done[0][1], done[1][1])
    num_batches = 2 * len(make("W7").train)
    return {
        "ratio": statistics.median(pair[0] / pair[1] for pair in times[1:]),
        "hand_us": statistics.median(pair[1] for pair in times[1:]) / num_batches * 1e6,
        "results": results,
    }


def sections(options: report.Options) -> report.Sections:
    """Give the table, after each round."""
    pairs = [(name, "W7") for name in FITS]
    for table in report.compared(partial(forks.call, measure), pairs, options):
        yield (
            f"Wall time of whole fits, {NUM_PAIRS} of each in a round. By default the noise of a "
            "sample depends on its place in the epoch, so it is not that of the loop by hand; "
            "`worker_seeding='torch'` draws as PyTorch does.\n\n" + table
        )
