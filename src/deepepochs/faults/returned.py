"""Checks what a step returns, and makes the errors for a wrong loss, optimizer or metric."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np
from torch import Tensor

from ..arguments import default_loss
from ..errors import ConfigError, LoopException, MetricError, StepError
from ..nest import operations as nested
from ..patches import PatchBase, ValuePatch
from .words import DEFAULT_STEP


def named_patches(step_name: str, returned: Any, weight: float) -> dict[str, PatchBase]:
    """Give what a step returned as patches by name; plain numbers are means of that weight.

    Raises:
        StepError: it is not a dict of patches and numbers.
        MetricError: two patches with one name.
    """
    if not isinstance(returned, Mapping):
        problem = (
            f"{step_name} returned a {type(returned).__name__}: a step returns None or a dict of "
            "patches and numbers"
        )
        if isinstance(returned, Tensor) and not returned.ndim:
            raise StepError(
                f"{problem}.\nReturn nothing: self.loss(model_out, batch_y) computes the loss, makes "
                "the backward pass and the optimizer step, and records it."
            )
        raise StepError(
            f"{problem}, for example {{'acc': TensorPatch(accuracy).load(model_out, batch_y)}}."
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


def not_a_loss(step_name: str, loss: Any, trainer: Any = None) -> StepError:
    """The error for a loss that is no scalar tensor, or one that nothing can be learnt from."""
    who = "The loss" if step_name == DEFAULT_STEP else f"{step_name}: the loss"
    if isinstance(loss, Tensor) and not loss.ndim:
        problem = f"{who} depends on no weight that requires a gradient: there is nothing to learn."
        if trainer is not None and not any(w.requires_grad for w in trainer.model.parameters()):
            return StepError(
                f"{problem}\nAll weights of the model are frozen. Call "
                "weight.requires_grad_(True) for those that are to learn."
            )
        return StepError(
            f"{problem}\nBetween model and loss look for .detach(), .item(), .numpy(), .argmax(), "
            "torch.tensor(...) and torch.no_grad(), which cut it off from the weights."
        )
    problem = f"{who} is {nested.describe(loss)}, and must be a tensor with no dimension."
    if trainer is not None and trainer.loss_fn is default_loss:
        return StepError(
            f"{problem}\nNo loss function was given, so it is what the model returns: give one, as "
            "Trainer(model, F.cross_entropy), or have the model return its loss."
        )
    if isinstance(loss, Tensor):
        advice = "Reduce it, for example with .mean(), or leave out reduction='none'"
    elif isinstance(loss, (int, float)):
        advice = "Compute it with torch functions, without .item()"
    elif isinstance(loss, (tuple, list)):
        advice = "Hand on the one that is the loss"
    else:
        advice = "Return a tensor from the loss function"
    return StepError(f"{problem}\n{advice}.")


def no_such_optimizer(step_name: str, index: Any, num: int) -> ConfigError:
    """The error for an index that no optimizer has."""
    if callable(index):
        return ConfigError(
            f"{step_name} called optimize({getattr(index, '__name__', index)}): give the closure by its "
            "name, self.optimize(closure=closure)."
        )
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


def name_is_taken(name: str, why: str) -> MetricError:
    """The error for a name that ``record`` cannot use; ``why`` says what has it."""
    return MetricError(f"record({name!r}): {why}. Record the value under another name.")


def no_place_to_record(name: Any) -> LoopException:
    """The error for a call of ``record`` where no pass takes its value."""
    return LoopException(
        f"record({name!r}) was called where no pass runs. Call it in a step, in a hook of a "
        "mini-batch or of an optimizer step, or in on_after_train_epoch, on_after_val_epoch or "
        "on_after_test_epoch, which are called at the end of a pass."
    )
