"""The step of a pass in plain PyTorch: the user's own lines, with the library's verbs written out.

A step calls ``self.loss(out, y)``, and in the script stands what it does: the loss function, the
backward pass, the optimizer's step, the sums for the metrics.
"""

from __future__ import annotations

import ast
import copy
import inspect
import textwrap
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

VERBS = ("loss", "backward", "optimize", "do_metric", "call_model")


class Verbs(NamedTuple):
    """What the verbs do in one pass, as lines of code.

    Attributes:
        backward: of the name of a loss, and of its share of the mini-batch, if that is given.
        optimize: of the index of an optimizer; ``None``: all of them.
        record_loss: of the name of a loss.
        record_metrics: of the names of outputs and targets.
        record_value: of the name of a value, and of an expression.
        loss: the expression of the loss function.
        model: the expression of the model.
        do_loss: whether the pass has a loss.
    """

    backward: Callable[[str, str | None], list[str]]
    optimize: Callable[[int | None], list[str]]
    record_loss: Callable[[str], list[str]]
    record_metrics: Callable[[str, str], list[str]]
    record_value: Callable[[str, str], list[str]]
    loss: str
    model: str
    do_loss: bool


class StepWriter:
    """Writes the lines of one step.

    Attributes:
        lines: the lines of the step.
        functions: other methods that it calls, as functions.
        attributes: what it reads of its object, by name.
        unknown: what cannot be written out, in words.
    """

    def __init__(
        self, step: Callable[..., Any], verbs: Verbs, step_args: Mapping[str, Any]
    ) -> None:
        self.verbs = verbs
        self.lines: list[str] = []
        self.functions: dict[str, list[str]] = {}
        self.attributes: dict[str, Any] = {}
        self.unknown: list[str] = []
        self._owner = getattr(step, "__self__", None)
        self._number = 0
        self._self = "self"
        self._write(step, step_args)

    def _write(self, step: Callable[..., Any], step_args: Mapping[str, Any]) -> None:
        tree = parsed(step)
        if tree is None:
            self.unknown.append(f"the source of {step.__qualname__} was not found")
            self.lines.append(f"...  # FILL IN: {step.__qualname__}")
            return
        names = [one.arg for one in (*tree.args.posonlyargs, *tree.args.args)]
        self._self, *names = names
        for given, meant in zip(names, ("batch_x", "batch_y"), strict=False):
            if given != meant:
                self.lines.append(f"{given} = {meant}")
        self._write_arguments(tree.args, names[2:], step_args)
        body = tree.body[ast.get_docstring(tree) is not None :]
        for index, statement in enumerate(body):
            self._write_statement(statement, "", is_last=index == len(body) - 1)

    def _write_arguments(
        self, args: ast.arguments, names: list[str], step_args: Mapping[str, Any]
    ) -> None:
        """Write the step arguments of the task that the step takes."""
        named = [*names, *(one.arg for one in args.kwonlyargs)]
        defaults = dict(zip(names[::-1], args.defaults[::-1], strict=False))
        defaults.update(
            (one.arg, default)
            for one, default in zip(args.kwonlyargs, args.kw_defaults, strict=True)
            if default is not None
        )
        for name in named:
            if name in step_args:
                self.lines.append(f"{name} = {step_args[name]!r}")
            elif name in defaults:
                self.lines.append(f"{name} = {ast.unparse(defaults[name])}")
        if args.kwarg is not None and (
            rest := {k: v for k, v in step_args.items() if k not in named}
        ):
            self.lines.append(f"{args.kwarg.arg} = {rest!r}")

    # --- statements

    def _write_statement(self, statement: ast.stmt, indent: str, *, is_last: bool) -> None:
        if isinstance(statement, ast.Return):
            self._write_return(statement, indent, is_last=is_last)
        elif blocks := list(_blocks(statement)):
            self._write_compound(statement, blocks, indent)
        else:
            new = self._rewrite(statement, indent)
            is_bare = isinstance(new, ast.Expr) and isinstance(new.value, (ast.Name, ast.Constant))
            is_itself = (
                isinstance(new, ast.Assign)
                and isinstance(new.value, ast.Name)
                and ast.unparse(new.targets[0]) == new.value.id
            )
            if not is_bare and not is_itself:
                self._add(indent, ast.unparse(new))

    def _write_compound(
        self, statement: ast.stmt, blocks: list[tuple[str, list[ast.stmt]]], indent: str
    ) -> None:
        shell = copy.copy(statement)
        for name, _ in blocks:
            setattr(shell, name, [ast.Pass()] if name == "body" else [])
        header = ast.unparse(self._rewrite(shell, indent)).splitlines()[0]
        if isinstance(statement, (ast.FunctionDef, ast.Try, ast.Match)):
            self._add(indent, ast.unparse(self._rewrite(statement, indent)))
            return
        self._add(indent, header)
        for name, block in blocks:
            if name == "orelse":
                self._add(indent, "else:")
            for inner in block:
                self._write_statement(inner, indent + "    ", is_last=False)

    def _write_return(self, statement: ast.Return, indent: str, *, is_last: bool) -> None:
        value = statement.value
        if isinstance(value, ast.Dict):
            for key, each in zip(value.keys, value.values, strict=True):
                if isinstance(key, ast.Constant):
                    node = self._rewrite(ast.Expr(each), indent)
                    text = ast.unparse(node.value)  # type: ignore[attr-defined]
                    for line in self.verbs.record_value(str(key.value), text):
                        self._add(indent, line)
        elif value is not None and not isinstance(value, ast.Constant):
            new = self._rewrite(ast.Expr(value), indent)
            if not isinstance(new.value, ast.Name):  # type: ignore[attr-defined]
                self._add(indent, f"...  # NOT WRITTEN OUT: return {ast.unparse(value)}")
                self.unknown.append(f"what the step returns: {ast.unparse(value)}")
        if not is_last:
            self._add(indent, "continue")

    def _add(self, indent: str, text: str) -> None:
        self.lines += [indent + line for line in text.splitlines()]

    # --- expressions

    def _rewrite(self, statement: Any, indent: str) -> Any:
        """Write what the verbs in a statement do before it, and give the statement without them."""
        statement = copy.deepcopy(statement)
        target = None
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            target = statement.targets[0].id
        writer = self

        class Rewriter(ast.NodeTransformer):
            def visit_Call(self, node: ast.Call) -> Any:
                self.generic_visit(node)
                name = writer._own_name(node.func)
                if name in VERBS:
                    is_value = getattr(statement, "value", None) is node
                    return writer._verb(name, node, indent, target if is_value else None)
                if name is not None and inspect.ismethod(getattr(writer._owner, name, None)):
                    return writer._call_of_method(name, node)
                return node

            def visit_Attribute(self, node: ast.Attribute) -> Any:
                self.generic_visit(node)
                name = writer._own_name(node)
                return node if name is None else writer._attribute(name, node)

        return ast.fix_missing_locations(Rewriter().visit(statement))

    def _own_name(self, node: ast.AST) -> str | None:
        """The name of an attribute of the step's object."""
        is_own = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
        return node.attr if is_own and node.value.id == self._self else None  # type: ignore[attr-defined]

    def _attribute(self, name: str, node: ast.Attribute) -> ast.expr:
        if name in VERBS or inspect.ismethod(getattr(self._owner, name, None)):
            return node  # the call around it is written out
        if name == "model":
            return _expression(self.verbs.model)
        if name == "loss_fn":
            return _expression(self.verbs.loss)
        if name in ("trainer", "run", "opt", "session", "runtime"):
            self.unknown.append(f"self.{name}")
            return node
        self.attributes[name] = getattr(self._owner, name, None)
        return _expression(f"own.{name}", node.ctx)

    def _call_of_method(self, name: str, node: ast.Call) -> ast.Call:
        """Call another method of the user's as a function."""
        if name not in self.functions:
            self.functions[name] = []
            tree = parsed(getattr(self._owner, name))
            if tree is None:
                self.unknown.append(f"the source of {name} was not found")
            else:
                inner = StepWriter.__new__(StepWriter)
                inner.__dict__.update({**vars(self), "lines": []})
                inner._self = tree.args.args.pop(0).arg if tree.args.args else ""
                tree.decorator_list = []
                new = inner._rewrite(tree, "")
                self.functions[name] = ast.unparse(new).splitlines()
                if inner.lines:
                    self.unknown.append(f"the verbs in {name}")
        node.func = ast.Name(name, ast.Load())
        return node

    def _verb(self, name: str, node: ast.Call, indent: str, target: str | None) -> ast.expr:
        given = [*node.args]
        options = {keyword.arg: keyword.value for keyword in node.keywords}
        if name == "call_model":
            return _expression(f"{self.verbs.model}(*{ast.unparse(given[0])})")
        if name == "optimize":
            index = given[0] if given else options.get("optimize_index")
            chosen = index.value if isinstance(index, ast.Constant) else None
            self._add_all(indent, self.verbs.optimize(chosen))  # type: ignore[arg-type]
            return ast.Constant(None)
        if name == "backward":
            loss = self._as_name(given[0], indent, "loss")
            self._add_all(indent, self.verbs.backward(loss, _text(options.get("loss_adjust"))))
            return ast.Constant(None)
        if name == "do_metric":
            names = ("loss", "model_out", "batch_y")
            by_name = dict(zip(names, given, strict=False)) | options
            self._record(
                by_name.get("loss"), by_name.get("model_out"), by_name.get("batch_y"), indent
            )
            return ast.Constant(None)
        return self._loss(given, options, indent, target)

    def _loss(
        self, given: list[ast.expr], options: dict[Any, ast.expr], indent: str, target: str | None
    ) -> ast.expr:
        by_name = dict(zip(("model_out", "batch_y"), given, strict=False)) | options
        model_out = self._as_name(by_name["model_out"], indent, "model_out")
        batch_y = ast.unparse(by_name["batch_y"])
        loss = target or self._new_name("loss")
        if self.verbs.do_loss:
            self._add(indent, f"{loss} = {self.verbs.loss}({model_out}, {batch_y})")
            self._add_all(indent, self.verbs.backward(loss, _text(options.get("loss_adjust"))))
            if _is_on(options.get("do_optimize")):
                self._add_all(indent, self.verbs.optimize(None))
        if _is_on(options.get("do_metric")):
            self._record(
                _expression(loss) if self.verbs.do_loss else None,
                _expression(model_out),
                by_name["batch_y"],
                indent,
            )
        return _expression(loss)

    def _record(
        self,
        loss: ast.expr | None,
        model_out: ast.expr | None,
        batch_y: ast.expr | None,
        indent: str,
    ) -> None:
        if loss is not None and not _is_none(loss):
            self._add_all(indent, self.verbs.record_loss(self._as_name(loss, indent, "loss")))
        if model_out is not None and not _is_none(model_out):
            out, y = self._as_name(model_out, indent, "model_out"), _text(batch_y) or "None"
            self._add_all(indent, self.verbs.record_metrics(out, y))

    def _as_name(self, node: ast.expr, indent: str, name: str) -> str:
        if isinstance(node, ast.Name):
            return node.id
        found = self._new_name(name)
        self._add(indent, f"{found} = {ast.unparse(node)}")
        return found

    def _new_name(self, name: str) -> str:
        used = {node.id for line in self.lines for node in _names(line)}
        number = 2
        found = name
        while found in used and name != "loss":
            found, number = f"{name}_{number}", number + 1
        return found

    def _add_all(self, indent: str, lines: list[str]) -> None:
        self.lines += [indent + line for line in lines]


def parsed(function: Callable[..., Any]) -> ast.FunctionDef | None:
    """The syntax tree of a function; ``None`` without its source."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return None
    return tree.body[0] if isinstance(tree.body[0], ast.FunctionDef) else None


def _blocks(statement: ast.stmt) -> Iterator[tuple[str, list[ast.stmt]]]:
    for name in ("body", "orelse"):
        block = getattr(statement, name, None)
        if isinstance(block, list) and block:
            yield name, block


def _names(line: str) -> Iterator[ast.Name]:
    try:
        tree = ast.parse(line.strip())
    except SyntaxError:
        return
    yield from (node for node in ast.walk(tree) if isinstance(node, ast.Name))


def _expression(text: str, ctx: ast.expr_context | None = None) -> Any:
    node: Any = ast.parse(text, mode="eval").body
    if ctx is not None:
        node.ctx = ctx
    return node


def _text(node: ast.expr | None) -> str | None:
    return None if node is None else ast.unparse(node)


def _is_on(node: ast.expr | None) -> bool:
    return node is None or not (isinstance(node, ast.Constant) and node.value is False)


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None
