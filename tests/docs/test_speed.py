"""The chart of speed and the figures in the pages are those of the results of the benchmarks."""

from __future__ import annotations

import importlib
import runpy
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
CHART: dict[str, Any] = runpy.run_path(str(ROOT / "benchmarks/chart.py"))
NUMBERS = CHART["figures"](CHART["RESULTS"].read_text(encoding="utf-8"))
AGAIN = "run: python benchmarks/chart.py"


def test_the_chart_is_that_of_the_results() -> None:
    assert CHART["drawing"](NUMBERS) == CHART["CHART"].read_text(encoding="utf-8"), AGAIN


@pytest.mark.parametrize("page", CHART["PAGES"], ids=lambda page: page.name)
def test_the_figures_of_a_page_are_those_of_the_results(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert CHART["FIGURE"].search(text)
    assert CHART["filled"](text, NUMBERS) == text, AGAIN


def test_a_chinese_page_has_the_figures_of_the_english_one() -> None:
    pages = [page.read_text(encoding="utf-8") for page in CHART["PAGES"]]
    found = [CHART["FIGURE"].findall(text) for text in pages]
    assert found[::2] == found[1::2]


def test_the_chart_leaves_out_what_was_not_measured() -> None:
    one = {("W2", "deepepochs, default"): "0.50"}
    both = {**one, ("W5", "deepepochs, default"): "0.75"}
    assert "Two processes" not in CHART["drawing"](one)
    assert "Two processes" in CHART["drawing"](both)
    assert "Lightning" not in CHART["drawing"](both)


def test_a_part_of_the_results_is_written_alone_and_the_others_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    report = importlib.import_module("report")
    path, titles = tmp_path / "RESULTS.md", ["One", "Two", "Three"]
    for title, text in (("Three", "old"), ("One", "first"), ("Three", "new")):
        report.write(path, titles, title, text)
    sections = report.read(path)
    assert list(sections) == ["One", "Three", "Machine"]
    assert (sections["One"], sections["Three"]) == ("first", "new")
    assert path.read_text(encoding="utf-8").startswith(report.HEAD)
