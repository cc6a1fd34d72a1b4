"""What a step can get wrong: what it returned, its loss, its calls; and how that is said.

>>> raise recorded_twice("MyTask.step", "acc")
Traceback (most recent call last):
...
deepepochs.errors.MetricError: MyTask.step recorded the metric 'acc' twice in one mini-batch. Pass \
do_metric=False to self.loss() for the parts, and call self.do_metric() once.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from .errors import ConfigError, MetricError, NotFiniteError, StepError
from .nest import operations as nested
from .patches import PatchBase

__all__ = ["LossWatch", "named_patches", "no_such_optimizer", "not_a_loss", "recorded_twice"]


class LossWatch:
    """Raises, warns or does nothing about a loss that is NaN or infinite.

    Args:
        policy: ``'stop'``, ``'warn'`` or ``'ignore'``.
        task: the task of the pass, as ``"train task '0'"``.
        epoch: the epoch of the pass, as ``"epoch 0, "``, if it has one.
    """

    def __init__(self, policy: str, task: str, epoch: str = "") -> None:
        self.policy = policy
        self.task = task
        self.epoch = epoch
        self._told: int | None = None

    @property
    def has_told(self) -> bool:
        """Whether a loss of this pass was warned of."""
        return self._told is not None

    def report(self, loss: Any, batch_idx: int) -> None:
        """Do what was asked for, once for each mini-batch.

        Args:
            loss: the loss: a float, or of an accelerator an array, which is read late.
            batch_idx: the mini-batch, from 0, in which that was seen.
        """
        if self.policy == "ignore" or self._told == batch_idx:
            return
        exact = "" if isinstance(loss, float) else "at or before "
        text = (
            f"The loss is {float(loss)} in {self.epoch}{exact}batch {batch_idx} of {self.task} (both "
            "counted from 0). Look at the learning rate, the inputs and divisions or logarithms in "
            "the loss; on_nan='warn' goes on."
        )
        if self.policy != "warn":
            raise NotFiniteError(text)
        self._told = batch_idx
        warnings.warn(text, RuntimeWarning, stacklevel=2)


def named_patches(step_name: str, returned: Any) -> dict[str, PatchBase]:
    """Give what a step returned by the names of its patches.

    Raises:
        StepError: it is not a dict of patches.
        MetricError: two patches with one name.
    """
    if not isinstance(returned, Mapping):
        raise StepError(
            f"{step_name} returned a {type(returned).__name__}: a step returns None or a "
            "dict of patches, for example {'acc': TensorPatch(accuracy).load(model_out, batch_y)}."
        )
    named: dict[str, PatchBase] = {}
    for key, patch in returned.items():
        if isinstance(patch, type) and issubclass(patch, PatchBase):
            raise StepError(
                f"{step_name} returned {{{key!r}: {patch.__name__}}}, which is a class: "
                f"give a loaded object, for example {patch.__name__}(...).load(...)."
            )
        if not isinstance(patch, PatchBase):
            plain = isinstance(patch, (bool, int, float, str))
            shown, it = (repr(patch), repr(patch)) if plain else ("...", "this")
            raise StepError(
                f"{step_name} returned {{{key!r}: {shown}}}: values must be patches, and "
                f"{it} is {nested.describe(patch)}. Wrap it, for example "
                f"ValuePatch(batch_size).load({shown if plain else key})."
            )
        name = str(key) if patch.name is None else patch.name
        if name in named:
            raise recorded_twice(step_name, name)
        named[name] = patch
    return named


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
        f"{step_name}: the loss is {nested.describe(loss)}, and a loss is a tensor of no "
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
