"""A fit told in plain PyTorch, and in plain words, before it runs."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from types import FrameType
from typing import Any

from ..fit.epochs import FitSpan
from ..fit.plan import FitPlan, plan_fit
from .script import script_of
from .words import Explanation
from .words import explain as explain_plan


def write_plain_loop(
    trainer: Any,
    fit_options: Mapping[str, Any],
    frame: FrameType | None,
    path: str | PathLike[str] | None = None,
    call: str = "plain_loop",
) -> str:
    """Write the script of a fit; see ``Trainer.plain_loop``.

    ``frame`` is that of the script, in the line in which ``call`` is called: its lines are taken
    over.
    """
    plan, span = _planned(trainer, fit_options)
    text = script_of(trainer, plan, span, fit_options, frame, call)
    if path is not None:
        Path(path).write_text(text, encoding="utf-8")
    return text


def explain(trainer: Any, fit_options: Mapping[str, Any]) -> Explanation:
    """Say in words what a fit is going to do; see ``Trainer.explain``."""
    plan, span = _planned(trainer, fit_options)
    return explain_plan(trainer, plan, (span.start, span.end))


def _planned(trainer: Any, fit_options: Mapping[str, Any]) -> tuple[FitPlan, FitSpan]:
    """Make the plan of a fit with these arguments, and give its epochs, from 0."""
    options = trainer.options_of_fit(fit_options)
    plan = plan_fit(trainer, **options)
    for task in plan.all_tasks():
        task.bind(trainer)
    span: FitSpan = trainer.span_of(plan, options["epochs"])
    return plan, span._replace(start=trainer.init_epoch)
