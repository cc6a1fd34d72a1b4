"""The part of a trainer that the loop talks to: the pass that runs.

``Session`` keeps what is going on (``run``, ``epoch``), and makes and takes in passes.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

from torch import nn

from ..callbacks.base import HookTable
from ..callbacks.pool import CallbackPool
from ..data.cursor import Cursor
from ..errors import CheckpointMismatch, DataError, LoopException
from ..history import History, Progress
from ..optim.accumulation import Window
from ..patches.totals import StageTotals
from ..run import Run
from ..runtime.base import Runtime
from ..stages import Stage
from ..state.place import EpochState, LoaderStates
from ..task import EpochTask
from .plan import FitPlan
from .save_points import SavePoints, Saver
from .signals import StopSignals

if TYPE_CHECKING:
    from ..optim.optimizers import Optimizers

__all__ = ["Session"]


class Session(SavePoints):
    """The running part of a trainer."""

    model: nn.Module
    runtime: Runtime
    opt: Optimizers
    callbacks: CallbackPool
    max_epochs: int
    grad_accumulate: int
    on_nan: str
    on_interrupt: str
    worker_seeding: str

    def __init__(self) -> None:
        self.run: Run | None = None
        self.epoch: EpochState | None = None
        self.loaders = LoaderStates()
        self.hooks = HookTable()
        self.history = History()
        self.is_fit_run = False
        self.stop_reason: str | None = None
        self._plan: FitPlan | None = None
        self.random_state: dict[str, Any] | None = None
        self._totals = StageTotals()
        self._progress = Progress()
        self._first_epoch = 0
        self._fit_starts: list[int] = []
        self._num_fits = 0
        self._is_replayed = self._has_resumed = False
        self._resumed = False
        self._is_acting = False
        self._is_nested = False
        self._outer_run: Run | None = None
        self.is_fitting = False
        self.pace_end_s = 0.0  # before this moment no paced hook is called
        self._signals = StopSignals()
        self._savers: list[Saver] = []
        self._told: set[str] = set()
        self._requests: list[Saver] = []

    @property
    def progress(self) -> Progress:
        """How far the run has come: epochs, mini-batches, optimizer steps."""
        # Inside a test that a hook has called, the pass around it counts.
        return self._counted(self._outer_run or self.run)

    def _counted(self, run: Run | None) -> Progress:
        progress = self._progress
        if run is None or run.stage not in (Stage.TRAIN, Stage.VAL):
            return progress
        done, training = run.batch_idx + 1, run.is_training
        return progress._replace(
            num_train_batches=progress.num_train_batches + (done if training else 0),
            num_val_batches=progress.num_val_batches + (0 if training else done),
            num_steps=progress.num_steps + run.num_steps,
        )

    def tell_once(self, about: str) -> bool:
        """Whether a warning about something is the first of this trainer."""
        first = about not in self._told
        self._told.add(about)
        return first

    def progress_state(self) -> dict[str, Any]:
        """The counters, without those of the pass that runs, and where the fit began."""
        return {
            **self._progress.state_dict(),
            "first_epoch": self._first_epoch,
            "fit_starts": list(self._fit_starts),
        }

    def load_progress_state(self, state: Mapping[str, Any]) -> None:
        """Take back what ``progress_state`` gave."""
        self._progress = Progress.from_state(state)
        self._first_epoch = int(state["first_epoch"])
        self._fit_starts = [int(start) for start in state.get("fit_starts", [self._first_epoch])]
        self._resumed = True

    @contextmanager
    def running(
        self, task: EpochTask, stage: Stage, step_name: str, place: tuple[int, int]
    ) -> Iterator[Run]:
        """Make the ``Run`` of a pass, put the model in its mode, and take the run away after."""
        if self._plan is None or not self._plan.has(stage, task):
            raise LoopException(
                f"This {type(task).__name__} is not a {stage} task of what runs now. Give it to "
                "fit() or test()."
            )
        if stage is not Stage.TEST and self.epoch is not None and stage not in self.epoch.totals:
            raise LoopException(
                f"The {stage} stage of this epoch has not begun: fit() runs its tasks when their "
                "turn comes. For numbers at another moment call trainer.test(tasks=task)."
            )
        self.at_save_point(None)
        with self.runtime.shared(task.dataloader) as loader:
            run = self._make_run(task, stage, loader)
            run.step_name = step_name
            run.task_idx, run.num_tasks = place
            state = None
            if run.epoch_idx is not None and self.epoch is not None:
                state = self.epoch.resume_run(run)
            started_at = run.batch_idx
            outer, outer_of_task = self.run, task.run
            self.run = run
            task.enter(run)
            self.model.train(run.is_training)
            # Torch counts the changes of each weight, whoever makes them.
            versions = [weight._version for weight in self.opt.params]
            try:
                yield run
                if run.is_training and versions == [w._version for w in self.opt.params]:
                    self._warn_of_no_step(run)
            except CheckpointMismatch:
                if state is not None and run.batch_idx == started_at and self.epoch is not None:
                    self.epoch.await_run(state)
                raise
            finally:
                if self.epoch is None or not self.epoch.awaits_run:
                    self._progress = self._counted(run)
                self.run = outer
                task.enter(outer_of_task)

    def _make_run(self, task: EpochTask, stage: Stage, loader: Any) -> Run:
        assert self._plan is not None
        training = stage is Stage.TRAIN
        in_fit = stage is not Stage.TEST and self.epoch is not None
        run = Run(
            self._trainer,
            stage,
            task,
            hooks=self.hooks.stages[stage],
            plan=self._plan.metrics_of(stage, task),
            cursor=self.loaders.cursor(loader, self.worker_seeding)
            if in_fit
            else Cursor(loader, worker_seeding=self.worker_seeding),
            window=Window(self.grad_accumulate) if training and self.grad_accumulate > 1 else None,
            on_nan=self.on_nan,
            keeps_loss=self.opt.needs_loss_at("step"),
            epoch_idx=self.epoch.epoch_idx if in_fit and self.epoch is not None else None,
        )
        if self.runtime.num_processes > 1:
            lengths = self.runtime.gather_objects(run.cursor.length)
            run.num_batches = None if None in lengths else max(lengths)
        return run

    def batches_of(self, run: Run) -> Iterable[tuple[int, Any]]:
        """The mini-batches of a pass, the same number in every process."""
        if self.runtime.num_processes == 1:
            return run.cursor
        return self._even_batches(run)

    def _even_batches(self, run: Run) -> Iterator[tuple[int, Any]]:
        """Fill up with a mini-batch that weighs nothing while other processes have more."""
        for index, batch in self.rounds(run.cursor, ended=run.is_filler):
            run.is_filler = index is None
            yield run.batch_idx + 1 if index is None else index, batch

    def rounds(self, cursor: Cursor, *, ended: bool = False) -> Iterable[tuple[int | None, Any]]:
        """The mini-batches of a walk; those that only fill up while others have more have no index.

        Args:
            cursor: the walk over this process's share.
            ended: the share had come to its end when the state was saved.
        """
        if self.runtime.num_processes == 1:
            yield from cursor
            return
        batches: Iterator[tuple[int, Any]] = iter(()) if ended else iter(cursor)
        last: Any = None
        while True:
            item = next(batches, None)
            if not self.runtime.any(item is not None):
                return
            if item is not None:
                last = item[1]
                yield item
                continue
            if last is None:
                last = self.runtime.filler(cursor.loader)
            yield None, last

    def gradients_of(self, run: Run) -> AbstractContextManager[Any]:
        """Exchange gradients between processes where an optimizer step follows, and else not."""
        window = run.window
        wanted = window is None or window.closes or run.is_last is None
        return self.runtime.sync_gradients(self.model, wanted)

    def stage_values(self, totals: StageTotals) -> dict[str, Any]:
        """The values of a stage, of the main process: another may have had no data to pool."""
        own = totals.metrics() if self.runtime.is_main else {}
        values: dict[str, Any] = self.runtime.gather_objects(own)[0]
        return values

    def end_pass(self, run: Run) -> dict[str, Any]:
        """Take in the pass that has met all its data, and give its metrics."""
        if run.batch_idx < 0:
            self._report_empty(run)
        if run.window is not None or run.by_hand:
            run.task.finish_window(run, at_end=True)
        if self.runtime.num_processes > 1:
            run.merge_processes()
        values = run.end_epoch()
        totals = self._totals if self.epoch is None or run.stage is Stage.TEST else None
        (totals or self.epoch.totals[run.stage]).add(  # type: ignore[union-attr]
            run.task.label(run.task_idx), run.ordered_patches(), values
        )
        return values

    def has_metrics_of(self, stage: str) -> bool:
        """Whether the present epoch has ended a stage."""
        return self.epoch is not None and Stage(stage) in self.epoch.metrics

    @property
    def is_resumed(self) -> bool:
        """Whether the next fit, or the one that begins now, goes on from a loaded state."""
        return self._resumed

    def _warn_of_no_step(self, run: Run) -> None:
        if run.num_steps or run.resumed or not self.opt.gradients() or not self.tell_once("step"):
            return
        warnings.warn(
            f"{run.step_name} made gradients in {run.batch_idx + 1} mini-batches and no optimizer "
            "step: nothing was learnt. Call self.optimize(), or leave out do_optimize=False.",
            RuntimeWarning,
            stacklevel=2,
        )

    def _report_empty(self, run: Run) -> None:
        text = (
            f"The loader of {run.stage} task {run.task.label(run.task_idx)!r} gave no mini-batch. "
            "Is its data set empty, smaller than a batch with drop_last=True, or an iterator that "
            "was walked before?"
        )
        if run.is_training:
            raise DataError(text)
        warnings.warn(text, UserWarning, stacklevel=2)
