"""Says in words what a fit is going to do, before it does it.

::

    print(trainer.explain(train_dl, val_dl))
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..arguments import default_loss
from ..callbacks.base import HOOKS
from ..callbacks.console import facts_of
from ..callbacks.run_facts import loss_text, optimizer_settings
from ..fit.plan import FitPlan
from ..hooks import is_of_library, with_companions
from ..patches.confusion import ConfusionMetrics, ConfusionPatch, CountsPatch
from ..patches.tensors import TensorPatch
from ..patches.torchmetric import MetricPatch
from ..patches.values import MeanPatch
from ..show.screens import wrapped
from ..show.tables import html_table
from ..stages import Stage
from ..steps import DEFAULT_STEPS, resolve_step, step_name
from ..task import EpochTask
from .gaps import place_of

COLUMNS = 100

ACCUMULATION: dict[type, str] = {
    CountsPatch: "from counts of each class",
    ConfusionPatch: "from a confusion matrix",
    ConfusionMetrics: "from a confusion matrix",
    MeanPatch: "mean over mini-batches by their samples",
    MetricPatch: "as torchmetrics does",
    TensorPatch: "once, on all outputs of the epoch, which are kept",
}


class Explanation:
    """What a fit is going to do: lines with a name and a text."""

    def __init__(self, rows: list[tuple[str, str]]) -> None:
        self.rows = rows

    def __str__(self) -> str:
        width = max(len(name) for name, _ in self.rows)
        lines = []
        for name, text in self.rows:
            first, *rest = wrapped(text, COLUMNS - width - 2)
            lines.append(f"{name:<{width}}  {first}")
            lines += [f"{'':<{width}}  {line}" for line in rest]
        return "\n".join(line.rstrip() for line in lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return html_table([], self.rows)


def explain(trainer: Any, plan: FitPlan, span: tuple[int, int]) -> Explanation:
    """Say what a fit with this plan is going to do; see ``Trainer.explain``."""
    rows = [("model", " · ".join(facts_of(trainer)))]
    first, last = span[0] + 1, span[1]
    rows.append(("epochs", f"{first} to {last}" if last >= first else "none is left"))
    for stage, tasks in plan.tasks.items():
        for index, task in enumerate(tasks):
            rows.append((str(stage), _of_pass(trainer, plan, stage, task, index)))
    rows.append(("update", _of_update(trainer)))
    rows += optimizer_settings(trainer.opt).items()
    rows += _of_metrics(plan)
    rows += _of_callbacks(trainer)
    rows.append(("files", _of_files(trainer)))
    return Explanation(rows)


def _of_pass(trainer: Any, plan: FitPlan, stage: Stage, task: EpochTask, index: int) -> str:
    """The mini-batches of a pass, and the step that gets them."""
    loader = task.dataloader
    number = "mini-batches" if task.length is None else f"{task.length:,} mini-batches"
    size = getattr(loader, "batch_size", None)
    parts = [number + (f" of {size}" if isinstance(size, int) else "")]
    sampler = type(getattr(loader, "sampler", None)).__name__
    parts.append({"RandomSampler": "shuffled", "SequentialSampler": "in order"}.get(sampler, ""))
    workers = getattr(loader, "num_workers", 0)
    parts.append(f"{workers} workers" if workers else "")
    if stage is Stage.VAL:
        parts.append("after each epoch" if plan.val_freq == 1 else f"every {plan.val_freq} epochs")
    name = f"task {plan.labels[stage][index]!r}: " if len(plan.tasks[stage]) > 1 else ""
    return f"{name}{', '.join(filter(None, parts))}; {_of_step(trainer, stage, task)}"


def _of_step(trainer: Any, stage: Stage, task: EpochTask) -> str:
    step = resolve_step(task, trainer, stage)
    if getattr(step, "__func__", None) not in DEFAULT_STEPS:
        return f"by {step_name(step)}{place_of(step)}"
    has_loss = stage is Stage.TRAIN or task.do_loss
    loss = trainer.loss_fn
    if not has_loss:
        return "model alone, without a loss"
    return "the model gives the loss" if loss is default_loss else f"model, then {loss_text(loss)}"


def _of_update(trainer: Any) -> str:
    size = trainer.grad_accumulate
    text = "after each mini-batch" if size == 1 else f"after every {size} mini-batches"
    mode = getattr(trainer.accelerator, "mixed_precision", "no")
    parts = [f"an optimizer step {text}"]
    if mode != "no":
        parts.append(f"in {mode}")
    count = trainer.runtime.num_processes
    if count > 1:
        parts.append(f"with the gradients of {count} processes")
    return ", ".join(parts)


def _of_metrics(plan: FitPlan) -> Iterator[tuple[str, str]]:
    """Each metric, and how it is carried to the end of the epoch."""
    found: dict[str, list[str]] = {}
    for stage, tasks in plan.tasks.items():
        for task in tasks:
            for name, make in plan.metrics_of(stage, task):
                kind = type(make(1))
                how = next((t for c, t in ACCUMULATION.items() if issubclass(kind, c)), "")
                how = how or f"by {kind.__name__}{place_of(kind)}"
                stages = found.setdefault(f"{name}: {how}", [])
                if str(stage) not in stages:
                    stages.append(str(stage))
    all_stages = [str(stage) for stage, tasks in plan.tasks.items() if tasks]
    for text, stages in found.items():
        yield "metric", text if stages == all_stages else f"{text} ({' and '.join(stages)} only)"


def _of_callbacks(trainer: Any) -> Iterator[tuple[str, str]]:
    """Each callback, and the hooks of the user's own."""
    for callback in trainer.callbacks:
        if callback.is_console:
            continue
        kind = type(callback)
        if is_of_library(kind):
            yield "callback", kind.__name__
            continue
        hooks = [name for name in HOOKS if getattr(kind, name) is not HOOKS[name]]
        yield "callback", f"{kind.__name__}{place_of(kind)} at {', '.join(hooks) or 'no hook'}"


def _of_files(trainer: Any) -> str:
    """What is written, and where."""
    files = {
        what: place
        for callback in with_companions(trainer.callbacks)
        for what, place in callback.files_of(trainer).items()
    }
    if not any(callback.runs_in is not None for callback in trainer.callbacks):
        return "nothing is saved: give callbacks=CheckCallback() to keep the weights"
    told = ", ".join(f"{what} {Path(place).name}" for what, place in files.items())
    return f"{trainer.run_dir}{f' ({told})' if told else ''}"
