"""A terminal for tests: a pseudo-terminal, and what a person sees on it."""

from __future__ import annotations

import fcntl
import os
import re
import struct
import termios
import threading

from deepepochs.show.screens import text_width


class Terminal:
    """The far end of a pseudo-terminal that is `sys.stdout`.

    Attributes:
        num_wrapped: lines that went on in the next one, without what was written over later.
    """

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self._far, near = os.openpty()
        fcntl.ioctl(near, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.stream = open(near, "w", encoding="utf-8")  # noqa: PTH123, SIM115
        self._bytes = bytearray()
        # A daemon: the traceback of a test that fails keeps the stream open.
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.num_wrapped = 0

    def _read(self) -> None:
        while True:
            try:
                got = os.read(self._far, 65536)
            except OSError:
                return
            if not got:
                return
            self._bytes += got

    def text(self) -> str:
        """Everything written, with plain line feeds; closes the terminal."""
        if not self.stream.closed:
            self.stream.close()
            self._reader.join()
            os.close(self._far)
        return self._bytes.decode("utf-8").replace("\r\n", "\n")

    def plain(self) -> str:
        """Everything written, without colours and other control sequences."""
        return re.sub(r"\x1b\[\d*[A-Za-z]", "", self.text())

    def lines(self) -> list[str]:
        """What a person sees after all that was written; a wrapped line is several."""
        screen, column, self.num_wrapped = [""], 0, 0
        for part in re.findall(r"\x1b\[\d*[A-Za-z]|.", self.text(), re.DOTALL):
            line = screen[-1]
            if part == "\n":
                screen.append("")
                column = 0
            elif part == "\r":
                column = 0
            elif part == "\x1b[K":
                screen[-1] = line[:column]
            elif not part.startswith("\x1b"):
                # A full line goes on in the next one with its next character, not before.
                if text_width(line[:column]) + text_width(part) > self.columns:
                    self.num_wrapped += 1
                    screen.append("")
                    line, column = "", 0
                screen[-1] = line[:column].ljust(column) + part + line[column + 1 :]
                column += 1
        lines = [line.rstrip() for line in screen]
        return lines[:-1] if lines[-1] == "" else lines
