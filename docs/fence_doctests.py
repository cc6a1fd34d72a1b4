"""Makes code blocks of the doctests and literal blocks in docstrings, for the API pages.

A docstring shows its examples as ``>>>`` lines, which Markdown takes for quotations.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

DOCTEST = re.compile(
    r"(?P<block>^(?P<indent> *)>>> .*(?:\n(?P=indent)\S.*|\n(?P=indent) +\S.*)*)", re.M
)
TABLE = re.compile(r"^(?P<rule>=+(?: +=+)+)\n(?:.+\n)+?(?P=rule)\n(?:.+\n)+?(?P=rule)$", re.M)
LITERAL = re.compile(r"(?P<lead>\S?)::(?=\n\n)")


def fence(text: str) -> str:
    """Put every run of ``>>>`` lines, with its output, and every table into a fenced block."""
    text = TABLE.sub(lambda found: f"```text\n{found[0]}\n```", text)
    text = LITERAL.sub(lambda found: found["lead"] + ":" if found["lead"] else "", text)
    return DOCTEST.sub(
        lambda found: f"{found['indent']}```pycon\n{found['block']}\n{found['indent']}```", text
    )


class FenceDoctests(griffe.Extension):
    """Applied to every object that is shown."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = fence(obj.docstring.value)
