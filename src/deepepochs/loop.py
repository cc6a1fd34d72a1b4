"""The batch loop: one pass over one task's data, on one screen.

::

    for each mini-batch of the task's loader:
        split it into batch_x and batch_y
        before_batch hooks
        the step: model, loss, backward, optimize, record
        merge what was recorded
        after_batch hooks
        save if asked, stop if asked
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any

import torch

from .callbacks.base import PACE_S, fire
from .data.cursor import Cursor
from .errors import ConfigError, ConfigTypeError, DeepEpochsError, add_note
from .losses import default_loss
from .nest import operations as nested
from .nest.batch import split_batch, split_pair
from .stages import Stage
from .steps import resolve_step

if TYPE_CHECKING:
    from .run import Run
    from .task import EpochTask
    from .trainer import TrainerBase

__all__ = ["predict_batches", "run_task"]

# What torch raises where shapes, kinds, indices or the memory of a device do not fit.
MISFITS = (TypeError, ValueError, RuntimeError, IndexError)

LONGEST = 400  # characters of a mini-batch in a note

# What torch.set_grad_enabled calls: 0.1 us instead of 1.2, twice a step.
set_gradients = getattr(torch._C, "_set_grad_enabled", torch.set_grad_enabled)


def run_task(
    trainer: TrainerBase, task: EpochTask, stage: Stage, place: tuple[int, int] = (0, 1)
) -> dict[str, Any]:
    """Run one pass over one task's data.

    Args:
        trainer: who runs it.
        task: the loader with its step and metrics.
        stage: what the pass is for.
        place: the task's index in its stage, and the number of tasks.

    Returns:
        The metrics of the pass, ``{name: NumPy array}``.

    Raises:
        StopLoopException: the trainer was asked to stop before the last mini-batch.
    """
    hooks = trainer.hooks.stages[stage]
    each, paced = hooks.after_batch, hooks.after_batch_paced
    step = resolve_step(task, trainer, stage)
    check_signature(step, task.step_args)
    step_args = task.step_args
    moves_data = trainer.moves_data(stage)
    splits_pairs = trainer.splits_pairs(stage)
    with trainer.running(task, stage, step_name(step), place) as run:
        window, is_training = run.window, run.is_training
        if not run.resumed:
            fire(hooks.before_epoch, trainer, task=task)
        for batch_idx, batch in trainer.batches_of(run):
            pair = split_pair(batch) if splits_pairs else None
            batch_x, batch_y = pair or trainer.prepare_data(batch, moves_data)
            run.begin_batch(batch_idx, batch_x, batch_y, is_pair=pair is not None)
            if hooks.before_batch:
                arguments = {"batch_x": batch_x, "batch_y": batch_y, "batch_idx": batch_idx}
                fire(hooks.before_batch, trainer, **arguments)
            # Plain calls, not a `with`: the fit around the loop restores the mode if one raises.
            set_gradients(is_training)
            try:
                if window is None:
                    returned = step(batch_x, batch_y, **step_args)
                else:
                    with trainer.gradients_of(run):
                        returned = step(batch_x, batch_y, **step_args)
            except MISFITS as error:
                if not isinstance(error, DeepEpochsError):
                    note_failure(run, error)
                    if trainer.loss_fn is default_loss:
                        add_note(error, "No loss function was given: the whole mini-batch is input")
                raise
            set_gradients(False)
            if window is not None or run.by_hand:
                task.finish_window(run)
            run.end_batch(returned)
            if paced and monotonic() >= trainer.pace_end_s:
                fire(paced, trainer, metrics=run.metrics(), batch_idx=batch_idx)
                # From the end of the writing: a slow terminal must not slow the training.
                trainer.pace_end_s = monotonic() + PACE_S
            elif each:
                fire(each, trainer, metrics=run.metrics(), batch_idx=batch_idx)
            trainer.at_save_point(run)
        values = trainer.end_pass(run)
        fire(hooks.after_epoch, trainer, task=task, metrics=values)
        return values


def predict_batches(trainer: TrainerBase, loader: Any, *, with_targets: bool | None) -> list[Any]:
    """Give the model's outputs on the CPU, one entry for each mini-batch, in the loader's order.

    A ``prepare_data`` of the user's own splits the mini-batches, unless ``with_targets`` says
    how they are to be split.
    """
    outputs = []
    splits_itself = with_targets is None and trainer.has_own_split
    with trainer.runtime.shared(loader) as share:
        cursor = Cursor(share, worker_seeding=trainer.worker_seeding)
        for index, batch in trainer.rounds(cursor):
            if splits_itself:
                batch_x, _ = trainer.prepare_data(batch)
            else:
                targets = with_targets
                if targets is None:
                    several = isinstance(batch, (tuple, list)) and len(batch) > 1
                    targets = several and trainer.loss_fn is not default_loss
                moved = nested.to_device(batch, trainer.device)
                batch_x, _ = split_batch(moved, with_targets=targets)
            try:
                model_out = trainer.call_model(batch_x)
            except MISFITS as error:
                add_note(error, f"batch_x is {describe(batch_x)}, what predict gave the model")
                raise
            if index is not None:
                outputs.append(nested.to_cpu(nested.detach(model_out)))
    # Each process has every n-th mini-batch, or the n-th part of each.
    shares = trainer.runtime.gather_objects(outputs)
    rounds = itertools.zip_longest(*shares)
    return [output for outputs in rounds for output in outputs if output is not None]


def step_name(step: Callable[..., Any]) -> str:
    """Name a step as a reader finds it, for example ``MyTask.train_step``."""
    return getattr(step, "__qualname__", repr(step)).rpartition("<locals>.")[2]


def check_signature(step: Callable[..., Any], step_args: dict[str, Any]) -> None:
    """Raise ``ConfigError`` if the step cannot be called with a mini-batch and its arguments."""
    if not callable(step):
        raise ConfigTypeError(
            f"A step method is set to {step!r}, {nested.describe(step)}: define it as "
            "def step(self, batch_x, batch_y, **step_args)."
        )
    try:
        inspect.signature(step).bind(None, None, **step_args)
    except TypeError as error:
        name = step_name(step)
        raise ConfigError(
            f"{name} cannot be called as step(batch_x, batch_y, **{step_args}): {error}. Write: "
            f"def {step.__name__}(self, batch_x, batch_y, **step_args)."
        ) from None


def note_failure(run: Run, error: Exception) -> None:
    """Add to an error of a step which mini-batch it was, and what the step was given."""
    given = describe(run.batch_x)
    if isinstance(error, TypeError):
        call = "self.model(**batch_x)" if isinstance(run.batch_x, dict) else "self.model(*batch_x)"
        given += f": call {call}"
    add_note(
        error,
        f"{run.step_name} got batch {run.batch_idx} of {run.stage} task "
        f"{run.task.label(run.task_idx)!r} (both counted from 0): batch_x is {given}; batch_y is "
        f"{describe(run.batch_y)}",
    )


def describe(batch: Any) -> str:
    """Describe a part of a mini-batch in a few lines, whatever it is: an error is on its way."""
    try:
        text = nested.describe(batch)
    except Exception:  # a tensor without a shape, a dict within itself
        return f"a {type(batch).__name__}"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."
