"""Shows ``x-narrow.svg`` in place of ``x.svg`` on a narrow screen, where there is one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "imgs"
IMAGE = re.compile(r'<img [^>]*src="(?P<source>[^"]*?(?P<name>[\w-]+)\.svg)"[^>]*>')


def on_page_content(html: str, **_: Any) -> str:
    """Give the page, its images with a second source for narrow screens."""
    return IMAGE.sub(_with_narrow, html)


def _with_narrow(image: re.Match[str]) -> str:
    if not (FOLDER / f"{image['name']}-narrow.svg").exists():
        return image[0]
    source = image["source"].removesuffix(".svg") + "-narrow.svg"
    return f'<picture><source media="(max-width: 600px)" srcset="{source}">{image[0]}</picture>'
