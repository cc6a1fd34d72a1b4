"""What a checkpoint keeps of the metrics of a pass that is under way, and whether it fits.

A resumed pass adds to the patches of the one before. That is right only where each name still
stands for the same kind of patch, so the names and kinds of the plan are kept beside them.

>>> from deepepochs.patches import ValuePatch
>>> saved = patch_states({"loss": ValuePatch(2).load(1.5)}, planned={"loss"})
>>> restored_patches(saved, {"loss": ValuePatch})["loss"]()
1.5
>>> check_same_metrics("the train pass", {"acc": "TensorPatch"}, {"acc": "MeanPatch"})
Traceback (most recent call last):
...
deepepochs.errors.CheckpointMismatch: The checkpoint was taken inside the train pass, whose metrics \
are others here: 'acc' was kept in a TensorPatch, and is in a MeanPatch. Give the same metrics, or \
start from a checkpoint of the end of an epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from typing import Any

from .errors import CheckpointMismatch, add_note
from .patches import PatchBase
from .plan import MetricPlan
from .totals import RestoredPatch

__all__ = ["check_same_metrics", "patch_kinds", "patch_states", "restored_patches"]

ADVICE = "Give the same metrics, or start from a checkpoint of the end of an epoch."


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
        if saved.get(name, kind) != kind
    ]
    if faults:
        raise CheckpointMismatch(
            f"The checkpoint was taken inside {where}, whose metrics are others here: "
            f"{'; '.join(faults)}. {ADVICE}"
        )


def patch_states(patches: Mapping[str, PatchBase], planned: Container[str]) -> dict[str, Any]:
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
        CheckpointMismatch: a state that the metric of its name cannot take.
    """
    patches: dict[str, PatchBase] = {}
    for name, saved in states.items():
        patch = patches[name] = makers[name](1) if saved["planned"] else RestoredPatch()
        try:
            patch.load_state_dict(saved["state"] if saved["planned"] else saved)
        except Exception as error:  # a metric of another kind fails in any way
            add_note(error, f"while restoring the metric {name!r}")
            raise CheckpointMismatch(
                f"The metric {name!r} cannot take its state of the checkpoint ({error!r}): it is "
                f"another metric by that name. {ADVICE}"
            ) from error
    return patches
