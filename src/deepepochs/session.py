"""What a fit or a test sets up around its passes, and undoes: hooks, modes, epochs, endings.

``Session`` is the part of a trainer that the loop talks to. It keeps what is going
on (``run``, ``epoch``), merges what passes give, and ends a fit in one of four ways:
finished, stopped, interrupted, or with an error.
"""

from __future__ import annotations

import signal
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from . import nested, rng
from .accumulation import Window
from .callback import CallbackPool, HookTable, fire, fire_in_step
from .epoch_state import EpochState, LoaderStates
from .errors import DataError, LoopException, MetricError, StopLoopException
from .fit_plan import FitPlan
from .loading import Cursor
from .progress import History, Progress
from .run import Run
from .runtime import Runtime
from .signals import StopSignals
from .stages import Stage
from .steps import Steps
from .task import EpochTask
from .totals import LOSS, StageTotals

if TYPE_CHECKING:
    from .optimizers import Optimizers
    from .trainer import TrainerBase

__all__ = ["Saver", "Session"]

Saver = Callable[["TrainerBase"], None]


class Session(Steps):
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
        self._is_replayed = False
        self._resumed = False
        self._is_acting = False
        self._is_nested = False
        self._outer_run: Run | None = None
        self.is_fitting = False
        self._signals = StopSignals()
        self._savers: list[Saver] = []
        self._told: set[str] = set()
        self._requests: list[Saver] = []

    @property
    def _trainer(self) -> TrainerBase:
        raise NotImplementedError

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

    def stop(self, reason: str = "") -> None:
        """End the fit or test at the next mini-batch; epochs that are done stay done."""
        if not self._is_acting:
            warnings.warn(
                "stop() was called while nothing runs, and does nothing: call it in a hook or a "
                "step of a fit or test.",
                UserWarning,
                stacklevel=2,
            )
            return
        self.stop_reason = reason or "stopped"

    def tell_once(self, about: str) -> bool:
        """Whether a warning about something is the first of this trainer."""
        first = about not in self._told
        self._told.add(about)
        return first

    def add_saver(self, saver: Saver) -> None:
        """Have ``saver(trainer)`` called where a fit is stopped before its end."""
        self._savers.append(saver)

    def request_save(self, saver: Saver) -> None:
        """Have ``saver(trainer)`` called at the next save point.

        Save points are after a mini-batch of training or validation and after an epoch,
        when all ``after_`` hooks have run: only there is the state whole.
        """
        self._requests.append(saver)

    def at_save_point(self, run: Run | None) -> None:
        """Save if asked, then stop if asked; a pass on its last mini-batch is ended properly.

        Raises:
            StopLoopException: the trainer was asked to stop.
        """
        if self._is_nested:
            return  # in a test within a fit, which has save points of its own
        asked = bool(
            self._requests or self.stop_reason is not None or self._signals.received is not None
        )
        if self.runtime.num_processes > 1:
            asked = self.runtime.any(asked)
        if asked:
            self._save_and_stop(run)

    def _save_and_stop(self, run: Run | None) -> None:
        if self._signals.received is not None and self.stop_reason is None:
            self.stop(f"{self._signals.received.name} received")
        if self.runtime.num_processes > 1:
            self._agree_to_stop()
        stops = self.stop_reason is not None and not (run is not None and run.is_last)
        if self._plan is not None and Stage.TRAIN in self._plan.tasks:
            # Not in a test, which may be one inside a mini-batch of a fit.
            savers, self._requests = self._requests, []
            for saver in dict.fromkeys([*savers, *self._savers] if stops else savers):
                saver(self._trainer)
        if stops:
            raise StopLoopException(self.stop_reason)

    def _agree_to_stop(self) -> None:
        """Do in all processes what one was asked: stop, for its reason, or save."""
        own = (self.stop_reason, self._signals.received, bool(self._requests))
        asked = self.runtime.gather_objects(own)
        reasons = [reason for reason, _, _ in asked if reason is not None]
        signals = [received for _, received, _ in asked if received is not None]
        if reasons:
            self.stop_reason = reasons[0]
        if signals and self._signals.received is None:
            self._signals.received = signals[0]
        if any(requested for _, _, requested in asked):
            self._requests = list(dict.fromkeys([*self._requests, *self._savers]))

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
        self.at_save_point(None)
        with self.runtime.shared(task.dataloader) as loader:
            run = self._make_run(task, stage, loader)
            run.step_name = step_name
            run.task_idx, run.num_tasks = place
            if run.epoch_idx is not None and self.epoch is not None:
                self.epoch.resume_run(run)
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
            finally:
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

    @contextmanager
    def _acting(self, plan: FitPlan) -> Iterator[None]:
        """Set up what passes need, and put everything back as it was."""
        outer = self._plan, self.hooks, self.run, self._totals, self._is_nested, self._outer_run
        # A callback may test in the middle of a fit, and the fit goes on after it.
        is_nested, self._is_acting = self._is_acting, True
        if is_nested:
            self._is_nested, self._outer_run = True, self._outer_run or self.run
        else:
            self.stop_reason = None
        self._plan = plan
        self.hooks = HookTable(self.callbacks)
        for task in (task for tasks in plan.tasks.values() for task in tasks):
            task.bind(self._trainer)
        modes = [(module, module.training) for module in self.model.modules()]
        try:
            with nullcontext() if is_nested else self._forward_hooks(), torch.no_grad():
                yield
        except StopLoopException as request:
            self.stop(str(request))
        except BaseException as error:
            if not is_nested:
                fire_in_step(self.hooks["on_exception"], self._trainer, exception=error)
            raise
        finally:
            for module, mode in modes:
                module.training = mode
            acted = self._plan
            self._plan, self.hooks, self.run, self._totals, self._is_nested, self._outer_run = outer
            self._is_acting = is_nested
            if not is_nested:
                self._plan = acted

    @contextmanager
    def _fitting(self, plan: FitPlan) -> Iterator[int]:
        """Frame a fit with its hooks and its endings; yield the index of its first epoch."""
        began = interrupted = False
        self._savers, self._requests = [], []
        self.is_fitting = True
        try:
            with self._acting(plan), StopSignals() as self._signals:
                fire(self.hooks["on_before_fit"], self._trainer, epochs=self.max_epochs)
                self._begin_fit(plan)
                began = True
                try:
                    yield self._first_epoch
                except StopLoopException as request:
                    self.stop(str(request))
                except KeyboardInterrupt:
                    interrupted = True
                    self.stop("interrupted")
                fire_in_step(self.hooks["on_after_fit"], self._trainer)
        finally:
            self.is_fitting = False
            signals, self._signals = self._signals, StopSignals()
            if began:
                self.epoch = self.random_state = None
                self.loaders.forget()
            else:
                self._num_fits -= 1  # refused: the next try goes on where this one would have
        if self.on_interrupt == "raise" or signals.received is signal.SIGTERM:
            signals.pass_on()
            if interrupted:
                raise KeyboardInterrupt

    def _begin_fit(self, plan: FitPlan) -> None:
        """Begin anew, or where a loaded state was taken."""
        self.is_fit_run = True
        if not self._resumed:
            self.epoch, self._first_epoch = None, self._progress.epoch_idx
            self._fit_starts.append(self._first_epoch)
            # What a fit that was cut short, or the user, has left must not be part of this one.
            self.opt.drop_gradients()
        self._resumed = False
        if self.random_state is not None:
            rng.set_state(self.random_state)
        self.loaders.begin(plan.tasks, self.worker_seeding, self.runtime.share)

    def has_metrics_of(self, stage: str) -> bool:
        """Whether the present epoch has ended a stage."""
        return self.epoch is not None and Stage(stage) in self.epoch.metrics

    @property
    def is_resumed(self) -> bool:
        """Whether the next fit, or the one that begins now, goes on from a loaded state."""
        return self._resumed

    def _finished_before(self) -> History | None:
        """The history of a fit that an earlier process had finished; the script calls it again."""
        index, self._num_fits = self._num_fits, self._num_fits + 1
        if not self._is_replayed or index >= len(self._fit_starts) - 1:
            return None
        start, end = self._fit_starts[index : index + 2]
        return self.history.since(start, end)

    def _finish_resumed(self) -> History:
        """End a resumed fit that has no epoch left; the script goes on as it did after it."""
        if self.random_state is not None:
            rng.set_state(self.random_state)
        self.random_state = None
        self._resumed, self.is_fit_run = False, True
        return self.history.since(self._first_epoch)

    def _set_epochs(self, epochs: int | None) -> bool:
        """Settle the total number of epochs; False if there is none left to run."""
        if epochs is not None:
            goes_on = self._is_replayed and self._resumed
            start = self._first_epoch if goes_on else self._progress.epoch_idx
            self.max_epochs = epochs + (start if self.is_fit_run or goes_on else 0)
        if self._progress.epoch_idx < self.max_epochs:
            return True
        if self._resumed:
            return False
        warnings.warn(
            f"fit() runs no epoch: {self._progress.epoch_idx} of {self.max_epochs} are done. "
            "Give fit(..., epochs=n) for n more.",
            UserWarning,
            stacklevel=3,
        )
        return False

    def _begin_epoch(self, plan: FitPlan) -> EpochState:
        self.at_save_point(None)
        if self.epoch is None:
            self.epoch = EpochState(self._progress.epoch_idx)
            fire(
                self.hooks["on_before_epoch"],
                self._trainer,
                train_tasks=plan.tasks[Stage.TRAIN],
                val_tasks=plan.tasks[Stage.VAL],
                epoch_idx=self.epoch.epoch_idx,
            )
        return self.epoch

    def _begin_stage(self, epoch: EpochState, stage: Stage, tasks: Sequence[EpochTask]) -> None:
        self.at_save_point(None)
        if epoch.begin_stage(stage):
            hooks = self.hooks.stages[stage].before_epochs
            fire(hooks, self._trainer, tasks=tasks, epoch_idx=epoch.epoch_idx)

    def _end_stage(self, epoch: EpochState, stage: Stage, tasks: Sequence[EpochTask]) -> None:
        if stage not in epoch.metrics:
            values = epoch.end_stage(stage)
            hooks = self.hooks.stages[stage].after_epochs
            arguments = {"tasks": tasks, "metrics": values, "epoch_idx": epoch.epoch_idx}
            fire(hooks, self._trainer, **arguments)

    def _end_epoch(self, epoch: EpochState, plan: FitPlan) -> None:
        train, val = epoch.metrics[Stage.TRAIN], epoch.metrics.get(Stage.VAL, {})
        self.history.add_epoch(epoch.epoch_idx, train, val or None)
        try:
            fire(
                self.hooks["on_after_epoch"],
                self._trainer,
                train_tasks=plan.tasks[Stage.TRAIN],
                val_tasks=plan.tasks[Stage.VAL],
                train_metrics=train,
                val_metrics=val,
                epoch_idx=epoch.epoch_idx,
            )
            self._step_schedulers(epoch, plan)
        except BaseException:
            # The next fit begins with this very epoch, which must not be there twice.
            self.history.forget(epoch.epoch_idx)
            raise
        self._progress = self._progress._replace(epoch_idx=epoch.epoch_idx + 1)
        self.epoch = None
        self.at_save_point(None)

    def _step_schedulers(self, epoch: EpochState, plan: FitPlan) -> None:
        """Step the schedulers that go by epochs.

        One that wants a loss gets one kind throughout: the validation loss of the epochs
        that validate, or without validation the training loss of every epoch.
        """
        validates = any(task.do_loss for task in plan.tasks[Stage.VAL])
        stage = Stage.VAL if validates else Stage.TRAIN
        values = epoch.metrics.get(stage)
        for index, optimizer in enumerate(self.opt):
            if optimizer.sched_on != "epoch" or not optimizer.needs_loss:
                optimizer.step("epoch")
            elif values is not None:
                if LOSS not in values:
                    raise MetricError(
                        f"The scheduler of optimizer {index} wants a loss, and the {stage} passes "
                        "recorded none. Call self.loss() in their step, or give do_loss=False to "
                        "have it fed the training loss."
                    )
                optimizer.step("epoch", float(values[LOSS]))

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

    @contextmanager
    def _forward_hooks(self) -> Iterator[None]:
        """Put PyTorch's own forward hooks on the model, if a callback wants to know of it."""
        handles = []
        stages = self.hooks.stages.values()

        def before(_module: nn.Module, _inputs: Any) -> None:
            if self.run is not None:
                fire_in_step(self.run.hooks.before_forward, self._trainer)

        def after(_module: nn.Module, _inputs: Any, model_out: Any) -> None:
            if self.run is not None and self.run.hooks.after_forward:
                detached = nested.detach(model_out)
                fire_in_step(self.run.hooks.after_forward, self._trainer, model_out=detached)

        if any(stage.before_forward for stage in stages):
            handles.append(self.model.register_forward_pre_hook(before))
        if any(stage.after_forward for stage in stages):
            handles.append(self.model.register_forward_hook(after))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
