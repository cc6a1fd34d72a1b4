"""What a checkpoint keeps of a pass that is under way, and whether it fits.

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
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor

from .data.cursor import Cursor
from .errors import CheckpointMismatch, add_note
from .optim.accumulation import Window
from .patches import PatchBase, ValuePatch
from .patches.plan import MetricPlan
from .patches.resumed import RestoredPatch, merge_patches, merged_states
from .patches.totals import LOSS
from .stages import Stage

if TYPE_CHECKING:
    from .task import EpochTask
    from .trainer import TrainerBase

__all__ = ["PassState", "check_same_metrics", "patch_kinds", "patch_states", "restored_patches"]

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


class PassState:
    """The part of a `Run` that a checkpoint keeps, and the patches of all processes."""

    trainer: TrainerBase
    stage: Stage
    task: EpochTask
    task_idx: int
    plan: tuple[MetricPlan, ...]
    cursor: Cursor
    window: Window | None
    patches: dict[str, PatchBase]
    resumed: bool
    batch_idx: int
    num_batches: int | None
    num_steps: int
    last_loss: Tensor | None
    is_training: bool
    is_filler: bool
    has_samples: bool
    _noted_steps: int
    may_wait: bool
    by_hand: dict[int | None, None]
    _returned: set[str]
    _saved_merged: dict[str, Any]

    @property
    def is_last(self) -> bool | None:
        """Whether the present mini-batch is the last one; ``None`` if that is not known."""
        return None if self.num_batches is None else self.batch_idx + 1 >= self.num_batches

    @property
    def planned_names(self) -> set[str]:
        """Names of the loss and of the metrics of the plan: not what steps return."""
        return {LOSS, *(name for name, _ in self.plan)} - self._returned

    def merge_processes(self) -> None:
        """Merge the patches of all processes into this one's."""
        self.patches = self._merged()

    def _merged(self) -> dict[str, PatchBase]:
        planned = self.planned_names
        makers: dict[str, Callable[[], PatchBase]] = {
            name: partial(make, 1) for name, make in self._makers.items() if name in planned
        }
        return merge_patches(
            self.trainer.runtime.gather_objects, self.patches, makers, self._saved_merged
        )

    def state_dict(self) -> dict[str, Any]:
        """Where the pass is, after ``batch_idx`` was done."""
        return {
            "cursor": self.cursor.state_dict(),
            "batch_idx": self.batch_idx,
            "num_steps": self.num_steps,
            "window": None if self.window is None else self.window.state_dict(),
            # A window may be closed at the end without another mini-batch.
            "last_loss": self.last_loss,
            "metrics": patch_kinds(self.plan),
            "has_samples": self.has_samples and self.num_steps == self._noted_steps,
            "patches": patch_states(self.patches, self.planned_names),
            "ended": self.is_filler,
            "merged": self._merged_if_last(),
            "by_hand": {"waiting": list(self.by_hand), "count": self.trainer.runtime.hand_count},
        }

    def _merged_if_last(self) -> dict[str, Any]:
        """What steps returned, merged: nobody may know its class if no mini-batch follows."""
        if self.trainer.runtime.num_processes == 1 or self.is_last is False:
            return {}
        merged = self._merged()
        return merged_states({n: merged[n] for n in merged if n not in self.planned_names})

    def patches_if_last(self) -> dict[str, PatchBase]:
        """The patches so far; after what may be the last mini-batch, those of all processes."""
        several = self.trainer.runtime.num_processes > 1
        return self._merged() if several and self.is_last is not False else self.patches

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where ``state`` was taken.

        Raises:
            CheckpointMismatch: the pass has other metrics or another window than there.
        """
        self._check_fits(state)
        self.resumed = True
        self.cursor.load_state_dict(state["cursor"])
        self.batch_idx = int(state["batch_idx"])
        self.num_steps = int(state["num_steps"])
        if self.window is not None and state["window"] is not None:
            self.window.load_state_dict(state["window"])
        self.last_loss = state["last_loss"]
        self.patches = restored_patches(state["patches"], self._makers)
        self._returned = {n for n, saved in state["patches"].items() if not saved["planned"]}
        self.is_filler = bool(state["ended"])
        self.has_samples, self._noted_steps = bool(state["has_samples"]), self.num_steps
        self._saved_merged = state["merged"]
        self.by_hand = dict.fromkeys(state["by_hand"]["waiting"])
        self.may_wait = self.may_wait or bool(self.by_hand)
        if self.is_training:
            self.trainer.runtime.begin_hand_window(int(state["by_hand"]["count"]))

    def _check_fits(self, state: Mapping[str, Any]) -> None:
        where = f"the {self.stage} pass of task {self.task.label(self.task_idx)!r}"
        check_same_metrics(where, state["metrics"], patch_kinds(self.plan))
        saved = 1 if state["window"] is None else int(state["window"]["size"])
        here = 1 if self.window is None else self.window.size
        if saved != here:
            raise CheckpointMismatch(
                f"The checkpoint was taken inside {where} with grad_accumulate={saved}, and it is "
                f"{here} here: give the same, or start from a checkpoint of the end of an epoch."
            )

    @property
    def _makers(self) -> dict[str, Callable[[Any], PatchBase]]:
        return {LOSS: ValuePatch, **dict(self.plan)}
