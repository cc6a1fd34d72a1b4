"""The step of a pass in plain PyTorch: the user's own lines, with the library's verbs written out.

A step calls ``self.loss(out, y)``, and in the script stands what it does: the loss function, the
backward pass, the optimizer's step, the sums for the metrics.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ..hooks import is_of_library
from ..patches import PatchBase, ValuePatch
from ..steps import DEFAULT_STEPS, Steps
from .gaps import MARK, place_of
from .parts import Parts, code_of
from .source import Edit, Source, arguments_of, bound_names, is_none, names_read, source_of

if TYPE_CHECKING:
    from .passes import PassWriter

VERBS = ("loss", "backward", "optimize", "do_metric", "call_model", "record")
UNKNOWN = ("trainer", "run", "opt", "session", "runtime", "accelerator", "batch_patch_dict")
LAZY = (
    ast.Lambda,
    ast.ListComp,
    ast.SetComp,
    ast.DictComp,
    ast.GeneratorExp,
    ast.IfExp,
    ast.BoolOp,
)
"""Parts of an expression that run later, often or never."""


class StepWriter:
    """Writes the lines of one step, or of another method of its object.

    Attributes:
        lines: the lines that were written.
        inputs: the names that the step gives to inputs and target.
        source: of the step; empty where it was not found.
    """

    _verbs: PassWriter

    def __init__(self, step: Callable[..., Any], parts: Parts) -> None:
        self.lines: list[str] = []
        self.inputs = "batch_x", "batch_y"
        self.step = step
        self.source = source_of(step) or Source("")
        self._parts, self._gaps = parts, parts.gaps
        self._owner = getattr(step, "__self__", None)
        self._self, self._indent, self._line = "self", "", 0
        self._lazy = 0
        self._num_blocks = self._num_loops = 0  # around the statement, of those that may not run
        self._has_left = False  # an earlier statement may have ended the mini-batch
        self._called: set[int] = set()  # nodes that are called, by id
        self._unknown: list[str] = []
        self._used: set[str] = set()
        found = next(iter(self.source.tree.body), None)
        self.tree = found if isinstance(found, ast.FunctionDef) else None
        if self.tree is not None:
            args = [one.arg for one in (*self.tree.args.posonlyargs, *self.tree.args.args)]
            self._self = ""
            if inspect.ismethod(step):  # a static method has no object
                self._self, *args = args or ["self"]
            self._args = args
            x, y = [*args, *self.inputs[len(args) :]][:2]
            self.inputs = x, y

    @property
    def own_names(self) -> set[str]:
        """The names in the step's code."""
        return set() if self.tree is None else {
            node.id for node in ast.walk(self.tree) if isinstance(node, ast.Name)
        } | set(self._args)  # fmt: skip

    @property
    def is_sure(self) -> bool:
        """Whether each mini-batch comes to the present statement, and once."""
        return not self._num_blocks and not self._has_left

    @property
    def is_reached(self) -> bool:
        """Whether each mini-batch comes to the present statement, at least once."""
        return self._num_blocks == self._num_loops and not self._has_left

    @property
    def read_names(self) -> set[str]:
        """The names that the lines read."""
        return names_read(ast.parse("\n".join(self.lines)))

    @property
    def assigned(self) -> set[str]:
        """The names that the step sets."""
        return set() if self.tree is None else set().union(*map(bound_names, self.tree.body))

    def write(self, step_args: Mapping[str, Any], verbs: PassWriter) -> list[str]:
        """Write the body of the step, for a task's step arguments; ``verbs`` are those of a pass."""
        self._verbs = verbs
        if self.tree is None:
            where = self.step.__qualname__
            self.lines.append(self._gaps.not_written(f"{where}, whose source was not found"))
            return self.lines
        has_docstring = ast.get_docstring(self.tree) is not None
        body = self.tree.body[has_docstring:]
        before = [self.tree.body[0]] if has_docstring else [*ast.walk(self.tree.args)]
        self._line = max(getattr(one, "end_lineno", None) or self.tree.lineno for one in before)
        self._write_block(body, "", ends=True)
        self.lines[:0] = self._argument_lines(self.tree.args, step_args)
        return self.lines

    def write_function(self, name: str, verbs: PassWriter) -> list[str]:
        """Write a method that a step calls, as a function."""
        self._verbs = verbs
        if self.tree is None:
            return [self._gaps.fill_in(name, f"{name}, whose source was not found")]
        edits: list[Edit] = []
        for statement in self.tree.body:
            self._lazy += 1  # the verbs are those of the step
            self._look(statement, edits)
        args = self.tree.args
        if self._self:
            (args.posonlyargs or args.args).pop(0)
        start = self.source.span(self.tree.body[0])[0]
        body = self.source.between(start, self.source.span(self.tree.body[-1])[1], edits)
        kinds = ("staticmethod", "classmethod")
        decorators = [ast.unparse(one) for one in self.tree.decorator_list]
        lines = [f"@{one}" for one in decorators if one not in kinds]
        lines += [f"def {name}({ast.unparse(args)}):", f"    {body}"]
        if self._unknown:
            what = f"{', '.join(self._unknown)} in {self.step.__qualname__}"
            lines.insert(0, self._gaps.not_written(what))
        return "\n".join(lines).splitlines()

    def _argument_lines(self, args: ast.arguments, step_args: Mapping[str, Any]) -> list[str]:
        """The step arguments of the task that the lines read."""
        positional = self._args
        defaults = dict(zip(positional[::-1], args.defaults[::-1], strict=False))
        pairs = zip(args.kwonlyargs, args.kw_defaults, strict=True)
        defaults.update((one.arg, default) for one, default in pairs if default is not None)
        texts = {name: ast.unparse(default) for name, default in defaults.items()}
        named = [*positional[2:], *(one.arg for one in args.kwonlyargs)]
        values = {name: step_args[name] for name in named if name in step_args}
        if args.kwarg is not None:
            values[args.kwarg.arg] = {k: v for k, v in step_args.items() if k not in named}
        name_of = self._parts.prelude.name_of
        # One that has no text is not to get the default.
        texts.update((name, code_of(value) or name_of(value)) for name, value in values.items())
        lines, read = [], self.read_names
        for name in (name for name in [*named, *values] if name in read):
            line = f"{name} = {texts[name]}" if texts.get(name) else ""
            lines.append(line or self._gaps.fill_in(name, f"the step argument {name}"))
        return list(dict.fromkeys(lines))

    # --- statements

    def _write_block(
        self, block: list[ast.stmt], indent: str, *, ends: bool = False, is_elif: bool = False
    ) -> None:
        for index, statement in enumerate(block):
            self._indent = indent
            self._write_comments(statement.lineno)
            is_last = ends and index == len(block) - 1
            self._write_statement(statement, is_last=is_last, is_elif=is_elif)
            self._line = max(self._line, statement.end_lineno or 0)

    def _write_comments(self, line: int) -> None:
        """Write the comments between the last statement and a line."""
        between = (text.strip() for text in self.source.lines[self._line : line - 1])
        self._add(*(text for text in between if text.startswith("#")))

    def _write_statement(self, statement: ast.stmt, *, is_last: bool, is_elif: bool) -> None:
        if isinstance(statement, ast.Return):
            self._write_return(statement, is_last=is_last)
        elif isinstance(statement, ast.If) and self._decided(statement.test) is not None:
            chosen = self._chosen([statement])
            self._line = chosen[0].lineno - 1 if chosen else 0
            self._write_block(chosen, self._indent, ends=is_last)
        elif isinstance(statement, (ast.If, ast.For, ast.While, ast.With)):
            self._write_compound(statement, is_elif=is_elif)
        else:
            self._write_simple(statement)

    def _write_simple(self, statement: ast.stmt) -> None:
        if self._is_ours(statement):
            self._write_unknown(statement)
            return
        target = None
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            target = statement.targets[0].id
        edits: list[Edit] = []
        if isinstance(statement, (ast.FunctionDef, ast.Try)):
            self._lazy += 1
        self._look(statement, edits, target)
        self._lazy = 0
        if self._unknown and isinstance(statement, ast.Expr):
            self._unknown.clear()
            self._write_unknown(statement)
            return
        text = self.source.segment(statement, edits)
        if _does_nothing(text, bool(edits)):
            return
        is_definition = isinstance(statement, ast.FunctionDef)
        self.lines += [""] if is_definition else []
        self._add(f"{self._reindented(text, statement)}{self._trailing(statement)}")
        self.lines += [""] if is_definition else []

    def _write_unknown(self, statement: ast.stmt) -> None:
        """Stand in for a statement that needs the library."""
        what = " ".join(self.source.segment(statement).split()) + self._where(statement)
        targets = sorted(bound_names(statement))
        if not targets or not isinstance(statement, (ast.Assign, ast.AnnAssign)):
            self._add(self._gaps.not_written(what))
        else:
            value = statement.value
            text = "..." if value is None else " ".join(self.source.segment(value).split())
            self._add(f"{' = '.join(targets)} = {MARK}{self._gaps.fill_in_here(text)}")

    def _decided(self, test: ast.expr) -> bool | None:
        """Whether a comparison of ``self.stage`` holds in this pass; ``None``: it is another test."""
        if not isinstance(test, ast.Compare) or self._own_name(test.left) != "stage":
            return None
        other, operator = test.comparators[0], test.ops[0]
        named = getattr(other, "value", "") if isinstance(other, ast.Constant) else ""
        named = named or getattr(other, "attr", "").lower()  # of Stage.TRAIN
        is_same = f'"{named}"' == self._verbs.known("stage")
        if not isinstance(operator, (ast.Eq, ast.NotEq, ast.Is, ast.IsNot)):
            return None
        return is_same is isinstance(operator, (ast.Eq, ast.Is))

    def _chosen(self, block: list[ast.stmt]) -> list[ast.stmt]:
        """The block itself, or what is left of an ``if`` that asks for the stage."""
        first = block[0] if len(block) == 1 else None
        decided = self._decided(first.test) if isinstance(first, ast.If) else None
        if decided is None or not isinstance(first, ast.If):
            return block
        return self._chosen(first.body if decided else first.orelse)

    def _write_compound(self, statement: Any, *, is_elif: bool) -> None:
        indent = self._indent
        start, first = self.source.span(statement)[0], self.source.span(statement.body[0])[0]
        if self.source.between(start, first).startswith("elif") and not is_elif:
            start += 2
        parts = [one for one in ast.iter_child_nodes(statement) if not isinstance(one, ast.stmt)]
        nodes = (node for part in parts for node in ast.walk(part))
        end = max(self.source.span(node)[1] for node in nodes if hasattr(node, "lineno"))
        edits: list[Edit] = []
        self._lazy += is_elif or isinstance(
            statement, ast.While
        )  # lines before it run at all times
        for part in parts:
            self._look(part, edits)
        self._lazy = 0
        before, _, rest = self.source.between(end, first).partition(":")
        header = self.source.between(start, end, edits) + before
        comment = rest.strip().splitlines()[:1] if rest.strip().startswith("#") else []
        self._add(self._reindented(header, statement) + ":" + "".join(f"  {c}" for c in comment))
        self.lines[-1] += self._noted()
        self._line = header.count("\n") + statement.lineno
        number, is_loop = len(self.lines), isinstance(statement, (ast.For, ast.While))
        self._num_blocks += not isinstance(statement, ast.With)
        self._num_loops += is_loop
        self._write_block(statement.body, f"{indent}    ")
        self._num_loops -= is_loop
        if len(self.lines) == number:  # such as an optimizer step, in validation
            self._add("pass")
        orelse = self._chosen(getattr(statement, "orelse", []))
        if orelse:
            self._indent = indent
            continues = self.source.segment(orelse[0]).startswith("elif")
            if not continues:
                self._add("else:")
                self._line, indent = orelse[0].lineno - 1, f"{indent}    "
            self._write_block(orelse, indent, is_elif=continues)
        self._num_blocks -= not isinstance(statement, ast.With)

    def _write_return(self, statement: ast.Return, *, is_last: bool) -> None:
        value = _as_dict(statement.value)
        if isinstance(value, ast.Dict) and all(isinstance(k, ast.Constant) for k in value.keys):
            for key, each in zip(value.keys, value.values, strict=True):
                self._write_value(str(key.value), each)  # type: ignore[union-attr]
        elif value is not None and not isinstance(value, ast.Constant):
            edits: list[Edit] = []
            self._look(value, edits)
            if not edits or not self.source.segment(value, edits).isidentifier():
                what = f"return {' '.join(self.source.segment(value).split())}"
                self._add(self._gaps.not_written(what + self._where(statement)))
        if not is_last and self._num_loops:
            what = f"the return that ends this loop and the step{self._where(statement)}"
            self._add(self._gaps.not_written(what), "break")
        elif not is_last:
            self._add(*self._verbs.ending(), "continue")
        self._has_left = self._has_left or not is_last

    def _write_value(self, name: str, value: ast.expr) -> None:
        """Record a value that the step returns; a patch needs the library, but for a mean."""
        value = self._mean_in(value)
        if self._is_ours(value):
            what = f'"{name}": {" ".join(self.source.segment(value).split())}'
            self._add(self._gaps.not_written(what + self._where(value)))
            return
        edits: list[Edit] = []
        self._look(value, edits)
        self._add(*self._verbs.record(name, self.source.segment(value, edits), "mean"))

    def _mean_in(self, value: ast.expr) -> ast.expr:
        """The mean in ``ValuePatch(len(batch_y)).load(mean)``; else the value."""
        make = getattr(getattr(value, "func", None), "value", None)
        if not isinstance(value, ast.Call) or not isinstance(make, ast.Call):
            return value
        is_load = getattr(value.func, "attr", "") == "load"
        if not is_load or self._object(make.func) is not ValuePatch:
            return value
        if len(make.args) != 1 or make.keywords or len(value.args) != 1:
            return value
        weight = self._text(make.args[0])
        is_plain = not isinstance(value.args[0], ast.Dict) and self._verbs.is_weight(weight)
        return value.args[0] if is_plain else value

    def _add(self, *lines: str) -> None:
        self.lines += [self._indent + one for line in lines for one in line.splitlines() or [""]]

    def _reindented(self, text: str, statement: ast.stmt) -> str:
        first, *rest = text.splitlines()
        margin = " " * statement.col_offset
        return "\n".join([first, *(line.removeprefix(margin) for line in rest)])

    def _trailing(self, statement: ast.stmt) -> str:
        """The comment at the end of a statement, and what is unknown in it."""
        line = self.source.lines[(statement.end_lineno or 1) - 1].encode()
        rest = line[statement.end_col_offset :].decode().strip()
        return (f"  {rest}" if rest.startswith("#") else "") + self._noted()

    def _noted(self) -> str:
        found, self._unknown = self._unknown, []
        return self._gaps.fill_in_here(", ".join(dict.fromkeys(found))) if found else ""

    def _where(self, node: Any) -> str:
        place = place_of(self.step)
        file, _, line = place.strip(" ()").rpartition(":")
        return f" ({file}:{int(line) + node.lineno - 1})" if file else ""

    # --- expressions

    def _look(self, node: ast.AST, edits: list[Edit], target: str | None = None) -> None:
        """Note what is to stand in place of the verbs and attributes in some code."""
        text = self._replaced(node, target)
        if text is not None:
            edits.append((*self.source.span(node), text))
            return
        is_lazy = isinstance(node, LAZY)
        self._lazy += is_lazy
        for child in ast.iter_child_nodes(node):
            is_value = child is getattr(node, "value", None) and isinstance(node, ast.Assign)
            self._look(child, edits, target if is_value else None)
        self._lazy -= is_lazy

    def _replaced(self, node: ast.AST, target: str | None) -> str | None:
        """What stands in place of a node; ``None``: it stays, or its parts are looked at."""
        if isinstance(node, ast.IfExp) and (decided := self._decided(node.test)) is not None:
            return self._text(node.body if decided else node.orelse)
        if isinstance(node, ast.JoinedStr) and any(map(self._own_name, ast.walk(node))):
            return self._unknown_text(node)
        if isinstance(node, ast.Call):
            self._called.add(id(node.func))
            name = self._own_name(node.func)
            if name in VERBS:
                return self._unknown_text(node) if self._lazy else self._verb(name, node, target)
            if _is_super(node.func):
                return self._super(node)
        if isinstance(node, ast.Attribute):
            if known := self._optimizer(node):
                return known
            root: ast.expr = node
            while isinstance(root, ast.Attribute) and self._own_name(root) is None:
                root = root.value
            name = self._own_name(root)
            if name is not None:
                return self._attribute(name, root, node)
        return None

    def _optimizer(self, node: ast.Attribute) -> str:
        """The expression of ``self.opt[1].zero_grad`` and ``.param_groups``; ``''``: it is another."""
        inner = node.value
        if node.attr not in ("zero_grad", "param_groups") or not isinstance(inner, ast.Subscript):
            return ""
        index = getattr(inner.slice, "value", None)
        owner = getattr(inner.value, "value", None)
        of_trainer = owner is not None and self._own_name(owner) == "trainer"
        is_opt = getattr(inner.value, "attr", "") == "opt"
        is_own = is_opt and (of_trainer or self._own_name(inner.value) is not None)
        known = self._verbs.known(f"opt[{index}]") if is_own else ""
        return f"{known}.{node.attr}" if known else ""

    def _own_name(self, node: ast.AST) -> str | None:
        """The name of an attribute of the step's object."""
        is_own = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
        return node.attr if is_own and node.value.id == self._self else None  # type: ignore[attr-defined]

    def _unknown_text(self, node: ast.AST) -> str:
        self._unknown.append(" ".join(self.source.segment(node).split()))
        return MARK

    def _text(self, node: ast.AST) -> str:
        """The text of an expression, after the lines of the verbs in it."""
        edits: list[Edit] = []
        self._look(node, edits)
        text = self.source.segment(node, edits)
        return text if "\n" not in text else " ".join(text.split())

    def _attribute(self, name: str, root: ast.AST, node: ast.Attribute) -> str:
        end = self.source.span(node)[1]
        rest = self.source.between(self.source.span(root)[1], end)  # such as .g in self.model.g
        if known := self._verbs.known(name + rest):
            is_model = (name + rest).removeprefix("trainer.") == "model"
            return self._model(node, known) if is_model else known
        if known := self._verbs.known(name):
            return known + rest
        if name in UNKNOWN or (name in VERBS and not rest):
            return self._unknown_text(node)
        value, held = getattr(self._owner, name, None), getattr(self._owner, "__dict__", {})
        is_method = isinstance(self._owner, type) or name not in held
        if is_method and (inspect.ismethod(value) or inspect.isfunction(value)):
            return self._parts.method(self._owner, name, self._write_method) + rest
        return self._parts.own(self._owner, name) + rest

    def _write_method(self, method: Any, name: str) -> list[str]:
        return StepWriter(method, self._parts).write_function(name, self._verbs)

    def _model(self, node: ast.Attribute, net: str) -> str:
        """The model, or what computes with it in mixed precision."""
        if id(node) in self._called or self._verbs.model == net:
            return self._verbs.model
        self._add(self._gaps.not_written("mixed precision of the model by another name"))
        return net

    def _is_ours(self, node: ast.AST) -> bool:
        """Whether code calls something of the library, or of what inherits from its patches."""
        calls = (one.func for one in ast.walk(node) if isinstance(one, ast.Call))
        found = [*map(self._object, calls)]
        is_patch = any(isinstance(one, type) and issubclass(one, PatchBase) for one in found)
        return is_patch or any(map(is_of_library, found))

    def _object(self, node: ast.expr) -> Any:
        """The object that a name in the step's code stands for."""
        if isinstance(node, ast.Attribute):
            return getattr(self._object(node.value), node.attr, None)
        names = getattr(self.step, "__globals__", {})
        return names.get(node.id) if isinstance(node, ast.Name) else None

    def _super(self, node: ast.Call) -> str:
        """The step of the class above: the library's own can be written out."""
        name = getattr(node.func, "attr", "")
        classes = iter(type(self._owner).__mro__)
        own = getattr(self.step, "__func__", self.step)
        for cls in classes:
            if vars(cls).get(self.step.__name__) is own:
                break
        above = next((vars(cls)[name] for cls in classes if name in vars(cls)), None)
        if above not in DEFAULT_STEPS or len(node.args) < 2 or self._lazy:
            return self._unknown_text(node)
        inputs, target = map(self._text, node.args[:2])
        out = self._verbs.names.free("out", "batch_out")
        self._add(f"{out} = {self._verbs.model}(*{inputs})")
        self._write_loss(out, target, "", {}, None)
        return "None"

    # --- verbs

    def _verb(self, name: str, node: ast.Call, target: str | None) -> str:
        order = {
            "loss": ("model_out", "batch_y"),
            "backward": ("value",),
            "optimize": ("optimize_index",),
            "do_metric": ("loss", "model_out", "batch_y"),
            "call_model": ("batch_x",),
            "record": ("name", "value"),
        }[name]
        given = arguments_of(node, order)
        if getattr(type(self._owner), name, None) is not getattr(Steps, name):
            what = f"{type(self._owner).__name__}.{name}"
            where = place_of(getattr(type(self._owner), name, None))
            self._add(self._gaps.not_written(what + where))
        if name == "call_model":
            return f"{self._verbs.model}(*{self._text(given['batch_x'])})"
        if name == "record":
            return self._write_record(node, given)
        if name == "loss":
            out = self._as_name(given["model_out"], "out", "batch_out")
            share = self._share(given)
            return self._write_loss(out, self._text(given["batch_y"]), share, given, target)
        if "closure" in given:
            return self._write_closure(node, given)
        if name == "optimize":
            index = given.get("optimize_index")
            chosen = index.value if isinstance(index, ast.Constant) else None
            self._add(*self._verbs.optimize(chosen if isinstance(chosen, int) else None))
        elif name == "backward":
            loss = self._as_name(given["value"], "loss", "batch_loss")
            self._add(*self._verbs.backward(loss, self._share(given)))
        else:
            self._record(given)
        return "None"

    def _write_closure(self, node: ast.Call, given: Mapping[str, ast.expr]) -> str:
        """Write ``self.optimize(closure=lambda: self.loss(out, y, do_optimize=False))``."""
        closure, index = given["closure"], given.get("optimize_index")
        call = closure.body if isinstance(closure, ast.Lambda) else None
        if not isinstance(call, ast.Call) or self._own_name(call.func) != "loss":
            return self._unknown_text(node)
        of_loss = arguments_of(call, ("model_out", "batch_y"))
        chosen = getattr(index, "value", None)
        if _is_on(of_loss.get("do_optimize")) or not (index is None or isinstance(chosen, int)):
            return self._unknown_text(node)
        before, indent, self.lines, self._indent = self.lines, self._indent, [], ""
        out = self._new_name("out", "batch_out")
        self._add(f"{out} = {self._text(of_loss['model_out'])}")
        y, loss = self._text(of_loss["batch_y"]), self._new_name("loss", "batch_loss")
        self._add(f"{loss} = {self._verbs.loss(out, y)}")
        self._add(*self._verbs.backward(loss, self._share(of_loss)))
        inner, self.lines, self._indent = self.lines, before, indent
        self._add(*self._verbs.with_closure(chosen, inner, [out, loss]))
        if _is_on(of_loss.get("do_metric")):
            self._add(*self._verbs.record_loss(loss), *self._verbs.record_metrics(out, y))
        return "None"

    def _write_record(self, node: ast.Call, given: Mapping[str, ast.expr]) -> str:
        name, how = given["name"], given.get("how", ast.Constant("mean"))
        if "weight" in given or not isinstance(name, ast.Constant):
            return self._unknown_text(node)
        if not isinstance(how, ast.Constant):
            return self._unknown_text(node)
        value = self._text(given["value"])
        self._add(*self._verbs.record(str(name.value), value, str(how.value)))
        return "None"

    def _share(self, given: Mapping[str, ast.expr]) -> str:
        return self._text(given["loss_adjust"]) if "loss_adjust" in given else ""

    def _write_loss(
        self, out: str, y: str, share: str, given: Mapping[str, ast.expr], target: str | None
    ) -> str:
        loss = target or self._new_name("loss", "batch_loss")
        if self._verbs.has_loss:
            self._add(f"{loss} = {self._verbs.loss(out, y)}")
            self._add(*self._verbs.backward(loss, share))
            if _is_on(given.get("do_optimize")):
                self._add(*self._verbs.optimize(None))
        if _is_on(given.get("do_metric")):
            if self._verbs.has_loss:
                self._add(*self._verbs.record_loss(loss))
            self._add(*self._verbs.record_metrics(out, y))
        return loss if self._verbs.has_loss else "None"

    def _record(self, given: Mapping[str, ast.expr]) -> None:
        loss, out, y = map(given.get, ("loss", "model_out", "batch_y"))
        if loss is not None and not is_none(loss):
            name = self._as_name(loss, "loss", "batch_loss")
            self._add(*self._verbs.record_loss(name))
        if out is not None and not is_none(out) and self._verbs.has_metrics:
            name = self._as_name(out, "out", "batch_out")
            self._add(*self._verbs.record_metrics(name, "None" if y is None else self._text(y)))

    def _as_name(self, node: ast.expr, *wanted: str) -> str:
        text = self._text(node)
        if text.isidentifier():
            return text
        name = self._new_name(*wanted)
        self._add(f"{name} = {text}")
        return name

    def _new_name(self, *wanted: str) -> str:
        """A name for a value; that of an earlier one is used again."""
        known = next((name for name in wanted if name in self._used), None)
        name = known or self._verbs.names.free(*wanted)
        self._used.add(name)
        return name


def _as_dict(value: ast.expr | None) -> ast.expr | None:
    """``dict(one=1)`` as ``{"one": 1}``; else the value."""
    is_call = isinstance(value, ast.Call) and getattr(value.func, "id", "") == "dict"
    if not is_call or not isinstance(value, ast.Call) or value.args:
        return value
    if not all(one.arg for one in value.keywords):
        return value
    keys: list[ast.expr | None] = [ast.Constant(one.arg) for one in value.keywords]
    return ast.Dict(keys, [one.value for one in value.keywords])


def _does_nothing(text: str, is_changed: bool) -> bool:
    """Whether what is left of a statement does nothing, such as ``model = model``."""
    if not is_changed:
        return False
    (left, _, right) = text.partition(" = ")
    return text == "None" or text.isidentifier() or (left == right and left.isidentifier())


def _is_super(node: ast.AST) -> bool:
    call = getattr(node, "value", None)
    return isinstance(call, ast.Call) and getattr(call.func, "id", "") == "super"


def _is_on(node: ast.expr | None) -> bool:
    return node is None or not (isinstance(node, ast.Constant) and node.value is False)
