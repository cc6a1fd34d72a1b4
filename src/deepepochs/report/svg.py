"""Draws curves as SVG, in the colours of the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from ..runs.record import Curve, finite
from .text import short

LOG_RATIO = 50.0
"""An axis is logarithmic if the ratio of the largest value to the smallest is at least this."""

NUM_TICKS = 5
WIDTH, HEIGHT = 440, 250
WIDE, LOW = 912, 190  # a plot that has a row of the page for itself
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 22, 34
MAX_POINTS = 500  # of a longer curve, only the lowest and highest point of each stretch are drawn
MAX_DOTS = 60  # each point has a dot with its value if a curve has at most this many points
MAX_ALL_DOTS = 600  # and all curves of a plot together at most this many

NUM_COLOURS = 6
NUM_STYLES = 2 * NUM_COLOURS  # solid, and then dashed
OTHER = "other"
"""The style of a curve without a colour of its own."""


class Line(NamedTuple):
    """A curve in a plot.

    Attributes:
        label: what it is, shown with each point.
        curve: its points.
        style: its classes in the page's style sheet.
        number: marks the curve as one of a run, which a script finds.
    """

    label: str
    curve: Curve
    style: str
    number: int | None = None


class Mark(NamedTuple):
    """The best epoch in a plot; the point of one line may be marked, too."""

    epoch: int
    label: str = ""
    value: float | None = None


def style_of(index: int) -> str:
    """Return the style of the curve with this index: twelve differ, and further ones are grey.

    >>> style_of(0), style_of(7), style_of(12)
    ('c0', 'c1 dashed', 'other')
    """
    if index >= NUM_STYLES:
        return OTHER
    return f"c{index % NUM_COLOURS}{' dashed' if index >= NUM_COLOURS else ''}"


def curve_plot(
    lines: Sequence[Line], title: str, mark: Mark | None = None, *, is_wide: bool = False
) -> str:
    """Return a plot of curves over the epochs.

    Args:
        lines: the curves; the first is drawn last, over the others.
        title: for screen readers.
        mark: the best epoch.
        is_wide: draw the plot for the whole width of the page, or else for half of it.
    """
    shown = [line._replace(curve=list(filter(finite, line.curve))) for line in lines]
    points = [point for line in shown for point in line.curve]
    if not points:
        return '<p class="quiet">no finite value</p>'
    epochs = [epoch for epoch, _ in points]
    width, height = (WIDE, LOW) if is_wide else (WIDTH, HEIGHT)
    across = _epoch_scale(min(epochs), max(epochs), width)
    up = Scale.of([value for _, value in points], height - BOTTOM, TOP)
    parts = [_axes(across, up, width, height)]
    if mark is not None and min(epochs) <= mark.epoch <= max(epochs):
        parts.append(_mark(mark, across, up, height))
    has_dots = len(points) <= MAX_ALL_DOTS
    parts += [_line(line, across, up, has_dots) for line in reversed(shown)]
    return (
        f'<svg class="plot{" wide" if is_wide else ""}" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(title)}">{"".join(parts)}</svg>'
    )


def is_logarithmic(lines: Sequence[Line]) -> bool:
    """Whether the plot of these curves has a logarithmic axis."""
    values = [value for line in lines for _, value in filter(finite, line.curve)]
    return bool(values) and Scale.of(values, 0, 1).is_log


def _epoch_scale(first: int, last: int, width: int) -> Scale:
    start, end = LEFT + 6, width - RIGHT - 6
    if first == last:
        return Scale(first - 0.5, last + 0.5, start, end, 1)
    span = last - first
    step = next(
        factor * 10**power
        for power in range(12)
        for factor in (1, 2, 5)
        if span / (factor * 10**power) <= width / 55
    )
    return Scale(first, last, start, end, step)


def _axes(across: Scale, up: Scale, width: int, height: int) -> str:
    parts = []
    for y, label in up.ticks():
        parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{width - RIGHT}"/>')
        parts.append(f'<text class="end" x="{LEFT - 6}" y="{y + 4:.1f}">{label}</text>')
    step = int(across.step)
    first, last = math.ceil(across.low), math.floor(across.high)
    epochs = [epoch for epoch in range(first, last + 1) if epoch % step == 0]
    if not epochs or epochs[0] - first >= step * 0.6:
        epochs.insert(0, first)
    y = height - BOTTOM + 16
    for epoch in epochs:
        parts.append(f'<text class="mid" x="{across.place(epoch):.1f}" y="{y}">{epoch}</text>')
    middle = (LEFT + width - RIGHT) / 2
    parts.append(f'<text class="mid" x="{middle}" y="{height - 3}">epoch</text>')
    return "".join(parts)


def _mark(mark: Mark, across: Scale, up: Scale, height: int) -> str:
    x = across.place(mark.epoch)
    parts = [f'<path class="best" d="M{x:.1f} {TOP - 4}V{height - BOTTOM}"/>']
    if mark.label:
        share = (x - across.start) / (across.end - across.start)
        side = "start" if share < 0.2 else "end" if share > 0.8 else "mid"
        parts.append(f'<text class="{side} good" x="{x:.1f}" y="{TOP - 9}">{mark.label}</text>')
    if mark.value is not None:
        parts.append(f'<circle class="best" cx="{x:.1f}" cy="{up.place(mark.value):.1f}" r="5.5"/>')
    return "".join(parts)


def _line(line: Line, across: Scale, up: Scale, has_dots: bool) -> str:
    places = [(across.place(e), up.place(v)) for e, v in line.curve]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in _thin(places))
    parts = [f'<polyline class="line {line.style}" points="{path}"/>']
    if len(line.curve) == 1 or (has_dots and len(line.curve) <= MAX_DOTS):
        radius = 3.5 if line.number is not None else 2.5 if len(line.curve) <= 40 else 1.5
        colour = line.style.partition(" ")[0]
        for (epoch, value), (x, y) in zip(line.curve, places, strict=True):
            tip = f"{line.label}, epoch {epoch}: {short(value, 5)}"
            parts.append(
                f'<circle class="dot {colour}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}">'
                f"<title>{escape(tip)}</title></circle>"
            )
    run = "" if line.number is None else f' data-run="{line.number}"'
    return f"<g{run}>{''.join(parts)}</g>"


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
        labels = [short(mark, 5) for mark in marks]
        # Beside 1e-5 and 5e-5.
        labels = ["1e-4" if label == "0.0001" else label for label in labels]
        return [(self.place(mark), label) for mark, label in zip(marks, labels, strict=True)]


def _round_step(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if step <= factor * power * 1.0001)
