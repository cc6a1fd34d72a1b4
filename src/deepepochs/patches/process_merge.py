"""Merging the patches of all processes at the end of a pass, by the ``add`` of the patches.

What a step returns may be of any class, which no other process can name. A process that
has no patch of that name itself, for want of data, takes the merged value from one that has.

>>> from deepepochs.patches import ValuePatch
>>> from deepepochs.runtime.base import LocalRuntime
>>> patches = {"loss": ValuePatch(2).load(1.5)}
>>> float(merge_patches(LocalRuntime("cpu"), patches, {}, {})["loss"]())
1.5
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..errors import MetricError
from ..nest import operations as nested
from ..runtime.base import Runtime
from . import PatchBase
from .resumed import RestoredPatch, join_patches

__all__ = ["merge_patches", "merged_states"]


def merge_patches(
    runtime: Runtime,
    patches: Mapping[str, PatchBase],
    makers: Mapping[str, Callable[[], PatchBase]],
    saved: Mapping[str, Any],
) -> dict[str, PatchBase]:
    """Merge the patches of all processes; each of them gets the same.

    Args:
        runtime: the processes; all of them call this at the same time.
        patches: of this process.
        makers: make an empty patch, for names that are planned.
        saved: from ``merged_states``, for patches of which nobody knows the class since no
            mini-batch came after a resume.

    Raises:
        MetricError: a patch whose class nobody knows.
    """
    own = {
        name: {
            "state": patch.state if isinstance(patch, RestoredPatch) else patch.state_dict(),
            "known": name in makers or not isinstance(patch, RestoredPatch),
        }
        for name, patch in patches.items()
    }
    gathered = runtime.gather_objects(nested.to_cpu(own))
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
        # From what all know: makers may differ, and all must come to the same list.
        if sum(name in states and states[name]["known"] for states in gathered) < everybody
    ]
    if lacking:
        told = runtime.gather_objects(merged_states({n: merged[n] for n in lacking if n in merged}))
        for name in lacking:
            if name not in merged:
                merged[name] = _told(name, [*told, saved])
    return {name: merged[name] for name in names}


def merged_states(patches: Mapping[str, PatchBase]) -> dict[str, Any]:
    """Give states and values of merged patches, as plain types and tensors."""
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
