"""Compares runs: which is the best, and in what settings they differ.

Only values of one metric of one stage are compared: never a training loss with a validation loss.

::

    runs = list_runs("logs")
    ranked(runs)[0]         # the best of the runs with the most common metric
    differences(runs)       # {'lr': [0.1, 0.01], 'optimizer': ['SGD', 'Adam']}
"""

from __future__ import annotations

import ast
import contextlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from .record import RunInfo, by_start, mapping

ABSENT = ""
"""The value of a setting that a run does not have."""

OPTIONAL = frozenset(
    [
        "ema",
        "deterministic",
        "on_oom",
        "max_steps",
        "max_time",
        "limit_train_batches",
        "limit_val_batches",
        "limit_test_batches",
        "val_every",
        "overfit_batches",
    ]
)
"""Arguments of a trainer that are recorded where they are given."""

Metric = tuple[str, str, str]
"""Stage, name and mode of a metric that runs are compared by."""


def compared_by(run: RunInfo) -> Metric | None:
    """Return what the best epoch of a run is chosen by; ``None`` if it has no value."""
    best = run.best()
    return None if best is None else (best.stage, best.name, best.mode)


def groups(runs: Sequence[RunInfo]) -> dict[Metric | None, list[RunInfo]]:
    """Return the runs by their metric, the best first; the largest group is the first.

    Runs without a value are the last.
    """
    found: dict[Metric | None, list[RunInfo]] = {}
    for run in sorted(runs, key=by_start):
        found.setdefault(compared_by(run), []).append(run)
    for members in found.values():
        members.sort(key=_badness)
    return dict(sorted(found.items(), key=lambda item: (item[0] is None, -len(item[1]))))


def ranked(runs: Sequence[RunInfo]) -> list[RunInfo]:
    """Return the runs of each group together, in each the best first."""
    return [run for members in groups(runs).values() for run in members]


def winners(runs: Sequence[RunInfo]) -> list[RunInfo]:
    """Return the best run of each group of at least two."""
    return [m[0] for metric, m in groups(runs).items() if metric is not None and len(m) > 1]


def _badness(run: RunInfo) -> float:
    best = run.best()
    if best is None:
        return 0.0
    return -best.value if best.mode == "max" else best.value


def settings_of(run: RunInfo) -> dict[str, Any]:
    """Return the hyper-parameters of a run, and then the settings that its record has.

    An optimizer ``Adam(lr=0.1)`` is the settings ``optimizer`` and ``lr``. A hyper-parameter
    replaces the setting with its name.
    """
    record, found = run.record, dict(run.hyper_params)
    recorded: dict[str, Any] = {}
    for name, value in mapping(record, "settings").items():
        if name != "callbacks":
            recorded.update(_split(name, value))
    model, environment = mapping(record, "model"), mapping(record, "environment")
    recorded |= {
        "model": model.get("class"),
        "parameters": model.get("parameters"),
        "epochs": record.get("max_epochs"),
        "torch seed": record.get("seed"),
        "device": environment.get("device"),
        "PyTorch": environment.get("PyTorch"),
        "git commit": str(record.get("git") or "")[:10] or None,
    }
    return found | {n: v for n, v in recorded.items() if n not in found and v is not None}


def _split(name: str, value: Any) -> dict[str, Any]:
    """Return a setting, and the options in brackets of an optimizer as settings of their own."""
    match = re.fullmatch(r"(\w+)\((.*)\)", str(value))
    if match is None or not name.startswith("optimizer"):
        return {name: value}
    suffix = name.removeprefix("optimizer")
    options = dict(part.split("=", 1) for part in re.split(r", (?=\w+=)", match[2]) if "=" in part)
    return {name: match[1]} | {f"{key}{suffix}": _plain(text) for key, text in options.items()}


def _plain(text: str) -> Any:
    with contextlib.suppress(ValueError, SyntaxError):
        return ast.literal_eval(text)
    return text


def differences(runs: Sequence[RunInfo]) -> dict[str, list[Any]]:
    """Return the settings with at least two values among the runs, in the order of the runs.

    A run without the setting has `ABSENT` there, which counts as a value of the arguments of a
    trainer that are recorded only where they are given, such as ``ema``. Callbacks are those that not all runs have.
    """
    settings = [settings_of(run) for run in runs]
    found = {}
    for name, values in _by_name(settings).items():
        if len({repr(v) for v in values if v is not ABSENT or name in OPTIONAL}) > 1:
            found[name] = values
    callbacks = [_callbacks(run) for run in runs]
    everywhere = set(callbacks[0]).intersection(*callbacks[1:]) if callbacks else set()
    own = [", ".join(name for name in names if name not in everywhere) for names in callbacks]
    return found | {"callbacks": own} if any(own) else found


def given_by_some(runs: Sequence[RunInfo]) -> dict[str, Any]:
    """Return the hyper-parameters that some runs lack and that have one value in the others."""
    by_name = _by_name([settings_of(run) for run in runs])
    named = {name for run in runs for name in run.hyper_params}
    found = {}
    for name in filter(named.__contains__, by_name):
        given = [value for value in by_name[name] if value is not ABSENT]
        if len(given) < len(runs) and len(set(map(repr, given))) == 1:
            found[name] = given[0]
    return found


def shared(tables: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names in at least two tables, or all names if there is one table.

    >>> shared([{"loss": 1, "f1": 1}, {"loss": 2}]), shared([{"loss": 1}])
    (['loss'], ['loss'])
    """
    counts = Counter(name for table in tables for name in table)
    return [name for name, count in counts.items() if count > 1 or len(tables) == 1]


def _by_name(settings: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    names = dict.fromkeys(name for values in settings for name in values)
    return {name: [values.get(name, ABSENT) for values in settings] for name in names}


def _callbacks(run: RunInfo) -> list[str]:
    text = str(mapping(run.record, "settings").get("callbacks", ""))
    return [name.removesuffix("Callback") for name in text.split(", ") if name]
