"""The loss where the model computes its own.

>>> import torch
>>> from deepepochs.losses import default_loss
>>> default_loss({"loss": torch.tensor(0.5), "logits": torch.zeros(2, 3)})
tensor(0.5000)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .errors import StepError

__all__ = ["default_loss"]


def default_loss(preds: Any, targets: Any = None) -> Any:
    """Give the loss that the model has put out: stands in where no loss function is given.

    Args:
        preds: the model's output: the loss itself, or a dict with the entry `'loss'`.
        targets: not looked at.

    Returns:
        The loss.

    Raises:
        StepError: the output is a dict without that entry.

    Example:
        >>> default_loss(0.25)
        0.25
    """
    if not isinstance(preds, Mapping):
        return preds
    if "loss" not in preds:
        raise StepError(
            f"the model's output has the keys {list(preds)} and no 'loss', and no loss function "
            "was given: let the model put out its loss under that key, or pass loss=... to the "
            "Trainer"
        )
    return preds["loss"]
