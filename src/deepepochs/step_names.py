"""The names of step methods: which serve a stage, and which only look like one.

>>> from deepepochs.stages import Stage
>>> STEP_NAMES[Stage.VAL]
('step', 'val_step', 'evaluate_step')
"""

from __future__ import annotations

import difflib
import warnings

from .stages import Stage

__all__ = ["STEP_NAMES", "warn_of_misspelt"]

STEP_NAMES: dict[Stage, tuple[str, ...]] = {
    Stage.TRAIN: ("step", "train_step"),
    Stage.VAL: ("step", "val_step", "evaluate_step"),
    Stage.TEST: ("step", "test_step", "evaluate_step"),
}
"""The step methods that can serve a stage, the first defined one wins."""

_MEANT = {
    "training_step": ["train_step"],
    "validation_step": ["val_step"],
    "valid_step": ["val_step"],
    "eval_step": ["evaluate_step"],
    "evaluation_step": ["evaluate_step"],
    "testing_step": ["test_step"],
}


def warn_of_misspelt(cls: type, base: type) -> None:
    """Warn of methods of a class that are no steps and are named much like one."""
    known = sorted({name for names in STEP_NAMES.values() for name in names})
    for name, value in vars(cls).items():
        if name.startswith("_") or hasattr(base, name) or not callable(value):
            continue
        meant = _MEANT.get(name) or difflib.get_close_matches(name, known, n=1, cutoff=0.8)
        if meant:
            warnings.warn(
                f"{cls.__name__}.{name} is never called as a step. Did you mean {meant[0]!r}? "
                f"The step methods are {', '.join(known)}.",
                UserWarning,
                stacklevel=3,
            )
