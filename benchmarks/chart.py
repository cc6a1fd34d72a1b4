"""Draws the chart of speed from ``RESULTS.md``, and writes its figures into the pages.

    python benchmarks/chart.py

A figure in a page stands between two comments, which name its column and its row::

    <!--W2: deepepochs, default-->0.79<!--/-->
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "RESULTS.md"
CHART = ROOT / "docs" / "imgs" / "speed.svg"
PAGES = [
    ROOT / name
    for name in (
        "README.md", "README.zh-CN.md", "docs/index.md", "docs/index.zh.md",
        "docs/performance.md", "docs/performance.zh.md",
    )
]  # fmt: skip
FIGURE = re.compile(r"<!--(?P<column>[^:>]+): (?P<row>[^>]+?)-->.*?<!--/-->")

# What is drawn: title, column, and the systems with their labels.
PANELS = [
    (
        "One process: a small network, with accuracy",
        "W2",
        {
            "deepepochs, default": "DeepEpochs",
            "skorch": "skorch",
            "Poutyne, default": "Poutyne",
            "Accelerate in a raw loop": "Accelerate",
            "Ignite, default": "Ignite",
            "fastai, default": "fastai",
            "Lightning, default": "Lightning",
            "Keras, torch backend": "Keras",
        },
    ),
    (
        "Two processes: a small network",
        "W5",
        {
            "deepepochs, default": "DeepEpochs",
            "Accelerate in a raw loop": "Accelerate",
            "Lightning, default": "Lightning",
        },
    ),
]
BY_HAND = "loop by hand"
MISSING = "–"
WIDTH, LEFT, RIGHT, ROW = 400, 112, 46, 22
STYLE = """
    .paper { fill: #ffffff; stroke: #d4d9e2; }
    .bar { fill: #a9b4c6; }
    .ours { fill: #2f6fd0; }
    .one { stroke: #5a6577; stroke-dasharray: 3 3; }
    .name { fill: #1d2430; font-weight: 600; }
    .text { fill: #3d4757; }
    .name, .text { paint-order: stroke; stroke: #ffffff; stroke-width: 4px; }
    @media (prefers-color-scheme: dark) {
      .paper { fill: #14181f; stroke: #343c4a; }
      .bar { fill: #57637a; }
      .ours { fill: #6ea8ff; }
      .one { stroke: #a5b0c2; }
      .name { fill: #e9edf4; }
      .text { fill: #c3ccda; }
      .name, .text { stroke: #14181f; }
    }
  """

Figures = Mapping[tuple[str, str], str]


def figures(text: str) -> Figures:
    """Give each first number of the tables, by column and row."""
    found = {}
    columns: list[str] = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if not cells:
            columns = []
        columns = columns or cells
        for column, cell in zip(columns, cells, strict=True):
            if number := re.match(r"-?[\d.]+\b", cell):
                found[column, cells[0]] = number[0]
    return found


def filled(page: str, numbers: Figures) -> str:
    """Give the page with the figures of the results; a dash for those that are not there."""

    def figure(match: re.Match[str]) -> str:
        key = match["column"], match["row"]
        return f"<!--{': '.join(key)}-->{numbers.get(key, MISSING)}<!--/-->"

    return FIGURE.sub(figure, page)


def drawing(numbers: Figures) -> str:
    """Give the chart as SVG; a panel whose figures are not there is left out."""
    panels = []
    for title, column, labels in PANELS:
        bars = [
            (float(numbers[column, system]), label)
            for system, label in labels.items()
            if (column, system) in numbers
        ]
        if bars:
            panels.append((title, sorted([*bars, (1.0, BY_HAND)])))
    longest = max(value for _, bars in panels for value, _ in bars)
    scale = (WIDTH - LEFT - RIGHT) / longest
    body = [_text(12, 24, "name", "Time of a training: shorter is better")]
    top = 34
    for title, bars in panels:
        top += 18
        body.append(_text(12, top, "text", title))
        one = LEFT + scale
        bottom = top + 10 + ROW * len(bars)
        body.append(f'<path class="one" d="M{one:.1f} {top + 6}V{bottom}"/>')
        for value, label in bars:
            top += ROW
            is_ours = label == "DeepEpochs"
            kind, words = ("bar ours", "name") if is_ours else ("bar", "text")
            width = value * scale
            body += [
                _text(LEFT - 8, top + 2, words, label, anchor="end"),
                f'<rect class="{kind}" x="{LEFT}" y="{top - 11}" width="{width:.1f}" height="16" rx="2"/>',
                _text(LEFT + width + 6, top + 2, words, f"{value:.2f}"),
            ]
        top += 14
    height = top + 6
    told = ". ".join(
        f"{title}: " + ", ".join(f"{label} {value:.2f}" for value, label in bars)
        for title, bars in panels
    )
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
            'aria-labelledby="title desc" font-family="system-ui, -apple-system, \'Segoe UI\', Roboto, '
            '\'Noto Sans\', sans-serif" font-size="13">',
            '<title id="title">Time of a training, in that of the loop by hand</title>',
            f'<desc id="desc">{escape(told)}</desc>',
            f"<style>{STYLE}</style>",
            f'<rect class="paper" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="6"/>',
            *body,
            "</svg>\n",
        ]
    )


def _text(x: float, y: float, kind: str, words: str, anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y}" text-anchor="{anchor}">{escape(words)}</text>'


def main() -> None:
    """Draw, and write the figures."""
    numbers = figures(RESULTS.read_text(encoding="utf-8"))
    CHART.write_text(drawing(numbers), encoding="utf-8")
    for page in PAGES:
        text = filled(page.read_text(encoding="utf-8"), numbers)
        page.write_text(text, encoding="utf-8")
        for missing in FIGURE.finditer(text):
            if f">{MISSING}<" in missing[0]:
                print(f"{page.name}: {missing['column']}, {missing['row']} is not in the results")


if __name__ == "__main__":
    main()
