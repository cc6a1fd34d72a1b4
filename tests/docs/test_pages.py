"""The READMEs are twins, and what the pages list is what there is."""

from __future__ import annotations

import inspect
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from torch import nn

import deepepochs
from deepepochs import callbacks
from deepepochs.callbacks.base import HOOKS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
READMES = [ROOT / "README.md", ROOT / "README.zh-CN.md"]
# `coming` in either language: an example that is promised and not there yet.
PROMISED = re.compile(
    r"^\|\s*\d+\s*\|.*\|\s*`(?P<name>examples/[\w.-]+)` [（(](?:coming|即将推出)[)）]", re.M
)
LINK = re.compile(r"\]\((?P<target>[^)#\s]+)[^)]*\)")


def text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def outline(path: Path) -> list[str]:
    return re.findall(r"^#+(?= )", text(path), re.MULTILINE)


@pytest.mark.parametrize(
    "name", ["README.md", "README.zh-CN.md", "CHANGELOG.md", "CONTRIBUTING.md"]
)
def test_every_link_leads_somewhere(name: str) -> None:
    targets = [target for target in LINK.findall(text(ROOT / name)) if "://" not in target]
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


def test_a_chinese_page_has_the_outline_of_the_english_one() -> None:
    english, chinese = READMES
    twins = {page: page.with_name(page.name.replace(".zh.", ".")) for page in DOCS.rglob("*.zh.md")}
    for page, twin in {chinese: english, **twins}.items():
        assert outline(page) == outline(twin), page.name


def test_the_table_of_events_is_that_of_the_code() -> None:
    rows = re.findall(r"^\| `(on_\w+)` \| (.*?) \|", text(ROOT / "docs/callbacks.md"), re.MULTILINE)
    documented = [(name, re.findall(r"`(\w+)`", arguments)) for name, arguments in rows]
    declared = [(name, _arguments(hook)) for name, hook in HOOKS.items()]
    assert documented == declared


def _arguments(hook: Callable[..., None]) -> list[str]:
    return [name for name in inspect.signature(hook).parameters if name not in ("self", "trainer")]


def test_every_built_in_callback_has_its_section_with_its_signature() -> None:
    page = text(ROOT / "docs/callbacks.md")
    others = {"Callback", "CallbackException", "CallbackPool"}
    names = [name for name in callbacks.__all__ if name not in others]
    for name in names:
        documented = re.search(rf"^### {name}\n\n`(?P<call>{name}\(.*?\))`", page, re.MULTILINE)
        assert documented, f"{name} has no section"
        assert documented["call"] == f"{name}{_signature(getattr(callbacks, name))}"
    assert set(re.findall(r"^\| \[`(\w+)`\]\(#", page, re.MULTILINE)) == set(names)


def _signature(cls: type) -> str:
    signature = inspect.signature(cls)
    bare = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in signature.parameters.values()
    ]
    text = re.sub(r"<built-in function (\w+)>", r"time.\1", str(inspect.Signature(bare)))
    return text.replace("1e-06", "1e-6")


def test_the_api_has_each_public_name_once_and_no_other() -> None:
    pages = [text(page) for page in (ROOT / "docs/api").glob("*.md") if ".zh." not in page.name]
    shown = re.findall(r"^::: (deepepochs\.\w+)$", "\n".join(pages), re.MULTILINE)
    public = {
        f"deepepochs.{name}"
        for name in deepepochs.__all__
        if name != "__version__" and not isinstance(getattr(deepepochs, name), ModuleType)
    }
    assert max(Counter(shown).values()) == 1
    assert set(shown) | {"deepepochs.TrainerBase"} == public


@pytest.mark.parametrize(
    ("page", "made"),
    [
        ("trainer.md", lambda: deepepochs.Trainer(nn.Linear(1, 1))),
        ("task.md", lambda: deepepochs.EpochTask([1])),
    ],
)
def test_the_api_has_all_that_a_trainer_and_a_task_show(
    page: str, made: Callable[[], object]
) -> None:
    api = text(ROOT / "docs/api" / page) + text(ROOT / "docs/api/task.md")
    named = set(re.findall(r"^::: deepepochs\.\w+\.(\w+)$", api, re.MULTILINE))
    named |= set(re.findall(r"`(\w+)`", "\n".join(re.findall(r"^\| (.*?) \|", api, re.MULTILINE))))
    assert {name for name in dir(made()) if not name.startswith("_")} <= named


@pytest.mark.parametrize(
    "page", sorted((ROOT / "docs").rglob("*.md")), ids=lambda page: str(page.relative_to(ROOT))
)
def test_no_line_of_code_is_wider_than_the_page(page: Path) -> None:
    blocks = re.findall(r"^ *```(?:python|pycon|bash)\n(.*?)^ *```", text(page), re.M | re.S)
    assert not [line for block in blocks for line in block.splitlines() if len(line) > 92]


def test_the_recipes_are_listed() -> None:
    folder = ROOT / "docs/recipes"
    pages = {page.name for page in folder.glob("*.md") if ".zh." not in page.name} - {"index.md"}
    assert pages == set(LINK.findall(text(folder / "index.md")))
