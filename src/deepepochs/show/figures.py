"""Draws curves and samples without a display, and turns figures into pixels or SVG.

matplotlib is imported when the first figure is drawn.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from ..errors import DataError

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Figure  # for `History`, too

FILE_BACKENDS = {"agg", "cairo", "pdf", "pgf", "ps", "svg", "template"}


def can_show() -> bool:
    """Whether matplotlib can show a figure in a window or a notebook."""
    import matplotlib.pyplot as plt

    return plt.get_backend().lower() not in FILE_BACKENDS


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
def without_glyph_warnings() -> Iterator[None]:
    """Do not warn about a character that the font lacks: it is drawn as a box."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def draw_curves(plots: Mapping[str, Mapping[str, Mapping[int, Any]]]) -> Figure:
    """Draw a plot for each metric, with its curves by label.

    A curve has the values by the number of the epoch. Vectors give a line for each entry.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(5 * len(plots), 3.5), layout="constrained")
    for place, (title, curves) in enumerate(plots.items(), start=1):
        axes = figure.add_subplot(1, len(plots), place)
        for label, curve in curves.items():
            lines = np.stack([np.reshape(value, -1) for value in curve.values()], axis=1)
            for index, line in enumerate(lines):
                name = label if len(lines) == 1 else f"{label}[{index}]"
                axes.plot(list(curve), line, marker="." if len(curve) < 50 else "", label=name)
        axes.set_xlabel("epoch")
        axes.set_title(title)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend()
    return figure


def draw_samples(samples: Sequence[Sequence[Any]], names: Sequence[str] | None = None) -> Figure:
    """Draw samples ``[value, output, target, image]``; ``names`` are those of the classes."""
    from matplotlib.figure import Figure

    if not samples:
        raise DataError("there are no samples to draw: run test() with a metric before.")
    columns = min(4, len(samples))  # more could not be read in TensorBoard's small cards
    rows = -(-len(samples) // columns)
    figure = Figure(figsize=(1.5 * columns, 2.1 * rows), layout="constrained")
    for place, (value, output, target, image) in enumerate(samples, start=1):
        axes = figure.add_subplot(rows, columns, place)
        axes.imshow(as_picture(image), cmap="gray")
        axes.set_axis_off()
        shown = f"predicted {class_of(output, names)}\ntrue {class_of(target, names)}"
        axes.set_title(f"{shown}\n{value:.3g}", fontsize=9)
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
