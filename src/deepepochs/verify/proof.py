"""Checks, on the user's model and data, that a resumed run equals an unbroken one to the bit.

The run is made three times, each in a new process: unbroken, up to a save in the middle, and
resumed from that save. The last states of the first and the third run are compared entry by
entry. The trainer itself does not change.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..arguments import check_count
from ..errors import CheckpointError, ConfigError, LoopException
from ..hints.calls import refusal
from ..nest.compare import differing
from .probe import PROBE, choose_context, run_probe

if TYPE_CHECKING:
    from ..contracts import TrainerView

__all__ = ["ResumeReport", "verify_resume"]


class ResumeReport(NamedTuple):
    """What `verify_resume` found.

    Attributes:
        ok: the resumed run equals the unbroken one.
        num_batches: mini-batches of the unbroken run, of training and validation.
        saved_after: mini-batches before the save.
        differences: the entries of the state that differ, each with the difference.
        cause: the likely cause; empty without a difference.
    """

    ok: bool
    num_batches: int
    saved_after: int
    differences: tuple[str, ...] = ()
    cause: str = ""

    def __bool__(self) -> bool:
        return self.ok

    def __repr__(self) -> str:
        where = f"saved after mini-batch {self.saved_after} of {self.num_batches}"
        if self.ok:
            return f"Exact resume: {where}; every entry of the state is the same to the bit."
        lines = [f"NOT an exact resume: {where}; {len(self.differences)} entries differ:"]
        lines += [f"  {difference}" for difference in self.differences[:12]]
        if self.differences[12:]:
            lines.append(f"  and {len(self.differences) - 12} more")
        return "\n".join([*lines, f"Likely cause: {self.cause}"])


def verify_resume(trainer: TrainerView, steps: int, fit_options: Mapping[str, Any]) -> ResumeReport:
    """Make the runs and compare them: see `Trainer.verify_resume`."""
    check_count("steps", steps, 2)
    refused = refusal(type(trainer).fit, (trainer,), fit_options)
    if refused is not None:
        raise refused
    if trainer.run is not None:
        raise LoopException("verify_resume was called inside a running fit: call it before.")
    if trainer.runtime.num_processes > 1 or trainer.runtime.is_sharded:
        raise ConfigError(
            "verify_resume starts new processes, which cannot take part in a run of several "
            "processes or of a sharded model: call it in a script that is started without a "
            "launcher, with a model that is not sharded."
        )
    context = choose_context(trainer, fit_options)
    with tempfile.TemporaryDirectory(prefix="verify-resume-") as name:
        run = functools.partial(run_probe, context, Path(name), trainer, dict(fit_options))
        middle = steps // 2
        unbroken = run("unbroken", steps)
        num_batches = int(unbroken["num_done"])
        if num_batches <= middle:
            raise ConfigError(
                f"steps={steps}: the run ends after {num_batches} mini-batches, before the save "
                f"after {middle}. Give at most steps={2 * num_batches - 1}, or the trainer more epochs."
            )
        saved_after = int(run("broken off", middle)["num_done"])
        where = (num_batches, saved_after)
        try:
            resumed = run("resumed", steps, "broken off")
        except CheckpointError as error:
            # The other two runs succeeded: the fault is in the resume itself.
            return ResumeReport(False, *where, (f"resuming failed: {error}",), "see above")
        found = _differing(unbroken, resumed)
        if not found:
            return ResumeReport(True, *where)
        again = _differing(unbroken, run("unbroken again", steps))
    return ResumeReport(False, *where, tuple(found), _cause(unbroken, resumed, again, found))


def _differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    for content in (one, other):
        content["state"]["callbacks"].pop(PROBE, None)
        content["state"]["progress"].pop("seconds", None)  # no two runs take the same
    found = differing(one["state"], other["state"])
    # Files for TensorBoard are named by the time and the process.
    return [line for line in found if "events.out.tfevents" not in line]


def _cause(
    unbroken: dict[str, Any], resumed: dict[str, Any], again: list[str], found: list[str]
) -> str:
    """Say what the likely cause is, by the first mini-batch that differs."""
    if again:
        return (
            f"two unbroken runs differ as well (in {again[0]}): the run is not deterministic, so no "
            "resume can be exact. The cause may be a kernel (which "
            "torch.use_deterministic_algorithms(True) finds), the time, threads, or a random "
            "generator that the system seeds."
        )
    later = unbroken["log"][-len(resumed["log"]) :] if resumed["log"] else []
    first = len(unbroken["log"]) - len(later)
    for index, (whole, part) in enumerate(zip(later, resumed["log"], strict=True), start=first):
        if whole["data"] != part["data"]:
            return (
                f"mini-batch {index} (from 0) holds other data: hidden state in the data set, the "
                "sampler or the loader, or a random generator that is not one of their attributes. "
                "Draw from torch, NumPy or random, keep generators as attributes, or give these "
                "objects state_dict and load_state_dict."
            )
        if whole["random"] != part["random"]:
            return (
                f"before mini-batch {index} (from 0) the global random states differ: after the "
                "resume something draws more or fewer numbers, as a cache that is filled once."
            )
        if whole["loss"] != part["loss"]:
            return (
                f"mini-batch {index} (from 0) is the same and its loss is not: hidden state in the "
                "model, the loss, the step or a callback, such as an attribute that is no parameter "
                "or buffer, or a private random generator. Register it as a buffer, or add a part in "
                "parts()."
            )
    return (
        f"all mini-batches and losses are the same, and {found[0].partition(':')[0]} is not: its "
        "load_state_dict does not restore all of its state."
    )
