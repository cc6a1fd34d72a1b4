"""Draws curves as SVG, in the colours of the page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

from ..runs.record import Curve, finite
from .html import short

LOG_RATIO = 50.0
"""An axis is logarithmic if the ratio of the largest value to the smallest is at least this."""

NUM_TICKS = 5
WIDTH, HEIGHT = 440, 250
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 12, 34
MAX_POINTS = 500  # of a longer curve, only the lowest and highest point of each stretch are drawn
MAX_DOTS = 60  # each point has a dot with its value if a curve has at most this many points


def curve_plot(curves: Mapping[str, Curve], title: str) -> str:
    """Return a plot of curves over the epochs; ``title`` is for screen readers."""
    shown = {label: list(filter(finite, curve)) for label, curve in curves.items()}
    points = [point for curve in shown.values() for point in curve]
    if not points:
        return '<p class="quiet">no finite value</p>'
    epochs = [epoch for epoch, _ in points]
    across = _epoch_scale(min(epochs), max(epochs))
    up = Scale.of([value for _, value in points], HEIGHT - BOTTOM, TOP)
    parts = [_axes(across, up)]
    for index, (label, curve) in enumerate(shown.items()):
        kind = label if label in ("train", "val") else f"c{2 + index % 4}"
        parts.append(_curve(curve, label, kind, across, up))
    return (
        f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(title)}">{"".join(parts)}</svg>'
    )


def sparkline(values: Sequence[float], label: str = "") -> str:
    """Return a curve of the size of a word, or '' without finite values."""
    points = [(index, value) for index, value in enumerate(values) if math.isfinite(value)]
    if not points:
        return ""
    width, height = 120, 28
    up = Scale.of([value for _, value in points], height - 4, 4)
    across = Scale(0, max(len(values) - 1, 1), 4, width - 4, 1)
    path = " ".join(f"{across.place(i):.1f},{up.place(v):.1f}" for i, v in _thin(points))
    last_x, last_y = across.place(points[-1][0]), up.place(points[-1][1])
    return (
        f'<svg class="spark" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(label)}"><polyline class="line val" points="{path}"/>'
        f'<circle class="dot val" cx="{last_x:.1f}" cy="{last_y:.1f}" r="2.5"/></svg>'
    )


def _epoch_scale(first: int, last: int) -> Scale:
    start, end = LEFT + 6, WIDTH - RIGHT - 6
    if first == last:
        return Scale(first - 0.5, last + 0.5, start, end, 1)
    span = last - first
    step = next(
        factor * 10**power
        for power in range(12)
        for factor in (1, 2, 5)
        if span / (factor * 10**power) <= 8
    )
    return Scale(first, last, start, end, step)


def _axes(across: Scale, up: Scale) -> str:
    parts = []
    for height, label in up.ticks():
        parts.append(f'<path class="grid" d="M{LEFT} {height:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text class="end" x="{LEFT - 6}" y="{height + 4:.1f}">{label}</text>')
    step = int(across.step)
    first, last = math.ceil(across.low), math.floor(across.high)
    epochs = [e for e in range(first, last + 1) if e % step == 0 or e == first]
    if len(epochs) > 1 and epochs[1] - epochs[0] < step * 0.6:
        del epochs[1]
    y = HEIGHT - BOTTOM + 16
    for epoch in epochs:
        parts.append(f'<text class="mid" x="{across.place(epoch):.1f}" y="{y}">{epoch}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text class="mid" x="{middle}" y="{HEIGHT - 3}">epoch</text>')
    return "".join(parts)


def _curve(curve: Curve, label: str, kind: str, across: Scale, up: Scale) -> str:
    places = [(across.place(e), up.place(v)) for e, v in curve]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in _thin(places))
    parts = [f'<polyline class="line {kind}" points="{path}"/>']
    if len(curve) <= MAX_DOTS:
        radius = 2.5 if len(curve) <= 40 else 1.5
        for (epoch, value), (x, y) in zip(curve, places, strict=True):
            tip = f"{label}, epoch {epoch}: {short(value, 5)}"
            parts.append(
                f'<circle class="dot {kind}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}">'
                f"<title>{escape(tip)}</title></circle>"
            )
    return "".join(parts)


def _thin(points: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    """Keep the lowest and the highest point of each stretch of a long curve, in order."""
    if len(points) <= MAX_POINTS:
        return points
    stretch = -(-2 * len(points) // MAX_POINTS)
    kept = []
    for start in range(0, len(points), stretch):
        part = points[start : start + stretch]
        ends = {min(part, key=lambda point: point[1]), max(part, key=lambda point: point[1])}
        kept.extend(sorted(ends))
    return kept


class Scale(NamedTuple):
    """An axis: `low` is at `start` in the drawing, `high` at `end`, with a mark at each `step`.

    On a logarithmic axis `low`, `high` and `step` are powers of ten.

    >>> [label for _, label in Scale.of([0.13, 0.97], 0, 100).ticks()]
    ['0', '0.2', '0.4', '0.6', '0.8', '1']
    """

    low: float
    high: float
    start: float
    end: float
    step: float
    is_log: bool = False

    @classmethod
    def of(cls, values: Sequence[float], start: float, end: float) -> Scale:
        """Return an axis with round ends for finite values."""
        low, high = min(values), max(values)
        if low > 0 and high / low >= LOG_RATIO:
            low, high = math.floor(math.log10(low)), math.ceil(math.log10(high))
            return cls(low, high, start, end, max(1, round((high - low) / NUM_TICKS)), True)
        if high - low <= 1e-12 * max(abs(low), abs(high)):
            pad = abs(high) / 10 or 0.5
            low, high = low - pad, high + pad
        step = _round_step((high - low) / NUM_TICKS)
        return cls(math.floor(low / step) * step, math.ceil(high / step) * step, start, end, step)

    def place(self, value: float) -> float:
        """Return where a value is in the drawing."""
        if self.is_log:
            value = math.log10(value)
        share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[tuple[float, str]]:
        """Return the place and the label of each mark."""
        count = round((self.high - self.low) / self.step + 1e-9)
        marks = [self.low + index * self.step for index in range(count + 1)]
        if self.is_log:
            marks = [10.0**mark for mark in marks]
        else:  # so that 0.1 * 3 is not 0.30000000000000004
            marks = [round(mark / self.step) * self.step for mark in marks]
        return [(self.place(mark), short(mark, 5).replace("0.0001", "1e-4")) for mark in marks]


def _round_step(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if step <= factor * power * 1.0001)
