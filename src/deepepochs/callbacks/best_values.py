"""The value that a run is judged by, and the best ones so far.

>>> from deepepochs.callbacks.best_values import insert_best
>>> best = [0.5, 0.9]
>>> insert_best(best, 0.7, "min", keep=2)
2
>>> best
[0.5, 0.7]
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import CallbackException

__all__ = ["insert_best", "monitored_value"]


def monitored_value(values: Mapping[str, Any], monitor: str, stage: str) -> float:
    """Return the metric that ``CheckCallback`` looks at.

    Args:
        values: the metrics of the stage.
        monitor: the name of the metric.
        stage: ``'train'`` or ``'val'``, for the errors.

    Raises:
        CallbackException: it is not there, or no single number.
    """
    if monitor not in values:
        raise CallbackException(
            f"CheckCallback monitors {monitor!r}, which {stage} does not have; it has "
            f"{', '.join(values) or 'nothing'}."
        )
    value = np.asarray(values[monitor])
    if value.size != 1:
        raise CallbackException(
            f"CheckCallback monitors {monitor!r}, which has {value.size} entries: monitor a single "
            "number."
        )
    return float(value.item())


def insert_best(best: list[float], value: float, mode: str, keep: int) -> int | None:
    """Put a value in its place among the best ones, which stay at most ``keep``.

    Args:
        best: the best values, the best of them first; of equal ones the earlier is better.
        value: the new one.
        mode: ``'min'`` or ``'max'``.
        keep: how many are kept.

    Returns:
        Its place, from 1; ``None``: it is none of the best, or NaN.
    """
    if value != value:
        return None
    num_better = sum(not (value < other if mode == "min" else value > other) for other in best)
    if num_better >= keep:
        return None
    best.insert(num_better, value)
    del best[keep:]
    return num_better + 1
