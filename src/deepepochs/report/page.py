"""The page about one run: curves, metrics, settings, model, machine and how to resume."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any

from ..runs.record import Best, RunInfo, entries, finite, mapping, moment
from ..show.plots import confusion_svg
from .curves import run_curves
from .html import Number, Raw, facts, frame, section, side_by_side, table, tiles
from .svg import style_of
from .text import STAGES, day_and_time, duration, is_number, measured, place, size, text_of
from .words import (
    epochs_text,
    how_to_resume,
    model_text,
    named,
    period_of,
    reason_text,
    resume_code,
    title_of,
    whole,
)

SMALL_TABLE = 12  # the table of epochs is open if it has at most this many epochs
MAX_ROWS = 1000
MAX_CLASSES = 100
MAX_SAMPLES = 24
MARKS = {"error": "bad", "warning": "", "note": "calm"}
OTHER_TIME = "everything else: saving, logging, callbacks"


def run_page(run: RunInfo) -> str:
    """Return the HTML page about a run."""
    record, title = run.record, title_of(run)
    kind = ["Training report", *([run.running_id] if run.running_id != title else [])]
    settings = mapping(record, "settings") | named(record, "seed", "torch seed")
    body = [
        f'<header><p class="kind">{escape(" · ".join(kind))}</p><h1>{escape(title)}',
        f'<span class="state {run.outcome}">{run.outcome}</span></h1>',
        f'<p class="quiet">{escape(_subtitle(run))}</p></header>',
        tiles(list(_tiles(run))),
        section("What to know", *_notes(run)),
        section("What the check found", *_findings(run)),
        section("Curves", *run_curves(run)),
        section("Metrics", *_metrics(run)),
        section("Confusion matrix", _confusion(run)),
        section(str(run.pictures.get("samples_title", "Samples")), _samples(run)),
        side_by_side(
            section("Hyper-parameters", facts(run.hyper_params)),
            section("Training", facts(settings)),
        ),
        side_by_side(
            section("Time", _time(record)), section("Model", *_model(mapping(record, "model")))
        ),
        side_by_side(
            section("Run", facts(_run_facts(run))),
            section("Environment", facts(mapping(record, "environment"))),
        ),
        section("Go on with this run", *_resume(run)),
    ]
    return frame(f"{title} – training report", "\n".join(filter(None, body)))


def _subtitle(run: RunInfo) -> str:
    model, device = mapping(run.record, "model"), mapping(run.record, "environment").get("device")
    where = f"on {device}" if device else ""
    return " · ".join(filter(None, (model_text(model), where, period_of(run))))


def _tiles(run: RunInfo) -> Iterator[tuple[str, str]]:
    is_early = run.outcome == "stopped"
    yield epochs_text(run), "epochs, stopped early" if is_early else "epochs"
    best = run.best()
    if best is not None:
        text = f"best {STAGES.get(best.stage, best.stage)} {best.name}, in epoch {best.epoch}"
        yield measured(best.value), text
    for name, value in list(mapping(run.record, "test").items())[:3]:
        if is_number(value):
            yield measured(value), f"test {name}"
    if run.seconds is not None:
        yield duration(run.seconds), "for all epochs"


def _notes(run: RunInfo) -> Iterator[str]:
    record = run.record
    if run.state == "killed":
        yield _note("The process was killed, ran out of memory, or lost its power.", mark="bad")
    if record.get("error"):
        yield _note(f"Ended by {record['error']}", mark="bad")
    if reason := reason_text(run):
        yield _note(reason)
    for text in entries(record, "warnings"):
        yield _note(str(text))


def _findings(run: RunInfo) -> Iterator[str]:
    """Yield what ``trainer.check`` has found, the worst first; nothing if it was not called."""
    if run.findings == []:
        yield '<p class="quiet">Nothing was found.</p>'
    for severity, text, remedy in run.findings or []:
        yield _note(text, severity, remedy, mark=MARKS.get(severity, "calm"))


def _note(text: str, title: str = "", remedy: str = "", mark: str = "") -> str:
    head = f"<b>{escape(title)}</b> " if title else ""
    end = f'<br><span class="quiet">{escape(remedy)}</span>' if remedy else ""
    return f'<p class="note {mark}">{head}{escape(text)}{end}</p>'


# --- tables


def _metrics(run: RunInfo) -> Iterator[str]:
    """Yield the last values, those of the best epoch, the extremes, the test; and all epochs."""
    tested, best = run.tested, run.best() if run.num_epochs > 1 else None
    stages = [stage for stage in ("train", "val") if stage in run.curves]
    names = dict.fromkeys([name for stage in stages for name in run.curves[stage]])
    has_best = best is not None and best.stage in stages and best.epoch != run.num_epochs
    rows = []
    for name in [*names, *(name for name in tested if name not in names)]:
        row: list[Any] = [name]
        values: list[float] = []
        for stage in stages:
            curve = run.curves[stage].get(name, [])
            row.append(curve[-1][1] if curve else "")
            values = [value for _, value in filter(finite, curve)]
        if best is not None and has_best:
            row.append(dict(run.curves[best.stage].get(name, [])).get(best.epoch, ""))
        if stages:
            row += [min(values), max(values)] if values else ["", ""]
        if tested:
            row.append(tested.get(name, ""))
        rows.append(row)
    head = ["metric", *(STAGES[stage] for stage in stages)]
    if best is not None and has_best:
        head.append(f"in the best epoch, {best.epoch}")
    head += ["lowest", "highest"] if stages else []
    if stages and rows:
        last = STAGES[stages[-1]]
        both = " and ".join(STAGES[stage] for stage in stages).capitalize()
        others = "Best epoch, lowest" if has_best else "Lowest"
        yield (
            f'<p class="quiet">{both}: the values of the last epoch, {run.num_epochs}. '
            f"{others} and highest: of {last}.</p>"
        )
    yield table([*head, "test"] if tested else head, rows)
    yield _epoch_table(run, best)


def _epoch_table(run: RunInfo, best: Best | None) -> str:
    columns = [
        (f"{STAGES[stage]} {name}", dict(curve))
        for stage in ("train", "val")
        for name, curve in run.curves.get(stage, {}).items()
    ]
    epochs = sorted({epoch for _, curve in columns for epoch in curve})
    if not epochs:
        return ""
    # The page of a long run stays readable, and below half a megabyte.
    every = -(-len(epochs) * len(columns) // (MAX_ROWS * 4))
    kept = {epochs[-1], best.epoch if best is not None else epochs[-1]}
    shown = [epoch for i, epoch in enumerate(epochs) if i % every == 0 or epoch in kept]
    is_best = [best is not None and epoch == best.epoch for epoch in shown]
    rows = [
        [
            Number(f"{'★ ' if marked else ''}{run.epoch_text(epoch)}"),
            *(c.get(epoch, "") for _, c in columns),
        ]
        for epoch, marked in zip(shown, is_best, strict=True)
    ]
    text = "All epochs" if every == 1 else f"Every {every}th of {len(epochs)} epochs"
    is_open = " open" if len(epochs) <= SMALL_TABLE else ""
    marks = ['class="best"' if marked else "" for marked in is_best]
    content = table(["epoch", *(title for title, _ in columns)], rows, "sticky", marks)
    return f"<details{is_open}><summary>{text}</summary>{content}</details>"


# --- pictures


def _confusion(run: RunInfo) -> str:
    found = mapping(run.pictures, "confusion")
    counts = found.get("counts")
    if not isinstance(counts, list) or not counts or not all(_is_row(r, counts) for r in counts):
        return ""
    stage = STAGES.get(str(found.get("stage")), "test")
    if len(counts) > MAX_CLASSES:
        return f'<p class="quiet">{len(counts)} classes are too many to be drawn.</p>'
    given = entries(found, "names")
    names = list(map(str, given if len(given) == len(counts) else range(len(counts))))
    text = (
        f"Counted in the latest {stage}. Each row is a true class, each column a predicted one. "
        "The larger the share of its row, the stronger the colour of a cell."
    )
    svg = confusion_svg(counts, names).replace(
        "<svg", '<svg class="matrix" role="img" aria-label="confusion matrix"', 1
    )
    return f'<p class="quiet">{text}</p>{svg}'


def _is_row(row: Any, counts: list[Any]) -> bool:
    return isinstance(row, list) and len(row) == len(counts) and all(map(is_number, row))


def _samples(run: RunInfo) -> str:
    figures = []
    samples = [sample for sample in entries(run.pictures, "samples") if isinstance(sample, dict)]
    for sample in samples[:MAX_SAMPLES]:
        picture = str(sample.get("picture", ""))
        image = f'<img alt="" src="{escape(picture)}">' if picture.startswith("data:image/") else ""
        lines = [f"<b>{escape(text_of(sample.get('value')))}</b>"]
        lines += [
            f"{label} {escape(text_of(sample[key]))}"
            for key, label in (("pred", "predicted"), ("target", "true"))
            if sample.get(key) is not None
        ]
        figures.append(f"<figure>{image}<figcaption>{'<br>'.join(lines)}</figcaption></figure>")
    return f'<div class="samples">{"".join(figures)}</div>' if figures else ""


# --- how it was trained


def _time(record: dict[str, Any]) -> str:
    """Return a bar of the parts of the time: those of `TimingCallback`, or else the passes."""
    parts = mapping(record, "timing") or mapping(record, "seconds")
    values = {name: s for name, s in parts.items() if is_number(s) and s > 0}
    if (epochs := values.pop("epochs", 0.0)) > sum(values.values()):
        values[OTHER_TIME] = epochs - sum(values.values())
    total = sum(values.values())
    if not total:
        return ""
    bar, rows = [], []
    for index, (name, seconds) in enumerate(values.items()):
        style = style_of(index)
        bar.append(f'<i class="{style}" style="width:{seconds / total:.2%}"></i>')
        name_cell = Raw(f'<span class="part {style}"><i></i>{escape(name)}</span>')
        share = f"{seconds / total:.1%}"
        rows.append([name_cell, Number(duration(seconds)), Number(share)])
    return f'<div class="bar">{"".join(bar)}</div>{table([], rows, "narrow")}'


def _model(model: dict[str, Any]) -> Iterator[str]:
    if not model:
        return
    total, trainable = whole(model, "parameters"), whole(model, "trainable")
    layers = entries(model, "layers")
    count = whole(model, "num_layers", len(layers))
    trained = "all of them trained" if trainable == total else f"{trainable:,} of them trained"
    weight = model.get("bytes")
    amount = f" Weights and buffers take {size(weight)}." if isinstance(weight, int) else ""
    name = escape(str(model.get("class", "")))
    yield f"<p>{name}: {count} layers, {total:,} parameters, {trained}.{amount}</p>"
    # A record of an earlier release has a shape between kind and parameters.
    rows = [[layer[0], layer[1], Number(f"{layer[-1]:,}")] for layer in layers if _is_layer(layer)]
    content = table(["layer", "kind", "parameters"], rows, "narrow")
    yield content if len(rows) <= 30 else f"<details><summary>Layers</summary>{content}</details>"
    if count > len(layers):
        yield f'<p class="quiet">{count - len(layers)} more layers are not listed.</p>'


def _is_layer(layer: Any) -> bool:
    return isinstance(layer, list) and len(layer) >= 3 and isinstance(layer[-1], int)


def _run_facts(run: RunInfo) -> dict[str, Any]:
    """Return what identifies a run: id, folder, command, commit and fits."""
    record = run.record
    shown = {"id": run.running_id} if record else {}
    if run.folder is not None:
        shown["folder"] = place(run.folder)
    return shown | named(record, "command", "command") | named(record, "git", "git commit")


def _resume(run: RunInfo) -> Iterator[str]:
    """Yield the fits so far, and how to resume the run."""
    record = run.record
    unfinished = "running" if run.state == "running" else "killed"
    rows = []
    for fit in entries(record, "fits"):
        if isinstance(fit, dict):
            began = moment(fit.get("started_at"))
            when = "" if began is None else day_and_time(began)
            places = [fit.get("from", ""), fit.get("to", "")]
            rows.append([when, *places, fit.get("state") or unfinished])
    if len(rows) > 1:
        yield table(["began", "from epoch", "to epoch", "ended"], rows, "narrow")
    if record.get("can_resume"):
        yield f"<p>{how_to_resume(run)}:</p>"
        yield f"<pre><code>{escape(resume_code(run))}</code></pre>"
    elif record:
        text = "This run has no checkpoint. A run with a <code>CheckCallback</code> can be resumed."
        yield f"<p>{text}</p>"
