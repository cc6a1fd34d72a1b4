"""Patches whose class is unknown, after a resume and at the merge over the processes.

A checkpoint and a message between processes hold the state of a patch, never its class. The
metrics of a plan are made again from the plan. What a step returned, of any class, waits as a
`RestoredPatch` until the next patch of its name arrives. `merge_patches` adds up the patches
of all processes; one that has no patch of a name itself takes the merged value from another.

>>> from deepepochs.patches import ValuePatch
>>> restored = RestoredPatch.of(ValuePatch(30).load(1.0))
>>> join_patches(restored, ValuePatch(10).load(3.0))()
1.5
>>> patches = {"loss": ValuePatch(2).load(1.5)}
>>> float(merge_patches(lambda own: [own], patches, {}, {})["loss"]())
1.5
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..errors import CheckpointMismatch, MetricError, PatchError
from ..nest import operations as nested
from ..show.lines import to_array
from .base import PatchBase
from .metric import flatten_value

__all__ = ["RestoredPatch", "join_patches", "merge_patches", "merged_states"]


class RestoredPatch(PatchBase):
    """The saved state of a patch, held until the next patch of its name shows its class.

    A step may return patches of any class, and a checkpoint holds no classes. Until a
    mini-batch brings a patch of the same name, this one gives the value that was saved.
    """

    def __init__(self) -> None:
        super().__init__()
        self.state: dict[str, Any] = {}
        self.value: Any = None
        self.kind = ""
        self._others: list[RestoredPatch] = []

    @classmethod
    def of(cls, patch: PatchBase, value: Mapping[str, Any] | None = None) -> RestoredPatch:
        """Make one from any patch; ``value`` is its flat value, where that is known already."""
        if isinstance(patch, RestoredPatch):
            return patch
        restored = cls()
        restored.name = patch.name
        restored.kind = type(patch).__name__
        restored.state = patch.state_dict()
        flat = flatten_value("", patch()) if value is None else value
        restored.value = {key: to_array(item) for key, item in flat.items()}
        return restored

    def claim(self, like: PatchBase) -> PatchBase:
        """Give this state as a patch of the class and metric of ``like``.

        Raises:
            CheckpointMismatch: the state is of another class.
        """
        if type(like).__name__ != self.kind:
            raise CheckpointMismatch(
                f"The checkpoint holds a {self.kind} where a {type(like).__name__} is to be added: "
                "one name stands for one kind of patch. Give the same metrics, or start from a "
                "checkpoint of the end of an epoch."
            )
        patch = like.copy()
        patch.load_state_dict(self.state)
        for other in self._others:
            patch = patch.add(other.claim(like))
        return patch

    def add(self, other: Any) -> RestoredPatch:
        """Keep another restored patch beside this one, until `claim` can add both up."""
        if not isinstance(other, RestoredPatch):
            raise PatchError("A restored patch takes only restored ones: claim it first.")
        self._others.append(other)
        return self

    @property
    def is_joined(self) -> bool:
        """Whether another one was added: then the value of both is unknown."""
        return bool(self._others)

    def forward(self) -> Any:
        """Give the value that the patch had."""
        return self.value

    def state_dict(self) -> dict[str, Any]:
        """Give state and value."""
        return {"state": self.state, "value": self.value, "name": self.name, "kind": self.kind}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load what ``state_dict`` gave."""
        self.state = dict(state["state"])
        self.value = dict(state["value"])
        self.name = state["name"]
        self.kind = str(state["kind"])


def join_patches(merged: PatchBase, patch: PatchBase) -> PatchBase:
    """Add ``patch`` to ``merged``, which may be changed in place.

    Raises:
        PatchError: patches of two classes.
    """
    if type(merged) is RestoredPatch and type(patch) is not RestoredPatch:
        merged = merged.claim(patch)
    elif type(patch) is RestoredPatch and type(merged) is not RestoredPatch:
        patch = patch.claim(merged)
    if type(merged) is not type(patch):
        raise PatchError(
            f"A {type(patch).__name__} cannot be added to a {type(merged).__name__}: one name "
            "stands for one kind of patch."
        )
    return merged.add(patch)


def merge_patches(
    gather: Callable[[Any], list[Any]],
    patches: Mapping[str, PatchBase],
    makers: Mapping[str, Callable[[], PatchBase]],
    saved: Mapping[str, Any],
) -> dict[str, PatchBase]:
    """Merge the patches of all processes; each of them gets the same.

    Args:
        gather: gives the value of every process; all of them call this at the same time.
        patches: of this process.
        makers: make an empty patch, for names that are planned.
        saved: from ``merged_states``: values of patches whose class is unknown in every
            process, because no mini-batch came after a resume.

    Raises:
        MetricError: a patch whose class and value are unknown in every process.
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
    everybody = len(gathered)
    lacking = [
        name
        for name in names
        # Only from what was gathered: makers may differ, and the list must be the same in all.
        if sum(name in states and states[name]["known"] for states in gathered) < everybody
    ]
    if lacking:
        told = gather(merged_states({n: merged[n] for n in lacking if n in merged}))
        for name in lacking:
            if name not in merged:
                merged[name] = _told(name, [*told, saved])
    return {name: merged[name] for name in names}


def merged_states(patches: Mapping[str, PatchBase]) -> dict[str, Any]:
    """Give states and values of merged patches, with their tensors on the CPU."""
    states = {name: RestoredPatch.of(patch).state_dict() for name, patch in patches.items()}
    plain: dict[str, Any] = nested.to_cpu(states)
    return plain


def _join(like: PatchBase, states: list[Any]) -> PatchBase:
    joined: PatchBase | None = None
    for state in states:
        patch = like.copy()
        patch.load_state_dict(state["state"])
        joined = patch if joined is None else join_patches(joined, patch)
    assert joined is not None
    return joined


def _told(name: str, sources: list[Mapping[str, Any]]) -> RestoredPatch:
    for source in sources:
        if name in source:
            restored = RestoredPatch()
            restored.load_state_dict(source[name])
            return restored
    raise MetricError(
        f"The metric {name!r} was returned by steps before the resume, and no mini-batch came after "
        "it: its class is not known. Resume from another checkpoint."
    )
