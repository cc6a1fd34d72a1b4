"""The house has layers: a module imports only from the layers below its own."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).parents[2] / "src" / "deepepochs"

# Module (dots below the package) to layer. A new module gets its line here.
LAYERS = {
    "errors": 0,
    "stages": 0,
    "containers": 0,
    "nested": 1,
    "rng": 1,
    "metrics": 1,
    "schedules": 1,
    "opt_state": 1,
    "lines": 1,
    "patches": 2,
    "screens": 2,
    "progress": 2,
    "optimizers": 2,
    "loading": 2,
    "monitor": 2,
    "accumulation": 2,
    "batch": 2,
    "printing": 3,
    "run": 3,
    "callback": 3,
    "runtime": 3,
    "checkpoint": 3,
    "steps": 4,
    "task": 5,
    "callbacks": 5,
    "loop": 6,
    "trainer": 7,
    # Names of 0.6 that only re-export.
    "loops": 8,
    "tools": 8,
    "optimizer": 8,
    "": 9,
}
# Outside packages that one place alone may know, and that place.
ONLY_BY = {
    "accelerate": {"runtime", "nested"},
    "tensorboard": {"callbacks"},
    "torch.utils.tensorboard": {"callbacks"},
}


def module_name(path: Path) -> str:
    """``src/deepepochs/callbacks/log.py`` is ``callbacks.log``."""
    parts = path.relative_to(SRC).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def layer(module: str) -> int:
    """The layer of a module is that of its longest prefix in the table."""
    while module and module not in LAYERS:
        module = module.rpartition(".")[0]
    return LAYERS[module]


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def running_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Every node below, but those that only a type checker reads."""
    for child in ast.iter_child_nodes(node):
        if not is_type_checking(child):
            yield child
            yield from running_nodes(child)


def imports(source: str, path: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything that a module imports, in functions too."""
    package = f"deepepochs.{module_name(path)}".rstrip(".").split(".")
    if path.name != "__init__.py":
        package.pop()
    for node in running_nodes(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{origin}.{alias.name}") for alias in node.names)


def own_module(name: str) -> str | None:
    """``deepepochs.patches.PatchBase`` is ``patches``; ``None`` for what is not ours."""
    if name.split(".")[0] != "deepepochs":
        return None
    parts = name.split(".")[1:]
    while parts and not (
        (SRC.joinpath(*parts).with_suffix(".py")).exists() or SRC.joinpath(*parts).is_dir()
    ):
        parts.pop()
    return ".".join(parts)


def violations(source: str, path: Path) -> Iterator[str]:
    importer = module_name(path)
    for line, name in imports(source, path):
        imported = own_module(name)
        if imported is None or imported == importer:
            continue
        siblings = importer.split(".")[0] == imported.split(".")[0] == "callbacks"
        if not siblings and layer(imported) >= layer(importer):
            yield (
                f"{path.name}:{line}: {importer or '__init__'} (layer {layer(importer)}) imports "
                f"{imported or 'the package'} (layer {layer(imported)})"
            )


MODULES = sorted(SRC.rglob("*.py"))
each_module = pytest.mark.parametrize(
    "path", MODULES, ids=[module_name(path) or "__init__" for path in MODULES]
)


@each_module
def test_a_module_imports_only_from_lower_layers(path: Path) -> None:
    assert not list(violations(path.read_text(encoding="utf-8"), path))


@each_module
def test_every_module_has_its_line_in_the_table(path: Path) -> None:
    top = module_name(path).split(".")[0]
    assert top in LAYERS, f"{top} has no layer: add it to the table LAYERS"


@each_module
def test_an_outside_package_is_known_to_one_place_alone(path: Path) -> None:
    top = module_name(path).split(".")[0]
    for line, name in imports(path.read_text(encoding="utf-8"), path):
        for outside, allowed in ONLY_BY.items():
            if f"{name}.".startswith(f"{outside}."):
                assert top in allowed, f"{path.name}:{line} imports {name}"


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("patches", "from deepepochs.trainer import Trainer"),
        ("patches", "from .trainer import Trainer"),
        ("patches", "from . import trainer"),
        ("patches", "import deepepochs"),
        ("patches", "def f():\n    from deepepochs.optimizers import Optimizer"),
        ("callbacks/console", "from deepepochs.loop import run_task"),
        ("callbacks/console", "from ..trainer import Trainer"),
    ],
)
def test_an_import_from_above_is_found(module: str, source: str) -> None:
    assert list(violations(source, SRC / f"{module}.py"))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("patches", "from deepepochs.errors import PatchError"),
        ("patches", "import torch\nfrom typing import TYPE_CHECKING"),
        ("patches", "if TYPE_CHECKING:\n    from deepepochs.trainer import Trainer"),
        ("callbacks/console", "from deepepochs.callbacks.base import Shared"),
        ("callbacks/console", "from ..callback import Callback"),
    ],
)
def test_an_import_from_below_is_not(module: str, source: str) -> None:
    assert not list(violations(source, SRC / f"{module}.py"))
