"""Lists the layers of a model with their outputs, parameters and memory.

::

    print(trainer.summary())            # layers and parameters
    print(trainer.summary(train_dl))    # with the shapes and sizes of outputs
"""

from __future__ import annotations

import copy
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from .. import rng
from ..arguments import check_count
from ..data.routes import first_batch
from ..errors import ConfigError, ConfigTypeError, DataError
from ..loop import split_inputs
from ..nest.reuse import leaves
from ..nest.samples import count_samples
from ..optim.fits import bare
from ..report.text import size as size_text
from ..show.screens import cut, terminal_columns, text_width
from ..show.tables import html_table


class Layer(NamedTuple):
    """A row of a summary.

    The numbers of all rows add up to those of the model: a module whose children have rows of
    their own counts only what it holds itself, and what several modules share counts once.

    Attributes:
        name: as in ``model.named_modules()``; ``''`` is the model itself.
        kind: the class.
        depth: 0 is the model.
        output: the shape of the last output, such as ``'[32, 10]'``; ``''`` without data, and of
            a module that was not called.
        calls: how often it was called for the mini-batch.
        parameters: the number of weights.
        trainable: those of them that are trained.
        same_as: the row that has the same module, if it has come before.
    """

    name: str
    kind: str
    depth: int
    output: str
    calls: int
    parameters: int
    trainable: int
    same_as: str | None


class Memory(NamedTuple):
    """Bytes on the device, without what the operations need while they run.

    Attributes:
        weights: of parameters and buffers.
        gradients: of the parameters that are trained.
        optimizer: its state, as it is or as it will be after the first step; ``None`` if that is
            not known.
        outputs: the outputs of all layers for one mini-batch, which the backward pass needs;
            ``None`` without data.
    """

    weights: int
    gradients: int
    optimizer: int | None
    outputs: int | None


class ModelSummary:
    """What ``trainer.summary()`` gives; it prints as a table, and a notebook shows it as one.

    Attributes:
        model: the class of the model.
        layers: the rows, each a ``Layer``.
        parameters: the number of weights of the model.
        trainable: those that are trained.
        memory: a ``Memory``, in bytes.
        num_samples: the samples of the mini-batch that was given.
        has_lazy: whether there are lazy layers, whose weights are not there yet.
    """

    def __init__(
        self,
        model: str,
        layers: list[Layer],
        memory: Memory,
        num_samples: int | None = None,
        *,
        has_lazy: bool = False,
    ) -> None:
        self.has_lazy = has_lazy
        self.model = model
        self.layers = layers
        self.memory = memory
        self.num_samples = num_samples
        self.parameters = sum(layer.parameters for layer in layers)
        self.trainable = sum(layer.trainable for layer in layers)

    def __str__(self) -> str:
        rows = [self._head(), *map(self._cells, self.layers)]
        columns = terminal_columns()
        totals = (f"{name}: {text}" for name, text in self._totals())
        wrapped = (textwrap.fill(text, columns, subsequent_indent="  ") for text in totals)
        return "\n".join([*fitted(rows, columns), "", *wrapped])

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        rows = map(self._cells, self.layers)
        indented = ([row[0].replace("  ", "\u2003"), *row[1:]] for row in rows)
        return html_table(self._head(), indented) + html_table([], self._totals())

    def _head(self) -> list[str]:
        frozen = ["frozen"] if self.trainable < self.parameters else []
        return ["layer", "kind", *(["output"] if self._has_shapes else []), "parameters", *frozen]

    @property
    def _has_shapes(self) -> bool:
        return self.memory.outputs is not None

    def _cells(self, layer: Layer) -> list[str]:
        name = layer.name.rpartition(".")[2] or layer.kind
        cells = ["  " * layer.depth + name, layer.kind]
        if self._has_shapes:
            times = f" x{layer.calls}" if layer.calls > 1 else ""
            cells.append(f"{layer.output}{times}" if layer.calls else "not called")
            if layer.kind in NEVER_CALLED:
                cells[-1] = ""
        if layer.same_as is not None:
            cells.append(f"as {layer.same_as}")
        else:
            cells.append(f"{layer.parameters:,}" if layer.parameters else "")
        if self.trainable < self.parameters:
            frozen = layer.parameters - layer.trainable
            cells.append(f"{frozen:,}" if frozen else "")
        return cells

    def _totals(self) -> list[tuple[str, str]]:
        frozen = self.parameters - self.trainable
        trained = "all of them trained" if not frozen else f"{self.trainable:,} of them trained"
        lazy = "; those of lazy layers are not there yet" if self.has_lazy else ""
        totals = [("parameters", f"{self.parameters:,}, {trained}{lazy}")]
        state = self.memory.optimizer
        parts = [
            f"{size_text(self.memory.weights)} of weights and buffers",
            f"{size_text(self.memory.gradients)} of gradients",
            "an unknown amount for the optimizer" if state is None else f"{size_text(state)} for the optimizer",
        ]  # fmt: skip
        totals.append(("memory", ", ".join(parts)))
        if self.memory.outputs is not None:
            of = "" if self.num_samples is None else f" of {self.num_samples:,} samples"
            of = f"about {size_text(self.memory.outputs)} for a mini-batch{of}"
            totals.append(("outputs of the layers", of))
        return totals


NEVER_CALLED = ("ModuleList", "ModuleDict", "ParameterList", "ParameterDict")


def fitted(rows: Sequence[Sequence[str]], columns: int) -> Iterator[str]:
    """Yield a table as lines: names and kinds on the left, numbers on the right.

    Names that are too long for the terminal are cut.

    >>> list(fitted([["layer", "kind", "parameters"], ["net", "Linear", "15"]], 80))
    ['layer  kind    parameters', 'net    Linear          15']
    """
    widths = [max(map(text_width, column)) for column in zip(*rows, strict=True)]
    over = sum(widths) + 2 * (len(widths) - 1) - columns
    for index in range(min(3, len(widths) - 1)):  # the name first, then the kind
        if over > 0:
            taken = min(over, max(widths[index] - 8, 0))
            widths[index] -= taken
            over -= taken
    num_left = len(widths) - (2 if rows[0][-1] == "frozen" else 1)
    for row in rows:
        cells = []
        for index, (text, width) in enumerate(zip(row, widths, strict=True)):
            shown = text if text_width(text) <= width else f"{cut(text, width - 1)}…"
            blanks = " " * (width - text_width(shown))
            cells.append(shown + blanks if index < num_left else blanks + shown)
        yield "  ".join(cells).rstrip()


# --- from a model to its rows


class Calls:
    """Notes the calls of modules.

    Attributes:
        outputs: the shapes of the last output of each module, by its ``id``.
        counts: how often each was called.
        bytes: of all outputs together.
    """

    def __init__(self) -> None:
        self.outputs: dict[int, str] = {}
        self.counts: Counter[int] = Counter()
        self.bytes = 0

    def note(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        """Note a call; a forward hook."""
        self.outputs[id(module)] = shape_text(output)
        self.counts[id(module)] += 1
        if any(id(child) in self.outputs for child in module.children()):
            return  # most often it gives what one of them gave
        # What is changed in place, or only gets another shape, takes no more memory.
        given = {place_of(tensor) for tensor in leaves([args, kwargs])}
        new = {place_of(t): bytes_of(t) for t in leaves(output) if place_of(t) not in given}
        self.bytes += sum(new.values())


def summarize(trainer: Any, data: Any, depth: int | None) -> ModelSummary:
    """Make the summary of a trainer's model, which stays as it is.

    Raises:
        ConfigError: ``data`` or ``depth`` cannot be right.
    """
    if depth is not None:
        check_count("depth", depth, 0)
    if isinstance(data, (tuple, list)) and data and all(isinstance(size, int) for size in data):
        sizes = ", ".join(map(str, data))
        raise ConfigTypeError(
            f"summary({data!r}): give a loader, a mini-batch or a tensor that is the input, such as "
            f"torch.randn({sizes})."
        )
    model = trainer.runtime.unwrap(trainer.model)
    calls = num_samples = None
    if data is not None:
        model, calls, num_samples = look_at_outputs(trainer, model, data)
    layers = list(rows_of(model, depth, calls))
    weights = [weight for weight in model.parameters() if not is_lazy(weight)]
    buffers = [buffer for buffer in model.buffers() if not is_lazy(buffer)]
    memory = Memory(
        weights=sum(map(bytes_of, [*weights, *buffers])),
        gradients=sum(bytes_of(weight) for weight in weights if weight.requires_grad),
        optimizer=bytes_of_optimizers(trainer),
        outputs=None if calls is None else calls.bytes,
    )
    has_lazy = any(map(is_lazy, model.parameters()))
    return ModelSummary(type(model).__name__, layers, memory, num_samples, has_lazy=has_lazy)


def bytes_of(tensor: Tensor) -> int:
    """Return how much memory the values of a tensor take."""
    return tensor.numel() * tensor.element_size()


def rows_of(model: nn.Module, depth: int | None, calls: Calls | None) -> Iterator[Layer]:
    """Yield a row for each module down to a depth, each weight counted in one of them."""
    counted: set[int] = set()
    shown: dict[int, str] = {}

    def counts(module: nn.Module, *, recurse: bool) -> tuple[int, int]:
        total = trainable = 0
        for weight in module.parameters(recurse=recurse):
            if id(weight) not in counted and not is_lazy(weight):
                counted.add(id(weight))
                total += weight.numel()
                trainable += weight.numel() if weight.requires_grad else 0
        return total, trainable

    def walk(module: nn.Module, name: str, level: int) -> Iterator[Layer]:
        kind, same_as = type(module).__name__, shown.get(id(module))
        output = "" if calls is None else calls.outputs.get(id(module), "")
        count = 0 if calls is None else calls.counts[id(module)]
        if same_as is not None:
            yield Layer(name, kind, level, output, count, 0, 0, same_as)
            return
        shown[id(module)] = name
        # Not `named_children`, which leaves out those that come twice.
        children = [(key, child) for key, child in module._modules.items() if child is not None]
        children = children if depth is None or level < depth else []
        numbers = counts(module, recurse=not children)
        yield Layer(name, kind, level, output, count, *numbers, None)
        for child_name, child in children:
            yield from walk(child, f"{name}.{child_name}".lstrip("."), level + 1)

    yield from walk(model, "", 0)


# --- one forward pass of a copy


def look_at_outputs(
    trainer: Any, model: nn.Module, data: Any
) -> tuple[nn.Module, Calls, int | None]:
    """Call a copy of the model on one mini-batch; return it, its calls, the number of samples."""
    if trainer.runtime.is_sharded:
        raise ConfigError(
            "The model is sharded, and cannot be called by one process alone: summary() without "
            "data has the layers and parameters."
        )
    calls = Calls()
    with ExitStack() as undo:
        undo.enter_context(rng.preserved())
        batch = one_batch(data, trainer.init_epoch)
        batch_x, batch_y = split_inputs(trainer, batch)
        num_samples = count_samples(batch_x, batch_y)
        try:
            twin = copy.deepcopy(model)
        except Exception as error:
            raise ConfigError(
                f"The model ({type(model).__name__}) cannot be copied ({error}), so that it cannot "
                "be called without a trace: summary() without data has the layers and parameters."
            ) from error
        twin.eval()
        for module in twin.modules():
            undo.enter_context(module.register_forward_hook(calls.note, with_kwargs=True))
        mha = torch.backends.mha
        undo.callback(mha.set_fastpath_enabled, mha.get_fastpath_enabled())
        mha.set_fastpath_enabled(False)  # it calls none of the layers inside
        mixed = trainer.accelerator and trainer.accelerator.autocast()
        undo.enter_context(mixed or nullcontext())
        undo.enter_context(torch.no_grad())
        try:
            twin(**batch_x) if isinstance(batch_x, Mapping) else twin(*batch_x)
        except Exception as error:
            from ..faults.explain import explained_prediction

            raise explained_prediction(trainer, batch_x, batch_y, 0, error, twin)
    return twin, calls, num_samples


def place_of(tensor: Tensor) -> int:
    """Return where the values of a tensor begin in memory."""
    return tensor.untyped_storage().data_ptr()


def shape_text(value: Any) -> str:
    """Return the shapes of an output, of a tuple or dict those of its entries.

    >>> shape_text((torch.ones(2, 3), None)), shape_text({"loss": torch.ones(())})
    ('([2, 3], None)', '{loss: []}')
    """
    if isinstance(value, Tensor):
        return str(list(value.shape))
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {shape_text(part)}' for key, part in value.items())}}}"
    if isinstance(value, (tuple, list)):
        texts = list(map(shape_text, value))
        texts = [*texts[:3], "..."] if len(texts) > 4 else texts
        return f"({', '.join(texts)})"
    return "None" if value is None else type(value).__name__


def one_batch(data: Any, epoch_idx: int) -> Any:
    """Give the first mini-batch of a loader, or what is one itself; the loader is put back.

    A tensor is an input; a tuple, a dict, or a list of tensors is a mini-batch. All else is walked.
    """
    if isinstance(data, (Tensor, tuple, Mapping)) or hasattr(data, "to"):  # a graph
        return data
    if isinstance(data, list) and data and isinstance(data[0], Tensor):
        return data
    if not isinstance(data, Iterable):
        raise ConfigError(
            f"summary() got {type(data).__name__}: give a loader, a mini-batch or an input, or "
            "nothing."
        )
    if isinstance(data, Iterator) and iter(data) is data:
        raise ConfigError(
            "summary() got an iterator, which can be walked only once: give the DataLoader itself, "
            "or a mini-batch."
        )
    batch = first_batch(data, epoch_idx)
    if batch is None:
        raise DataError("summary() got a loader that gives no mini-batch.")
    return batch


# --- the optimizer's state


def bytes_of_optimizers(trainer: Any) -> int | None:
    """Return what the state of the optimizers takes, now or after the first step."""
    total = 0
    for optimizer in trainer.opt:
        opt = bare(optimizer.opt)
        state = getattr(opt, "state", None)
        found = sum(map(bytes_of, leaves(state))) if state else state_of_step(opt)
        if found is None:
            return None
        total += found
    return total


def state_of_step(opt: Any) -> int | None:
    """Estimate the state that an optimizer of torch makes in its first step.

    A twin of it steps a small weight, and the weights of the model get as much for each value.
    """
    if not type(opt).__module__.startswith("torch.optim."):
        return None
    total = 0.0
    for group in opt.param_groups:
        if any(map(is_lazy, group["params"])):
            return None
        weights = [weight for weight in group["params"] if weight.requires_grad]
        options = {key: value for key, value in group.items() if key not in NO_OPTIONS}
        probe = nn.Parameter(torch.ones(32, 32, device=weights[0].device if weights else "cpu"))
        probe.grad = torch.ones_like(probe)
        try:
            twin = type(opt)([{**copy.deepcopy(options), "params": [probe]}])
            twin.step()
        except Exception:  # it needs a closure, or weights of another form
            return None
        made = sum(t.numel() for t in leaves(twin.state) if t.numel() > 1)
        total += made / probe.numel() * sum(map(bytes_of, weights))
    return int(total)


NO_OPTIONS = ("params", "initial_lr", "param_names")
