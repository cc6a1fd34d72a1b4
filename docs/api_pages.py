"""Makes one page of the API for each public module, when the site is built."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

SRC = Path(__file__).parents[1] / "src" / "deepepochs"


def public_modules() -> list[tuple[str, str]]:
    """Dotted name and first docstring line of each module that has something to show."""
    found = []
    for path in sorted(SRC.rglob("*.py")):
        parts = [part for part in path.relative_to(SRC).with_suffix("").parts if part != "__init__"]
        if any(part.startswith("_") for part in parts):
            continue
        name = ".".join(["deepepochs", *parts])
        gist = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n")[0]
        found.append((name, gist))
    return found


def on_files(files: Files, config: Any, **_: Any) -> Files:
    """Add the pages and, in front of them, their list."""
    rows = ["# API", "", "One page for each module, made from the code.", ""]
    rows += ["| module | what it is for |", "| --- | --- |"]
    for name, gist in public_modules():
        text = f"# `{name}`\n\n::: {name}\n"
        files.append(File.generated(config, f"api/{name}.md", content=text))
        rows.append(f"| [`{name}`]({name}.md) | {gist} |")
    files.append(File.generated(config, "api/index.md", content="\n".join(rows) + "\n"))
    return files
