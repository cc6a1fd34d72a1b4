"""Keeps the import path ``deepepochs.optimizer`` of 0.6; the module is `deepepochs.optim.optimizers`.

>>> from deepepochs.optimizer import Optimizers
>>> Optimizers.__module__
'deepepochs.optim.optimizers'
"""

from __future__ import annotations

from .optim.optimizers import LinearCosineScheduler, Optimizer, Optimizers

__all__ = ["LinearCosineScheduler", "Optimizer", "Optimizers"]
