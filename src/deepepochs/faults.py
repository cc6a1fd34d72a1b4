"""What a step can get wrong: what it returned, its loss, its calls; and how that is said."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np
from torch import Tensor

from .arguments import default_loss
from .errors import (
    ConfigError,
    DeepEpochsError,
    MetricError,
    StepError,
    StopLoopException,
    add_note,
)
from .nest import operations as nested
from .patches import PatchBase, ValuePatch
from .runtime.rounds import UNUSED

NO_GRADIENT = "does not require grad"  # torch's words for a tensor outside of a graph
LONGEST = 400  # characters of a mini-batch in a note


def named_patches(step_name: str, returned: Any, weight: float) -> dict[str, PatchBase]:
    """Give what a step returned as patches by name; plain numbers are means of that weight.

    Raises:
        StepError: it is not a dict of patches and numbers.
        MetricError: two patches with one name.
    """
    if not isinstance(returned, Mapping):
        raise StepError(
            f"{step_name} returned a {type(returned).__name__}: a step returns None or a "
            "dict of patches and numbers, for example "
            "{'acc': TensorPatch(accuracy).load(model_out, batch_y)}."
        )
    named: dict[str, PatchBase] = {}
    for key, patch in returned.items():
        if isinstance(patch, type) and issubclass(patch, PatchBase):
            raise StepError(
                f"{step_name} returned {{{key!r}: {patch.__name__}}}, which is a class: "
                f"give a loaded object, for example {patch.__name__}(...).load(...)."
            )
        recorded = patch if isinstance(patch, PatchBase) else _mean(step_name, key, patch, weight)
        name = str(key) if recorded.name is None else recorded.name
        if name in named:
            raise recorded_twice(step_name, name)
        named[name] = recorded
    return named


def _mean(step_name: str, key: Any, value: Any, weight: float) -> ValuePatch:
    """Take a number that a step returned as a mean over its mini-batch."""
    is_scalar = isinstance(value, (Tensor, np.ndarray)) and not value.ndim
    if is_scalar or isinstance(value, (Real, np.bool_)):
        return ValuePatch(weight).load(value)
    shown = repr(value) if isinstance(value, str) else "..."
    raise StepError(
        f"{step_name} returned {{{key!r}: {shown}}}: values must be patches, numbers or 0-d "
        f"tensors, and {'this' if shown == '...' else shown} is {nested.describe(value)}. Take its "
        "mean, or wrap it, for example ValuePatch(batch_size).load({'first': ..., 'second': ...})."
    )


def not_a_loss(step_name: str, loss: Any) -> StepError:
    """The error for a loss that is no scalar tensor, or one that nothing can be learnt from."""
    advice = "Return a tensor from the loss function"
    if isinstance(loss, Tensor) and loss.ndim:
        advice = "Reduce it, for example with .mean()"
    elif isinstance(loss, Tensor):
        return StepError(
            f"{step_name}: the loss depends on no weight that requires a gradient, so "
            "there is nothing to learn. Was it detached, made anew from a number, or computed "
            "under no_grad, or are all weights frozen?"
        )
    elif isinstance(loss, (int, float)):
        advice = "Compute it with torch functions, without .item()"
    elif isinstance(loss, (tuple, list)):
        advice = "Hand on the one that is the loss"
    return StepError(
        f"{step_name}: the loss is {nested.describe(loss)}, and must be a tensor with no "
        f"dimension. {advice}."
    )


def no_such_optimizer(step_name: str, index: Any, num: int) -> ConfigError:
    """The error for an index that no optimizer has."""
    return ConfigError(
        f"{step_name} called optimize({index!r}), and the trainer has {num} optimizer"
        f"{'s' if num > 1 else ''}: give an index from 0 to {num - 1}, or None for all."
    )


def recorded_twice(step_name: str, name: str) -> MetricError:
    """The error for a value that a step has recorded already."""
    return MetricError(
        f"{step_name} recorded the metric {name!r} twice in one mini-batch. Pass "
        "do_metric=False to self.loss() for the parts, and call self.do_metric() once."
    )


def note_failure(run: Any, error: Exception) -> None:
    """Add to an error of a step which mini-batch it was, and what the step was given."""
    if isinstance(error, (DeepEpochsError, StopLoopException)):
        return
    given = describe(run.batch_x)
    if isinstance(error, TypeError):
        call = "self.model(**batch_x)" if isinstance(run.batch_x, dict) else "self.model(*batch_x)"
        given += f": call {call}"
    add_note(
        error,
        f"{run.recorder.step_name} got batch {run.batch_idx} of {run.stage} task "
        f"{run.task.label(run.task_idx)!r} (both counted from 0): batch_x is {given}; batch_y is "
        f"{describe(run.batch_y)}",
    )
    if "find_unused_parameters" in str(error):  # of DistributedDataParallel
        add_note(error, UNUSED)
    if run.trainer.loss_fn is default_loss:
        add_note(error, "No loss function was given: the whole mini-batch is input")
    if not run.is_training:
        note_no_gradient(run.stage, error)


def note_no_gradient(stage: str, error: Exception) -> None:
    """Add to an error about gradients how to have them in a stage that has them off."""
    if NO_GRADIENT in str(error):
        add_note(
            error,
            f"Gradients are off in {stage}. Where you need them, call the model inside "
            "`with torch.enable_grad():`",
        )


def describe(batch: Any) -> str:
    """Describe a part of a mini-batch in a few lines, whatever it is: an error is on its way."""
    try:
        text = nested.describe(batch, dtypes=True)
    except Exception:  # a tensor without a shape, a dict within itself
        return f"a {type(batch).__name__}"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."
