"""A fit told in plain PyTorch, and in plain words, before it runs."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from types import FrameType
from typing import Any

from ..fit.plan import FitPlan, plan_fit
from .prelude import Prelude
from .script import Script
from .words import Explanation
from .words import explain as explain_plan


def write_plain_loop(
    trainer: Any,
    fit_options: Mapping[str, Any],
    frame: FrameType | None,
    path: str | PathLike[str] | None = None,
) -> str:
    """Write the script of a fit; see ``Trainer.plain_loop``.

    ``frame`` is that of the script which calls it: its lines are taken over.
    """
    plan, epochs = _planned(trainer, fit_options)
    script = Script(trainer, plan, Prelude(frame), epochs=epochs)
    text = script.text(f"run {trainer.running_id}")
    if path is not None:
        Path(path).write_text(text, encoding="utf-8")
    return text


def explain(trainer: Any, fit_options: Mapping[str, Any]) -> Explanation:
    """Say in words what a fit is going to do; see ``Trainer.explain``."""
    plan, epochs = _planned(trainer, fit_options)
    return explain_plan(trainer, plan, epochs)


def _planned(trainer: Any, fit_options: Mapping[str, Any]) -> tuple[FitPlan, int | None]:
    """Make the plan of a fit with these arguments, and give its number of epochs."""
    given = inspect.signature(type(trainer).fit).bind(trainer, **fit_options)
    given.apply_defaults()
    options = dict(given.arguments)
    options.pop("self")
    plan = plan_fit(trainer, **options)
    for task in plan.all_tasks():
        task.bind(trainer)
    return plan, options["epochs"]
