"""Is this value better than all before it, and for how long has none been?

`Monitor` is what early stopping, "keep the best checkpoint" and rate reduction have in
common. It is fed one value per check, and is plain state that a checkpoint can hold.

>>> from deepepochs.optim.monitor import Monitor
>>> monitor = Monitor(mode="min", patience=2)
>>> [monitor.update(loss) for loss in (0.9, 0.5, 0.5, 0.7)]
[True, True, False, False]
>>> monitor.best, monitor.best_step, monitor.exhausted
(0.5, 1, True)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..errors import CheckpointMismatch, ConfigError

__all__ = ["Monitor"]


class Monitor:
    """Keeps the best of the values it is given, and counts those since.

    Args:
        mode: `'min'` where less is better, as for a loss; `'max'` where more is.
        patience: after how many values in a row that were not better it is `exhausted`;
            0: never.
        min_delta: by more than how much a value must beat the best; at least 0.

    Attributes:
        best: the best value; None before the first that is a number.
        best_step: which update gave it, from 0; None likewise.
        num_bad: updates since then.
        num_steps: all updates.

    Raises:
        ConfigError: an argument is out of its range.

    Example:
        >>> monitor = Monitor("max", min_delta=0.1)
        >>> monitor.update(0.50), monitor.update(0.55), monitor.update(0.65)
        (True, False, True)
    """

    def __init__(self, mode: str = "min", patience: int = 0, min_delta: float = 0.0) -> None:
        if mode not in ("min", "max"):
            raise ConfigError(f"Monitor got mode={mode!r}: give 'min' or 'max'")
        if patience < 0:
            raise ConfigError(f"Monitor got patience={patience}: give 0 (never) or more")
        if not min_delta >= 0:
            raise ConfigError(f"Monitor got min_delta={min_delta}: give a number of at least 0")
        self.mode = mode
        self.patience = patience
        self.min_delta = min_delta
        self.best: float | None = None
        self.best_step: int | None = None
        self.num_bad = 0
        self.num_steps = 0

    @property
    def exhausted(self) -> bool:
        """Whether `patience` updates in a row were not better."""
        return self.patience > 0 and self.num_bad >= self.patience

    def renew(self) -> None:
        """Have the full patience again, as a further fit has."""
        self.num_bad = 0

    def update(self, value: float) -> bool:
        """Take the next value and say whether it is strictly better than the best.

        Args:
            value: a number, or a 0-d array or tensor. NaN is never better.

        Returns:
            Whether it is the new best. The first value that is a number is.
        """
        value = float(value)
        is_better = self._beats_best(value)
        if is_better:
            self.best, self.best_step, self.num_bad = value, self.num_steps, 0
        else:
            self.num_bad += 1
        self.num_steps += 1
        return is_better

    def _beats_best(self, value: float) -> bool:
        if self.best is None:
            return not math.isnan(value)
        if self.mode == "min":
            return value < self.best - self.min_delta
        return value > self.best + self.min_delta

    def state_dict(self) -> dict[str, Any]:
        """Give what `load_state_dict` takes: plain values only.

        >>> Monitor().state_dict()
        {'mode': 'min', 'best': None, 'best_step': None, 'num_bad': 0, 'num_steps': 0}
        """
        return {
            "mode": self.mode,
            "best": self.best,
            "best_step": self.best_step,
            "num_bad": self.num_bad,
            "num_steps": self.num_steps,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state; `patience` and `min_delta` stay this monitor's own.

        Raises:
            CheckpointMismatch: the state is of something else, or of the other mode, in
                which its best value means nothing. Nothing has been changed then.

        Example:
            >>> monitor = Monitor()
            >>> monitor.load_state_dict({**monitor.state_dict(), "best": 0.5, "best_step": 0})
            >>> monitor.best
            0.5
        """
        expected = sorted(self.state_dict())
        if not isinstance(state, Mapping) or sorted(state) != expected:
            found = sorted(state) if isinstance(state, Mapping) else type(state).__name__
            raise CheckpointMismatch(f"a Monitor's state holds {found}, and not {expected}")
        if state["mode"] != self.mode:
            raise CheckpointMismatch(
                f"the best value was saved with mode={state['mode']!r}, and this Monitor has "
                f"mode={self.mode!r}: give it the mode of the saved run, or start anew"
            )
        for name in ("num_bad", "num_steps"):
            if not isinstance(state[name], int) or state[name] < 0:
                raise CheckpointMismatch(f"a Monitor's state has {name}={state[name]!r}")
        for name, kinds in (("best", (int, float)), ("best_step", int)):
            if state[name] is not None and not isinstance(state[name], kinds):
                raise CheckpointMismatch(f"a Monitor's state has {name}={state[name]!r}")
        self.best, self.best_step = state["best"], state["best_step"]
        self.num_bad, self.num_steps = state["num_bad"], state["num_steps"]
