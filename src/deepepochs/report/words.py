"""What a run is called, and what is said about it in words, on pages and in the terminal."""

from __future__ import annotations

import re
from typing import Any

from ..runs.record import RunInfo, entries, mapping, moment
from .text import day_and_time, period, size

MADE_ID = re.compile(r"\d{10,}-[0-9a-f]{8}")  # the ids that earlier releases made


def title_of(run: RunInfo) -> str:
    """Return the id that the user gave, or else what was trained and when."""
    record, start = run.record, run.started
    if record.get("has_own_id", not MADE_ID.fullmatch(run.running_id)) or start is None:
        return run.running_id
    return f"{mapping(record, 'model').get('class', 'Run')}, {day_and_time(start)}"


def whole(record: dict[str, Any], name: str, default: int = 0) -> int:
    """Return a whole number of the record, or the default for anything else."""
    value = record.get(name)
    return value if isinstance(value, int) else default


def named(record: dict[str, Any], key: str, name: str) -> dict[str, Any]:
    """Return an entry of the record under another name, if it is there and not ''."""
    return {name: record[key]} if record.get(key, "") != "" else {}


def model_text(model: dict[str, Any]) -> str:
    """Return a model in words, such as ``ResNet with 11,181,642 parameters (44.7 MB)``."""
    name, parameters = str(model.get("class", "")), model.get("parameters")
    if not name or not isinstance(parameters, int):
        return name
    weight = model.get("bytes")
    amount = f" ({size(weight)})" if isinstance(weight, int) else ""
    return f"{name} with {parameters:,} parameters{amount}"


def period_of(run: RunInfo) -> str:
    """Return when a run was trained, as text; '' if that is not known."""
    record, start = run.record, run.started
    if start is None:
        return ""
    if run.state == "running":
        return f"since {day_and_time(start)}"
    fits = [fit for fit in entries(record, "fits") if isinstance(fit, dict)]
    ends = [fits[-1].get("ended_at") if fits else None, record.get("updated_at")]
    found = [end for end in map(moment, ends) if end is not None]
    return period(start, found[0].astimezone(start.tzinfo) if found else start)


def reason_text(run: RunInfo) -> str:
    """Return why a run ended before its last epoch; '' if the record has no reason."""
    reason = run.record.get("reason")
    verb = "Interrupted" if run.state == "interrupted" else "Stopped"
    return f"{verb}: {reason}" if reason else ""


def epochs_text(run: RunInfo) -> str:
    """Return how many epochs are done, and of how many.

    A run that stopped early has no total: it will not train the rest. Nor has one that was started
    again with fewer epochs than it has done.
    """
    total = whole(run.record, "max_epochs")
    if run.outcome == "stopped" or not total or total < run.epochs_done:
        return str(run.epochs_done)
    return f"{run.epochs_done} of {total}"


def how_to_resume(run: RunInfo) -> str:
    """Return how to go on with a run, in front of its `resume_code`."""
    if run.outcome == "finished":
        return "To train longer, start the script with a larger number of epochs, and with"
    if str(run.record.get("reason")).startswith(("max_steps=", "max_time ")):
        return "To go on with it, start the same script again with a larger limit, and with"
    return "To go on with it, start the same script again, with"


def resume_code(run: RunInfo) -> str:
    """Return the line that resumes a run."""
    more = f"epochs={2 * run.epochs_done}, " if run.outcome == "finished" else ""
    return f"Trainer(..., {more}running_id={run.running_id!r}, resume='auto')"
