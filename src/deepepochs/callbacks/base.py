"""Callbacks: what watches or steers a run, and the table that calls them.

``Callback`` declares every hook once, in the order of the loop; a subclass
overrides the ones it wants. ``HookTable`` goes from each hook to the bound methods that
override it, and is made once per run.

    class StopAtNoon(Callback):
        def on_after_epoch(self, trainer, epoch_idx, **others):
            if datetime.now().hour >= 12:
                trainer.stop("it is noon")
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import torch

from ..errors import StopLoopException, add_note
from ..stages import Stage

if TYPE_CHECKING:
    from torch import Tensor

    from ..task import EpochTask
    from ..trainer import TrainerBase

__all__ = [
    "HOOKS",
    "STAGE_HOOKS",
    "Callback",
    "HookTable",
    "StageHooks",
    "fire",
    "fire_in_step",
    "paced",
]

Metrics = Mapping[str, Any]
BoundHook = Callable[..., None]
Hook = TypeVar("Hook", bound=Callable[..., None])

PACE_S = 0.1
"""Seconds between two calls of the paced hooks."""


def paced(hook: Hook) -> Hook:
    """Have an ``on_after_..._batch`` hook called ten times a second at most, for what is shown."""
    hook.paced = hook  # type: ignore[attr-defined]
    return hook


class Callback:
    """Watches or steers a run: subclass it and override hooks.

    A hook gets its arguments by name, ``trainer`` among them; ``**others`` takes
    those that a hook does not need. Hooks run without gradients. To end the run,
    call ``trainer.stop(reason)`` or raise ``StopLoopException(reason)``.

    Attributes:
        order: lower is outer: such a callback runs first in ``before`` hooks and
            last in all others, like nested ``with`` blocks. Ties go by position.
            The console has 0, ``CheckCallback`` -1.

    Args:
        priority: the name of ``order`` in release 0.6; ``None`` keeps the class's.

    Example:
        >>> class Hello(Callback):
        ...     def on_before_fit(self, trainer, epochs):
        ...         trainer.print("training for", epochs, "epochs")
    """

    order: int = 1

    def __init__(self, priority: int | None = None) -> None:
        if priority is not None:
            self.order = priority

    # fit begins
    def on_before_fit(self, *, trainer: TrainerBase, epochs: int) -> None:
        """Before the first epoch of a fit; ``epochs`` is the total number."""

    def on_before_epoch(
        self,
        *,
        trainer: TrainerBase,
        train_tasks: Sequence[EpochTask],
        val_tasks: Sequence[EpochTask],
        epoch_idx: int,
    ) -> None:
        """Before an epoch, that is all training and validation passes of it."""

    # training
    def on_before_train_epochs(
        self, *, trainer: TrainerBase, tasks: Sequence[EpochTask], epoch_idx: int
    ) -> None:
        """Before the training passes of an epoch."""

    def on_before_train_epoch(self, *, trainer: TrainerBase, task: EpochTask) -> None:
        """Before the training pass of one task."""

    def on_before_train_batch(
        self, *, trainer: TrainerBase, batch_x: Any, batch_y: Any, batch_idx: int
    ) -> None:
        """Before a training step; ``batch_idx`` counts from 0 in each pass."""

    def on_before_train_forward(self, *, trainer: TrainerBase) -> None:
        """Before the model's forward call in training."""

    def on_after_train_forward(self, *, trainer: TrainerBase, model_out: Any) -> None:
        """After the model's forward call in training, with its detached output."""

    def on_before_backward(self, *, trainer: TrainerBase, loss: Tensor) -> None:
        """Before the backward pass, with the detached, unscaled loss."""

    def on_after_backward(self, *, trainer: TrainerBase, loss: Tensor) -> None:
        """After the backward pass: gradients can be seen from here to ``before_optimize``."""

    def on_before_optimize(self, *, trainer: TrainerBase, optimize_index: int | None) -> None:
        """Before the optimizer's step; ``None`` means all optimizers."""

    def on_after_optimize(self, *, trainer: TrainerBase, optimize_index: int | None) -> None:
        """After the optimizer's step; the gradients are gone."""

    def on_train_metrics(
        self, *, trainer: TrainerBase, loss: Tensor | None, model_out: Any, batch_y: Any, task: Any
    ) -> None:
        """When loss and metrics of a training batch are recorded (detached values)."""

    def on_after_train_batch(
        self, *, trainer: TrainerBase, metrics: Metrics, batch_idx: int
    ) -> None:
        """After a training step; ``metrics`` are the batch's, computed when read."""

    def on_after_train_epoch(
        self, *, trainer: TrainerBase, task: EpochTask, metrics: Metrics
    ) -> None:
        """After the training pass of one task, with its metrics."""

    def on_after_train_epochs(
        self, *, trainer: TrainerBase, tasks: Sequence[EpochTask], metrics: Metrics, epoch_idx: int
    ) -> None:
        """After the training passes of an epoch, with the metrics of the stage."""

    # validation
    def on_before_val_epochs(
        self, *, trainer: TrainerBase, tasks: Sequence[EpochTask], epoch_idx: int
    ) -> None:
        """Before the validation passes of an epoch that validates."""

    def on_before_val_epoch(self, *, trainer: TrainerBase, task: EpochTask) -> None:
        """Before the validation pass of one task."""

    def on_before_val_batch(
        self, *, trainer: TrainerBase, batch_x: Any, batch_y: Any, batch_idx: int
    ) -> None:
        """Before a validation step."""

    def on_before_val_forward(self, *, trainer: TrainerBase) -> None:
        """Before the model's forward call in validation."""

    def on_after_val_forward(self, *, trainer: TrainerBase, model_out: Any) -> None:
        """After the model's forward call in validation."""

    def on_val_metrics(
        self, *, trainer: TrainerBase, loss: Tensor | None, model_out: Any, batch_y: Any, task: Any
    ) -> None:
        """When loss and metrics of a validation batch are recorded."""

    def on_after_val_batch(self, *, trainer: TrainerBase, metrics: Metrics, batch_idx: int) -> None:
        """After a validation step."""

    def on_after_val_epoch(
        self, *, trainer: TrainerBase, task: EpochTask, metrics: Metrics
    ) -> None:
        """After the validation pass of one task, with its metrics."""

    def on_after_val_epochs(
        self, *, trainer: TrainerBase, tasks: Sequence[EpochTask], metrics: Metrics, epoch_idx: int
    ) -> None:
        """After the validation passes of an epoch, with the metrics of the stage."""

    # the end of an epoch and of the fit
    def on_after_epoch(
        self,
        *,
        trainer: TrainerBase,
        train_tasks: Sequence[EpochTask],
        val_tasks: Sequence[EpochTask],
        train_metrics: Metrics,
        val_metrics: Metrics,
        epoch_idx: int,
    ) -> None:
        """After an epoch; ``val_metrics`` is empty if it did not validate."""

    def on_after_fit(self, *, trainer: TrainerBase) -> None:
        """After the fit: finished, stopped or interrupted, but not after an error."""

    def on_exception(self, *, trainer: TrainerBase, exception: BaseException) -> None:
        """When an error ends a fit or a test; it is raised again afterwards."""

    # test
    def on_before_test_epochs(self, *, trainer: TrainerBase, tasks: Sequence[EpochTask]) -> None:
        """Before the passes of a test."""

    def on_before_test_epoch(self, *, trainer: TrainerBase, task: EpochTask) -> None:
        """Before the test pass of one task."""

    def on_before_test_batch(
        self, *, trainer: TrainerBase, batch_x: Any, batch_y: Any, batch_idx: int
    ) -> None:
        """Before a test step."""

    def on_before_test_forward(self, *, trainer: TrainerBase) -> None:
        """Before the model's forward call in a test."""

    def on_after_test_forward(self, *, trainer: TrainerBase, model_out: Any) -> None:
        """After the model's forward call in a test."""

    def on_test_metrics(
        self, *, trainer: TrainerBase, loss: Tensor | None, model_out: Any, batch_y: Any, task: Any
    ) -> None:
        """When loss and metrics of a test batch are recorded."""

    def on_after_test_batch(
        self, *, trainer: TrainerBase, metrics: Metrics, batch_idx: int
    ) -> None:
        """After a test step."""

    def on_after_test_epoch(
        self, *, trainer: TrainerBase, task: EpochTask, metrics: Metrics
    ) -> None:
        """After the test pass of one task, with its metrics."""

    def on_after_test_epochs(
        self, *, trainer: TrainerBase, tasks: Sequence[EpochTask], metrics: Metrics
    ) -> None:
        """After the passes of a test, with the metrics of the stage."""

    # state
    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of this callback: tensors and plain types."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what ``state_dict`` gave."""


HOOKS: dict[str, inspect.Signature] = {
    name: inspect.signature(function)
    for name, function in vars(Callback).items()
    if name.startswith("on_")
}
"""Every hook in loop order, with its signature."""


class StageHooks(NamedTuple):
    """What the loop calls in one stage: hook names, or the methods bound to them.

    ``after_batch`` is called after each mini-batch. Where some of the methods are paced it
    lacks them, and ``after_batch_paced`` has all, for the times when these are due.
    """

    before_epochs: Any
    before_epoch: Any
    before_batch: Any
    before_forward: Any
    after_forward: Any
    metrics: Any
    after_batch: Any
    after_epoch: Any
    after_epochs: Any
    before_backward: Any = ()
    after_backward: Any = ()
    before_optimize: Any = ()
    after_optimize: Any = ()
    after_batch_paced: Any = ()


STAGE_HOOKS: dict[Stage, StageHooks] = {
    Stage.TRAIN: StageHooks(
        "on_before_train_epochs",
        "on_before_train_epoch",
        "on_before_train_batch",
        "on_before_train_forward",
        "on_after_train_forward",
        "on_train_metrics",
        "on_after_train_batch",
        "on_after_train_epoch",
        "on_after_train_epochs",
        "on_before_backward",
        "on_after_backward",
        "on_before_optimize",
        "on_after_optimize",
    ),
    Stage.VAL: StageHooks(
        "on_before_val_epochs",
        "on_before_val_epoch",
        "on_before_val_batch",
        "on_before_val_forward",
        "on_after_val_forward",
        "on_val_metrics",
        "on_after_val_batch",
        "on_after_val_epoch",
        "on_after_val_epochs",
    ),
    Stage.TEST: StageHooks(
        "on_before_test_epochs",
        "on_before_test_epoch",
        "on_before_test_batch",
        "on_before_test_forward",
        "on_after_test_forward",
        "on_test_metrics",
        "on_after_test_batch",
        "on_after_test_epoch",
        "on_after_test_epochs",
    ),
}


class HookTable:
    """From each hook to the methods that override it, in the order they are called.

    Made once per run. A hook that nobody overrides has an empty tuple, so that
    the loop pays for it with one look.
    """

    def __init__(self, callbacks: Sequence[Callback] = ()) -> None:
        outer_first = sorted(callbacks, key=lambda callback: callback.order)
        self.methods: dict[str, tuple[BoundHook, ...]] = {}
        for name in HOOKS:
            declared = getattr(Callback, name)
            ranked = outer_first if "before" in name else outer_first[::-1]
            self.methods[name] = tuple(
                getattr(callback, name)
                for callback in ranked
                if getattr(type(callback), name) is not declared
            )
        nothing = StageHooks(*[()] * len(StageHooks._fields))
        self.stages: dict[Stage, StageHooks] = {Stage.PREDICT: nothing}
        for stage, names in STAGE_HOOKS.items():
            bound = StageHooks(*(self.methods[name] if name else () for name in names))
            each = tuple(hook for hook in bound.after_batch if not is_paced(hook))
            if len(each) < len(bound.after_batch):
                bound = bound._replace(after_batch=each, after_batch_paced=bound.after_batch)
            self.stages[stage] = bound

    def __getitem__(self, name: str) -> tuple[BoundHook, ...]:
        return self.methods[name]


def is_paced(hook: BoundHook) -> bool:
    """Whether a hook was marked by ``paced``; one that overrides it and is not marked is not."""
    function = getattr(hook, "__func__", hook)
    # functools.wraps copies the mark, which then names another function.
    return getattr(function, "paced", None) is function


def fire(hooks: tuple[BoundHook, ...], trainer: TrainerBase, **arguments: Any) -> None:
    """Call the methods of one hook; an error gets a note that names its callback.

    ``StopLoopException`` in one of them asks the trainer to stop, and the others
    are still called.
    """
    for hook in hooks:
        try:
            hook(trainer=trainer, **arguments)
        except StopLoopException as request:
            trainer.stop(str(request))
        except Exception as error:
            add_note(error, f"raised in {_hook_name(hook)} of a callback")
            raise


def fire_in_step(hooks: tuple[BoundHook, ...], trainer: TrainerBase, **arguments: Any) -> None:
    """Do as ``fire`` where a step has gradients on: hooks run without them."""
    with torch.no_grad():
        fire(hooks, trainer, **arguments)


def _hook_name(hook: BoundHook) -> str:
    owner, name = getattr(hook, "__self__", None), getattr(hook, "__name__", repr(hook))
    return name if owner is None else f"{type(owner).__name__}.{name}"
