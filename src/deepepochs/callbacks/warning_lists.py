"""Copies the warnings that are shown during a fit into the record of its run.

All fits of a process share one replacement of `warnings.showwarning`: fits in several threads
end in any order, and none could restore what another has replaced.

::

    texts = []
    WARNINGS.add(texts)
    warnings.warn("too small")
    WARNINGS.remove(texts)      # texts: ['UserWarning: too small']
"""

from __future__ import annotations

import threading
import warnings
from typing import Any

from ..runs.record import plain

MAX_WARNINGS = 50  # a list gets at most this many different warnings


class WarningLists:
    """The lists that get a text for each warning that is shown, once.

    A warning belongs to the fit of its thread. One from a thread without a fit, such as the
    thread of a data loader, goes to all lists.
    """

    def __init__(self) -> None:
        self._lists: list[tuple[int, list[Any]]] = []
        self._outer: Any = None
        self._own: Any = None
        self._lock = threading.RLock()

    def add(self, texts: list[Any]) -> None:
        """Add the texts of the warnings of this thread to a list from now on."""
        with self._lock:
            self._lists.append((threading.get_ident(), texts))
            if self._own is None or warnings.showwarning is not self._own:
                self._outer = warnings.showwarning
                self._own = warnings.showwarning = self._calling(self._outer)

    def remove(self, texts: list[Any]) -> None:
        """Leave a list as it is; after the last one, restore `warnings.showwarning`."""
        with self._lock:
            self._lists = [entry for entry in self._lists if entry[1] is not texts]
            # Other code may have replaced it since.
            if not self._lists and warnings.showwarning is self._own:
                warnings.showwarning = self._outer

    def _calling(self, outer: Any) -> Any:
        # A new function each time: one that other code has wrapped would call itself.
        def show(message: Any, category: type[Warning], *place: Any, **others: Any) -> None:
            self._copy(plain(f"{category.__name__}: {message}"))
            outer(message, category, *place, **others)

        return show

    def _copy(self, text: str) -> None:
        with self._lock:
            own = [texts for thread, texts in self._lists if thread == threading.get_ident()]
            for texts in own or [texts for _, texts in self._lists]:
                if text not in texts and len(texts) < MAX_WARNINGS:
                    texts.append(text)


WARNINGS = WarningLists()
