"""What in a script is of the library: names that it has imported, and what was made with them."""

from __future__ import annotations

import ast
import importlib
from types import FrameType
from typing import Any

from .source import LIBRARY, Source, names_read, seed_lines

PARAM_GROUPS = """
def {name}(model, patterns=None, *, weight_decay=None):
    # Each weight is in the group of the first pattern that matches its name.
    rest = {{n.replace("_orig_mod.", ""): w for n, w in model.named_parameters()}}
    kinds = ("BatchNorm", "LayerNorm", "GroupNorm", "InstanceNorm", "RMSNorm")
    free = {{id(w) for n, w in rest.items() if n.split(".")[-1] == "bias" or w.ndim < 2}}
    for module in model.modules():
        kind = type(module).__name__
        if kind.startswith(kinds) or kind.endswith(kinds):
            free |= {{id(w) for w in module.parameters(recurse=False)}}
    groups = []
    for pattern, options in [*(patterns or {{}}).items(), (None, {{}})]:
        wanted = [pattern] if isinstance(pattern, str) else pattern or ["*"]
        wanted = [*wanted, *(f"{{one}}.*" for one in wanted)]
        names = [name for name in rest if any(fnmatchcase(name, one) for one in wanted)]
        weights = [rest.pop(name) for name in names]
        label = "default" if pattern is None else ", ".join(wanted[: len(wanted) // 2])
        if options is None:
            for weight in weights:
                weight.requires_grad_(False)
        elif weight_decay is None or "weight_decay" in options:
            groups.append({{"params": weights, "name": label, **options}})
        else:
            for is_free, decay, end in [(False, weight_decay, ""), (True, 0.0, " (no decay)")]:
                chosen = [w for w in weights if (id(w) in free) is is_free]
                more = {{"name": label + end, **options, "weight_decay": decay}}
                groups.append({{"params": chosen, **more}})
    return [group for group in groups if group["params"]]
"""

WRITTEN = {
    "param_groups": PARAM_GROUPS,
    "set_seed": "\ndef {name}(seed):\n    " + "\n    ".join(seed_lines("seed")) + "\n",
}
"""Functions of the library that stand in the script, with their code there."""


class Ours:
    """Tells which code of a script needs the library.

    Attributes:
        names: those in the script, each with its name in the library; ``''``: the library itself.
        tainted: names of the script that need the library.
        seeds: names of ``set_seed``.
        frame: of the script, in the line of the call.
        trainer: that has the fit.
    """

    def __init__(self, frame: FrameType | None, trainer: Any = None) -> None:
        self.names: dict[str, str] = {}
        self.tainted: set[str] = set()
        self.seeds: set[str] = set()
        self.frame, self.trainer = frame, trainer

    def look_at_import(self, statement: ast.Import | ast.ImportFrom) -> list[str]:
        """Note the names of the library; give those of others."""
        module = getattr(statement, "module", None) or ""
        is_ours = module.partition(".")[0] == LIBRARY and not getattr(statement, "level", 0)
        others = []
        for alias in statement.names:
            name = name_of_alias(alias)
            if is_ours and alias.name == "*":
                public = importlib.import_module(module).__all__
                self.names.update((one, one) for one in public if one not in WRITTEN)
                others += [one for one in public if one in WRITTEN]
            elif is_ours and alias.name not in WRITTEN:
                self.names[name] = alias.name
            elif not module and alias.name.partition(".")[0] == LIBRARY:
                self.names[name] = ""
            else:
                others.append(name)
        return others

    def taint(self, names: set[str]) -> None:
        """Note names that need the library."""
        self.tainted |= names

    def clear(self, names: set[str]) -> None:
        """Note that names need the library no more."""
        self.tainted -= names

    def uses(self, *nodes: ast.AST) -> bool:
        """Whether code needs the library."""
        if not names_read(*nodes).isdisjoint({*self.names, *self.tainted}):
            return True
        inner = [one for node in nodes for one in ast.walk(node)]
        return any(self.is_trainer(one) or self._is_import(one) for one in inner)

    def _is_import(self, node: ast.AST) -> bool:
        """Whether code imports the library."""
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and not node.level:
            modules = [node.module or ""]
        return any(module.partition(".")[0] == LIBRARY for module in modules)

    def is_trainer(self, node: ast.AST | None) -> bool:
        """Whether code is an attribute that has the trainer, as ``self.trainer``."""
        if not isinstance(node, ast.Attribute) or not isinstance(node.value, ast.Name):
            return False
        held = getattr(self.value_of(node.value), "__dict__", {})
        return self.trainer is not None and held.get(node.attr) is self.trainer

    def value_of(self, node: ast.expr | None) -> Any:
        """The object of a name or of its attributes, at the time of the call."""
        if isinstance(node, ast.Attribute):
            return getattr(self.value_of(node.value), node.attr, None)
        if self.frame is None or not isinstance(node, ast.Name):
            return None
        return self.frame.f_locals.get(node.id, self.frame.f_globals.get(node.id))

    def default_of(self, name: str, value: Any, source: Source) -> str:
        """The code of the default of an argument of the function around the call, if it has it."""
        called = None if self.frame is None else self.frame.f_code.co_name
        for one in source.tree.body:
            if not isinstance(one, ast.FunctionDef) or one.name != called:
                continue
            args = [*one.args.posonlyargs, *one.args.args]
            pairs = [*zip(args[::-1], one.args.defaults[::-1], strict=False)]
            pairs += [
                (a, d) for a, d in zip(one.args.kwonlyargs, one.args.kw_defaults, strict=True) if d
            ]
            function: Any = self.value_of(ast.Name(one.name, ast.Load()))
            held = [*(getattr(function, "__defaults__", None) or ())]
            held += (getattr(function, "__kwdefaults__", None) or {}).values()
            found = next((d for a, d in pairs if a.arg == name), None)
            if found is not None and any(each is value for each in held) and not self.uses(found):
                return source.segment(found)
        return ""

    def name(self, function: ast.expr) -> str:
        """The name in the library of a function that the script calls; ``''``: it is another."""
        if isinstance(function, ast.Name):
            return self.names.get(function.id, "")
        root: ast.expr = function
        while isinstance(root, ast.Attribute):
            root = root.value
        is_ours = isinstance(root, ast.Name) and self.names.get(root.id) == ""
        return function.attr if is_ours and isinstance(function, ast.Attribute) else ""

    def makes(self, node: ast.AST, base: str) -> bool:
        """Whether code calls a class of the library, or one that inherits from it."""
        kind = self.value_of(node.func) if isinstance(node, ast.Call) else None
        if kind is None and isinstance(node, ast.Call):  # imported in a function
            return self.name(node.func) == base.removesuffix("Base")
        return any(
            one.__name__ == base and one.__module__.startswith(f"{LIBRARY}.")
            for one in getattr(kind, "__mro__", ())
        )

    def only_makes(self, node: ast.expr) -> bool:
        """Whether an expression makes an object, or a list of some, and does no more."""
        if isinstance(node, (ast.List, ast.Tuple)):
            return all(map(self.only_makes, node.elts))
        if isinstance(node, ast.Call):
            is_class = isinstance(self.value_of(node.func), type)
            return is_class or bool(self.name(node.func))
        return isinstance(node, (ast.Name, ast.Constant))


def name_of_alias(alias: ast.alias) -> str:
    """The name that an import gives to a module or to something in it."""
    return alias.asname or alias.name.partition(".")[0]
