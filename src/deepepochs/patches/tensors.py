"""A patch that keeps all outputs and targets, for metrics that need the whole epoch at once.

>>> import torch
>>> from deepepochs.patches import TensorPatch
>>> def largest_gap(outputs, targets):
...     return (outputs - targets).abs().max()
>>> one = TensorPatch(largest_gap).load(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 1.0]))
>>> two = TensorPatch(largest_gap).load(torch.tensor([5.0]), torch.tensor([2.0]))
>>> (one + two)()
tensor(3.)
"""

from __future__ import annotations

import copy
import itertools
import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import DataError, MetricError, PatchError
from ..nest.operations import TensorDict, TensorTuple, concat, first_tensor, to_cpu
from ..nest.reuse import any_changed, hold, hold_tensor
from ..nest.samples import are_samples, count_samples, holds_samples
from .base import (
    PatchBase,
    call_metric,
    check_same_metric,
    checked_metric,
    copied,
    for_checkpoint,
)

if TYPE_CHECKING:
    from typing_extensions import Self


# So many chunks on an accelerator are copied to the CPU together.
MOVE_EVERY = 64
LARGE = 2**30
"""Bytes of kept outputs that are warned of."""
_IS_CPU = operator.attrgetter("is_cpu")


class TensorPatch(PatchBase):
    """The outputs and targets of every batch, joined along dimension 0 when the value is read.

    Exact for every metric. Its memory grows with the epoch: it holds all outputs and targets. They
    are detached and kept on the CPU; those on an accelerator are copied there many batches at a
    time. Tuples and dicts are joined item by item, and 0-d outputs are stacked. Lists with one
    entry for each sample, such as those of detection, are joined end to end. A dict of another class than ``dict``, as those of
    Hugging Face, becomes a `TensorDict`, whose entries are attributes too. What cannot be joined
    (graphs, differing shapes) reaches the metric as a list with one item for each batch.

    CPU tensors are kept without a copy, which would cost more than all else here. But a tensor
    that was written to since it was made is copied: it may be a buffer that a model uses again.

    Attributes:
        keep_on_device: set it to True, on the class or a subclass, to leave tensors on their
            accelerator.

    Args:
        metric: a function ``(outputs, targets)`` giving a number, a tensor, or a dict of them.
            Several outputs or targets reach it as a `TensorTuple`, missing ones as None.
        batch_size: not used; all patches of metrics are made with the same arguments.
        name: see `PatchBase`.

    Raises:
        ConfigTypeError: the metric cannot be called.
    """

    keep_on_device = False

    def __init__(
        self, metric: Callable[..., Any], batch_size: Any = None, name: str | None = None
    ) -> None:
        super().__init__(name)
        self.metric = checked_metric(metric, type(self).__name__)
        self.batch_size = batch_size
        self.outputs = Chunks()
        self.targets = Chunks()

    def load(self, outputs: Any, targets: Any = None) -> Self:
        """Keep the outputs and targets of one mini-batch."""
        is_plain = isinstance(outputs, Tensor) and isinstance(targets, Tensor)
        num_samples = None if is_plain else count_samples((outputs,), targets)
        self.outputs = Chunks([as_chunk(outputs, num_samples)])
        self.targets = Chunks([as_chunk(targets, num_samples)])
        return self

    def keep(self, outputs: Any, targets: Any = None) -> None:
        """Append one more mini-batch in place; both arguments come from ``as_chunk``."""
        if any_changed((outputs, targets)):
            raise changed_in_place()
        self.outputs.append(outputs, self.keep_on_device)
        self.targets.append(targets, self.keep_on_device)

    def add(self, other: Any) -> Self:
        """Append the chunks of another patch of the same metric."""
        check_same_metric(self, other)
        if other.on_copies:
            self.use_copies()
        self.outputs.extend(other.outputs.items, self.keep_on_device)
        self.targets.extend(other.targets.items, self.keep_on_device)
        return self

    def forward(self) -> Any:
        """Give the metric of all outputs and targets.

        Raises:
            PatchError: nothing was loaded.
            MetricError: outputs or targets were changed in place after they were loaded, or the
                metric has changed them.
        """
        return call_metric(self.metric, *self.arguments(), on_copies=self.on_copies)

    def _amounts(self) -> list[str]:
        chunks = self.outputs.items
        if not chunks or not all(isinstance(chunk, Tensor) and chunk.ndim for chunk in chunks):
            return []
        return [f"{sum(map(len, chunks))} outputs"]

    def arguments(self) -> tuple[Any, Any]:
        """Give all outputs and all targets, with which the metric is called."""
        if not self.outputs.items:
            raise PatchError(f"{self} holds no data: call load(outputs, targets).")
        keep = self.keep_on_device
        return self.outputs.joined(keep), self.targets.joined(keep)

    def state_dict(self) -> dict[str, Any]:
        """Give the joined outputs and targets.

        Raises:
            PatchError: outputs or targets are objects (graphs), which a checkpoint cannot hold.
        """
        state = {}
        for key, chunks in (("outputs", self.outputs), ("targets", self.targets)):
            chunks.joined(self.keep_on_device)
            state[key] = for_checkpoint(chunks.items, f"{self}.{key}")
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load what `state_dict` gave."""
        self.outputs = Chunks(copied(state["outputs"]))
        self.targets = Chunks(copied(state["targets"]))


class Chunks:
    """The outputs (or targets) of consecutive batches; those that are joined are one item."""

    def __init__(self, items: list[Any] | None = None) -> None:
        self.items = [] if items is None else items
        self.num_moved = 0  # items before this index are on the CPU
        self.num_bytes = 0  # of these
        self.num_joined = 0  # how often items were joined, which changes their indexes

    def __deepcopy__(self, memo: Any) -> Chunks:
        """Give an independent list of the same chunks, which are never changed."""
        new = copy.copy(self)
        new.items = list(self.items)
        return new

    def extend(self, items: list[Any], keep_on_device: bool) -> None:
        """Append chunks."""
        self.items.extend(items)
        if not keep_on_device and len(self.items) - self.num_moved >= MOVE_EVERY:
            self._move()

    def append(self, item: Any, keep_on_device: bool) -> None:
        """Append one chunk; a list of one would cost 0.1 µs a mini-batch."""
        self.items.append(item)
        if not keep_on_device and len(self.items) - self.num_moved >= MOVE_EVERY:
            self._move()

    def _move(self) -> None:
        """Copy new chunks to the CPU; neighbours on an accelerator are joined there first."""
        late = self.items[self.num_moved :]
        self.num_bytes += sum(map(_bytes_of, late))
        if not _any_on_accelerator(late):
            self.num_moved = len(self.items)
            return
        self.items = self.items[: self.num_moved]
        for is_away, group in itertools.groupby(late, _is_on_accelerator):
            chunks = list(group)
            if is_away and len(chunks) > 1:
                joined = join(chunks)
                chunks = [joined] if is_whole(joined) else chunks
            self.items.extend(map(to_cpu, chunks) if is_away else chunks)
        self.num_moved = len(self.items)
        self.num_joined += 1

    def joined(self, keep_on_device: bool) -> Any:
        """Give all chunks as one value, on the CPU unless `keep_on_device` is true.

        Raises:
            MetricError: a chunk was changed in place.
        """
        if any_changed(self.items):
            raise changed_in_place()
        if not keep_on_device:
            self._move()
        value = join(self.items)
        if is_whole(value):
            self.items = [value]  # keeping the parts would double the memory
            self.num_joined += 1
            self.num_moved = min(self.num_moved, 1)
        return value


def changed_in_place() -> MetricError:
    """The error for outputs or targets that are not what was kept."""
    return MetricError(
        "Outputs or targets were changed in place after they were recorded for the metrics, whose "
        "values would be wrong. Change a copy, as in model_out.clone(), or record after the change."
    )


def join(chunks: list[Any]) -> Any:
    """Join chunks along dimension 0, item by item; give a list of them if that fails."""
    first = chunks[0]
    if len(chunks) == 1 and is_whole(first):
        return first
    if all(chunk is None for chunk in chunks):
        return None
    if all(type(chunk) in (list, TensorTuple) for chunk in chunks):
        if are_samples(chunks):
            return [sample for chunk in chunks for sample in chunk]
        return TensorTuple(join(list(items)) for items in zip(*chunks, strict=True))
    if all(isinstance(chunk, dict) for chunk in chunks):
        if all(chunk.keys() == first.keys() for chunk in chunks):
            entries = {key: join([chunk[key] for chunk in chunks]) for key in first}
            return TensorDict(entries) if type(first) is TensorDict else entries
    elif not isinstance(first, tuple):
        try:
            return concat(chunks)
        except DataError:
            pass
    return list(chunks)


def _any_on_accelerator(chunks: list[Any]) -> bool:
    if set(map(type, chunks)) == {Tensor}:
        return not all(map(_IS_CPU, chunks))
    return any(map(_is_on_accelerator, chunks))


def _bytes_of(chunk: Any) -> int:
    if isinstance(chunk, Tensor):
        return chunk.nbytes
    inner = chunk.values() if isinstance(chunk, dict) else chunk
    return sum(map(_bytes_of, inner)) if isinstance(chunk, (dict, list, tuple)) else 0


def _is_on_accelerator(chunk: Any) -> bool:
    tensor = first_tensor(chunk)
    return tensor is not None and not tensor.is_cpu


def is_whole(value: Any) -> bool:
    """Say whether `value` holds tensors alone, so that more can be joined to it."""
    if isinstance(value, dict):
        return all(map(is_whole, value.values()))
    if isinstance(value, TensorTuple):
        return all(map(is_whole, value))
    return value is None or isinstance(value, Tensor)


def as_chunk(value: Any, num_samples: int | None = None) -> Any:
    """Detach `value`, and give single numbers a dimension 0 along which they can be joined.

    Of a mini-batch with ``num_samples``. A list with an entry for each sample stays a list.
    """
    if isinstance(value, Tensor):
        value = hold_tensor(value)
        return value if value.ndim else value.reshape(1)
    if isinstance(value, dict):
        entries = {key: as_chunk(item, num_samples) for key, item in value.items()}
        return entries if type(value) is dict else TensorDict(entries)
    if type(value) in (tuple, list, TensorTuple):
        if holds_samples(value, num_samples):
            return [hold(item) for item in value]
        if first_tensor(value) is not None:
            return TensorTuple(as_chunk(item, num_samples) for item in value)
    if isinstance(value, (bool, int, float)):
        return torch.tensor([value])
    # A graph detaches its tensors in place, so it is copied first.
    is_graph = callable(getattr(value, "detach", None))
    return copy.copy(value).detach() if is_graph else value


def loaded(patch: PatchBase, given: tuple[Any, Any], num_samples: int | None) -> PatchBase:
    """Load a patch with outputs and targets; ``num_samples`` tells lists of samples."""
    if type(patch) is not TensorPatch:
        return patch.load(*given)
    patch.keep(as_chunk(given[0], num_samples), as_chunk(given[1], num_samples))
    return patch
