"""The page about one run: curves, metrics, settings, model, machine and how to resume."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any

from ..runs.record import Curve, RunInfo, finite, mapping
from ..show.plots import confusion_svg
from .html import Raw, duration, facts, frame, section, short, table, text_of, tiles, when
from .svg import curve_plot

MAX_PLOTS = 24
SMALL_TABLE = 12  # the table of epochs is open if it has at most this many epochs
MAX_ROWS = 1000
MAX_CLASSES = 100
MAX_SAMPLES = 24
LABELS = {"train": "training", "val": "validation"}
PART_COLOURS = ("train", "val", "c3", "c2", "c4", "c5")


def run_page(run: RunInfo) -> str:
    """Return the HTML page about a run."""
    record = run.record
    settings = mapping(record, "settings") | named(record, "seed", "torch seed")
    environment = mapping(record, "environment") | named(record, "git", "git commit")
    state = f'<span class="state {run.state}">{run.state}</span>'
    body = [
        f"<header><h1>{escape(run.running_id)}{state}</h1>",
        f'<p class="quiet">{escape(" · ".join(filter(None, _subtitle(record))))}</p></header>',
        tiles(list(_tiles(run))),
        section("What to know", *_notes(run)),
        section("Curves", *_curves(run)),
        section("Metrics", _final_table(run), _epoch_table(run)),
        section("Confusion matrix", _confusion(run)),
        section(str(run.pictures.get("samples_title", "Samples")), _samples(run)),
        section("Hyper-parameters", facts(run.hyper_params)),
        section("Training", facts(settings)),
        section("Time", _time(record)),
        section("Model", *_model(mapping(record, "model"))),
        section("Environment", facts(environment)),
        section("Go on with this run", *_resume(run)),
    ]
    return frame(f"{run.running_id} – DeepEpochs", "\n".join(filter(None, body)))


def entries(record: dict[str, Any], name: str) -> list[Any]:
    """Return a list of the record, or an empty list for anything else."""
    value = record.get(name)
    return value if isinstance(value, list) else []


def named(record: dict[str, Any], key: str, name: str) -> dict[str, Any]:
    """Return an entry of the record under another name, if it is there and not ''."""
    return {name: record[key]} if record.get(key, "") != "" else {}


def _subtitle(record: dict[str, Any]) -> Iterator[str]:
    yield str(mapping(record, "model").get("class", ""))
    yield str(record.get("script") or "")
    for key, label in (("started_at", "began"), ("updated_at", "last written")):
        if record.get(key):
            yield f"{label} {when(record[key])}"


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
        yield _note("The process was killed, ran out of memory, or lost its power.", True)
    if record.get("error"):
        yield _note(f"Ended by {record['error']}", True)
    if record.get("reason"):
        yield _note(f"Stopped: {record['reason']}")
    for text in entries(record, "warnings"):
        yield _note(str(text))


def _note(text: str, is_bad: bool = False) -> str:
    return f'<p class="note{" bad" if is_bad else ""}">{escape(text)}</p>'


def _curves(run: RunInfo) -> Iterator[str]:
    names = list(dict.fromkeys(name for table in run.curves.values() for name in table))
    plots = []
    for name in names[:MAX_PLOTS]:
        curves = {stage: table[name] for stage, table in run.curves.items() if name in table}
        plots.append(_plot(name, curves))
    if rates := _rates(run.record):
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
    """Return the curve of each optimizer's learning rate."""
    curves: dict[str, Curve] = {}
    for epoch, row in enumerate(entries(record, "rates"), start=1):
        rates = row if isinstance(row, list) else [row]
        for index, rate in enumerate(rates):
            label = "learning rate" if len(rates) == 1 else f"optimizer {index}"
            if isinstance(rate, (int, float)):
                curves.setdefault(label, []).append((epoch, float(rate)))
    return curves


def _final_table(run: RunInfo) -> str:
    """Return the last value of each metric, and the extremes of the last stage."""
    test = mapping(run.record, "test")
    stages = [stage for stage in ("train", "val") if stage in run.curves]
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
        head += [f"{LABELS[stages[-1]]}, min", "max"]
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
    # The page of a long run stays readable, and below half a megabyte.
    every = -(-len(epochs) * len(columns) // (MAX_ROWS * 4))
    shown = [epoch for i, epoch in enumerate(epochs) if i % every == 0 or epoch == epochs[-1]]
    rows = ([epoch, *(curve.get(epoch, "") for _, curve in columns)] for epoch in shown)
    text = "All epochs" if every == 1 else f"Every {every}th of {len(epochs)} epochs"
    is_open = " open" if len(epochs) <= SMALL_TABLE else ""
    content = table(["epoch", *(title for title, _ in columns)], rows)
    return f"<details{is_open}><summary>{text}</summary>{content}</details>"


def _confusion(run: RunInfo) -> str:
    found = mapping(run.pictures, "confusion")
    counts = found.get("counts")
    if not isinstance(counts, list) or not counts:
        return ""
    stage = LABELS.get(str(found.get("stage")), "test")
    if len(counts) > MAX_CLASSES:
        return f'<p class="quiet">{len(counts)} classes are too many to be drawn.</p>'
    names = [str(name) for name in found.get("names") or range(len(counts))]
    text = (
        f"Of the latest {stage}. A row is the true class, a column the predicted class. "
        "The colour of a cell is its share of the row."
    )
    svg = confusion_svg(counts, names).replace(
        "<svg", '<svg class="matrix" role="img" aria-label="confusion matrix"', 1
    )
    return f'<p class="quiet">{text}</p>{svg}'


def _samples(run: RunInfo) -> str:
    figures = []
    for sample in entries(run.pictures, "samples")[:MAX_SAMPLES]:
        picture = str(sample.get("picture", ""))
        image = f'<img alt="" src="{escape(picture)}">' if picture.startswith("data:image/") else ""
        lines = [f"<b>{escape(text_of(sample.get('value')))}</b>"]
        lines += [
            f"{label} {escape(text_of(sample[key]))}"
            for key, label in (("pred", "predicted"), ("target", "is"))
            if sample.get(key) is not None
        ]
        figures.append(f"<figure>{image}<figcaption>{'<br>'.join(lines)}</figcaption></figure>")
    return f'<div class="samples">{"".join(figures)}</div>' if figures else ""


def _time(record: dict[str, Any]) -> str:
    """Return a bar of the parts of the time: those of `TimingCallback`, or else the passes."""
    parts = mapping(record, "timing")
    if not parts:
        parts = dict(mapping(record, "seconds"))
        whole = parts.pop("epochs", 0.0)
        parts["between the passes"] = max(0.0, whole - sum(parts.values()))
    values = {name: s for name, s in parts.items() if isinstance(s, (int, float)) and s > 0}
    total = sum(values.values())
    if not total:
        return ""
    bar, rows = [], []
    for index, (name, seconds) in enumerate(values.items()):
        colour = f"var(--{PART_COLOURS[index % len(PART_COLOURS)]})"
        bar.append(f'<i style="width:{seconds / total:.2%};background:{colour}"></i>')
        mark = f'<i style="background:{colour}"></i>'
        name_cell = Raw(f'<span class="part">{mark}{escape(name)}</span>')
        rows.append([name_cell, duration(seconds), f"{seconds / total:.1%}"])
    return f'<div class="bar">{"".join(bar)}</div>{table([], rows)}'


def _model(model: dict[str, Any]) -> Iterator[str]:
    if not model:
        return
    total, trainable = model.get("parameters", 0), model.get("trainable", 0)
    layers = entries(model, "layers")
    count = model.get("num_layers", len(layers))
    name = escape(str(model.get("class", "")))
    yield f"<p>{name}: {count} layers, {total:,} parameters, {trainable:,} of them trained.</p>"
    # Records of earlier releases have the output's shape before the last entry.
    listed = [layer for layer in layers if isinstance(layer, list) and len(layer) in (3, 4)]
    rows = [[*layer[:2], layer[-1]] for layer in listed]
    content = table(["layer", "kind", "parameters"], rows)
    yield content if len(rows) <= 30 else f"<details><summary>Layers</summary>{content}</details>"
    if count > len(layers):
        yield f'<p class="quiet">{count - len(layers)} more layers are not listed.</p>'


def _resume(run: RunInfo) -> Iterator[str]:
    """Yield the fits so far, and how to resume the run."""
    record = run.record
    unfinished = "running" if run.state == "running" else "killed"
    rows = []
    for fit in entries(record, "fits"):
        if isinstance(fit, dict):
            places = [fit.get("from", ""), fit.get("to", "")]
            rows.append([when(fit.get("started_at", "")), *places, fit.get("state") or unfinished])
    if len(rows) > 1:
        yield table(["began", "from epoch", "to epoch", "ended"], rows)
    if record.get("can_resume"):
        yield "<p>Start the same script again. It resumes from the last checkpoint with:</p>"
        code = f"Trainer(..., running_id={run.running_id!r}, resume='auto')"
        yield f"<pre><code>{escape(code)}</code></pre>"
    elif record:
        text = "This run has no checkpoint. A run with a <code>CheckCallback</code> can be resumed."
        yield f"<p>{text}</p>"
