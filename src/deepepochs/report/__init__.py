"""Makes HTML pages: a report on one run, and a comparison of runs.

A page is one file with SVG plots, and needs no network. The same run gives the same bytes.
"""

from __future__ import annotations

from .compare import compare_page
from .html import png, sample_picture
from .page import run_page

__all__ = ["compare_page", "png", "run_page", "sample_picture"]
