"""One call of fit, test, predict, find_lr and the like: what is true only while it runs, and undone after.

A test that a hook of a fit calls is a session inside the fit's, its ``outer``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from enum import Enum
from functools import partial
from types import TracebackType
from typing import Any, NamedTuple

import torch
from torch import nn

from ..callbacks.base import HOOKS, Callback
from ..contracts import SessionView, TrainerView
from ..data.cursor import Cursor
from ..data.followed import read_moment, restore_moment
from ..data.routes import own_workers
from ..errors import DataError, LoopException, StopLoopException, warn_user
from ..faults.not_finite import not_finite
from ..faults.words import DEFAULT_STEP, PassName
from ..hooks import HookTable, StageHooks, fire, fire_in_step
from ..nest import operations as nested
from ..optim.loss_modules import HeldModules
from ..optim.optimizers import Optimizer, Optimizers
from ..patches.totals import StageTotals
from ..recorder import LossWatch
from ..run import Run
from ..runtime.base import modes_kept
from ..stages import Stage
from ..task import EpochTask
from .plan import FitPlan
from .save_points import SavePoints


class Kind(Enum):
    """What a session is a call of."""

    FIT = "fit"
    TEST = "test"
    PREDICT = "predict"
    FIND_LR = "find_lr"
    FIND_BATCH_SIZE = "find_batch_size"
    PROFILE = "profile"
    CHECK = "check"
    VALIDATE = "validation"

    @property
    def is_try(self) -> bool:
        """Whether it trains and leaves no trace."""
        return self in (Kind.FIND_LR, Kind.FIND_BATCH_SIZE, Kind.PROFILE, Kind.CHECK)


class LatestCall(NamedTuple):
    """What a trainer keeps of its latest call that is over.

    Attributes:
        val_freq: epochs from one validation to the next.
        metrics: those of each stage.
        stop_reason: why it was stopped; ``None``: it was not.
    """

    val_freq: int = 1
    metrics: Mapping[Stage, list[Any]] = {}
    stop_reason: str | None = None


class Session:
    """One call of fit, test or predict, or one that tries something, as find_lr.

    Attributes:
        outer: the session that this one runs inside of, or ``None``.
        hooks: the table of hooks of the callbacks that take part.
        save_points: what is to be done at the next save point.
        run: the pass that runs now.
        totals: the passes of a test.
        pace_end_s: before this moment no paced hook is called.
    """

    def __init__(
        self,
        trainer: TrainerView,
        plan: FitPlan,
        kind: Kind,
        callbacks: Sequence[Callback],
        outer: Session | None = None,
    ) -> None:
        self.trainer = trainer
        self.plan = plan
        self.kind = kind
        self.outer = outer
        self.hooks = HookTable(callbacks, HOOKS)
        self.save_points: SavePoints = self.points(outer)
        self.run: Run | None = None
        self.totals = StageTotals()
        self.pace_end_s = 0.0
        self.opt = trainer.opt
        if kind.is_try:
            # A scheduler may know how many steps it is to make, and object to more.
            self.opt = Optimizers(Optimizer(optimizer.opt) for optimizer in trainer.opt)
        self.modes: Modes = Modes(trainer, None if outer is None else outer.modes)
        self._undo = ExitStack()

    def __enter__(self) -> Session:
        with ExitStack() as undo:
            if self.trainer.deterministic:
                from ..runtime.deterministic import deterministic_operations

                undo.enter_context(deterministic_operations(self.trainer.device))
            undo.enter_context(self.modes.kept(trains=self.kind is Kind.FIT or self.kind.is_try))
            if self.outer is None:
                undo.enter_context(self.trainer.runtime.streams.opened())
                undo.enter_context(forward_hooks(self.trainer, self.hooks))
            else:
                undo.enter_context(draws_undone(self.plan, self.outer.plan))
            undo.enter_context(torch.no_grad())
            for task in self.plan.all_tasks():
                task.bind(self.trainer)
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        stopped = isinstance(error, StopLoopException)
        try:
            if stopped:
                self.save_points.stop(str(error))
            elif error is not None and self.outer is None:
                fire_in_step(self.hooks["on_exception"], self.trainer, exception=error)
        finally:
            self._undo.close()
            if self.outer is not None and not self.kind.is_try:
                self.outer.save_points.inherit(self.save_points)
        return stopped

    def points(self, outer: Session | None) -> SavePoints:
        """Make the save points of the call."""
        return SavePoints(self.trainer, outer=None if outer is None else outer.save_points)

    @property
    def fit(self) -> SessionView | None:
        """The fit that this call is or runs inside of, or ``None``."""
        return None if self.outer is None else self.outer.fit

    @property
    def resumes_at(self) -> str:
        """Where a fit resumes, in words."""
        return ""

    def has_metrics_of(self, stage: str) -> bool:
        """Whether the present epoch of this call has ended a stage."""
        return False

    @property
    def is_within(self) -> bool:
        """Whether this call runs inside of another one, as the validation of ``val_every`` does."""
        return self.outer is not None

    def keep_part(self) -> None:
        """Keep what was trained of an epoch, where a fit is stopped."""

    def epoch_state(self) -> dict[str, Any] | None:
        """The state of the epoch of this call that is under way."""
        return None

    @property
    def on_nan(self) -> str:
        """What a loss that is NaN or infinite does: ``'stop'``, ``'warn'`` or ``'ignore'``."""
        return "ignore" if self.kind.is_try else self.trainer.on_nan

    def rest(self, until_s: float) -> None:
        """Call no paced hook before a moment."""
        self.pace_end_s = until_s

    def fire(self, hook: str, **arguments: Any) -> None:
        """Call the methods of a hook."""
        fire(self.hooks[hook], self.trainer, **arguments)

    @contextmanager
    def open_pass(
        self, task: EpochTask, stage: Stage, place: tuple[int, int], step_name: str
    ) -> Iterator[Run]:
        """Make the ``Run`` of a pass, put the model in its mode, and take the run away after."""
        if not self.plan.has(stage, task):
            raise not_running(task, stage)
        self.totals_of(stage)
        self.check_before(stage)
        with self.trainer.runtime.shared(task.dataloader) as loader:
            run = self.make_run(task, stage, place, step_name, loader)
            outer, outer_of_task = self.run, task.run
            self.run = run
            task.enter(run)
            self.modes.set(training=run.is_training)
            untrained = self._untrained() if run.is_training else {}
            try:
                yield run
                if run.is_training and not run.losses.have_changed_weights:
                    self._warn_of_no_step(run)
                if untrained:
                    self._warn_of_untrained(untrained)
                if run.is_training and self.trainer.loss_module is not None:
                    self._warn_of_idle_loss(self.trainer.loss_module)
            except Exception as error:
                from ..faults.loading import note_loading  # a pass without faults does not need it

                note_loading(error)
                raise
            finally:
                self.end_run(run)
                self.run = outer
                task.enter(outer_of_task)

    def make_run(
        self, task: EpochTask, stage: Stage, place: tuple[int, int], step_name: str, loader: Any
    ) -> Run:
        """Make the run of a pass over a loader."""
        cursor = self.cursor(loader)
        trainer, runtime = self.trainer, self.trainer.runtime
        if stage in trainer.limits.batches and not self.kind.is_try:
            cursor.limit_to(trainer.limits.num_batches(stage, cursor.length))
        hooks, of_fillers = self.hooks.stages[stage], self.hooks.fillers[stage]
        if stage is Stage.TRAIN and self._may_gain_weights():
            hooks, of_fillers = map(self._dropping_stale, (hooks, of_fillers))
        if stage is Stage.TRAIN and trainer.ema is not None and not self.kind.is_try:
            hooks, of_fillers = map(self._averaging, (hooks, of_fillers))
        is_named = task.name is not None or place[1] > 1
        name = PassName(stage, self.epoch_idx, task.label(place[0]) if is_named else None)
        # A prepare_data of the user's may change the number of samples.
        sizes = None if trainer.has_own_split else runtime.sizes(cursor, task.batch_size)
        several = runtime.num_processes > 1
        meetings = self.save_points.meetings[stage, place[0]] if several else None
        return Run(
            trainer,
            self.opt,
            stage,
            task,
            place,
            name=name,
            step_name=step_name,
            hooks=hooks,
            plan=self.plan.metrics_of(stage, task),
            cursor=cursor,
            window=runtime.window(trainer.grad_accumulate) if stage is Stage.TRAIN else None,
            rounds=runtime.rounds(cursor, hooks, of_fillers, sizes, meetings),
            watch=LossWatch(self.on_nan, name, partial(self._not_finite, name)),
        )

    def _not_finite(self, name: PassName, *of_loss: Any) -> str:
        return not_finite(*of_loss, name=name, run=self.run)

    def check_before(self, stage: Stage) -> None:
        """Save or stop before a pass, if that was asked."""
        self.save_points.check()

    @property
    def epoch_idx(self) -> int | None:
        """The epoch of a fit that is under way."""
        return None

    def cursor(self, loader: Any) -> Cursor:
        """Give the walk over a loader that begins a pass."""
        return Cursor(loader, worker_seeding=self.trainer.worker_seeding)

    def around(self, run: Run, step: Callable[..., Any]) -> Callable[..., Any]:
        """Have a step do what optimizers and processes need of it."""
        needs_closure = run.is_training and any(one.needs_closure for one in run.opt)
        if needs_closure and run.recorder.step_name == DEFAULT_STEP:
            from ..repeats.closures import default_step

            step = default_step(run.task)
        if run.is_training and self.trainer.on_oom == "split":
            from ..repeats.split import SplitStep

            step = SplitStep(run, step)
        return run.around(step)

    def batches(self, run: Run) -> Iterable[tuple[int, Any]]:
        """The mini-batches of a pass with their indexes, the same number in every process."""
        if run.is_training:
            self.opt.drop_stale_gradients()
        return run.begin()

    def _may_gain_weights(self) -> bool:
        """Whether the model has weights that no optimizer trains yet."""
        trained = {id(weight) for weight in self.opt.params}
        return not trained.issuperset(map(id, self.trainer.model.parameters()))

    def _dropping_stale(self, hooks: StageHooks) -> StageHooks:
        """Look for weights that have joined an optimizer where a hook or a step may add some."""

        def drop(**_: Any) -> None:
            self.opt.drop_stale_gradients()

        return hooks._replace(
            before_batch=(*hooks.before_batch, drop),
            before_backward=(*hooks.before_backward, drop),
        )

    def _averaging(self, hooks: StageHooks) -> StageHooks:
        """Average the weights after each optimizer step, before the hooks of callbacks."""
        ema = self.trainer.ema

        def average(*, optimize_index: int | None, **_: Any) -> None:
            if ema is not None:
                ema.update(optimize_index)

        return hooks._replace(after_optimize=(average, *hooks.after_optimize))

    def end_run(self, run: Run) -> None:
        """Note that a pass is over, however it ended."""

    def totals_of(self, stage: Stage) -> StageTotals:
        """Where the passes of a stage are pooled."""
        return self.totals

    def close_pass(self, run: Run) -> dict[str, Any]:
        """Finish a pass whose data are consumed, and give its metrics."""
        if run.is_empty:
            self._report_empty(run)
        else:
            self._end_batches(run)
        values = run.recorder.close(self.trainer.runtime, run.batch_idx)
        if not values and run.batch_idx >= 0 and run.stage is Stage.VAL:
            self._warn_of_no_value(run)
        label = run.task.label(run.task_idx)
        self.totals_of(run.stage).add(label, run.recorder.ordered(), values)
        return values

    def stage_values(self, totals: StageTotals) -> dict[str, Any]:
        """The values of a stage as the main process has them.

        Added are those that it could not compute, and another process could.
        """
        runtime = self.trainer.runtime
        own = totals.metrics() if runtime.is_main or len(totals.passes) > 1 else {}
        gathered: list[dict[str, Any]] = runtime.gather_objects(own, "ends a stage")
        names = dict.fromkeys(name for values in gathered for name in values)
        return {name: next(v[name] for v in gathered if name in v) for name in names}

    def _warn_of_no_step(self, run: Run) -> None:
        if run.num_steps or run.resumed or self.save_points.has_part or not self.opt.gradients():
            return
        if self.trainer.tell_once("step"):
            warn_user(
                f"{run.recorder.step_name} made gradients in {run.batch_idx + 1} "
                "mini-batches and no optimizer step: nothing was learnt.\nCall self.optimize(), or leave out "
                "do_optimize=False.",
                RuntimeWarning,
            )

    def _warn_of_no_value(self, run: Run) -> None:
        name = run.recorder.step_name
        if (run.task.do_loss or run.recorder.plan) and self.trainer.tell_once(f"{name}: no value"):
            warn_user(
                f"{name} recorded neither a loss nor a metric: the validation has no values.\nCall "
                "self.loss(model_out, batch_y) or self.do_metric(...) in it, or return {name: value}.",
                UserWarning,
            )

    def _warn_of_length(self, run: Run) -> None:
        if self.trainer.tell_once(f"length {run.name.loader}"):
            warn_user(
                f"The {run.name.loader} said that it has {run.num_batches} mini-batches, and gave "
                f"{run.batch_idx + 1}: mend its __len__.\nProgress and schedules that are made from "
                "it are wrong.",
                UserWarning,
            )

    def _untrained(self) -> dict[str, tuple[int, int]]:
        """The weights of the model that no optimizer has, with what torch counts of each.

        It counts the changes of a weight, and of its gradient, whoever makes them.
        """
        trained = {id(weight) for weight in self.opt.params}
        model = self.trainer.runtime.unwrap(self.trainer.model)
        return {
            name: changes_of(weight)
            for name, weight in model.named_parameters()
            if weight.requires_grad and id(weight) not in trained
        }

    def _warn_of_untrained(self, before: dict[str, tuple[int, int]]) -> None:
        """Warn of weights that got gradients in a pass, and were changed by nobody."""
        idle = []
        for name, (value, gradient) in self._untrained().items():
            old_value, old_gradient = before.get(name, (value, gradient))
            if value == old_value and gradient != old_gradient:
                idle.append(name)
        if idle and self.trainer.tell_once("untrained"):
            more = f", and {len(idle) - 5} more" if idle[5:] else ""
            warn_user(
                f"Weights of the model get gradients, and no optimizer trains them: "
                f"{', '.join(idle[:5])}{more}.\nGive them to an optimizer, "
                "trainer.opt[0].opt.add_param_group({'params': ...}), or freeze them with "
                "requires_grad_(False).",
                UserWarning,
            )

    def _warn_of_idle_loss(self, loss: nn.Module) -> None:
        trained = {id(weight) for weight in self.opt.params}
        trained.update(map(id, self.trainer.model.parameters()))
        idle = [
            name
            for name, weight in loss.named_parameters()
            if weight.grad is not None and id(weight) not in trained
        ]
        if idle and self.trainer.tell_once("loss"):
            warn_user(
                f"The loss function has weights that get gradients, and no optimizer trains them: "
                f"{', '.join(idle[:5])}. Give them to one, as in Adam([*model.parameters(), "
                "*loss.parameters()]), or freeze them.",
                UserWarning,
            )

    def _end_batches(self, run: Run) -> None:
        """Make the step of the last window, and warn of what was hardly meant."""
        if run.cursor.num_skipped:
            warn_of_skipped(self.trainer, run.name.loader, run.cursor)
        if self.save_points.has_part and run.is_training:
            return  # the gradients of a window wait for the next fit
        if run.num_batches not in (None, run.batch_idx + 1) and not run.cursor.is_divided:
            self._warn_of_length(run)
        run.finish_window(at_end=True)

    def _report_empty(self, run: Run) -> None:
        text = (
            f"The {run.name.loader} gave no mini-batch.\nIs its data set empty, smaller than a batch "
            "with drop_last=True, or an iterator that was walked before?"
        )
        if run.cursor.num_skipped:
            text = f"The {run.name.loader} gave no mini-batch, but None each time."
        if run.is_training:
            raise DataError(text)
        if self.trainer.tell_once(text):
            warn_user(text, UserWarning)


def warn_of_skipped(trainer: TrainerView, loader: str, cursor: Cursor) -> None:
    """Say once that mini-batches were left out."""
    if trainer.tell_once("skipped"):
        warn_user(
            f"The {loader} gave None in place of {cursor.num_skipped} of {cursor.index} mini-batches: "
            "they were skipped, as if they were not in the data.",
            UserWarning,
        )


def changes_of(weight: nn.Parameter) -> tuple[int, int]:
    """How often a weight was changed, and its gradient; the latter is -1 without one."""
    return weight._version, -1 if weight.grad is None else weight.grad._version


def not_running(task: EpochTask, stage: Stage) -> LoopException:
    """The error for a task that does not belong to the call that runs."""
    return LoopException(
        f"This {type(task).__name__} is not a {stage} task of what runs now. Give it to fit() or "
        "test()."
    )


class Modes:
    """Training mode or not: of the model, of a loss that is a module, of optimizers with modes.

    Parts of the loss that were in evaluation mode when the call began stay in it, as a teacher
    or a perceptual loss does.
    """

    def __init__(self, trainer: TrainerView, outer: Modes | None) -> None:
        self._model, self._opt, self._ema = trainer.model, trainer.opt, trainer.ema
        self._loss = trainer.loss_module
        self._still: list[nn.Module] = []
        if outer is not None:
            self._still = outer._still
        elif self._loss is not None:
            of_model = set(map(id, self._model.modules()))
            parts = self._loss if isinstance(self._loss, HeldModules) else [self._loss]
            modules = [module for part in parts for module in part.modules()]
            self._still = [m for m in modules if not m.training and id(m) not in of_model]

    def set(self, *, training: bool) -> None:
        """Set the mode of all."""
        if self._loss is not None:
            self._loss.train(training)
        for module in self._still:
            module.training = False
        self._model.train(training)
        self.exchange(training=training)

    def exchange(self, *, training: bool) -> None:
        """Have the weights that are trained in the model, or those that are to be used."""
        if self._ema is not None and training:
            self._ema.train()
        self._opt.train(training)
        if self._ema is not None:
            self._ema.train(training)

    @contextmanager
    def kept(self, *, trains: bool) -> Iterator[None]:
        """Put everything back into the mode that it has now; optimizers end in ``eval``.

        Those that are in training stay in it if the call does not train itself, as a test in a
        hook does not. They are restored as they were: ``train()`` after ``eval()`` may round.
        """
        kept = [
            (
                optimizer,
                copy.deepcopy(([w.detach() for w in optimizer.params], optimizer.state_dict())),
            )
            for optimizer in self._opt
            if optimizer.training and not trains
        ]
        was_raw = self._ema is not None and self._ema.training
        try:
            with modes_kept(self._model, self._loss):
                yield
        finally:
            self.exchange(training=False)
            for optimizer, (weights, state) in kept:
                with torch.no_grad():
                    for weight, value in zip(optimizer.params, weights, strict=True):
                        weight.copy_(value)
                optimizer.load_state_dict(state)
            if self._ema is not None:
                self._ema.train(was_raw and not trains)


@contextmanager
def draws_undone(plan: FitPlan, outer: FitPlan) -> Iterator[None]:
    """Put back what a call inside of another draws, and what its loaders count.

    To walk a loader draws a number, which would change all later shuffles and dropouts.
    """
    shared = {id(task.dataloader) for task in outer.all_tasks()}
    loaders = [task.dataloader for task in plan.all_tasks()]
    moments = [(loader, read_moment(loader)) for loader in loaders]
    try:
        with ExitStack() as workers:
            for loader in loaders:
                if id(loader) in shared:
                    workers.enter_context(own_workers(loader))
            yield
    finally:
        for loader, moment in moments:
            restore_moment(loader, moment)


@contextmanager
def forward_hooks(trainer: TrainerView, table: HookTable) -> Iterator[None]:
    """Call the hooks of each call of the model, where a callback has some.

    Of a compiled model they are called around its compiled call: within, Dynamo would follow the
    callbacks, and compile anew for each of their numbers.
    """

    def before(_module: nn.Module, _inputs: Any) -> None:
        if trainer.run is not None and trainer.run.hooks.before_forward:
            fire_in_step(trainer.run.hooks.before_forward, trainer)

    def after(_module: nn.Module, _inputs: Any, model_out: Any) -> None:
        if trainer.run is not None and trainer.run.hooks.after_forward:
            detached = nested.detach(model_out)
            fire_in_step(trainer.run.hooks.after_forward, trainer, model_out=detached)

    if not any(stage.before_forward or stage.after_forward for stage in table.stages.values()):
        yield
        return
    model, compiled = trainer.model, trainer.model._compiled_call_impl
    handles = []
    if compiled is None:
        handles.append(model.register_forward_pre_hook(before))
        handles.append(model.register_forward_hook(after))
    else:

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
