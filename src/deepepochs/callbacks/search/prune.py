"""Ends the trials of an Optuna study that are worse than the others so far.

::

    def objective(trial):
        ...
        trainer = Trainer(model, loss, opt, callbacks=PruneCallback(trial, "accuracy"))
        return trainer.fit(train_dl, val_dl)["val"]["accuracy"][-1]
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError, ConfigTypeError, MissingExtraError
from ..base import Callback
from ..monitored import MonitoredMetric

if TYPE_CHECKING:
    from ...contracts import TrainerView


class PruneCallback(Callback):
    """Reports a metric to an Optuna trial after each epoch, and ends the trial if it is to be pruned.

    The fit is stopped after the epoch, as by ``trainer.stop``: its files are whole. Then ``fit``
    raises ``optuna.TrialPruned``, which Optuna expects of the objective. In several processes, the
    main one asks Optuna, and all are stopped.

    Args:
        trial: the trial that Optuna gives to the objective.
        monitor: the metric, as ``'accuracy'`` or of one of several tasks ``'night/accuracy'``.
        on_stage: ``'val'`` or ``'train'``.

    Raises:
        ConfigError: an argument that cannot be right, or the study looks for the other direction.
        MissingExtraError: Optuna is not installed.

    Example:
        >>> import optuna
        >>> trial = optuna.trial.FixedTrial({"lr": 0.1})
        >>> prune = PruneCallback(trial, "accuracy")
    """

    # Innermost after an epoch, so that it is saved; outermost after a fit, which it ends.
    order = -math.inf  # type: ignore[assignment]

    def __init__(self, trial: Any, monitor: str = "loss", on_stage: str = "val") -> None:
        super().__init__()
        try:
            import optuna
        except ImportError as error:
            raise MissingExtraError(
                "PruneCallback needs optuna: pip install 'deepepochs[search]'"
            ) from error
        if not callable(getattr(trial, "report", None)):
            raise ConfigTypeError(
                f"PruneCallback(trial={trial!r}): give the trial that Optuna gives to the objective."
            )
        if not isinstance(monitor, str) or not monitor:
            raise ConfigTypeError(f"PruneCallback(monitor={monitor!r}): give the name of a metric.")
        if on_stage not in ("train", "val"):
            raise ConfigError(f"PruneCallback(on_stage={on_stage!r}): give 'val' or 'train'.")
        self.trial = trial
        self.is_pruned = False
        self._pruned = optuna.TrialPruned
        self._monitored = MonitoredMetric("PruneCallback", monitor, on_stage, self._direction())

    def _direction(self) -> str | None:
        """The mode that the study looks for; ``None`` if it is not known."""
        study = getattr(self.trial, "study", None)
        return None if study is None else str(study.direction.name)[:3].lower()

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "trial": None}

    def check_fit(self, trainer: Any, session: Any) -> None:
        self.is_pruned = False
        self._monitored.begin(trainer, session)

    def on_after_epoch(self, *, trainer: TrainerView, epoch_idx: int, **values: Any) -> None:
        metrics = values[f"{self._monitored.stage}_metrics"]
        if not metrics or trainer.session is None:  # an epoch that does not validate
            return
        prunes = False
        if trainer.main_process and self.trial is not None:  # a copy has none, as in a dry run
            value = self._monitored.value(trainer.session.plan, metrics)
            self.trial.report(value, epoch_idx)
            prunes = self.trial.should_prune()
        self.is_pruned = trainer.runtime.any(prunes, "asks whether the trial is pruned")
        if self.is_pruned:
            trainer.stop(f"trial {self.trial.number} was pruned")

    def on_after_fit(self, trainer: TrainerView) -> None:
        if self.is_pruned:
            raise self._pruned(trainer.stop_reason)
