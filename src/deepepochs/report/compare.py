"""The page that compares runs: a table with the best first, their curves, what differs."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..runs.compared import ABSENT, differences, given_by_some, ranked, shared, winners
from ..runs.record import REPORT, RunInfo
from .curves import MAX_PLOTS, Plot, grid, legend
from .html import Number, Raw, frame, section, table, tiles
from .svg import NUM_STYLES, OTHER, Line, style_of
from .text import STAGES, duration, is_number, text_of
from .words import epochs_text

MAX_TEST_COLUMNS = 6

SCRIPT = """
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const head = button.parentElement;
    const body = head.closest("table").tBodies[0];
    const column = head.cellIndex;
    const down = head.getAttribute("aria-sort") === "ascending";
    for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const key = row => row.cells[column].dataset.key;
    const order = (a, b) => {
      if (a === "" || b === "") return (a === "") - (b === "");
      const numbers = [Number(a), Number(b)];
      const less = numbers.some(Number.isNaN)
        ? a.localeCompare(b, "en", {numeric: true}) : numbers[0] - numbers[1];
      return down ? -less : less;
    };
    body.append(...[...body.rows].sort((a, b) => order(key(a), key(b))));
  });
}
const page = document.querySelector("main");
for (const item of document.querySelectorAll("tr[data-run], .key [data-run]")) {
  const light = isOn => () => {
    page.classList.toggle("lighting", isOn);
    for (const line of document.querySelectorAll(`g[data-run="${item.dataset.run}"]`))
      line.classList.toggle("lit", isOn);
  };
  item.addEventListener("mouseenter", light(true));
  item.addEventListener("mouseleave", light(false));
}
"""
"""Sorts a table by the column whose head is clicked, and lights the curves of a run."""


def compare_page(
    runs: Sequence[RunInfo], title: str = "Runs", folder: str | os.PathLike[str] | None = None
) -> str:
    """Return the HTML page that compares runs.

    Args:
        runs: the runs, in any order. The page has those with one metric together, the best first.
        title: of the page.
        folder: where the page will be, for its links to the reports of the runs; ``None``: the
            folder that has the folders of the runs.
    """
    ordered = ranked(runs)
    states = [run.outcome for run in ordered]
    counts = [(str(states.count(state)), state) for state in dict.fromkeys(states)]
    names = [Raw(_swatch(i) + _link(run, folder)) for i, run in enumerate(ordered)]
    note = f'<p class="quiet">The best {NUM_STYLES} have a colour, the others are grey.</p>'
    body = [
        f'<header><p class="kind">Comparison of runs</p><h1>{escape(title)}</h1></header>',
        tiles([(str(len(runs)), "run" if len(runs) == 1 else "runs"), *counts]),
        section("All runs", _runs(ordered, names) if runs else "<p>There is no run here.</p>"),
        section(
            "Validation curves",
            note if len(ordered) > NUM_STYLES else "",
            *_curves(ordered, "val"),
        ),
        section("Training curves", *_curves(ordered, "train")),
        section("Settings that differ", *_differences(ordered, names)),
    ]
    return frame(f"{title} – comparison of runs", "\n".join(filter(None, body)), SCRIPT)


def _runs(runs: Sequence[RunInfo], names: Sequence[Raw]) -> str:
    tests = shared([run.tested for run in runs])[:MAX_TEST_COLUMNS]
    bests = [run.best() for run in runs]
    metrics = dict.fromkeys(f"{STAGES[b.stage]} {b.name}" for b in bests if b is not None)
    is_one = len(metrics) == 1
    what = f"best {next(iter(metrics))}" if is_one else "best"
    head = ["run", what, *(["of"] if len(metrics) > 1 else []), "in epoch"]
    head += [*(f"test {name}" for name in tests), "epochs", "state", "time", "began"]
    best_runs, rows = winners(runs), []
    for run, best, name in zip(runs, bests, names, strict=True):
        star = '<b class="star" title="the best">★</b>' if run in best_runs else ""
        row: list[Any] = [(run.running_id, Raw(name + star))]
        row.append("" if best is None else best.value)
        if len(metrics) > 1:
            row.append("" if best is None else f"{STAGES[best.stage]} {best.name}")
        row.append("" if best is None else best.epoch)
        row += [run.tested.get(name, "") for name in tests]
        rows.append([*row, *_course(run)])
    return _table(runs, head, rows)


def _course(run: RunInfo) -> Iterator[Any]:
    """Yield how a run went: epochs, state, time, start."""
    seconds, start = run.seconds, run.started
    yield run.epochs_done, Number(epochs_text(run))
    yield run.outcome, Raw(f'<span class="{run.outcome}">{run.outcome}</span>')
    yield "" if seconds is None else (seconds, Number(duration(seconds)))
    yield "" if start is None else (start.timestamp(), f"{start:%Y-%m-%d %H:%M}")


def _swatch(index: int) -> str:
    return f'<span class="swatch {style_of(index)}"><i></i></span>'


def _link(run: RunInfo, folder: str | os.PathLike[str] | None) -> Raw:
    """Return the run's name, as a link if the run has a report."""
    name = escape(run.running_id)
    if run.folder is None or not (run.folder / REPORT).is_file():
        return Raw(name)
    page, start = (run.folder / REPORT).absolute(), Path(folder or run.folder.parent).absolute()
    try:
        address = quote(Path(os.path.relpath(page, start)).as_posix())
    except ValueError:  # on another drive
        address = page.as_uri()
    return Raw(f'<a href="{escape(address)}">{name}</a>')


def _curves(runs: Sequence[RunInfo], stage: str) -> Iterator[str]:
    """Yield a plot for each metric of a stage, with the curves of all runs."""
    tables = [run.curves.get(stage, {}) for run in runs]
    monitored = [best.name for best in (run.best() for run in runs) if best is not None]
    names = shared(tables)
    names.sort(key=lambda name: name not in monitored)
    plots = []
    for name in names[:MAX_PLOTS]:
        lines = [
            Line(run.running_id, table[name], style_of(index), index)
            for index, (run, table) in enumerate(zip(runs, tables, strict=True))
            if name in table
        ]
        plots.append(Plot(name, lines))
    if not plots:
        return
    yield legend(_items(runs, tables))
    yield grid(plots)
    if len(names) > MAX_PLOTS:
        yield f'<p class="quiet after">{len(names) - MAX_PLOTS} more metrics are not drawn.</p>'


def _items(runs: Sequence[RunInfo], tables: Sequence[Any]) -> list[tuple[str, str, str]]:
    """Return the entries of the legend: a run each, and one for all grey curves."""
    drawn = [index for index, table in enumerate(tables) if table]
    items = [
        (style_of(index), runs[index].running_id, f' data-run="{index}"')
        for index in drawn
        if index < NUM_STYLES
    ]
    others = len(drawn) - len(items)
    return [*items, (OTHER, f"{others} others", "")] if others else items


def _differences(runs: Sequence[RunInfo], names: Sequence[Raw]) -> Iterator[str]:
    """Yield the table of settings that differ, and those that only some runs name."""
    differing = differences(runs)
    if differing:
        rows = []
        for index, (run, name) in enumerate(zip(runs, names, strict=True)):
            best = run.best()
            cells = [_setting(values[index]) for values in differing.values()]
            rows.append([(run.running_id, name), *cells, "" if best is None else best.value])
        yield _table(runs, ["run", *differing, "best"], rows)
    elif len(runs) > 1:
        yield "<p>The runs have the same settings, as far as they are recorded.</p>"
    if partial := given_by_some(runs):
        shown = ", ".join(f"{name} = {text_of(value)}" for name, value in partial.items())
        yield f'<p class="quiet after">Only some runs name: {escape(shown)}.</p>'


def _setting(value: Any) -> Any:
    if value is ABSENT:
        return "", Number("–")
    return (value, Number(text_of(value))) if is_number(value) else value


def _table(runs: Sequence[RunInfo], head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return a sortable table of runs; a cell may be a pair of sort key and value."""
    best_runs = winners(runs)
    marks = [
        f'data-run="{index}"' + (' class="best"' if run in best_runs else "")
        for index, run in enumerate(runs)
    ]
    buttons = [Raw(f'<button type="button">{escape(name)}</button>') for name in head]
    keyed = [[_with_key(cell) for cell in row] for row in rows]
    return table(buttons, keyed, "sortable sticky", marks)


def _with_key(cell: Any) -> tuple[str, Any]:
    key, shown = cell if isinstance(cell, tuple) else (cell, cell)
    return "" if isinstance(key, float) and not math.isfinite(key) else str(key), shown
