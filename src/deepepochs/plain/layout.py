"""The layout of a script as linters and formatters want it: imports in order, blank lines."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path

WIDTH = 100
INDENT = "    "


def import_lines(imports: Iterable[ast.stmt]) -> list[str]:
    """The lines of import statements, in the order of isort: each module once."""
    plain: set[str] = set()
    named: dict[str, set[str]] = {}
    for node in imports:
        if isinstance(node, ast.Import):
            plain.update(f"import {ast.unparse(alias)}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            named.setdefault(node.module or "", set()).update(map(ast.unparse, node.names))
    lines = sorted(plain)
    for module in sorted(named):
        lines += _from(module, sorted(named[module], key=_order))
    groups: dict[int, list[str]] = {0: [], 1: [], 2: []}
    place = 0
    for line in lines:
        if line[:1] not in " )":
            place = _section(line.split()[1].partition(".")[0])
        groups[place].append(line)
    return [line for group in groups.values() if group for line in [*group, ""]]


def _from(module: str, names: Sequence[str]) -> list[str]:
    line = f"from {module} import {', '.join(names)}"
    if len(line) <= WIDTH:
        return [line]
    return [f"from {module} import (", *(f"    {name}," for name in names), ")"]


def _order(name: str) -> tuple[int, str]:
    """Constants first, then classes, then others."""
    kind = 0 if name.isupper() and len(name) > 1 else 1 if name[0].isupper() else 2
    return kind, name


def _section(package: str) -> int:
    """0: of Python; 1: installed; 2: beside the script."""
    if package in sys.stdlib_module_names:
        return 0
    try:
        spec = find_spec(package)
    except (ImportError, ValueError):
        return 1
    origin = Path(getattr(spec, "origin", None) or "/")
    is_local = "site-packages" not in origin.parts and "dist-packages" not in origin.parts
    return 2 if spec is not None and is_local and spec.origin else 1


def laid_out(parts: Iterable[str]) -> str:
    """Join statements and comments: two blank lines around definitions."""
    lines: list[str] = []
    was_definition = False
    for part in parts:
        code = [line for line in part.splitlines() if line and line[0] != "#"]
        is_definition = bool(code) and code[0].startswith(("def ", "class ", "@", "async def "))
        if lines and (is_definition or was_definition):
            lines += ["", ""]
            part = part.lstrip("\n")
        lines += part.rstrip().splitlines()
        was_definition = is_definition
    text = "\n".join(line.rstrip() for line in lines)
    while "\n\n\n\n" in text:
        text = text.replace("\n\n\n\n", "\n\n\n")
    ast.parse(text)
    return text.strip() + "\n"


def folded(opening: str, entries: Sequence[str], closing: str, indent: int) -> list[str]:
    """A call or a dict on one line, or with a line for each entry; ``indent``: of these lines."""
    line = f"{opening}{', '.join(entries)}{closing}"
    if indent + len(line) <= WIDTH:
        return [line]
    return [opening, *(one for entry in entries for one in _entry(entry, indent + 4)), closing]


def _entry(entry: str, indent: int) -> list[str]:
    """The lines of an entry; a dict or a quotient may have several."""
    if indent + len(entry) + 1 > WIDTH:
        if entry.startswith("**{"):
            return ["    **{", f"        {entry[3:-1]}", "    },"]
        if entry.count(" / ") == 1:
            entry = entry.replace(" / ", "\n    / ")
    return f"    {entry},".splitlines()
