"""Shows ``CHANGELOG.md`` of the repository as the page ``changelog.md``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

CHANGELOG = Path(__file__).parents[1] / "CHANGELOG.md"


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Give the page its text. The links of the changelog start in the folder above this one."""
    if page.file.name != "changelog":
        return markdown
    return CHANGELOG.read_text(encoding="utf-8").replace("](docs/", "](")
