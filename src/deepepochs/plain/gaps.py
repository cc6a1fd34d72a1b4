"""What a script does not say: the places to fill in, and what is not written out."""

from __future__ import annotations

import inspect
import textwrap
from pathlib import Path
from typing import Any

from .source import literal


class Names:
    """Names that are taken, and new ones beside them."""

    def __init__(self, taken: set[str]) -> None:
        self.taken = taken

    def take(self, *names: str) -> None:
        """Take names."""
        self.taken.update(names)

    def free(self, *wanted: str) -> str:
        """Take the first of the wanted names that is free, or else the first with a number."""
        name = next((one for one in wanted if one not in self.taken), "")
        number = 2
        while not name:
            one = f"{wanted[0]}_{number}"
            name, number = "" if one in self.taken else one, number + 1
        self.taken.add(name)
        return name


STOP = "FILL_IN"
"""The name of the function that stops a script with gaps."""

MARK = f"{STOP}()"
"""What stands for something that is missing: a call that stops the script."""


class Gaps:
    """Marks what is missing in a script, and lists it for the head of the file."""

    def __init__(self) -> None:
        self._to_fill: dict[str, None] = {}
        self._left_out: dict[str, None] = {}

    def fill_in(self, name: str, what: str) -> str:
        """The line of a name that the reader has to fill in."""
        self._to_fill[what] = None
        return f"{name}: Any = {MARK}  # FILL IN: {what}"

    def fill_in_here(self, what: str) -> str:
        """The comment at the end of a line in which ``MARK`` stands for something."""
        self._to_fill[what] = None
        return f"  # FILL IN: {what}"

    def forget(self, what: str) -> None:
        """Take a line out of the list that turned out not to be needed."""
        self._to_fill.pop(what, None)

    def not_written(self, what: str) -> str:
        """The comment that stands for something that is not written out."""
        self._left_out[what] = None
        return f"# NOT WRITTEN OUT: {what}"

    def stop(self) -> list[str]:
        """The lines that stop the script until it is filled in, and say what is missing."""
        if not self._to_fill:
            return []
        what = "'; '.join(what) or 'what the comment here says'"
        function = [
            f"def {STOP}(*what: str) -> Any:",
            f'    raise NotImplementedError(f"FILL IN: {{{what}}}.")',
        ]
        call = ["# Delete this call when all is filled in.", f"{STOP}("]
        call += [*(f"    {literal(text)}," for text in self._to_fill), ")"]
        return ["\n".join(function), "\n".join(call)]

    def head(self, title: str) -> list[str]:
        """The docstring of the script."""
        lines = [f'"""{title}']
        for name, entries in (("To fill in", self._to_fill), ("Not written out", self._left_out)):
            if entries:
                lines += ["", f"{name}:", ""]
                lines += [line for entry in entries for line in _listed(entry)]
        if len(lines) == 1:
            return [f'{lines[0]}"""']
        return [*lines, '"""']


def _listed(entry: str) -> list[str]:
    text = entry.replace("\\", "\\\\").replace('"""', "'''")
    return textwrap.wrap(f"- {text}", 96, subsequent_indent="  ", break_long_words=False)


def place_of(code: Any) -> str:
    """Where a function or class of the user's is defined: ``' (train.py:12)'``."""
    try:
        file, line = inspect.getsourcefile(code), inspect.getsourcelines(code)[1]
    except (OSError, TypeError):
        return ""
    return "" if file is None else f" ({Path(file).name}:{line})"
