"""The base class of callbacks: subclass it to watch or steer a run.

It declares every hook, in the order of the loop. A subclass overrides the hooks that it needs.

    class StopAtNoon(Callback):
        def on_after_epoch(self, trainer, epoch_idx, **others):
            if datetime.now().hour >= 12:
                trainer.stop("it is noon")
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any

from ..hooks import is_of_library, outer_first, outer_last
from ..hooks import paced as paced

if TYPE_CHECKING:
    from torch import Tensor

    from ..contracts import TrainerView

Metrics = Mapping[str, Any]
Tasks = Sequence[Any]


class Callback:
    """Watches or steers a run: subclass it and override hooks.

    A hook gets its arguments by name, ``trainer`` among them; ``**others`` takes
    those that it does not need. Hooks run without gradients. To end the run,
    call ``trainer.stop(reason)`` or raise ``StopLoopException(reason)``.

    Attributes:
        order: a lower number is further out: the callback runs earlier in ``before`` hooks
            and later in all others, like nested ``with`` blocks. Callbacks of equal order
            run by position. The console has 0, ``CheckCallback`` -1.
        meets_fillers: also call the hooks of a mini-batch for fillers: the mini-batches that
            do not count, in a process that has run out of data before the others.
        acts_in_tries: take part in ``find_lr``, as gradient clipping must.

    Args:
        priority: the name of ``order`` in release 0.6; ``None`` keeps the class's value.

    Example:
        >>> class Hello(Callback):
        ...     def on_before_fit(self, trainer, epochs):
        ...         trainer.print("training for", epochs, "epochs")
    """

    order: int = 1
    meets_fillers: bool = False
    acts_in_tries: bool = False
    is_console: bool = False
    """Whether the callback shows the run. The trainer then adds no console."""
    keeps_checkpoints: bool = False
    """Whether the trainer resumes through the callback's ``resume``, from a run in ``runs_in``."""

    records: tuple[str, ...] = ()
    """The names of what a callback of the library gives to ``trainer.record``."""

    made_with: dict[str, str]
    """The arguments that it was made with: of several callbacks of a class, they tell which one."""

    def __new__(cls, *args: Any, **options: Any) -> Callback:
        callback = super().__new__(cls)
        callback.made_with = _arguments(cls, args, options)
        return callback

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = cls.__dict__.get("__init__")
        if isinstance(own, FunctionType) and own.__doc__ is None:
            own.__doc__ = cls.__doc__  # the class describes the arguments: for `help`

    def __init__(self, priority: int | None = None) -> None:
        if priority is not None:
            self.order = priority

    def __getstate__(self) -> dict[str, Any]:
        """Return the attributes that a copy or a pickle has.

        A callback with open files, locks or threads leaves them out: a copy runs nothing yet.
        """
        return dict(vars(self))

    @property
    def runs_in(self) -> Path | None:
        """The folder of runs that this callback writes to; ``None`` if it writes no files."""
        return None

    @property
    def decides_best(self) -> tuple[str, str, str] | None:
        """Stage, name and mode of the metric that says which epoch is best, if it is known here."""
        return None

    def files_of(self, trainer: Any) -> Mapping[str, Path]:
        """What there is of the run for later: what it is, as ``'report'``, and where."""
        return {}

    def move_to(self, folder: Path) -> None:
        """Write to another folder from now on, for example in a trial run."""
        for name in ("ckpt_dir", "log_dir"):
            if name in vars(self):
                setattr(self, name, folder)
        for companion in self.companions:
            companion.move_to(folder)

    def check_fit(self, trainer: Any, session: Any) -> None:
        """Raise if a fit that is about to begin is not what this callback needs.

        Unlike in a hook, nothing of the fit is there yet, not even the run's folder.
        """

    @property
    def companions(self) -> tuple[Callback, ...]:
        """Callbacks that this one brings with it. Their hooks are called further in than its own."""
        return ()

    # fit begins
    @outer_first
    def on_before_fit(self, *, trainer: Any, epochs: int) -> None:
        """Before the first epoch of a fit; ``epochs`` is the total number."""

    @outer_first
    def on_before_epoch(
        self, *, trainer: Any, train_tasks: Tasks, val_tasks: Tasks, epoch_idx: int
    ) -> None:
        """Before an epoch: all its training and validation passes."""

    # training
    @outer_first
    def on_before_train_epochs(self, *, trainer: Any, tasks: Tasks, epoch_idx: int) -> None:
        """Before the training passes of an epoch."""

    @outer_first
    def on_before_train_epoch(self, *, trainer: Any, task: Any) -> None:
        """Before the training pass of one task."""

    @outer_first
    def on_before_train_batch(
        self, *, trainer: Any, batch_x: Any, batch_y: Any, batch_idx: int
    ) -> None:
        """Before a training step; ``batch_idx`` counts from 0 in each pass."""

    @outer_first
    def on_before_train_forward(self, *, trainer: Any) -> None:
        """Before the model's forward call in training."""

    @outer_last
    def on_after_train_forward(self, *, trainer: Any, model_out: Any) -> None:
        """After the model's forward call in training; ``model_out`` is detached."""

    @outer_first
    def on_before_backward(self, *, trainer: Any, loss: Tensor) -> None:
        """Before the backward pass, with the detached, unscaled loss."""

    @outer_last
    def on_after_backward(self, *, trainer: Any, loss: Tensor) -> None:
        """After the backward pass: the weights have gradients until the optimizer's step."""

    @outer_first
    def on_before_optimize(self, *, trainer: Any, optimize_index: int | None) -> None:
        """Before the optimizer's step; ``None`` means all optimizers."""

    @outer_last
    def on_after_optimize(self, *, trainer: Any, optimize_index: int | None) -> None:
        """After the optimizer's step; the gradients have been cleared."""

    @outer_last
    def on_train_metrics(
        self, *, trainer: Any, loss: Tensor | None, model_out: Any, batch_y: Any, task: Any
    ) -> None:
        """When the loss and metrics of a training batch are recorded; all values are detached."""

    @outer_last
    def on_after_train_batch(self, *, trainer: Any, metrics: Metrics, batch_idx: int) -> None:
        """After a training step; ``metrics`` are of this batch, and computed when read."""

    @outer_last
    def on_after_train_epoch(self, *, trainer: Any, task: Any, metrics: Metrics) -> None:
        """After the training pass of one task, with its metrics."""

    @outer_last
    def on_after_train_epochs(
        self, *, trainer: Any, tasks: Tasks, metrics: Metrics, epoch_idx: int
    ) -> None:
        """After the training passes of an epoch, with the metrics of all tasks."""

    # validation
    @outer_first
    def on_before_val_epochs(self, *, trainer: Any, tasks: Tasks, epoch_idx: int) -> None:
        """Before the validation passes of an epoch that validates."""

    @outer_first
    def on_before_val_epoch(self, *, trainer: Any, task: Any) -> None:
        """Before the validation pass of one task."""

    @outer_first
    def on_before_val_batch(
        self, *, trainer: Any, batch_x: Any, batch_y: Any, batch_idx: int
    ) -> None:
        """Before a validation step."""

    @outer_first
    def on_before_val_forward(self, *, trainer: Any) -> None:
        """Before the model's forward call in validation."""

    @outer_last
    def on_after_val_forward(self, *, trainer: Any, model_out: Any) -> None:
        """After the model's forward call in validation."""

    @outer_last
    def on_val_metrics(
        self, *, trainer: Any, loss: Tensor | None, model_out: Any, batch_y: Any, task: Any
    ) -> None:
        """When the loss and metrics of a validation batch are recorded."""

    @outer_last
    def on_after_val_batch(self, *, trainer: Any, metrics: Metrics, batch_idx: int) -> None:
        """After a validation step."""

    @outer_last
    def on_after_val_epoch(self, *, trainer: Any, task: Any, metrics: Metrics) -> None:
        """After the validation pass of one task, with its metrics."""

    @outer_last
    def on_after_val_epochs(
        self, *, trainer: Any, tasks: Tasks, metrics: Metrics, epoch_idx: int
    ) -> None:
        """After the validation passes of an epoch, with the metrics of all tasks."""

    # the end of an epoch and of the fit
    @outer_last
    def on_after_epoch(
        self,
        *,
        trainer: Any,
        train_tasks: Tasks,
        val_tasks: Tasks,
        train_metrics: Metrics,
        val_metrics: Metrics,
        epoch_idx: int,
    ) -> None:
        """After an epoch; ``val_metrics`` is empty without validation in this epoch."""

    @outer_last
    def on_after_fit(self, *, trainer: Any) -> None:
        """After a fit that finished, was stopped or was interrupted; not after an error."""

    @outer_last
    def on_exception(self, *, trainer: Any, exception: BaseException) -> None:
        """When an error ends a fit or a test; the error is raised again after the hook."""

    # test
    @outer_first
    def on_before_test_epochs(self, *, trainer: Any, tasks: Tasks) -> None:
        """Before the passes of a test."""

    @outer_first
    def on_before_test_epoch(self, *, trainer: Any, task: Any) -> None:
        """Before the test pass of one task."""

    @outer_first
    def on_before_test_batch(
        self, *, trainer: Any, batch_x: Any, batch_y: Any, batch_idx: int
    ) -> None:
        """Before a test step."""

    @outer_first
    def on_before_test_forward(self, *, trainer: Any) -> None:
        """Before the model's forward call in a test."""

    @outer_last
    def on_after_test_forward(self, *, trainer: Any, model_out: Any) -> None:
        """After the model's forward call in a test."""

    @outer_last
    def on_test_metrics(
        self, *, trainer: Any, loss: Tensor | None, model_out: Any, batch_y: Any, task: Any
    ) -> None:
        """When the loss and metrics of a test batch are recorded."""

    @outer_last
    def on_after_test_batch(self, *, trainer: Any, metrics: Metrics, batch_idx: int) -> None:
        """After a test step."""

    @outer_last
    def on_after_test_epoch(self, *, trainer: Any, task: Any, metrics: Metrics) -> None:
        """After the test pass of one task, with its metrics."""

    @outer_last
    def on_after_test_epochs(self, *, trainer: Any, tasks: Tasks, metrics: Metrics) -> None:
        """After the passes of a test, with the metrics of all tasks."""

    # state
    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint saves of this callback: tensors and plain types."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load a state that ``state_dict`` returned."""


def is_within(trainer: TrainerView) -> bool:
    """Whether the call that runs is inside of another, as the validation of ``val_every`` is."""
    return trainer.session is not None and trainer.session.is_within


def follows_stop(trainer: TrainerView) -> bool:
    """Whether what runs comes after a stop of the fit, whose state is kept as it was there."""
    return trainer.fits.part is not None


def _arguments(cls: type, args: Sequence[Any], options: Mapping[str, Any]) -> dict[str, str]:
    """Say in words what ``cls`` is called with: plain values, or else their type."""
    try:
        bound = inspect.signature(cls.__init__).bind(None, *args, **options)  # type: ignore[misc]
    except (TypeError, ValueError):
        # copy() makes an object without arguments. A class of the user's raises its own error.
        if (args or options) and is_of_library(cls.__init__):  # type: ignore[misc]
            from ..hints.calls import refusal

            refused = refusal(cls.__init__, (cls, *args), options)  # type: ignore[misc]
            if refused is not None:
                raise refused from None
        return {}
    bound.apply_defaults()
    plain = (str, int, float, bool, type(None))
    return {
        name: repr(value)[:_MAX_SHOWN] if type(value) in plain else type(value).__name__
        for name, value in list(bound.arguments.items())[1:]
    }


_MAX_SHOWN = 200

HOOKS: dict[str, Callable[..., None]] = {
    name: function for name, function in vars(Callback).items() if name.startswith("on_")
}
"""The declaration of every hook, in loop order."""
