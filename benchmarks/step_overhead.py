"""Step overhead: every system against the hand-written loop, interleaved, as a ratio.

Each measurement is a process of its own on one core and one thread; only ``fit`` is timed, in
processor time.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import forks
import report
from interleave import Interleaver
from systems import SYSTEMS
from workloads import by_hand, cross_entropy, likeness, make

COLUMNS = ["W1", "W2", "W3", "W4", "W10"]
# A step of the GPT takes so long that all systems are alike.
OF_GPT = (
    "hand-written loop", "deepepochs, default", "Accelerate in a raw loop",
    "Lightning, barebones", "Lightning, default",
)  # fmt: skip


def measure(system: str, workload: str) -> dict[str, Any]:
    """Measure one system on one workload in this process."""
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
    results = likeness(work.model.parameters(), hand.model.parameters())
    return {**timer.row(), "results": results}


def sections(options: report.Options) -> report.Sections:
    """Give the table, after each round."""
    pairs = [
        (name, column)
        for name in SYSTEMS
        for column in COLUMNS
        if column != "W10" or name in OF_GPT
    ]
    alone = partial(forks.call, measure, cores=[options.core])
    for table in report.compared(alone, pairs, options):
        yield "Processor time, on one core.\n\n" + table
