"""Schedules of the learning rate that torch does not have.

They are ordinary torch schedulers, for use alone or in an `Optimizer`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler

from ..errors import ConfigError


class LinearCosineScheduler(LRScheduler):
    """Linear up to `max_val`, cosine down to `min_val`, then constant.

    With W warm-up steps and T total steps, the rate after t steps of the scheduler
    (0 at the start) is, for every parameter group::

        t < W        max_val * (t + 1) / W
        W <= t < T   min_val + (max_val - min_val) * (1 + cos(pi * (t - W) / (T - W))) / 2
        T <= t       min_val

    The cosine is that of SGDR (Loshchilov and Hutter, 2017) without restarts.

    Args:
        optimizer: the torch optimizer whose rates are set.
        max_val: the highest rate.
        warmup_steps: W, the steps of the linear part; 0: none.
        total_steps: T, the steps of both parts.
        min_val: the lowest rate; `None`: 0.
        last_epoch: t - 1 at the start; -1 except for a schedule that is resumed.

    Raises:
        ConfigError: the numbers do not make such a curve.

    Example:
        >>> sgd = torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=0.1)
        >>> schedule = LinearCosineScheduler(sgd, max_val=1.0, warmup_steps=2, total_steps=4)
        >>> [round(schedule.lr_at(t), 4) for t in range(6)]
        [0.5, 1.0, 1.0, 0.5, 0.0, 0.0]
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        max_val: float,
        warmup_steps: int,
        total_steps: int,
        min_val: float | None = None,
        last_epoch: int = -1,
    ) -> None:
        low = 0.0 if min_val is None else min_val
        if not 0 <= low <= max_val < math.inf:
            raise ConfigError(
                f"LinearCosineScheduler: max_val={max_val} and min_val={min_val} are no rates: "
                "0 <= min_val <= max_val must hold."
            )
        if not 0 <= warmup_steps < total_steps:
            raise ConfigError(
                f"LinearCosineScheduler: warmup_steps={warmup_steps} of total_steps="
                f"{total_steps}: 0 <= warmup_steps < total_steps must hold."
            )
        self.max_val = max_val
        self.min_val = low
        self.warmup_steps = warmup_steps
        self.total_steps = total_steps
        super().__init__(optimizer, last_epoch)

    def lr_at(self, step_idx: int) -> float:
        """Return the rate after `step_idx` steps of the scheduler."""
        if step_idx < self.warmup_steps:
            return self.max_val * (step_idx + 1) / self.warmup_steps
        if step_idx >= self.total_steps:
            return self.min_val
        done = (step_idx - self.warmup_steps) / (self.total_steps - self.warmup_steps)
        return self.min_val + (self.max_val - self.min_val) * (1 + math.cos(math.pi * done)) / 2

    def get_lr(self) -> list[float | Tensor]:
        """Return the rate of each parameter group now."""
        return [self.lr_at(self.last_epoch)] * len(self.optimizer.param_groups)
