r"""Draws curves that grow while a program runs, and confusion matrices.

matplotlib is imported when the first figure is drawn.

>>> from deepepochs.show.plots import plot_confusion
>>> figure = plot_confusion([[8, 2], [1, 9]], 2, class_names=["cat", "dog"])
>>> [text.get_text() for text in figure.axes[0].texts][:2]
['8\n80.00%', '2\n20.00%']
>>> import matplotlib.pyplot as plt
>>> plt.close(figure)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..errors import ConfigError, DataError
from .figures import BLUE, figure_to_svg
from .screens import text_width

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_WRITTEN = 30  # with more classes the cells are too small for their counts
FONT_SIZE = 11.5  # points of the names in a compact matrix, readable in TensorBoard's small cards
MAX_NAME = 14  # longer names are cut in a compact matrix


class SeriesPlots:
    """Line plots that grow with each call of `add`.

    Args:
        plots: a name for each plot, or a list of names for several lines in one plot.
        columns: plots side by side, at least 1.
        figsize: width and height of the figure in inches; None: 5 by 3 for each plot.
        colums: `columns`, as spelt in release 0.6.

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
        self._shapes = [() if isinstance(names, str) else (len(names),) for names in plots]
        rows = -(-len(plots) // columns)
        plt.ion()  # a window opens now, and does not block
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
            values: in the shape of `plots`: a number for a plot of one line, a list of
                numbers for a plot of several.

        Raises:
            ConfigError: there are more or fewer values than lines.
        """
        if [np.shape(value) for value in values] != self._shapes:
            raise ConfigError(f"add got {values}: give numbers in the shape of {self._names}")
        for axes, lines, value in zip(self._axes, self._lines, values, strict=True):
            for line, number in zip(lines, value if np.ndim(value) else [value], strict=True):
                y = np.append(line.get_ydata(), float(number))
                line.set_data(np.arange(len(y)), y)
            axes.relim()
            axes.autoscale_view()
        self.figure.canvas.draw_idle()
        self.figure.canvas.flush_events()

    def ioff(self) -> None:
        """End the live mode: ``plt.show()`` then waits until the window is closed."""
        import matplotlib.pyplot as plt

        plt.ioff()


def draw_confusion(
    figure: Any,
    c_matrix: Any,
    class_num: int,
    class_names: Sequence[str] | None = None,
    norm_dec: int | None = 2,
    cmap: Any = "Blues",
    info: str = "",
) -> None:
    """Draw a confusion matrix into an empty figure, as `plot_confusion` does.

    With ``norm_dec=None`` it is compact: large counts, no colour scale, and only as many names as
    fit.
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
    # The row of a class without samples shows 0 and not 0/0.
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes = figure.add_subplot()
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.1)  # inches around all of it
    image = axes.imshow(shares, cmap=cmap, vmin=0, vmax=1)
    # A clipped image needs an id in SVG, which could be the same in two plots of one page.
    image.set_clip_on(False)
    axes.set(xlabel="predicted", ylabel="true", title=info)
    size = None
    if norm_dec is None:
        marks = _Marks.of(names)
        marks.write(axes)
        # As large as fits a cell, for the largest count.
        size = min(2 * FONT_SIZE, 72 * marks.cell * min(0.5, 1.45 / len(str(counts.max()))))
    else:
        figure.colorbar(image, ax=axes)
        axes.set_xticks(range(class_num), names, rotation=45, ha="right")
        axes.set_yticks(range(class_num), names)
    for row, column in np.argwhere(counts) if class_num <= MAX_WRITTEN else ():
        count, share = counts[row, column], shares[row, column]
        axes.text(
            column,
            row,
            str(count) if norm_dec is None else f"{count}\n{share:.{norm_dec}%}",
            ha="center",
            va="center",
            color="white" if share > 0.5 else "black",
            size=size,
            in_layout=False,  # the layout of hundreds of texts would take longer than drawing
        )


def confusion_figure(
    matrix: Any,
    names: Sequence[str] | None = None,
    norm_dec: int | None = None,
    cmap: Any = "Blues",
    title: str = "",
) -> Figure:
    """Draw a confusion matrix, by default compact, in a readable size and without pyplot."""
    from .picture import new_picture

    num = len(matrix)
    shown = names or [str(index) for index in range(num)]
    size = _Marks.of(shown).size(num) if norm_dec is None else confusion_size(num)
    figure = new_picture(*size)
    draw_confusion(figure, matrix, num, names, norm_dec, cmap, title)
    return figure


def confusion_svg(matrix: Any, names: Sequence[str] | None = None) -> str:
    """Return a compact confusion matrix for a page; a share of 0 is transparent."""
    from matplotlib import style
    from matplotlib.colors import LinearSegmentedColormap

    see_through = LinearSegmentedColormap.from_list("shares", [f"{BLUE}00", BLUE])
    with style.context("default"):  # not the user's style
        return figure_to_svg(confusion_figure(matrix, names, cmap=see_through))


def plot_confusion(
    c_matrix: Any,
    class_num: int,
    class_names: Sequence[str] | None = None,
    norm_dec: int = 2,
    cmap: str = "Blues",
    info: str = "",
) -> Any:
    """Plot a confusion matrix with its counts, and their shares of the true class.

    Counts of 0 are left out: they would hide the others.

    Args:
        c_matrix: `[class_num, class_num]`; rows are true classes, columns predicted ones.
        class_num: the number of classes.
        class_names: names of the classes; None: their numbers.
        norm_dec: decimals of the shares, in percent.
        cmap: a matplotlib colour map.
        info: the title.

    Returns:
        The matplotlib figure. A notebook shows it; elsewhere ``plt.show()`` does.
        ``plt.close(figure)`` frees it.

    Raises:
        DataError: the matrix or the names do not fit the number of classes.

    Example:
        See the module's docstring.
    """
    import matplotlib.pyplot as plt

    from .picture import Picture

    options: Any = {"FigureClass": Picture}
    figure: Any = plt.figure(figsize=confusion_size(class_num), layout="constrained", **options)
    try:
        draw_confusion(figure, c_matrix, class_num, class_names, norm_dec, cmap, info)
    except DataError:
        plt.close(figure)
        raise
    return figure


def confusion_size(num: int) -> tuple[float, float]:
    """Return width and height in inches, for counts with shares and a colour scale."""
    side = max(4.0, 0.8 * min(num, MAX_WRITTEN))
    return side + 1, side


class _Marks(NamedTuple):
    """The names beside a compact matrix; only every `step`-th may fit. Lengths are in inches."""

    cell: float
    step: int
    names: list[str]
    is_flat: bool  # the names below the columns are horizontal
    room: float  # of the longest name

    @classmethod
    def of(cls, names: Sequence[str]) -> _Marks:
        num = len(names)
        least = 0.26 * num if num <= MAX_WRITTEN else min(num / 100, 16)
        cell = max(3.6, least) / num
        step = math.ceil(1.1 * FONT_SIZE / 72 / cell)
        shown = [_short(name) for name in names[::step]]
        room = 0.62 * FONT_SIZE / 72 * max(map(text_width, shown))
        return cls(cell, step, shown, room + 0.05 < cell * step, room)

    def size(self, num: int) -> tuple[float, float]:
        """Return width and height of the figure, with room for title, labels and names."""
        side = num * self.cell
        return side + self.room + 0.4, side + (0.2 if self.is_flat else self.room) + 0.6

    def write(self, axes: Any) -> None:
        places = range(0, self.step * len(self.names), self.step)
        axes.set_xticks(places, self.names, rotation=0 if self.is_flat else 90)
        axes.set_yticks(places, self.names)
        axes.tick_params(left=False, bottom=False, labelsize=FONT_SIZE)
        for label in (axes.xaxis.label, axes.yaxis.label, axes.title):
            label.set_size(FONT_SIZE)
        axes.spines[:].set_edgecolor("#969696")


def _short(name: str) -> str:
    """Return a name on one line, cut to `MAX_NAME` letters."""
    name = " ".join(name.split())
    name = name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 1]}…"
    return name.replace("$", r"\$")  # it is no formula
