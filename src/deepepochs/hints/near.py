"""Finds the known name that is most like a misspelt one.

>>> nearest("epocs", ["epochs", "metrics"]), nearest_metric("acc", ["loss", "accuracy"])
('epochs', 'accuracy')
>>> did_you_mean("epocs", ["epochs", "metrics"])
"Did you mean 'epochs'?"
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Return the known name that is most like another; ``None`` if none is like it.

    Args:
        name: the name that is not known.
        known: the names that there are.
        cutoff: how much alike they must be, from 0 to 1.
    """
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return found[0] if found else None


def nearest_metric(name: str, known: Iterable[str]) -> str | None:
    """Return the metric that is most like a name, or of which it is a part, as ``acc``."""
    names = list(known)
    if name in names:
        return name
    inside = [one for one in names if min(len(one), len(name)) > 1 and (one in name or name in one)]
    return nearest(name, names, 0.8) or next(iter(inside), None) or nearest(name, names, 0.5)


def did_you_mean(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """Ask whether the nearest known name is meant; an empty text if none is like it."""
    near = nearest(name, known, cutoff)
    return "" if near is None else f"Did you mean {near!r}?"
