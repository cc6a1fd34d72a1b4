"""The loop of epochs: passes, the best weights, schedules, and where callbacks are called."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..callbacks.early_stop import EarlyStopCallback
from ..callbacks.grad_clip import GradClipCallback
from ..callbacks.monitored import Improvement
from ..fit.plan import FitPlan
from ..hooks import is_of_library
from ..stages import Stage
from .layout import folded
from .parts import Parts
from .passes import Pass

INDENT = "    "


class Epochs:
    """Writes the loop of epochs of a fit."""

    def __init__(
        self, parts: Parts, plan: FitPlan, span: tuple[int, int], passes: Sequence[Pass]
    ) -> None:
        self.parts, self.plan, self.passes = parts, plan, passes
        self.start, self.end = span
        self.has_val = bool(plan.tasks[Stage.VAL])
        free = parts.names.free
        self.epoch, self.history = free("epoch"), free("history")
        self.values = {Stage.TRAIN: free("train"), Stage.VAL: free("val")}
        self._is_rare = self.has_val and plan.val_freq > 1

    def lines(self) -> list[str]:
        """The lines of the loop."""
        hooks, best = self.parts.hooks, Best(self.parts, self.plan, self.values)
        numbers = f"{self.start}, {self.end}" if self.start else str(self.end)
        body = [
            *hooks("on_before_epoch"),
            *self._stage(Stage.TRAIN),
            *(self._stage(Stage.VAL) if self.has_val else []),
            *best.each,
            *self._schedules(),
            *self._record(),
            *hooks("on_after_epoch"),
            *best.stop,
        ]
        loop = [
            *self._notes(),
            *hooks("on_before_fit"),
            f"{self.history} = []",
            *best.start,
            f"for {self.epoch} in range({numbers}):",
            *(INDENT + line for line in body),
            *hooks("on_after_fit"),
        ]
        if any(getattr(task.dataloader, "num_workers", 0) for task in self.plan.all_tasks()):
            # Where processes are spawned, each worker imports the script.
            return ['if __name__ == "__main__":', *(INDENT + line for line in loop)]
        return loop

    def _stage(self, stage: Stage) -> list[str]:
        """The lines of the passes of a stage."""
        hooks, name = self.parts.hooks, self.values[stage]
        passes = [one for one in self.passes if one.stage is stage]
        after = hooks(f"on_after_{stage}_epochs")
        if len(passes) == 1:
            call = f"{passes[0].name}()"
            if stage is Stage.VAL and self._is_rare:
                call += f" if ({self.epoch} + 1) % {self.plan.val_freq} == 0 else {{}}"
            return [*hooks(f"on_before_{stage}_epochs"), f"{name} = {call}", *after]
        lines = [*hooks(f"on_before_{stage}_epochs"), *self._pooled(passes, name), *after]
        if stage is Stage.VAL and self._is_rare:
            rare = f"if ({self.epoch} + 1) % {self.plan.val_freq} == 0:"
            return [f"{name} = {{}}", rare, *(INDENT + line for line in lines)]
        return lines

    def _pooled(self, passes: Sequence[Pass], name: str) -> list[str]:
        """The lines of several tasks: their own values, and the loss of all."""
        parts = [f"{name}_{index + 1}" for index in range(len(passes))]
        lines = [
            f"{part}, total_{part}, count_{part} = {one.name}()"
            for part, one in zip(parts, passes, strict=True)
        ]
        entries = [f"**{part}" for part in parts]
        if any(one.has_loss for one in passes):
            total = " + ".join(f"total_{part}" for part in parts)
            count = " + ".join(f"count_{part}" for part in parts)
            entries.insert(0, f'"loss": ({total}) / ({count})')
        if any(self.plan.metrics_of(one.stage, one.task) for one in passes):
            what = f"the metrics of the {passes[0].stage} tasks together"
            lines.append(self.parts.gaps.not_written(what))
        indent = len(INDENT) * (2 if passes[0].stage is Stage.VAL and self._is_rare else 1)
        return [*lines, *folded(f"{name} = {{", entries, "}", indent)]

    def _record(self) -> list[str]:
        train, val = self.values[Stage.TRAIN], self.values[Stage.VAL]
        shown = f"{train}, {val}" if self.has_val else train
        entry = f"({shown})" if self.has_val else f"({train},)"
        line = f'print(f"epoch {{{self.epoch} + 1}}/{self.end}", {shown})'
        return [f"{self.history}.append({entry})", line]

    def _schedules(self) -> list[str]:
        """The steps of the schedules that move once an epoch."""
        lines: list[str] = []
        for name, optimizer in zip(self.parts.schedulers, self.parts.trainer.opt, strict=True):
            if not name or optimizer.sched_on != "epoch":
                continue
            if not optimizer.needs_loss:
                lines.append(f"{name}.step()")
                continue
            stage = self.plan.stage_followed(optimizer.monitor)
            values = self.values[stage]
            step = f'{name}.step({values}["{optimizer.monitor or "loss"}"])'
            if stage is Stage.VAL and self._is_rare:
                lines += [f"if {values}:", f"{INDENT}{step}"]
            else:
                lines.append(step)
        return lines

    def _notes(self) -> list[str]:
        """Comments for what the whole fit has, and the script has not."""
        trainer, gaps = self.parts.trainer, self.parts.gaps
        lines = []
        for callback in trainer.callbacks:
            kind = type(callback)
            is_written = kind in (GradClipCallback, EarlyStopCallback) or callback.is_console
            if is_of_library(kind) and not is_written:
                more = ": only its best weights are saved" if callback.keeps_checkpoints else ""
                lines.append(gaps.not_written(f"{kind.__name__}{more}"))
        count = trainer.runtime.num_processes
        if count > 1:
            lines.append(gaps.not_written(f"{count} processes: this is one, with all mini-batches"))
        if trainer.resume is not None and trainer.resume is not False:
            lines.append(gaps.not_written(f"resume={trainer.resume!r}"))
        if self.start:
            lines.append(
                gaps.not_written(f"the {self.start} epochs before, which made the weights")
            )
        lines += [gaps.not_written(f"{name}={value!r}") for name, value in _limits(trainer)]
        workers = [getattr(task.dataloader, "num_workers", 0) for task in self.plan.all_tasks()]
        if any(workers) and trainer.worker_seeding == "position":
            what = "worker_seeding='position': the random numbers of workers are those of torch"
            lines.append(gaps.not_written(what))
        return lines


def _limits(trainer: Any) -> list[tuple[str, Any]]:
    """The arguments of a trainer that say how long a fit runs, and that are not written out."""
    limits = trainer.limits
    given = [
        ("max_steps", limits.max_steps, None),
        ("max_time", limits.max_time_s, None),
        ("val_every", limits.val_every, None),
        ("dry_run", limits.dry_run, False),
        ("on_oom", trainer.on_oom, "raise"),
    ]
    return [(name, value) for name, value, default in given if value != default]


class Best:
    """The lines that keep the best weights and stop early, as the callbacks for it do.

    Attributes:
        start: before the loop.
        each: in each epoch.
        stop: at its end.
    """

    def __init__(self, parts: Parts, plan: FitPlan, values: dict[Stage, str]) -> None:
        self.parts, self.plan, self.values = parts, plan, values
        self.start: list[str] = []
        self.each: list[str] = []
        self.stop: list[str] = []
        for callback in parts.trainer.callbacks:
            if callback.keeps_checkpoints:
                self._follow(callback.improvement, saves=True)
            elif type(callback) is EarlyStopCallback:
                self._follow(callback.improvement, saves=False)

    def _follow(self, improvement: Improvement, *, saves: bool) -> None:
        """Follow the metric of a callback, which saves the best weights or only stops."""
        stage, monitor = Stage(improvement.on_stage), improvement.metric.name
        if not self.plan.tasks[stage]:
            return
        patience, delta = improvement.watch.patience, improvement.watch.min_delta
        mode = improvement.metric.mode or self.plan.directions().get(monitor)
        is_min = (mode or ("min" if "loss" in monitor else "max")) == "min"
        name = self.values[stage]
        is_rare = stage is Stage.VAL and self.plan.val_freq > 1
        value = f'{name}["{monitor}"]'
        waits = f"{name} and " if is_rare else ""
        sign, worst = ("<", "inf") if is_min else (">", "-inf")
        best = self.parts.names.free("best")
        self.start.append(f'{best} = float("{worst}")')
        save = f'    torch.save({self.parts.saved}.state_dict(), "best.pt")'
        saving = [f"if {waits}{value} {sign} {best}:", f"    {best} = {value}", save]
        if saves and (delta or not patience):
            self.each += saving
        if not patience:
            return
        if saves and delta:
            best = self.parts.names.free("best_before")
            self.start.append(f'{best} = float("{worst}")')
        waited = self.parts.names.free("waited")
        self.start.append(f"{waited} = 0")
        margin = f" {'-' if is_min else '+'} {delta}" if delta else ""
        self.each += [f"if {waits}{value} {sign} {best}{margin}:", f"    {best} = {value}"]
        self.each += [save] if saves and not delta else []
        self.each += [f"    {waited} = 0", f"elif {name}:" if is_rare else "else:"]
        self.each.append(f"    {waited} += 1")
        self.stop += [f"if {waited} >= {patience}:", "    break"]
