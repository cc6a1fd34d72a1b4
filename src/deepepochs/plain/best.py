"""The best weights and the patience of a run, as the callbacks that follow a metric have them."""

from __future__ import annotations

from ..callbacks.early_stop import EarlyStopCallback
from ..callbacks.monitored import Improvement
from ..fit.plan import FitPlan
from ..stages import Stage
from .parts import Parts


class Best:
    """The lines that keep the best weights and stop early.

    Attributes:
        start: before the loop.
        each: after a stage has its values.
        sets: the variables that those lines set.
        patiences: the conditions under which the fit goes on, each with its stage.
    """

    def __init__(
        self, parts: Parts, plan: FitPlan, values: dict[Stage, str], *, val_may_lack: bool
    ) -> None:
        """``val_may_lack``: whether the lines meet epochs without validation."""
        self._parts, self._plan, self._values = parts, plan, values
        self._val_may_lack = val_may_lack
        self.start: list[str] = []
        self.each: dict[Stage, list[str]] = {Stage.TRAIN: [], Stage.VAL: []}
        self.sets: dict[Stage, list[str]] = {Stage.TRAIN: [], Stage.VAL: []}
        self.patiences: list[tuple[Stage, str, int]] = []
        for callback in parts.trainer.callbacks:
            if callback.keeps_checkpoints:
                self._follow(callback.improvement, saves=True)
            elif type(callback) is EarlyStopCallback:
                self._follow(callback.improvement, saves=False)

    def _follow(self, improvement: Improvement, *, saves: bool) -> None:
        """Follow the metric of a callback, which saves the best weights or only stops."""
        stage, monitor = Stage(improvement.on_stage), improvement.metric.name
        if not self._plan.tasks[stage]:
            return
        patience, delta = improvement.watch.patience, improvement.watch.min_delta
        mode = improvement.metric.mode or self._plan.directions().get(monitor)
        is_min = (mode or ("min" if "loss" in monitor else "max")) == "min"
        name, lines = self._values[stage], self.each[stage]
        may_lack = stage is Stage.VAL and self._val_may_lack
        value = f'{name}["{monitor}"]'
        waits = f"{name} and " if may_lack else ""
        sign, worst = ("<", "inf") if is_min else (">", "-inf")
        best = self._variable(stage, "best", f'float("{worst}")')
        save = f'    torch.save({self._parts.saved}.state_dict(), "best.pt")'
        saving = [f"if {waits}{value} {sign} {best}:", f"    {best} = {value}", save]
        if saves and (delta or not patience):
            lines += saving
        if not patience:
            return
        if saves and delta:
            best = self._variable(stage, "best_before", f'float("{worst}")')
        waited = self._variable(stage, "waited", "0")
        margin = f" {'-' if is_min else '+'} {delta}" if delta else ""
        lines += [f"if {waits}{value} {sign} {best}{margin}:", f"    {best} = {value}"]
        lines += [save] if saves and not delta else []
        lines += [f"    {waited} = 0", f"elif {name}:" if may_lack else "else:"]
        lines.append(f"    {waited} += 1")
        self.patiences.append((stage, waited, patience))

    def _variable(self, stage: Stage, wanted: str, value: str) -> str:
        """A new name, which has a value before the loop."""
        name = self._parts.names.free(wanted)
        self.start.append(f"{name} = {value}")
        self.sets[stage].append(name)
        return name
