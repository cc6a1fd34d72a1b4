"""Checks on what the fit is asked for: schedules, accumulation, clipping, kept outputs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from torch import Tensor
from torch.optim import lr_scheduler as torchs

from ..callbacks.grad_clip import GradClipCallback
from ..fit.plan import warn_of_plan
from ..optim.fits import bare
from ..optim.schedule_units import LENGTHS
from ..patches.tensors import TensorPatch
from ..report.text import size as size_text
from ..stages import Stage
from .findings import Finding
from .labels import of_warning
from .look import Look, Seen, told

TWICE = 2.0  # a schedule that is cut off before its half is hardly meant
SOONER = 0.9  # of the moves of the fit; what ends in the last tenth ends with it
NEVER = 1000.0
"""How many times the largest gradient of the first steps a limit may be.

Gradients may well grow a hundredfold when a training becomes unstable, which a limit is there for.
"""
SHARE = 0.25  # of the memory of the machine
FALLS = (torchs.CosineAnnealingLR, torchs.OneCycleLR, torchs.PolynomialLR)


def schedules(look: Look) -> Iterator[Finding]:
    """Pass on what a fit warns of before it begins, such as a schedule in other units."""
    with told() as texts:
        warn_of_plan(look.trainer, look.plan, look.epochs)
    for text in texts:
        problem, colon, remedy = text.rpartition(": ")
        found = of_warning(text) or of_warning(
            f"{problem}.\n{remedy[:1].upper()}{remedy[1:]}" if colon else ""
        )
        if found is not None:
            yield found


def ends_of_schedules(look: Look) -> Iterator[Finding]:
    """Find a schedule that ends long before the training, or is cut off before its half."""
    epochs, lengths = look.epochs, [task.length for task in look.training]
    is_whole = not look.trainer.is_fit_run and look.options.get("epochs") is None
    if (
        look.is_limited
        or not is_whole
        or None in lengths
        or not all(map(look.is_plain, look.training))
    ):
        return  # further fits may go on with the schedule
    windows = sum(-(-(length or 0) // look.trainer.grad_accumulate) for length in lengths)
    for index, optimizer in enumerate(look.trainer.opt):
        schedule = bare(optimizer.scheduler)
        if look.trainer.was_told(f"schedule {index}"):
            continue  # it is told of with its units
        if type(schedule) not in FALLS or schedule.last_epoch > 0:
            continue
        name = LENGTHS[type(schedule)]
        length = float(getattr(schedule, name))
        moves = len(epochs) * (1 if optimizer.sched_on == "epoch" else windows)
        kind = f"{type(schedule).__name__} has {name}={length:g}"
        if moves and length >= TWICE * moves:
            yield Finding(
                "warning",
                f"{kind}, and moves {moves} times in this training, which ends long before the "
                "schedule.",
                f"Give {name}={moves}.",
            )
        elif length < SOONER * moves and not isinstance(schedule, torchs.OneCycleLR):
            then = (
                "stays at its end" if isinstance(schedule, torchs.PolynomialLR) else "rises again"
            )
            yield Finding(
                "note",
                f"{kind}, and moves {moves} times in this training: after {length:g} moves the "
                f"rate {then}.",
                f"Give {name}={moves}.",
            )


def accumulation(look: Look) -> Iterator[Finding]:
    """Find windows of gradients that are longer than an epoch, so that none gets full."""
    wanted = look.trainer.grad_accumulate
    for task in look.training if not look.is_limited else ():
        if wanted > 1 and task.length is not None and 0 < task.length < wanted:
            yield Finding(
                "warning",
                f"grad_accumulate={wanted} never fills a window: an epoch has {task.length} "
                f"mini-batch{'es' if task.length > 1 else ''}, and ends with an optimizer step.",
                f"Give grad_accumulate={task.length}, or smaller mini-batches.",
            )


def clipping(look: Look) -> Iterator[Finding]:
    """Find clipping that never acts, or that leaves next to nothing of each gradient."""
    steps = [step for seen in look.seen for step in seen.probe.gradients]
    if look.failed or not steps:
        return
    for callback in look.trainer.callbacks:
        if not isinstance(callback, GradClipCallback):
            continue
        sizes = [step.largest if callback.norm_type is None else step.total for step in steps]
        what = "entries" if callback.norm_type is None else "norms"
        low, high, limit = min(sizes), max(sizes), callback.max_value
        seen = f"the {what} of the gradients are {low:.2g} to {high:.2g} in {len(steps)} steps"
        if high and limit > NEVER * high:
            yield Finding(
                "note",
                f"GradClipCallback({limit:g}) never acts: {seen}.",
                f"Give a limit near {10 * high:.1g}, or leave the callback out.",
            )
        elif limit * NEVER < low:
            yield Finding(
                "note",
                f"GradClipCallback({limit:g}) leaves less than a thousandth of each gradient: {seen}.",
                "Give a larger limit, or bring inputs and targets to a scale of about 1.",
            )


def kept_outputs(look: Look) -> Iterator[Finding]:
    """Find metrics that keep more of an epoch than a good part of the memory."""
    total = (
        os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0
    )
    seen_in_stages = ((Stage.TRAIN, look.seen), (Stage.VAL, look.seen_in_validation))
    for stage, seen in ((stage, seen) for stage, listed in seen_in_stages for seen in listed):
        plan = look.plan.metrics_of(stage, seen.task)
        keeping = [name for name, make in plan if isinstance(make(1), TensorPatch)]
        kept = bytes_kept(seen)
        if keeping and seen.task.length and is_too_much(kept * seen.task.length, total):
            yield Finding(
                "warning",
                f"The metric {keeping[0]} keeps the outputs of an epoch of {stage}, about "
                f"{size_text(kept * seen.task.length)} of {size_text(total)} of memory.",
                "Take a metric that adds up counts, or metric_patch='mean'.",
            )


def is_too_much(size: int, total: int) -> bool:
    """Whether so many bytes are too many for a machine; ``total`` is 0 if it is not known.

    >>> is_too_much(3_000, 10_000), is_too_much(2_000, 10_000), is_too_much(9, 0)
    (True, False, False)
    """
    return 0 < total * SHARE < size


def bytes_kept(seen: Seen) -> int:
    """The bytes of the outputs and targets of one mini-batch."""
    if not seen.probe.outputs:
        return 0
    held: list[Any] = [seen.probe.outputs[0], seen.probe.batches[0][1]]
    return sum(one.numel() * one.element_size() for one in held if isinstance(one, Tensor))
