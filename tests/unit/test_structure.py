"""The shape of the code: one writer for each attribute, small objects, short functions.

DESIGN, section 3, says why. The order of the layers is import-linter's to check (`make lint`).
"""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import deepepochs
from deepepochs import Callback, EpochTask, Trainer, TrainerBase
from deepepochs.callbacks.base import HOOKS
from deepepochs.hooks import is_of_library

SRC = Path(deepepochs.__file__).parent
FILES = sorted(SRC.rglob("*.py"))
CORE = ("contracts", "faults", "fit", "hooks", "loop", "recorder", "run", "state", "steps", "task")
MOST_ATTRIBUTES = 20
MOST_FILES = 20
MOST_LINES = {"TrainerBase.__init__": 60}  # of a function without its docstring; others: 40
# What a trainer is given, and keeps as it is.
SETTINGS = set(inspect.signature(TrainerBase).parameters) | {"loss_fn", "general_metrics"}


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def name_of(path: Path) -> str:
    return path.relative_to(SRC).with_suffix("").as_posix()


def is_core(path: Path) -> bool:
    return name_of(path).split("/")[0] in (*CORE, "trainer")


def classes(tree: ast.AST) -> Iterator[ast.ClassDef]:
    yield from (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef))


def targets(node: ast.AST) -> Iterator[ast.Attribute]:
    """Each attribute that is assigned somewhere below a node."""
    for found in ast.walk(node):
        given: list[ast.expr] = []
        if isinstance(found, ast.Assign):
            given = list(found.targets)
        elif isinstance(found, (ast.AugAssign, ast.AnnAssign)):
            given = [found.target]
        for target in given:
            parts = target.elts if isinstance(target, (ast.Tuple, ast.List)) else [target]
            yield from (part for part in parts if isinstance(part, ast.Attribute))


def owner(target: ast.Attribute) -> str:
    return target.value.id if isinstance(target.value, ast.Name) else ast.unparse(target.value)


def own_attributes(cls: ast.ClassDef) -> set[str]:
    """The attributes that a class assigns on itself."""
    return {target.attr for target in targets(cls) if owner(target) == "self"}


ALL_CLASSES = {cls.name: (path, cls) for path in FILES for cls in classes(parsed(path))}
DECLARED = {name: own_attributes(cls) for name, (_, cls) in ALL_CLASSES.items()}
OURS = set().union(*DECLARED.values())


def bases(name: str) -> list[str]:
    """Our own classes that a class stands on."""
    texts = [ast.unparse(base).split("[")[0].split(".")[-1] for base in ALL_CLASSES[name][1].bases]
    return [found for text in texts if text in ALL_CLASSES for found in (text, *bases(text))]


def depth(name: str) -> int:
    """The classes of ours that stand on one another, up to a class."""
    texts = [ast.unparse(base).split("[")[0].split(".")[-1] for base in ALL_CLASSES[name][1].bases]
    return 1 + max((depth(text) for text in texts if text in ALL_CLASSES), default=0)


def foreign_writes(tree: ast.AST) -> Iterator[str]:
    """Assignments to an attribute of ours outside of the class that declares it.

    A class may set up another object of its own, as a class method does.
    """
    allowed = {
        id(target)
        for cls in classes(tree)
        for target in targets(cls)
        if target.attr in DECLARED.get(cls.name, ()) and "." not in owner(target)
    }
    for target in targets(tree):
        if owner(target) != "self" and target.attr in OURS and id(target) not in allowed:
            yield f"{ast.unparse(target)} (line {target.lineno})"


# Attributes of PyTorch's, NumPy's and Accelerate's objects that are named as some of ours are.
OF_OTHERS = (
    "step",
    "training",
    "grad",
    "rng_types",
    "even_batches",
    "bit_generator.state",
    "cudnn.deterministic",
)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_attribute_is_assigned_outside_of_its_class(path: Path) -> None:
    found = [
        text
        for text in foreign_writes(parsed(path))
        if not text.split(" ")[0].endswith(tuple(f".{name}" for name in OF_OTHERS))
    ]
    assert not found


@pytest.mark.parametrize("name", sorted(ALL_CLASSES))
def test_no_class_assigns_an_attribute_of_a_class_that_it_stands_on(name: str) -> None:
    inherited = set().union(*(DECLARED[base] for base in bases(name)))
    assert not DECLARED[name] & inherited


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_object_is_looked_into_with_vars(path: Path) -> None:
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "vars" and node.args:
            given = ast.unparse(node.args[0])
            # What users give is walked in `data` and, for a cause, in `verify/attributes`; the others
            # are PyTorch's.
            ours = ("self", "Callback", "cls")
            foreign = (("optim/optimizers", "opt"), ("runtime/gloo", "functional"))
            assert (
                given in ours
                or (name_of(path), given) in foreign
                or name_of(path).startswith(("data/", "verify/attributes"))
            )


@pytest.mark.parametrize("path", [path for path in FILES if is_core(path)], ids=name_of)
def test_the_core_knows_no_built_in_callback(path: Path) -> None:
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "isinstance":
            assert not ast.unparse(node.args[1]).endswith("Callback")


@pytest.mark.parametrize("name", sorted(ALL_CLASSES))
def test_at_most_three_classes_of_ours_stand_on_one_another(name: str) -> None:
    if not name.endswith(("Error", "Exception", "Damaged", "Mismatch", "NotFound")):
        assert depth(name) <= 3


def fields(cls: ast.ClassDef) -> set[str]:
    """The attributes that a class declares without a value, and those of a data class."""
    kinds = map(ast.unparse, [*cls.decorator_list, *cls.bases])
    is_data = any("dataclass" in kind or kind == "NamedTuple" for kind in kinds)
    return {
        ast.unparse(node.target)
        for node in cls.body
        if isinstance(node, ast.AnnAssign)
        and (is_data or node.value is None)
        and "ClassVar" not in ast.unparse(node.annotation)
    }


def every_attribute(name: str) -> set[str]:
    """The attributes of an object of a class, those of the classes that it stands on included."""
    of_class = DECLARED[name] | fields(ALL_CLASSES[name][1])
    return of_class.union(*map(every_attribute, bases(name)))


@pytest.mark.parametrize("name", sorted(ALL_CLASSES))
def test_an_object_has_at_most_20_attributes(name: str) -> None:
    settings = SETTINGS if name in ("Trainer", "TrainerBase", "TrainerView") else set()
    every = every_attribute(name) - settings
    assert len(every) <= MOST_ATTRIBUTES, sorted(every)


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("@dataclass(frozen=True)\nclass A:\n    x: int\n    y: int = 1", {"x", "y"}),
        ("class A(NamedTuple):\n    x: int = 1", {"x"}),
        ("class A:\n    x: int\n    y: int = 1\n    z: ClassVar[int]", {"x"}),
    ],
)
def test_the_fields_of_a_class_are_seen(source: str, found: set[str]) -> None:
    (cls,) = classes(ast.parse(source))
    assert fields(cls) == found


def test_a_folder_has_at_most_20_files() -> None:
    assert max(Counter(path.parent for path in FILES).values()) <= MOST_FILES


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_warnings_point_at_the_line_of_the_user(path: Path) -> None:
    """`warn_user` finds it; a number of frames, as `warnings.warn` wants it, is wrong somewhere."""
    calls = {
        ast.unparse(node.func) for node in ast.walk(parsed(path)) if isinstance(node, ast.Call)
    }
    assert not calls & {"warnings.warn", "warn", "warnings.warn_explicit"} or (
        name_of(path) == "errors"
    )


def functions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef):
            yield from functions(node, f"{node.name}.")
        elif isinstance(node, ast.FunctionDef):
            yield prefix + node.name, node


def lines_of(function: ast.FunctionDef) -> int:
    """The lines of a function's body, without its docstring."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return 0 if not body else (body[-1].end_lineno or 0) - body[0].lineno + 1


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_function_has_at_most_40_lines(path: Path) -> None:
    for name, function in functions(parsed(path)):
        assert lines_of(function) <= MOST_LINES.get(name, 40), f"{name}: {lines_of(function)}"


def test_a_trainer_is_three_classes() -> None:
    ours = [cls.__name__ for cls in Trainer.__mro__ if cls.__module__.startswith("deepepochs")]
    assert ours == ["Trainer", "TrainerBase", "Steps"]


@pytest.mark.parametrize(
    "source",
    [
        "def f(run):\n    run.batch_idx = 1",
        "class A:\n    def f(self, run):\n        run.batch_idx += 1",
        "def f(run):\n    run.batch_idx, x = 1, 2",
    ],
)
def test_a_write_from_outside_is_seen(source: str) -> None:
    assert list(foreign_writes(ast.parse(source)))


def shown(thing: Any) -> list[str]:
    return sorted(name for name in dir(thing) if not name.startswith("_"))


STEPS = "backward call_model do_metric evaluate_step loss optimize record step test_step train_step val_step"
OF_TRAINER = f"""
accelerator add_saver callbacks check device export ema explain find_batch_size find_lr fit history load_checkpoint load_state_dict
load_best load_weights logger loss_fn main_process max_epochs model open_logger opt parts plain_loop predict
prepare_data print profile progress report request_save run run_dir running_id save_weights session stage state_dict
stop stop_reason summary test verify_resume {STEPS}
"""
OF_TASK = f"""
accelerator batch_size dataloader device do_loss length loss_fn main_process metrics model name opt
run stage step_args targets trainer {STEPS}
"""


def test_dir_of_a_trainer_shows_what_is_documented() -> None:
    names = OF_TRAINER.split()
    assert shown(Trainer(nn.Linear(1, 1))) == sorted(names)
    assert len(names) <= 60


def test_dir_of_a_task_shows_what_is_documented() -> None:
    assert shown(EpochTask([torch.ones(1)])) == sorted(OF_TASK.split())


def test_dir_shows_what_a_subclass_and_a_script_add() -> None:
    class Mine(Trainer):
        def own_method(self) -> None: ...

    trainer: Any = Mine(nn.Linear(1, 1))
    trainer.own_value = 1
    assert {"own_method", "own_value"} <= set(shown(trainer))


def test_dir_of_the_package_is_its_list() -> None:
    assert shown(deepepochs) == sorted(set(deepepochs.__all__) - {"__version__"})


def test_help_shows_the_arguments_at_the_trainer() -> None:
    arguments = inspect.signature(Trainer).parameters
    assert str(arguments["loss"].annotation) == "Callable[[Any, Any], Tensor] | None"
    assert (
        str(inspect.signature(Trainer.fit).parameters["train_dl"].annotation)
        == "Iterable[Any] | None"
    )
    assert all(f"{name}:" in str(inspect.getdoc(Trainer.__init__)) for name in arguments)


PLAIN_FIT = """
import sys
from pathlib import Path
import torch
import deepepochs
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

data = TensorDataset(torch.randn(64, 8), torch.randint(0, 2, (64,)))
loader = DataLoader(data, batch_size=8)
trainer = deepepochs.Trainer(
    torch.nn.Linear(8, 2), F.cross_entropy, epochs=2, metrics=deepepochs.metrics.accuracy
)
home, files = str(Path(deepepochs.__file__).parent), set()
sys.settrace(lambda frame, *_: files.add(frame.f_code.co_filename))
trainer.fit(loader, loader)
sys.settrace(None)
print(sum(file.startswith(home) for file in files))
"""


def test_a_plain_fit_with_one_metric_runs_at_most_35_files() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PLAIN_FIT], capture_output=True, text=True, check=True
    )
    assert 20 < int(done.stdout.split()[-1]) <= 35


def subclasses(cls: type[Any]) -> Iterator[type[Any]]:
    for one in cls.__subclasses__():
        yield one
        yield from subclasses(one)


def test_hooks_of_the_library_take_the_arguments_of_the_hook() -> None:
    # A trainer looks at the signatures of its user's hooks alone.
    for module in pkgutil.walk_packages(deepepochs.__path__, "deepepochs."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    ours = [cls for cls in subclasses(Callback) if is_of_library(cls)]
    assert len(ours) > 20
    for cls in ours:
        for name, declared in HOOKS.items():
            given = list(inspect.signature(declared).parameters)[1:]
            inspect.signature(getattr(cls, name)).bind(None, **dict.fromkeys(given))
