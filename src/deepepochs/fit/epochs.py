"""What a fit or a test sets up around its passes, and undoes: hooks, modes, epochs, endings.

A fit ends in one of four ways: finished, stopped, interrupted, or with an error.
"""

from __future__ import annotations

import signal
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn

from .. import rng
from ..callbacks.base import HookTable, fire, fire_in_step
from ..errors import CheckpointMismatch, MetricError, StopLoopException
from ..history import History
from ..nest import operations as nested
from ..patches.totals import LOSS
from ..stages import Stage
from ..state.place import EpochState
from ..task import EpochTask
from .plan import FitPlan
from .session import Session
from .signals import StopSignals

__all__ = ["Fitting"]


class Fitting(Session):
    """The epochs of a fit, and the frame around fits, tests and predictions."""

    @contextmanager
    def _acting(self, plan: FitPlan) -> Iterator[None]:
        """Set up what passes need, and put everything back as it was."""
        outer = self._plan, self.hooks, self.run, self._totals, self._is_nested, self._outer_run
        # A callback may test in the middle of a fit, and the fit goes on after it.
        is_nested, self._is_acting = self._is_acting, True
        if is_nested:
            self._is_nested, self._outer_run = True, self._outer_run or self.run
        self.pace_end_s = 0.0
        outer_reason, self.stop_reason = self.stop_reason if is_nested else None, None
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
            self.stop_reason = outer_reason or self.stop_reason
            if not is_nested:
                self._plan = acted

    @contextmanager
    def _fitting(self, plan: FitPlan) -> Iterator[int]:
        """Frame a fit with its hooks and its endings; yield the index of its first epoch."""
        began = interrupted = refused = False
        is_fit_run = self.is_fit_run
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
                except CheckpointMismatch:
                    refused = self.epoch is not None and self.epoch.awaits_run
                    raise
                fire_in_step(self.hooks["on_after_fit"], self._trainer)
        finally:
            self.is_fitting = False
            signals, self._signals = self._signals, StopSignals()
            if began and not refused:
                self.epoch = self.random_state = None
                self.loaders.forget()
            else:
                self._num_fits -= 1  # the next try goes on where this one would have
            if refused:
                self._resumed, self.is_fit_run = True, is_fit_run
                self.loaders.put_back()
        if self.on_interrupt == "raise" or signals.received is signal.SIGTERM:
            signals.pass_on()
            if interrupted:
                raise KeyboardInterrupt

    def _begin_fit(self, plan: FitPlan) -> None:
        """Begin anew, or where a loaded state was taken."""
        if not self._resumed:
            self.epoch, self._first_epoch = None, self._progress.epoch_idx
            # What a fit that was cut short, or the user, has left must not be part of this one.
            self.opt.drop_gradients()
        elif self.epoch is not None:
            stages = plan.stages_of(self.epoch.epoch_idx)
            self.epoch.check_tasks({stage: plan.labels[stage] for stage, _ in stages})
        if self.random_state is not None:
            rng.set_state(self.random_state)
        self.loaders.begin(plan.tasks, self.worker_seeding, self.runtime.share)
        if not self._resumed:
            self._fit_starts.append(self._first_epoch)
        self._resumed, self.is_fit_run = False, True

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

    def _begin_stage(self, epoch: EpochState, stage: Stage, plan: FitPlan) -> None:
        self.at_save_point(None)
        if epoch.begin_stage(stage, plan.labels[stage]):
            hooks = self.hooks.stages[stage].before_epochs
            fire(hooks, self._trainer, tasks=plan.tasks[stage], epoch_idx=epoch.epoch_idx)

    def _end_stage(self, epoch: EpochState, stage: Stage, tasks: Sequence[EpochTask]) -> None:
        if stage not in epoch.metrics:
            values = epoch.end_stage(stage, self.stage_values(epoch.totals[stage]))
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

    @contextmanager
    def _forward_hooks(self) -> Iterator[None]:
        """Call the callbacks that want to know of it before and after the model is called.

        By PyTorch's own forward hooks, or around the compiled call of a model that has one.
        """
        handles = []
        stages = self.hooks.stages.values()

        def before(_module: nn.Module, _inputs: Any) -> None:
            if self.run is not None and self.run.hooks.before_forward:
                fire_in_step(self.run.hooks.before_forward, self._trainer)

        def after(_module: nn.Module, _inputs: Any, model_out: Any) -> None:
            if self.run is not None and self.run.hooks.after_forward:
                detached = nested.detach(model_out)
                fire_in_step(self.run.hooks.after_forward, self._trainer, model_out=detached)

        if not any(stage.before_forward or stage.after_forward for stage in stages):
            yield
            return
        model, compiled = self.model, self.model._compiled_call_impl
        if compiled is None:
            handles.append(model.register_forward_pre_hook(before))
            handles.append(model.register_forward_hook(after))
        else:
            # Within, Dynamo would follow the callbacks and compile anew for each of their numbers.
            def call(*args: Any, **kwargs: Any) -> Any:
                before(model, args)
                model_out = compiled(*args, **kwargs)
                after(model, args, model_out)
                return model_out

            model._compiled_call_impl = call
        try:
            yield
        finally:
            if compiled is not None:
                model._compiled_call_impl = compiled
            for handle in handles:
                handle.remove()
