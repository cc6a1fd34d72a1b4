"""A patch that keeps outputs and targets, for metrics that must see the whole epoch at once.

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

from ..errors import DataError, PatchError
from ..nest.containers import TensorTuple, first_tensor
from ..nest.operations import concat, to_cpu
from .base import PatchBase, check_same_metric, copied, describe_patch, for_checkpoint
from .metric import Copyable, call_metric, checked_metric

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Chunks", "TensorPatch", "as_chunk"]

# Chunks of an accelerator are copied to the CPU in one go when there are so many.
MOVE_EVERY = 64
_IS_CPU = operator.attrgetter("is_cpu")


class TensorPatch(PatchBase):
    """The outputs and targets of every batch, joined along dimension 0 when the value is read.

    Exact for any metric, and the only built-in patch whose memory grows with the epoch: that of
    all outputs and targets. Chunks are detached and kept on the CPU, where those of an
    accelerator are copied in bulk. Tuples and dicts are joined item by item, 0-d outputs are
    stacked, and what cannot be joined (graphs, differing shapes) reaches the metric as a list
    with an item for each batch. Chunks are kept, not copied (a copy would cost more than all else
    here): a loader that fills the same tensors anew for each batch must yield clones of them, or
    the metric takes `MeanPatch`, which keeps none.

    Attributes:
        keep_on_device: set it to True, on the class or a subclass, to leave the chunks of an
            accelerator there.

    Args:
        metric: a function ``(outputs, targets)`` giving a number, a tensor, or a dict of them;
            several outputs or targets reach it as a `TensorTuple`, missing ones as None.
        batch_size: not used; here so that all patches of metrics are made alike.
        name: see `PatchBase`.

    Raises:
        ConfigTypeError: a metric that cannot be called.
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
        self.outputs = Chunks([as_chunk(outputs)])
        self.targets = Chunks([as_chunk(targets)])
        return self

    def keep(self, outputs: Any, targets: Any = None) -> None:
        """Append one more mini-batch, in place.

        Args:
            outputs: what ``as_chunk`` made of them.
            targets: likewise.
        """
        self.outputs.append(outputs, self.keep_on_device)
        self.targets.append(targets, self.keep_on_device)

    def add(self, other: Any) -> Self:
        """Append the chunks of another patch of the same metric."""
        check_same_metric(self, other)
        self.outputs.extend(other.outputs, self.keep_on_device)
        self.targets.extend(other.targets, self.keep_on_device)
        return self

    def forward(self) -> Any:
        """Give the metric of everything joined.

        Raises:
            PatchError: nothing was loaded.
        """
        if not self.outputs.items:
            raise PatchError(f"{describe_patch(self)} holds no data: call load(outputs, targets).")
        keep = self.keep_on_device
        return call_metric(self.metric, self.outputs.joined(keep), self.targets.joined(keep))

    def state_dict(self) -> dict[str, Any]:
        """Give the joined outputs and targets.

        Raises:
            PatchError: the outputs are objects (graphs), which a checkpoint cannot hold.
        """
        where, state = f"{type(self).__name__}({describe_patch(self)})", {}
        for key, chunks in (("outputs", self.outputs), ("targets", self.targets)):
            chunks.joined(self.keep_on_device)
            state[key] = for_checkpoint(chunks.items, f"{where}.{key}")
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.outputs = Chunks(copied(state["outputs"]))
        self.targets = Chunks(copied(state["targets"]))


class Chunks(Copyable):
    """The outputs (or targets) of consecutive batches, joined at most once.

    Args:
        items: one for each batch; a joined prefix is one item.
    """

    def __init__(self, items: list[Any] | None = None) -> None:
        self.items = [] if items is None else items
        self.num_moved = 0  # items before this index are on the CPU
        self.value: Any = None  # the first ``num_joined`` items, joined
        self.num_joined = 0

    def copy(self) -> Chunks:
        """Give an independent list of the same chunks, which nobody changes."""
        return copy.copy(self)._with(list(self.items))

    def _with(self, items: list[Any]) -> Chunks:
        self.items = items
        return self

    def extend(self, other: Chunks, keep_on_device: bool) -> None:
        """Append another's chunks."""
        self.items.extend(other.items)
        if not keep_on_device and len(self.items) - self.num_moved >= MOVE_EVERY:
            self._move()

    def append(self, item: Any, keep_on_device: bool) -> None:
        """Append one chunk."""
        self.items.append(item)
        if not keep_on_device and len(self.items) - self.num_moved >= MOVE_EVERY:
            self._move()

    def _move(self) -> None:
        """Copy what is new to the CPU; neighbours on an accelerator are joined there first."""
        late = self.items[self.num_moved :]
        if not _any_on_accelerator(late):
            self.num_moved = len(self.items)
            return
        self.items = self.items[: self.num_moved]
        self.num_joined = 0
        for is_away, group in itertools.groupby(late, _is_on_accelerator):
            chunks = list(group)
            if is_away and len(chunks) > 1:
                joined = join(chunks)
                chunks = [joined] if _is_whole(joined) else chunks
            self.items.extend(map(to_cpu, chunks) if is_away else chunks)
        self.num_moved = len(self.items)

    def joined(self, keep_on_device: bool) -> Any:
        """Give all chunks as one value, moved to the CPU unless they are to be kept."""
        if self.num_joined != len(self.items):
            if not keep_on_device:
                self._move()
            self.value = join(self.items)
            self.num_joined = len(self.items)
            if _is_whole(self.value):
                self.items = [self.value]  # the parts would double the memory
                self.num_moved = min(self.num_moved, 1)
                self.num_joined = 1
        return self.value


def join(chunks: list[Any]) -> Any:
    """Join chunks along dimension 0, item by item; give a list of them where that fails."""
    first = chunks[0]
    if len(chunks) == 1 and _is_whole(first):
        return first
    if all(chunk is None for chunk in chunks):
        return None
    if isinstance(first, TensorTuple) and _fit(chunks, TensorTuple):
        if all(len(chunk) == len(first) for chunk in chunks):
            return TensorTuple(join(list(items)) for items in zip(*chunks, strict=True))
    elif isinstance(first, dict) and _fit(chunks, dict):
        if all(chunk.keys() == first.keys() for chunk in chunks):
            return {key: join([chunk[key] for chunk in chunks]) for key in first}
    elif not isinstance(first, tuple):
        try:
            return concat(chunks)
        except DataError:
            pass
    return list(chunks)


def _fit(chunks: list[Any], kind: type) -> bool:
    return all(isinstance(chunk, kind) for chunk in chunks)


def _any_on_accelerator(chunks: list[Any]) -> bool:
    if set(map(type, chunks)) == {Tensor}:
        return not all(map(_IS_CPU, chunks))
    return any(map(_is_on_accelerator, chunks))


def _is_on_accelerator(chunk: Any) -> bool:
    tensor = first_tensor(chunk)
    return tensor is not None and not tensor.is_cpu


def _is_whole(value: Any) -> bool:
    """Say whether `value` is made of tensors alone, so that more can be joined to it."""
    if isinstance(value, dict):
        return all(map(_is_whole, value.values()))
    if isinstance(value, TensorTuple):
        return all(map(_is_whole, value))
    return value is None or isinstance(value, Tensor)


def as_chunk(value: Any) -> Any:
    """Detach, and give single numbers a dimension 0 along which they can be joined."""
    if isinstance(value, Tensor):
        # The run has detached it already: a second time would cost as much as all else here.
        value = value.detach() if value.requires_grad else value
        return value if value.ndim else value.reshape(1)
    if isinstance(value, dict):
        return {key: as_chunk(item) for key, item in value.items()}
    if type(value) in (tuple, list, TensorTuple) and first_tensor(value) is not None:
        return TensorTuple(map(as_chunk, value))
    if isinstance(value, (bool, int, float)):
        return torch.tensor([value])
    # A graph detaches its own tensors in place: on a copy, whose fields are its own.
    detach = getattr(value, "detach", None)
    return copy.copy(value).detach() if callable(detach) else value
