"""How far an epoch has come, and where the loaders of a fit stand between their passes.

A checkpoint holds both: which passes of the epoch are done, with what, and where the
present one is; and what each other loader carries into its next pass, such as a generator
of its own. A resumed fit goes on from them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from ..data.cursor import Cursor
from ..errors import CheckpointMismatch
from ..patches.totals import StageTotals
from ..run import Run
from ..stages import Stage

if TYPE_CHECKING:
    from ..task import EpochTask

__all__ = ["EpochState", "LoaderStates"]


class EpochState:
    """The passes of one epoch so far.

    Attributes:
        epoch_idx: the epoch, from 0.
        begun: stages whose ``before_..._epochs`` hooks have run, with the labels of their tasks.
        totals: the passes that are done, by stage; while it lasts, with their merged patches.
        metrics: the values of the stages that are done.
        resumed: the epoch began in an earlier process.
    """

    def __init__(self, epoch_idx: int) -> None:
        self.epoch_idx = epoch_idx
        self.begun: dict[Stage, list[str]] = {}
        self.totals: dict[Stage, StageTotals] = {}
        self.metrics: dict[Stage, dict[str, Any]] = {}
        self.resumed = False
        self._run_state: dict[str, Any] | None = None

    def check_tasks(self, here: Mapping[Stage, list[str]]) -> None:
        """Raise ``CheckpointMismatch`` unless a stage that is under way has the tasks it had.

        Args:
            here: the labels of the tasks of each stage of this epoch.
        """
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

    def resume_run(self, run: Run) -> dict[str, Any] | None:
        """Bring a new pass to where the checkpoint was taken, if it was taken inside it.

        Returns:
            The state of the pass, for `await_run` if its loader turns out to be another one.

        Raises:
            CheckpointMismatch: the pass is another one; its state is there for the next try.
        """
        state = self._run_state
        if state is not None:
            run.load_state_dict(state)
            self._run_state = None
        return state

    def await_run(self, state: dict[str, Any]) -> None:
        """Keep the state of a pass that could not go on, for the next try."""
        self._run_state = state

    @property
    def awaits_run(self) -> bool:
        """Whether the checkpoint was taken inside a pass that has not gone on yet."""
        return self._run_state is not None

    def state_dict(self, run: Run | None) -> dict[str, Any]:
        """The state of the epoch, with that of the pass that runs."""
        return {
            "epoch_idx": self.epoch_idx,
            "begun": {str(stage): list(labels) for stage, labels in self.begun.items()},
            "totals": {
                str(stage): totals.state_dict()
                if run is None or run.stage is not stage
                else totals.state_dict(run.patches_if_last(), run.planned_names)
                for stage, totals in self.totals.items()
            },
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
        epoch.begun = {Stage(name): list(labels) for name, labels in state["begun"].items()}
        for name, saved in state["totals"].items():
            epoch.totals[Stage(name)] = StageTotals()
            epoch.totals[Stage(name)].load_state_dict(saved)
        for name, values in state["metrics"].items():
            epoch.metrics[Stage(name)] = {key: value.numpy() for key, value in values.items()}
        epoch._run_state = state["run"]
        return epoch


class LoaderStates:
    """The loaders of a fit, each once, and what they carry from one pass to the next.

    All are put back at once where a resumed fit begins: they may share a data set with a
    generator of its own, which the first pass moves on.
    """

    def __init__(self) -> None:
        self._loaders: dict[str, Any] = {}
        self._prepared: dict[int, Cursor] = {}
        self._saved: Mapping[str, Any] | None = None
        self._taken: Mapping[str, Any] | None = None

    def begin(
        self,
        tasks: Mapping[Stage, Sequence[EpochTask]],
        worker_seeding: str,
        share: Callable[[Any], Any] = lambda loader: loader,
    ) -> None:
        """Take the loaders of a fit, and bring them to where a loaded state was taken.

        Args:
            tasks: the tasks with the loaders.
            worker_seeding: as for ``Cursor``.
            share: gives this process's share of a loader, which is what is walked.
        """
        self._loaders = {}
        for stage, listed in tasks.items():
            for index, task in enumerate(listed):
                walked = share(task.dataloader)
                if not any(walked is loader for loader in self._loaders.values()):
                    self._loaders[f"{stage}/{index}"] = walked
        if self._saved is not None:
            self._prepared = {}
        kept = {id(loader) for loader in self._loaders.values()}
        self._prepared = {key: cursor for key, cursor in self._prepared.items() if key in kept}
        for label, state in (self._saved or {}).items():
            if label not in self._loaders:
                _warn_of_other_loader(label, "this fit has none there")
                continue
            cursor = Cursor(self._loaders[label], worker_seeding=worker_seeding)
            try:
                cursor.load_state_dict(state)
            except CheckpointMismatch as error:
                _warn_of_other_loader(label, str(error))
            else:
                self._prepared[id(cursor.loader)] = cursor
        self._taken, self._saved = self._saved, None

    def cursor(self, loader: Any, worker_seeding: str) -> Cursor:
        """Give the walk over a loader that begins a pass."""
        prepared = self._prepared.pop(id(loader), None)
        return prepared or Cursor(loader, worker_seeding=worker_seeding)

    def forget(self) -> None:
        """Drop a loaded state, which the fit has used or has no loader for."""
        self._saved = self._taken = None

    def put_back(self) -> None:
        """Keep the loaded state that a fit has taken, for the next."""
        self._saved = self._taken

    def state_dict(self, walked: Any = None) -> dict[str, Any]:
        """The state of every loader but the one that is being walked, which its pass keeps."""
        if self._saved is not None:
            return dict(self._saved)
        return {
            label: (self._prepared.get(id(loader)) or Cursor(loader)).state_dict()
            for label, loader in self._loaders.items()
            if loader is not walked
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Keep a state for the next fit, which knows the loaders."""
        self._saved = dict(state)


def _warn_of_other_loader(label: str, why: str) -> None:
    warnings.warn(
        f"The loader of {label} is not that of the checkpoint, so the fit goes on with other "
        f"data, not to the bit: {why}",
        UserWarning,
        stacklevel=4,
    )
