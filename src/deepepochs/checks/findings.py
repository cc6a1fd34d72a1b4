"""What a check has found: each finding is a sentence and its remedy, the worst first.

>>> print(Findings([Finding("note", "The rate is low.", "Take 0.01."),
...                 Finding("error", "The labels are NaN.", "Drop these samples.")]))
2 findings, the worst first
error: The labels are NaN.
  Drop these samples.
note: The rate is low.
  Take 0.01.
>>> print(Findings([]))
nothing found
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ..show.tables import html_table

SEVERITIES = ("error", "warning", "note")


class Finding(NamedTuple):
    """One fault.

    Attributes:
        severity: ``'error'``: the training fails, or learns nothing; ``'warning'``: it is worse
            than it looks, or than it could be; ``'note'``: it may be meant.
        text: what was found, in a sentence.
        remedy: what to do.
    """

    severity: str
    text: str
    remedy: str


class Findings(list[Finding]):
    """What ``trainer.check()`` gives: a list, true where something was found; prints in words."""

    def __init__(self, found: Iterable[Finding]) -> None:
        once = dict.fromkeys(found)
        super().__init__(sorted(once, key=lambda finding: SEVERITIES.index(finding.severity)))

    def __str__(self) -> str:
        if not self:
            return "nothing found"
        title = "1 finding" if len(self) == 1 else f"{len(self)} findings, the worst first"
        lines = (f"{one.severity}: {one.text}\n  {one.remedy}" for one in self)
        return "\n".join([title, *lines])

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        if not self:
            return "nothing found"
        rows = [[one.severity, f"{one.text} {one.remedy}"] for one in self]
        return html_table([], rows)
