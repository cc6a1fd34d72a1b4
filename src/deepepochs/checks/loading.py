"""Checks on what the time of a step goes to: waiting for data, and for the accelerator."""

from __future__ import annotations

import math
import os
import statistics
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from ..faults.scene import OWN_FILES
from ..fit.plan import plan_try
from ..fit.session import Kind
from ..loop import run_pass
from ..stages import Stage
from .findings import Finding
from .look import Look, Probe, as_data_loader
from .weights import named

SLOW_S = 0.02
"""A mini-batch that is loaded faster is not worth a worker.

To hand over a mini-batch from a worker takes some milliseconds; and a machine that does something
else for a moment makes a fast loader look slower, but hardly so slow.
"""
SYNCHRONIZES = "called a synchronizing"  # torch's words


def data_loading(look: Look) -> Iterator[Finding]:
    """Find a loader that takes longer than the step, with the number of workers that would help."""
    for seen in look.seen:
        loader = as_data_loader(seen.task)
        if loader is None or seen.error is not None:
            continue
        cpus = os.cpu_count() or 1
        found = slow_loading(seen.probe.load_s, seen.probe.step_s, loader.num_workers, cpus)
        if found is not None:
            yield found


def slow_loading(
    load_s: Sequence[float], step_s: Sequence[float], workers: int, cpus: int
) -> Finding | None:
    """Judge the times of some mini-batches; the first one is left out, which starts the workers.

    >>> print(slow_loading([0.5, 0.09, 0.1, 0.11], [0.3, 0.04, 0.05, 0.04], 0, 8).remedy)
    Give DataLoader(..., num_workers=3).
    >>> slow_loading([0.5, 0.001, 0.002], [0.3, 0.0001, 0.0002], 0, 8) is None
    True
    """
    if len(load_s) < 3 or len(step_s) < 3:
        return None
    load, step = statistics.median(load_s[1:]), statistics.median(step_s[1:])
    if load < SLOW_S or load < step:
        return None
    text = f"Loading a mini-batch takes {1000 * load:.3g} ms, and the step with it {1000 * step:.3g} ms"
    if workers:
        return Finding(
            "note",
            f"{text}, with {workers} workers.",
            "Give more workers, or do what takes long once and save it: reading, decoding, resizing.",
        )
    # So many that together they are as fast as the step, and at most one for each CPU.
    needed = max(1, min(math.ceil(load / max(step, 1e-9)), cpus))
    return Finding("warning", f"{text}.", f"Give DataLoader(..., num_workers={needed}).")


def synchronizations(look: Look) -> Iterator[Finding]:
    """Find lines of the user's code that wait for the GPU in a training step, as ``.item()`` does."""
    if look.trainer.device.type != "cuda" or look.failed:
        return
    before, places = torch.cuda.get_sync_debug_mode(), []
    for task in look.training:
        probe, plan = Probe(3), plan_try(look.trainer, [task])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with look.trainer.trying(Kind.CHECK, plan, probe) as session:
                torch.cuda.set_sync_debug_mode("warn")
                try:
                    run_pass(session, task, Stage.TRAIN)
                finally:
                    torch.cuda.set_sync_debug_mode(before)
        places += [
            f"{Path(one.filename).name}:{one.lineno}"
            for one in caught
            if SYNCHRONIZES in str(one.message) and not one.filename.startswith(OWN_FILES)
        ]
    if places:
        yield Finding(
            "note",
            f"The training step waits for the GPU in {named(list(dict.fromkeys(places)))}.",
            "Leave out .item(), .cpu(), print() and `if` on values of tensors; self.record(name, "
            "value) takes a tensor as it is.",
        )
