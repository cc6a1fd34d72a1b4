"""Patches after a resume, and the merge of the patches of all processes.

A checkpoint, or a message between processes, holds the state of a patch and never its class. A
patch of the plan is made again from the plan. A patch that a step returned becomes a
`RestoredPatch` until the next patch of its name shows its class.

>>> from deepepochs.patches import ValuePatch
>>> restored = RestoredPatch.of(ValuePatch(30).load(1.0))
>>> join_patches(restored, ValuePatch(10).load(3.0))()
1.5
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import CheckpointMismatch, MetricError, PatchError, add_note
from ..nest import operations as nested
from ..show.screens import to_array
from .base import PatchBase, flatten_value
from .plan import MetricPlan

ADVICE = "Give the same metrics, or start from a checkpoint of the end of an epoch."


class RestoredPatch(PatchBase):
    """The saved state and value of a patch whose class is not known yet."""

    def __init__(self) -> None:
        super().__init__()
        self.state: dict[str, Any] = {}
        self.value: Any = None
        self.kind = ""
        self._others: list[RestoredPatch] = []

    @classmethod
    def of(cls, patch: PatchBase, value: Mapping[str, Any] | None = None) -> RestoredPatch:
        """Make one from any patch; ``value`` is its flat value, if that is known already."""
        if isinstance(patch, RestoredPatch):
            return patch
        flat = flatten_value("", patch()) if value is None else value
        values = {key: to_array(item) for key, item in flat.items()}
        kind, state = type(patch).__name__, patch.state_dict()
        return cls.from_state({"state": state, "value": values, "name": patch.name, "kind": kind})

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> RestoredPatch:
        """Make one from its ``state_dict``."""
        restored = cls()
        restored.load_state_dict(state)
        return restored

    def claim(self, like: PatchBase) -> PatchBase:
        """Give this state as a patch of the class and metric of ``like``.

        Raises:
            CheckpointMismatch: the state is of another class.
        """
        if type(like).__name__ != self.kind:
            raise CheckpointMismatch(
                f"The checkpoint holds a {self.kind} where a {type(like).__name__} is added: one "
                f"name stands for one kind of patch. {ADVICE}"
            )
        patch = like.copy()
        patch.load_state_dict(self.state)
        for other in self._others:
            patch = patch.add(other.claim(like))
        return patch

    def add(self, other: Any) -> RestoredPatch:
        """Keep another restored patch beside this one, until `claim` can add both."""
        self._others.append(other)
        self.value = {}  # the value of both together is not known
        return self

    @property
    def is_joined(self) -> bool:
        """Whether another one was added."""
        return bool(self._others)

    def forward(self) -> Any:
        """Give the value that the patch had when it was saved."""
        return self.value

    def state_dict(self) -> dict[str, Any]:
        """Give state, value, name and class."""
        return {"state": self.state, "value": self.value, "name": self.name, "kind": self.kind}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load what ``state_dict`` gave."""
        super().__init__(state["name"])
        self.state = dict(state["state"])
        self.value = dict(state["value"])
        self.kind = str(state["kind"])


def join_patches(merged: PatchBase, patch: PatchBase) -> PatchBase:
    """Add ``patch`` to ``merged``, which may be changed in place."""
    if type(merged) is RestoredPatch and type(patch) is not RestoredPatch:
        merged = merged.claim(patch)
    elif type(patch) is RestoredPatch and type(merged) is not RestoredPatch:
        patch = patch.claim(merged)
    if type(merged) is not type(patch):
        raise PatchError(
            f"A {type(patch).__name__} cannot be added to a {type(merged).__name__}: one name stands "
            "for one kind of patch."
        )
    return merged.add(patch)


def merge_patches(
    gather: Callable[[Any], list[Any]],
    patches: Mapping[str, PatchBase],
    makers: Mapping[str, Callable[[], PatchBase]],
    saved: Mapping[str, Any],
) -> dict[str, PatchBase]:
    """Merge the patches of all processes; every process gets the same result.

    A process that does not know the class of a patch gets the merged state and value from another.
    If none knows it, because no mini-batch came after a resume, they are in ``saved``, which
    ``merged_states`` gave before. The ``makers`` make empty patches of the planned metrics.

    Raises:
        MetricError: no process knows the class or the merged value of a patch.
    """
    own = {
        name: {
            "state": patch.state if isinstance(patch, RestoredPatch) else patch.state_dict(),
            "known": name in makers or not isinstance(patch, RestoredPatch),
        }
        for name, patch in patches.items()
    }
    gathered = gather(nested.to_cpu(own))
    names = list(dict.fromkeys(name for states in gathered for name in states))
    merged: dict[str, PatchBase] = {}
    for name in names:
        like = patches.get(name)
        if like is None or isinstance(like, RestoredPatch):
            like = makers[name]() if name in makers else None
        if like is not None:
            merged[name] = _join(like, [states[name] for states in gathered if name in states])
    # Taken from the gathered states alone: makers may differ, and this list must not.
    unknown = [
        name
        for name in names
        if not all(name in states and states[name]["known"] for states in gathered)
    ]
    if unknown:
        sources = gather(merged_states({n: merged[n] for n in unknown if n in merged}))
        for name in unknown:
            if name not in merged:
                merged[name] = _restored(name, [*sources, saved])
    return {name: merged[name] for name in names}


def merged_states(patches: Mapping[str, PatchBase]) -> dict[str, Any]:
    """Give states and values of merged patches, with their tensors on the CPU."""
    states = {name: RestoredPatch.of(patch).state_dict() for name, patch in patches.items()}
    return dict(nested.to_cpu(states))


def _join(like: PatchBase, states: list[Any]) -> PatchBase:
    patches = [like.copy() for _ in states]
    for patch, state in zip(patches, states, strict=True):
        patch.load_state_dict(state["state"])
    return functools.reduce(join_patches, patches)


def _restored(name: str, sources: list[Mapping[str, Any]]) -> RestoredPatch:
    for source in sources:
        if name in source:
            return RestoredPatch.from_state(source[name])
    raise MetricError(
        f"Steps returned the metric {name!r} before the resume, and no mini-batch came after it, so "
        "its class is not known. Resume from another checkpoint."
    )


_EARLIER = {"CountsPatch": "TensorPatch"}
"""For a class, the class that earlier releases used, whose state their files have."""


def patch_kinds(plan: tuple[MetricPlan, ...]) -> dict[str, str]:
    """Name the class of patch in which each metric of a plan is kept."""
    return {name: type(make(1)).__name__ for name, make in plan}


def check_same_metrics(where: str, saved: Mapping[str, str], here: Mapping[str, str]) -> None:
    """Raise ``CheckpointMismatch`` unless the metrics of a pass are those of the saved one."""
    faults = [f"{name!r} is not computed" for name in saved if name not in here]
    faults += [f"{name!r} is new" for name in here if name not in saved]
    faults += [
        f"{name!r} was kept in a {saved[name]}, and is in a {kind}"
        for name, kind in here.items()
        if saved.get(name, kind) not in (kind, _EARLIER.get(kind))
    ]
    if faults:
        raise CheckpointMismatch(
            f"The checkpoint was taken inside {where}, with other metrics than the script has: "
            f"{'; '.join(faults)}. {ADVICE}"
        )


def patch_states(patches: Mapping[str, PatchBase], planned: set[str]) -> dict[str, Any]:
    """Give the states of merged patches; ``planned`` are those that a plan can make again."""
    return {
        name: {"planned": True, "state": patch.state_dict()}
        if name in planned and not isinstance(patch, RestoredPatch)
        else {"planned": False, **RestoredPatch.of(patch).state_dict()}
        for name, patch in patches.items()
    }


def restored_patches(
    states: Mapping[str, Any], makers: Mapping[str, Callable[[Any], PatchBase]]
) -> dict[str, PatchBase]:
    """Make the patches again, those of steps as ``RestoredPatch``.

    Raises:
        CheckpointMismatch: a state that the metric of its name cannot load.
    """
    patches: dict[str, PatchBase] = {}
    for name, saved in states.items():
        patch = patches[name] = makers[name](1) if saved["planned"] else RestoredPatch()
        try:
            patch.load_state_dict(saved["state"] if saved["planned"] else saved)
        except Exception as error:  # a metric of another kind fails in any way
            add_note(error, f"while restoring the metric {name!r}")
            raise CheckpointMismatch(
                f"The metric {name!r} cannot load its state from the checkpoint ({error!r}): that is "
                f"of another metric with this name. {ADVICE}"
            ) from error
    return patches
