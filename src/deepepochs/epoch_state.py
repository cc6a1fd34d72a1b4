"""How far an epoch has come: which passes are done, with what, and where the present one is.

A checkpoint taken inside an epoch holds this; a resumed fit goes on from it.
"""

from __future__ import annotations

from typing import Any

import torch

from .run import Run
from .stages import Stage
from .totals import StageTotals

__all__ = ["EpochState"]


class EpochState:
    """The passes of one epoch so far.

    Attributes:
        epoch_idx: the epoch, from 0.
        begun: stages whose ``before_..._epochs`` hooks have run.
        totals: merged patches of the passes that are done, by stage.
        metrics: the values of the stages that are done.
        resumed: the epoch began in an earlier process.
    """

    def __init__(self, epoch_idx: int) -> None:
        self.epoch_idx = epoch_idx
        self.begun: set[Stage] = set()
        self.totals: dict[Stage, StageTotals] = {}
        self.metrics: dict[Stage, dict[str, Any]] = {}
        self.resumed = False
        self._run_state: dict[str, Any] | None = None

    def begin_stage(self, stage: Stage) -> bool:
        """Open a stage; False if that was done before a resume."""
        if stage in self.begun:
            return False
        self.begun.add(stage)
        self.totals[stage] = StageTotals()
        return True

    def num_done(self, stage: Stage) -> int:
        """How many passes of a stage are done."""
        return len(self.totals[stage].passes)

    def end_stage(self, stage: Stage) -> dict[str, Any]:
        """Compute and keep the values of a stage."""
        self.metrics[stage] = self.totals[stage].metrics()
        return self.metrics[stage]

    def resume_run(self, run: Run) -> None:
        """Bring a new pass to where the checkpoint was taken, if it was taken inside it."""
        state, self._run_state = self._run_state, None
        if state is not None:
            run.load_state_dict(state)

    def state_dict(self, run: Run | None) -> dict[str, Any]:
        """The state of the epoch, with that of the pass that runs."""
        return {
            "epoch_idx": self.epoch_idx,
            "begun": [str(stage) for stage in self.begun],
            "totals": {str(stage): totals.state_dict() for stage, totals in self.totals.items()},
            "metrics": {
                str(stage): {name: torch.as_tensor(value) for name, value in values.items()}
                for stage, values in self.metrics.items()
            },
            "run": self._run_state if run is None else run.state_dict(),
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> EpochState:
        """Make the epoch that ``state_dict`` described."""
        epoch = cls(int(state["epoch_idx"]))
        epoch.resumed = True
        epoch.begun = {Stage(name) for name in state["begun"]}
        for name, saved in state["totals"].items():
            epoch.totals[Stage(name)] = StageTotals()
            epoch.totals[Stage(name)].load_state_dict(saved)
        for name, values in state["metrics"].items():
            epoch.metrics[Stage(name)] = {key: value.numpy() for key, value in values.items()}
        epoch._run_state = state["run"]
        return epoch
