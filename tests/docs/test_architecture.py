"""What ``docs/architecture.md`` names is there, and its drawing is that of the code."""

from __future__ import annotations

import ast
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

import deepepochs

ROOT = Path(__file__).parents[2]
SRC = Path(deepepochs.__file__).parent
PAGES = [
    ROOT / "CONTRIBUTING.md",
    ROOT / "docs/architecture.md",
    *sorted((ROOT / "docs/decisions").glob("*.md")),
]
PATH = re.compile(r"`((?:[\w.-]+/)*[\w.-]+\.(?:py|md|toml|txt|svg)|(?:[\w.-]+/)+)`")
MEMBER = re.compile(r"`([A-Z]\w+)\.(\w+)`")


def text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["architecture.svg", "architecture-narrow.svg"])
def test_the_drawing_is_that_of_the_code(name: str) -> None:
    made: dict[str, Any] = runpy.run_path(str(ROOT / "docs/make_architecture.py"))
    drawn = made["drawing"](made["SHEETS"][name])
    assert drawn == text(ROOT / "docs/imgs" / name), "run: python docs/make_architecture.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_path_that_a_page_names_is_there(page: Path) -> None:
    folders = (ROOT, SRC, ROOT / "docs")
    named = set(PATH.findall(text(page)))
    assert not [path for path in named if not any((folder / path).exists() for folder in folders)]


def members() -> dict[str, set[str]]:
    """Each class of the library, with what it defines or assigns, and its bases."""
    found: dict[str, set[str]] = {}
    for path in SRC.rglob("*.py"):
        for cls in ast.walk(ast.parse(text(path))):
            if isinstance(cls, ast.ClassDef):
                names = {node.name for node in cls.body if isinstance(node, ast.FunctionDef)}
                for node in ast.walk(cls):
                    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                        names.add(node.attr)
                found[cls.name] = names | {ast.unparse(base) for base in cls.bases}
    return found


def test_every_method_that_the_page_names_is_there() -> None:
    known = members()
    named = MEMBER.findall(text(ROOT / "docs/architecture.md"))
    assert len(named) > 30
    for cls, member in named:
        bases = known[cls] & known.keys()
        assert any(member in known[name] for name in (cls, *bases)), f"{cls}.{member}"


def test_every_class_and_function_is_in_the_file_that_the_page_says() -> None:
    page = text(ROOT / "docs/architecture.md")
    named = [*re.findall(r"`(\w+)(?:\.\w+)?` \(`([\w/]+\.py)`\)", page)]
    named += re.findall(r"`(\w+)`, `([\w/]+\.py)`\)", page)
    named += re.findall(r"\*\*(\w+)\*\*, `([\w/]+\.py)`", page)
    assert len(named) > 50
    for name, path in named:
        name = "TrainerBase" if name == "Trainer" else name
        assert re.search(rf"^(class|def) {name}\b", text(SRC / path), re.MULTILINE), (name, path)
