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
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import warn_user

MAX_SHOWN = 6  # of a longer vector only the first and the last entries are written

UNDEFINED = float("nan")
"""The value of a metric that has none on a mini-batch; other NaNs are other objects."""

Count = tuple[int, int | None]
"""A number from 1, and the total, which may be unknown."""


def to_array(value: Any) -> np.ndarray[Any, Any]:
    """Return a number, an array or a tensor on any device as a new NumPy array."""
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        # NumPy has no bfloat16; float32 has all its values.
        value = value.float().numpy() if value.dtype is torch.bfloat16 else value.numpy()
    return np.array(value)


def to_value(value: Any) -> Any:
    """Return a single number as a Python float, and several as a new NumPy array.

    >>> to_value(torch.tensor(0.5)), to_value([1.0, 0.0])
    (0.5, array([1., 0.]))
    """
    if type(value) is float:
        return value
    array = to_array(value)
    if array.ndim:
        return array
    number = array.item()
    return float(number) if isinstance(number, (bool, int)) else number


def spread(metrics: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield each metric as NumPy numbers, and an array entry by entry; leave out `UNDEFINED`.

    >>> [(name, float(value)) for name, value in spread({"loss": 0.5, "recall": [1.0, 0.0]})]
    [('loss', 0.5), ('recall[0]', 1.0), ('recall[1]', 0.0)]
    """
    for name, value in metrics.items():
        if value is UNDEFINED:
            continue
        array = to_array(value)
        for index in np.ndindex(array.shape):
            suffix = f"[{','.join(map(str, index))}]" if index else ""
            yield f"{name}{suffix}", array[index]


def format_value(value: Any, round_to: int = 4) -> str:
    """Return a number with `round_to` decimals, or an array of them in brackets.

    >>> format_value(0.184), format_value([0.5, 1.0], 2), format_value(range(10), 0)
    ('0.1840', '[0.50 1.00]', '[0 1 2 ... 7 8 9]')
    >>> format_value(UNDEFINED)
    '–'
    """
    if value is UNDEFINED:
        return "–"
    array = to_array(value)
    if array.dtype.kind not in "fiub":
        return str(value)
    if array.ndim == 0:
        return f"{float(array):.{round_to}f}"
    shown = [f"{float(entry):.{round_to}f}" for entry in array.flat[:MAX_SHOWN]]
    if array.size > MAX_SHOWN:
        half = MAX_SHOWN // 2
        shown[half:] = ["...", *(f"{float(entry):.{round_to}f}" for entry in array.flat[-half:])]
    return f"[{' '.join(shown)}]"


def info(m_dict: Mapping[str, Any], round_to: int = 4) -> str:
    """Return metrics as `name: value` pairs, each value padded to `round_to + 3` characters.

    Args:
        m_dict: metric values by name.
        round_to: decimals, from 0.

    Example:
        >>> info({"loss": 2.2457, "acc": 0.184})
        'loss: 2.2457  acc: 0.1840 '
    """
    return " ".join(
        f"{name}: {format_value(value, round_to):<{round_to + 3}}" for name, value in m_dict.items()
    )


def counted(count: Count, width: int) -> str:
    """Return `number/total`: the number aligned right, the total left, both `width` wide."""
    number, total = count
    shown = "?" if total is None else str(total)
    return f"{number:>{width}}/{shown:<{width}}"


def batch_line(
    label: str,
    metrics: Mapping[str, Any],
    epoch: Count,
    batch: Count,
    widths: tuple[int, int] = (4, 5),
    round_to: int = 4,
) -> str:
    """Return the line of a mini-batch; in a test `epoch` counts tasks."""
    return (
        f"E {counted(epoch, widths[0])}  B {counted(batch, widths[1])}  {label}> "
        f"{info(metrics, round_to)}"
    )


def epoch_line(
    stages: Mapping[str, Mapping[str, Any]], epoch: Count, width: int = 4, round_to: int = 4
) -> str:
    """Return the line of an epoch, with the metrics by label; empty stages are left out."""
    parts = [f"{label}> {info(metrics, round_to)}" for label, metrics in stages.items() if metrics]
    return f"E {counted(epoch, width)}  {'  '.join(parts)}"


def task_line(metrics: Mapping[str, Any], task: Count, width: int = 4, round_to: int = 4) -> str:
    """Return the line of a tested task."""
    return f"E {counted(task, width)}  TEST>  {info(metrics, round_to)}"


def text_width(text: str) -> int:
    """Return the columns of a text in a terminal; a Chinese character has two."""
    return len(text) if text.isascii() else sum(_char_width(char) for char in text)


def cut(text: str, columns: int) -> str:
    """Return the start of a text that fits in `columns`.

    >>> cut("loss: 2.2457", 6), cut("准确率", 5)
    ('loss: ', '准确')
    """
    kept = 0
    for index, char in enumerate(text):
        kept += _char_width(char)
        if kept > columns:
            return text[:index]
    return text


def pad(text: str, columns: int) -> str:
    """Return a text with blanks on the right up to `columns`."""
    return text + " " * max(0, columns - text_width(text))


def _char_width(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


DISPLAY_LINES = 100  # lines of one notebook display: each refresh sends all of them


class Output:
    """Writes to the present `sys.stdout`; after one warning a broken stream gets no more text.

    The stream may be anything with a method `write`.
    """

    def __init__(self) -> None:
        self._lost: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {"_lost": None}  # a stream cannot be pickled

    def write(self, text: str) -> None:
        """Write and flush; characters that the encoding lacks are escaped."""
        stream: Any = sys.stdout
        if stream is None or stream is self._lost:
            return
        try:
            try:
                stream.write(text)
            except UnicodeEncodeError:
                encoding = getattr(stream, "encoding", None) or "ascii"
                stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
            if hasattr(stream, "flush"):
                stream.flush()
        except Exception as error:  # of any kind: the stream may be the user's own
            self._lost = stream
            warn_user(
                f"Standard output cannot be written ({error}): training continues without output.",
                RuntimeWarning,
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
    """A tqdm bar over the epochs; each line is its description.

    The bar is on `sys.stderr`. If that cannot be written, the lines go to the output instead.
    """

    def __init__(self, total: int, initial: int = 0, output: Output | None = None) -> None:
        super().__init__(output)
        self.is_live = is_terminal(sys.stderr)  # a log file would keep each refresh
        self._bar: Any = None
        if hasattr(sys.stderr, "write"):
            from tqdm import tqdm

            with self._drawing():
                self._bar = tqdm(total=total, initial=initial, dynamic_ncols=True)

    def live(self, text: str) -> None:
        if self._bar is not None:
            with self._drawing():
                self._bar.set_description_str(text.rstrip())

    def line(self, text: str) -> None:
        """Describe the bar, and advance it by an epoch."""
        if self._bar is not None:
            with self._drawing():
                self._bar.set_description_str(text.rstrip(), refresh=False)
                self._bar.update(1)
        if self._bar is None:
            super().line(text)

    def write(self, text: str) -> None:
        if self._bar is None:
            self.output.write(text)
            return
        with self._drawing(), self._bar.external_write_mode():
            self.output.write(text)

    def close(self) -> None:
        if self._bar is not None:
            with self._drawing():
                self._bar.close()

    @contextmanager
    def _drawing(self) -> Iterator[None]:
        """Give up the bar if its stream fails, and warn."""
        try:
            yield
        except Exception as error:  # of any kind: the stream may be the user's own
            if self._bar is not None:
                self._bar.disable = True  # it writes nothing more, at its deletion neither
            self._bar = None
            warn_user(
                f"Standard error cannot be written ({error}): training continues without a bar.",
                RuntimeWarning,
            )


def open_screen(output: Output | None = None) -> Screen:
    """Return the screen for the present `sys.stdout`."""
    if in_notebook():
        return NotebookScreen(output)
    return TerminalScreen(output) if is_terminal(sys.stdout) else Screen(output)


def is_terminal(stream: Any) -> bool:
    """Whether a stream is a terminal; one that is missing, closed or foreign is none."""
    try:
        return bool(stream.isatty())
    except Exception:  # no stream, no such method, or a closed stream
        return False


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
