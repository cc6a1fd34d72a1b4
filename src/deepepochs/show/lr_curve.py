"""The result of a search for a learning rate: rates, losses and suggestions.

>>> from deepepochs.show.lr_curve import LRCurve
>>> lrs = [10 ** (i / 10 - 4) for i in range(40)]
>>> losses = [2.3] * 10 + [2.3 - 0.1 * i for i in range(20)] + [0.5 + 0.3 * i for i in range(10)]
>>> curve = LRCurve(lrs, losses)
>>> 1e-3 < curve.suggestion.valley < 1e-1
True
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from ..errors import DataError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SMOOTHING = 0.98  # weight of the earlier losses in the running mean, as in fastai's ``Recorder``
SKIPPED_END = 5  # this many last points are not used, since the loss blows up there


class Suggestion(NamedTuple):
    """Learning rates that a curve suggests.

    Attributes:
        steepest: the rate where the loss falls fastest over the logarithm of the rate.
        valley: the middle of the longest descent; the safer of the two.
    """

    steepest: float
    valley: float


class LRCurve:
    """Learning rates, and the losses of the mini-batches that were trained with them.

    Args:
        lrs: rising rates; also an attribute.
        losses: the loss of each mini-batch before its step; also an attribute.
    """

    def __init__(self, lrs: Sequence[float], losses: Sequence[float]) -> None:
        self.lrs = list(lrs)
        self.losses = list(losses)

    @property
    def smoothed(self) -> list[float]:
        """The running means of the losses.

        ``m_i = 0.98 m_(i-1) + 0.02 loss_i``, divided by ``1 - 0.98^i`` to correct the bias of
        the start at 0.
        """
        means, mean = [], 0.0
        for count, loss in enumerate(self.losses, start=1):
            mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
            means.append(mean / (1 - SMOOTHING**count))
        return means

    @property
    def suggestion(self) -> Suggestion:
        """The suggested rates, from the smoothed losses, as defined by fastai.

        The first tenth of the points and the last five are not used. ``steepest`` is the
        rate with the smallest ``Δloss / Δlog(lr)`` (fastai's ``steep``). ``valley`` is the middle
        of the longest decreasing subsequence of the losses: of the points from its end back by
        its length (fastai's ``valley``).
        Source: https://docs.fast.ai/callback.schedule.html, ``LRFinder``.

        Raises:
            DataError: there are fewer than three points, or the loss never falls.
        """
        lrs, losses = self._judged()
        if len(lrs) < 3:
            raise DataError(
                f"A curve of {len(self.lrs)} mini-batches suggests no learning rate: give a larger "
                "max_batch or a lower min_lr."
            )
        slopes = [
            (losses[i + 1] - losses[i]) / math.log(lrs[i + 1] / lrs[i]) for i in range(len(lrs) - 1)
        ]
        start, end = longest_descent(losses)
        if min(slopes) >= 0 or start == end:
            raise DataError(
                "The loss never falls in the range of learning rates that was tried: give a lower "
                "min_lr, and look at .plot()."
            )
        middle = start + (end - start) // 2
        return Suggestion(lrs[slopes.index(min(slopes))], lrs[middle])

    def plot(self, figure: Figure | None = None) -> Figure:
        """Draw the losses over the rates, with the suggestions; needs no display.

        Args:
            figure: an empty figure to draw into; ``None``: a new one.
        """
        if figure is None:
            from matplotlib.figure import Figure

            figure = Figure(figsize=(7, 4.5), layout="constrained")
        axes = figure.add_subplot()
        axes.plot(self.lrs, self.losses, color="tab:blue", alpha=0.35, label="loss")
        axes.plot(self.lrs, self.smoothed, color="tab:blue", label="smoothed")
        try:
            colors = ("tab:red", "tab:green")
            for (name, rate), color in zip(self.suggestion._asdict().items(), colors, strict=True):
                height = self.smoothed[self.lrs.index(rate)]
                axes.plot([rate], [height], "o", color=color, label=f"{name}: {rate:.2e}")
        except DataError:
            axes.set_title("no suggestion")
        finite = [loss for loss in self.smoothed if math.isfinite(loss)]
        if finite:
            # The last losses may be a thousand times the others, which would look flat.
            low = min(*finite, *filter(math.isfinite, self.losses))
            high = max(finite[: max(1, len(finite) * 9 // 10)])
            room = 0.15 * (high - low) or 1.0
            axes.set_ylim(low - room, high + room)
        axes.set(xscale="log", xlabel="learning rate", ylabel="loss")
        axes.grid(alpha=0.3)
        axes.legend()
        return figure

    def __repr__(self) -> str:
        return f"LRCurve of {len(self.lrs)} mini-batches"

    def _judged(self) -> tuple[list[float], list[float]]:
        """Return the rates and losses that the suggestions use."""
        num = len(self.lrs)
        points = list(zip(self.lrs, self.smoothed, strict=True))
        if num > 3 * SKIPPED_END:
            points = points[num // 10 : num - SKIPPED_END]
        points = [(lr, loss) for lr, loss in points if math.isfinite(loss)]
        return [lr for lr, _ in points], [loss for _, loss in points]


def longest_descent(losses: Sequence[float]) -> tuple[int, int]:
    """Return two indexes: one length before the end of the longest decreasing subsequence, its end.

    >>> longest_descent([5.0, 6.0, 4.0, 3.0, 7.0])
    (1, 3)
    """
    lengths = [1] * len(losses)
    for i, loss in enumerate(losses):
        lengths[i] = 1 + max((lengths[j] for j in range(i) if loss < losses[j]), default=0)
    end = lengths.index(max(lengths))
    return max(0, end + 1 - lengths[end]), end
