"""Checks, on the user's model and data, that a resumed run equals an unbroken one to the bit.

The run is made three times, each in a new process: unbroken, up to a save in the middle, and
resumed from that save. The last states of the first and the third run are compared entry by
entry. The trainer itself does not change. In several processes each makes these runs with the
others, and compares its own.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..arguments import check_count
from ..errors import CheckpointError, ConfigError, LoopException
from ..hints.calls import refusal
from ..nest.compare import differing
from .causes import Runs, cause_of, findings, joined, not_followed
from .probe import PROBE
from .processes import Starter

if TYPE_CHECKING:
    from ..contracts import TrainerView
    from ..runtime.base import Runtime

Run = Callable[..., dict[str, Any]]

__all__ = ["ResumeReport", "verify_resume"]


class ResumeReport(NamedTuple):
    """What `verify_resume` found.

    Attributes:
        ok: the resumed run equals the unbroken one.
        num_batches: mini-batches of the unbroken run, of training and validation.
        saved_after: mini-batches before the save.
        differences: the entries of the state that differ, each with the difference; in several
            processes with the process, unless it is the same in all.
        cause: the likely cause; empty without a difference.
        attributes: what is not as in the unbroken run where the resumed one begins, each with
            both values; empty without a difference.
        not_followed: what the checkpoints could not follow, which a longer run may depend on.
    """

    ok: bool
    num_batches: int
    saved_after: int
    differences: tuple[str, ...] = ()
    cause: str = ""
    attributes: tuple[str, ...] = ()
    not_followed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.ok

    def __repr__(self) -> str:
        where = f"saved after mini-batch {self.saved_after} of {self.num_batches}"
        unread = [f"No checkpoint can follow this: {line}" for line in self.not_followed]
        if self.ok:
            text = f"Exact resume: {where}; every entry of the state is the same to the bit."
            return "\n".join([text, *unread, *(["A longer run may differ."] if unread else [])])
        lines = [f"NOT an exact resume: {where}; {len(self.differences)} entries differ:"]
        lines += [f"  {difference}" for difference in self.differences[:12]]
        if self.differences[12:]:
            lines.append(f"  and {len(self.differences) - 12} more")
        return "\n".join([*lines, f"Likely cause: {self.cause}", *unread])


def verify_resume(trainer: TrainerView, steps: int, fit_options: Mapping[str, Any]) -> ResumeReport:
    """Make the runs and compare them: see `Trainer.verify_resume`."""
    check_count("steps", steps, 2)
    refused = refusal(type(trainer).fit, (trainer,), fit_options)
    if refused is not None:
        raise refused
    if trainer.run is not None:
        raise LoopException("verify_resume was called inside a running fit: call it before.")
    if trainer.runtime.is_sharded:
        raise ConfigError(
            "verify_resume starts new processes, which cannot take part in a sharded model: call it "
            "with a small model that is not sharded."
        )
    prefix = "verify-resume-"
    with trainer.runtime.call("verify_resume"), tempfile.TemporaryDirectory(prefix=prefix) as name:
        starter = Starter(trainer, dict(fit_options), Path(name))
        return _proof(starter.run, trainer.runtime, steps)


def _proof(run: Run, runtime: Runtime, steps: int) -> ResumeReport:
    middle = steps // 2
    unbroken = run("unbroken", middle, steps)
    num_batches = int(unbroken["num_done"])
    if num_batches < 2:
        raise ConfigError(
            "The run has fewer than 2 mini-batches, so there is no place for a save within it: give "
            "the trainer more epochs."
        )
    if num_batches <= middle:  # the fit has fewer than those that were asked for
        middle, steps = num_batches // 2, num_batches
        unbroken = run("unbroken, whole", middle, steps)
    broken_off = run("broken off", middle, middle)
    where = (num_batches, int(broken_off["num_done"]))
    own = not_followed(broken_off, unbroken)
    unread = joined(runtime.gather_objects(own, "says what is not followed"))
    try:
        resumed = run("resumed", middle, steps, "broken off")
    except CheckpointError as error:
        # The other two runs succeeded: the fault is in the resume itself.
        failed = f"resuming failed: {error}"
        return ResumeReport(False, *where, (failed,), "see above", not_followed=unread)
    found = _differing(unbroken, resumed)
    differences = joined(runtime.gather_objects(found, "says what differs"))
    if not differences:
        return ResumeReport(True, *where, not_followed=unread)
    runs = Runs(unbroken, run("unbroken again", middle, steps), resumed, where[1])
    again = _differing(unbroken, runs.again)
    told = runtime.gather_objects(findings(runs, again, found), "says why it differs")
    attributes = joined([of.attributes for of in told])
    return ResumeReport(False, *where, differences, cause_of(told), attributes, unread)


def _differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    for content in (one, other):
        content["state"]["callbacks"].pop(PROBE, None)
        content["state"]["progress"].pop("seconds", None)  # no two runs take the same
    found = differing(one["state"], other["state"])
    # Files for TensorBoard are named by the time and the process.
    return [line for line in found if "events.out.tfevents" not in line]
