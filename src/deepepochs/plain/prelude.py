"""What a script does before it asks the library for anything: its lines, and the names in them.

The lines up to a call are read from the source of the caller. Those that use the library are taken
out or written without it: of ``Trainer(Net(), loss, opt)`` remains ``model = Net()``. So the
lines that are left make the same model and data, and draw the same random numbers.
"""

from __future__ import annotations

import ast
import inspect
import linecache
import textwrap
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any, NamedTuple

LIBRARY = __name__.partition(".")[0]

YOURS = "...  # FILL IN: "
"""Stands for what the lines of the script do not tell."""


class OptimizerText(NamedTuple):
    """How an optimizer and its scheduler are called in the script that is written."""

    opt: str
    scheduler: str | None = None


class Prelude:
    """The lines of a script that come before the training.

    Attributes:
        imports: the import statements.
        lines: the other lines.
        unknown: what could not be read from the script, in words.
    """

    def __init__(self, frame: FrameType | None) -> None:
        self.imports: list[str] = []
        self.lines: list[str] = []
        self.unknown: list[str] = []
        self.optimizers: list[OptimizerText] = []
        self.names: dict[str, str] = {}  # argument of Trainer or fit -> expression
        self._taken = {"epoch", "history", "math", "torch"}  # names of the lines that follow
        self._frame = frame
        self._ours: dict[str, str] = {}  # name in the script -> name in the library
        self._tainted: set[str] = set()
        self._wrapped: dict[str, list[OptimizerText]] = {}  # name -> optimizers made by Optimizer()
        self._source = ""
        self._kept: list[tuple[ast.stmt, str]] = []
        if frame is not None:
            self._read(frame)

    # --- reading

    def _read(self, frame: FrameType) -> None:
        found = statements_before(frame)
        if found is None:
            return
        self._source, before, call = found
        after = 0
        for statement in before:
            self._take(statement, after)
            after = statement.end_lineno or after
        self._take_call(call)

    def _take(self, statement: ast.stmt, after: int) -> None:
        """Keep a statement, write it without the library, or leave it out."""
        if isinstance(statement, (ast.Import, ast.ImportFrom)):
            self._take_import(statement)
        elif isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            return  # the docstring of the script
        elif not self._uses_library(statement):
            self._kept.append((statement, self._text(statement, after)))
            self._taken |= bound_names(statement)
        else:
            self._write_without_library(statement)
            self._tainted |= bound_names(statement)

    def _take_import(self, statement: ast.Import | ast.ImportFrom) -> None:
        module = getattr(statement, "module", None) or ""
        if module == "__future__":
            return
        if module.partition(".")[0] == LIBRARY:
            for alias in statement.names:
                self._ours[alias.asname or alias.name] = alias.name
            return
        kept = []
        for alias in statement.names:
            if isinstance(statement, ast.Import) and alias.name.partition(".")[0] == LIBRARY:
                self._ours[alias.asname or LIBRARY] = ""
            else:
                kept.append(alias)
                self._taken.add(alias.asname or alias.name.partition(".")[0])
        if kept:
            statement.names[:] = kept
            self._kept.append((statement, ast.unparse(statement)))

    def _uses_library(self, node: ast.AST) -> bool:
        return not names_read(node).isdisjoint({*self._ours, *self._tainted})

    def _text(self, statement: ast.stmt, after: int) -> str:
        """The lines of a statement, with the comments right above it."""
        lines = self._source.splitlines()
        first = min(
            [statement.lineno, *(d.lineno for d in getattr(statement, "decorator_list", []))]
        )
        while first - 1 > after and lines[first - 2].strip().startswith("#"):
            first -= 1
        return textwrap.dedent("\n".join(lines[first - 1 : statement.end_lineno]))

    # --- writing without the library

    def _write_without_library(self, statement: ast.stmt) -> None:
        value = getattr(statement, "value", None)
        if not isinstance(value, ast.Call):
            return
        name = self._library_name(value.func)
        if name == "set_seed" and value.args:
            self._add_seed(ast.unparse(value.args[0]))
        elif name in ("Optimizer", "Optimizers") and isinstance(statement, ast.Assign):
            target = statement.targets[0]
            if isinstance(target, ast.Name):
                self._wrapped[target.id] = self._optimizers_of(value, target.id)
        elif self._makes_trainer(value):
            self._take_trainer(value)

    def _library_name(self, function: ast.expr) -> str | None:
        """The name in the library of a function that the script calls."""
        if isinstance(function, ast.Name):
            return self._ours.get(function.id)
        if isinstance(function, ast.Attribute):
            root: ast.expr = function
            while isinstance(root, ast.Attribute):
                root = root.value
            if isinstance(root, ast.Name) and self._ours.get(root.id) == "":
                return function.attr
        return None

    def _makes_trainer(self, call: ast.Call) -> bool:
        if self._library_name(call.func) in ("Trainer", "TrainerBase"):
            return True
        given = self._value_of(ast.unparse(call.func))
        return isinstance(given, type) and any(
            base.__name__ == "TrainerBase" and base.__module__.startswith(LIBRARY)
            for base in given.__mro__
        )

    def _value_of(self, name: str) -> Any:
        frame = self._frame
        if frame is None:
            return None
        return frame.f_locals.get(name, frame.f_globals.get(name))

    def _add_seed(self, seed: str) -> None:
        for line in ("import random", "import numpy as np", "import torch"):
            self._kept.append((ast.parse(line).body[0], line))
        text = f"random.seed({seed})\nnp.random.seed({seed})\ntorch.manual_seed({seed})"
        self._kept.append((ast.parse(text), text))  # type: ignore[arg-type]

    def _take_trainer(self, call: ast.Call) -> None:
        """Write model, loss and optimizers that are made in the call of Trainer."""
        from ..trainer import TrainerBase

        given = arguments_of(call, list(inspect.signature(TrainerBase).parameters))
        for argument, name in (("model", "model"), ("loss", "loss_fn")):
            if argument in given:
                self.names[argument] = self._named(given[argument], name)
        if "opt" in given:
            self.optimizers = self._optimizers_of(given["opt"], "opt")
        if "metrics" in given:
            self.names["metrics"] = ast.unparse(given["metrics"])

    def _named(self, node: ast.expr, name: str) -> str:
        """Give a name or attribute as it is; assign anything else to a name."""
        if self._uses_library(node):
            return ""
        if isinstance(node, ast.NamedExpr):
            name, node = node.target.id, node.value
        text = ast.get_source_segment(self._source, node) or ast.unparse(node)
        if isinstance(node, (ast.Name, ast.Attribute)):
            return text
        free = self._free(name)
        line = f"{free} = {textwrap.dedent(text)}"
        self._kept.append((ast.parse(line).body[0], line))
        return free

    def _free(self, name: str) -> str:
        number = 2
        found = name
        while found in self._taken:
            found, number = f"{name}_{number}", number + 1
        self._taken.add(found)
        return found

    def _optimizers_of(self, node: ast.expr, name: str) -> list[OptimizerText]:
        if isinstance(node, (ast.List, ast.Tuple)):
            return [one for each in node.elts for one in self._optimizers_of(each, name)]
        if isinstance(node, ast.Name) and node.id in self._wrapped:
            return self._wrapped[node.id]
        if isinstance(node, ast.Call) and self._library_name(node.func) == "Optimizers":
            return self._optimizers_of(node.args[0], name) if node.args else []
        if isinstance(node, ast.Call) and self._library_name(node.func) == "Optimizer":
            given = arguments_of(node, ["opt", "scheduler"])
            opt = self._named(given["opt"], name)
            scheduler = given.get("scheduler")
            return [
                OptimizerText(
                    opt, None if scheduler is None else self._named(scheduler, "scheduler") or None
                )
            ]
        return [OptimizerText(self._named(node, name))]

    def _take_call(self, call: ast.Call | None) -> None:
        """Take the loaders from the call itself."""
        if call is None:
            return
        order = ["train_dl", "val_dl"] if not _is_method(call, "plain_loop") else None
        order = order or ["path", "train_dl", "val_dl"]
        given = arguments_of(call, order)
        for argument in ("train_dl", "val_dl"):
            node = given.get(argument)
            if node is not None and not (isinstance(node, ast.Constant) and node.value is None):
                self.names[argument] = self._named(node, argument)

    def name_of(self, value: Any) -> str | None:
        """A name that the lines have for an object."""
        if self._frame is None or value is None:
            return None
        own = [self._frame.f_locals]
        if self._frame.f_globals is not self._frame.f_locals:
            own.append(self._frame.f_globals)
        for named in own:
            for name, one in named.items():
                if one is value and name in self._taken and name not in self._tainted:
                    return name
        return None

    def finish(self, body: str) -> tuple[list[str], list[str]]:
        """Give imports and other lines, without those of which nothing is read."""
        needed = names_read(ast.parse(body))
        kept: list[str] = []
        imports: dict[str, None] = {}
        for statement, text in reversed(self._kept):
            is_import = isinstance(statement, (ast.Import, ast.ImportFrom))
            if is_import:
                for line in _imports(statement, needed):
                    imports.setdefault(line)
                continue
            is_definition = isinstance(statement, (ast.FunctionDef, ast.ClassDef))
            if is_definition and statement.name not in needed:
                continue
            needed |= names_read(statement)
            kept.append(text)
        return sorted(imports, key=_import_order), kept[::-1]


def _imports(statement: Any, needed: set[str]) -> Iterator[str]:
    for alias in statement.names:
        name = alias.asname or alias.name.partition(".")[0]
        if name not in needed and alias.name != "*":
            continue
        bare = type(statement)(**{**vars(statement), "names": [alias]})
        yield ast.unparse(bare)


def _import_order(line: str) -> tuple[bool, str]:
    return line.startswith("from"), line


def _is_method(call: ast.Call, name: str) -> bool:
    return isinstance(call.func, ast.Attribute) and call.func.attr == name


def arguments_of(call: ast.Call, order: Sequence[str]) -> dict[str, ast.expr]:
    """The arguments of a call by name."""
    found = dict(zip(order, call.args, strict=False))
    found.update((keyword.arg, keyword.value) for keyword in call.keywords if keyword.arg)
    return found


def names_read(node: ast.AST) -> set[str]:
    """The names that code reads."""
    return {
        found.id
        for found in ast.walk(node)
        if isinstance(found, ast.Name) and isinstance(found.ctx, ast.Load)
    }


def bound_names(statement: ast.stmt) -> set[str]:
    """The names that a statement defines."""
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return {statement.name}
    return {
        found.id
        for found in ast.walk(statement)
        if isinstance(found, ast.Name) and isinstance(found.ctx, ast.Store)
    }


def statements_before(
    frame: FrameType,
) -> tuple[str, list[ast.stmt], ast.Call | None] | None:
    """Give the source, the statements that ran before the line of a frame, and the call in it."""
    code = frame.f_code
    lines = linecache.getlines(code.co_filename, frame.f_globals)
    if not lines:
        return None
    source = "".join(lines)
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return None
    line = frame.f_lineno
    found: list[ast.stmt] = []
    block: list[ast.stmt] = tree.body
    if code.co_name != "<module>":
        function = _function_at(tree, code.co_name, code.co_firstlineno)
        if function is None:
            return None
        found += [one for one in tree.body if not _is_main_block(one) and function is not one]
        block = function.body
    call = _walk_to(block, line, found)
    return source, found, call


def _walk_to(block: list[ast.stmt], line: int, found: list[ast.stmt]) -> ast.Call | None:
    """Add the statements before a line; of an ``if`` around it, those before it in there."""
    for statement in block:
        if not statement.lineno <= line <= (statement.end_lineno or line):
            if statement.lineno > line:
                return None
            found.append(statement)
            continue
        if isinstance(statement, ast.If):
            inside = statement.body if line < _first_line(statement.orelse) else statement.orelse
            return _walk_to(inside, line, found)
        calls = [node for node in ast.walk(statement) if isinstance(node, ast.Call)]
        known = [c for c in calls if isinstance(c.func, ast.Attribute) and c.func.attr in _CALLS]
        return known[0] if known else None
    return None


_CALLS = ("plain_loop", "fit")


def _first_line(block: list[ast.stmt]) -> float:
    return block[0].lineno if block else float("inf")


def _function_at(tree: ast.Module, name: str, line: int) -> ast.FunctionDef | None:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return node
    return None


def _is_main_block(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.If) and "__name__" in names_read(statement.test)
