"""How the mini-batches of a pass are taken apart, and the loop over them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from ..arguments import default_loss
from ..data.cursor import counts_exactly
from ..stages import Stage
from ..task import EpochTask
from .gaps import MARK, Names
from .look import Sample
from .parts import Parts


class BatchText:
    """The names in a mini-batch.

    Attributes:
        sample: a mini-batch, and what the model gives for it.
        header: the target of the loop.
        inputs: the arguments of the model.
        y: the expression of the target; ``'None'``: there is none.
        splits: lines that take a mini-batch apart.
        weight: the expression of what it weighs.
        sizes: other expressions of the same.
    """

    def __init__(
        self,
        parts: Parts,
        task: EpochTask,
        sample: Sample,
        names: Names,
        given: tuple[str, str] | None,
    ) -> None:
        """``given`` are the names of inputs and target in a step of the user's."""
        self.sample = sample
        self.splits: list[str] = []
        self.sizes: set[str] = set()
        has_loss_fn = parts.trainer.loss_fn is not default_loss
        x, self.y = given or ("batch_x", "batch_y")
        self.inputs = f"*{x}"
        if isinstance(sample.batch, Mapping):
            self._split_dict(x, task.targets or parts.trainer.targets, has_loss_fn=has_loss_fn)
        elif not isinstance(sample.batch, (tuple, list)):
            self.header = self.inputs = x
            self.y = "None"
            self.splits = [f"{x} = ({x},)"] if given else []
        elif not has_loss_fn:
            self.header, self.y = x, "None"
        else:
            if given is None and len(sample.batch) == 2:
                x, self.y = names.free("x", "batch_x"), names.free("y", "batch_y")
                self.inputs = x
            self.header = f"{self.inputs}, {self.y}"
        self.weight = self._weight(parts, task, x)

    def _split_dict(self, x: str, entry: str | None, *, has_loss_fn: bool) -> None:
        self.header, self.inputs = x, f"**{x}"
        if entry is None:
            self.y = "None"
        elif has_loss_fn:
            self.splits = [f'{self.y} = {x}.pop("{entry}")']
        else:
            self.y = f'{x}["{entry}"]'

    def _weight(self, parts: Parts, task: EpochTask, x: str) -> str:
        """The expression of what a mini-batch weighs."""
        sample, size = self.sample, task.batch_size
        if isinstance(size, (int, float)):
            return repr(size)
        counts = dict(self._lengths(x))
        if callable(size):
            known = parts.prelude.name_of(size) or parts.prelude.batch_size
            known = known or parts.metric("batch_size", size, None, None)
            is_alone = isinstance(sample.batch_x, tuple) and len(sample.batch_x) == 1
            first = f"{x}[0]" if is_alone and self.inputs == f"*{x}" else x
            return f"float({known}({first}, {self.y}))"
        found = [text for text, number in counts.items() if number == sample.size]
        self.sizes = {text for one in found for text in _same_sizes(one)}
        if found or not counts:
            return found[0] if found else f"len({x})"
        return f"{MARK}{parts.gaps.fill_in_here('the number of samples of a mini-batch')}"

    def _lengths(self, x: str) -> Iterator[tuple[str, int]]:
        """What may count the samples of a mini-batch: expressions with their values."""
        inputs, target = self.sample.batch_x, self.sample.batch_y
        if isinstance(target, Tensor) and target.ndim:
            yield f"len({self.y})", len(target)
        if isinstance(inputs, Mapping):
            named = {f'{x}["{key}"]': value for key, value in inputs.items()}
        elif isinstance(inputs, tuple) and self.inputs == f"*{x}":
            named = {f"{x}[{index}]": value for index, value in enumerate(inputs)}
        else:
            named = {x: inputs[0] if isinstance(inputs, tuple) else inputs}
        for text, value in named.items():
            if isinstance(value, list) or (isinstance(value, Tensor) and value.ndim):
                yield f"len({text})", len(value)
            elif hasattr(value, "num_graphs"):
                yield f"{text}.num_graphs", value.num_graphs

    def moves(self) -> list[str]:
        """Lines that move a mini-batch to the device."""
        batch, lines = self.sample.batch, []
        for part in self.header.split(", "):
            name = part.strip("*")
            if isinstance(batch, Mapping):
                moved = f"{{key: one.to(device) for key, one in {name}.items()}}"
            elif part != name or (isinstance(batch, (tuple, list)) and self.y == "None"):
                moved = f"[one.to(device) for one in {name}]"
            else:
                moved = f"{name}.to(device)"
            lines.append(f"{name} = {moved}")
        return lines


def _same_sizes(text: str) -> list[str]:
    """``len(y)`` and what else gives it for a tensor."""
    inner = text.removeprefix("len(").removesuffix(")")
    return [text, f"{inner}.shape[0]", f"{inner}.size(0)"] if inner != text else [text]


class Walk:
    """The loop over the mini-batches of a pass, and the windows in which gradients accumulate.

    Attributes:
        size: mini-batches for one optimizer step.
        index: the name of the index of a mini-batch.
        number: the expression of the number of mini-batches.
        uses_index: whether the index is read.
        left_over: the lines after the loop that make the step of the mini-batches left over, where
            the loader has no length.
    """

    def __init__(
        self, parts: Parts, stage: Stage, task: EpochTask, loader: str, names: Names
    ) -> None:
        limits: Any = parts.trainer.limits
        self.size = parts.trainer.grad_accumulate if stage is Stage.TRAIN else 1
        self.uses_index = self.size > 1
        self.index = names.free("batch_idx")
        self._first, self._window = names.free("first"), names.free("window")
        number = limits.num_batches(stage, task.length)
        is_limited = stage in limits.batches
        self._batches = f"islice({loader}, {number})" if is_limited else loader
        self.number = str(number) if is_limited else f"len({loader})"
        self._tells_end = counts_exactly(task.dataloader)
        self.left_over: list[str] = []

    def need_index(self) -> None:
        """Have the index of each mini-batch, which is read."""
        self.uses_index = True

    def header(self, target: str) -> str:
        """The line that begins the loop."""
        if not self.uses_index:
            return f"for {target} in {self._batches}:"
        target = f"({target})" if "," in target else target
        return f"for {self.index}, {target} in enumerate({self._batches}):"

    def open(self, weight: str) -> list[str]:
        """The lines that open a window."""
        if self.size == 1:
            return []
        return [
            f"if {self.index} % {self.size} == 0:",
            f"    {self._first}, {self._window} = {weight}, 0",
            f"{self._window} += {weight}",
        ]

    def factor(self, weight: str) -> str:
        """What the loss of a mini-batch is multiplied with."""
        return f"{weight} / {self._first}" if self.size > 1 else ""

    def closing(self, lines: list[str], weights: str) -> list[str]:
        """Make an optimizer step where a window closes; ``weights`` are those it moves."""
        if self.size == 1:
            return lines
        number = f"{self.index} + 1"
        scale = [
            f"for weights in {weights}:",
            "    if weights.grad is not None:",
            f"        weights.grad.mul_({self._first} / {self._window})",
        ]
        inner = [f"    {line}" for line in [*scale, *lines]]
        closes = f"if ({number}) % {self.size} == 0"
        if self._tells_end:
            return [f"{closes} or {number} == {self.number}:", *inner]
        self.left_over += [f"if ({number}) % {self.size} != 0:", *inner]
        return [f"{closes}:", *inner]
