"""Shows lines of text in a terminal, a file or pipe, a notebook or a tqdm bar.

A screen has lasting lines, and a `live` line that the next line replaces. `open_screen` chooses
the kind of screen. Each write goes to the present `sys.stdout`. If the stream is closed or broken,
there is one warning, and the training continues.

>>> from deepepochs.show.screens import open_screen
>>> screen = open_screen()
>>> screen.line("E 1/2  TRAIN> loss: 2.2457")
E 1/2  TRAIN> loss: 2.2457
"""

from __future__ import annotations

import importlib
import io
import os
import shutil
import sys
import warnings
from typing import Any

from .lines import cut, pad, text_width

__all__ = ["BarScreen", "NotebookScreen", "Output", "Screen", "TerminalScreen", "open_screen"]

DISPLAY_LINES = 100
"""Lines of one notebook display: each refresh sends all of them."""


class Output:
    """Writes to the present `sys.stdout`; after one warning a broken stream gets no more text."""

    def __init__(self) -> None:
        self._lost: Any = None

    def write(self, text: str) -> None:
        """Write and flush; characters that the encoding lacks are escaped."""
        stream = sys.stdout
        if stream is None or stream is self._lost:
            return
        try:
            try:
                stream.write(text)
            except UnicodeEncodeError:
                encoding = stream.encoding or "ascii"
                stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
            stream.flush()
        except (OSError, ValueError) as error:
            self._lost = stream
            warnings.warn(
                f"Standard output cannot be written ({error}): training continues without output.",
                RuntimeWarning,
                stacklevel=2,
            )


class Screen:
    """A file or pipe: lasting lines only."""

    is_live = False
    """Whether the live line is shown."""

    def __init__(self, output: Output | None = None) -> None:
        self.output = output or Output()

    def live(self, text: str) -> None:
        """Show a text until the next line."""

    def line(self, text: str) -> None:
        """Write a lasting line in place of the live one."""
        self.output.write(f"{text.rstrip()}\n")

    def write(self, text: str) -> None:
        """Write a text without breaking the live line."""
        self.output.write(text)

    def close(self) -> None:
        """Leave the cursor at the start of a line."""


class TerminalScreen(Screen):
    """A terminal: the live line is rewritten in place, cut so that it never wraps."""

    is_live = True

    def __init__(self, output: Output | None = None) -> None:
        super().__init__(output)
        self._longest = 0

    def live(self, text: str) -> None:
        # A full last column would wrap in some terminals.
        columns = terminal_columns() - 1
        shown = cut(text.rstrip(), columns)
        self.output.write(f"\r{pad(shown, min(self._longest, columns))}")
        self._longest = max(self._longest, text_width(shown))

    def line(self, text: str) -> None:
        text = text.rstrip()
        self.output.write(f"\r{pad(text, self._longest)}\n" if self._longest else f"{text}\n")
        self._longest = 0

    def write(self, text: str) -> None:
        if self._longest:
            self.output.write(f"\r{' ' * self._longest}\r")
            self._longest = 0
        self.output.write(text)

    def close(self) -> None:
        if self._longest:
            self.output.write("\n")
            self._longest = 0


class NotebookScreen(Screen):
    """A Jupyter notebook: one display that is updated."""

    is_live = True

    def __init__(self, output: Output | None = None) -> None:
        super().__init__(output)
        self._lines: list[str] = []
        self._handle: Any = None

    def live(self, text: str) -> None:
        self._show([*self._lines, text])

    def line(self, text: str) -> None:
        """Add a lasting line; after a full display a new one begins."""
        self._lines.append(text.rstrip())
        self._show(self._lines)
        if len(self._lines) >= DISPLAY_LINES:
            self._lines, self._handle = [], None

    def write(self, text: str) -> None:
        self.line(text.removesuffix("\n"))

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


class BarScreen(Screen):
    """A tqdm bar over the epochs; each line is its description."""

    def __init__(self, total: int, initial: int = 0, output: Output | None = None) -> None:
        super().__init__(output)
        from tqdm import tqdm

        # A log file would keep each refresh.
        self.is_live = sys.stderr is not None and sys.stderr.isatty()
        self.bar: Any = tqdm(total=total, initial=initial, dynamic_ncols=True)

    def live(self, text: str) -> None:
        self.bar.set_description_str(text.rstrip())

    def line(self, text: str) -> None:
        """Describe the bar, and advance it by an epoch."""
        self.bar.set_description_str(text.rstrip(), refresh=False)
        self.bar.update(1)

    def write(self, text: str) -> None:
        with self.bar.external_write_mode():
            self.output.write(text)

    def close(self) -> None:
        self.bar.close()


def open_screen(output: Output | None = None) -> Screen:
    """Return the screen for the present `sys.stdout`."""
    if in_notebook():
        return NotebookScreen(output)
    try:
        is_terminal = sys.stdout is not None and sys.stdout.isatty()
    except ValueError:  # a closed stream
        is_terminal = False
    return TerminalScreen(output) if is_terminal else Screen(output)


def in_notebook() -> bool:
    """Whether this is a Jupyter kernel without redirected output; does not import IPython."""
    ipython = sys.modules.get("IPython")
    if ipython is None or isinstance(sys.stdout, (io.TextIOWrapper, io.StringIO)):
        return False
    return getattr(ipython.get_ipython(), "kernel", None) is not None


def terminal_columns() -> int:
    """Return the width of the terminal, or 80 if it is unknown."""
    try:
        columns = os.get_terminal_size(sys.stdout.fileno()).columns
    except (OSError, ValueError, AttributeError):
        columns = 0
    return columns or shutil.get_terminal_size().columns
