"""The house has layers: a module imports only from the layers below its own."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).parents[2] / "src" / "deepepochs"

# From the ground up: a module imports only from rows above its own in this list, and a
# package's modules from one another. A new module gets its place here. The numbers are
# the layers of the design, some of which take several rows.
ROWS = [
    # 0
    "accumulation atomic containers engine errors fast_path gloo lines on_demand signals stages "
    "worker_seeding",
    # 1
    "comparison confusion losses lr_curve mappings monitor naming nested opt_state plain plotting "
    "reductions rng run_folder run_lock schedules screens sealed",
    "batch checkpoint_file loader_state metrics opt_checks progress yaml_config",
    "scheduled",
    # 2
    "accelerators index_order optimizers patches printing run_files sharded shares",
    "outside_weights report arguments index_route plan restored_patch step_faults step_names",
    "accelerate_runtime loader_routes totals",
    "sharded_runtime",
    "loading",
    # 3
    "callback checkpoint runtime",
    "callback_pool process_merge runtime_choice",
    "pass_state",
    "run",
    # 4
    "epoch_state steps strict_loading",
    "extras sharded_parts",
    "parts",
    # 5
    "callbacks task",
    "fit_plan",
    # 6
    "loop resume_probe save_points",
    "session",
    "fitting",
    "trials verify",
    "archive",
    # 7
    "trainer",
    # 8: the command line
    "demo",
    "commands",
    "command_line",
    # 8: names of 0.6 that only re-export
    "loops optimizer tools",
    # 9: the package itself
    "__init__",
]
LAYERS = {module: level for level, row in enumerate(ROWS) for module in row.split()}
# Outside packages that one place alone may know, and that place.
ONLY_BY = {
    "accelerate": {
        "accelerate_runtime",
        "accelerators",
        "outside_weights",
        "shares",
        "nested",
        "runtime",
        "callbacks",
    },
    "tensorboard": {"callbacks"},
    "torch.utils.tensorboard": {"callbacks"},
}


def module_name(path: Path) -> str:
    """``src/deepepochs/callbacks/log.py`` is ``callbacks.log``."""
    parts = path.relative_to(SRC).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def top(module: str) -> str:
    """``callbacks.log`` has the place of ``callbacks``."""
    return module.split(".")[0] or "__init__"


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
    importer = top(module_name(path))
    for line, name in imports(source, path):
        own = own_module(name)
        if own is None or top(own) == importer or top(own) not in LAYERS:
            continue
        if LAYERS[top(own)] >= LAYERS[importer]:
            yield f"{path.name}:{line}: {importer} imports {top(own)}, which is not below it"


MODULES = sorted(SRC.rglob("*.py"))
each_module = pytest.mark.parametrize(
    "path", MODULES, ids=[module_name(path) or "__init__" for path in MODULES]
)


@each_module
def test_a_module_imports_only_from_lower_layers(path: Path) -> None:
    assert not list(violations(path.read_text(encoding="utf-8"), path))


@each_module
def test_every_module_has_its_line_in_the_table(path: Path) -> None:
    module = top(module_name(path))
    assert module in LAYERS, f"{module} has no layer: add it to ROWS"


@each_module
def test_an_outside_package_is_known_to_one_place_alone(path: Path) -> None:
    module = top(module_name(path))
    for line, name in imports(path.read_text(encoding="utf-8"), path):
        for outside, allowed in ONLY_BY.items():
            if f"{name}.".startswith(f"{outside}."):
                assert module in allowed, f"{path.name}:{line} imports {name}"


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
