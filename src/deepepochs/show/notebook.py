"""Shows a run in a Jupyter notebook."""

from __future__ import annotations

import importlib
from typing import Any

from .screens import Line, Live, Output, Screen
from .terminal import live_line

DISPLAY_LINES = 100  # lines of one notebook display: each refresh sends all of them
COLUMNS = 100


class NotebookScreen(Screen):
    """A Jupyter notebook: one display that is updated."""

    def __init__(
        self, output: Output | None = None, round_to: int = 4, *, is_live: bool = True
    ) -> None:
        super().__init__(output, round_to)
        self.is_live = is_live
        self._lines: list[str] = []
        self._handle: Any = None

    def live(self, live: Live) -> None:
        text = "".join(text for _, text in live_line(live, COLUMNS, self.round_to))
        self._show([*self._lines, text])

    def put(self, line: Line) -> None:
        """Add a lasting line; after a full display a new one begins."""
        self._lines.append("".join(text for _, text in line).rstrip())
        self._show(self._lines)
        if len(self._lines) >= DISPLAY_LINES:
            self._lines, self._handle = [], None

    def write(self, text: str) -> None:
        self.put([("", text.removesuffix("\n"))])

    def close(self) -> None:
        """Remove the live line."""
        if self._handle is not None:
            self._show(self._lines)

    def _show(self, lines: list[str]) -> None:
        content = {"text/plain": "\n".join(lines)}
        if self._handle is None:
            display = importlib.import_module("IPython.display").display
            self._handle = display(content, raw=True, display_id=True)
        else:
            self._handle.update(content, raw=True)
