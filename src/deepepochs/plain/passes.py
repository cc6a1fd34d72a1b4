"""The function of one pass: training or validation of one task, over its mini-batches."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ..arguments import default_loss
from ..fit.plan import FitPlan
from ..patches.base import PatchBase
from ..patches.confusion import ConfusionPatch, CountsPatch, takes_matrix_by_name
from ..patches.tensors import TensorPatch
from ..patches.torchmetric import MetricPatch
from ..patches.values import MeanPatch
from ..stages import Stage
from ..steps import DEFAULT_STEPS, Steps, resolve_step
from ..task import EpochTask
from .gaps import Names, place_of
from .layout import folded
from .look import sample_of
from .metric_text import (
    IDS,
    MetricText,
    ids_function,
    ids_of,
    is_class_metric,
    joined,
    plain_metric,
    targets_of,
    tried,
    value_entry,
)
from .parts import Parts, identifier
from .source import names_read
from .steps import VERBS, StepWriter

INDENT = "    "


class Pass:
    """Writes the function of a pass; it is also what the verbs of a step do there.

    Attributes:
        name: of the function.
        label: of the task, where the stage has several; else ``''``.
        has_loss: whether the pass computes a loss.
        names: those of the function.
    """

    def __init__(
        self, parts: Parts, plan: FitPlan, stage: Stage, task: EpochTask, loader: str
    ) -> None:
        self.parts, self.plan, self.stage, self.task, self.loader = parts, plan, stage, task, loader
        self.is_training = stage is Stage.TRAIN
        self.has_loss = self.is_training or task.do_loss
        tasks = plan.tasks[stage]
        self.label = plan.labels[stage][tasks.index(task)] if len(tasks) > 1 else ""
        self.model = ""
        self.step = resolve_step(task, parts.trainer, stage)
        self.is_default = getattr(self.step, "__func__", None) in DEFAULT_STEPS
        self._writer = None if self.is_default else StepWriter(self.step, self, parts.gaps)
        self._sample = sample_of(parts.trainer, task.dataloader, task.targets)
        length = parts.trainer.limits.num_batches(stage, task.length)
        self._is_single = length == 1 and not self.label
        self._size = parts.trainer.grad_accumulate if self.is_training else 1
        self._start: list[str] = []
        self._results: dict[str, None] = {}
        self._values: dict[str, str] = {}  # name -> the variable of its sum
        self._recorded: dict[str, str] = {}  # name -> the variable of its value
        self._counts = self._has_metrics = False

    @property
    def assigned(self) -> set[str]:
        """The names that a step of the user's sets."""
        return set() if self._writer is None else self._writer.assigned

    def write(self) -> list[str]:
        """Write the function."""
        parts = self.parts
        self._net = parts.model if self.is_training else parts.averaged or parts.model
        self.model = parts.call(self._net)
        shared = [
            self._net,
            self.model,
            parts.model,
            parts.loss,
            *parts.opts,
            *parts.schedulers,
            self.loader,
        ]
        taken = {name for text in shared if text for name in names_read(ast.parse(text))}
        taken |= {"torch", "device"} if parts.moves else {"torch"}
        self.names = Names(taken | (self._writer.own_names if self._writer else set()))
        wanted = "train_epoch" if self.is_training else "validate"
        name = f"{wanted}_{identifier(self.label)}" if self.label else wanted
        self.name = parts.names.free(name)
        self._name_batch()
        self._name_sums()
        self._metrics = [
            (key, self._metric(key, make(1))) for key, make in self._planned() if make is not None
        ]
        body = self._body()
        return self._function(body)

    def _planned(self) -> Sequence[tuple[str, Any]]:
        return self.plan.metrics_of(self.stage, self.task)

    def _function(self, body: list[str]) -> list[str]:
        stage, parts = str(self.stage), self.parts
        lines = [] if self.is_training else ["@torch.no_grad()"]
        lines += [f"def {self.name}():"]
        start = [
            *parts.hooks(f"on_before_{stage}_epoch"),
            f"{self._net}.{'train' if self.is_training else 'eval'}()",
            *self._start,
        ]
        header = f"for {self._header} in {self._batches}:"
        if self._enumerates:
            target = f"({self._header})" if "," in self._header else self._header
            header = f"for {self._index}, {target} in enumerate({self._batches}):"
        loop = [
            *self._moves,
            *self._splits,
            *parts.hooks(f"on_before_{stage}_batch", f"on_before_{stage}_forward"),
            *body,
            *parts.hooks(f"on_after_{stage}_batch"),
        ]
        end = [*parts.hooks(f"on_after_{stage}_epoch"), *self._returned()]
        inner = [*start, header, *(INDENT + line for line in loop), *end]
        return [*lines, *(INDENT + line for line in inner)]

    def _returned(self) -> list[str]:
        entries = [*self._results]
        if not self.label:
            return folded("return {", entries, "}", len(INDENT))
        sums = f", {self._total}, {self._count}" if "loss" in self._values else ", 0.0, 0"
        prefixed = [
            entry.replace('"', f'"{self.label}/', 1) if entry.startswith('"') else entry
            for entry in entries
        ]
        return folded("return {", prefixed, f"}}{sums}", len(INDENT))

    # --- the mini-batch

    def _name_batch(self) -> None:
        """Find how a mini-batch is split, and what counts its samples."""
        sample, writer = self._sample, self._writer
        has_loss_fn = self.parts.trainer.loss_fn is not default_loss
        x, y = writer.inputs if writer else ("batch_x", "batch_y")
        self._splits: list[str] = []
        self.x, self.y, self._inputs = f"*{x}", y, f"*{x}"
        if isinstance(sample.batch, Mapping):
            self._split_dict(x, y, has_loss_fn=has_loss_fn)
        elif isinstance(sample.batch, (tuple, list)) and has_loss_fn:
            if self.is_default and len(sample.batch) == 2:
                x, y = self.names.free("x", "batch_x"), self.names.free("y", "batch_y")
                self.x = self._inputs = x
                self.y = y
            self._header = f"{self.x}, {self.y}"
        elif isinstance(sample.batch, (tuple, list)):
            self._header, self.y = x, "None"
        else:
            self._header, self.y = x, "None"
            self.x = self._inputs = x
            self._splits = [] if self.is_default else [f"{x} = ({x},)"]
        if writer and self.y == "None" and y in writer.own_names:
            self._splits.append(f"{y} = None")
        self._name_weight(x)
        names = [part.strip(" *") for part in self._header.split(",")]
        moves = self.parts.moves and self.parts.trainer.moves_data(self.stage)
        self._moves = [self._moved(name) for name in names] if moves else []

    def _split_dict(self, x: str, y: str, *, has_loss_fn: bool) -> None:
        entry = self.task.targets or self.parts.trainer.targets
        self._header, self._inputs = x, f"**{x}"
        self.x, self.y = x, "None"
        if entry is not None and has_loss_fn:
            self._splits, self.y = [f'{y} = {x}.pop("{entry}")'], y
        elif entry is not None:
            self.y = f'{x}["{entry}"]'

    def _moved(self, name: str) -> str:
        value = self._sample.batch
        if isinstance(value, Mapping):
            return f"{name} = {{key: one.to(device) for key, one in {name}.items()}}"
        if f"*{name}" in self._header or (isinstance(value, (tuple, list)) and self.y == "None"):
            return f"{name} = [one.to(device) for one in {name}]"
        return f"{name} = {name}.to(device)"

    def _name_weight(self, x: str) -> None:
        """Find the expression of what a mini-batch weighs."""
        sample, size = self._sample, self.task.batch_size
        first = x if not self._inputs.startswith("*") else f"{x}[0]"
        if isinstance(sample.batch, Mapping):
            key = next((k for k, v in sample.batch_x.items() if isinstance(v, Tensor)), "")
            first = f'{x}["{key}"]'
        if isinstance(size, (int, float)):
            self._weight_text = repr(size)
        elif callable(size):
            known = self.parts.prelude.name_of(size)
            known = known or self.parts.metric("batch_size", size, None, None)
            alone = isinstance(sample.batch_x, tuple) and len(sample.batch_x) == 1
            self._weight_text = f"float({known}({first if alone else x}, {self.y}))"
        else:
            target = sample.batch_y
            of_y = isinstance(target, Tensor) and target.ndim and len(target) == sample.size
            self._weight_text = f"len({self.y if of_y else first})"

    def _name_sums(self) -> None:
        names = self.names
        self._total, self._count = names.free("total", "loss_total"), names.free("count", "num")
        self._weight, self._index = names.free("weight", "size"), names.free("batch_idx")
        self._first, self._window = names.free("first"), names.free("window")
        self._outs, self._ys = names.free("outs", "outputs"), names.free("ys", "all_y")
        self._enumerates = self._size > 1
        limit = self.parts.trainer.limits.batches.get(self.stage)
        number = self.parts.trainer.limits.num_batches(self.stage, self.task.length)
        self._batches = self.loader if limit is None else f"islice({self.loader}, {number})"
        self._num_batches = f"len({self.loader})" if limit is None else str(number)

    # --- the step

    def _body(self) -> list[str]:
        trainer = self.parts.trainer
        lines = []
        if trainer.has_own_split:
            method = type(trainer).prepare_data
            what = f"{type(trainer).__name__}.prepare_data{place_of(method)}"
            lines.append(self.parts.gaps.not_written(what))
        if self._writer is None:
            step = self._default()
        else:
            step = self._writer.write(self.task.step_args)
        self._end()
        lines += self._weigh()
        return [*lines, *step]

    def _weigh(self) -> list[str]:
        """The lines that weigh a mini-batch, and open a window of several."""
        lines = []
        if self._size > 1 or (self._counts and not self._is_single):
            lines.append(f"{self._weight} = {self._weight_text}")
        if self._counts and not self._is_single:
            lines.append(f"{self._count} += {self._weight}")
            self._start.insert(0, f"{self._count} = 0")
        if self._size > 1:
            lines += [
                f"if {self._index} % {self._size} == 0:",
                f"    {self._first}, {self._window} = {self._weight}, 0",
                f"{self._window} += {self._weight}",
            ]
        return lines

    def _default(self) -> list[str]:
        out = self.names.free("out", "batch_out")
        loss = self.names.free("loss", "batch_loss")
        lines = self._overridden()
        lines.append(f"{out} = {self.model}({self._inputs})")
        lines += self.parts.hooks(f"on_after_{self.stage}_forward")
        if self.has_loss:
            lines.append(f"{loss} = {self.loss(out, self.y)}")
            lines += self.backward(loss, "") + self.optimize(None) + self.record_loss(loss)
        return lines + self.record_metrics(out, self.y)

    def _overridden(self) -> list[str]:
        """Comments for verbs of the user's own that the default step calls."""
        lines = []
        for verb in VERBS:
            for kind in (type(self.task), type(self.parts.trainer)):
                if (own := getattr(kind, verb, None)) not in (None, getattr(Steps, verb)):
                    what = f"{kind.__name__}.{verb}{place_of(own)}"
                    lines.append(self.parts.gaps.not_written(what))
        return lines

    def known(self, name: str) -> str:
        """The expression of an attribute that every step's object has."""
        known = {
            "model": self._net,
            "trainer.model": self._net,
            "loss_fn": self.parts.loss,
            "trainer.loss_fn": self.parts.loss,
            "current_batch_size": self._weight,
            "run.weight": self._weight,
            "run.batch_idx": self._index,
            "stage": f'"{self.stage}"',
            "step_args": repr(self.task.step_args),
        }
        device = f'torch.device("{self.parts.trainer.device}")'
        known |= dict.fromkeys(
            ("device", "trainer.device"), "device" if self.parts.moves else device
        )
        if name == "run.batch_idx":
            self._enumerates = True
        if name in ("current_batch_size", "run.weight"):
            self._counts = True
        return known.get(name, "")

    def loss(self, out: str, y: str) -> str:
        """The expression of the loss."""
        if self.parts.loss:
            return f"{self.parts.loss}({out}, {y})"
        return f'{out}["loss"]' if isinstance(self._sample.out, Mapping) else out

    def backward(self, loss: str, share: str) -> list[str]:
        """The backward pass of a loss, with its share of the mini-batch."""
        if not self.is_training:
            return []
        self._last_loss = loss
        factor = f"{self._weight} / {self._first}" if self._size > 1 else ""
        if share:
            factor = f"({share}) * ({factor})" if factor else share
        call = f"({loss} * ({factor})).backward()" if factor else f"{loss}.backward()"
        hooks = self.parts.hooks
        lines = [*hooks("on_before_backward"), call, *hooks("on_after_backward")]
        if self.parts.mode == "fp16":
            what = "the scaling of the gradients of precision='fp16'"
            lines.insert(0, self.parts.gaps.not_written(what))
        return lines

    def optimize(self, index: int | None) -> list[str]:
        """The step of an optimizer, or of all."""
        if not self.is_training:
            return []
        parts = self.parts
        chosen = [*range(len(parts.opts))] if index is None else [index]
        lines = parts.hooks("on_before_optimize")
        lines += [self._clip(chosen)] if parts.clip is not None else []
        for i in chosen:
            step = f"{parts.opts[i]}.step()"
            if getattr(parts.trainer.opt[i], "needs_closure", False):
                step = f"{parts.opts[i]}.step(...)"
                step += parts.gaps.fill_in_here(f"the closure of {parts.trainer.opt[i].kind}")
            lines += [step, *self._schedule(i)]
        lines += [f"{parts.opts[i]}.zero_grad()" for i in chosen]
        lines += self._average(index)
        lines += parts.hooks("on_after_optimize")
        if self._size == 1:
            return lines
        number = f"{self._index} + 1"
        closes = f"({number}) % {self._size} == 0 or {number} == {self._num_batches}"
        scale = [
            f"for weights in {self._weights(chosen)}:",
            "    if weights.grad is not None:",
            f"        weights.grad.mul_({self._first} / {self._window})",
        ]
        return [f"if {closes}:", *(INDENT + line for line in [*scale, *lines])]

    def _average(self, index: int | None) -> list[str]:
        """The average of the weights after an optimizer step."""
        parts = self.parts
        if not parts.averaged:
            return []
        every = parts.trainer.ema.settings.every
        if every > 1 or (index is not None and len(parts.opts) > 1):
            what = f"every={every}" if every > 1 else "that of each optimizer alone"
            return [parts.gaps.not_written(f"the average of the weights with {what}")]
        return [f"{parts.averaged}.update_parameters({parts.model})"]

    def _schedule(self, index: int) -> list[str]:
        """The step of a schedule that moves with each optimizer step."""
        optimizer, scheduler = self.parts.trainer.opt[index], self.parts.schedulers[index]
        if not scheduler or optimizer.sched_on != "step":
            return []
        if not optimizer.needs_loss:
            return [f"{scheduler}.step()"]
        lines = [f"{scheduler}.step({self._last_loss}.item())"]
        if self._size > 1:
            lines.insert(0, self.parts.gaps.not_written("the mean of the losses of a window"))
        return lines

    def _weights(self, chosen: Sequence[int]) -> str:
        trainer, opts = self.parts.trainer, self.parts.opts
        params = [id(w) for i in chosen for w in trainer.opt[i].params]
        if params == [id(w) for w in trainer.model.parameters()]:
            return f"{self.parts.model}.parameters()"
        groups = " + ".join(f"{opts[i]}.param_groups" for i in chosen)
        return f'[w for group in {groups} for w in group["params"]]'

    def _clip(self, chosen: Sequence[int]) -> str:
        clip, weights = self.parts.clip, self._weights(chosen)
        if clip.norm_type is None:
            return f"torch.nn.utils.clip_grad_value_({weights}, {clip.max_value})"
        return f"torch.nn.utils.clip_grad_norm_({weights}, {clip.max_value}, {clip.norm_type})"

    def own(self, owner: Any, name: str) -> str:
        """The expression of an attribute of a step's object."""
        return self.parts.own(owner, name)

    def method(self, owner: Any, name: str) -> str:
        """The name of the function that a method of a step's object becomes."""

        def write(method: Any, function: str) -> list[str]:
            return StepWriter(method, self, self.parts.gaps).write_function(function)

        return self.parts.method(owner, name, write)

    # --- sums

    def _sum(self, name: str, variable: str, value: str) -> list[str]:
        """Add a mean of the mini-batch to the sum of the pass."""
        self._counts = True
        self._values.setdefault(name, variable)
        variable = self._values[name]
        return [f"{variable} += {value}" + ("" if self._is_single else f" * {self._weight}")]

    def record_loss(self, loss: str) -> list[str]:
        """The sum of the losses."""
        return self._sum("loss", self._total, f"{loss}.item()")

    def record_value(self, name: str, value: str) -> list[str]:
        """The sum of a value that a step returns."""
        number = value if value.endswith(".item()") else f"torch.as_tensor({value}).item()"
        if name == "loss":
            return self._sum(name, self._total, number)
        wanted = f"{identifier(name)}_total"
        variable = self._values.get(name) or self.names.free(wanted)
        return self._sum(name, variable, number)

    def record_metrics(self, out: str, y: str) -> list[str]:
        """The sums of the metrics."""
        self._has_metrics = True
        lines = [line.format(out=out, y=y) for _, one in self._metrics for line in one.batch]
        hooks = self.parts.hooks(f"on_{self.stage}_metrics")
        return [*dict.fromkeys(lines), *hooks]

    def record(self, name: str, value: str, how: str) -> list[str]:
        """What comes of ``self.record``."""
        if how == "mean":
            return self.record_value(name, value)
        number = f"torch.as_tensor({value}).item()"
        variable = self._recorded.get(name) or self.names.free(f"{identifier(name)}_{how}")
        self._recorded[name] = variable
        first = {"sum": "0.0", "max": '-float("inf")', "min": 'float("inf")', "last": "0.0"}[how]
        self._start.append(f"{variable} = {first}")
        return [
            {
                "sum": f"{variable} += {number}",
                "last": f"{variable} = {number}",
            }.get(how, f"{variable} = {how}({variable}, {number})")
        ]

    def _end(self) -> None:
        """Note the first values of the sums, and the results."""
        per = "" if self._is_single else f" / {self._count}"
        values = {"loss": self._values["loss"]} if "loss" in self._values else {}
        self._start += [f"{variable} = 0.0" for variable in {**values, **self._values}.values()]
        self._results.update({f'"{name}": {values[name]}{per}': None for name in values})
        for _, one in self._metrics if self._has_metrics else []:
            self._start += [line for line in one.start if line not in self._start]
            if one.value:
                self._results[one.value] = None
            self._counts = self._counts or any(self._weight in line.split() for line in one.batch)
        for name, variable in self._values.items():
            if name != "loss":
                self._results[f'"{name}": {variable}{per}'] = None
        self._results.update({f'"{name}": {text}': None for name, text in self._recorded.items()})

    # --- metrics

    def _metric(self, name: str, patch: PatchBase) -> MetricText:
        metric = getattr(patch, "metric", None)
        out = self._sample.out if self.is_default else None
        y = self._sample.batch_y
        counts = isinstance(patch, (CountsPatch, ConfusionPatch)) and is_class_metric(metric)
        if counts and plain_metric(metric)[0].__name__ == "accuracy":
            return self._accuracy(name, out, y)
        make = {
            MeanPatch: self._mean,
            MetricPatch: self._torchmetric,
            TensorPatch: self._kept,
            CountsPatch: self._kept,
            ConfusionPatch: self._kept if counts else self._matrix,
        }.get(type(patch))
        if make is None:
            kind = type(patch)
            what = f"the metric {name} ({kind.__name__}{place_of(kind)})"
            return MetricText([], [self.parts.gaps.not_written(what)], "")
        known = self.parts.metric(name, metric, out, y)
        if is_class_metric(metric) and IDS in "".join(self.parts.helpers.get(known, [])):
            self.parts.helpers = {IDS: ids_function(), **self.parts.helpers}
        return make(name, known, metric, out, y)

    def _accuracy(self, name: str, out: Any, y: Any) -> MetricText:
        right, seen = self.names.free("right"), self.names.free("seen")
        preds = ids_of("{out}", out)
        if not preds:
            self.parts.helpers = {IDS: ids_function(), **self.parts.helpers}
            preds = f"{IDS}({{out}})"
        targets = targets_of("{y}", y, out)
        batch = [f"{right} += ({preds} == {targets}).sum().item()", f"{seen} += len({{y}})"]
        if isinstance(y, Tensor) and y.ndim > 1:
            batch[1] = f"{seen} += {targets}.numel()"
        return MetricText([f"{right} = {seen} = 0"], batch, f'"{name}": {right} / {seen}')

    def _mean(self, name: str, known: str, metric: Any, out: Any, y: Any) -> MetricText:
        variable = self.names.free(f"{identifier(name)}_total")
        self._counts = True
        times = "" if self._is_single else f" * {self._weight}"
        per = "" if self._is_single else f" / {self._count}"
        batch = f"{variable} += float({known}({{out}}.detach(), {{y}})){times}"
        value = f'"{name}": {variable}{per}'
        if isinstance(tried(metric, out, y) if out is not None else None, dict):
            batch = self.parts.gaps.not_written(f"the metric {name}, which gives a dict")
            value = ""
        return MetricText([f"{variable} = 0.0"] if value else [], [batch], value)

    def _torchmetric(self, name: str, known: str, metric: Any, out: Any, y: Any) -> MetricText:
        is_group = type(metric).__name__ == "MetricCollection"
        entry = value_entry(name.partition("#")[0], f"{known}.compute()", {} if is_group else None)
        given = "{out}.detach()" if self.y == "None" else "{out}.detach(), {y}"
        return MetricText([f"{known}.reset()"], [f"{known}.update({given})"], entry)

    def _kept(self, name: str, known: str, metric: Any, out: Any, y: Any) -> MetricText:
        outs, ys = self._outs, self._ys
        has_y = self.y != "None"
        batch = [
            f"{outs}.append({{out}}.detach())"
            if out is None or isinstance(out, Tensor)
            else f"{outs}.append({{out}})"
        ]
        batch += [f"{ys}.append({{y}})"] if has_y else []
        all_y = joined(ys, y) if has_y else "None"
        like = None if out is None else tried(metric, out, y)
        value = value_entry(name.partition("#")[0], f"{known}({joined(outs, out)}, {all_y})", like)
        start = f"{outs}, {ys} = [], []" if has_y else f"{outs} = []"
        return MetricText([start], batch, value)

    def _matrix(self, name: str, known: str, metric: Any, out: Any, y: Any) -> MetricText:
        if not isinstance(out, Tensor):
            what = f"the metric {name} of a confusion matrix"
            return MetricText([], [self.parts.gaps.not_written(what)], "")
        size = out.shape[1] if out.ndim > 1 and out.shape[1] > 1 else 2
        variable = self.names.free("matrix")
        flat = ".flatten()" if isinstance(y, Tensor) and y.ndim > 1 else ""
        preds, targets = ids_of("{out}", out) + flat, targets_of("{y}", y, out) + flat
        cells = f"{targets}.long() * {size} + {preds}"
        count = f"torch.bincount({cells}, minlength={size * size})"
        argument = f"conf_mat={variable}" if takes_matrix_by_name(metric) else variable
        return MetricText(
            [f"{variable} = torch.zeros({size}, {size}, dtype=torch.long)"],
            [f"{variable} += {count}.view({size}, {size})"],
            value_entry(name, f"{known}({argument})", None),
        )
