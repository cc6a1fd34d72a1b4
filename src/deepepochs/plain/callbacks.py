"""What callbacks of the library do in training, written out.

Clipped gradients, frozen weights, the best weights and the end of a run that improves no more.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from ..callbacks.early_stop import EarlyStopCallback
from ..callbacks.grad_clip import GradClipCallback, GradNormCallback
from ..callbacks.monitored import Improvement
from ..callbacks.training.freeze import FreezeCallback
from ..fit.plan import FitPlan
from ..hooks import is_of_library
from ..optim.groups import matching, named_weights, plain
from ..stages import Stage
from .parts import Parts, at_path

WRITTEN = (EarlyStopCallback, FreezeCallback, GradClipCallback)


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


def left_out(trainer: Any) -> list[str]:
    """Say which callbacks of the library are not written out, or not wholly."""
    found = []
    for callback in trainer.callbacks:
        kind = type(callback)
        is_written = kind in WRITTEN or callback is norm_of(trainer) or callback.is_console
        if is_of_library(kind) and not is_written:
            more = ": only its best weights are saved" if callback.keeps_checkpoints else ""
            found.append(f"{kind.__name__}{more}")
    return found


def clip_of(callbacks: Iterable[Any]) -> GradClipCallback | None:
    """The callback that clips the gradients, if there is one."""
    return next((one for one in callbacks if type(one) is GradClipCallback), None)


def norm_of(trainer: Any) -> GradNormCallback | None:
    """The callback that records the norm of the gradients, if it can be written out."""
    if trainer.runtime.scaler is not None or any(one.needs_closure for one in trainer.opt):
        return None
    return next((one for one in trainer.callbacks if type(one) is GradNormCallback), None)


class Frozen:
    """The lines that freeze weights in the first epochs of a run.

    Attributes:
        weights: those at the beginning of a pass of training.
        modes: those that put norms among the layers into evaluation mode.
    """

    def __init__(self, parts: Parts, epoch: str) -> None:
        """``epoch`` is the name of the number of the epoch."""
        self.weights: list[str] = []
        self.modes: list[str] = []
        model = parts.trainer.runtime.unwrap(parts.trainer.model)
        for callback in parts.trainer.callbacks:
            if type(callback) is FreezeCallback and parts.trainer.runtime.num_processes == 1:
                layers = _layers(model, callback.names)
                at = [at_path(parts.model, model, path) for path in layers]
                self.weights += [
                    f"{one}.requires_grad_({epoch} >= {callback.epochs})" for one in at
                ]
                lines = _evals(parts.model, model, layers, _norms(model, callback.names))
                if lines:
                    self.modes.append(f"if {epoch} < {callback.epochs}:")
                    self.modes += [f"    {line}" for line in lines]


def _layers(model: nn.Module, patterns: Any) -> list[str]:
    """The paths of the layers, and of single weights, that have the weights to be frozen.

    Those that require no gradients before stay as they are.
    """
    chosen = {
        name for name, w in matching(patterns, named_weights(model)).items() if w.requires_grad
    }

    def found(module: nn.Module, path: str) -> list[str]:
        names = [f"{path}{plain(name)}" for name, _ in module.named_parameters()]
        if names and chosen.issuperset(names):
            return [path.removesuffix(".")]
        own = [f"{path}{name}" for name, _ in module.named_parameters(recurse=False)]
        inner = [
            one for name, each in module.named_children() for one in found(each, f"{path}{name}.")
        ]
        return [*(name for name in own if name in chosen), *inner]

    return found(model, "")


def _norms(model: nn.Module, patterns: Any) -> list[str]:
    """The paths of the norms with running statistics among the layers of some patterns."""
    found = []
    for path in _with_statistics(model):
        own = {f"{plain(path)}.{name}": torch.Tensor() for name in ("weight", "running_mean")}
        found += [path] if matching(patterns, own) else []
    return found


def _with_statistics(model: nn.Module) -> list[str]:
    named = model.named_modules()
    return [path for path, one in named if getattr(one, "running_mean", None) is not None]


def _evals(name: str, model: nn.Module, layers: list[str], norms: list[str]) -> list[str]:
    """The lines that put norms into evaluation mode, those of a layer together."""
    lines, left = [], [*norms]
    for layer in layers:
        inner = [path for path in _with_statistics(model) if f"{path}.".startswith(f"{layer}.")]
        if len(inner) > 1 and set(inner) <= set(left):
            left = [path for path in left if path not in inner]
            lines += [
                f"for layer in {at_path(name, model, layer)}.modules():",
                '    if getattr(layer, "running_mean", None) is not None:',
                "        layer.eval()",
            ]
    return [*lines, *(f"{at_path(name, model, path)}.eval()" for path in left)]
