"""What a script does before it trains: its lines up to a call, without those of the library.

Of ``Trainer(Net(), loss, opt)`` remains ``model = Net()``. So the lines that are left make the same
model and data, and draw the same random numbers.
"""

from __future__ import annotations

import ast
import builtins
import importlib.util
import inspect
import textwrap
from types import FrameType
from typing import Any, NamedTuple

from ..optim.fits import bare
from ..optim.optimizers import Optimizer
from .factory import Factory, FactoryClass, call_of
from .gaps import MARK, STOP, Gaps, Names
from .layout import WIDTH
from .metric_text import is_class_metric
from .ours import WRITTEN, Ours, name_of_alias
from .source import (
    LIBRARY,
    Around,
    Edit,
    Source,
    arguments_of,
    around,
    bound_names,
    is_literal,
    is_none,
    leaves,
    literal,
    names_read,
    seed_lines,
)

QUIET = ("plain_loop", "explain", "summary", "check", "print", "on_demand", "profile")
"""Calls that change nothing in the training: no word is lost about them."""

RESERVED = (
    "torch",
    "Any",
    "SimpleNamespace",
    "islice",
    "AveragedModel",
    "get_ema_multi_avg_fn",
    "fnmatchcase",
    STOP,
)
"""Names that the lines of the loop may import."""

MODEL, LOSS = "model", "loss_fn"


class OptimizerText(NamedTuple):
    """How an optimizer and its scheduler are called in the script; ``''``: nobody knows."""

    opt: str = ""
    scheduler: str = ""


class Kept(NamedTuple):
    """A statement of the script that is written; ``statement`` is ``None`` for a comment."""

    statement: ast.stmt | None
    text: str


class Prelude:
    """The lines of a script that come before the training.

    Attributes:
        names: the names of the module that is written.
        file: the name of the script.
        model: the expression of the model; ``''``: nobody knows.
        loss: that of the loss function.
        optimizers: those of the optimizers.
        loaders: those of the arguments ``train_dl`` and ``val_dl``, and of the loaders of tasks.
        metrics: the expressions of the metrics of an argument, in order.
        epochs: the expression of the number of epochs, such as ``args.epochs``; ``''``: a number.
        batch_size: the name of a function that is given in the call; ``''``: there is none.
    """

    def __init__(self, trainer: Any, frame: FrameType | None, call: str, gaps: Gaps) -> None:
        self.names = Names({*dir(builtins), *RESERVED})
        self.file = ""
        self.model = self.loss = self.batch_size = self.epochs = ""
        self.optimizers: list[OptimizerText] = []
        self.loaders: dict[str, str] = {}
        self.metrics: dict[str, list[ast.expr]] = {}
        self._gaps = gaps
        self._ours = Ours(frame, trainer)
        self._turns = Turns(self._ours, is_first=call == "fit")
        self._model_name = ""  # in `net = trainer.model`
        self._wrapped: dict[str, list[OptimizerText]] = {}  # name -> optimizers made by Optimizer()
        self._kept: list[Kept] = []
        self._makers: dict[str, tuple[ast.FunctionDef, int]] = {}  # functions that need the library
        self._classes: dict[str, tuple[ast.ClassDef, int]] = {}  # those that need the library
        self._aliases: dict[str, str] = {}  # `self` of a method -> the name of the object
        self._made: dict[str, list[str]] = {}  # kind -> names of the parts of the trainer
        found = None if frame is None else around(frame, (call, "fit"), WRITTEN)
        if found is not None:
            self._around = found
            self._read(found)

    # --- reading

    def _read(self, found: Around) -> None:
        self.file = found.file
        self.names.take(*found.given)
        for one in found.statements:
            self._look_at(one)
        readers = [*found.statements, *([found.call] if found.call else [])]
        needed = [name for name in dict.fromkeys(found.given) if name in names_read(*readers)]
        values = (self._ours.value_of(ast.Name(name, ast.Load())) for name in needed)
        read = {*needed, *map(self._global_name, values)}
        turns = [
            (loop, text)
            for loop in found.loops
            if self._needs_turn(loop, read) and (text := self._turns.text(loop, found.source))
        ]
        outer = found.loops[: found.num_outer_loops]
        after = 0
        for index, statement in enumerate([*found.statements, None]):
            for loop, text in [*turns]:
                line = 0 if loop in outer and index >= found.num_outer else loop.lineno
                is_here = loop in outer or index >= found.num_outer
                if is_here and (statement is None or statement.lineno > line):
                    self._keep(text)
                    turns.remove((loop, text))
            if index == found.num_outer:
                for name in needed:
                    self._give(name)
            if statement is not None:
                self._take(statement, after)
                after = statement.end_lineno or after
        if found.call is not None:
            self._take_call(found.call)
        if not self.model:
            self._take_only_trainer(found)

    def _look_at(self, statement: ast.stmt) -> None:
        """Note which names a statement takes, and whether they need the library."""
        if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
            decorators = statement.decorator_list
            decorators[:] = [one for one in decorators if not self._ours.uses(one)]
        for one in ast.walk(statement):
            if isinstance(one, (ast.Import, ast.ImportFrom)) and one is not statement:
                self._ours.look_at_import(one)
        if isinstance(statement, (ast.Import, ast.ImportFrom)):
            self.names.take(*self._ours.look_at_import(statement))
        elif self._declared(statement) is not None:
            self.names.take(*bound_names(statement))
        elif (name := self._alias_of_model(statement)) is not None:
            self._model_name = name
        elif self._ours.uses(statement) and not self._wraps_itself(statement):
            self._ours.taint(bound_names(statement))
        else:
            self.names.take(*bound_names(statement))
            self._ours.clear(bound_names(statement))

    def _wraps_itself(self, statement: ast.stmt) -> bool:
        """Whether it is ``opt = Optimizer(opt, ...)``: in the script the name stays the inner one's."""
        call = getattr(statement, "value", None)
        if not isinstance(statement, ast.Assign) or not isinstance(call, ast.Call):
            return False
        inner = arguments_of(call, ["opt"]).get("opt")
        is_same = isinstance(inner, ast.Name) and {inner.id} == bound_names(statement)
        return is_same and self._ours.name(call.func) == "Optimizer"

    def _alias_of_model(self, statement: ast.stmt) -> str | None:
        """The name in ``name = trainer.model``."""
        value = getattr(statement, "value", None)
        if not isinstance(statement, ast.Assign) or not isinstance(value, ast.Attribute):
            return None
        target = statement.targets[0]
        is_model = value.attr == "model" and self._ours.value_of(value.value) is self._ours.trainer
        return target.id if is_model and isinstance(target, ast.Name) else None

    # --- taking over

    def _keep(self, text: str) -> None:
        self._kept.append(Kept(ast.parse(text).body[0], text))

    def _needs_turn(self, loop: ast.For, read: set[str]) -> bool:
        """Whether a loop sets what is read and has neither a text nor another name."""
        names = bound_names(loop.target)
        values = [self._ours.value_of(ast.Name(name, ast.Load())) for name in names]
        is_plain = all(is_literal(value) or self._known(value, names) for value in values)
        return not is_plain and not names.isdisjoint(read)

    def _known(self, value: Any, names: set[str]) -> bool:
        """Whether an object has another name in the module, or is written by its class."""
        is_made = isinstance(value, Optimizer) or type(value).__name__ in self._classes
        return is_made or self._global_name(value) not in {"", *names}

    def _give(self, name: str) -> None:
        """Set a name that a loop or the call of a function has set."""
        if name in self._turns.names:
            return
        value = self._ours.value_of(ast.Name(name, ast.Load()))
        listed = value if isinstance(value, (list, tuple)) else [value]
        if listed and all(isinstance(one, Optimizer) for one in listed):
            self._wrapped[name] = [
                OptimizerText(self._global_name(bare(one.opt)), self._global_name(one.scheduler))
                for one in listed
            ]
            return
        if type(value).__name__ in self._classes:
            self._give_instance(name, value)
            return
        known = literal(value) if is_literal(value) else self._global_name(value)
        known = known or self._ours.default_of(name, value, self._around.source)
        if known != name:
            self._keep(f"{name} = {known}" if known else self._gaps.fill_in(name, name))

    def _global_name(self, value: Any) -> str:
        """The name of an object in the module; ``''``: it has none."""
        named = {} if self._ours.frame is None or value is None else self._ours.frame.f_globals
        found = (n for n, one in [*named.items()] if one is value and n in self.names.taken)
        return str(next((name for name in found if name not in self._ours.tainted), ""))

    def _take(self, statement: ast.stmt, after: int) -> None:
        """Keep a statement, write it without the library, or leave it out."""
        source = self._around.source
        if isinstance(statement, (ast.Import, ast.ImportFrom)):
            self._take_import(statement)
        elif isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            return  # the docstring of the script
        elif seed := self._seed_of(statement):
            self._add_seed(seed)
        elif (name := self._alias_of_model(statement)) is not None:
            if self.model and name != self.model:
                self._keep(f"{name} = {self.model}")
        elif (metric := self._declared(statement)) is not None:
            name = next(iter(bound_names(statement)))
            if ast.unparse(metric) != name:
                self._assign(name, metric)
        elif self._ours.is_trainer(getattr(statement, "value", None)):
            return  # another name for the trainer
        elif leaves(statement):
            self._mark(statement)
        elif self._take_made(statement) or self._take_instance(statement, after):
            return
        elif not self._ours.uses(statement):
            self._kept.append(Kept(statement, source.whole(statement, after)))
        elif isinstance(statement, ast.FunctionDef):
            self._makers[statement.name] = statement, len(self._kept)
        elif isinstance(statement, ast.ClassDef):
            self._classes[statement.name] = statement, len(self._kept)
        else:
            self._write_without_library(statement)

    def _take_import(self, statement: ast.Import | ast.ImportFrom) -> None:
        names = [one for one in statement.names if name_of_alias(one) not in self._ours.names]
        if isinstance(statement, ast.Import):
            self._kept.append(Kept(ast.Import(names), ""))
            return
        module = statement.module or ""
        if module.partition(".")[0] == LIBRARY and not statement.level:
            for alias in statement.names:
                for name in [alias.name] if alias.name != "*" else WRITTEN:
                    if name in WRITTEN:
                        self._take_written(name, alias.asname or name)
            return
        if statement.level and self._ours.frame is not None:
            package = self._ours.frame.f_globals.get("__package__") or "."
            module = importlib.util.resolve_name("." * statement.level + module, package)
        if module != "__future__":
            self._kept.append(Kept(ast.ImportFrom(module, names, 0), ""))

    def _take_written(self, name: str, alias: str) -> None:
        """Have a function of the library in the script, if a line reads it."""
        if name == "set_seed":
            self._ours.seeds.add(alias)
        self._keep(WRITTEN[name].format(name=alias))

    def _seed_of(self, statement: ast.stmt) -> str:
        """The seed in ``set_seed(0)``; ``''``: it is another statement."""
        call = statement.value if isinstance(statement, ast.Expr) else None
        is_seed = isinstance(call, ast.Call) and getattr(call.func, "id", "") in self._ours.seeds
        given = arguments_of(call, ["seed"]) if isinstance(call, ast.Call) and is_seed else {}
        is_known = given.keys() == {"seed"} and not self._ours.uses(given["seed"])
        return ast.unparse(given["seed"]) if is_known else ""

    def _declared(self, statement: ast.stmt) -> ast.expr | None:
        """The metric in ``name = rename('other')(metric)``, and the like."""
        value = getattr(statement, "value", None)
        if not isinstance(statement, ast.Assign) or not isinstance(value, ast.Call):
            return None
        inner = self._undecorated(value)
        return None if inner is value or self._ours.uses(inner) else inner

    def _undecorated(self, node: ast.expr) -> ast.expr:
        """The metric in ``rename('other')(metric)`` and the like; else the node."""
        outer = node.func if isinstance(node, ast.Call) else None
        made = self._ours.name(outer.func) if isinstance(outer, ast.Call) else ""
        is_ours = made in ("rename", "accumulates") and isinstance(node, ast.Call) and node.args
        return self._undecorated(node.args[0]) if is_ours else node  # type: ignore[attr-defined]

    def _write_without_library(self, statement: ast.stmt) -> None:
        value = getattr(statement, "value", None)
        call = value if isinstance(value, ast.Call) else None
        name = "" if call is None else self._ours.name(call.func)
        target = getattr(statement, "targets", [getattr(statement, "target", None)])[0]
        if call is not None and name == "set_seed" and call.args:
            self._add_seed(ast.unparse(call.args[0]))
        elif call is not None and name in ("Optimizer", "Optimizers"):
            if isinstance(target, ast.Name):
                self._wrapped[target.id] = self._optimizers_of(call, target.id)
        elif isinstance(value, (ast.List, ast.Tuple)) and self._has_optimizers(value):
            if isinstance(target, ast.Name):
                self._wrapped[target.id] = self._optimizers_of(value, "opt")
        elif call is not None and self._ours.makes(call, "TrainerBase"):
            if target is None or self._ours.value_of(target) in (None, self._ours.trainer):
                self._take_trainer(call)
        elif call is not None and self._ours.makes(call, "EpochTask"):
            task = self._ours.value_of(target)
            loader = self._loader_of_task(call, "train_dl")
            self.loaders[f"id {id(getattr(task, 'dataloader', None))}"] = loader
        elif self._is_quiet(call) or is_class_metric(self._ours.value_of(target)):
            return
        elif target is not None and value is not None and self._ours.only_makes(value):
            return  # such as a callback, of which the loop says more
        else:
            self._mark(statement)

    def _mark(self, statement: ast.stmt) -> None:
        """Leave a comment in place of a statement."""
        text = self._around.source.segment(statement).splitlines()
        more = " ..." if len(text) > 1 else ""
        where = f" ({self.file}:{statement.lineno})"
        self._kept.append(Kept(None, self._gaps.not_written(f"{text[0]}{more}{where}")))

    def _has_optimizers(self, node: ast.List | ast.Tuple) -> bool:
        calls = (one for one in node.elts if isinstance(one, ast.Call))
        return any(self._ours.name(call.func) == "Optimizer" for call in calls)

    def _is_quiet(self, call: ast.Call | None) -> bool:
        function = None if call is None else call.func
        return getattr(function, "attr", getattr(function, "id", None)) in QUIET

    def _add_seed(self, seed: str) -> None:
        for line in ("import random", "import numpy as np", "import torch", *seed_lines(seed)):
            self._keep(line)
        self.names.take("random", "np")

    def _take_only_trainer(self, found: Around) -> None:
        """Take the trainer from the one place of the script where one is made, as in a list."""
        outside = [
            one
            for one in found.source.tree.body
            if not isinstance(one, (ast.FunctionDef, ast.ClassDef))
        ]
        nodes = [node for one in outside for node in ast.walk(one)]
        calls = [node for node in nodes if self._ours.makes(node, "TrainerBase")]
        if len(calls) == 1 and isinstance(calls[0], ast.Call):
            self._take_trainer(calls[0])

    def _take_made(self, statement: ast.stmt) -> bool:
        """Write ``trainer = make()`` with the parts of the trainer, if the function allows it."""
        found = call_of(self._ours, statement, self._ours.trainer)
        if found is None or not self._write_made(*found):
            return False
        others = bound_names(self._kept[-1].statement or statement)  # such as loaders
        self._ours.clear(others)
        self.names.take(*others)
        return True

    def _write_made(self, call: ast.Call, targets: str) -> bool:
        """Write the call of a function that makes the trainer; say whether that can be done."""
        name = getattr(call.func, "id", "")
        edits = self._known_arguments(call)
        if name not in self._makers or edits is None:
            return False
        source, (function, place) = self._around.source, self._makers[name]
        factory = Factory(
            self._ours, source, function, _arguments_of_trainer(type(self._ours.trainer))
        )
        if not factory.text:
            return False
        if name in self._ours.tainted:
            self._ours.clear({name})
            self.names.take(name)
            self._kept.insert(place, Kept(ast.parse(factory.text).body[0], factory.text))
        names = self._names_of(factory)
        self._keep(f"{targets.format(', '.join(names))} = {source.segment(call, edits)}")
        return True

    def _take_instance(self, statement: ast.stmt, after: int) -> bool:
        """Keep ``experiment = Experiment()``, whose class makes the trainer, if the class allows it."""
        target = getattr(statement, "targets", [None])[0]
        call = getattr(statement, "value", None)
        if not isinstance(target, ast.Name) or not isinstance(call, ast.Call):
            return False
        if not self._write_class(call, self._ours.value_of(target), target.id):
            return False
        self._kept.append(Kept(statement, self._around.source.whole(statement, after)))
        return True

    def _give_instance(self, name: str, value: Any) -> None:
        """Name the object of the method around the call; its class makes the trainer."""
        kind = type(value).__name__
        known = self._global_name(value)
        if not known:
            nodes = ast.walk(self._around.source.tree)
            calls = [one for one in nodes if isinstance(one, ast.Call)]
            calls = [one for one in calls if getattr(one.func, "id", "") == kind]
            known = self.names.free(kind.lower())
            if len(calls) != 1 or not self._write_class(calls[0], value, known):
                self._keep(self._gaps.fill_in(name, name))
                return
            self._assign(known, calls[0])
        self._aliases[name] = known
        self._keep(f"{name} = {known}")

    def _write_class(self, call: ast.Call, value: Any, name: str) -> bool:
        """Write the class of an object that has made the trainer; say whether that can be done."""
        kind = getattr(call.func, "id", "")
        arguments_given = [*call.args, *(one.value for one in call.keywords)]
        if kind not in self._classes or value is None or self._ours.uses(*arguments_given):
            return False
        node, place = self._classes[kind]
        arguments = _arguments_of_trainer(type(self._ours.trainer))
        line = 0 if self._ours.frame is None else self._ours.frame.f_lineno
        found = FactoryClass(self._ours, self._around.source, node, arguments, line)
        has_trainer = any(
            one is self._ours.trainer for one in getattr(value, "__dict__", {}).values()
        )
        if not found.text or (found.parts and not has_trainer):
            return False
        self._ours.clear({kind, name})
        self.names.take(kind, name)
        self._kept.insert(place, Kept(ast.parse(found.text).body[0], found.text))
        self.loss = found.loss or self.loss
        self._take_parts([(part, text.format(name)) for part, text in found.parts])
        return True

    def _take_parts(self, parts: list[tuple[str, str]]) -> None:
        """Take the expressions of what the trainer has, each with its kind."""
        self.optimizers = [] if parts else self.optimizers
        for kind, text in parts:
            if kind == "model":
                self.model = text
            elif kind == "loss":
                self.loss = text
            elif kind == "opt":
                self.optimizers.append(OptimizerText(text))
            else:
                self.optimizers[-1] = self.optimizers[-1]._replace(scheduler=text)

    def _known_arguments(self, call: ast.Call) -> list[Edit] | None:
        """What stands for arguments that need the library; ``None``: it is not known."""
        edits: list[Edit] = []
        for node in [*call.args, *(one.value for one in call.keywords)]:
            if self._ours.uses(node):
                value = self._ours.value_of(node)
                if value is None or not is_literal(value):
                    return None
                edits.append((*self._around.source.span(node), literal(value)))
        return edits

    def _names_of(self, factory: Factory) -> list[str]:
        """Take names for the parts that a function gives, the same each time."""
        wanted = {"model": self._model_name or MODEL, "loss": LOSS}
        kinds = [kind for kind, _ in factory.parts]
        if not self._made:
            for kind in kinds:
                name = wanted.get(kind, kind)
                free = name if name == self._model_name else self.names.free(name)
                self.names.take(free)
                self._made.setdefault(kind, []).append(free)
        left = {kind: [*names] for kind, names in self._made.items()}
        names = [left[kind].pop(0) for kind in kinds]
        self.loss = factory.loss
        self._take_parts([*zip(kinds, names, strict=True)])
        return names

    def _take_trainer(self, call: ast.Call) -> None:
        """Write model, loss and optimizers that are made in the call of Trainer."""
        given = arguments_of(call, _arguments_of_trainer(type(self._ours.trainer)))
        if "model" in given:
            self.model = self._named(given["model"], self._model_name or MODEL)
        if not is_none(given.get("loss")):
            self.loss = self._named(given["loss"], LOSS)
        if not is_none(given.get("opt")):
            self.optimizers = self._optimizers_of(given["opt"], "opt")
        self._take_metrics(given, ["metrics"], "of the trainer")
        epochs = given.get("epochs")
        if epochs is not None and self._value(epochs) == self._ours.trainer.max_epochs:
            roots = names_read(epochs) - self._aliases.keys()
            if "self" not in roots:  # its object is not in the script
                self.epochs = self._named(epochs, "num_epochs")

    def _value(self, node: ast.expr) -> Any:
        """The value of a name, an attribute or an entry, such as ``config["epochs"]``."""
        if not isinstance(node, ast.Subscript):
            return self._ours.value_of(node)
        container, key = self._value(node.value), node.slice
        is_known = isinstance(container, dict) and isinstance(key, ast.Constant)
        return container.get(getattr(key, "value", None)) if is_known else None

    def _take_metrics(self, given: dict[str, ast.expr], names: list[str], where: str) -> None:
        for name in names:
            node = given.get(name)
            if node is not None and not is_none(node):
                self.metrics[f"{name} {where}".strip()] = (
                    node.elts if isinstance(node, (ast.List, ast.Tuple)) else [node]
                )

    def named_metric(self, node: ast.expr, name: str) -> str:
        """Give the expression of a metric that is made in an argument; ``''``: of the library."""
        return self._named(self._undecorated(node), name)

    def _named(self, node: ast.expr, name: str) -> str:
        """Give a name or attribute as it is; assign anything else to a name."""
        if self._ours.uses(node):
            return ""
        if isinstance(node, ast.NamedExpr):
            name, node = node.target.id, node.value
            self._ours.clear({name})
        text = textwrap.dedent(self._around.source.segment(node))
        if isinstance(node, (ast.Name, ast.Attribute)):
            root, dot, rest = text.partition(".")
            return f"{self._aliases.get(root, root)}{dot}{rest}"
        free = name if name == self._model_name else self.names.free(name)
        self.names.take(free)
        self._assign(free, node)
        return free

    def _assign(self, name: str, node: ast.expr) -> None:
        """Keep an expression under a name; a lambda becomes a function."""
        source = self._around.source
        text = f"{name} = {textwrap.dedent(source.segment(node))}"
        if isinstance(node, ast.Lambda):
            text = f"def {name}({ast.unparse(node.args)}):\n    return {source.segment(node.body)}"
        self._keep(text)

    def _optimizers_of(self, node: ast.expr, name: str) -> list[OptimizerText]:
        if isinstance(node, (ast.List, ast.Tuple)):
            return [one for each in node.elts for one in self._optimizers_of(each, name)]
        if isinstance(node, ast.Name) and node.id in self._wrapped:
            return self._wrapped[node.id]
        made = self._ours.name(node.func) if isinstance(node, ast.Call) else ""
        if isinstance(node, ast.Call) and made == "Optimizers":
            return self._optimizers_of(node.args[0], name) if node.args else []
        if isinstance(node, ast.Call) and made == "Optimizer":
            given = arguments_of(node, ["opt", "scheduler"])
            opt, scheduler = given.get("opt"), given.get("scheduler")
            return [
                OptimizerText(
                    "" if opt is None else self._named(opt, name),
                    self._named(scheduler, "scheduler") if scheduler is not None else "",
                )
            ]
        return [OptimizerText(self._named(node, name))]

    def _take_call(self, call: ast.Call) -> None:
        """Take loaders, tasks and metrics from the call itself."""
        is_fit = getattr(call.func, "attr", "") == "fit"
        made = getattr(call.func, "value", None)
        if isinstance(made, ast.Call) and self._ours.makes(made, "TrainerBase"):
            self._take_trainer(made)  # Trainer(...).fit(...)
        elif isinstance(made, ast.Call):
            self._write_made(made, "{}")  # make(...).fit(...)
        order = ["train_dl", "val_dl", "metrics"] if is_fit else ["path", "train_dl", "val_dl"]
        given = arguments_of(call, order)
        for name in ("train_dl", "val_dl"):
            if not is_none(given.get(name)):
                self.loaders[name] = self._named(given[name], name)
        for stage in ("train", "val"):
            node = given.get(f"{stage}_tasks")
            tasks = node.elts if isinstance(node, (ast.List, ast.Tuple)) else [node]
            for index, task in enumerate(tasks):
                if isinstance(task, ast.Call):
                    text = self._loader_of_task(task, f"{stage}_dl")
                    self.loaders[f"{stage}_tasks {index}"] = text
        if isinstance(given.get("batch_size"), ast.Lambda):
            self.batch_size = self._named(given["batch_size"], "batch_size")
        self._take_metrics(given, ["metrics", "train_metrics", "val_metrics"], "")

    def _loader_of_task(self, call: ast.Call, name: str) -> str:
        node = arguments_of(call, ["dataloader"]).get("dataloader")
        return "" if node is None else self._named(node, name)

    # --- asking

    def drawing(self, module: Any) -> str:
        """The expression of a module of random numbers that functions or classes of the script read."""
        blocks = (ast.FunctionDef, ast.ClassDef, ast.Lambda)
        around = [] if self._ours.frame is None else self._around.statements
        for inner in (one for s in around for one in ast.walk(s) if isinstance(one, blocks)):
            for node in ast.walk(inner):
                if (
                    isinstance(node, (ast.Name, ast.Attribute))
                    and self._ours.value_of(node) is module
                ):
                    return ast.unparse(node)
        return ""

    def name_of(self, value: Any) -> str:
        """A name that the lines have for an object, or for a list with it; ``''``: none."""
        if self._ours.frame is None or value is None:
            return ""
        for named in (self._ours.frame.f_locals, self._ours.frame.f_globals):
            for name, one in [*named.items()]:
                if name not in self.names.taken or name in self._ours.tainted:
                    continue
                if one is value:
                    return str(name)
                if isinstance(one, (list, tuple)) and any(entry is value for entry in one):
                    index = next(i for i, entry in enumerate(one) if entry is value)
                    return f"{name}[{index}]"
        return ""

    def finish(self, body: str) -> tuple[list[ast.stmt], list[str]]:
        """Give the imports and the other lines that the body needs."""
        needed = names_read(ast.parse(body))
        kept: list[str] = []
        imports: list[ast.stmt] = []
        for statement, text in reversed(self._kept):
            if isinstance(statement, (ast.Import, ast.ImportFrom)):
                wanted = [a for a in statement.names if name_of_alias(a) in {*needed, "*"}]
                if wanted:
                    is_from = isinstance(statement, ast.ImportFrom)
                    module = getattr(statement, "module", None)
                    imports.append(
                        ast.ImportFrom(module, wanted, 0) if is_from else ast.Import(wanted)
                    )
                continue
            if statement is not None:
                if _is_idle(statement) and not bound_names(statement) & needed:
                    for name in bound_names(statement):
                        self._gaps.forget(name)
                    continue
                needed |= names_read(statement)
            kept.append(text)
        return imports, kept[::-1]


class Turns:
    """The turns of the loops in which a call is.

    Attributes:
        names: those that the written turns set.
    """

    def __init__(self, ours: Ours, *, is_first: bool) -> None:
        """``is_first``: the call is the first of the script, as where the command stops."""
        self.names: set[str] = set()
        self._ours, self._is_first = ours, is_first

    def text(self, loop: ast.For, source: Source) -> str:
        """The line that sets the names of a loop; ``''``: nobody knows its turn."""
        number = self._number(loop)
        if number is None or self._ours.uses(loop.iter):
            return ""
        target = ast.unparse(loop.target)
        target = target[1:-1] if target.startswith("(") else target
        values = " ".join(source.segment(loop.iter).split())
        self.names |= bound_names(loop.target)
        turn = f"islice({values}, {number}, None)" if number else f"iter({values})"
        line = f"{target} = next({turn})"
        return line if len(line) <= WIDTH else f"{target} = next(\n    {turn}\n)"

    def _number(self, loop: ast.For) -> int | None:
        """The number of the turn of a loop; ``None``: nobody knows."""
        call, target = loop.iter, loop.target
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "enumerate":
            first = target.elts[0] if isinstance(target, ast.Tuple) else None
            start = arguments_of(call, ["iterable", "start"]).get("start", ast.Constant(0))
            at = self._ours.value_of(first)
            if isinstance(start, ast.Constant) and isinstance(at, int):
                return at - int(str(start.value))
        # The command stops at the first fit.
        goes_on = any(isinstance(one, ast.Continue) for one in ast.walk(loop))
        return 0 if self._is_first and not goes_on else None


def _arguments_of_trainer(kind: type) -> list[str]:
    """The names of the arguments of a trainer's class, in order."""
    bases = [kind, *(one for one in kind.__mro__ if one.__name__ == "TrainerBase")]
    for one in bases:
        parameters = inspect.signature(one).parameters
        if all(p.kind is not p.VAR_POSITIONAL for p in parameters.values()):
            return list(parameters)
    return []


def _is_idle(statement: ast.stmt) -> bool:
    """Whether a statement only defines names, and calls nothing."""
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return not statement.decorator_list
    if not isinstance(statement, (ast.Assign, ast.AnnAssign)) or not bound_names(statement):
        return False  # it sets an attribute, such as one of torch.backends
    value = statement.value
    is_mark = isinstance(value, ast.Call) and ast.unparse(value) == MARK
    return is_mark or isinstance(value, (ast.Constant, ast.Name))
