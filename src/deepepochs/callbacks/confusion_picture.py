"""Confusion matrices as figures, and as pictures that are drawn many times faster.

A figure of matplotlib takes longer than many an epoch. The pictures for TensorBoard are
drawn straight into pixels, with letters so large that they can be read in its small cards.

>>> import torch
>>> from deepepochs.callbacks.confusion_picture import confusion_figure, confusion_picture
>>> confusion_figure(torch.tensor([[8, 2], [1, 9]]), ["cat", "dog"]).axes[0].get_xlabel()
'predicted'
>>> confusion_picture(torch.tensor([[8, 2], [1, 9]]), ["cat", "dog"]).shape[2]
3
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from ..errors import DataError
from ..show.plots import MAX_WRITTEN, draw_confusion

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["confusion_figure", "confusion_picture"]

MATRIX_SIZE = 360
"""Pixels of a matrix of few classes."""

MIN_WRITTEN_CELL = 26
"""Pixels of a cell that a count is written into."""

MAX_SIZE = 1600
"""Pixels of the matrix of very many classes."""

FONT_SIZE = 16
MAX_NAME = 14
GAP = 6
BLUES = ((247, 251, 255), (198, 219, 239), (107, 174, 214), (33, 113, 181), (8, 48, 107))


def confusion_figure(
    matrix: Tensor,
    names: Sequence[str] | None = None,
    cmap: str = "Blues",
    title: str = "",
    *,
    make: Callable[..., Any] | None = None,
) -> Figure:
    """Draw a confusion matrix ``[C, C]`` in a figure of a size to read it.

    Args:
        matrix: rows the true classes, columns the predicted.
        names: of the classes; ``None``: their numbers.
        cmap: a colour map of matplotlib.
        title: above the matrix.
        make: makes the figure; ``None``: one that pyplot does not know.
    """
    if make is None:
        from matplotlib.figure import Figure

        make = Figure
    side = min(16.0, max(4.0, 0.7 * len(matrix)))
    figure: Figure = make(figsize=(side + 1, side), layout="constrained")
    draw_confusion(figure, matrix, len(matrix), names, norm_dec=0, cmap=cmap, info=title)
    return figure


def confusion_picture(
    matrix: Tensor, names: Sequence[str] | None = None, title: str = ""
) -> np.ndarray[Any, Any]:
    """Draw a confusion matrix ``[C, C]`` as pixels ``[H, W, 3]`` of 0 to 255.

    The cells have their counts, but zeros, and the colour of their share of the true class.

    Args:
        matrix: rows the true classes, columns the predicted.
        names: of the classes; ``None``: their numbers.
        title: above the matrix.

    Raises:
        DataError: there are more or fewer names than classes.
    """
    num = len(matrix)
    if names is not None and len(names) != num:
        raise DataError(f"there are {num} classes and {len(names)} class_names")
    labels = [str(index) for index in range(num)] if names is None else [*map(_short, names)]
    cell = max(1, MATRIX_SIZE // num)
    if num <= MAX_WRITTEN:
        cell = max(cell, MIN_WRITTEN_CELL)
    counts = matrix.numpy()
    grid = _grid(counts, cell)
    if num <= MAX_WRITTEN:
        _write_counts(grid, counts, cell)
    every = -(-(FONT_SIZE + 1) * num // grid.width)  # so that the labels do not overlap
    shown = [
        (int((index + 0.5) * grid.width / num), labels[index]) for index in range(0, num, every)
    ]
    return np.asarray(_frame(grid, shown, title))


def _short(name: str) -> str:
    name = " ".join(name.split())  # a font cannot measure a line break
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 1]}…"


def _grid(counts: np.ndarray[Any, Any], cell: int) -> Any:
    """The cells, without a word."""
    from PIL import Image

    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    stops = np.linspace(0, 1, len(BLUES))
    colours = [np.interp(shares, stops, channel) for channel in zip(*BLUES, strict=True)]
    image = Image.fromarray(np.stack(colours, axis=-1).astype(np.uint8))
    side = min(cell * len(counts), MAX_SIZE)
    # Of very many classes a pixel stands for several: their mean.
    way = Image.Resampling.NEAREST if side >= len(counts) else Image.Resampling.BOX
    return image.resize((side, side), way)


def _write_counts(grid: Any, counts: np.ndarray[Any, Any], cell: int) -> None:
    from PIL import ImageDraw

    totals = np.maximum(counts.sum(axis=1), 1)
    digits = len(str(counts.max()))
    font = _font(min(2 * FONT_SIZE, int(cell * min(0.5, 1.45 / digits))))
    draw = ImageDraw.Draw(grid)
    for row, column in np.argwhere(counts):
        dark = counts[row, column] > 0.5 * totals[row]
        place = (int((column + 0.5) * cell), int((row + 0.5) * cell))
        colour = "white" if dark else "black"
        draw.text(place, str(counts[row, column]), fill=colour, font=font, anchor="mm")


def _frame(grid: Any, labels: list[tuple[int, str]], title: str) -> Any:
    """Put title, labels and axes around the cells."""
    from PIL import Image, ImageDraw

    font = _font(FONT_SIZE)
    line = FONT_SIZE + GAP
    widths = [font.getlength(text) for _, text in labels]
    room = int(max(widths)) + GAP
    is_flat = len(labels) < 2 or max(widths) < labels[1][0] - labels[0][0] - GAP
    left, top, under = line + room + GAP, line + GAP, (line if is_flat else room)
    size = (left + grid.width + GAP, top + grid.height + GAP + under + line)
    image = Image.new("RGB", size, "white")
    image.paste(grid, (left, top))
    draw = ImageDraw.Draw(image)
    edge = (left - 1, top - 1, left + grid.width, top + grid.height)
    draw.rectangle(edge, outline=(150, 150, 150))
    middle = left + grid.width // 2
    draw.text((middle, line // 2), title, fill="black", font=font, anchor="mm")
    draw.text((middle, size[1] - line // 2), "predicted", fill="black", font=font, anchor="mm")
    _write_upright(image, "true", (line // 2, top + grid.height // 2), font, is_centred=True)
    for place, text in labels:
        draw.text((left - GAP, top + place), text, fill="black", font=font, anchor="rm")
        below = (left + place, top + grid.height + GAP)
        if is_flat:
            draw.text(below, text, fill="black", font=font, anchor="ma")
        else:
            _write_upright(image, text, below, font)
    return image


def _write_upright(
    image: Any, text: str, place: tuple[int, int], font: Any, *, is_centred: bool = False
) -> None:
    """Write from below to above, centred about a place or ending there."""
    from PIL import Image, ImageDraw

    strip = Image.new("RGB", (int(font.getlength(text)) + 2, FONT_SIZE + GAP), "white")
    ImageDraw.Draw(strip).text((0, strip.height // 2), text, fill="black", font=font, anchor="lm")
    turned = strip.transpose(Image.Transpose.ROTATE_90)
    x, y = place[0] - turned.width // 2, place[1]
    image.paste(turned, (x, y - turned.height // 2 if is_centred else y))


def _font(size: int) -> Any:
    """The font that matplotlib is set to, so that who has set it for their script sees it."""
    from matplotlib.font_manager import FontProperties, findfont
    from PIL import ImageFont

    return ImageFont.truetype(findfont(FontProperties()), size)
