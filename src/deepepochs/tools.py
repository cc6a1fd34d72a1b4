"""Keeps the import path ``deepepochs.tools`` of 0.6.

>>> from deepepochs.tools import TopKQueue
>>> len(TopKQueue(3))
0
"""

from __future__ import annotations

from .legacy.reductions import Moveing, TopKQueue, groupby_apply
from .legacy.yaml import load_yaml
from .nest.operations import batches
from .optim.optimizers import LinearCosineScheduler
from .show.plots import SeriesPlots, plot_confusion

__all__ = [
    "LinearCosineScheduler", "Moveing", "SeriesPlots", "TopKQueue", "batches", "groupby_apply",
    "load_yaml", "plot_confusion",
]  # fmt: skip
