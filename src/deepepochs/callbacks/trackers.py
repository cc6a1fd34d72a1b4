"""Experiment trackers: W&B, MLflow, Comet, Aim, ClearML and whatever else Accelerate carries.

Accelerate knows how to talk to each of them; this adapter hands it the metrics.

::

    tracker = TrackerCallback("wandb", project="digits")
    Trainer(model, loss, opt, callbacks=tracker, hyper_params={"lr": 0.1})
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..arguments import check_count
from ..errors import ConfigError, MissingExtraError
from ..show.lines import spread
from .base import Callback

if TYPE_CHECKING:
    from ..contracts import TrainerView

__all__ = ["TrackerCallback"]

TRACKERS = {
    "aim": "aim",
    "clearml": "clearml",
    "comet_ml": "comet_ml",
    "dvclive": "dvclive",
    "mlflow": "mlflow",
    "swanlab": "swanlab",
    "tensorboard": "tensorboard",
    "trackio": "trackio",
    "wandb": "wandb",
}
"""Names of trackers, and the packages that they need."""

NAME_OPTIONS = {"mlflow": "run_name", "wandb": "name"}
"""The option of a tracker that names a run."""


class TrackerCallback(Callback):
    """Hands hyper-parameters and metrics to an experiment tracker.

    At the first fit or test the trainer's ``hyper_params``; after each epoch
    ``<metric>/train``, ``<metric>/val`` and ``learning_rate_<i>``, numbered from 1; after a
    test ``<metric>/test``. MLflow and W&B call the run by its running id. Nothing is sent from
    any but the main process.

    MLflow's store is that of ``MLFLOW_TRACKING_URI``; a local one, such as
    ``sqlite:///runs.db``, needs no server. ``WANDB_MODE=offline`` keeps a run of W&B in files.

    Args:
        tracker: the name of a tracker (``'wandb'``, ``'mlflow'``, ``'comet_ml'``, ``'aim'``,
            ``'clearml'``, ``'swanlab'``, ``'trackio'``, …), or an object of Accelerate's
            ``GeneralTracker``.
        project: the project's or experiment's name, for one given by name.
        log_dir: where a tracker that asks for a folder, as TensorBoard and Aim do, writes.
        every_n_batches: also send ``<metric>/batch/train`` of every n-th mini-batch; then all
            values, with ``epoch`` among them, are numbered by mini-batches: W&B drops what has
            a smaller number than what was sent before.
        **options: for the constructor of Accelerate's class.

    Raises:
        ConfigError: a name that is not known.
        MissingExtraError: in a run, a tracker whose package is not installed.
    """

    def __init__(
        self,
        tracker: Any,
        project: str = "deepepochs",
        log_dir: str | os.PathLike[str] = "./logs",
        *,
        every_n_batches: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        if isinstance(tracker, str) and tracker not in TRACKERS:
            raise ConfigError(
                f"TrackerCallback(tracker={tracker!r}): the trackers are {', '.join(TRACKERS)}; or "
                "give an object of accelerate.tracking.GeneralTracker."
            )
        if every_n_batches is not None:
            check_count("every_n_batches", every_n_batches, 1)
        self.tracker = tracker
        self.project = project
        self.log_dir = log_dir
        self.every_n_batches = every_n_batches
        self.options = options
        self._opened: Any = None

    def on_before_fit(self, trainer: TrainerView, epochs: int) -> None:
        """Open the tracker and hand it the hyper-parameters."""
        self._open(trainer)

    def on_after_train_batch(self, trainer: TrainerView, metrics: Any, batch_idx: int) -> None:
        """Send the metrics of the mini-batch, if that is asked for."""
        n, step = self.every_n_batches, trainer.progress.num_train_batches
        if n is not None and (step - 1) % n == 0:
            self._send("/batch/train", metrics, step)

    def on_after_epoch(
        self,
        trainer: TrainerView,
        train_metrics: Any,
        val_metrics: Any,
        epoch_idx: int,
        **others: Any,
    ) -> None:
        """Send the metrics of the epoch, and the learning rates."""
        values = {f"{name}/train": float(value) for name, value in spread(train_metrics)}
        values |= {f"{name}/val": float(value) for name, value in spread(val_metrics)}
        rates = trainer.opt.get_current_lr()
        values |= {f"learning_rate_{index}": rate for index, rate in enumerate(rates)}
        if self.every_n_batches is not None:
            values["epoch"] = epoch_idx + 1
        self._send("", values, self._step(trainer, epoch_idx + 1))

    def on_before_test_epochs(self, trainer: TrainerView, tasks: Any) -> None:
        """Open the tracker, if no fit has."""
        self._open(trainer)

    def on_after_test_epochs(self, trainer: TrainerView, tasks: Any, metrics: Any) -> None:
        """Send the results of the test."""
        self._send("/test", metrics, self._step(trainer, trainer.init_epoch))

    def finish(self) -> None:
        """Close the tracker; to be called after the last fit or test, where it needs that."""
        if self._opened is not None:
            self._opened.finish()
            self._opened = None

    def _open(self, trainer: TrainerView) -> None:
        if self._opened is not None or not trainer.main_process:
            return
        tracker = self.tracker
        if isinstance(tracker, str):
            named = {NAME_OPTIONS[tracker]: trainer.running_id} if tracker in NAME_OPTIONS else {}
            tracker = make_tracker(tracker, self.project, self.log_dir, named | self.options)
        self._opened = tracker
        tracker.start()
        if trainer.hyper_params:
            plain = (bool, int, float, str, type(None))
            tracker.store_init_configuration(
                {
                    name: value if isinstance(value, plain) else str(value)
                    for name, value in trainer.hyper_params.items()
                }
            )

    def _step(self, trainer: TrainerView, epochs: int) -> int:
        return epochs if self.every_n_batches is None else trainer.progress.num_train_batches

    def _send(self, suffix: str, metrics: Mapping[str, Any], step: int) -> None:
        if self._opened is not None:
            values = {f"{name}{suffix}": float(value) for name, value in spread(metrics)}
            self._opened.log(values, step=step)


def make_tracker(name: str, project: str, log_dir: Any, options: dict[str, Any]) -> Any:
    """Make Accelerate's tracker of a name.

    Raises:
        MissingExtraError: its package is not installed.
    """
    from accelerate import PartialState, tracking

    PartialState()  # its classes ask it which process is the main one
    if name not in {kind.value for kind in tracking.get_available_trackers()}:
        raise MissingExtraError(
            f"TrackerCallback({name!r}) needs a package that is not installed: "
            f"pip install {TRACKERS[name]}."
        )
    tracker = tracking.LOGGER_TYPE_TO_CLASS[name]
    if tracker.requires_logging_directory:
        return tracker(project, os.fspath(log_dir), **options)
    return tracker(project, **options)
