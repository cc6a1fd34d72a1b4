r"""A matplotlib figure that a notebook shows as the value of a cell, without any magic.

IPython knows how to show a figure only once pyplot's inline backend is in use. This module is
imported when the first figure is drawn, because it imports matplotlib.

>>> from deepepochs.show.picture import Picture
>>> figure = Picture(figsize=(2, 1))
>>> png, size = figure._repr_png_()
>>> png[:4], size
(b'\x89PNG', {'width': 200, 'height': 100})
"""

from __future__ import annotations

import io
import sys
from typing import Any

from matplotlib.figure import Figure

from .figures import is_inline, without_glyph_warnings

SHARPNESS = 2  # pixels of the file for one of the screen, so that letters are sharp on all screens


class Picture(Figure):
    """A figure that is shown once as the value of a cell, whatever backend pyplot has."""

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        """Leave the showing to `_repr_png_`, or to the format that the user has chosen.

        IPython calls this first. An inline figure would be shown again at the end of the cell.
        """
        if is_inline():
            sys.modules["matplotlib.pyplot"].close(self)
        return {}

    def _repr_png_(self) -> tuple[bytes, dict[str, int]] | None:
        """Return the picture and its size in pixels; ``None``: a window or a widget shows it."""
        if self.canvas.manager is not None and not is_inline():
            return None
        file = io.BytesIO()
        with without_glyph_warnings():
            self.savefig(file, format="png", dpi=SHARPNESS * self.dpi)
        width, height = (round(inches * self.dpi) for inches in self.get_size_inches())
        return file.getvalue(), {"width": width, "height": height}


def new_picture(width: float, height: float, *, in_cell: bool = False) -> Picture:
    """Return an empty figure.

    Args:
        width: in inches.
        height: in inches.
        in_cell: for one that the user asks for: pyplot's inline backend shows it at the end of
            the cell, also where it is not the value of the cell, as it does with all plots.
    """
    if in_cell and is_inline():
        import matplotlib.pyplot as plt

        options: Any = {"FigureClass": Picture}
        figure: Any = plt.figure(figsize=(width, height), layout="constrained", **options)
        return figure  # type: ignore[no-any-return]
    return Picture(figsize=(width, height), layout="constrained")
