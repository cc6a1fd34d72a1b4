"""The script of a fit in plain PyTorch: the user's lines, one function a pass, and the loop of epochs.

::

    trainer.plain_loop("loop.py", train_dl, val_dl)
    python loop.py                                   # trains to the same weights
"""

from __future__ import annotations

import ast
import keyword
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from inspect import signature
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .. import metrics
from ..arguments import default_loss
from ..callbacks.grad_clip import GradClipCallback
from ..data.followed import read_moment, restore_moment
from ..fit.plan import FitPlan
from ..patches.base import metric_name
from ..patches.confusion import CountsPatch
from ..patches.tensors import TensorPatch
from ..patches.torchmetric import MetricPatch
from ..patches.values import MeanPatch
from ..stages import Stage
from ..steps import DEFAULT_STEPS, resolve_step
from ..task import EpochTask
from .prelude import YOURS, OptimizerText, Prelude
from .steps import StepWriter, Verbs

HEAD = '"""The training of {what}, written out in PyTorch by DeepEpochs."""'

INDENT = "    "
WIDTH = 88

CLASS_METRICS = (metrics.precision, metrics.recall, metrics.f1, metrics.fbeta)


def class_metric(
    name: str, kind: str, options: Mapping[str, Any], num_classes: int | None
) -> list[str]:
    """Write a metric that is computed from the counts of each class; see ``deepepochs.metrics``."""
    average = options.get("average") or ("binary" if num_classes == 2 else "micro")
    square = float(options.get("beta", 1.0)) ** 2
    part, whole = {
        "precision": ("hits", "of_pred"),
        "recall": ("hits", "of_target"),
    }.get(
        kind,
        ("2 * hits", "of_target + of_pred")
        if square == 1
        else (f"{1 + square} * hits", f"{square} * of_target + of_pred"),
    )
    lines = [
        f"def {name}(scores, targets):",
        "    preds = scores.argmax(1)",
        "    each = (targets[preds == targets], targets, preds)",
        "    counts = [torch.bincount(ids, minlength=scores.shape[1]).double() for ids in each]",
        "    hits, of_target, of_pred = counts",
    ]
    if average in ("micro", "binary"):
        pick = "n[1]" if average == "binary" else "n.sum()"
        lines[-2:] = [lines[-2], f"    hits, of_target, of_pred = ({pick} for n in counts)"]
    lines += [f"    part, whole = {part}, {whole}", "    values = part / (whole + (whole == 0))"]
    if average == "macro":
        lines.append("    return values.mean()")
    elif average == "weighted":
        lines.append("    return (values * of_target / of_target.sum()).sum()")
    else:
        lines.append("    return values")
    return lines


class Metric(NamedTuple):
    """How a metric of a pass is written out."""

    start: list[str]
    batch: list[str]  # with {out} and {y}
    value: str
    needs: tuple[str, ...] = ()  # helper functions


class Script:
    """The script of one fit."""

    def __init__(
        self, trainer: Any, plan: FitPlan, prelude: Prelude, epochs: int | None = None
    ) -> None:
        self.trainer = trainer
        self.plan = plan
        self.prelude = prelude
        self.unknown: list[str] = []
        self.setup: list[str] = []
        self.helpers: dict[str, list[str]] = {}
        self.functions: list[str] = []
        self.calls: dict[Stage, list[tuple[str, str]]] = {}  # (label, call)
        self.own: dict[str, Any] = {}
        self.num_classes: int | None = None
        self.epochs = trainer.max_epochs if epochs is None else epochs
        self._name_parts()

    # --- names

    def _name_parts(self) -> None:
        trainer, names = self.trainer, self.prelude.names
        self.model = names.get("model") or self._fill_in("model", type(trainer.model).__name__)
        self.loss = names.get("loss") or ""
        if not self.loss and trainer.loss_fn is not default_loss:
            self.loss = self._fill_in("loss_fn", "the loss function")
        self._name_optimizers()
        self._name_schedulers()
        if trainer.device.type != "cpu":
            self.setup.append(f'device = torch.device("{trainer.device}")')
            self.setup.append(f"{self.model}.to(device)")
        self.clip = next((c for c in trainer.callbacks if type(c) is GradClipCallback), None)
        self.call = self._model_call()

    def _fill_in(self, name: str, what: str) -> str:
        free = name if name not in self.prelude._taken else self.prelude._free(name)
        self.setup.append(f"{free} = {YOURS}{what}")
        self.unknown.append(what)
        return free

    def _name_optimizers(self) -> None:
        texts = self.prelude.optimizers
        trainer = self.trainer
        if len(texts) != len(trainer.opt):
            texts = [OptimizerText("")] * len(trainer.opt)
        self.opts: list[str] = []
        for index, (text, optimizer) in enumerate(zip(texts, trainer.opt, strict=True)):
            name = text.opt
            if not name:
                name = self.prelude._free("opt" if len(texts) == 1 else f"opt_{index + 1}")
                self.setup.append(f"{name} = {self._made_optimizer(optimizer)}")
            self.opts.append(name)
        self._scheduler_texts = [text.scheduler for text in texts]

    def _made_optimizer(self, optimizer: Any) -> str:
        """Write how an optimizer is made, if it has all weights of the model in one group."""
        inner = optimizer.opt
        group = inner.param_groups[0]
        weights = [id(weight) for weight in self.trainer.model.parameters()]
        kind = type(inner)
        is_whole = len(inner.param_groups) == 1 and [id(w) for w in group["params"]] == weights
        if not is_whole or getattr(torch.optim, kind.__name__, None) is not kind:
            self.unknown.append(f"the optimizer {kind.__name__}")
            return f"{YOURS}the optimizer, {kind.__name__}"
        options = {
            key: group[key]
            for key, default in inner.defaults.items()
            if key in group and (key == "lr" or _differs(group[key], _default(kind, key, default)))
        }
        lr = group.get("initial_lr", group.get("lr"))
        given = ", ".join(f"{k}={lr if k == 'lr' else v!r}" for k, v in options.items())
        return f"torch.optim.{kind.__name__}({self.model}.parameters(), {given})"

    def _name_schedulers(self) -> None:
        self.schedulers: list[str | None] = []
        for index, (text, optimizer) in enumerate(
            zip(self._scheduler_texts, self.trainer.opt, strict=True)
        ):
            if optimizer.scheduler is None:
                self.schedulers.append(None)
            elif text:
                self.schedulers.append(text)
            else:
                name = "scheduler" if len(self.opts) == 1 else f"scheduler_{index + 1}"
                what = f"the scheduler of {self.opts[index]}, {type(optimizer.scheduler).__name__}"
                self.schedulers.append(self._fill_in(name, what))

    def _model_call(self) -> str:
        accelerator = self.trainer.accelerator
        mode = getattr(accelerator, "mixed_precision", "no")
        if mode == "no":
            return self.model
        if mode == "fp16":
            self.unknown.append("the scaling of gradients of precision='fp16'")
        kind = self.trainer.device.type
        dtype = "torch.bfloat16" if mode == "bf16" else "torch.float16"
        self.helpers["call_model"] = [
            "def call_model(*inputs):",
            f'    with torch.autocast("{kind}", {dtype}):',
            f"        return {self.model}(*inputs).float()",
        ]
        return "call_model"

    def metric_text(self, name: str, metric: Any) -> str:
        """Give the name of a metric's function in the script."""
        known = self.prelude.name_of(metric)
        if known is not None:
            return known
        plain, options = metric, {}
        while isinstance(plain, partial):
            options = {**plain.keywords, **options}
            plain = plain.func
        if plain in CLASS_METRICS:
            free = _identifier(name)
            self.helpers[free] = class_metric(free, plain.__name__, options, self.num_classes)
            return free
        return self._fill_in(_identifier(name), f"the metric {name}")

    # --- passes

    def write_pass(self, stage: Stage, task: EpochTask, index: int) -> None:
        """Write the function of one pass."""
        trainer, is_training = self.trainer, stage is Stage.TRAIN
        loader = self._loader(stage, index)
        batch = _first_batch(task.dataloader)
        step = resolve_step(task, trainer, stage)
        is_default = getattr(step, "__func__", None) in DEFAULT_STEPS
        writer = _Pass(self, stage, task, batch, is_default=is_default)
        several = len(self.plan.tasks[stage]) > 1
        label = self.plan.labels[stage][index]
        name = "train_epoch" if is_training else "validate"
        name = f"{name}_{_identifier(label)}" if several else name
        body = writer.body(step)
        lines = [] if is_training else ["@torch.no_grad()"]
        lines += [f"def {name}():", f"    {self.model}.{'train' if is_training else 'eval'}()"]
        lines += [INDENT + line for line in writer.start]
        lines.append(f"    for {writer.header} in {loader}:")
        if writer.enumerates:
            lines[-1] = f"    for batch_idx, {writer.in_tuple} in enumerate({loader}):"
        lines += [INDENT * 2 + line for line in [*writer.moves, *body]]
        lines += _returned(writer.results)
        self.functions += ["", "", *lines]
        self.calls.setdefault(stage, []).append((label if several else "", f"{name}()"))

    def _loader(self, stage: Stage, index: int) -> str:
        first = "train_dl" if stage is Stage.TRAIN else "val_dl"
        if index == 0 and (known := self.prelude.names.get(first)):
            return known
        task = self.plan.tasks[stage][index]
        known = self.prelude.name_of(task.dataloader)
        if known is not None:
            return known
        name = first if len(self.plan.tasks[stage]) == 1 else f"{first}_{index + 1}"
        return self._fill_in(name, f"the loader of {stage} task {self.plan.labels[stage][index]}")

    # --- the loop of epochs

    def loop(self) -> list[str]:
        """The lines of the loop of epochs."""
        best = self._best()
        lines = ["history = []", *best.start, f"for epoch in range({self.epochs}):"]
        lines += [INDENT + line for line in self._calls(Stage.TRAIN, "train")]
        if self.plan.tasks.get(Stage.VAL):
            freq = self.plan.val_freq
            calls = self._calls(Stage.VAL, "val")
            if freq == 1:
                lines += [INDENT + line for line in [*calls, *best.each]]
            else:
                lines.append("    val = {}")
                lines.append(f"    if (epoch + 1) % {freq} == 0:")
                lines += [INDENT * 2 + line for line in [*calls, *best.each]]
        elif best.each:
            lines += [INDENT + line for line in best.each]
        lines += [INDENT + line for line in self._epoch_schedules()]
        shown = "train, val" if self.plan.tasks.get(Stage.VAL) else "train"
        lines.append(
            f"    history.append(({shown},))"
            if shown == "train"
            else f"    history.append(({shown}))"
        )
        lines.append(f'    print(f"epoch {{epoch + 1}}/{self.epochs}", {shown})')
        lines += [INDENT + line for line in best.stop]
        return lines

    def _calls(self, stage: Stage, name: str) -> list[str]:
        calls = self.calls[stage]
        if len(calls) == 1:
            return [f"{name} = {calls[0][1]}"]
        entries = ", ".join(f'"{label}": {call}' for label, call in calls)
        return [f"{name} = {{{entries}}}"]

    def _epoch_schedules(self) -> list[str]:
        lines = []
        for name, optimizer in zip(self.schedulers, self.trainer.opt, strict=True):
            if name is None or optimizer.sched_on != "epoch":
                continue
            if not optimizer.needs_loss:
                lines.append(f"{name}.step()")
                continue
            stage = self.plan.stage_followed(optimizer.monitor)
            value = f'{stage}["{optimizer.monitor or "loss"}"]'
            if stage is Stage.VAL and self.plan.val_freq > 1:
                lines += [f"if {stage}:", f"    {name}.step({value})"]
            else:
                lines.append(f"{name}.step({value})")
        return lines

    def _best(self) -> Any:
        return _Best(self)

    # --- the whole

    def text(self, what: str) -> str:
        """The whole script."""
        for stage, tasks in self.plan.tasks.items():
            for index, task in enumerate(tasks):
                self.write_pass(stage, task, index)
        own = self._own_lines()
        loop = self.loop()
        notes = self._notes()
        helpers = [line for one in self.helpers.values() for line in ["", "", *one]]
        body = [*self.setup, *own, *helpers, *self.functions, "", "", *notes, *loop]
        imports, before = self.prelude.finish("\n".join(body))
        if any("torch." in line for line in body) and "import torch" not in imports:
            imports = ["import torch", *imports]
        if own:
            imports = [*imports, "from types import SimpleNamespace"]
        lines = [HEAD.format(what=what), "", *_sorted(imports), "", *before, "", *body]
        return _tidy("\n".join(lines))

    def _own_lines(self) -> list[str]:
        if not self.own:
            return []
        given = []
        for name, value in self.own.items():
            known = self.prelude.name_of(value)
            if isinstance(value, (bool, int, float, str, type(None))):
                known = repr(value)
            if known is None:
                self.unknown.append(f"the attribute {name} of the step's object")
            given.append(f"{name}={known or f'{YOURS}{name}'}")
        if any(YOURS in one for one in given):
            return [
                "own = SimpleNamespace()",
                *(f"own.{one.replace('=', ' = ', 1)}" for one in given),
            ]
        return [f"own = SimpleNamespace({', '.join(given)})"]

    def _notes(self) -> list[str]:
        known = (GradClipCallback,)
        lines = []
        for callback in self.trainer.callbacks:
            kind = type(callback)
            if kind in known or callback.is_console or callback.keeps_checkpoints:
                continue
            hooks = [n for n in dir(kind) if n.startswith("on_") and n in vars(kind)]
            lines.append(f"# NOT WRITTEN OUT: {kind.__name__} ({', '.join(hooks) or 'no hooks'}).")
        for task in self.plan.all_tasks():
            workers = getattr(task.dataloader, "num_workers", 0)
            if workers and self.trainer.worker_seeding == "position":
                lines.append(
                    "# With workers the library seeds random samples by their place in the epoch; here "
                    "torch seeds each worker."
                )
                break
        return lines


class _Best:
    """Keeps the best weights, as a CheckCallback does."""

    def __init__(self, script: Script) -> None:
        self.start: list[str] = []
        self.each: list[str] = []
        self.stop: list[str] = []
        checker = script.trainer.checker
        if checker is None or not getattr(checker, "save_best", False):
            return
        stage = str(checker.metric.stage)
        has_val = bool(script.plan.tasks.get(Stage.VAL))
        if stage == "val" and not has_val:
            return
        mode = checker.metric.mode or script.plan.directions().get(checker.monitor)
        mode = mode or ("min" if "loss" in checker.monitor else "max")
        value = f'{stage}["{checker.monitor}"]'
        sign, worst = ("<", "inf") if mode == "min" else (">", "-inf")
        self.start = [f'best = float("{worst}")']
        self.each = [f"if {value} {sign} best:", f"    best = {value}"]
        self.each.append(f'    torch.save({script.model}.state_dict(), "best.pt")')
        if checker.patience:
            self.start.append("waited = 0")
            self.each += ["    waited = 0", "else:", "    waited += 1"]
            self.stop = [f"if waited >= {checker.patience}:", "    break"]


class _Pass:
    """The lines of one pass."""

    def __init__(
        self, script: Script, stage: Stage, task: EpochTask, batch: Any, *, is_default: bool
    ) -> None:
        self.script = script
        self.stage = stage
        self.task = task
        self.is_training = stage is Stage.TRAIN
        self.is_default = is_default
        self.has_loss = self.is_training or task.do_loss
        self.start: list[str] = []
        self.results: list[str] = []
        self.moves: list[str] = []
        self.enumerates = False
        self._values: dict[str, None] = {}
        self._has_metrics = self._has_weight = False
        self._look_at_batch(batch)
        self.metrics = [
            (name, self._metric(name, make(1)))
            for name, make in script.plan.metrics_of(stage, task)
        ]

    def _look_at_batch(self, batch: Any) -> None:
        """Find how a mini-batch is split, and what counts its samples."""
        with_targets = self.script.trainer.loss_fn is not default_loss
        entry = self.task.targets or self.script.trainer.targets
        self.splits: list[str] = []
        if isinstance(batch, Mapping):
            self.header = "batch_x"
            self.inputs, self.target = "**batch_x", "None"
            if entry is not None and with_targets:
                self.splits = [f'batch_y = batch_x.pop("{entry}")']
                self.target = "batch_y"
            elif entry is not None:
                self.target = f'batch_x["{entry}"]'
            first = next((k for k, v in batch.items() if isinstance(v, Tensor)), None)
            self.weight = "len(batch_y)" if self.splits else f'len(batch_x["{first}"])'
        elif isinstance(batch, (tuple, list)) and with_targets:
            if self.is_default and len(batch) == 2:
                self.header, self.inputs, self.target = "x, y", "x", "y"
            else:
                self.header, self.inputs, self.target = "*batch_x, batch_y", "*batch_x", "batch_y"
            last = batch[-1]
            counted = self.target if isinstance(last, Tensor) and last.ndim else None
            self.weight = f"len({counted or ('x' if self.inputs == 'x' else 'batch_x[0]')})"
        elif isinstance(batch, (tuple, list)):
            self.header, self.inputs, self.target = "batch_x", "*batch_x", "None"
            self.weight = "len(batch_x[0])"
        else:
            self.header, self.inputs, self.target = "batch_x", "batch_x", "None"
            self.weight = "len(batch_x)"
        size = self.task.batch_size
        if isinstance(size, (int, float)):
            self.weight = repr(size)
        elif callable(size):
            known = self.script.prelude.name_of(size) or self.script._fill_in(
                "batch_size", "the function batch_size"
            )
            self.weight = f"{known}(batch_x, batch_y)"
        if self.script.trainer.device.type != "cpu":
            names = [part.strip(" *") for part in self.header.split(",")]
            self.moves = [f"{name} = {name}.to(device)" for name in names]
        self.in_tuple = f"({self.header})" if "," in self.header else self.header

    # --- verbs

    def body(self, step: Any) -> list[str]:
        """The lines for one mini-batch."""
        script = self.script
        verbs = Verbs(
            self._backward, self._optimize, self._record_loss, self._record_metrics,
            self._record_value, script.loss, script.call, self.has_loss,
        )  # fmt: skip
        if self.is_default:
            lines = self._default(verbs)
        else:
            writer = StepWriter(step, verbs, self.task.step_args)
            lines = writer.lines
            script.unknown += writer.unknown
            script.own.update(writer.attributes)
            for name, function in writer.functions.items():
                script.helpers[name] = function
        window = self._window_start() if self.is_training else []
        head = [*self.splits]
        if self._has_weight:
            head += [f"weight = {self.weight}", "count += weight"]
            self.start.append("count = 0")
        self._end()
        return [*head, *window, *lines]

    def _default(self, verbs: Verbs) -> list[str]:
        lines = [f"out = {verbs.model}({self.inputs})"]
        if self.has_loss and self.script.loss:
            lines.append(f"loss = {verbs.loss}(out, {self.target})")
        elif self.has_loss:
            lines.append("loss = out")
        if self.has_loss:
            lines += self._backward("loss", None) + self._optimize(None) + self._record_loss("loss")
        return lines + self._record_metrics("out", self.target)

    def _backward(self, loss: str, share: str | None) -> list[str]:
        if not self.is_training:
            return []
        factors = [] if share is None else [share]
        if self.script.trainer.grad_accumulate > 1:
            factors.append("(weight / first)")
        if not factors:
            return [f"{loss}.backward()"]
        return [f"({' * '.join([loss, *factors])}).backward()"]

    def _window_start(self) -> list[str]:
        size = self.script.trainer.grad_accumulate
        if size == 1:
            return []
        return [
            f"if batch_idx % {size} == 0:",
            "    first, total_weight = weight, 0",
            "total_weight += weight",
        ]

    def _optimize(self, index: int | None) -> list[str]:
        if not self.is_training:
            return []
        script = self.script
        chosen = range(len(script.opts)) if index is None else [index]
        lines = []
        if script.clip is not None:
            lines.append(self._clip([*chosen]))
        for i in chosen:
            lines.append(f"{script.opts[i]}.step()")
            optimizer = script.trainer.opt[i]
            if optimizer.scheduler is not None and optimizer.sched_on == "step":
                given = "loss.item()" if optimizer.needs_loss else ""
                lines.append(f"{script.schedulers[i]}.step({given})")
        lines += [f"{script.opts[i]}.zero_grad()" for i in chosen]
        size = script.trainer.grad_accumulate
        if size == 1:
            return lines
        self.enumerates = self._has_weight = True
        loader = script._loader(self.stage, self.script.plan.tasks[self.stage].index(self.task))
        closes = f"if (batch_idx + 1) % {size} == 0 or batch_idx + 1 == len({loader}):"
        weights = self._weights([*chosen])
        scale = [
            f"for weights in {weights}:",
            "    if weights.grad is not None:",
            "        weights.grad.mul_(first / total_weight)",
        ]
        return [closes, *(INDENT + line for line in [*scale, *lines])]

    def _weights(self, chosen: Sequence[int]) -> str:
        script = self.script
        params = [id(w) for i in chosen for w in script.trainer.opt[i].params]
        if params == [id(w) for w in script.trainer.model.parameters()]:
            return f"{script.model}.parameters()"
        groups = " + ".join(f"{script.opts[i]}.param_groups" for i in chosen)
        return f'[w for group in {groups} for w in group["params"]]'

    def _clip(self, chosen: Sequence[int]) -> str:
        clip, weights = self.script.clip, self._weights(chosen)
        if clip.norm_type is None:
            return f"torch.nn.utils.clip_grad_value_({weights}, {clip.max_value})"
        return f"torch.nn.utils.clip_grad_norm_({weights}, {clip.max_value}, {clip.norm_type})"

    # --- sums

    def _record_loss(self, loss: str) -> list[str]:
        self._has_weight = True
        self._values["loss"] = None
        return [f"total += {loss}.item() * weight"]

    def _record_value(self, name: str, value: str) -> list[str]:
        self._has_weight = True
        self._values[name] = None
        number = value if value.endswith(".item()") else f"torch.as_tensor({value}).item()"
        return [f"{_identifier(name)}_total += {number} * weight"]

    def _record_metrics(self, out: str, y: str) -> list[str]:
        if not self.metrics:
            return []
        self._has_metrics = True
        lines = [line.format(out=out, y=y) for _, one in self.metrics for line in one.batch]
        return list(dict.fromkeys(lines))

    def _end(self) -> None:
        if "loss" in self._values:
            self.start.append("total = 0.0")
            self.results.append('"loss": total / count')
        if self._has_metrics:
            for name, one in self.metrics:
                self.start += [line for line in one.start if line not in self.start]
                self.results.append(f'"{name}": {one.value}')
                self._has_weight = self._has_weight or "weight" in "".join(one.batch)
        for name in self._values:
            if name != "loss":
                self.start.append(f"{_identifier(name)}_total = 0.0")
                self.results.append(f'"{name}": {_identifier(name)}_total / count')

    def _metric(self, name: str, patch: Any) -> Metric:
        metric = getattr(patch, "metric", None)
        plain = metric
        while isinstance(plain, partial):
            plain = plain.func
        keeps = Metric(["outs, ys = [], []"], ["outs.append({out}.detach())", "ys.append({y})"], "")
        joined = "torch.cat(outs), torch.cat(ys)"
        if isinstance(patch, CountsPatch) and getattr(plain, "__name__", "") == "accuracy":
            self._has_weight = self._has_weight
            variable = "right"
            return Metric(
                [f"{variable}, seen = 0, 0"],
                [f"{variable} += ({{out}}.argmax(1) == {{y}}).sum().item()", "seen += {y}.numel()"],
                f"{variable} / seen",
            )
        known = self.script.metric_text(name, metric)
        if isinstance(patch, MetricPatch):
            self.start.append(f"{known}.reset()")
            return Metric(
                [], [f"{known}.update({{out}}.detach(), {{y}})"], f"float({known}.compute())"
            )
        if isinstance(patch, MeanPatch):
            self._has_weight = True
            var = f"{_identifier(name)}_total"
            return Metric(
                [f"{var} = 0.0"],
                [f"{var} += float({known}({{out}}.detach(), {{y}})) * weight"],
                f"{var} / count",
            )
        if isinstance(patch, (TensorPatch, CountsPatch)):
            return keeps._replace(value=f"float({known}({joined}))")
        self.script.unknown.append(f"the metric {name}")
        return Metric([], [], f"...  # FILL IN: {name}")


def _returned(entries: Sequence[str]) -> list[str]:
    """A return of a dict, on one line if that is short enough."""
    line = f"    return {{{', '.join(entries)}}}"
    if len(line) <= WIDTH:
        return [line]
    return ["    return {", *(f"        {entry}," for entry in entries), "    }"]


def _identifier(label: str) -> str:
    name = "".join(c if c.isalnum() else "_" for c in label)
    return f"{name}_" if keyword.iskeyword(name) else name


def _default(kind: type, key: str, default: Any) -> Any:
    parameter = signature(kind).parameters.get(key)
    return default if parameter is None else parameter.default


def _differs(value: Any, default: Any) -> bool:
    return not (value is default or (type(value) is type(default) and value == default))


def _first_batch(loader: Any) -> Any:
    """The first mini-batch of a loader, which is then as before."""
    moment = read_moment(loader)
    try:
        return next(iter(loader), None)
    finally:
        restore_moment(loader, moment)


def _sorted(imports: Sequence[str]) -> list[str]:
    """Imports as formatters order them: one line a module, the standard library first."""
    plain, named = set(), dict[str, set[str]]()
    for line in imports:
        (node,) = ast.parse(line).body
        if isinstance(node, ast.Import):
            plain.add(line)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            named.setdefault(module, set()).update(map(ast.unparse, node.names))
    lines = [*sorted(plain)]
    for module in sorted(named):
        names = sorted(
            named[module], key=lambda name: (not name.isupper(), name[0].islower(), name)
        )
        lines.append(f"from {module} import {', '.join(names)}")
    groups: list[list[str]] = [[], []]
    for line in lines:
        root = line.split()[1].partition(".")[0]
        groups[root not in sys.stdlib_module_names].append(line)
    return [*groups[0], *([""] if all(groups) else []), *groups[1]]


def _tidy(text: str) -> str:
    """Lay out blank lines as formatters do."""
    while "\n\n\n\n" in text:
        text = text.replace("\n\n\n\n", "\n\n\n")
    ast.parse(text)
    return text.strip() + "\n"
