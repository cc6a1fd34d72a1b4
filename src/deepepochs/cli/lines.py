"""What the commands print: a list of runs, one run, and a comparison, in lines that fit."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..checkpoint.store import CheckpointStore
from ..report.text import duration, measured, place, short, size, text_of
from ..report.words import (
    epochs_text,
    how_to_resume,
    model_text,
    named,
    period_of,
    reason_text,
    resume_code,
)
from ..runs.compared import ABSENT, differences, ranked, shared, winners
from ..runs.record import EVENTS, REPORT, TABLE, VALIDATIONS, Best, RunInfo, entries, mapping
from ..show.screens import pad, right, short_name, text_width

MIN_FIRST = 16
"""Columns that are kept of the first cell of a row; the middle of a longer one is left out."""

TITLES = ("run", "state", "epochs", "best (epoch)", "test", "began", "time")
NUM_ROWS = 5  # of the table of epochs
MAX_NAMED = 6  # columns without room that are named


def table_lines(
    rows: Sequence[Sequence[str]], width: int, numeric: Collection[int] = (), kept: int = 1
) -> list[str]:
    """Lay out a table in lines of at most `width` columns; the first row is the head.

    If the table is wider, columns are left out from the right, and a last line names them. Then
    the cells of the first column lose their middle.

    Args:
        rows: the cells.
        width: of the terminal.
        numeric: the columns that are aligned right.
        kept: the first cells are cut before one of this many columns is left out.

    >>> table_lines([("run", "best", "test"), ("a", "loss 0.25", "acc 0.9")], 21)
    ['run  best', '---  ---------', 'a    loss 0.25', 'Too narrow for: test.']
    """
    widths = [max(map(text_width, column)) for column in zip(*rows, strict=True)]
    shown = len(widths)

    def spare(first: int) -> int:
        return width - sum(widths[1:shown]) - 2 * (shown - 1) - first

    while shown > kept and spare(widths[0]) < 0:
        shown -= 1
    while shown > 1 and spare(min(MIN_FIRST, widths[0])) < 0:
        shown -= 1
    widths[0] = min(widths[0], max(1, spare(0)))
    lines = []
    for row in (rows[0], ["-" * columns for columns in widths], *rows[1:]):
        cells = [short_name(row[0], widths[0]), *row[1:shown]]
        padded = [
            right(cell, columns) if index in numeric else pad(cell, columns)
            for index, (cell, columns) in enumerate(zip(cells, widths[:shown], strict=True))
        ]
        lines.append("  ".join(padded).rstrip())
    if shown < len(widths):
        names = rows[0][shown : shown + MAX_NAMED]
        more = len(widths) - shown - len(names)
        rest = f" and {more} more" if more else ""
        lines += wrap(f"Too narrow for: {', '.join(names)}{rest}.", width)
    return lines


def wrap(text: str, width: int, indent: int = 0) -> list[str]:
    """Return a text in lines of at most `width` columns, all but the first indented."""
    if text_width(text) <= width:
        return [text]
    # A Chinese character has two columns.
    columns = width if text.isascii() else max(width // 2, indent + 2)
    return textwrap.wrap(text, max(columns, indent + 2), subsequent_indent=" " * indent) or [""]


# --- a list of runs


def list_lines(runs: Sequence[RunInfo], width: int) -> list[str]:
    """Return the table of runs.

    Where not all of it fits, the test has the metric of the best epoch alone, then the time is left
    out, and then when the run began.
    """
    for only_best in (False, True):
        rows = [TITLES, *(_cells(run, only_best) for run in runs)]
        widths = [max(map(text_width, column)) for column in zip(*rows, strict=True)]
        if sum(widths) + 2 * (len(widths) - 1) <= width:
            break
    return table_lines(rows, width, kept=5)


def best_text(best: Best | None) -> str:
    """Return the best value with its metric and epoch, such as ``val accuracy 0.957 (9)``."""
    if best is None:
        return ""
    return f"{best.stage} {best.name} {short(best.value)} ({best.epoch})"


def _cells(run: RunInfo, only_best: bool) -> tuple[str, ...]:
    record, start, best = run.record, run.started, run.best()
    tested = run.tested
    if only_best and best is not None and best.name in tested:
        tested = {best.name: tested[best.name]}
    is_known = bool(record or run.curves)
    done = epochs_text(run).replace(" of ", "/") if is_known else ""
    return (
        run.running_id,
        run.outcome,
        done,
        best_text(best),
        "  ".join(f"{name} {short(value)}" for name, value in tested.items()),
        "" if start is None else f"{start:%Y-%m-%d %H:%M}",
        "" if run.seconds is None else duration(run.seconds),
    )


def compare_lines(runs: Sequence[RunInfo], width: int) -> list[str]:
    """Return a table of runs, the best first with a mark, with the settings that differ."""
    ordered = ranked(runs)
    best_runs, differing = winners(ordered), differences(ordered)
    tests = shared([run.tested for run in ordered])
    head = ["run", "best (epoch)", *differing, *(f"test {name}" for name in tests)]
    rows = []
    for index, run in enumerate(ordered):
        settings = (values[index] for values in differing.values())
        tested = (run.tested.get(name) for name in tests)
        rows.append(
            [
                f"{'*' if run in best_runs else ' '} {run.running_id}",
                best_text(run.best()),
                *("-" if value is ABSENT else text_of(value) for value in settings),
                *("" if value is None else short(value) for value in tested),
            ]
        )
    return table_lines([[f"  {head[0]}", *head[1:]], *rows], width, kept=2)


# --- one run


def run_lines(run: RunInfo, width: int) -> Iterator[str]:
    """Yield what there is to know about a run: how it went, settings, files, how to go on."""
    for text in _summary(run):
        yield from wrap(text, width, 2)
    if rows := list(epoch_rows(run)):
        yield ""
        yield from table_lines(rows, width, numeric=range(len(rows[0])), kept=2)
    best = run.best()
    if best is not None:
        where = f"{best.stage} {best.name} {measured(best.value)} in epoch {best.epoch}"
        yield ""
        yield from wrap(f"Best (*): {where}", width, 2)
    if run.tested:
        results = ", ".join(f"{name} {measured(value)}" for name, value in run.tested.items())
        yield from wrap(f"Test: {results}", width, 2)
    settings = run.hyper_params | mapping(run.record, "settings")
    settings |= named(run.record, "seed", "torch seed") | named(run.record, "git", "git commit")
    yield from fact_lines("Settings", settings, width)
    if run.folder is not None:
        yield from fact_lines(f"Files in {place(run.folder)}", _files(run.folder), width)
    yield from _next_lines(run, width)


def _summary(run: RunInfo) -> Iterator[str]:
    record = run.record
    spent = "" if run.seconds is None else f" in {duration(run.seconds)}"
    ended = "stopped early" if run.outcome == "stopped" else run.outcome
    yield f"{run.running_id}: {ended}, {epochs_text(run)} epochs{spent}"
    device = mapping(record, "environment").get("device")
    facts = (
        model_text(mapping(record, "model")),
        f"on {device}" if device else "",
        period_of(run),
    )
    yield from filter(None, [", ".join(filter(None, facts)), str(record.get("command") or "")])
    if record.get("error"):
        yield f"Ended by {record['error']}"
    if reason := reason_text(run):
        yield reason
    yield from (f"Warning: {text}" for text in entries(record, "warnings"))
    if run.findings == []:
        yield "Check: nothing was found."
    yield from (f"Check, {kind}: {text} {remedy}" for kind, text, remedy in run.findings or [])


def epoch_rows(run: RunInfo) -> Iterator[list[str]]:
    """Yield the head and the last rows of the table of epochs, and the row of the best epoch."""
    best = run.best()
    names = run.metrics
    if best is not None:  # what does not fit is left out from the right
        names.sort(key=lambda name: name not in (best.name, "loss"))
    columns = [
        (f"{stage} {name}", dict(run.curves[stage][name]))
        for name in names
        for stage in ("train", "val")
        if name in run.curves.get(stage, {})
    ]
    epochs = sorted({epoch for _, curve in columns for epoch in curve})
    if not epochs:
        return
    shown = epochs[-NUM_ROWS:]
    if best is not None and best.epoch not in shown:
        shown = [best.epoch, *shown]
    yield ["epoch", *(title for title, _ in columns)]
    for epoch in shown:
        mark = "* " if best is not None and epoch == best.epoch else ""
        values = (curve.get(epoch) for _, curve in columns)
        yield [
            f"{mark}{run.epoch_text(epoch)}",
            *("" if value is None else measured(value) for value in values),
        ]


def fact_lines(title: str, facts: Mapping[str, Any], width: int) -> Iterator[str]:
    """Yield a title and a line for each name and value; nothing without a value."""
    if not facts:
        return
    yield ""
    yield from wrap(title, width, 2)
    room = min(max(map(text_width, facts)), max(width // 3, 8))
    for name, value in facts.items():
        yield from wrap(f"  {pad(short_name(name, room), room)}  {text_of(value)}", width, room + 4)


def _files(folder: Path) -> dict[str, str]:
    """Return the files of a run with their sizes, and what they are."""
    store = CheckpointStore(folder)
    meanings = {
        store.best().name: "the state of the best epoch",
        store.last.name: "the last state",
        store.previous.name: "the state before the last",
        store.last_fit.name: "the state at the end of the fit before",
        store.stopped.name: "the best state, at a stop within an epoch",
        REPORT: "the page about the run",
        TABLE: "all epochs",
        VALIDATIONS: "all validations, by optimizer step",
    }
    files = [path for path in sorted(folder.iterdir()) if path.is_file()]
    shown = {}
    for path in files:
        if not path.name.startswith("."):
            log = "a log for TensorBoard" if path.match(EVENTS) else None
            parts = (size(path.stat().st_size), meanings.get(path.name, log))
            shown[path.name] = ", ".join(filter(None, parts))
    return shown


def _next_lines(run: RunInfo, width: int) -> Iterator[str]:
    weights = best_weights(run)
    if run.record.get("can_resume"):
        yield ""
        yield from wrap(f"{how_to_resume(run)}:", width)
        yield f"  {resume_code(run)}"
    if weights is not None:
        yield ""
        yield from wrap("To use its weights:", width)
        yield f"  trainer.load_weights({weights.as_posix()!r})"


def best_weights(run: RunInfo) -> Path | None:
    """Return the checkpoint with the best weights, or else the last one, if there is any."""
    if run.folder is None:
        return None
    store = CheckpointStore(run.folder)
    return next((path for path in (store.best(), store.last) if path.exists()), None)
