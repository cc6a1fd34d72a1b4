"""Patches of a checkpoint whose class is not known before the next one of their name comes.

>>> import torch
>>> from deepepochs.patches import ValuePatch
>>> restored = RestoredPatch.of(ValuePatch(30).load(1.0))
>>> join_patches(restored, ValuePatch(10).load(3.0))()
1.5
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import CheckpointMismatch, PatchError
from ..show.lines import to_array
from . import PatchBase, flatten_value

__all__ = ["RestoredPatch", "join_patches"]


class RestoredPatch(PatchBase):
    """The state of a patch whose class is not known before the next one of its name comes.

    A step may return patches of any class, and a checkpoint names no classes. Until
    a mini-batch brings a patch to add, this one answers with the value it had.
    """

    def __init__(self) -> None:
        super().__init__()
        self.state: dict[str, Any] = {}
        self.value: Any = None
        self.kind = ""
        self._others: list[RestoredPatch] = []

    @classmethod
    def of(cls, patch: PatchBase, value: Mapping[str, Any] | None = None) -> RestoredPatch:
        """Make one of any patch; ``value`` is the patch's, flat, where it is known already."""
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
        """Keep another one of unknown class beside this, until both can be claimed."""
        if not isinstance(other, RestoredPatch):
            raise PatchError("A restored patch takes only restored ones: claim it first.")
        self._others.append(other)
        return self

    @property
    def is_joined(self) -> bool:
        """Whether another one was added, so that the value is not known."""
        return bool(self._others)

    def forward(self) -> Any:
        """Give the value that the patch had."""
        return self.value

    def state_dict(self) -> dict[str, Any]:
        """State and value."""
        return {"state": self.state, "value": self.value, "name": self.name, "kind": self.kind}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what ``state_dict`` gave."""
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
