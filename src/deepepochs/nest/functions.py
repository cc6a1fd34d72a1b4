"""What a function computes with besides its arguments: values around it, and global names.

>>> def times(factor):
...     return lambda x: factor * x
>>> enclosed_by(times(3))
{'factor': 3}
"""

from __future__ import annotations

import contextlib
from types import FunctionType, MethodType
from typing import Any


def enclosed_by(function: FunctionType | MethodType) -> dict[str, Any]:
    """Give the variables that a function has from the function around it."""
    found = {}
    names = function.__code__.co_freevars
    for name, cell in zip(names, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # the variable has no value yet
            found[name] = cell.cell_contents
    return found


def globals_of(function: FunctionType) -> dict[str, Any]:
    """Give the global variables with a name that a function uses, also as an attribute."""
    names = function.__code__.co_names
    return {name: function.__globals__[name] for name in names if name in function.__globals__}
