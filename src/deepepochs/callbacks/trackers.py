"""Sends metrics to an experiment tracker that Accelerate supports: W&B, MLflow, Comet, Aim, …

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
from ..show.screens import spread
from .base import Callback

if TYPE_CHECKING:
    from ..contracts import TrainerView

TRACKERS = (
    "aim", "clearml", "comet_ml", "dvclive", "mlflow", "swanlab", "tensorboard", "trackio", "wandb",
)  # fmt: skip
"""Names of trackers. The package that a tracker needs has the same name."""

NAME_OPTIONS = {"mlflow": "run_name", "wandb": "name"}  # the option that sets the name of a run


class TrackerCallback(Callback):
    """Sends hyper-parameters and metrics to an experiment tracker.

    The first fit or test sends the trainer's ``hyper_params``. Each epoch sends
    ``<metric>/train``, ``<metric>/val`` and ``learning_rate_<i>``, with the number of the epoch
    from 1. A test sends ``<metric>/test``. In MLflow and W&B the run's name is its running id.
    Only the main process sends.

    ``MLFLOW_TRACKING_URI`` sets MLflow's store; a local store, such as ``sqlite:///runs.db``,
    needs no server. ``WANDB_MODE=offline`` keeps a W&B run in files.

    Args:
        tracker: the name of a tracker (``'wandb'``, ``'mlflow'``, ``'comet_ml'``, ``'aim'``,
            ``'clearml'``, ``'swanlab'``, ``'trackio'``, …), or an Accelerate
            ``GeneralTracker`` object.
        project: the name of the project or experiment, if ``tracker`` is a name.
        log_dir: the folder for trackers that write files, such as TensorBoard and Aim.
        every_n_batches: also send ``<metric>/batch/train`` of every n-th mini-batch. All
            values, and the added value ``epoch``, then have the number of the mini-batch as
            their step: W&B drops values with a smaller step than earlier ones.
        **options: for the constructor of Accelerate's class.

    Raises:
        ConfigError: the name is unknown.
        MissingExtraError: in a run, the tracker's package is not installed.
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
        self._open(trainer)

    def on_after_train_batch(self, trainer: TrainerView, metrics: Any, batch_idx: int) -> None:
        n, step = self.every_n_batches, trainer.progress.num_train_batches
        if n is not None and (step - 1) % n == 0:
            self._send("/batch/train", metrics, step)

    def on_after_epoch(
        self, trainer: TrainerView, train_metrics: Any, val_metrics: Any, epoch_idx: int, **_: Any
    ) -> None:
        values = {f"{name}/train": float(value) for name, value in spread(train_metrics)}
        values |= {f"{name}/val": float(value) for name, value in spread(val_metrics)}
        rates = trainer.opt.get_current_lr()
        values |= {f"learning_rate_{i}": rate for i, rate in enumerate(rates) if rate is not None}
        if self.every_n_batches is not None:
            values["epoch"] = epoch_idx + 1
        self._send("", values, self._step(trainer, epoch_idx + 1))

    def on_before_test_epochs(self, trainer: TrainerView, tasks: Any) -> None:
        self._open(trainer)

    def on_after_test_epochs(self, trainer: TrainerView, tasks: Any, metrics: Any) -> None:
        self._send("/test", metrics, self._step(trainer, trainer.init_epoch))

    def finish(self) -> None:
        """Close the tracker; call this after the last fit or test if the tracker needs it."""
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
            given = trainer.hyper_params.items()
            tracker.store_init_configuration(
                {name: value if isinstance(value, plain) else str(value) for name, value in given}
            )

    def _step(self, trainer: TrainerView, epochs: int) -> int:
        return epochs if self.every_n_batches is None else trainer.progress.num_train_batches

    def _send(self, suffix: str, metrics: Mapping[str, Any], step: int) -> None:
        if self._opened is not None:
            values = {f"{name}{suffix}": float(value) for name, value in spread(metrics)}
            self._opened.log(values, step=step)


def make_tracker(name: str, project: str, log_dir: Any, options: dict[str, Any]) -> Any:
    """Return Accelerate's tracker of that name."""
    from accelerate import PartialState, tracking

    PartialState()  # the trackers use it to find the main process
    if name not in {kind.value for kind in tracking.get_available_trackers()}:
        raise MissingExtraError(
            f"TrackerCallback({name!r}) needs a package that is not installed: pip install {name}."
        )
    tracker = tracking.LOGGER_TYPE_TO_CLASS[name]
    folder = [os.fspath(log_dir)] if tracker.requires_logging_directory else []
    return tracker(project, *folder, **options)
