"""Sends metrics to an experiment tracker that Accelerate supports: W&B, MLflow, Comet, Aim, …

::

    tracker = TrackerCallback("wandb", project="digits")
    Trainer(model, loss, opt, callbacks=tracker, hyper_params={"lr": 0.1})
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..arguments import check_count
from ..errors import ConfigError, MissingExtraError, warn_user
from ..show.screens import spread
from .base import Callback

if TYPE_CHECKING:
    from ..contracts import TrainerView

TRACKERS = (
    "aim", "clearml", "comet_ml", "dvclive", "mlflow", "swanlab", "tensorboard", "trackio", "wandb",
)  # fmt: skip
"""Names of trackers. The package that a tracker needs has the same name."""

RUN_OPTIONS = {"mlflow": ("run_name", "run_id"), "wandb": ("name", "id")}
"""The options that set the name of a run, and choose a run that is there."""

MAX_FAULTS = 3  # after so many failures in a row, nothing more is sent in this fit
MAX_VALUES = 1000  # MLflow takes no more in one message
PLAIN = (bool, int, float, str, type(None))  # kinds of hyper-parameters that are sent as they are
MAX_NAME, MAX_TEXT = 240, 500  # characters that MLflow takes, in all its versions


class TrackerCallback(Callback):
    """Sends hyper-parameters and metrics to an experiment tracker.

    The first fit or test sends the trainer's ``hyper_params``. Each epoch sends
    ``<metric>/train``, ``<metric>/val`` and ``learning_rate_<i>``, with the number of the epoch
    from 1. A test sends ``<metric>/test``. In MLflow and W&B the run's name is its running id.
    Only the main process sends.

    A resumed run goes on with its run in MLflow and W&B. MLflow accepts letters, digits and
    ``_-. /`` in a name: other characters become ``_``, so that ``recall[0]`` is ``recall_0``.
    If the tracker fails, there is one warning, and training goes on; after three failures in a
    row nothing more is sent in this fit.

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
        TypeError: in a run, the tracker does not know an option.
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
        self.log_dir = Path(log_dir).absolute()
        self.every_n_batches = every_n_batches
        self.options = options
        self._opened: Any = None
        self._run: dict[str, str] = {}  # the tracker's run, and whose it is
        self._num_faults = 0
        self._has_warned = False

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_opened": None}

    def state_dict(self) -> dict[str, Any]:
        """Return the id of the tracker's run."""
        return dict(self._run)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load the id of the tracker's run; the next fit goes on with it."""
        self._run = dict(state)

    def on_before_fit(self, trainer: TrainerView, epochs: int) -> None:
        self._num_faults = 0
        self._open(trainer)

    def on_after_train_batch(self, trainer: TrainerView, metrics: Any, batch_idx: int) -> None:
        n = self.every_n_batches
        if n is not None and ((step := trainer.progress.num_train_batches) - 1) % n == 0:
            self._send("/batch/train", metrics, step)

    def on_after_epoch(
        self, trainer: TrainerView, train_metrics: Any, val_metrics: Any, epoch_idx: int, **_: Any
    ) -> None:
        values = {f"{name}/train": float(value) for name, value in spread(train_metrics)}
        values |= {f"{name}/val": float(value) for name, value in spread(val_metrics)}
        values |= trainer.opt.named_lrs()
        if self.every_n_batches is not None:
            values["epoch"] = epoch_idx + 1
        self._send("", values, self._step(trainer, epoch_idx + 1))

    def on_before_test_epochs(self, trainer: TrainerView, tasks: Any) -> None:
        self._open(trainer)

    def on_after_test_epochs(self, trainer: TrainerView, tasks: Any, metrics: Any) -> None:
        self._send("/test", metrics, self._step(trainer, trainer.init_epoch))

    def on_exception(self, trainer: TrainerView, exception: BaseException) -> None:
        # A process has one active run in MLflow: without an end, the next trainer has none.
        if self.tracker == "mlflow":
            self.finish()

    def finish(self) -> None:
        """Close the tracker; call this after the last fit or test if the tracker needs it."""
        opened, self._opened = self._opened, None
        if opened is not None:
            with self._never_fatal("finish"):
                opened.finish()

    def _open(self, trainer: TrainerView) -> None:
        if self._opened is not None or not trainer.main_process or self._num_faults >= MAX_FAULTS:
            return
        tracker = self.tracker
        if isinstance(tracker, str):
            options = self._run_options(trainer) | self.options
            tracker = make_tracker(tracker, self.project, self.log_dir, options)
        with self._never_fatal("start"):
            tracker.start()
            self._opened = tracker
        if self._opened is None:
            self._num_faults = MAX_FAULTS
            return
        with self._never_fatal("store the hyper-parameters"):
            self._run = self._identify(trainer.running_id)
            if trainer.hyper_params:
                tracker.store_init_configuration(self._params(trainer.hyper_params))

    def _run_options(self, trainer: TrainerView) -> dict[str, Any]:
        running_id = trainer.running_id
        if self.tracker == "tensorboard" and trainer.init_epoch and self.every_n_batches is None:
            # TensorBoard then hides what was written after the checkpoint.
            return {"purge_step": trainer.init_epoch + 1}
        if self.tracker not in RUN_OPTIONS:
            return {}
        name_option, id_option = RUN_OPTIONS[self.tracker]
        options = {name_option: running_id}
        if self._run.get("running_id") == running_id:
            options[id_option] = self._run["id"]
            if self.tracker == "wandb":
                options["resume"] = "allow"
        return options

    def _identify(self, running_id: str) -> dict[str, str]:
        if self.tracker not in RUN_OPTIONS:
            return {}
        run = self._opened.tracker
        run_id = run.info.run_id if self.tracker == "mlflow" else run.id
        return {"running_id": running_id, "id": str(run_id)}

    def _params(self, hyper_params: Mapping[str, Any]) -> dict[str, Any]:
        kinds = (bool, int, float, str) if self.tracker == "tensorboard" else PLAIN
        plain = {
            str(name): value if isinstance(value, kinds) else str(value)
            for name, value in hyper_params.items()
        }
        if self.tracker != "mlflow":
            return plain
        cut = {
            name: value[:MAX_TEXT] if isinstance(value, str) else value
            for name, value in plain.items()
        }
        return mlflow_names(cut)

    def _step(self, trainer: TrainerView, epochs: int) -> int:
        return epochs if self.every_n_batches is None else trainer.progress.num_train_batches

    def _send(self, suffix: str, metrics: Mapping[str, Any], step: int) -> None:
        if self._opened is None or self._num_faults >= MAX_FAULTS:
            return
        with self._never_fatal("log"):
            values = {f"{name}{suffix}": float(value) for name, value in spread(metrics)}
            if self.tracker == "mlflow":
                values = mlflow_names(values)
            entries = iter(values.items())
            while part := dict(islice(entries, MAX_VALUES)):
                self._opened.log(part, step=step)

    @contextmanager
    def _never_fatal(self, action: str) -> Iterator[None]:
        """Let a fault of the tracker end no run: warn of the first one."""
        try:
            yield
            self._num_faults = 0
        except Exception as error:  # of any kind: it is the tracker's
            if action == "start" and isinstance(error, TypeError):
                raise  # an option that it does not know
            self._num_faults += 1
            if self._has_warned:
                return
            self._has_warned = True
            name = self.tracker if isinstance(self.tracker, str) else type(self.tracker).__name__
            reason = (str(error).strip().splitlines() or ["no message"])[0]
            warn_user(
                f"TrackerCallback: {name} failed to {action} ({type(error).__name__}: {reason}). "
                "The run goes on, and its values are in trainer.history. After "
                f"{MAX_FAULTS} failures in a row nothing more is sent in this fit.",
                RuntimeWarning,
            )


def mlflow_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values under names that MLflow accepts; each keeps one of its own.

    >>> mlflow_names({"acc@1 (%)/val": 0.5, "recall[0]/val": 0.2, "recall(0)/val": 0.3})
    {'acc_1/val': 0.5, 'recall_0/val': 0.2, 'recall_0/val_2': 0.3}
    """
    named: dict[str, Any] = {}
    for name, value in values.items():
        good = fresh = _mlflow_name(name)
        number = 1
        while fresh in named:
            number += 1
            fresh = f"{good}_{number}"
        named[fresh] = value
    return named


def _mlflow_name(name: str) -> str:
    text = re.sub(r" *[^\w.\- /]+ *", "_", name)
    # MLflow reads a name as a path, and refuses one that is not normalised, such as a//b.
    is_path = posixpath.normpath(name) == name and not name.startswith(("/", ".."))
    if text == name and is_path and len(name) <= MAX_NAME:
        return name
    parts = [part.strip("_ ") for part in text.split("/")]
    return "/".join(part for part in parts if part.strip("."))[:MAX_NAME].rstrip("/") or "unnamed"


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
