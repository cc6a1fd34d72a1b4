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
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any

from .arguments import default_loss
from .data.cursor import Cursor
from .errors import ConfigError, ConfigTypeError, DataError
from .fit.session import Session, warn_of_skipped
from .hooks import PACE_S, fire, fire_in_step, set_gradients
from .nest import operations as nested
from .nest.operations import split_batch, split_pair
from .nest.reuse import BufferGuard, any_changed, hold
from .nest.samples import count_samples, mark_lists
from .stages import Stage
from .steps import is_default, resolve_step, step_name
from .task import EpochTask


def run_pass(
    session: Session, task: EpochTask, stage: Stage, place: tuple[int, int] = (0, 1)
) -> dict[str, Any]:
    """Run one pass over one task's data; give its metrics, ``{name: float}``.

    Raises:
        StopLoopException: the call was asked to stop before the last mini-batch.
    """
    trainer: Any = session.trainer
    hooks, step = session.hooks.stages[stage], checked_step(task, trainer, stage)
    moves_data, splits_pairs = trainer.moves_data(stage), trainer.splits_pairs(stage)
    with session.open_pass(task, stage, place, step_name(step)) as run:
        step, recorder, is_training = session.around(run, step), run.recorder, run.is_training
        fire(hooks.before_epoch, trainer, task=task)
        set_gradients(is_training)  # while they are fetched, too: samples may be weights
        for batch_idx, batch in session.batches(run):
            if batch is None:  # the collate function has left it out
                run.skip(batch_idx)
                continue
            pair = split_pair(batch) if splits_pairs else None
            batch_x, batch_y = pair or trainer.prepare_data(batch, moves_data)
            if run.begin_batch(batch_idx, batch_x, batch_y, is_pair=pair is not None):
                continue
            hooks = run.hooks
            if hooks.before_batch:
                given = {"batch_x": batch_x, "batch_y": batch_y, "batch_idx": batch_idx}
                fire_in_step(hooks.before_batch, trainer, **given)
            try:
                returned = step(batch_x, batch_y, **task.step_args)
            except Exception as error:
                raise explained_here(run, error)
            set_gradients(False)
            run.end_batch(returned)
            if hooks.after_batch_paced and monotonic() >= session.pace_end_s:
                metrics = recorder.metrics(batch_idx)
                fire(hooks.after_batch_paced, trainer, metrics=metrics, batch_idx=batch_idx)
                # From the end of the writing: a slow terminal must not slow the training.
                session.rest(until_s=monotonic() + PACE_S)
            elif hooks.after_batch:
                metrics = recorder.metrics(batch_idx)
                fire(hooks.after_batch, trainer, metrics=metrics, batch_idx=batch_idx)
            if session.save_points.check(run):
                break
            set_gradients(is_training)
        set_gradients(False)
        values = session.close_pass(run)
        fire(hooks.after_epoch, trainer, task=task, metrics=values)
        return values


def explained_here(run: Any, error: Exception) -> Exception:
    """Give the error to be raised for one of a step."""
    from .faults.explain import explained  # a run without faults does not need it

    return explained(run, error)


def predict_batches(trainer: Any, loader: Any, *, with_targets: bool | None) -> list[Any]:
    """Give the model's outputs on the CPU, one entry for each mini-batch, in the loader's order.

    Lists of samples are marked for ``join_outputs``.

    A ``prepare_data`` of the user's own splits the mini-batches, unless ``with_targets`` says
    how they are to be split.
    """
    outputs: list[Any] = []
    guard = BufferGuard()
    with trainer.runtime.shared(loader) as share:
        cursor = Cursor(share, worker_seeding=trainer.worker_seeding)
        rounds = trainer.runtime.rounds(cursor)
        for batch_idx, batch in cursor if rounds is None else rounds:
            if batch is None:
                cursor.skip()
                continue
            batch_x, batch_y = split_inputs(trainer, batch, with_targets)
            num_samples = count_samples(batch_x, batch_y)  # before the model can change it
            try:
                model_out = trainer.call_model(batch_x)
            except Exception as error:
                from .faults.explain import explained_prediction

                raise explained_prediction(trainer, batch_x, batch_y, batch_idx, error)
            if model_out is None:
                raise DataError("predict() got None: the model has to return its outputs.")
            if rounds is None or not rounds.is_filler:
                model_out = guard.own(model_out) if guard.acts else model_out
                outputs.append(mark_lists(nested.to_cpu(hold(model_out)), num_samples))
            else:
                outputs.append(None)  # keeps the place of a mini-batch that was left out
    if cursor.num_skipped:
        warn_of_skipped(trainer, "loader of predict()", cursor)
    if any_changed(outputs):
        raise DataError(
            "predict() got outputs that were changed in place when later ones were computed: have "
            "the model return a copy of its buffer, as in out.clone()."
        )
    # Each process has every n-th mini-batch, or the n-th part of each.
    shares = trainer.runtime.gather_objects(outputs, "joins predictions")
    rows = itertools.zip_longest(*shares)
    return [output for outputs in rows for output in outputs if output is not None]


def split_inputs(trainer: Any, batch: Any, with_targets: bool | None = None) -> tuple[Any, Any]:
    """Split a mini-batch that may consist of inputs alone."""
    if with_targets is None and trainer.has_own_split:
        inputs: tuple[Any, Any] = trainer.prepare_data(batch)
        return inputs
    entry = trainer.targets if isinstance(batch, Mapping) and trainer.targets in batch else None
    if with_targets is None:
        several = isinstance(batch, (tuple, list)) and len(batch) > 1
        with_targets = trainer.loss_fn is not default_loss and (several or entry is not None)
    moved = nested.to_device(batch, trainer.device)
    return split_batch(moved, with_targets=with_targets, entry=entry)


def checked_step(task: EpochTask, trainer: Any, stage: Stage) -> Callable[..., Any]:
    """Give the step of a pass, or raise ``ConfigError`` if it cannot be called as one."""
    step = resolve_step(task, trainer, stage)
    if not callable(step):
        raise ConfigTypeError(
            f"A step method is set to {step!r}, {nested.describe(step)}: define it as "
            "def step(self, batch_x, batch_y, **step_args)."
        )
    if is_default(step) and not task.step_args:
        return step  # it takes what it is given: no look at its signature in each pass
    try:
        inspect.signature(step).bind(None, None, **task.step_args)
    except TypeError as error:
        raise ConfigError(
            f"{step_name(step)} cannot be called as step(batch_x, batch_y, **{task.step_args}): "
            f"{error}. Write: def {step.__name__}(self, batch_x, batch_y, **step_args)."
        ) from None
    return step
