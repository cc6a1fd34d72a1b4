"""Finding the best of a series of values, for early stopping and the best checkpoint."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..errors import CheckpointMismatch, ConfigError


class Monitor:
    """Keeps the best of the values it is given, and counts those since.

    Args:
        mode: `'min'` where less is better, as for a loss; `'max'` where more is.
        patience: it is `exhausted` after so many values in a row that were not better; 0: never.
        min_delta: a value is better than the best if it differs by more than this; at least 0.

    Attributes:
        best: the best value; None before the first number (NaN is none).
        best_step: the index of its update, from 0; or None.
        num_bad: updates since then.
        num_steps: all updates.

    Raises:
        ConfigError: an argument is out of its range.
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
        """Count the values that were not better from 0 again, for a new fit."""
        self.num_bad = 0

    def update(self, value: float) -> bool:
        """Take the next value, and return whether it is the new best.

        Args:
            value: a number, or a 0-d array or tensor. NaN is never better.
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
        """Return the state as plain values."""
        return {
            "mode": self.mode,
            "best": self.best,
            "best_step": self.best_step,
            "num_bad": self.num_bad,
            "num_steps": self.num_steps,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load a state; `patience` and `min_delta` are not a part of it.

        Raises:
            CheckpointMismatch: the state is not a monitor's, or one of the other mode. Nothing
                has been changed then.
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
