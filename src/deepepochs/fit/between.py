"""The validation between two mini-batches of training, ``val_every``, or after a stop between epochs.

It is a call inside of the fit, as a test in a hook is. Random states and the modes of the model are
put back after it. Only then the fit saves or stops.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..callbacks.base import follows_stop
from ..errors import warn_user
from ..run import Run
from ..stages import Stage
from .epochs import FitSession
from .plan import FitPlan
from .save_points import SavePoints
from .session import Kind, Session


class PassedOn(SavePoints):
    """Save points of a validation that is run to its end: the fit stops after it, not it."""

    def stop(self, reason: str, *, validate: bool = False, everywhere: bool = False) -> None:
        if self.outer is not None:
            self.outer.stop(reason, validate=validate)

    def check(self, run: Run | None = None, *, stage: Stage | None = None) -> bool:
        return False


class Validation(Session):
    """One validation between two mini-batches or two epochs of a fit."""

    def __init__(self, fit: FitSession) -> None:
        trainer = fit.trainer
        tasks: dict[Stage, Any] = {Stage.TRAIN: [], Stage.VAL: fit.plan.tasks[Stage.VAL]}
        metrics: dict[Stage, Any] = {Stage.TRAIN: [], Stage.VAL: fit.plan.metrics[Stage.VAL]}
        plan = FitPlan(tasks, metrics, trainer.metric_patch)
        super().__init__(trainer, plan, Kind.VALIDATE, trainer.callbacks, fit)
        self._fit_session = fit

    def points(self, outer: Session | None) -> SavePoints:
        """Make the save points of the validation."""
        return PassedOn(self.trainer, outer=None if outer is None else outer.save_points)

    @property
    def epoch_idx(self) -> int:
        """The epoch of the fit, or between two the one that is over."""
        now, fits = self._fit_session.epoch_idx, self._fit_session.fits
        return max(0, fits.progress.epoch_idx - 1) if now is None else now

    def end_run(self, run: Run) -> None:
        """Count the mini-batches."""
        self._fit_session.fits.count(run)

    def run_all(self, run_pass: Callable[..., Any]) -> None:
        """Run the passes, and tell history, hooks and schedulers of their values."""
        trainer, tasks, epoch_idx = self.trainer, self.plan.tasks[Stage.VAL], self.epoch_idx
        self.fire("on_before_val_epochs", tasks=tasks, epoch_idx=epoch_idx)
        for index, task in enumerate(tasks):
            run_pass(self, task, Stage.VAL, (index, len(tasks)))
        values = self.stage_values(self.totals)
        trainer.history.add_validation(epoch_idx, values, trainer.progress.num_steps)
        self.fire("on_after_val_epochs", tasks=tasks, metrics=values, epoch_idx=epoch_idx)
        if not follows_stop(trainer):
            self._fit_session.follow_validation(values)


def warn_of_no_validation(fit: FitSession) -> None:
    """Warn of ``val_every`` in a fit that has nothing to validate on."""
    if not fit.plan.tasks[Stage.VAL] and fit.trainer.tell_once("val_every"):
        warn_user(
            "val_every was given, and fit() got neither val_dl nor val_tasks: it does not validate.",
            UserWarning,
        )
