"""The parts of a run's page that stand beside its curves: pictures, model, time, machine."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any

from ..runs.record import RunInfo, mapping
from ..show.plots import confusion_svg
from .html import Raw, duration, table, text_of

__all__ = [
    "LABELS",
    "confusion_section",
    "environment_section",
    "model_section",
    "resume_section",
    "samples_section",
    "settings_section",
    "time_section",
    "when",
]

MAX_CLASSES = 100
MAX_SAMPLES = 24
LABELS = {"train": "training", "val": "validation"}
PART_COLOURS = ("train", "val", "c3", "c2", "c4", "c5")


def when(moment: Any) -> str:
    """Return a moment as people write it.

    >>> when("2026-01-02T03:04:05+0100")
    '2026-01-02 03:04:05 +0100'
    """
    text = str(moment)
    return f"{text[:10]} {text[11:19]} {text[19:]}".rstrip()


def confusion_section(run: RunInfo) -> str:
    """Return the confusion matrix, and how to read it."""
    found = mapping(run.pictures, "confusion")
    counts = found.get("counts")
    if not isinstance(counts, list) or not counts:
        return ""
    stage = LABELS.get(str(found.get("stage")), "test")
    if len(counts) > MAX_CLASSES:
        return f'<p class="quiet">{len(counts)} classes are too many to be drawn.</p>'
    names = [str(name) for name in found.get("names") or range(len(counts))]
    text = (
        f"Of the latest {stage}. A row is what the samples are, a column what they were taken for. "
        "The colour of a cell is its share of the row."
    )
    svg = confusion_svg(counts, names).replace(
        "<svg", '<svg class="matrix" role="img" aria-label="confusion matrix"', 1
    )
    return f'<p class="quiet">{text}</p>{svg}'


def samples_section(run: RunInfo) -> str:
    """Return the samples that an `InterpretCallback` kept."""
    samples = run.pictures.get("samples")
    figures = []
    for sample in samples[:MAX_SAMPLES] if isinstance(samples, list) else ():
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


def settings_section(record: dict[str, Any]) -> dict[str, Any]:
    """Return how the trainer was set up."""
    settings = dict(mapping(record, "settings"))
    if "seed" in record:
        settings["torch seed"] = record["seed"]
    return settings


def environment_section(record: dict[str, Any]) -> dict[str, Any]:
    """Return machine, versions and commit."""
    found = dict(mapping(record, "environment"))
    if record.get("git"):
        found["git commit"] = record["git"]
    return found


def time_section(record: dict[str, Any]) -> str:
    """Return a bar of what the time went to: the parts that were measured, or else the passes."""
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


def model_section(model: dict[str, Any]) -> Iterator[str]:
    """Yield the model's totals and its layers."""
    if not model:
        return
    total, trainable = model.get("parameters", 0), model.get("trainable", 0)
    layers = model.get("layers")
    layers = layers if isinstance(layers, list) else []
    count = model.get("num_layers", len(layers))
    yield (
        f"<p>{escape(str(model.get('class', '')))}: {count} layers, {total:,} parameters, "
        f"{trainable:,} of them trained.</p>"
    )
    # Records of earlier releases have the shape of the output before the last.
    listed = [layer for layer in layers if isinstance(layer, list) and len(layer) in (3, 4)]
    rows = [[*layer[:2], layer[-1]] for layer in listed]
    content = table(["layer", "kind", "parameters"], rows)
    yield content if len(rows) <= 30 else f"<details><summary>Layers</summary>{content}</details>"
    if count > len(layers):
        yield f'<p class="quiet">{count - len(layers)} more layers are not listed.</p>'


def resume_section(run: RunInfo) -> Iterator[str]:
    """Yield the fits so far, and how to go on."""
    record = run.record
    fits = record.get("fits")
    rows = [
        [when(fit.get("started_at", "")), fit.get("from", ""), fit.get("to", ""), _state(run, fit)]
        for fit in (fits if isinstance(fits, list) else [])
        if isinstance(fit, dict)
    ]
    if len(rows) > 1:
        yield table(["began", "from epoch", "to epoch", "ended"], rows)
    if record.get("can_resume"):
        yield (
            "<p>Start the same script again; it goes on from the last checkpoint, to the bit, "
            "with:</p>"
        )
        code = f"Trainer(..., running_id={run.running_id!r}, resume='auto')"
        yield f"<pre><code>{escape(code)}</code></pre>"
    elif record:
        yield (
            "<p>This run saved no checkpoint. Give the trainer a <code>CheckCallback</code>, and "
            "a run can be continued to the bit.</p>"
        )


def _state(run: RunInfo, fit: dict[str, Any]) -> str:
    state = fit.get("state")
    return str(state) if state else ("running" if run.state == "running" else "killed")
