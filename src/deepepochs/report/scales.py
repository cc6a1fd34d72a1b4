"""Axes: which values to mark, how to write them, where they lie.

>>> from deepepochs.report.scales import Scale
>>> scale = Scale.of([0.13, 0.97], 0, 100)
>>> [label for _, label in scale.ticks()]
['0', '0.2', '0.4', '0.6', '0.8', '1']
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Scale", "short"]

LOG_RATIO = 50.0
"""From this ratio of the largest value to the smallest on, an axis is logarithmic."""


class Scale(NamedTuple):
    """Puts values on an axis.

    Attributes:
        low: the value at `start`.
        high: the value at `end`.
        start: where the axis begins, in the units of the drawing.
        end: where it ends.
        step: from one mark to the next; on a logarithmic axis in powers of ten.
        is_log: whether the axis is logarithmic.
    """

    low: float
    high: float
    start: float
    end: float
    step: float
    is_log: bool = False

    @classmethod
    def of(
        cls, values: Sequence[float], start: float, end: float, num_ticks: int = 5, log: bool = True
    ) -> Scale:
        """Return a scale with round ends that holds all values.

        Args:
            values: finite numbers, at least one.
            start: where the axis begins.
            end: where it ends.
            num_ticks: about how many marks there are to be.
            log: it may be logarithmic, if all values are positive and far apart.
        """
        low, high = min(values), max(values)
        if log and low > 0 and high / low >= LOG_RATIO:
            low, high = math.floor(math.log10(low)), math.ceil(math.log10(high))
            return cls(low, high, start, end, max(1, round((high - low) / num_ticks)), True)
        if high - low <= 1e-12 * max(abs(low), abs(high)):
            pad = abs(high) / 10 or 0.5
            low, high = low - pad, high + pad
        step = _round_step((high - low) / num_ticks)
        return cls(math.floor(low / step) * step, math.ceil(high / step) * step, start, end, step)

    def place(self, value: float) -> float:
        """Where a value lies."""
        if self.is_log:
            value = math.log10(value)
        share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[tuple[float, str]]:
        """The marks: where each lies, and what is written at it."""
        count = round((self.high - self.low) / self.step + 1e-9)
        marks = [self.low + index * self.step for index in range(count + 1)]
        if self.is_log:
            marks = [10.0**mark for mark in marks]
        else:  # 0.1 * 3 is not to be written as 0.30000000000000004
            marks = [round(mark / self.step) * self.step for mark in marks]
        return [(self.place(mark), short(mark, 5).replace("0.0001", "1e-4")) for mark in marks]


def short(value: float, digits: int = 4) -> str:
    """Return a number with so many significant digits and no more than it needs.

    >>> short(0.30000000000000004), short(12345678.0), short(0.00001), short(float("nan"))
    ('0.3', '1.235e7', '1e-5', 'nan')
    """
    text = f"{value:.{digits}g}"
    if "e" in text:
        number, power = text.split("e")
        return f"{number}e{int(power)}"
    return "0" if text == "-0" else text


def _round_step(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if step <= factor * power * 1.0001)
