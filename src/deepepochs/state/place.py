"""Where a run is: how far an epoch has come, and the place at which a loaded run resumes.

A loaded state is a ``Place`` until a fit has resumed it. The fit only reads it: one that is
refused has changed nothing, and the next one resumes there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import CheckpointMismatch
from ..patches.totals import StageTotals
from ..run import Run
from ..show.screens import to_value
from ..stages import Stage


class Place:
    """The parts of a loaded state that say where the run resumes.

    They are ``progress``, ``epoch``, ``loaders`` and ``random``, as they were saved.
    """

    def __init__(self) -> None:
        self._states: dict[str, Any] = {}

    @property
    def is_set(self) -> bool:
        """Whether a state was loaded that no fit has resumed yet."""
        return "progress" in self._states

    def keep(self, part: str, state: Any) -> None:
        """Keep a part of a loaded state."""
        self._states[part] = state

    def get(self, part: str) -> Any:
        """Give a part; ``None`` if none was loaded."""
        return self._states.get(part)

    def clear(self) -> None:
        """Forget the state: a fit has resumed it."""
        self._states = {}


class EpochState:
    """The passes of one epoch so far.

    Attributes:
        epoch_idx: the epoch, from 0.
        begun: stages whose ``before_..._epochs`` hooks have run, with the labels of their tasks.
        totals: the passes that are done, by stage; while it lasts, with their merged patches.
        metrics: the values of the stages that are done.
        waiting: the state of the pass inside which the checkpoint was taken, until it resumes.
    """

    def __init__(self, epoch_idx: int) -> None:
        self.epoch_idx = epoch_idx
        self.begun: dict[Stage, list[str]] = {}
        self.totals: dict[Stage, StageTotals] = {}
        self.metrics: dict[Stage, dict[str, Any]] = {}
        self.waiting: dict[str, Any] | None = None

    def check_tasks(self, here: Mapping[Stage, list[str]]) -> None:
        """Raise ``CheckpointMismatch`` unless a stage that is under way has the tasks it had."""
        for stage, labels in self.begun.items():
            if stage not in self.metrics and labels != here.get(stage, []):
                raise CheckpointMismatch(
                    f"The checkpoint was taken inside the {stage} stage of epoch {self.epoch_idx} "
                    f"(counted from 0) with the tasks {labels}, and here it has "
                    f"{here.get(stage) or 'none'}: give the same, or start from a checkpoint of the "
                    "end of an epoch."
                )

    def begin_stage(self, stage: Stage, labels: list[str]) -> bool:
        """Open a stage; False if that was done before a resume."""
        if stage in self.begun:
            return False
        self.begun[stage] = labels
        self.totals[stage] = StageTotals()
        return True

    def num_done(self, stage: Stage) -> int:
        """How many passes of a stage are done."""
        return len(self.totals[stage].passes)

    def end_stage(self, stage: Stage, values: dict[str, Any]) -> dict[str, Any]:
        """Keep the values of a stage."""
        self.metrics[stage] = values
        self.totals[stage].close()
        return values

    def in_words(self) -> str:
        """How far the epoch is: the mini-batches of the pass that waits."""
        under_way = [stage for stage in self.begun if stage not in self.metrics]
        done = 0 if self.waiting is None else int(self.waiting["batch_idx"]) + 1
        if not under_way:
            return "after its last mini-batch"
        stage = under_way[0]
        labels, inside = self.begun[stage], "" if stage is Stage.TRAIN else "in validation, "
        task = f" of task {labels[self.num_done(stage)]!r}" if len(labels) > 1 else ""
        return f"{inside}after {done:,} mini-batches{task}"

    def resume(self) -> None:
        """Forget the state of the waiting pass: it has resumed."""
        self.waiting = None

    def state_dict(self, run: Run | None) -> dict[str, Any]:
        """The state of the epoch, with that of the pass that runs."""
        return {
            "epoch_idx": self.epoch_idx,
            "begun": {str(stage): list(labels) for stage, labels in self.begun.items()},
            "totals": {
                str(stage): totals.state_dict()
                if run is None or run.stage is not stage
                else totals.state_dict(run.patches_if_last(), run.recorder.planned_names)
                for stage, totals in self.totals.items()
            },
            "metrics": {str(stage): dict(values) for stage, values in self.metrics.items()},
            "run": self.waiting if run is None else run.state_dict(),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> EpochState:
        """Make the epoch that ``state_dict`` described."""
        epoch = cls(int(state["epoch_idx"]))
        epoch.begun = {Stage(name): list(labels) for name, labels in state["begun"].items()}
        for name, saved in state["totals"].items():
            epoch.totals[Stage(name)] = StageTotals()
            epoch.totals[Stage(name)].load_state_dict(saved)
        for name, values in state["metrics"].items():  # in earlier files tensors
            epoch.metrics[Stage(name)] = {key: to_value(value) for key, value in values.items()}
        epoch.waiting = state["run"]
        return epoch
