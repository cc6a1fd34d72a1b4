"""Loads a module of a package when one of its names is first used, for a fast import."""

from __future__ import annotations

import sys
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
        # Python replaces an AttributeError by an ImportError of its own, without the advice.
        is_import = sys._getframe(1).f_globals.get("__name__") == "importlib._bootstrap"
        raise _missing(package, name, is_import=is_import)

    return __getattr__


def _missing(package: str, name: str, *, is_import: bool) -> Exception:
    """Make the error for a name that a package lacks; ``is_import``: ``from package import name``."""
    advice = None
    if not name.startswith("_"):
        from .hints.names import advice_on_export

        advice = advice_on_export(name, sys.modules[package].__all__)
    text = f"module {package!r} has no attribute {name!r}"
    if advice is None:
        return AttributeError(text, name=name, obj=sys.modules[package])
    if is_import:
        return ImportError(f"cannot import name {name!r} from {package!r}. {advice}", name=package)
    return AttributeError(f"{text}. {advice}", name=name, obj=None)
