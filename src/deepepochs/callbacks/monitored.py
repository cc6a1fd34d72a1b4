"""The metric that a callback follows: is it there, which values are better, has it improved.

What can be known is told before the first mini-batch, and the rest in the first one, not after an
epoch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import rng
from ..arguments import check_choice
from ..errors import CallbackException, ConfigError, ConfigTypeError, warn_user
from ..hints.near import nearest_metric
from ..hooks import is_of_library, with_companions
from ..metrics.direction import direction_of
from ..optim.monitor import Monitor
from ..patches.base import PatchBase, metric_name
from ..stages import Stage
from ..steps import STEP_NAMES, Steps, resolve_step
from .base import Metrics, follows_stop

if TYPE_CHECKING:
    from ..contracts import TrainerView

# A stage in front of a name or behind it, as other libraries write it.
_WITH_STAGE = re.compile(
    r"(?P<stage>train|training|val|valid|validation)[_/.-](?P<name>.+)"
    r"|(?P<name2>.+)[_/.-](?P<stage2>train|training|val|valid|validation)"
)


class MonitoredMetric:
    """The metric that a callback follows.

    Args:
        owner: the class of the callback, for messages.
        name: the metric's name, or one with a task in front, as ``night/loss``.
        stage: ``'train'`` or ``'val'``.
        mode: ``'min'``, ``'max'``, or ``None`` to have it known from the metric.

    Attributes:
        mode: the mode; ``None`` until a fit has found it.
        looks: whether a first mini-batch may tell more.
    """

    def __init__(self, owner: str, name: str, stage: str, mode: str | None) -> None:
        self.owner = owner
        self.name = name
        self.stage = Stage(stage)
        self.mode = mode
        self.looks = False
        self._planned: dict[str, Any] = {}  # metrics that may give it, by the name that they give
        # Training computes these metrics, too, or has the step of validation.
        self._has_same_metrics = self._has_same_step = False
        self._seen: dict[int, list[str]] = {}  # by task index: what its first mini-batch recorded
        self._may_come = False  # with a later mini-batch, or at the end of a pass

    def begin(self, trainer: TrainerView, session: Any, resumed: str | None = None) -> None:
        """Check what is known before the first mini-batch of a fit; find the mode.

        ``resumed`` is the mode of the run that is resumed, which counts if nothing else says it.

        Raises:
            CallbackException: the fit does not compute the metric.
            ConfigError: it is not known whether a higher or a lower value is better.
        """
        plan = session.plan
        self._check_validates(plan, session.span.end, at_end=trainer.limits.acts_in_epochs)
        by_name = planned_metrics(plan, self.stage)
        self._planned = {
            name: metric
            for name, metric in by_name.items()
            if name == self.name or may_give(name, metric, self.name)
        }
        self._may_come = may_record(trainer, session, self.stage, self.name)
        as_planned = not self._may_come and records_as_planned(trainer, session, self.stage)
        if as_planned and not self._planned:
            raise self._missing(plan, by_name)
        is_loss = self.name in by_name and by_name[self.name] is None
        self.looks = not (as_planned and is_loss)
        self._seen = {}
        in_training = [*planned_metrics(plan, Stage.TRAIN).values()]
        self._has_same_metrics = (
            as_planned
            and (len(plan.tasks[self.stage]) == 1 or "/" not in self.name)
            and all(any(one is other for other in in_training) for one in self._planned.values())
        )
        self._has_same_step = not self._planned and len(steps_of(trainer, plan)) == 1
        self.mode = self._direction(trainer, resumed)

    def look(self, trainer: TrainerView, metrics: Metrics) -> None:
        """Look for the metric in what the first mini-batch of each task has recorded.

        Raises:
            CallbackException: it is not there, or is not a single number.
        """
        run, session = trainer.run, trainer.session
        if run is None or session is None or run.task_idx in self._seen:
            return
        plan = session.plan
        if run.stage is not self.stage:
            if run.stage is Stage.TRAIN and (self._has_same_metrics or self._has_same_step):
                self._look_in_training(plan, metrics, is_whole=run.num_tasks == 1)
            return
        names = [*dict.fromkeys([*names_in(metrics), *run.recorder.recorded])]
        prefix = f"{run.task.label(run.task_idx)}/" if run.num_tasks > 1 else ""
        self._seen[run.task_idx] = [*names, *(prefix + name for name in names if prefix)]
        name = self.name if self.name in metrics else self.name.removeprefix(prefix)
        if name in metrics:
            self.value(plan, {self.name: metrics[name]})
            self.looks = False
        elif name in names or self._may_come:  # a hook has recorded it, or may still do so
            self.looks = False
        elif len(self._seen) == run.num_tasks:
            self.looks = False
            self._tell_of_none(plan, [name for seen in self._seen.values() for name in seen])

    def value(self, plan: Any, values: Metrics) -> float:
        """Give the metric of an epoch.

        Raises:
            CallbackException: it is not there, or is not a single number.
        """
        if self.name not in values:
            raise self._missing(plan, values)
        value = np.asarray(values[self.name])
        if value.size != 1:
            raise CallbackException(
                f"{self.owner} monitors {self.name!r}, which has {value.size} entries: monitor a "
                "single number."
            )
        return float(value.item())

    def _look_in_training(self, plan: Any, metrics: Metrics, *, is_whole: bool) -> None:
        """Learn from the first mini-batch of training what validation will record."""
        names = names_in(metrics)
        if self._has_same_metrics and is_whole:
            self.looks = False
        if self.name in metrics:
            self.value(plan, metrics)
        elif not self.looks:
            self._tell_of_none(plan, names)
        elif self._has_same_step:
            # Not an error: the step may record it in validation alone.
            warn_user(
                f"{self._missing(plan, names, Stage.TRAIN)} Training and validation have the same "
                "step here. If it does not record the value in validation either, the fit ends "
                "there with an error.",
                UserWarning,
            )
        self._has_same_metrics = self._has_same_step = False

    def _check_validates(self, plan: Any, epochs: int, *, at_end: bool) -> None:
        if self.stage is not Stage.VAL:
            return
        asks = f"{self.owner} monitors {self.name!r} of validation, and"
        instead = f"{self.owner}({self.name!r}, on_stage='train')"
        if not plan.tasks[Stage.VAL]:
            raise CallbackException(
                f"{asks} this fit does not validate. Give fit() a val_dl, or {instead}."
            )
        if not at_end and not any(map(plan.validates, range(epochs))):
            raise CallbackException(
                f"{asks} with val_freq={plan.val_freq} none of the {epochs} epochs "
                f"validates. Give a smaller val_freq, or {instead}."
            )

    def _direction(self, trainer: TrainerView, resumed: str | None) -> str:
        known = [
            direction_of(self.name, entry_of(metric, self.name))
            for metric in self._planned.values()
        ]
        best = next(filter(None, known), None) or direction_of(self.name)
        if self.mode is not None:
            if best not in (None, self.mode) and trainer.tell_once(f"mode of {self.name}"):
                warn_user(
                    f"{self.owner}({self.name!r}, mode={self.mode!r}) would keep the worst state: "
                    f"a {'higher' if best == 'max' else 'lower'} {self.name} is better. Give "
                    f"mode={best!r}, or leave mode out.",
                    UserWarning,
                )
            return self.mode
        if best is not None or resumed is not None:
            return best or str(resumed)
        text = (
            f"{self.owner} monitors {self.name!r}, and it is not known whether a higher or a lower "
            f"value is better. Give {self.owner}({self.name!r}, mode='max') or mode='min'"
        )
        if self._planned:
            raise ConfigError(f"{text}, or set its direction = 'max' or 'min'.")
        # A value that a step gives. Scripts of release 0.6 leave out the mode, and mean this.
        warn_user(f"{text}. It is taken as 'min'.", UserWarning)
        return "min"

    def _tell_of_none(self, plan: Any, recorded: list[str]) -> None:
        """Raise if the first mini-batches do not have the name, or warn if it may come later."""
        stems = [name for name in self._planned if name not in recorded]
        stem = self.name.rpartition(".")[0]
        stems += [f"{stem}."] if stem else []
        is_planned = self.name in self._planned
        if not is_planned and any(name.startswith(tuple(stems)) for name in recorded):
            warn_user(  # a dict may get further keys
                f"{self._missing(plan, recorded)} If a later mini-batch does not have it either, "
                "the fit ends with an error after the epoch.",
                UserWarning,
            )
        elif is_planned or not stems or not self._planned:
            raise self._missing(plan, recorded)

    def _missing(
        self, plan: Any, names: Iterable[str], stage: Stage | None = None
    ) -> CallbackException:
        names = [*dict.fromkeys(names)]
        text = (
            f"{self.owner} monitors {self.name!r}, which {stage or self.stage} does not have; it has "
            f"{', '.join(names) or 'nothing'}."
        )
        return CallbackException(f"{text}{self._advice(plan, names)}")

    def _advice(self, plan: Any, names: list[str]) -> str:
        match = _WITH_STAGE.fullmatch(self.name)
        if match is not None:
            name = match["name"] or match["name2"]
            stage = "train" if (match["stage"] or match["stage2"]).startswith("t") else "val"
            near = nearest_metric(name, names) or name
            return f" The stage is no part of a name: {self.owner}({near!r}, on_stage={stage!r})."
        task, _, name = self.name.rpartition("/")
        if task and name in names:
            return f" With one task the name is {name!r}, without the task."
        if (found := nearest_metric(self.name, names)) is not None:
            return f" Did you mean {found!r}?"
        other = Stage.TRAIN if self.stage is Stage.VAL else Stage.VAL
        if self.name in planned_metrics(plan, other):
            return f" The {other} stage has it: give on_stage={str(other)!r}."
        return " Give the metric to fit() or the trainer, or record it in the step."


class Improvement:
    """Follows a metric over the epochs of a run, and stops a run in which it improves no more.

    Args:
        owner: the class of the callback, for messages.
        monitor: the metric's name.
        on_stage: ``'train'`` or ``'val'``.
        mode: ``'min'``, ``'max'``, or ``None`` to have it known from the metric.
        patience: stop after this many values in a row that were not better; 0: never.
        min_delta: a value is better if it differs from the best by more than this.
        at_reset: what follows when the best value is reset, for the warning.

    Attributes:
        metric: finds the metric.
        watch: the best value, and how many came since.

    Raises:
        ConfigError: an argument has a wrong value.
    """

    def __init__(
        self,
        owner: str,
        monitor: str,
        on_stage: str,
        mode: str | None,
        patience: int,
        min_delta: float,
        at_reset: str = "",
    ) -> None:
        if not isinstance(monitor, str) or not monitor:
            raise ConfigError(f"{owner}(monitor={monitor!r}): give the name of a metric.")
        check_choice("on_stage", on_stage, ["train", "val"])
        if mode is not None:
            check_choice("mode", mode, ["min", "max"])
        if isinstance(min_delta, bool) or not isinstance(min_delta, (int, float)):
            raise ConfigTypeError(f"{owner}(min_delta={min_delta!r}): give a number of at least 0.")
        if not 0 <= min_delta < math.inf:
            raise ConfigError(f"{owner}(min_delta={min_delta!r}): give a number of at least 0.")
        self.owner = owner
        self.metric = MonitoredMetric(owner, monitor, on_stage, mode)
        # Where the mode is not given, a fit sets it.
        self.watch = Monitor(mode or "min", patience, min_delta)
        self._at_reset = at_reset
        self._told = ""

    @property
    def on_stage(self) -> str:
        """The stage of the metric."""
        return str(self.metric.stage)

    def check_fit(self, trainer: TrainerView, session: Any) -> None:
        """Raise if the fit does not compute the metric, or its mode is not known."""
        is_known = trainer.is_resumed and self.watch.best is not None
        self.metric.begin(trainer, session, self.watch.mode if is_known else None)

    def begin_fit(self, trainer: TrainerView) -> bool:
        """Say whether the fit goes on with the best value of its run, or begins without any.

        It stops at once if the run that is resumed had stopped early.
        """
        mode, goes_on = self.metric.mode or "min", True
        if not (trainer.is_resumed or trainer.is_fit_run):
            # The callback may have been another trainer's before.
            self._renew(mode)
            goes_on = False
        elif self.watch.mode != mode:
            self._reset(
                self.watch, f"was found with mode={self.watch.mode!r}", f"has mode={mode!r}"
            )
            goes_on = False
        if trainer.is_resumed:
            self._stop_if_exhausted(trainer)
        else:
            self.watch.renew()
        return goes_on

    def look(self, trainer: TrainerView, metrics: Metrics) -> None:
        """Look for the metric in a mini-batch, where that may tell that it is not there."""
        if self.metric.looks:
            self.metric.look(trainer, metrics)

    def check(
        self, trainer: TrainerView, metrics: Mapping[str, Any], *, is_part: bool
    ) -> float | None:
        """Take the value of an epoch that has the stage, and stop if the patience is exhausted.

        Args:
            trainer: is stopped.
            metrics: what ``on_after_epoch`` is given.
            is_part: whether it is of a part of an epoch, which does not count for the patience.
        """
        session = trainer.session
        if session is None or not session.has_metrics_of(self.on_stage):
            return None
        value = self.metric.value(session.plan, metrics[f"{self.on_stage}_metrics"])
        return value if is_part else self._take(trainer, value)

    def check_within(self, trainer: TrainerView, metrics: Mapping[str, Any]) -> float | None:
        """Do the same with the ``metrics`` of a validation within an epoch, or after a stop."""
        session = trainer.session
        if self.metric.stage is not Stage.VAL or session is None or not session.is_within:
            return None
        value = self.metric.value(session.plan, metrics)
        return value if follows_stop(trainer) else self._take(trainer, value)

    def _take(self, trainer: TrainerView, value: float) -> float:
        self.watch.update(value)
        self._stop_if_exhausted(trainer)
        return value

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: the best value, and what it is of."""
        monitor, on_stage = self.metric.name, self.on_stage
        return {"monitor": monitor, "on_stage": on_stage, "watch": self.watch.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> bool:
        """Load a state; say whether its best value counts here, or was of another metric."""
        name, stage, mode = self.metric.name, self.on_stage, self.metric.mode
        # Files of earlier versions have no name and no stage.
        saved = state.get("monitor", name), state.get("on_stage", stage)
        watch = Monitor(state["watch"]["mode"], self.watch.patience, self.watch.min_delta)
        watch.load_state_dict(state["watch"])
        if saved != (name, stage):
            self._reset(watch, f"is of {saved[1]} {saved[0]!r}", f"monitors {stage} {name!r}")
        elif mode not in (None, watch.mode):
            self._reset(watch, f"was found with mode={watch.mode!r}", f"has mode={mode!r}")
        else:
            self.watch = watch
            return True
        return False

    def _renew(self, mode: str) -> None:
        self.watch = Monitor(mode, self.watch.patience, self.watch.min_delta)

    def _reset(self, watch: Monitor, there: str, here: str) -> None:
        """Forget a best value, with a warning: it is of another metric."""
        text = f"{there}, and this {self.owner} {here}"
        if watch.best is not None and text != self._told:
            self._told = text  # a state may be loaded twice
            warn_user(
                f"The saved best value, {watch.best:.4g}, {text}. The best value is "
                f"reset{self._at_reset}.",
                UserWarning,
            )
        self._renew(self.metric.mode or "min")

    def _stop_if_exhausted(self, trainer: TrainerView) -> None:
        if self.watch.exhausted:
            trainer.stop(self._told_of_stop(trainer))

    def _told_of_stop(self, trainer: TrainerView) -> str:
        """Say which metric was no better, for how long, and when it was best."""
        watch, history = self.watch, trainer.history
        epochs = history.epochs if self.on_stage == "train" else history.val_epochs
        unit = "epoch" if len(epochs) == len(history.epochs) else "validation"
        many = f"{watch.num_bad} {unit}{'' if watch.num_bad == 1 else 's'}"
        than = f" by more than {watch.min_delta:g}" if watch.min_delta else ""
        text = f"{self.on_stage} {self.metric.name} was no better{than} for {many}"
        if watch.best is None or watch.best_step is None:
            return text
        since = watch.num_steps - watch.best_step
        where = f" in epoch {epochs[-since] + 1}" if since <= len(epochs) else ""
        return f"{text} (best {watch.best:.4g}{where})"


def names_in(metrics: Metrics) -> list[str]:
    """Give the names of a mini-batch's metrics, without those that are undefined on it."""
    with rng.preserved():
        return [name for name, value in metrics.items() if np.size(value) != 1 or value == value]


def planned_metrics(plan: Any, stage: Stage) -> dict[str, Any]:
    """Give the metrics that a stage is to compute, by name; the loss is there with ``None``.

    Of several tasks each has its own names, too, as ``night/loss``.
    """
    planned: dict[str, Any] = {}
    tasks = plan.tasks[stage]
    for index, task in enumerate(tasks):
        named: dict[str, Any] = {"loss": None} if stage is Stage.TRAIN or task.do_loss else {}
        metrics = [*task.metrics, *plan.metrics[stage]]
        named.update((metric_name(metric), metric) for metric in metrics)
        planned.update(named)
        if len(tasks) > 1:
            planned.update((f"{task.label(index)}/{name}", named[name]) for name in named)
    return planned


def may_give(name: str, metric: Any, wanted: str) -> bool:
    """Whether a metric may give a value of another name: an entry of a dict, or its own choice."""
    if metric is None:
        return False
    kind = metric if isinstance(metric, type) else type(metric)
    return issubclass(kind, PatchBase) or wanted.startswith(name)


def entry_of(metric: Any, wanted: str) -> Any:
    """Give the metric of a torchmetrics collection that gives a value, or the metric itself."""
    if type(metric).__name__ == "MetricCollection":
        return next((one for key, one in metric.items() if wanted.endswith(key)), metric)
    return metric


def steps_of(trainer: TrainerView, plan: Any) -> set[Any]:
    """Give the functions that are the steps of training and validation."""
    return {
        getattr(step, "__func__", step)
        for stage in (Stage.TRAIN, Stage.VAL)
        for step in (resolve_step(task, trainer, stage) for task in plan.tasks[stage])
    }


def records_as_planned(trainer: TrainerView, session: Any, stage: Stage) -> bool:
    """Whether a stage records its loss and metrics and nothing else.

    So it is with the library's own steps, unless a callback of the user may add values.
    """
    hooks = session.hooks.stages[stage]
    for hook in (*hooks.before_batch, *hooks.before_forward, *hooks.after_forward, *hooks.metrics):
        if not is_of_library(hook):
            return False
    default = getattr(Steps, STEP_NAMES[stage][1])
    for task in session.plan.tasks[stage]:
        if getattr(resolve_step(task, trainer, stage), "__func__", None) is not default:
            return False
        for verb in ("loss", "do_metric"):
            if any(getattr(type(one), verb) is not getattr(Steps, verb) for one in (task, trainer)):
                return False
    return True


def may_record(trainer: TrainerView, session: Any, stage: Stage, name: str) -> bool:
    """Whether ``record`` may add a value, at any time: in the user's code under any name."""
    callbacks = with_companions(trainer.callbacks)
    if any(name.rpartition("/")[2] in callback.records for callback in callbacks):
        return True
    steps = [resolve_step(task, trainer, stage) for task in session.plan.tasks[stage]]
    owners = {type(getattr(step, "__self__", None)) for step in steps} | {*map(type, callbacks)}
    own = [kind for owner in owners for kind in owner.__mro__ if not is_of_library(kind)]
    return any(_calls_record(function) for kind in own for function in kind.__dict__.values())


def _calls_record(function: Any) -> bool:
    """Whether a function calls ``record``, or calls a function of its module that does."""
    names = getattr(getattr(function, "__code__", None), "co_names", ())
    inner = [getattr(function, "__globals__", {}).get(name) for name in names]
    return any(
        "record" in getattr(getattr(one, "__code__", None), "co_names", ())
        for one in (function, *inner)
        if not is_of_library(one)
    )
