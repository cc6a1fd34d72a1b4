"""A function or class of the script that makes the trainer, written so that it gives the parts of one.

Of ``return Trainer(net, F.mse_loss, opt), data`` remains ``return (net, opt), data``.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from typing import Any

from .ours import Ours
from .source import (
    Edit,
    Source,
    arguments_of,
    blocks_of,
    bound_names,
    is_none,
    names_read,
    seed_lines,
)


class Factory:
    """A function of the script that makes the trainer, written without the library.

    Attributes:
        text: the function without the library; ``''``: it cannot be written so.
        loss: the expression of a loss function that the module has; ``''``: it is a part, or nobody
            gave one.
        parts: what stands in place of the trainer, each with its kind: ``'model'``, ``'loss'``,
            ``'opt'`` or ``'scheduler'``.
        edits: what is changed in the source; the last one is that of the trainer.
        holder: the statement that makes the trainer.
        local: the names of the function.
    """

    def __init__(
        self, ours: Ours, source: Source, function: ast.FunctionDef, arguments: Sequence[str]
    ) -> None:
        """``arguments`` are the names of those of the trainer's class, in order."""
        self.text = self.loss = ""
        self.parts: list[tuple[str, str]] = []
        self._ours, self._source, self._function = ours, source, function
        self.local = {one.arg for one in ast.walk(function.args) if isinstance(one, ast.arg)}
        self.local |= set().union(*map(bound_names, function.body))
        self.holder: Any = None
        self._gone: set[str] = set()  # names whose statements are left out
        self._wrapped: dict[str, ast.Call] = {}  # name -> the Optimizer() that it is
        self.edits: list[Edit] = []
        calls = [one for one in ast.walk(function) if ours.makes(one, "TrainerBase")]
        if len(calls) != 1 or function.decorator_list:
            return
        (self._call,) = calls
        assert isinstance(self._call, ast.Call)
        if self._writes_block(function.body) and self._take_parts(arguments):
            text = source.segment(function, self.edits)
            self.text = text if self._is_whole(text) else ""

    def _take_parts(self, arguments: Sequence[str]) -> bool:
        """Note what the trainer is made of; say whether all of it can be written."""
        assert isinstance(self._call, ast.Call)
        given = arguments_of(self._call, arguments)
        model, loss = given.get("model"), given.get("loss")
        if model is None:
            return False
        self._add("model", model)
        if loss is not None and not is_none(loss):
            is_outside = names_read(loss).isdisjoint(self.local)
            if is_outside and isinstance(loss, (ast.Name, ast.Attribute)):
                self.loss = self._source.segment(loss)
            else:
                self._add("loss", loss)
        if not is_none(given.get("opt")):
            self._add_optimizers(given["opt"])
        text = ", ".join(text for _, text in self.parts)
        is_alone = self.holder is not None and self.holder.value is self._call
        text = text if is_alone or len(self.parts) == 1 else f"({text})"
        self.edits.append((*self._source.span(self._call), text))
        return not self.uses(model, *([loss] if loss is not None else []))

    def uses(self, *nodes: ast.AST) -> bool:
        """Whether code needs the library, names of the function aside."""
        ours = {*self._ours.names, *self._ours.tainted} - self.local
        return not names_read(*nodes).isdisjoint(ours)

    def _add(self, kind: str, node: ast.expr) -> None:
        text = self._source.segment(node)
        self.parts.append((kind, " ".join(text.split())))

    def _add_optimizers(self, node: ast.expr) -> None:
        if isinstance(node, (ast.List, ast.Tuple)):
            for each in node.elts:
                self._add_optimizers(each)
            return
        if isinstance(node, ast.Name) and node.id in self._wrapped:
            node = self._wrapped[node.id]
        made = self._ours.name(node.func) if isinstance(node, ast.Call) else ""
        if isinstance(node, ast.Call) and made in ("Optimizer", "Optimizers"):
            given = arguments_of(node, ["opt", "scheduler"])
            self._add_optimizers(given["opt"] if made == "Optimizer" else node.args[0])
            if made == "Optimizer" and not is_none(given.get("scheduler")):
                self._add("scheduler", given["scheduler"])
        else:
            self._add("opt", node)

    def _writes_block(self, block: list[ast.stmt]) -> bool:
        """Note what is to be left out of statements; say whether they can be written."""
        return all(map(self._writes, block))

    def _writes(self, statement: ast.stmt) -> bool:
        inner = [*blocks_of(statement)]
        if inner and not isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
            header = [
                one for one in ast.iter_child_nodes(statement) if not isinstance(one, ast.stmt)
            ]
            return not self.uses(*header) and all(map(self._writes_block, inner))
        if self._call in ast.walk(statement):
            self.holder = statement if isinstance(statement, (ast.Return, ast.Assign)) else None
            return self.holder is not None
        if isinstance(statement, (ast.Import, ast.ImportFrom)):
            is_kept = bool(Ours(None).look_at_import(statement))
            return is_kept or self._leave_out(statement)
        if not self.uses(statement):
            return True
        value, targets = getattr(statement, "value", None), getattr(statement, "targets", [None])
        if isinstance(value, ast.Call) and self._ours.name(value.func) == "set_seed":
            lines = seed_lines(self._source.segment(value.args[0]))
            text = f"\n{' ' * statement.col_offset}".join(lines)
            self.edits.append((*self._source.span(statement), text))
            return True
        if isinstance(targets[0], ast.Name) and value is not None:
            name = targets[0].id
            if isinstance(value, ast.Call) and self._ours.name(value.func) == "Optimizer":
                self._wrapped[name] = value
            return self._ours.only_makes(value) and self._leave_out(statement)
        return False

    def _leave_out(self, statement: ast.stmt) -> bool:
        self._gone |= bound_names(statement)
        nodes = (one for one in ast.walk(self._function) if isinstance(one, ast.stmt))
        above = [one.end_lineno or 0 for one in nodes if one is not statement]
        after = max((line for line in above if line < statement.lineno), default=0)
        self.edits.append((*self._source.lines_of(statement, after), ""))
        return True

    def _is_whole(self, text: str) -> bool:
        """Whether a text is a function that needs nothing that was left out."""
        tree = _parsed(text)
        if tree is None:
            return False
        trainer = getattr(getattr(self.holder, "targets", [None])[0], "id", "")
        owners = (one.value for one in ast.walk(tree) if isinstance(one, ast.Attribute))
        reads_trainer = any(isinstance(one, ast.Name) and one.id == trainer for one in owners)
        return not reads_trainer and not self.uses(tree) and not names_read(tree) & self._gone


def call_of(ours: Ours, statement: ast.stmt, trainer: Any) -> tuple[ast.Call, str] | None:
    """The call in ``trainer, data = make()``, and the targets with ``{}`` for the trainer."""
    value = getattr(statement, "value", None)
    if not isinstance(statement, ast.Assign) or not isinstance(value, ast.Call):
        return None
    target = statement.targets[0]
    if isinstance(target, ast.Name) and ours.value_of(target) is trainer:
        return value, "{}"
    if not isinstance(target, ast.Tuple):
        return None
    is_trainer = [ours.value_of(one) is trainer for one in target.elts]
    if is_trainer.count(True) != 1:
        return None
    texts = [
        "({})" if is_it else ast.unparse(one)
        for is_it, one in zip(is_trainer, target.elts, strict=True)
    ]
    return value, ", ".join(texts)


def _parsed(text: str) -> ast.Module | None:
    """The syntax tree of a text; ``None``: it has none, as a block in which nothing is left."""
    try:
        return ast.parse(text)
    except SyntaxError:
        return None


class FactoryClass:
    """A class of the script that makes the trainer, in one of its methods, and keeps it.

    Attributes:
        text: the class without the library; ``''``: it cannot be written so.
        loss: the expression of a loss function that the module has, as in ``Factory``.
        parts: those of the trainer, each with its kind, and ``{}`` for the object.
    """

    def __init__(
        self, ours: Ours, source: Source, node: ast.ClassDef, arguments: Sequence[str], line: int
    ) -> None:
        """``line`` is in the method in which the fit is called, which is not needed."""
        self.text = self.loss = ""
        self.parts: list[tuple[str, str]] = []
        methods = [one for one in node.body if isinstance(one, ast.FunctionDef)]
        around = [m for m in methods if m.lineno <= line <= (m.end_lineno or line)]
        makers = [m for m in methods if any(ours.makes(one, "TrainerBase") for one in ast.walk(m))]
        makers = [m for m in makers if m not in around]
        if len(makers) > 1 or ours.uses(*node.decorator_list, *node.bases):
            return
        self._source, edits, trainer = source, [], ""
        if makers:
            self._factory = Factory(ours, source, makers[0], arguments)
            target = getattr(self._factory.holder, "targets", [None])[0]
            if not self._factory.text or not isinstance(target, ast.Attribute):
                return
            self.loss, trainer = self._factory.loss, target.attr
            edits = [*self._factory.edits[:-1], self._edit(ast.unparse(target.value))]
        gone, after = {trainer}, node.lineno
        for one in node.body:
            needs = one in methods and one not in makers and self._needs(one, trainer, ours)
            if isinstance(one, ast.FunctionDef) and (needs or one in around):
                gone.add(one.name)
                edits.append((*source.lines_of(one, after), ""))
            after = one.end_lineno or after
        head = "".join(f"@{source.segment(one)}\n" for one in node.decorator_list)
        text = head + re.sub(r"\n\n\n+", "\n\n", source.segment(node, edits)).rstrip()
        if not isinstance(_parsed(text), ast.Module):
            return
        read = {one.attr for one in ast.walk(ast.parse(text)) if isinstance(one, ast.Attribute)}
        self.text = "" if read & gone or ours.uses(ast.parse(text)) else text

    def _needs(self, method: ast.stmt, trainer: str, ours: Ours) -> bool:
        """Whether a method needs the library, or the trainer."""
        attributes = (one.attr for one in ast.walk(method) if isinstance(one, ast.Attribute))
        return ours.uses(method) or trainer in attributes

    def _edit(self, owner: str) -> Edit:
        """What stands in place of the trainer: attributes of the parts that have none."""
        holder = self._factory.holder
        lines: list[str] = []
        for kind, text in self._factory.parts:
            root, _, rest = text.partition(".")
            is_name = all(one.isidentifier() for one in text.split("."))
            if root == owner and is_name:
                self.parts.append((kind, f"{{}}.{rest}"))
            elif is_name and root not in self._factory.local:
                self.parts.append((kind, text))
            else:
                name = {"model": "model", "loss": "loss_fn"}.get(kind, kind)
                name += f"_{len(lines) + 1}" if f"{owner}.{name}" in self._source.text else ""
                lines.append(f"{owner}.{name} = {text}")
                self.parts.append((kind, f"{{}}.{name}"))
        if not lines:
            return (*self._source.lines_of(holder, holder.lineno - 1), "")
        margin = " " * holder.col_offset
        return (*self._source.span(holder), f"\n{margin}".join(lines))
