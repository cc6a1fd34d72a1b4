"""Says why a resumed run differs from the unbroken one."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from .attributes import differing_readings

MAX_NAMED = 4
_IN_DATA = (
    "Draw from torch, NumPy or random, keep generators as attributes, or give these objects "
    "state_dict and load_state_dict."
)
_IN_MODULES = "Register it as a buffer, or add a part in parts()."
_REMEDIES = {
    "model": _IN_MODULES,
    "loss": _IN_MODULES,
    "trainer": "Add a part in parts() for it.",
    "optimizers": "Give the optimizer state_dict and load_state_dict that have it.",
    "schedulers": "Compute it from the number of the step, or make the function an object, whose "
    "attributes LambdaLR saves.",
    "metrics": "Add a part in parts() for it.",
    **dict.fromkeys(("train_dl", "val_dl"), _IN_DATA),
    **dict.fromkeys(("train_tasks", "val_tasks"), "Add a part in parts() for it."),
}
_OF_CALLBACKS = "Give the callback state_dict and load_state_dict that have it."
_OF_GLOBALS = (
    "Keep it as an attribute of the data set, or of a callback with state_dict and load_state_dict."
)


class Runs(NamedTuple):
    """What the probes of three runs have saved; ``again`` is a second unbroken one.

    Attributes:
        saved_after: the mini-batches before the save that was resumed.
    """

    unbroken: dict[str, Any]
    again: dict[str, Any]
    resumed: dict[str, Any]
    saved_after: int

    def attributes(self) -> list[str]:
        """Say which attributes differ where the resumed run begins."""
        if not self.resumed["readings"]:
            return []
        return differing_readings(*(of["readings"] for of in self[:3]))


def not_followed(*runs: dict[str, Any]) -> tuple[str, ...]:
    """Say what the checkpoints of runs could not follow, each once."""
    found = [(where, why, remedy) for run in runs for where, why, remedy in run["unread"]]
    return tuple(f"{where} {why}. {remedy}" for where, why, remedy in dict.fromkeys(found))


class Found(NamedTuple):
    """What one process has found.

    Attributes:
        attributes: those that differ where the resumed run begins.
        first: the first mini-batch that differs.
        cause: what is likely to be the cause.
    """

    attributes: list[str]
    first: int
    cause: str


def findings(runs: Runs, again: list[str], found: list[str]) -> Found:
    """Say what the likely cause is, by what differs first.

    Args:
        runs: what was saved.
        again: what differs in the state of two unbroken runs.
        found: what differs in the state of the resumed run.
    """
    if again:
        return Found([], -1, _NOT_DETERMINISTIC.format(again[0]))
    if not found:  # in this process
        return Found([], sys.maxsize, "")
    logs = runs.unbroken["log"], runs.resumed["log"]
    first, kind, seen, guess, remedy = _first_seen(*logs, runs.saved_after, found)
    attributes = sorted(runs.attributes(), key=lambda line: _distance(kind, root_of(line), runs))
    if not attributes:
        return Found([], first, f"{seen}: {guess}. {remedy}".rstrip())
    named = "; ".join(attributes[:MAX_NAMED])
    if attributes[MAX_NAMED:]:
        named += f"; and {len(attributes) - MAX_NAMED} more"
    these = "" if len(attributes) == 1 else "one of these: "
    remedy = remedy_of(attributes[0], runs)
    cause = f"the resume does not bring back {these}{named}. So {seen}. {remedy}"
    return Found(attributes, first, cause)


def cause_of(told: list[Found]) -> str:
    """Choose what the process says that knows most, and where it was seen first."""
    best = min(told, key=lambda of: (of.first >= 0, not of.attributes, of.first))
    if all(of.cause == best.cause for of in told):
        return best.cause
    return f"in process {told.index(best)}, {best.cause}"


def joined(of_processes: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Join the lines of all processes; those that not all have get the process."""
    found: dict[str, None] = {}
    for rank, lines in enumerate(of_processes):
        for line in lines:
            in_all = all(line in others for others in of_processes)
            found[line if in_all else f"process {rank}: {line}"] = None
    return tuple(found)


_NOT_DETERMINISTIC = (
    "two unbroken runs differ as well (in {}): the run is not deterministic, so no "
    "resume can be exact. The cause may be a kernel (which "
    "torch.use_deterministic_algorithms(True) finds), the time, threads, or a random "
    "generator that the system seeds."
)


def remedy_of(attribute: str, runs: Runs) -> str:
    """Say how an attribute is kept in checkpoints, by the object that it is of."""
    root = root_of(attribute)
    if root in _REMEDIES:
        return _REMEDIES[root]
    return _OF_CALLBACKS if root in runs.unbroken["callbacks"] else _OF_GLOBALS


def root_of(attribute: str) -> str:
    """Give the object at the begin of the path of an attribute.

    >>> root_of("train_tasks[0].num: 4 in the unbroken run, 1 in the resumed one")
    'train_tasks'
    """
    return attribute.partition(":")[0].partition(".")[0].partition("[")[0]


def _distance(kind: str, root: str, runs: Runs) -> int:
    """Say how far an object is from what differs first: the nearest is named first."""
    name = "callbacks" if root in runs.unbroken["callbacks"] else root
    near = _NEAR[kind]
    if name in near:
        return 0
    return 2 if any(name in others for others in _NEAR.values()) else 1  # 1: a global name


_STEPS = ("model", "loss", "trainer", "train_tasks", "val_tasks", "optimizers", "schedulers")
_NEAR = {
    "data": ("train_dl", "val_dl", "train_tasks", "val_tasks"),
    "step": _STEPS,
    "rest": ("callbacks", "metrics"),
}


class Seen(NamedTuple):
    """Where the runs differ first, in what kind of thing and in words; a guess, and the remedy."""

    first: int
    kind: str
    what: str
    guess: str
    remedy: str


def _first_seen(
    unbroken: list[dict[str, Any]],
    resumed: list[dict[str, Any]],
    saved_after: int,
    found: list[str],
) -> Seen:
    pairs = zip(unbroken[saved_after:], resumed, strict=False)
    for index, (whole, part) in enumerate(pairs, start=saved_after):
        if (seen := _in_batch(index, whole, part)) is not None:
            return seen
    ends = len(unbroken), saved_after + len(resumed)
    if ends[0] != ends[1]:
        return Seen(
            min(ends),
            "rest",
            f"the unbroken run ends after {ends[0]} mini-batches, and the resumed one after {ends[1]}",
            "hidden state in what ends it, such as a callback that stops the fit",
            _OF_CALLBACKS,
        )
    return Seen(
        len(unbroken),
        "rest",
        f"all mini-batches and losses are the same, and {found[0].partition(':')[0]} is not",
        "its load_state_dict does not restore all of its state",
        "",
    )


def _in_batch(index: int, whole: dict[str, Any], part: dict[str, Any]) -> Seen | None:
    """Say how a mini-batch differs in the unbroken and in the resumed run, if it does."""
    for entry, kind, what, guess, remedy in _OF_BATCHES:
        if whole[entry] != part[entry]:
            return Seen(index, kind, what.format(index + 1), guess, remedy)
    return None


_OF_BATCHES = (
    (
        "data",
        "data",
        "mini-batch {} holds other data",
        "hidden state in the data set, the sampler or the loader, or a random generator that is not "
        "one of their attributes",
        _IN_DATA,
    ),
    (
        "random",
        "step",
        "before mini-batch {} the global random states differ",
        "after the resume something draws more or fewer numbers, as a cache filled once",
        "",
    ),
    (
        "loss",
        "step",
        "mini-batch {} is the same and its loss is not",
        "hidden state in the model, the loss, the step or a callback, such as an attribute that is no "
        "parameter or buffer, or a private random generator",
        _IN_MODULES,
    ),
)
"""What a probe logs of a mini-batch, in the order in which a fault spreads; the rest is of `Seen`."""
