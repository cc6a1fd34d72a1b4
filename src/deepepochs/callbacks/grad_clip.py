"""Clips gradients, between the backward pass and the optimizer's step.

::

    Trainer(model, loss, opt, callbacks=GradClipCallback(1.0, norm_type=2))
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from torch import nn

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
        chosen = trainer.opt if optimize_index is None else [trainer.opt[optimize_index]]
        # Each weight once, even if several optimizers have it.
        by_id = {id(weight): weight for optimizer in chosen for weight in optimizer.params}
        weights: Any = list(by_id.values())
        if self.norm_type is None:
            nn.utils.clip_grad_value_(weights, self.max_value)
        else:
            trainer.runtime.clip_by_norm(weights, self.max_value, self.norm_type)
