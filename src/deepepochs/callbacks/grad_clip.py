"""Clips gradients, or records their norm, between the backward pass and the optimizer's step.

::

    Trainer(model, loss, opt, callbacks=[GradNormCallback(), GradClipCallback(1.0, norm_type=2)])
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from ..arguments import check_flag
from ..errors import ConfigError, ConfigTypeError
from .base import Callback

if TYPE_CHECKING:
    from ..contracts import TrainerView


class GradClipCallback(Callback):
    """Clips the gradients before an optimizer uses them.

    Args:
        max_value: the largest absolute value of an entry, or with ``norm_type`` the
            largest norm of all gradients together; positive.
        norm_type: the norm, such as 2 or ``inf``; ``None`` clips by value.

    Raises:
        ConfigError: ``max_value`` or ``norm_type`` is not positive.

    Example:
        >>> by_norm = GradClipCallback(1.0, norm_type=2)
        >>> by_value = GradClipCallback(0.5)
    """

    acts_in_tries = True

    def __init__(self, max_value: float, norm_type: float | None = None) -> None:
        super().__init__()
        for name, value in (("max_value", max_value), ("norm_type", norm_type)):
            if value is None and name == "norm_type":
                continue
            text = f"GradClipCallback({name}={value!r}): give a positive number."
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise ConfigTypeError(text)
            if not value > 0 or (name == "max_value" and math.isinf(value)):
                raise ConfigError(text)
        self.max_value = max_value
        self.norm_type = norm_type

    def on_before_optimize(self, trainer: TrainerView, optimize_index: int | None) -> None:
        weights = weights_of(trainer, optimize_index)
        if self.norm_type is None:
            nn.utils.clip_grad_value_(weights, self.max_value)
        else:
            trainer.runtime.clip_by_norm(weights, self.max_value, self.norm_type)


class GradNormCallback(Callback):
    """Records the norm of all gradients together as ``'grad_norm'``, in each optimizer step.

    It is the 2-norm before a ``GradClipCallback`` clips it, and with fp16 that of the unscaled
    gradients, without the steps that the scaler skips. The epoch has the mean over its steps,
    each weighted by its mini-batch, or by the last one of its ``grad_accumulate``.

    Args:
        with_max: also record the largest norm of the epoch, as ``'grad_norm_max'``.

    Raises:
        ConfigTypeError: ``with_max`` is not true or false.

    Example:
        >>> import torch
        >>> from deepepochs import Trainer
        >>> data = [(torch.ones(4, 2), torch.zeros(4, 1))]
        >>> trainer = Trainer(
        ...     nn.Linear(2, 1), nn.MSELoss(), epochs=2, callbacks=GradNormCallback(), console="off"
        ... )
        >>> history = trainer.fit(data)
        >>> len(history["train"]["grad_norm"])
        2
    """

    order = 0  # before callbacks that change the gradients
    records = ("grad_norm", "grad_norm_max")

    def __init__(self, with_max: bool = False) -> None:
        super().__init__()
        self.with_max = check_flag("with_max", with_max)

    def on_before_optimize(self, trainer: TrainerView, optimize_index: int | None) -> None:
        weights = weights_of(trainer, optimize_index)
        given = [weight.grad for weight in weights if weight.grad is not None]
        # Torch has no norm of sparse gradients.
        gradients = [grad.coalesce().values() if grad.is_sparse else grad for grad in given]
        norm: Any = nn.utils.get_total_norm(gradients)
        if hasattr(norm, "full_tensor"):  # each process knows only the norm of its shards
            norm = norm.full_tensor()
        if trainer.runtime.scaler is not None and not norm.isfinite():
            return  # the scaler waits for this as well
        trainer.record("grad_norm", norm)
        if self.with_max:
            trainer.record("grad_norm_max", norm, how="max")


def weights_of(trainer: TrainerView, optimize_index: int | None) -> list[Tensor]:
    """Give the weights of an optimizer, or of all, each once even if several have it."""
    chosen = trainer.opt if optimize_index is None else [trainer.opt[optimize_index]]
    by_id = {id(weight): weight for optimizer in chosen for weight in optimizer.params}
    return list(by_id.values())
