"""What users write type-checks in mypy's strict mode, and what is wrong does not."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SCRIPT, MISTAKES = HERE / "user_script.py", HERE / "user_mistakes.py"


@pytest.fixture(scope="module")
def found() -> dict[Path, list[tuple[int, str]]]:
    """The errors of one run of mypy: line and kind, by file."""
    pytest.importorskip("mypy")
    root = HERE.parents[1]
    # The cache of `make check`: PyTorch's types alone take half a minute without it.
    cache, config = root / ".mypy_cache", root / "pyproject.toml"
    command = [
        sys.executable, "-m", "mypy", "--strict", "--config-file", str(config), "--no-pretty",
        "--no-error-summary", "--hide-error-context", "--cache-dir", str(cache),
        str(SCRIPT), str(MISTAKES),
    ]  # fmt: skip
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    errors: dict[Path, list[tuple[int, str]]] = {SCRIPT: [], MISTAKES: []}
    for line in done.stdout.splitlines():
        match = re.match(r"(.+?\.py):(\d+): error: .*?(\[[\w-]+\])?$", line)
        if match:
            path = (HERE / match[1]).resolve()
            errors.setdefault(path, []).append((int(match[2]), match[3] or line))
    return errors


def test_a_typed_script_has_no_type_error(found: dict[Path, list[tuple[int, str]]]) -> None:
    assert found[SCRIPT] == []


def test_every_mistake_is_found_and_nothing_else(
    found: dict[Path, list[tuple[int, str]]],
) -> None:
    marked = [
        (number, line.rpartition("# error: ")[2])
        for number, line in enumerate(MISTAKES.read_text(encoding="utf-8").splitlines(), start=1)
        if "# error: " in line
    ]
    assert sorted(found[MISTAKES]) == marked


def test_the_typed_script_runs(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("user_script", SCRIPT)
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    history = script.main(str(tmp_path))
    assert len(history["train"]["loss"]) == 2
    assert {"acc", "largest", "mean"} <= set(history["train"])
