"""Keeps the import path ``deepepochs.tools`` of 0.6.

Everything here is defined elsewhere in the package: see each name's own module.

>>> from deepepochs.tools import TopKQueue
>>> len(TopKQueue(3))
0
"""

from __future__ import annotations

from .nested import batches
from .optimizers import LinearCosineScheduler
from .plotting import SeriesPlots, plot_confusion
from .reductions import Moveing, TopKQueue, groupby_apply
from .yaml_config import load_yaml

__all__ = [
    "LinearCosineScheduler",
    "Moveing",
    "SeriesPlots",
    "TopKQueue",
    "batches",
    "groupby_apply",
    "load_yaml",
    "plot_confusion",
]
