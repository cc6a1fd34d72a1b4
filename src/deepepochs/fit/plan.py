"""What a fit or a test is going to do: its tasks, and the metrics of each.

Made and checked before the first mini-batch, so that a wrong argument costs seconds.
"""

from __future__ import annotations

import contextlib
import dis
import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from ..arguments import as_list, check_batch_size, check_count, check_flag
from ..contracts import TrainerView
from ..errors import ConfigError, LoopException, MetricError, warn_user
from ..hints.near import nearest_metric
from ..hooks import is_of_library
from ..metrics.direction import direction_of
from ..nest.samples import BatchSize
from ..patches.base import metric_name
from ..patches.plan import MetricPlan, check_metrics, plan_metrics
from ..patches.totals import LOSS
from ..run import Run
from ..stages import Stage
from ..steps import STEP_NAMES, Steps, resolve_step, step_name
from ..task import VERBS, EpochTask, check_loader


class FitPlan:
    """The tasks of each stage, and the metrics that their passes compute.

    ``metrics`` are those common to all tasks of a stage.
    """

    def __init__(
        self,
        tasks: dict[Stage, list[EpochTask]],
        metrics: dict[Stage, list[Any]],
        metric_patch: Any,
        val_freq: int = 1,
    ) -> None:
        self.tasks = tasks
        self.metrics = metrics
        self.val_freq = val_freq
        self.labels: dict[Stage, list[str]] = {}
        self._metrics: dict[tuple[Stage, int], tuple[MetricPlan, ...]] = {}
        for stage, stage_tasks in tasks.items():
            labels = [task.label(index) for index, task in enumerate(stage_tasks)]
            self.labels[stage] = labels
            for label in labels:
                if labels.count(label) > 1:
                    raise ConfigError(
                        f"Two {stage} tasks are named {label!r}: give each EpochTask its own name."
                    )
            for task in stage_tasks:
                planned = plan_metrics([task.metrics, metrics[stage]], metric_patch)
                self._metrics[stage, id(task)] = planned

    def all_tasks(self) -> Iterator[EpochTask]:
        """The tasks of all stages."""
        return (task for tasks in self.tasks.values() for task in tasks)

    def has(self, stage: Stage, task: EpochTask) -> bool:
        """Whether a task is one of a stage's."""
        return (stage, id(task)) in self._metrics

    def metrics_of(self, stage: Stage, task: EpochTask) -> tuple[MetricPlan, ...]:
        """The metrics of one pass."""
        return self._metrics[stage, id(task)]

    def directions(self) -> dict[str, str]:
        """Which values are better, of the metrics that declare it themselves."""
        listed = [metric for group in self.metrics.values() for metric in group]
        listed += [metric for task in self.all_tasks() for metric in task.metrics]
        found = {}
        for metric in listed:
            is_group = type(metric).__name__ == "MetricCollection"
            for name, one in metric.items() if is_group else [(metric_name(metric), metric)]:
                inner = getattr(one, "func", one)  # of a partial
                if hasattr(inner, "direction") or hasattr(inner, "higher_is_better"):
                    with contextlib.suppress(ConfigError):  # an attribute of another meaning
                        found[name] = direction_of(name, one)
        return {name: direction for name, direction in found.items() if direction is not None}

    def validates(self, epoch_idx: int) -> bool:
        """Whether an epoch ends with validation."""
        return bool(self.tasks[Stage.VAL]) and (epoch_idx + 1) % self.val_freq == 0

    def stage_followed(self, monitor: str | None) -> Stage:
        """The stage of which a scheduler is given a metric; ``None`` is the loss."""
        of_val = [task for task in self.tasks[Stage.VAL] if monitor is not None or task.do_loss]
        return Stage.VAL if of_val else Stage.TRAIN

    def settings(self, trainer: TrainerView) -> dict[str, str]:
        """Say in words what a fit is called with, to be compared at a resume."""
        said = {"val_freq": str(self.val_freq), "loss": _describe_loss(trainer.loss_fn)}
        said["precision"] = getattr(trainer.accelerator, "mixed_precision", "no")
        for stage, tasks in self.tasks.items():
            for index, task in enumerate(tasks):
                said[f"the loader of {stage}/{index}"] = _describe_loader(task)
                if stage in trainer.limits.batches:
                    said[f"limit_{stage}_batches"] = str(trainer.limits.batches[stage])
        return said

    def stages_of(self, epoch_idx: int) -> list[tuple[Stage, list[EpochTask]]]:
        """The stages of an epoch with their tasks, in order."""
        stages = [Stage.TRAIN, Stage.VAL] if self.validates(epoch_idx) else [Stage.TRAIN]
        return [(stage, self.tasks[stage]) for stage in stages]


def plan_fit(
    trainer: TrainerView,
    *,
    train_dl: Any,
    val_dl: Any,
    metrics: Any,
    train_metrics: Any,
    val_metrics: Any,
    train_tasks: Any,
    val_tasks: Any,
    val_freq: int,
    do_val_loss: bool,
    batch_size: BatchSize,
    epochs: int | None,
) -> FitPlan:
    """Make the plan of a fit from its arguments.

    Raises:
        LoopException: neither or both of ``train_dl`` and ``train_tasks``; a call is running.
        ConfigError: another argument that cannot be right.
    """
    training = as_list("train_tasks", train_tasks, EpochTask)
    if (train_dl is None) == (not training):
        found = "neither" if train_dl is None else "both"
        raise LoopException(f"fit() got {found} of train_dl and train_tasks: give one of them.")
    if epochs is not None:
        check_count("epochs", epochs)
    check_count("val_freq", val_freq, 1)
    check_flag("do_val_loss", do_val_loss)
    check_batch_size(batch_size)
    validation = as_list("val_tasks", val_tasks, EpochTask)
    if train_dl is not None:
        training = [as_task(train_dl, "train_dl", batch_size)]
    if val_dl is not None:
        validation = [as_task(val_dl, "val_dl", batch_size, do_val_loss), *validation]
    common = [*check_metrics(metrics, "metrics"), *trainer.general_metrics]
    extra = {
        Stage.TRAIN: check_metrics(train_metrics, "train_metrics"),
        Stage.VAL: check_metrics(val_metrics, "val_metrics"),
    }
    if extra[Stage.VAL] and not validation:
        warn_user(
            "val_metrics were given without val_dl or val_tasks: they are never computed.",
            UserWarning,
        )
    if val_dl is None:
        flags = {"do_val_loss": do_val_loss} if validation else {}
        _warn_of_loader_arguments("val_dl", batch_size if train_dl is None else None, flags)
    training, validation = limited(trainer, training, validation)
    tasks = {Stage.TRAIN: training, Stage.VAL: validation}
    _warn_of_unused_verbs(trainer, tasks)
    planned = {stage: [*own, *common] for stage, own in extra.items()}
    every = 1 if trainer.limits.dry_run else val_freq
    plan = FitPlan(tasks, planned, trainer.metric_patch, every)
    check_step_args(trainer, [*training, *validation])
    if trainer.session is not None:
        raise LoopException(
            "fit() was called inside a running fit or test. Train another model with a trainer "
            "of its own, or call fit() after this one."
        )
    return plan


def plan_test(
    trainer: TrainerView,
    test_dl: Any,
    tasks: Any,
    metrics: Any,
    do_loss: bool,
    batch_size: BatchSize,
) -> FitPlan:
    """Make the plan of a test from its arguments.

    Raises:
        ConfigError: neither ``test_dl`` nor ``tasks``.
    """
    check_flag("do_loss", do_loss)
    check_batch_size(batch_size)
    testing = as_list("tasks", tasks, EpochTask)
    if test_dl is None and testing:
        _warn_of_loader_arguments("test_dl", batch_size, {"do_loss": do_loss})
    if test_dl is not None:
        testing = [as_task(test_dl, "test_dl", batch_size, do_loss), *testing]
    if not testing:
        raise ConfigError("test() got neither test_dl nor tasks: give one of them.")
    if trainer.limits.batches:
        testing = trainer.limits.tasks(Stage.TEST, testing)
    common = [*check_metrics(metrics, "metrics"), *trainer.general_metrics]
    _warn_of_unused_verbs(trainer, {Stage.TEST: testing})
    plan = FitPlan({Stage.TEST: testing}, {Stage.TEST: common}, trainer.metric_patch)
    check_step_args(trainer, testing)
    return plan


def limited(
    trainer: TrainerView, training: list[EpochTask], validation: list[EpochTask]
) -> tuple[list[EpochTask], list[EpochTask]]:
    """Give the tasks that are left by the limits of a trainer, over the mini-batches that are."""
    limits = trainer.limits
    if limits.overfit:
        processes = trainer.runtime.num_processes
        known = () if trainer.fits.part is None else trainer.fits.part.read
        training, validation = limits.overfitted(
            training, validation, processes, known, trainer.init_epoch
        )
    if limits.batches:
        return limits.tasks(Stage.TRAIN, training), limits.tasks(Stage.VAL, validation)
    return training, validation


def as_task(loader: Any, where: str, batch_size: BatchSize, do_loss: bool = True) -> EpochTask:
    """Make a task of a loader given by itself."""
    if isinstance(loader, EpochTask):
        others = {"train_dl": "train_tasks", "val_dl": "val_tasks", "test_dl": "tasks"}
        other = f"it as {others[where]}" if where in others else "its dataloader"
        raise ConfigError(f"{where} is an EpochTask: give {other}.")
    check_loader(loader, where)
    return EpochTask(loader, do_loss=do_loss, batch_size=batch_size)


def _describe_loss(loss_fn: Any) -> str:
    if isinstance(loss_fn, partial):
        options = ", ".join(f"{name}={value!r}" for name, value in loss_fn.keywords.items())
        return f"{_describe_loss(loss_fn.func)}({options})"
    return str(getattr(loss_fn, "__name__", None) or type(loss_fn).__name__)


def _describe_loader(task: EpochTask) -> str:
    """The number and size of the mini-batches, and the order."""
    loader = task.dataloader
    size, sampler = getattr(loader, "batch_size", None), getattr(loader, "sampler", None)
    number = "some" if task.length is None else str(task.length)
    of = f" of {size}" if isinstance(size, int) else ""
    order = "" if sampler is None else f" by {type(sampler).__name__}"
    return f"{number} mini-batches{of}{order}"


def warn_of_plan(trainer: TrainerView, plan: FitPlan, epochs: range) -> None:
    """Warn of what is hardly meant in a fit of some epochs."""
    validates = any(map(plan.validates, epochs)) or trainer.limits.acts_in_epochs
    if plan.tasks[Stage.VAL] and epochs and not validates:
        warn_user(
            f"val_freq={plan.val_freq} is more than the epochs of this fit: it never validates.",
            UserWarning,
        )
    _warn_of_schedules(trainer, plan, epochs.stop)
    if epochs and not trainer.is_resumed:
        _warn_of_ends(trainer, plan, epochs)
        _warn_of_forgotten(trainer, plan, epochs)


def _warn_of_loader_arguments(loader: str, batch_size: BatchSize, flags: dict[str, bool]) -> None:
    """Warn of arguments that go with a loader where only tasks were given."""
    unused = [f"{name}=False" for name, value in flags.items() if not value]
    if batch_size is not None:
        unused.append("batch_size")
    if unused:
        warn_user(
            f"{' and '.join(unused)} has no effect without {loader}: give do_loss and batch_size to "
            "each EpochTask.",
            UserWarning,
        )


def _warn_of_unused_verbs(trainer: TrainerView, tasks: dict[Stage, list[EpochTask]]) -> None:
    """Warn of a task's own ``loss`` and the like where the step is the trainer's own."""
    for stage, task in ((key, task) for key, listed in tasks.items() for task in listed):
        step = resolve_step(task, trainer, stage)
        if getattr(step, "__self__", None) is not trainer:
            continue
        for verb in VERBS:
            if getattr(type(task), verb) is not getattr(Steps, verb):
                warn_user(
                    f"{type(task).__name__}.{verb} is not used in {stage}: the step is "
                    f"{step_name(step)}, which calls the trainer's {verb}. Give the task a step of "
                    "its own.",
                    UserWarning,
                )


def _warn_of_schedules(trainer: TrainerView, plan: FitPlan, epochs: int) -> None:
    """Warn of schedules that seem to be made for steps and move on epochs, or the other way."""
    lengths = lengths_of(trainer, plan)
    batches = sum(length or 0 for length in lengths) // trainer.runtime.num_processes
    steps = [] if None in lengths else [epochs * batches]
    if trainer.grad_accumulate > 1 and steps:
        steps.append(epochs * -(-batches // trainer.grad_accumulate))
    if trainer.limits.max_steps is not None:
        steps = [trainer.limits.max_steps]
    for index, optimizer in enumerate(trainer.opt):
        if optimizer.scheduler is None or not epochs:
            continue
        from ..optim.schedule_units import made_for_epochs, made_for_steps

        on_step = optimizer.sched_on == "step"
        why, remedy = None, ""
        if on_step:
            why = made_for_epochs(optimizer.scheduler, epochs, steps)
            remedy = "sched_on='epoch', or make it for steps"
        elif not optimizer.is_sched_on_given:
            why = made_for_steps(optimizer.scheduler, epochs, steps)
            remedy = "sched_on='step' to Optimizer, or sched_on='epoch' if this is meant"
        if why is not None and trainer.tell_once(f"schedule {index}"):
            warn_user(
                f"{why}, and it moves {'with every optimizer step' if on_step else 'once an epoch'}, "
                f"in a fit of {epochs} epochs"
                f"{f' with about {steps[0]} mini-batches' if steps else ''}: give {remedy}.",
                UserWarning,
            )


def lengths_of(trainer: TrainerView, plan: FitPlan) -> list[int | None]:
    """The mini-batches of each training task, of all processes together."""
    lengths = [task.length for task in plan.tasks[Stage.TRAIN]]
    if Stage.TRAIN not in trainer.limits.batches:
        return lengths
    several = trainer.runtime.num_processes
    own = [None if length is None else -(-length // several) for length in lengths]
    limited = [trainer.limits.num_batches(Stage.TRAIN, length) for length in own]
    return [None if number is None else number * several for number in limited]


def _warn_of_ends(trainer: TrainerView, plan: FitPlan, epochs: range) -> None:
    """Warn of schedules that end before the fit, where the number of their moves is known."""
    lengths = lengths_of(trainer, plan)
    steps = None
    if (
        None not in lengths
        and trainer.runtime.num_processes == 1
        and _steps_once_a_window(trainer, plan)
    ):
        steps = sum(-(-(length or 0) // trainer.grad_accumulate) for length in lengths)
    for index, optimizer in enumerate(trainer.opt):
        per_epoch = 1 if optimizer.sched_on == "epoch" else steps
        if optimizer.scheduler is None or not per_epoch:
            continue
        from ..optim.schedule_units import overruns

        moves = len(epochs) * per_epoch
        if optimizer.sched_on == "step" and (most := trainer.limits.max_steps) is not None:
            moves = min(moves, most - trainer.progress.num_steps)
        text = overruns(optimizer.scheduler, moves)
        patience = getattr(optimizer.scheduler, "patience", None)
        if optimizer.needs_loss and isinstance(patience, int) and patience < per_epoch > 1:
            text = (
                f"{type(optimizer.scheduler).__name__} follows the loss of each optimizer step, and "
                f"patience={patience} is less than the {per_epoch} steps of an epoch.\nGive "
                "sched_on='epoch' to Optimizer, or a larger patience."
            )
        if text is not None and trainer.tell_once(f"schedule {index}"):
            warn_user(text, UserWarning)


def _warn_of_forgotten(trainer: TrainerView, plan: FitPlan, epochs: range) -> None:
    """Warn of schedules that were made for an optimizer, and that nobody moves.

    Code of the user's own in the fit, or between fits of one epoch, may move them.
    """
    tasks = [task for listed in plan.tasks.values() for task in listed]
    if len(epochs) < 2 or not all(
        map(is_of_library, map(type, (trainer, *tasks, *trainer.callbacks)))
    ):
        return
    for index, optimizer in enumerate(trainer.opt):
        if optimizer.scheduler is not None:
            continue
        # Torch wraps the step of an optimizer for which it makes a schedule, and marks it.
        is_marked = hasattr(optimizer.opt.step, "_wrapped_by_lr_sched")
        if (
            is_marked
            and not getattr(optimizer.opt, "_opt_called", False)
            and trainer.tell_once(f"schedule {index}")
        ):
            warn_user(
                f"A scheduler was made for this {optimizer.kind} and is not given to the trainer: "
                "the rate stays as it is.\nGive opt=Optimizer(opt, scheduler, sched_on='epoch'), or "
                "sched_on='step'.",
                UserWarning,
            )


def _steps_once_a_window(trainer: TrainerView, plan: FitPlan) -> bool:
    """Whether each window of mini-batches has one optimizer step, made by the library."""
    return len(trainer.opt) == 1 and all(
        map(is_of_library, map(type, (trainer, *plan.tasks[Stage.TRAIN])))
    )


def look_for_monitors(run: Run, plan: FitPlan) -> Iterator[tuple[int, Any]]:
    """Raise after the first mini-batch of a pass if it does not record what a scheduler follows.

    It is one of the mini-batches of the pass, and gives none.
    """
    from ..callbacks.monitored import may_record, planned_metrics, records_as_planned

    for index, optimizer in enumerate(run.opt):
        monitor = optimizer.monitor
        if monitor is None:
            continue
        stage = plan.stage_followed(monitor)
        if run.is_empty or may_record(run.trainer, run.trainer.session, stage, monitor):
            continue
        if run.stage is stage and run.num_tasks == 1:
            names = dict.fromkeys(run.recorder.patches)
        elif records_as_planned(run.trainer, run.trainer.session, stage):
            names = dict.fromkeys(planned_metrics(plan, stage))
        else:
            continue  # it does not show yet
        # The keys of a dict that a metric gives are appended to its name.
        if not any(monitor == n or (n != LOSS and monitor.startswith(n)) for n in names):
            raise unknown_monitor(index, monitor, stage, names)
    yield from ()


def unknown_monitor(index: int, name: str, stage: Stage, values: Mapping[str, Any]) -> MetricError:
    """The error for a metric that a scheduler is to follow and that is not there."""
    follows = f"The scheduler of optimizer {index} follows {name!r}"
    if name in values:
        return MetricError(f"{follows}, which has several entries: follow a single number.")
    near = nearest_metric(name, values)
    meant = "" if near is None else f" Did you mean {near!r}?"
    names = ", ".join(values) or "nothing"
    return MetricError(f"{follows}, which {stage} does not have; it has {names}.{meant}")


def check_step_args(trainer: TrainerView, tasks: list[EpochTask]) -> None:
    """Raise ``ConfigError`` for a step argument of a task that no step of its takes.

    The default steps take none. A step of the user's takes those that it names, and all if it
    does something with its ``**step_args``.
    """
    for task in tasks:
        if not task.step_args or any(map(_reads_step_args, (type(task), type(trainer)))):
            continue
        steps = [
            getattr(owner, name)
            for owner in (task, trainer)
            for name in {name for names in STEP_NAMES.values() for name in names}
            if getattr(type(owner), name) is not getattr(Steps, name)
        ]
        for given in task.step_args:
            if any(_takes(step, given) for step in steps):
                continue
            from ..hints.names import advice_on_argument

            known = {name for one in (EpochTask.__init__, *steps) for name in _named(one)}
            known -= {"self", "batch_x", "batch_y"}
            raise ConfigError(
                f"{type(task).__name__} has no argument {given!r}, and no step takes it. "
                f"{advice_on_argument(given, sorted(known))} Other arguments go to the steps; the "
                "default steps have none."
            )


def _takes(step: Callable[..., Any], name: str) -> bool:
    """Whether a step of the user's names an argument, or does something with its ``**`` ones.

    One without ``**`` refuses what it does not name when the loop looks at it.
    """
    code = getattr(inspect.unwrap(step), "__code__", None)
    rest = inspect.signature(step).parameters.keys() - _named(step)
    if code is None or not rest or name in _named(step):
        return True
    loaded = {*code.co_cellvars}  # what an inner function uses
    for instruction in dis.get_instructions(code):
        value = instruction.argval
        loaded.update(value if isinstance(value, tuple) else [value])
    return not rest.isdisjoint(loaded)


def _named(function: Callable[..., Any]) -> list[str]:
    """The parameters of a function that have a name of their own."""
    parameters = inspect.signature(function).parameters
    return [name for name, one in parameters.items() if one.kind is not one.VAR_KEYWORD]


def _reads_step_args(cls: type) -> bool:
    """Whether a method of the user's class reads ``self.step_args``."""
    return any(
        "step_args" in getattr(getattr(value, "__code__", None), "co_names", ())
        for cls in cls.__mro__
        if not cls.__module__.startswith(__package__.partition(".")[0] + ".")
        for value in vars(cls).values()
    )


def plan_try(trainer: TrainerView, tasks: list[EpochTask]) -> FitPlan:
    """Make the plan of a call that trains a little, and computes no metrics."""
    plan = FitPlan({Stage.TRAIN: tasks}, {Stage.TRAIN: []}, "tensor")
    check_step_args(trainer, tasks)
    return plan


def plan_search(
    trainer: TrainerView,
    train_dl: Any,
    train_tasks: Any,
    batch_size: BatchSize,
    opt_id: int | None,
) -> tuple[FitPlan, int]:
    """Make the plan of a search for a learning rate; give the index of its optimizer, too.

    Raises:
        LoopException: neither or both of ``train_dl`` and ``train_tasks``.
        ConfigError: another argument that cannot be right.
    """
    if (train_dl is None) == (train_tasks is None):
        raise LoopException("find_lr() takes one of train_dl and train_tasks.")
    tasks = as_list("train_tasks", train_tasks, EpochTask)
    if train_dl is not None:
        tasks = [as_task(train_dl, "train_dl", batch_size)]
    num_optimizers = len(trainer.opt)
    if opt_id is None and num_optimizers == 1:
        opt_id = 0
    if opt_id is None or not 0 <= opt_id < num_optimizers:
        raise ConfigError(
            f"opt_id={opt_id!r}: the trainer has {num_optimizers} optimizers, so give 0 to "
            f"{num_optimizers - 1}."
        )
    if any(group.get("lr") is None for group in trainer.opt[opt_id].param_groups):
        raise ConfigError(
            f"find_lr: optimizer {opt_id} ({type(trainer.opt[opt_id].opt).__name__}) has no learning "
            "rate (its lr is None): it finds its own in each step, so there is nothing to search."
        )
    return plan_try(trainer, tasks), opt_id
