"""Which warnings a run has met.

>>> texts = []
>>> met = WarningList()
>>> with warnings.catch_warnings(record=True):
...     warnings.simplefilter("always")
...     met.begin(texts)
...     warnings.warn("rather slow", stacklevel=1)
...     met.end()
>>> texts
['UserWarning: rather slow']
"""

from __future__ import annotations

import warnings
from typing import Any

from ..runs.record import plain

__all__ = ["WarningList"]

MAX_WARNINGS = 50


class WarningList:
    """Copies the warnings that are shown, each once, into a list."""

    def __init__(self) -> None:
        self._texts: list[Any] = []
        self._outer: Any = None
        self._own: Any = None

    def begin(self, texts: list[Any]) -> None:
        """Add to a list the text of every warning from now on."""
        self._texts, self._outer = texts, warnings.showwarning
        outer = self._outer

        def show(message: Any, category: type[Warning], *place: Any, **others: Any) -> None:
            text = plain(f"{category.__name__}: {message}")
            if text not in self._texts and len(self._texts) < MAX_WARNINGS:
                self._texts.append(text)
            outer(message, category, *place, **others)

        self._own = warnings.showwarning = show

    def end(self) -> None:
        """Put back what showed warnings, unless somebody else has taken its place."""
        if warnings.showwarning is self._own:
            warnings.showwarning = self._outer
        self._texts = []
