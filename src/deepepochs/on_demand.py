"""Submodules that are loaded when somebody first asks their package for them.

>>> import deepepochs
>>> deepepochs.checkpoint.__name__
'deepepochs.checkpoint'
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = ["submodule"]


def submodule(package: str, name: str) -> Any:
    """Load a submodule for the ``__getattr__`` of its package.

    Raises:
        AttributeError: there is none of that name.
    """
    if not name.startswith("_"):
        try:
            return import_module(f".{name}", package)
        except ModuleNotFoundError as error:
            if error.name != f"{package}.{name}":
                raise
    raise AttributeError(f"module {package!r} has no attribute {name!r}")
