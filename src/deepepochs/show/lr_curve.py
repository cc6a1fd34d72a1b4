"""The result of a search for a learning rate: rates, losses and suggestions.

>>> from deepepochs.show.lr_curve import LRCurve
>>> lrs = [10 ** (i / 10 - 4) for i in range(40)]
>>> losses = [2.3] * 10 + [2.3 - 0.1 * i for i in range(20)] + [0.5 + 0.3 * i for i in range(10)]
>>> LRCurve(lrs, losses)
LRCurve of 40 mini-batches, rates 0.0001 to 0.79: valley 0.0079, steepest 0.02
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import DataError
from .figures import BLUE, GREEN

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SKIPPED_END = 5  # this many last points are not used, since the loss blows up there
EDGE = 0.05  # this share of a fall is left out at its beginning and at its end
CLEAR = 6.0  # a fall of fewer standard errors of the mean is as likely to be noise


class Suggestion(NamedTuple):
    """Learning rates that a curve suggests.

    Attributes:
        steepest: the rate where the loss falls fastest over the logarithm of the rate.
        valley: the rate at which half of the fall is done.
    """

    steepest: float
    valley: float

    def __ge__(self, other: object) -> bool:
        """Refuse a comparison with a number: an optimizer checks its ``lr`` with one."""
        return self._compared(other, tuple.__ge__)

    def __lt__(self, other: object) -> bool:
        return self._compared(other, tuple.__lt__)

    def _compared(self, other: object, compare: Callable[[Any, Any], bool]) -> bool:
        if isinstance(other, (int, float)):
            raise TypeError(
                f"A suggestion has two learning rates: give .valley ({self.valley:.2g}), or "
                f".steepest ({self.steepest:.2g}), as in lr=curve.suggestion.valley."
            )
        return compare(self, other)


class LRCurve:
    """Learning rates, and the losses of the mini-batches that were trained with them.

    A notebook shows its plot as the value of a cell.

    Args:
        lrs: rising rates; also an attribute.
        losses: the loss of each mini-batch before its step; also an attribute.
    """

    def __init__(self, lrs: Sequence[float], losses: Sequence[float]) -> None:
        self.lrs = list(lrs)
        self.losses = list(losses)

    @property
    def smoothed(self) -> list[float]:
        """The mean of the losses around each rate; the nearer ones count more.

        It takes as many from both sides, so that it does not lag behind. Losses above twice the
        height of the curve count as that much: they would hide where the rise begins.
        """
        losses, radius = self._capped(), _radius(len(self.losses))
        means = []
        for i in range(len(losses)):
            reach = min(radius, i, len(losses) - 1 - i)
            weights, near = _weights(reach), losses[i - reach : i + reach + 1]
            weighted = sum(w * loss for w, loss in zip(weights, near, strict=True))
            means.append(weighted / sum(weights))
        return means

    @property
    def suggestion(self) -> Suggestion:
        """The suggested rates, from the descent of the smoothed losses to the lowest of them.

        The descent goes from where a twentieth of the fall is done to where a twentieth is
        left; the first tenth of the points and the last five are not used. `valley` is where half of
        it is done. `steepest` is where the line of best fit through the losses around a rate falls
        fastest.

        Raises:
            DataError: there are fewer than three points, or the loss does not fall, or no more
                than by chance.
        """
        descent = self._descent()
        lrs, losses = self.lrs, self.smoothed
        radius = _radius(len(lrs)) + 1
        slopes = {}
        for i in range(descent.start, descent.end):
            near = slice(max(0, i - radius), i + radius + 1)
            x = [math.log(lr) for lr in lrs[near]]
            slopes[i] = statistics.linear_regression(x, losses[near]).slope
        steepest = min(slopes, key=lambda i: slopes[i])
        return Suggestion(lrs[steepest], lrs[descent.middle])

    def plot(self, figure: Figure | None = None) -> Figure:
        """Draw the losses over the rates, with the suggestions; needs no display.

        Args:
            figure: an empty figure to draw into; `None`: a new one.
        """
        from .picture import new_picture

        return self._draw(new_picture(7, 4.2, in_cell=True) if figure is None else figure)

    def _draw(self, figure: Figure) -> Figure:
        axes: Any = figure.add_subplot()
        smoothed = self.smoothed
        axes.plot(self.lrs, self.losses, color=BLUE, alpha=0.35, label="loss")
        axes.plot(self.lrs, smoothed, color=BLUE, label="smoothed")
        try:
            self._mark(axes, smoothed)
        except DataError as error:
            axes.set_title(
                f"Learning rates: {error.args[0].partition(':')[0].rstrip('.')}", fontsize=10
            )
        if shown := [loss for loss in self._capped() if math.isfinite(loss)]:
            # The last losses may be a thousand times the others, which would look flat.
            low, high = min(shown), max(shown)
            room = 0.05 * (high - low) or 1.0
            axes.set_ylim(low - room, high + room)
        axes.set(xscale="log", xlabel="learning rate", ylabel="loss")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(framealpha=0.7)
        return figure

    def _mark(self, axes: Any, smoothed: Sequence[float]) -> None:
        """Draw the suggestions, and the rates at which the loss falls."""
        suggestion, descent = self.suggestion, self._descent()
        ends = (self.lrs[descent.start], self.lrs[descent.end])
        axes.axvspan(*ends, color=GREEN, alpha=0.1, linewidth=0, label="the loss falls")
        for (name, rate), color in zip(
            suggestion._asdict().items(), ("#b3261e", GREEN), strict=True
        ):
            height = smoothed[self.lrs.index(rate)]
            axes.plot([rate], [height], "o", color=color, label=f"{name}: {rate:.2g}")
        axes.set_title(f"Learning rates: try {suggestion.valley:.2g}", fontsize=11)

    def __repr__(self) -> str:
        text = f"LRCurve of {len(self.lrs)} mini-batches"
        if self.lrs:
            text += f", rates {self.lrs[0]:.2g} to {self.lrs[-1]:.2g}"
        try:
            steepest, valley = self.suggestion
        except DataError as error:
            return f"{text}: no suggestion. {error}"
        return f"{text}: valley {valley:.2g}, steepest {steepest:.2g}"

    def _repr_png_(self) -> Any:
        from .picture import new_picture

        figure = new_picture(7, 4.2)
        self._draw(figure)
        return figure._repr_png_()

    def _capped(self) -> list[float]:
        """Return the losses up to twice the height of the curve, or to what most of them are."""
        finite = sorted(loss for loss in self.losses if math.isfinite(loss))
        first = [loss for loss in self.losses[: len(self.losses) // 10 + 1] if math.isfinite(loss)]
        if not first:
            return self.losses
        limit = max(2 * max(first) - finite[0], finite[3 * len(finite) // 4])
        return [min(loss, limit) if loss == loss else limit for loss in self.losses]

    def _descent(self) -> _Descent:
        """Return where the loss falls; raise a `DataError` if it does not."""
        num, losses = len(self.lrs), self.smoothed
        first, end = (num // 10, num - SKIPPED_END) if num > 3 * SKIPPED_END else (0, num)
        if end - first < 3:
            raise DataError(
                f"A curve of {num} mini-batches suggests no learning rate: give a larger "
                "max_batch or a lower min_lr."
            )
        lowest = min(range(first, end), key=lambda i: losses[i])
        top = max(losses[first : lowest + 1])
        fall = top - losses[lowest]
        if not fall > CLEAR * self._standard_error(losses, lowest):
            raise DataError(
                "The loss does not clearly fall at any learning rate that was tried: give a "
                "lower min_lr or larger mini-batches, and look at .plot(). The model may be "
                "trained already."
            )
        begun = max(i for i in range(first, lowest) if losses[i] >= top - EDGE * fall)
        half, done = (
            next(i for i in range(begun, end) if losses[i] <= losses[lowest] + share * fall)
            for share in (0.5, EDGE)
        )
        return _Descent(begun, half, done)

    def _standard_error(self, losses: Sequence[float], end: int) -> float:
        """Return that of a smoothed loss, from how the losses up to `end` lie around them."""
        weights = _weights(_radius(len(losses)))
        shares = [weight / sum(weights) for weight in weights]
        of_mean = sum(share * share for share in shares)
        # A loss is part of its own mean, and so nearer to it than to the curve without noise.
        of_distance = 1 - 2 * max(shares) + of_mean
        near = zip(self._capped()[: end + 1], losses, strict=False)
        distances = [loss - mean for loss, mean in near]
        inner = distances[len(shares) // 2 :] or distances  # at the start there is less smoothing
        noise = statistics.fmean(distance**2 for distance in inner)
        return math.sqrt(noise * of_mean / of_distance)


class _Descent(NamedTuple):
    """Indexes of the points between which the smoothed loss falls."""

    start: int
    middle: int
    end: int


def _radius(num: int) -> int:
    """Return how many points on each side are averaged."""
    return max(1, num // 15)


def _weights(radius: int) -> list[int]:
    """Return the weights of a mean, highest in the middle."""
    return [radius + 1 - abs(place) for place in range(-radius, radius + 1)]
