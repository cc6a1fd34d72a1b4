"""Callback: the class to subclass for what watches or steers a run.

It declares every hook once, in the order of the loop; a subclass overrides the ones it wants.

    class StopAtNoon(Callback):
        def on_after_epoch(self, trainer, epoch_idx, **others):
            if datetime.now().hour >= 12:
                trainer.stop("it is noon")
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..hooks import PACE_S, outer_first, outer_last, paced

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["HOOKS", "PACE_S", "Callback", "Metrics", "paced"]

Metrics = Mapping[str, Any]


class Callback:
    """Watches or steers a run: subclass it and override hooks.

    A hook gets its arguments by name, ``trainer`` among them; ``**others`` takes
    those that a hook does not need. Hooks run without gradients. To end the run,
    call ``trainer.stop(reason)`` or raise ``StopLoopException(reason)``.

    Attributes:
        order: lower is outer: such a callback runs first in ``before`` hooks and
            last in all others, like nested ``with`` blocks. Ties go by position.
            The console has 0, ``CheckCallback`` -1.
        meets_fillers: call the hooks that look at data also for the mini-batches that only
            fill up a round, in a process that has no more data of its own.
        acts_in_tries: take part in ``find_lr``, as gradient clipping must.

    Args:
        priority: the name of ``order`` in release 0.6; ``None`` keeps the class's.

    Example:
        >>> class Hello(Callback):
        ...     def on_before_fit(self, trainer, epochs):
        ...         trainer.print("training for", epochs, "epochs")
    """

    order: int = 1
    meets_fillers: bool = False
    acts_in_tries: bool = False
    is_console: bool = False
    """Whether the callback shows the run: then the trainer adds no console of its own."""
    keeps_checkpoints: bool = False
    """Whether ``resume`` looks into ``runs_in`` for a checkpoint, with the callback's ``resume``."""

    def __init__(self, priority: int | None = None) -> None:
        if priority is not None:
            self.order = priority

    @property
    def runs_in(self) -> Path | None:
        """The folder of the runs where this callback keeps files; ``None``: it keeps none."""
        return None

    def move_to(self, folder: Path) -> None:
        """Have the callback write into another folder, as for a run that only tries something."""
        for name in ("ckpt_dir", "log_dir"):
            if name in vars(self):
                setattr(self, name, folder)

    # fit begins
    @outer_first
    def on_before_fit(self, *, trainer: Any, epochs: int) -> None:
        """Before the first epoch of a fit; ``epochs`` is the total number."""

    @outer_first
    def on_before_epoch(
        self,
        *,
        trainer: Any,
        train_tasks: Sequence[Any],
        val_tasks: Sequence[Any],
        epoch_idx: int,
    ) -> None:
        """Before an epoch, that is all training and validation passes of it."""

    # training
    @outer_first
    def on_before_train_epochs(self, *, trainer: Any, tasks: Sequence[Any], epoch_idx: int) -> None:
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
        """After the model's forward call in training, with its detached output."""

    @outer_first
    def on_before_backward(self, *, trainer: Any, loss: Tensor) -> None:
        """Before the backward pass, with the detached, unscaled loss."""

    @outer_last
    def on_after_backward(self, *, trainer: Any, loss: Tensor) -> None:
        """After the backward pass: gradients can be seen from here to ``before_optimize``."""

    @outer_first
    def on_before_optimize(self, *, trainer: Any, optimize_index: int | None) -> None:
        """Before the optimizer's step; ``None`` means all optimizers."""

    @outer_last
    def on_after_optimize(self, *, trainer: Any, optimize_index: int | None) -> None:
        """After the optimizer's step; the gradients are gone."""

    @outer_last
    def on_train_metrics(
        self, *, trainer: Any, loss: Tensor | None, model_out: Any, batch_y: Any, task: Any
    ) -> None:
        """When loss and metrics of a training batch are recorded (detached values)."""

    @outer_last
    def on_after_train_batch(self, *, trainer: Any, metrics: Metrics, batch_idx: int) -> None:
        """After a training step; ``metrics`` are the batch's, computed when read."""

    @outer_last
    def on_after_train_epoch(self, *, trainer: Any, task: Any, metrics: Metrics) -> None:
        """After the training pass of one task, with its metrics."""

    @outer_last
    def on_after_train_epochs(
        self, *, trainer: Any, tasks: Sequence[Any], metrics: Metrics, epoch_idx: int
    ) -> None:
        """After the training passes of an epoch, with the metrics of the stage."""

    # validation
    @outer_first
    def on_before_val_epochs(self, *, trainer: Any, tasks: Sequence[Any], epoch_idx: int) -> None:
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
        """When loss and metrics of a validation batch are recorded."""

    @outer_last
    def on_after_val_batch(self, *, trainer: Any, metrics: Metrics, batch_idx: int) -> None:
        """After a validation step."""

    @outer_last
    def on_after_val_epoch(self, *, trainer: Any, task: Any, metrics: Metrics) -> None:
        """After the validation pass of one task, with its metrics."""

    @outer_last
    def on_after_val_epochs(
        self, *, trainer: Any, tasks: Sequence[Any], metrics: Metrics, epoch_idx: int
    ) -> None:
        """After the validation passes of an epoch, with the metrics of the stage."""

    # the end of an epoch and of the fit
    @outer_last
    def on_after_epoch(
        self,
        *,
        trainer: Any,
        train_tasks: Sequence[Any],
        val_tasks: Sequence[Any],
        train_metrics: Metrics,
        val_metrics: Metrics,
        epoch_idx: int,
    ) -> None:
        """After an epoch; ``val_metrics`` is empty if it did not validate."""

    @outer_last
    def on_after_fit(self, *, trainer: Any) -> None:
        """After the fit: finished, stopped or interrupted, but not after an error."""

    @outer_last
    def on_exception(self, *, trainer: Any, exception: BaseException) -> None:
        """When an error ends a fit or a test; it is raised again afterwards."""

    # test
    @outer_first
    def on_before_test_epochs(self, *, trainer: Any, tasks: Sequence[Any]) -> None:
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
        """When loss and metrics of a test batch are recorded."""

    @outer_last
    def on_after_test_batch(self, *, trainer: Any, metrics: Metrics, batch_idx: int) -> None:
        """After a test step."""

    @outer_last
    def on_after_test_epoch(self, *, trainer: Any, task: Any, metrics: Metrics) -> None:
        """After the test pass of one task, with its metrics."""

    @outer_last
    def on_after_test_epochs(self, *, trainer: Any, tasks: Sequence[Any], metrics: Metrics) -> None:
        """After the passes of a test, with the metrics of the stage."""

    # state
    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of this callback: tensors and plain types."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what ``state_dict`` gave."""


HOOKS: dict[str, Callable[..., None]] = {
    name: function for name, function in vars(Callback).items() if name.startswith("on_")
}
"""The declaration of every hook, in loop order."""
