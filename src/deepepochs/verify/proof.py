"""Proof, on the user's own model and data, that a resumed run is the unbroken one to the bit.

The run is made three times, each in a process of its own that starts from the trainer as
it is: unbroken; up to the middle, where it is saved; and from that file on. What the first
and the last end with is compared entry by entry. The trainer itself is not touched.

::

    report = trainer.verify_resume(train_dl, val_dl, steps=20)
    print(report)                 # what differs, and the likely cause
    assert report.ok
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..arguments import check_count
from ..errors import CheckpointError, ConfigError, LoopException
from ..nest.compare import differing
from .probe import PROBE, ProbeRuns, choose_context

if TYPE_CHECKING:
    from ..contracts import TrainerView

__all__ = ["ResumeReport", "verify_resume"]


class ResumeReport(NamedTuple):
    """What `verify_resume` found.

    Attributes:
        ok: the resumed run is the unbroken one.
        num_batches: mini-batches of the unbroken run, of training and validation.
        saved_after: mini-batches before the save.
        differences: the entries of the state that differ, each with how.
        cause: what the difference comes from, most likely; empty where there is none.
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
    """Run unbroken, run to the middle, resume in a fresh process, and compare.

    Args:
        trainer: what is verified; it is left as it is.
        steps: mini-batches of the unbroken run, of training and validation together.
        fit_options: arguments for its ``fit``.

    Returns:
        What differs, and why, most likely.

    Raises:
        ConfigError: too few steps, or too few mini-batches in the run.
        LoopException: called in a running fit; or the processes cannot be started.
        CheckpointError: one of the runs failed; the cause has the traceback.
    """
    check_count("steps", steps, 2)
    if trainer.run is not None:
        raise LoopException("verify_resume was called inside a running fit: call it before.")
    if trainer.runtime.num_processes > 1 or trainer.runtime.is_sharded:
        raise ConfigError(
            "verify_resume starts processes of its own from this one, and a run in several processes "
            "or of a sharded model cannot be continued in them: call it in a script that is started "
            "without a launcher, with the model not sharded."
        )
    context = choose_context(trainer, fit_options)
    with tempfile.TemporaryDirectory(prefix="verify-resume-") as name:
        runs = ProbeRuns(context, Path(name), trainer, dict(fit_options))
        middle = steps // 2
        unbroken = runs.run("unbroken", steps)
        num_batches = int(unbroken["num_done"])
        if num_batches <= middle:
            raise ConfigError(
                f"steps={steps}: the run ends after {num_batches} mini-batches, before the save "
                f"after {middle}. Give at most steps={2 * num_batches - 1}, or the trainer more epochs."
            )
        saved_after = int(runs.run("broken off", middle)["num_done"])
        try:
            resumed = runs.run("resumed", steps, "broken off")
        except CheckpointError as error:
            # The other two went well: what fails is the resume itself.
            return ResumeReport(
                False, num_batches, saved_after, (f"resuming failed: {error}",), "see above"
            )
        found = _differing(unbroken, resumed)
        if not found:
            return ResumeReport(True, num_batches, saved_after)
        again = _differing(unbroken, runs.run("unbroken again", steps))
    return ResumeReport(
        False, num_batches, saved_after, tuple(found), _cause(unbroken, resumed, again, found)
    )


def _differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    states = []
    for content in (one, other):
        callbacks = {
            name: state for name, state in content["state"]["callbacks"].items() if name != PROBE
        }
        states.append({**content["state"], "callbacks": callbacks})
    return differing(*states)


def _cause(
    unbroken: dict[str, Any], resumed: dict[str, Any], again: list[str], found: list[str]
) -> str:
    """Say where the difference comes from, going by what differs first."""
    if again:
        return (
            f"two unbroken runs differ as well (in {again[0]}): the run is not deterministic, so no "
            "resume can be exact. A kernel that is not, the time, threads, or a random generator "
            "seeded by the system; torch.use_deterministic_algorithms(True) finds such kernels."
        )
    later = unbroken["log"][-len(resumed["log"]) :] if resumed["log"] else []
    first = len(unbroken["log"]) - len(later)
    for index, (whole, part) in enumerate(zip(later, resumed["log"], strict=True), start=first):
        if whole["data"] != part["data"]:
            return (
                f"mini-batch {index} (from 0) holds other data: hidden state in the data set, the "
                "sampler or the loader, or a random generator that is not an attribute of theirs. "
                "Draw from torch, NumPy or random, keep generators as attributes, or give them "
                "state_dict and load_state_dict."
            )
        if whole["random"] != part["random"]:
            return (
                f"before mini-batch {index} (from 0) the global random states differ: something "
                "draws another number of times after a resume, as a cache that is filled once does."
            )
        if whole["loss"] != part["loss"]:
            return (
                f"mini-batch {index} (from 0) is the same and its loss is not: hidden state in the "
                "model, the loss, the step or a callback: an attribute that is no parameter or "
                "buffer, or a random generator of its own. Register it as a buffer, or add a part "
                "in parts()."
            )
    return (
        f"all mini-batches and losses are the same, and {found[0].partition(':')[0]} is not: what "
        "is kept there is not brought back whole by its load_state_dict."
    )
