"""Loads a module of a package when one of its names is first used, for a fast import."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


def on_demand(
    package: str, names: Mapping[str, Sequence[str]], others: Sequence[str] = ()
) -> Callable[[str], Any]:
    """Make the ``__getattr__`` of a package, which gives its submodules, too.

    ``names`` are given by module. All other names are looked for in the ``__all__`` of ``others``.
    """
    module_of = {name: module for module, listed in names.items() for name in listed}

    def __getattr__(name: str) -> Any:
        if name in module_of:
            return getattr(import_module(f".{module_of[name]}", package), name)
        if not name.startswith("_"):
            try:
                return import_module(f".{name}", package)
            except ModuleNotFoundError as error:
                if error.name != f"{package}.{name}":
                    raise
        for module in map(import_module, (f"{package}.{other}" for other in others)):
            if name in module.__all__:
                return getattr(module, name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return __getattr__
