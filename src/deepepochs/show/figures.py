"""Draws curves and samples without a display, and turns figures into pixels or SVG.

matplotlib is imported when the first figure is drawn.
"""

from __future__ import annotations

import base64
import io
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from ..errors import DataError
from .screens import in_notebook

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Figure  # for `History`, too

FILE_BACKENDS = {"agg", "cairo", "pdf", "pgf", "ps", "svg", "template"}

BLUE, ORANGE, GREEN = "#2f6fde", "#d9730d", "#16836f"  # those of the pages
COLORS = {"train": BLUE, "val": ORANGE, "test": GREEN}
ENTRY_COLORS = [BLUE, ORANGE, GREEN, "#b0417f", "#7b4fc9", "#6b6f1d"]
MAX_COLUMNS = 3  # plots side by side
PLOT_SIZES = {1: (6.0, 3.8), 2: (4.6, 3.4), 3: (3.8, 3.0)}  # inches of a plot, by columns
MAX_LINES = 6  # lines of a vector: more could not be told apart
NUM_TICKS = 8  # numbers of epochs below a plot, at most
MAX_DOTS = 50  # with as many epochs the line is enough
LOG_RATIO = 50.0  # an axis is logarithmic if its largest value is this many times the last one


def can_show() -> bool:
    """Whether matplotlib can show a figure in a window or a notebook."""
    import matplotlib.pyplot as plt

    return plt.get_backend().lower() not in FILE_BACKENDS


def is_inline() -> bool:
    """Whether pyplot shows its figures below the cell of a notebook, when the cell has run."""
    if not in_notebook():
        return False
    import matplotlib.pyplot as plt

    return "inline" in plt.get_backend()


def figure_to_array(figure: Figure) -> np.ndarray[Any, Any]:
    """Return a figure as pixels ``[H, W, 3]``, from 0 to 255."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas: Any = FigureCanvasAgg(figure)
    with without_glyph_warnings():
        canvas.draw()
    pixels: np.ndarray[Any, Any] = np.asarray(canvas.buffer_rgba())[..., :3].copy()
    return pixels


def figure_to_svg(figure: Figure) -> str:
    """Return a figure as an ``<svg>`` for an HTML page; equal figures give equal text.

    It has no background, and black text has no colour, so that the page decides both.
    """
    import matplotlib

    file = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": "deepepochs"}
    with matplotlib.rc_context(settings), without_glyph_warnings():
        figure.savefig(file, format="svg", transparent=True, metadata=nothing, dpi=216)
    text = file.getvalue()
    # HTML needs no namespaces, and ids and a style sheet would affect the whole page.
    text = re.sub("<defs>.*?</defs>", "", text[text.index("<svg") :], flags=re.DOTALL)
    alien = re.compile(r' (?:xmlns(?::\w+)?|id)="[^"]*"')
    return re.sub("<[^>]*>", lambda tag: alien.sub("", tag[0]), text)


@contextmanager
def for_any_background() -> Iterator[None]:
    """Draw in matplotlib's own style, with letters that a light and a dark page show."""
    from matplotlib import style

    names = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    grey: Any = dict.fromkeys(names, "#808080")
    grey.update({"legend.frameon": False, "svg.fonttype": "none"})
    with style.context(["default", grey]):
        yield


def figure_to_image(figure: Figure, label: str) -> str:
    """Return a figure without background as an ``<img>``; `label` is for screen readers.

    A notebook that is not trusted, and some sites, show an image and no ``<svg>``.
    """
    file = io.StringIO()
    with without_glyph_warnings():
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    code = base64.b64encode(file.getvalue().encode()).decode()
    return (
        f'<img alt="{escape(label)}" style="max-width:100%" src="data:image/svg+xml;base64,{code}">'
    )


@contextmanager
def without_glyph_warnings() -> Iterator[None]:
    """Do not warn about a character that the font lacks: it is drawn as a box."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def draw_curves(
    plots: Mapping[str, Mapping[str, Mapping[int, Any]]],
    best: Mapping[str, tuple[str, int, float]],
    *,
    size: tuple[float, float] | None = None,
    in_cell: bool = False,
) -> Figure:
    """Draw a plot for each metric, with its curves by label.

    Args:
        plots: by metric and label the values by the number of the epoch. A vector gives a line
            for each entry; one with more entries than `MAX_LINES` its mean and its range.
        best: label, epoch and value of the best epoch, by metric; not all need one.
        size: width and height of a plot in inches; ``None``: those that suit their number.
        in_cell: the user asks for it: see `new_picture`.
    """
    from .picture import new_picture

    columns = min(len(plots), MAX_COLUMNS)
    rows = -(-len(plots) // columns)
    width, height = size or PLOT_SIZES[columns]
    figure = new_picture(width * columns, height * rows, in_cell=in_cell)
    for place, (title, curves) in enumerate(plots.items(), start=1):
        axes: Any = figure.add_subplot(rows, columns, place)
        lines = {label: _lines_of(curve) for label, curve in curves.items()}
        for label, values in lines.items():
            _draw_lines(axes, label, [*curves[label]], values, is_one_of=len(lines))
        if title in best:
            label, epoch, value = best[title]
            text = f"best: {value:.4g} (epoch {epoch})"
            color = COLORS.get(label)
            axes.scatter(
                [epoch], [value], 130, color, marker="*", label=text, zorder=3, clip_on=False
            )
        axes.set_title(_plain(title), fontsize=11)
        _number_epochs(axes, {epoch for curve in curves.values() for epoch in curve})
        _finish(axes, [*lines.values()])
    return figure


def _lines_of(curve: Mapping[int, Any]) -> np.ndarray[Any, Any]:
    """Return the values as ``[entries, epochs]``, with nan for those that an epoch lacks."""
    columns = [np.reshape(value, -1).astype(float) for value in curve.values()]
    lines = np.full((max(map(len, columns)), len(columns)), math.nan)
    for index, column in enumerate(columns):
        lines[: len(column), index] = column
    return lines


def _draw_lines(
    axes: Any, label: str, epochs: Sequence[int], lines: np.ndarray[Any, Any], *, is_one_of: int
) -> None:
    """Draw the curves of a label; an epoch without a finite value is left out."""
    style: dict[str, Any] = {"color": COLORS.get(label), "linewidth": 1.6}
    names = [label]
    if 1 < len(lines) <= MAX_LINES:
        names = [f"{label}[{index}]" for index in range(len(lines))]
        style = {"linewidth": 1.6, "linestyle": ":" if is_one_of > 1 and label == "train" else "-"}
        axes.set_prop_cycle(color=ENTRY_COLORS)
    elif len(lines) > MAX_LINES:
        names = [f"{label}, mean and range of {len(lines)}"]
        is_there = np.isfinite(lines).any(axis=0)
        epochs, lines = np.asarray(epochs)[is_there].tolist(), lines[:, is_there]
        low, high = np.nanmin(lines, axis=0), np.nanmax(lines, axis=0)
        axes.fill_between(epochs, low, high, color=style["color"], alpha=0.15, linewidth=0)
        lines = np.nanmean(lines, axis=0)[None]
    for name, line in zip(names, lines, strict=True):
        shown = [point for point in zip(epochs, line, strict=True) if math.isfinite(point[1])]
        marker = "." if len(shown) < MAX_DOTS else ""
        xs, ys = zip(*shown, strict=True) if shown else ((), ())
        axes.plot(xs, ys, marker=marker, label=name, **style)


def _number_epochs(axes: Any, epochs: set[int]) -> None:
    """Write the numbers of epochs below a plot: whole ones, and none before the first."""
    from matplotlib.ticker import MaxNLocator

    first, last = min(epochs, default=1), max(epochs, default=1)
    room = 0.03 * (last - first) or 0.5
    axes.set_xlim(first - min(room, 0.5), last + room)
    if last - first < NUM_TICKS:
        axes.set_xticks(range(first, last + 1))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(NUM_TICKS, steps=[1, 2, 5, 10], integer=True))
    axes.set_xlabel("epoch", fontsize=9)
    axes.tick_params(labelsize=8.5)


def _finish(axes: Any, lines: Sequence[np.ndarray[Any, Any]]) -> None:
    """Choose the scale of a plot, and write the legend."""
    numbers = np.concatenate([values[np.isfinite(values)] for values in lines])
    if not len(numbers):
        axes.text(0.5, 0.5, "no finite value", ha="center", transform=axes.transAxes)
        return
    # The end of a curve is what matters: it must not lie flat at the foot of the plot.
    end = min(values[np.isfinite(values)][-1] for values in lines if np.isfinite(values).any())
    if min(numbers) > 0 and max(numbers) >= LOG_RATIO * end:
        axes.set_yscale("log")
        axes.set_ylabel("logarithmic", fontsize=8.5)
    axes.grid(alpha=0.3, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    num = len(axes.get_legend_handles_labels()[1])
    axes.legend(fontsize=8 if num <= 4 else 7, ncols=1 if num <= 4 else 2, framealpha=0.7)


def _plain(text: str) -> str:
    """Return a text in which matplotlib finds no formula."""
    return text.replace("$", r"\$")


def draw_samples(
    samples: Sequence[Sequence[Any]],
    names: Sequence[str] | None = None,
    *,
    in_cell: bool = False,
) -> Figure:
    """Draw samples ``[value, output, target, image]``; ``names`` are those of the classes."""
    from .picture import new_picture

    if not samples:
        raise DataError("there are no samples to draw: run test() with a metric before.")
    pictures = [as_picture(image) for *_, image in samples]
    columns = min(4, len(samples))  # more could not be read in TensorBoard's small cards
    rows = -(-len(samples) // columns)
    figure = new_picture(1.6 * columns, 2.2 * rows, in_cell=in_cell)
    layout: Any = figure.get_layout_engine()
    layout.set(w_pad=0.06, h_pad=0.08)  # inches: titles stay off the edges, and off each other
    for place, ((value, output, target, _), picture) in enumerate(
        zip(samples, pictures, strict=True), start=1
    ):
        axes = figure.add_subplot(rows, columns, place)
        axes.imshow(picture, cmap="gray")
        axes.set_axis_off()
        shown = f"predicted {class_of(output, names)}\ntrue {class_of(target, names)}"
        axes.set_title(_plain(f"{shown}\n{value:.3g}"), fontsize=9)
    return figure


def as_picture(image: Any) -> np.ndarray[Any, Any]:
    """Return an image as ``[H, W]`` or ``[H, W, 3]``, from 0 to 1."""
    if not isinstance(image, Tensor) or image.ndim not in (2, 3):
        shape = list(image.shape) if isinstance(image, Tensor) else type(image).__name__
        raise DataError(f"an input ({shape}) is no image: [C, H, W], [H, W] or [H, W, C] is drawn.")
    pixels = image.float().numpy()
    if pixels.ndim == 3:
        if pixels.shape[0] in (1, 3, 4):
            pixels = np.moveaxis(pixels, 0, -1)
        pixels = pixels[..., :3] if pixels.shape[-1] in (3, 4) else pixels[..., 0]
    low, high = float(pixels.min()), float(pixels.max())
    if low < 0 or high > 1:  # normalised, or 0 to 255
        pixels = (pixels - low) / max(high - low, 1e-12)
    return pixels


def class_of(value: Any, names: Sequence[str] | None) -> str:
    """Return the class of an output (scores, a probability, an id) or of a target."""
    if not isinstance(value, Tensor):
        return str(value)
    if value.numel() > 1:
        if value.ndim > 1:
            return str(list(value.shape))
        index = int(value.argmax())
    elif value.is_floating_point():
        number = float(value)
        if not 0 <= number <= 1:
            return f"{number:.3g}"
        index = int(number > 0.5)
    else:
        index = int(value)
    return names[index] if names is not None and 0 <= index < len(names) else str(index)
