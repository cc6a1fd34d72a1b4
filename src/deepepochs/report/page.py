"""The page on one run."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any

from ..runs.record import Curve, RunInfo, finite, mapping
from .html import duration, facts, frame, section, table, tiles
from .scales import short
from .sections import (
    LABELS,
    confusion_section,
    environment_section,
    model_section,
    resume_section,
    samples_section,
    settings_section,
    time_section,
    when,
)
from .svg import curve_plot

__all__ = ["run_page"]

MAX_PLOTS = 24
SMALL_TABLE = 12
"""Up to so many epochs the table of epochs is open."""

MAX_ROWS = 1000


def run_page(run: RunInfo) -> str:
    """Return the page of HTML on a run."""
    record = run.record
    state = f'<span class="state {run.state}">{run.state}</span>'
    body = [
        f"<header><h1>{escape(run.running_id)}{state}</h1>",
        f'<p class="quiet">{escape(" · ".join(_subtitle(record)))}</p></header>',
        tiles(list(_tiles(run))),
        section("What to know", *_notes(run)),
        section("Curves", *_curves(run)),
        section("Metrics", _final_table(run), _epoch_table(run)),
        section("Confusion matrix", confusion_section(run)),
        section(str(run.pictures.get("samples_title", "Samples")), samples_section(run)),
        section("Hyper-parameters", facts(run.hyper_params)),
        section("Training", facts(settings_section(record))),
        section("Time", time_section(record)),
        section("Model", *model_section(mapping(record, "model"))),
        section("Environment", facts(environment_section(record))),
        section("Go on with this run", *resume_section(run)),
    ]
    return frame(f"{run.running_id} – DeepEpochs", "\n".join(filter(None, body)))


def _subtitle(record: dict[str, Any]) -> Iterator[str]:
    model, script = mapping(record, "model"), record.get("script")
    if model:
        yield str(model.get("class", ""))
    if script:
        yield str(script)
    if record.get("started_at"):
        yield f"began {when(record['started_at'])}"
    if record.get("updated_at"):
        yield f"last written {when(record['updated_at'])}"


def _tiles(run: RunInfo) -> Iterator[tuple[str, str]]:
    record = run.record
    total = record.get("max_epochs")
    done = record.get("epochs_done", run.num_epochs)
    yield (f"{done} of {total}" if total else str(done), "epochs")
    best = run.best()
    if best is not None:
        stage, name, epoch, value = best
        yield short(value), f"best {stage} {name}, in epoch {epoch}"
    for name, value in list(mapping(record, "test").items())[:3]:
        if isinstance(value, (int, float)):
            yield short(float(value)), f"test {name}"
    seconds = mapping(record, "seconds").get("epochs")
    if isinstance(seconds, (int, float)):
        yield duration(seconds), "in epochs"
    parameters = mapping(record, "model").get("parameters")
    if isinstance(parameters, int):
        yield f"{parameters:,}", "parameters"


def _notes(run: RunInfo) -> Iterator[str]:
    record = run.record
    if run.state == "killed":
        yield _note("The process died without a word: killed, out of memory, or a power cut.", True)
    if record.get("error"):
        yield _note(f"Ended by {record['error']}", True)
    if record.get("reason"):
        yield _note(f"Stopped: {record['reason']}")
    warnings = record.get("warnings")
    for text in warnings if isinstance(warnings, list) else ():
        yield _note(str(text))


def _note(text: str, is_bad: bool = False) -> str:
    return f'<p class="note{" bad" if is_bad else ""}">{escape(text)}</p>'


def _curves(run: RunInfo) -> Iterator[str]:
    names = list(dict.fromkeys(name for table in run.curves.values() for name in table))
    plots = []
    for name in names[:MAX_PLOTS]:
        curves = {stage: table[name] for stage, table in run.curves.items() if name in table}
        plots.append(_plot(name, curves))
    rates = _rates(run.record)
    if rates:
        plots.append(_plot("learning rate", rates))
    if not plots:
        return
    stages = [stage for stage in ("train", "val") if stage in run.curves]
    keys = "".join(f'<span class="{stage}"><i></i>{LABELS[stage]}</span>' for stage in stages)
    if keys:
        yield f'<div class="key">{keys}</div>'
    yield f'<div class="grid2">{"".join(plots)}</div>'
    if len(names) > MAX_PLOTS:
        yield f'<p class="quiet">{len(names) - MAX_PLOTS} more metrics are in the table.</p>'


def _plot(name: str, curves: dict[str, Curve]) -> str:
    others = [label for label in curves if label not in LABELS] if len(curves) > 1 else []
    keys = "".join(
        f'<span class="c{2 + index % 4}"><i></i>{escape(label)}</span>'
        for index, label in enumerate(others)
    )
    key = f'<div class="key">{keys}</div>' if keys else ""
    return f'<div class="keep"><h3>{escape(name)}</h3>{key}{curve_plot(curves, name)}</div>'


def _rates(record: dict[str, Any]) -> dict[str, Curve]:
    """The curve of each optimizer's learning rate."""
    rows = record.get("rates")
    curves: dict[str, Curve] = {}
    for epoch, row in enumerate(rows if isinstance(rows, list) else (), start=1):
        rates = row if isinstance(row, list) else [row]
        for index, rate in enumerate(rates):
            label = "learning rate" if len(rates) == 1 else f"optimizer {index}"
            if isinstance(rate, (int, float)):
                curves.setdefault(label, []).append((epoch, float(rate)))
    return curves


def _final_table(run: RunInfo) -> str:
    """The last value of each metric; of the stage that decides the extremes, too."""
    test = mapping(run.record, "test")
    stages = [stage for stage in ("train", "val") if stage in run.curves]
    deciding = stages[-1] if stages else ""
    names = dict.fromkeys([name for stage in stages for name in run.curves[stage]])
    tested = {name: value for name, value in test.items() if isinstance(value, (int, float, str))}
    rows = []
    for name in [*names, *(name for name in tested if name not in names)]:
        row: list[Any] = [name]
        values: list[float] = []
        for stage in stages:
            curve = run.curves[stage].get(name, [])
            row.append(curve[-1][1] if curve else "")
            values = [value for _, value in filter(finite, curve)]
        if stages:
            row += [min(values), max(values)] if values else ["", ""]
        if tested:
            row.append(tested.get(name, ""))
        rows.append(row)
    head = ["metric", *(LABELS[stage] for stage in stages)]
    if stages:
        head += [f"{LABELS[deciding]}, min", "max"]
    return table([*head, "test"] if tested else head, rows)


def _epoch_table(run: RunInfo) -> str:
    columns = [
        (f"{stage} {name}", dict(curve))
        for stage in ("train", "val")
        for name, curve in run.curves.get(stage, {}).items()
    ]
    epochs = sorted({epoch for _, curve in columns for epoch in curve})
    if not epochs:
        return ""
    # A page stays readable, and below half a megabyte, with a long run too.
    every = -(-len(epochs) * len(columns) // (MAX_ROWS * 4))
    shown = [epoch for i, epoch in enumerate(epochs) if i % every == 0 or epoch == epochs[-1]]
    rows = ([epoch, *(curve.get(epoch, "") for _, curve in columns)] for epoch in shown)
    text = "All epochs" if every == 1 else f"Every {every}th of {len(epochs)} epochs"
    is_open = " open" if len(epochs) <= SMALL_TABLE else ""
    content = table(["epoch", *(title for title, _ in columns)], rows)
    return f"<details{is_open}><summary>{text}</summary>{content}</details>"
