"""The page that compares runs: a sortable table, and the hyper-parameters that differ."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any
from urllib.parse import quote

from ..runs.record import RunInfo, mapping
from .html import Raw, duration, frame, is_number, section, short, table, tiles, when
from .svg import sparkline

MAX_TEST_COLUMNS = 6

SORT_SCRIPT = """
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
"""


def compare_page(runs: Sequence[RunInfo], title: str = "Runs") -> str:
    """Return the HTML page that compares runs; the table has them in the given order."""
    states = [run.state for run in runs]
    counts = [(str(states.count(state)), state) for state in dict.fromkeys(states)]
    body = [
        f"<header><h1>{escape(title)}</h1></header>",
        tiles([(str(len(runs)), "run" if len(runs) == 1 else "runs"), *counts]),
        section("All runs", _table(*_runs(runs)) if runs else "<p>There is no run here.</p>"),
        section("Hyper-parameters that differ", _differences(runs)),
    ]
    return frame(f"{title} – DeepEpochs", "\n".join(filter(None, body)), SORT_SCRIPT)


def _runs(runs: Sequence[RunInfo]) -> tuple[list[str], list[list[Any]]]:
    tests = list(dict.fromkeys(name for run in runs for name in mapping(run.record, "test")))
    tests = tests[:MAX_TEST_COLUMNS]
    head = ["run", "state", "epochs", "best", "of", "course", *(f"test {name}" for name in tests)]
    rows = []
    for run in runs:
        value: Any = ""
        what, spark = "", ""
        if (best := run.best()) is not None:
            stage, name, epoch, value = best
            what = f"{stage} {name}, epoch {epoch}"
            curve = [v for _, v in run.curves[stage][name]]
            spark = sparkline(curve, f"{stage} {name} from {short(curve[0])} to {short(curve[-1])}")
        seconds = mapping(run.record, "seconds").get("epochs")
        results = mapping(run.record, "test")
        rows.append(
            [
                _link(run),
                (run.state, Raw(f'<span class="{run.state}">{run.state}</span>')),
                run.record.get("epochs_done", run.num_epochs),
                value,
                what,
                ("", Raw(spark)),
                *(results.get(name, "") for name in tests),
                (seconds, duration(float(seconds))) if seconds and is_number(seconds) else "",
                when(run.record.get("started_at", ""))[:19],
            ]
        )
    return [*head, "time", "began"], rows


def _link(run: RunInfo) -> Any:
    """Return the run's name, as a link if the run has a report."""
    if run.folder is None or not (run.folder / "report.html").is_file():
        return run.running_id
    address = escape(f"{quote(run.folder.name)}/report.html")
    return run.running_id, Raw(f'<a href="{address}">{escape(run.running_id)}</a>')


def _differences(runs: Sequence[RunInfo]) -> str:
    names = list(dict.fromkeys(name for run in runs for name in run.hyper_params))
    differing = [
        name for name in names if len({repr(run.hyper_params.get(name)) for run in runs}) > 1
    ]
    if not differing:
        return ""
    rows = []
    for run in runs:
        best = run.best()
        values = [run.hyper_params.get(name, "") for name in differing]
        rows.append([_link(run), *values, "" if best is None else best[3]])
    same = [name for name in names if name not in differing]
    note = f"The same in all: {', '.join(same)}." if same else ""
    return _table(["run", *differing, "best"], rows) + (
        f'<p class="quiet" style="margin:10px 0 0">{escape(note)}</p>' if note else ""
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return a sortable table; a cell may be a pair of sort key and value."""
    buttons = [Raw(f'<button type="button">{escape(name)}</button>') for name in head]
    return table(buttons, ([_with_key(cell) for cell in row] for row in rows), "sortable")


def _with_key(cell: Any) -> tuple[str, Any]:
    key, shown = cell if isinstance(cell, tuple) else (cell, cell)
    return "" if isinstance(key, float) and not math.isfinite(key) else str(key), shown
