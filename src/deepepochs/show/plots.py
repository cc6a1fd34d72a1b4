r"""Figures: curves that grow while a program runs, and confusion matrices.

matplotlib is loaded when the first figure is drawn, not before.

>>> from deepepochs.show.plots import plot_confusion
>>> figure = plot_confusion([[8, 2], [1, 9]], 2, class_names=["cat", "dog"])
>>> [text.get_text() for text in figure.axes[0].texts][:2]
['8\n80.00%', '2\n20.00%']
>>> import matplotlib.pyplot as plt
>>> plt.close(figure)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import ConfigError, DataError

__all__ = ["SeriesPlots", "draw_confusion", "plot_confusion"]

MAX_WRITTEN = 30
"""Classes whose counts are written into the cells; of more only the colours could be seen."""


class SeriesPlots:
    """Line plots that grow with each call of `add`.

    Args:
        plots: a name for each plot, or a list of names for several lines in one plot.
        columns: plots side by side, at least 1.
        figsize: width and height of the whole in inches; None: 5 by 3 for each plot.
        colums: `columns` as 0.6 spelt it.

    Attributes:
        figure: the matplotlib figure.

    Raises:
        ConfigError: there is no plot, or `columns` is below 1.

    Example:
        >>> plots = SeriesPlots(["loss", ["precision", "recall"]], columns=2)
        >>> plots.add(0.9, [0.5, 0.6])
        >>> plots.add(0.7, [0.6, 0.7])
        >>> plots.ioff()
        >>> import matplotlib.pyplot as plt
        >>> plt.close(plots.figure)
    """

    def __init__(
        self,
        plots: Sequence[str | Sequence[str]],
        columns: int = 1,
        figsize: tuple[float, float] | None = None,
        *,
        colums: int | None = None,
    ) -> None:
        import matplotlib.pyplot as plt

        columns = columns if colums is None else colums
        if not plots or isinstance(plots, str):
            raise ConfigError(f"SeriesPlots got plots={plots!r}: give a list with a name per plot")
        if columns < 1:
            raise ConfigError(f"SeriesPlots got columns={columns}: give a number of at least 1")
        self._names = [[names] if isinstance(names, str) else list(names) for names in plots]
        self._is_single = [isinstance(names, str) for names in plots]
        rows = -(-len(plots) // columns)
        plt.ion()  # a window, if there is one, opens now and does not block
        self.figure, grid = plt.subplots(
            rows, columns, figsize=figsize or (5 * columns, 3 * rows), squeeze=False
        )
        self._axes = list(grid.flat)[: len(plots)]
        for unused in list(grid.flat)[len(plots) :]:
            unused.set_visible(False)
        self._lines = [
            [axes.plot([], [], label=name)[0] for name in names]
            for axes, names in zip(self._axes, self._names, strict=True)
        ]
        for axes in self._axes:
            axes.legend()

    def add(self, *values: Any) -> None:
        """Append a point to every line and draw.

        Args:
            values: of the shape of `plots`: a number for each plot of one line, a list of
                numbers for one of several.

        Raises:
            ConfigError: there are more or fewer values than lines.
        """
        points = [
            [value] if single else value
            for value, single in zip(values, self._is_single, strict=False)
        ]
        if len(values) != len(self._names) or any(
            np.ndim(point) != 1 or len(point) != len(names)
            for point, names in zip(points, self._names, strict=True)
        ):
            raise ConfigError(f"add got {values}: give numbers in the shape of {self._names}")
        for axes, lines, point in zip(self._axes, self._lines, points, strict=True):
            for line, value in zip(lines, point, strict=True):
                y = np.append(line.get_ydata(), float(value))
                line.set_data(np.arange(len(y)), y)
            axes.relim()
            axes.autoscale_view()
        self.figure.canvas.draw_idle()
        self.figure.canvas.flush_events()

    def ioff(self) -> None:
        """End the live mode, so that ``plt.show()`` waits for the window to be closed."""
        import matplotlib.pyplot as plt

        plt.ioff()


def draw_confusion(
    figure: Any,
    c_matrix: Any,
    class_num: int,
    class_names: Sequence[str] | None = None,
    norm_dec: int = 2,
    cmap: str = "Blues",
    info: str = "",
) -> None:
    """Draw what `plot_confusion` shows into an empty figure, which need not be pyplot's.

    >>> from matplotlib.figure import Figure
    >>> figure = Figure()
    >>> draw_confusion(figure, [[1, 0], [0, 1]], 2, info="epoch 3")
    >>> figure.axes[0].get_title()
    'epoch 3'
    """
    counts = np.asarray(c_matrix.tolist() if hasattr(c_matrix, "tolist") else c_matrix)
    if counts.shape != (class_num, class_num):
        raise DataError(
            f"the confusion matrix has shape {list(counts.shape)}, and there are {class_num} "
            f"classes: give one of [{class_num}, {class_num}]"
        )
    names = [str(i) for i in range(class_num)] if class_names is None else list(class_names)
    if len(names) != class_num:
        raise DataError(f"there are {class_num} classes and {len(names)} class_names")
    # A class without samples has no shares: its row shows 0 rather than 0/0.
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes = figure.add_subplot()
    figure.colorbar(axes.imshow(shares, cmap=cmap, vmin=0, vmax=1), ax=axes)
    axes.set(xlabel="predicted", ylabel="true", title=info)
    axes.set_xticks(range(class_num), names, rotation=45, ha="right")
    axes.set_yticks(range(class_num), names)
    if class_num > MAX_WRITTEN:
        return
    for (row, column), share in np.ndenumerate(shares):
        axes.text(
            column,
            row,
            f"{counts[row, column]}\n{share:.{norm_dec}%}",
            ha="center",
            va="center",
            color="white" if share > 0.5 else "black",
        )


def plot_confusion(
    c_matrix: Any,
    class_num: int,
    class_names: Sequence[str] | None = None,
    norm_dec: int = 2,
    cmap: str = "Blues",
    info: str = "",
) -> Any:
    """Plot a confusion matrix with its counts, and their shares of the true class.

    Args:
        c_matrix: `[class_num, class_num]`, rows the true classes, columns the predicted.
        class_num: how many classes.
        class_names: what to call them; None: their numbers.
        norm_dec: decimals of the shares, in percent.
        cmap: a colour map of matplotlib.
        info: the title.

    Returns:
        The matplotlib figure; ``plt.show()`` shows it, ``plt.close(figure)`` frees it.

    Raises:
        DataError: the matrix or the names do not fit the number of classes.

    Example:
        See the module's docstring.
    """
    import matplotlib.pyplot as plt

    size = max(4.0, 0.8 * class_num)
    figure = plt.figure(figsize=(size + 1, size), layout="constrained")
    try:
        draw_confusion(figure, c_matrix, class_num, class_names, norm_dec, cmap, info)
    except DataError:
        plt.close(figure)
        raise
    return figure
