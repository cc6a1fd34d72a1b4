"""The READMEs are twins, and what the pages list is what there is."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from deepepochs.callbacks.base import HOOKS

ROOT = Path(__file__).parents[2]
READMES = [ROOT / "README.md", ROOT / "README.zh-CN.md"]
# `coming` in either language: an example that is promised and not there yet.
PROMISED = re.compile(
    r"^\|\s*\d+\s*\|.*\|\s*`(?P<name>examples/[\w.-]+)` [（(](?:coming|即将推出)[)）]", re.M
)
LINK = re.compile(r"\]\((?P<target>[^)#\s]+)[^)]*\)")


def text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def code(path: Path) -> list[str]:
    """The Python blocks, without comments and layout."""
    found = re.findall(r"^```python\n(.*?)^```", text(path), re.MULTILINE | re.DOTALL)
    return [ast.unparse(ast.parse(block)) for block in found]


@pytest.mark.parametrize("page", READMES, ids=lambda page: page.name)
def test_every_link_of_a_readme_leads_somewhere(page: Path) -> None:
    targets = [target for target in LINK.findall(text(page)) if "://" not in target]
    missing = [target for target in targets if not (ROOT / target).exists()]
    assert targets and not missing


@pytest.mark.parametrize("page", READMES, ids=lambda page: page.name)
def test_a_readme_links_every_example_that_is_there(page: Path) -> None:
    there = {f"examples/{path.name}" for path in (ROOT / "examples").glob("[0-9]*-*.py")}
    assert not {match["name"] for match in PROMISED.finditer(text(page))} & there
    assert there <= set(LINK.findall(text(page)))


@pytest.mark.parametrize("page", READMES, ids=lambda page: page.name)
def test_a_readme_lists_the_examples_in_order_twenty_at_least(page: Path) -> None:
    numbers = re.findall(r"^\|\s*(\d+)\s*\|.*examples/(\d+)-", text(page), re.MULTILINE)
    assert len(numbers) >= 20
    assert numbers == [(str(n), f"{n:02}") for n in range(1, len(numbers) + 1)]


def test_the_readmes_have_the_same_code_and_the_same_outline() -> None:
    english, chinese = READMES
    assert code(english) == code(chinese)
    outlines = [re.findall(r"^#+(?= )", text(page), re.MULTILINE) for page in READMES]
    assert outlines[0] == outlines[1]


def test_the_table_of_events_is_that_of_the_code() -> None:
    rows = re.findall(r"^\| `(on_\w+)` \| (.*?) \|", text(ROOT / "docs/callbacks.md"), re.MULTILINE)
    documented = [(name, re.findall(r"`(\w+)`", arguments)) for name, arguments in rows]
    declared = [(name, _arguments(hook)) for name, hook in HOOKS.items()]
    assert documented == declared


def _arguments(hook: Callable[..., None]) -> list[str]:
    return [name for name in inspect.signature(hook).parameters if name not in ("self", "trainer")]
