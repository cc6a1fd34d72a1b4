"""Writing and running the scripts of trainings."""

from __future__ import annotations

import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from cases import MODULE, Pair

Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a script in a folder of its own; with ``writes=True`` it writes its loop before fit."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))

    def run_script(source: str, name: str = "train.py", *, writes: bool = False) -> dict[str, Any]:
        if writes:
            source = re.sub(
                r"^( *)((?:\w+ = )?)((?:self\.)?trainer)\.fit\(((?:.|\n)*?)\)$",
                r'\1\3.plain_loop("loop.py", \4)\n\1\2\3.fit(\4)',
                source,
                flags=re.MULTILINE,
            )
        Path(name).write_text(source, encoding="utf-8")
        Path("steps_of_mine.py").write_text(MODULE, encoding="utf-8")
        return runpy.run_path(name, run_name="__main__")

    return run_script


@pytest.fixture
def run_both(run: Run) -> Callable[[str], Pair]:
    """Train with a script, and then with the one that it has written."""

    def run_pair(source: str) -> Pair:
        ours = run(source, writes=True)
        text = Path("loop.py").read_text(encoding="utf-8")
        return Pair(ours, runpy.run_path("loop.py", run_name="__main__"), text)

    return run_pair
