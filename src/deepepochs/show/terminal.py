"""Shows a run in a terminal: lasting lines in colour, and below them a live line.

The live line fills the whole width, so that whatever is written next, a user's print, a warning or a
traceback, begins on a new line. On terminals where that is not known to work, it is one column
shorter.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping

from .screens import (
    Line,
    Live,
    Output,
    Screen,
    cell,
    cut_line,
    duration,
    epoch_text,
    is_terminal,
    short_name,
    terminal_columns,
    text_width,
    width_of,
)

STYLES = {"dim": "\x1b[2m", "best": "\x1b[32m"}
PLAIN = "\x1b[0m"
ERASE = "\x1b[K"  # up to the end of the line
BAR = (6, 30)  # its smallest and its largest width


class TerminalScreen(Screen):
    """A terminal, or what is to be treated as one."""

    def __init__(
        self, output: Output | None = None, round_to: int = 4, *, is_live: bool = True
    ) -> None:
        super().__init__(output, round_to)
        self.is_live = is_live
        self._is_ansi = is_terminal(sys.stdout) and understands_ansi(os.environ)
        self._is_coloured = self._is_ansi and not os.environ.get("NO_COLOR")
        self._longest = 0  # columns of the live line that is shown

    def live(self, live: Live) -> None:
        columns = terminal_columns()
        line = cut_line(live_line(live, columns - 1, self.round_to), columns - 1)
        taken = width_of(line)
        width = columns if self._is_ansi else max(self._longest, taken)
        line.append(("", " " * (width - taken)))
        self.output.write("\r" + self._styled(line))
        self._longest = width

    def put(self, line: Line) -> None:
        self.output.write(f"{self._erased()}{self._styled(line).rstrip()}\n")

    def write(self, text: str) -> None:
        self.output.write(self._erased() + text)

    def close(self) -> None:
        if self._longest:
            self.output.write("\n")
            self._longest = 0

    def columns(self) -> int:
        # A full last column would wrap where that is not known.
        return terminal_columns() - (0 if self._is_ansi else 1)

    def _erased(self) -> str:
        """Give what removes the live line."""
        longest, self._longest = self._longest, 0
        if not longest:
            return ""
        return "\r" + (ERASE if self._is_ansi else f"{' ' * longest}\r")

    def _styled(self, line: Line) -> str:
        return "".join(
            f"{STYLES[style]}{text}{PLAIN}" if style and text and self._is_coloured else text
            for style, text in line
        )


def understands_ansi(environment: Mapping[str, str]) -> bool:
    """Whether a terminal understands the control sequences that are used here."""
    if environment.get("TERM") == "dumb":
        return False
    # The older console of Windows needs to be asked for them; the newer one says what it is.
    return os.name != "nt" or "WT_SESSION" in environment or "TERM" in environment


def live_line(live: Live, columns: int, round_to: int = 4) -> Line:
    """Lay out the live line: what does not fit is left out, from the right."""
    head: Line = [("dim", live.stage)]
    if live.epoch is not None:
        head.insert(0, ("", f"{epoch_text(*live.epoch)} "))
    if live.task:
        head.append(("", f" {short_name(live.task)}"))
    count = f" {live.done:,} batches"
    if live.total is not None:
        count = f" {live.done:>{len(str(live.total))}}/{live.total}"
    room = columns - width_of(head) - text_width(count)
    least = 0 if live.total is None else 1 + BAR[0]
    line: Line = []
    for piece in pieces(live, round_to):
        if width_of(piece) + least > room:
            break
        room -= width_of(piece)
        line += piece
    drawn: Line = []
    if live.total is not None and room >= least:
        drawn = bar(live.done / max(live.total, 1), min(room - 1, BAR[1]))
    return [*head, *drawn, ("", count), *line]


def pieces(live: Live, round_to: int) -> Iterator[Line]:
    """Yield what comes after the bar and the count, the most important first."""
    if live.total is not None:
        left = "" if live.left_s is None else f"{clock(live.left_s)} left"
        yield [("", f"  {left:<9}")]  # kept free at first, so that the bar stays as long as it is
    for name, value in live.values.items():
        yield [("dim", f"  {short_name(name)} "), ("", cell(value, round_to))]
    much, what = live.speed or (0, "samples")
    unit = "/s" if what == "samples" else f" {what}/s"
    shown = f"{rate(much)}{unit}" if much else ""
    yield [("dim", f"  {shown:<8}")]


def bar(share: float, columns: int) -> Line:
    """Draw a bar with a blank before it."""
    done = int(min(share, 1.0) * columns)
    tip = "╸" if done < columns else ""
    return [("", f" {'━' * done}"), ("dim", f"{tip}{'─' * (columns - done - len(tip))}")]


def rate(per_s: float) -> str:
    """Return how many there are in a second, as `12,346` or `2.2`."""
    return f"{per_s:,.{0 if per_s >= 10 else 1}f}"


def clock(seconds: float) -> str:
    """Return minutes and seconds, or hours, minutes and seconds."""
    return duration(seconds) if seconds >= 60 else f"0:{int(seconds):02}"
