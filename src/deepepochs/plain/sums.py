"""The sums of a pass: of losses, of what a step returns and records, and of its metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ..patches.base import PatchBase
from ..patches.confusion import ConfusionPatch, CountsPatch, takes_matrix_by_name
from ..patches.tensors import TensorPatch
from ..patches.torchmetric import MetricPatch
from ..patches.values import MeanPatch
from .batch_text import BatchText
from .gaps import Names, place_of
from .metric_text import (
    IDS,
    MetricText,
    ids_of,
    is_class_metric,
    joined,
    plain_metric,
    targets_of,
    tried,
    value_entry,
)
from .parts import Parts, identifier


class Sums:
    """The sums of a pass.

    Attributes:
        start: the lines before the loop.
        results: the entries of the dict that the pass returns.
        ending: the lines before it.
        total: the name of the sum of the losses.
        count: that of the sum of the weights.
        weight: that of the weight of a mini-batch.
        is_weighed: whether the weight is read.
        is_single: whether there is one mini-batch: its mean is that of the pass, to the bit.
    """

    def __init__(self, names: Names, *, is_single: bool) -> None:
        self.start: list[str] = []
        self.results: list[str] = []
        self.ending: list[str] = []
        self.total, self.count = names.free("total", "loss_total"), names.free("count", "num")
        self.weight = names.free("weight", "size")
        self.is_weighed, self.is_single = False, is_single
        self._divides = False  # something is divided by the sum of the weights
        self._names = names
        self._means: dict[str, str] = {}  # name -> the variable of its sum
        self._others: dict[str, str] = {}  # name -> the variable of its value
        self._counts: dict[str, str] = {}  # the variable of a sum -> that of its weights

    @property
    def has_loss(self) -> bool:
        """Whether the losses are summed."""
        return "loss" in self._means

    @property
    def loss_count(self) -> str:
        """The name of the sum of the weights of the losses."""
        return self._counts.get(self.total, self.count)

    @property
    def times(self) -> str:
        """What a mean of a mini-batch is multiplied with."""
        return "" if self.is_single else f" * {self.weight}"

    def mean(self, variable: str) -> str:
        """The expression of the mean of which a variable has the sum."""
        if own := self._counts.get(variable):
            return f'{variable} / {own} if {own} else float("nan")'
        self._divides = True
        return variable if self.is_single else f"{variable} / {self.count}"

    def need_weight(self) -> None:
        """Have the weight of each mini-batch, which is read."""
        self.is_weighed = True

    def variable(self, name: str, end: str = "total") -> str:
        """A new name for a sum."""
        return self._names.free(f"{identifier(name)}_{end}")

    def add(self, name: str, value: str, *, is_sure: bool) -> list[str]:
        """Add a mean of the mini-batch to the sum of the pass.

        ``is_sure``: each mini-batch does it, and once.
        """
        self.is_weighed = self.is_weighed or not self.is_single
        if is_again := name in self._means:
            variable = self._means[name]
        else:
            variable = self._means[name] = self.total if name == "loss" else self.variable(name)
        if is_again or not is_sure:
            self.count_apart(variable)
        return [f"{variable} += {value}{self.times}"]

    def count_apart(self, variable: str) -> None:
        """Have a sum of the weights of its own: not each mini-batch adds one value."""
        if variable not in self._counts:
            self._counts[variable] = self._names.free(f"{variable.removesuffix('_total')}_count")

    def counted(self, lines: Sequence[str]) -> list[str]:
        """Add to the lines of a step those that sum the weights of such values."""
        found: list[str] = []
        for line in lines:
            found.append(line)
            variable, _, added = line.strip().partition(" += ")
            if added and variable in self._counts:
                indent = line[: len(line) - len(line.lstrip())]
                size = "1" if self.is_single else self.weight
                found.append(f"{indent}{self._counts[variable]} += {size}")
        return found

    def record(self, name: str, value: str, how: str, *, is_sure: bool) -> list[str]:
        """Add what comes of ``self.record`` in a step."""
        number = value if value.endswith(".item()") else f"torch.as_tensor({value}).item()"
        if value.endswith(".detach()") and value.removesuffix(".detach()").isidentifier():
            number = f"{value.removesuffix('.detach()')}.item()"
        if how == "mean":
            return self.add(name, number, is_sure=is_sure)
        if name not in self._others:
            self._others[name] = self.variable(name, how)
            first = {"max": '-float("inf")', "min": 'float("inf")'}.get(how, "0.0")
            self.start.append(f"{self._others[name]} = {first}")
        variable = self._others[name]
        if how == "sum":
            return [f"{variable} += {number}"]
        return [f"{variable} = {number if how == 'last' else f'{how}({variable}, {number})'}"]

    def weigh(self, weight: str, *, always: bool) -> list[str]:
        """The lines that weigh a mini-batch; ``always``: also where no mean needs it."""
        counts = self._divides and not self.is_single
        lines = [f"{self.weight} = {weight}"] if self.is_weighed or always else []
        return [*lines, f"{self.count} += {self.weight}"] if counts else lines

    def end(self, metrics: Sequence[MetricText]) -> None:
        """Note the first values of the sums, and the results: loss, metrics, others."""
        self.ending = list(dict.fromkeys(line for one in metrics for line in one.end))
        entries = {name: f'"{name}": {self.mean(sum_)}' for name, sum_ in self._means.items()}
        start = [f"{self.count} = 0"] if self._divides and not self.is_single else []
        start += [f"{own} = 0" for own in self._counts.values()]
        loss = entries.pop("loss", "")
        means = [f"{self.total} = 0.0"] if loss else []
        means += [f"{self._means[name]} = 0.0" for name in entries]
        of_metrics = dict.fromkeys(line for one in metrics for line in one.start)
        self.start = [*start, *means, *of_metrics, *self.start]
        self.results = [loss] if loss else []
        self.results += [one.value for one in metrics if one.value]
        self.results += entries.values()
        self.results += [f'"{name}": {variable}' for name, variable in self._others.items()]


class PassMetrics:
    """The metrics of a pass."""

    def __init__(
        self, parts: Parts, batch: BatchText, sums: Sums, names: Names, out: Any, planned: Any
    ) -> None:
        """``out`` is like the outputs that the metrics get; ``None``: nobody knows."""
        self._is_used = False
        # What metrics of classes get.
        self._scores, self._scores_text = out, "{out}"
        if isinstance(out, Mapping) and "logits" in out:
            self._scores, self._scores_text = out["logits"], '{out}["logits"]'
        self._logits = self._plain_out = ""
        self._parts, self._batch, self._sums, self._names = parts, batch, sums, names
        self._out, self._y = out, batch.sample.batch_y
        self._outs, self._ys = names.free("outs", "outputs"), names.free("ys", "all_y")
        self._texts = [self._text(name, make(1)) for name, make in planned]

    @property
    def used(self) -> list[MetricText]:
        """Those that the step records."""
        if not self._is_used:
            return []
        return [
            one._replace(value=f"{one.value}{self._sums.mean(one.mean)}") if one.mean else one
            for one in self._texts
        ]

    def lines(self, out: str, y: str, *, is_sure: bool) -> list[str]:
        """The lines for a mini-batch; ``is_sure``: each comes to them, and once."""
        if self._is_used or not is_sure:
            for variable in (one.mean for one in self._texts if one.mean):
                self._sums.count_apart(variable)
        self._is_used = True
        found = [line.format(out=out, y=y) for one in self._texts for line in one.batch]
        return list(dict.fromkeys(found))

    def _detached(self) -> tuple[list[str], str]:
        """The outputs without their graph: a line that makes them, if one is needed, and a text."""
        out = self._out
        if out is None or isinstance(out, Tensor):
            return [], "{out}.detach()"
        parts = out.values() if isinstance(out, Mapping) else out
        if not all(isinstance(part, Tensor) for part in parts):
            return [], "{out}"
        self._plain_out = self._plain_out or self._names.free("detached")
        text = "tuple(one.detach() for one in {out})"
        if isinstance(out, Mapping):
            text = "{{key: one.detach() for key, one in {out}.items()}}"
        return [f"{self._plain_out} = {text}"], self._plain_out

    def _text(self, name: str, patch: PatchBase) -> MetricText:
        metric = getattr(patch, "metric", None)
        counts = isinstance(patch, (CountsPatch, ConfusionPatch)) and is_class_metric(metric)
        if counts and plain_metric(metric)[0].__name__ == "accuracy":
            return self._accuracy(name)
        make = {
            MeanPatch: self._mean,
            MetricPatch: self._torchmetric,
            TensorPatch: self._kept,
            CountsPatch: self._kept,
            ConfusionPatch: self._kept if counts else self._matrix,
        }.get(type(patch))
        if make is None:
            kind = type(patch)
            return self._gap(f"the metric {name} ({kind.__name__}{place_of(kind)})")
        known = self._parts.metric(name, metric, self._scores, self._y)
        if IDS in "".join(self._parts.helpers.get(known, [])):
            self._parts.add_class_ids()
        return make(name, known, metric)

    def _gap(self, what: str) -> MetricText:
        return MetricText([], [self._parts.gaps.not_written(what)], "")

    def _accuracy(self, name: str) -> MetricText:
        right, seen = self._names.free("right"), self._names.free("seen")
        preds = ids_of(self._scores_text, self._scores)
        if not preds:
            self._parts.add_class_ids()
            preds = f"{IDS}({self._scores_text})"
        targets = targets_of("{y}", self._y, self._scores)
        is_flat = not isinstance(self._y, Tensor) or self._y.ndim == 1
        size = "len({y})" if is_flat else f"{targets}.numel()"
        batch = [f"{right} += ({preds} == {targets}).sum().item()", f"{seen} += {size}"]
        return MetricText([f"{right} = {seen} = 0"], batch, f'"{name}": {right} / {seen}')

    def _mean(self, name: str, known: str, metric: Any) -> MetricText:
        if isinstance(self._tried(metric), dict):
            return self._gap(f"the metric {name}, which gives a dict")
        sums = self._sums
        variable = sums.variable(name)
        if not sums.is_single:
            sums.need_weight()
        lines, text = self._detached()
        if is_class_metric(metric):
            lines, text = [], f"{self._scores_text}.detach()"
        call = f"{known}({text}, {{y}})"
        number = f"torch.as_tensor({call}).item()" if text == "{out}" else f"float({call})"
        lines = [*lines, f"{variable} += {number}{sums.times}"]
        return MetricText([f"{variable} = 0.0"], lines, f'"{name}": ', mean=variable)

    def _torchmetric(self, name: str, known: str, metric: Any) -> MetricText:
        is_group = type(metric).__name__ == "MetricCollection"
        entry = value_entry(name.partition("#")[0], f"{known}.compute()", {} if is_group else None)
        lines, text = self._detached()
        given = text if self._batch.y == "None" else f"{text}, {{y}}"
        return MetricText([f"{known}.reset()"], [*lines, f"{known}.update({given})"], entry)

    def _kept(self, name: str, known: str, metric: Any) -> MetricText:
        outs, ys, has_y = self._outs, self._ys, self._batch.y != "None"
        out, (lines, text) = self._out, self._detached()
        if is_class_metric(metric) and self._scores is not self._out:
            self._logits = self._logits or self._names.free("logits")
            outs, out = self._logits, self._scores
            lines, text = [], f"{self._scores_text}.detach()"
        batch = [*lines, f"{outs}.append({text})", *([f"{ys}.append({{y}})"] if has_y else [])]
        given, end = [], []
        for kept, like in ((outs, out), (ys, self._y)):
            all_of = joined(kept, like) if has_y or kept != ys else "None"
            is_long = isinstance(like, (tuple, Mapping))
            end += [f"{kept} = {all_of}"] if is_long else []
            given.append(kept if is_long else all_of)
        call = f"{known}({', '.join(given)})"
        value = value_entry(name.partition("#")[0], call, self._tried(metric))
        start = [f"{outs} = []", *([f"{ys} = []"] if has_y else [])]
        return MetricText(start, batch, value, end)

    def _matrix(self, name: str, known: str, metric: Any) -> MetricText:
        out, y = self._out, self._y
        if not isinstance(out, Tensor):
            return self._gap(f"the metric {name} of a confusion matrix")
        size = out.shape[1] if out.ndim > 1 and out.shape[1] > 1 else 2
        variable = self._names.free("matrix")
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

    def _tried(self, metric: Any) -> Any:
        return None if self._out is None else tried(metric, self._out, self._y)
