"""Says in words what a fit is going to do, before it does it.

::

    print(trainer.explain(train_dl, val_dl))
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch.nn.parameter import is_lazy

from ..arguments import default_loss
from ..callbacks.base import HOOKS
from ..callbacks.console import facts_of
from ..callbacks.monitored import Improvement
from ..callbacks.run_facts import loss_text, optimizer_settings
from ..fit.plan import FitPlan
from ..hooks import is_of_library
from ..patches.confusion import ConfusionMetrics, ConfusionPatch, CountsPatch
from ..patches.tensors import TensorPatch
from ..patches.torchmetric import MetricPatch
from ..patches.values import MeanPatch
from ..report.text import place
from ..show.screens import duration, wrapped
from ..show.tables import html_table
from ..stages import Stage
from ..steps import is_default, resolve_step, step_name
from ..task import EpochTask
from .callbacks import clip_of
from .gaps import place_of

COLUMNS = 100
MOST_PARTS = 6
"""Parts of a model that a row names."""

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
    rows = [("model", " · ".join(facts_of(trainer))), ("epochs", _of_epochs(trainer, span))]
    for stage, tasks in plan.tasks.items():
        for index, task in enumerate(tasks):
            rows.append((str(stage), _of_pass(trainer, plan, stage, task, index)))
    rows.append(("update", _of_update(trainer, plan)))
    if trainer.ema is not None:
        text = f"{trainer.ema.settings}, which validation, tests and files have"
        rows.append(("average of weights", text))
    rows += _of_optimizers(trainer)
    rows += _of_metrics(plan)
    rows += _of_callbacks(trainer)
    rows.append(("files", _of_files(trainer)))
    return Explanation(rows)


def _of_epochs(trainer: Any, span: tuple[int, int]) -> str:
    """Which epochs, and what ends the fit before."""
    limits, (start, end) = trainer.limits, span
    if limits.dry_run:
        return "none: a dry run tries one mini-batch of each stage, and keeps nothing"
    parts = [f"{start + 1} to {end}" if end > start else "none is left"]
    if trainer.known_epochs is None and end == trainer.max_epochs:
        parts = [f"from {start + 1} on, as many as the steps take"]
    if limits.max_steps is not None:
        parts.append(f"at most {limits.max_steps:,} optimizer steps")
    if limits.max_time_s is not None:
        parts.append(f"at most {duration(limits.max_time_s)}")
    if limits.overfit:
        parts.append(f"each on the same {counted(limits.overfit, 'mini-batch', 'mini-batches')}")
    return ", ".join(parts)


def _of_pass(trainer: Any, plan: FitPlan, stage: Stage, task: EpochTask, index: int) -> str:
    """The mini-batches of a pass, and the step that gets them."""
    loader = task.dataloader
    number = _of_length(trainer, stage, task)
    size = getattr(loader, "batch_size", None)
    parts = [number + (f" of {size}" if isinstance(size, int) else "")]
    sampler = type(getattr(loader, "sampler", None)).__name__
    parts.append({"RandomSampler": "shuffled", "SequentialSampler": "in order"}.get(sampler, ""))
    workers = getattr(loader, "num_workers", 0)
    parts.append(counted(workers, "worker", "workers") if workers else "")
    if stage is Stage.VAL:
        parts.append("after each epoch" if plan.val_freq == 1 else f"every {plan.val_freq} epochs")
        every = trainer.limits.val_every
        parts.append(
            "" if every is None else f"every {counted(every, 'optimizer step', 'optimizer steps')}"
        )
    name = f"task {plan.labels[stage][index]!r}: " if len(plan.tasks[stage]) > 1 else ""
    return f"{name}{', '.join(filter(None, parts))}; {_of_step(trainer, stage, task)}"


def _of_length(trainer: Any, stage: Stage, task: EpochTask) -> str:
    """How many mini-batches a pass has."""
    number = trainer.limits.num_batches(stage, task.length)
    if number is None:
        return "mini-batches"
    text = counted(number, "mini-batch", "mini-batches")
    return text if number == task.length else f"the first {text}"


def _of_step(trainer: Any, stage: Stage, task: EpochTask) -> str:
    step = resolve_step(task, trainer, stage)
    if not is_default(step):
        return f"by {step_name(step)}{place_of(step)}"
    has_loss = stage is Stage.TRAIN or task.do_loss
    loss = trainer.loss_fn
    if not has_loss:
        return "model alone, without a loss"
    return "the model gives the loss" if loss is default_loss else f"model, then {loss_text(loss)}"


def _of_update(trainer: Any, plan: FitPlan) -> str:
    size = trainer.grad_accumulate
    text = "after each mini-batch" if size == 1 else f"after every {size} mini-batches"
    steps = [resolve_step(task, trainer, Stage.TRAIN) for task in plan.tasks[Stage.TRAIN]]
    if size == 1 and not all(map(is_default, steps)):
        text = "wherever the step of training calls loss() or optimize()"
    mode = getattr(trainer.accelerator, "mixed_precision", "no")
    count = trainer.runtime.num_processes
    parts = [
        f"an optimizer step {text}",
        f"in {mode}" if mode != "no" else "",
        f"with the gradients of {count} processes" if count > 1 else "",
        "" if (clip := clip_of(trainer.callbacks)) is None else _of_clipping(clip),
        "on parts of a mini-batch where memory is short" if trainer.on_oom == "split" else "",
        "by deterministic operations" if trainer.deterministic else "",
    ]
    return ", ".join(filter(None, parts))


def _of_clipping(callback: Any) -> str:
    if callback.norm_type is None:
        return f"gradients clipped to ±{callback.max_value:g}"
    return f"the {callback.norm_type:g}-norm of the gradients clipped to {callback.max_value:g}"


def _of_optimizers(trainer: Any) -> Iterator[tuple[str, str]]:
    """Each optimizer with its settings and weights, and the weights that none has."""
    named = dict(trainer.runtime.unwrap(trainer.model).named_parameters())
    held = [{id(weight) for weight in optimizer.params} for optimizer in trainer.opt]
    settings = optimizer_settings(trainer.opt)
    for name, text in settings.items():
        rounded = re.sub(r"\d+\.\d{7,}(e-\d+)?", lambda found: f"{float(found[0]):.4g}", text)
        index = int(name.split()[-1]) if name[-1].isdigit() else 0
        own = [key for key, weight in named.items() if id(weight) in held[index]]
        has_all = len(own) == len(named) or not name.startswith("optimizer")
        yield name, rounded if has_all else f"{rounded}, for {_parts_of(own, named)}"
    free = [
        key
        for key, weight in named.items()
        if weight.requires_grad and not any(id(weight) in one for one in held)
    ]
    if free:
        yield "in no optimizer", f"{_parts_of(free, named)}: these weights stay as they are"


def _parts_of(names: list[str], named: dict[str, Any]) -> str:
    """The parts of a model that have some of its weights, and the number of these."""
    parts = list(dict.fromkeys(name.partition(".")[0] for name in names))
    shown = ", ".join(parts[:MOST_PARTS]) + (", …" if len(parts) > MOST_PARTS else "")
    sizes = [named[name].numel() for name in names if not is_lazy(named[name])]
    return f"{sum(sizes):,} parameters in {shown}" if names else "weights outside of the model"


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
    """Each callback with what it does, and the hooks of the user's own."""
    for callback in trainer.callbacks:
        kind = type(callback)
        if callback.is_console or callback is clip_of(trainer.callbacks):
            continue
        if is_of_library(kind):
            improvement = getattr(callback, "improvement", None)
            follows = "" if improvement is None else f": {_of_improvement(callback, improvement)}"
            yield "callback", f"{kind.__name__}{follows}"
            continue
        hooks = [name for name in HOOKS if getattr(kind, name) is not HOOKS[name]]
        yield "callback", f"{kind.__name__}{place_of(kind)} at {', '.join(hooks) or 'no hook'}"


def _of_improvement(callback: Any, improvement: Improvement) -> str:
    """Which metric a callback follows, and when it stops the fit."""
    text = f"{improvement.on_stage} {improvement.metric.name}"
    patience, keeps = improvement.watch.patience, callback.keeps_checkpoints
    kept = f"keeps the state with the best {text}" if keeps else ""
    than = "one" if keeps else text
    stops = f"stops after {patience} without a better {than}" if patience else ""
    return ", ".join(filter(None, (kept, stops)))


def _of_files(trainer: Any) -> str:
    """What is written, and where."""
    if trainer.limits.dry_run:
        return "none: a dry run writes nothing"
    if not any(callback.runs_in is not None for callback in trainer.callbacks):
        return "nothing is saved: give callbacks=CheckCallback() to keep the weights"
    return f"in {place(Path(trainer.run_dir))}"


def counted(number: int, one: str, several: str) -> str:
    """A number with its unit."""
    return f"{number:,} {one if number == 1 else several}"
