"""A patch for torchmetrics objects: it calls their update and compute on a copy.

>>> import torch
>>> from torchmetrics.classification import MulticlassAccuracy
>>> from deepepochs.patches import MetricPatch
>>> metric = MulticlassAccuracy(3, average="micro")
>>> one = MetricPatch(metric).load(torch.tensor([0, 1]), torch.tensor([0, 2]))
>>> two = MetricPatch(metric).load(torch.tensor([2, 2]), torch.tensor([2, 2]))
>>> (one + two)()
tensor(0.7500)
>>> metric.update_count  # the given object does not change
0
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import PatchError, add_note
from ..nest.operations import describe, first_tensor
from ..nest.reuse import hold
from .base import (
    PatchBase,
    check_same_metric,
    checked_metric,
    copied,
    count_numbers,
    for_checkpoint,
    metric_name,
)

if TYPE_CHECKING:
    from typing_extensions import Self


MOST_KEPT = 2**18
"""Numbers in the batches that wait for an update: 1 MB of float32."""


class MetricPatch(PatchBase):
    """A ``torchmetrics.Metric`` or ``MetricCollection`` over the batches so far.

    The given object is never updated, moved or reset. The patch of one batch holds its outputs and
    targets; the first `add` copies the object and updates the copy. A metric that counts whole
    numbers is updated for many batches at once, which gives the same value and takes less time.
    Two copies are merged as torchmetrics merges two processes, with the metric's own reductions.

    Args:
        metric: the object; its ``update`` gets outputs and targets, or outputs alone if the targets
            are None.
        batch_size: not used; all patches of metrics are made with the same arguments.
        name: see `PatchBase`.

    Raises:
        ConfigTypeError: the object cannot be called.
    """

    def __init__(self, metric: Any, batch_size: Any = None, name: str | None = None) -> None:
        super().__init__(name)
        self.metric = checked_metric(metric, type(self).__name__)
        self.batch_size = batch_size
        self.batch: tuple[Any, ...] | None = None
        # Updated copies from different patches. States without a reduction (PearsonCorrCoef) can
        # only be merged all at once, when the value is read.
        self.sums: list[Any] = []
        self._waiting: list[tuple[Any, ...]] = []  # batches for the last of the sums
        self._num_kept = 0  # numbers in their outputs
        self._joins = counts_whole_numbers(metric)

    def load(self, outputs: Any, targets: Any = None) -> Self:
        """Keep the outputs and targets of one mini-batch until they are merged."""
        self.sums, self._waiting, self._num_kept = [], [], 0
        self.batch = (hold(outputs),) if targets is None else (hold(outputs), hold(targets))
        return self

    def add(self, other: Any) -> Self:
        """Update with the other patch's batch, or append its sums."""
        check_same_metric(self, other)
        own, self.batch = self.batch, None
        for batch in (own, other.batch):
            if batch is not None:
                self._take(batch)
        if other.sums:
            self._update()
            self.sums.extend(other.copy().sums)
        return self

    def forward(self) -> Any:
        """Give what the metric's ``compute`` gives.

        Raises:
            PatchError: nothing was loaded, or the metric cannot merge two sums.
        """
        if self.batch is not None:
            return self._updated(self._empty(self.batch), self.batch).compute()
        self._update()
        if not self.sums:
            raise PatchError(f"{self} holds no data: call load(outputs, targets).")
        if len(self.sums) == 1:
            return self.sums[0].compute()
        try:
            return _merged(self.sums).compute()
        except Exception as error:
            raise PatchError(
                f"{self}: torchmetrics cannot merge two sums of it ({error}); use it in one task "
                "and one process, or use its function with metric_patch='tensor'."
            ) from error

    def copy(self) -> Self:
        """Give an independent patch; the data of a batch never change and are shared."""
        self._update()
        new = type(self).__new__(type(self))
        new.__dict__.update(self.__dict__)
        new.sums = [metric.clone() for metric in self.sums]
        new._waiting = []
        return new

    def num_numbers(self, most: int) -> int:
        """Count the numbers in the states of the metric."""
        leaves = (leaf for metric in self.sums for _, leaf in _leaves(metric))
        return count_numbers([leaf.metric_state for leaf in leaves], most)

    def state_dict(self) -> dict[str, Any]:
        """Give the states of the metric and of the metrics in it."""
        self._update()
        sums = [
            {
                path: [leaf.update_count, for_checkpoint(leaf.metric_state, str(self))]
                for path, leaf in _leaves(metric)
            }
            for metric in self.sums
        ]
        batch = self.batch and [for_checkpoint(data, str(self)) for data in self.batch]
        return {"sums": sums, "batch": batch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load what `state_dict` gave."""
        self.batch = None if state["batch"] is None else tuple(map(copied, state["batch"]))
        self.sums, self._waiting, self._num_kept = [], [], 0
        for saved in state["sums"]:
            metric = self._empty()
            for path, leaf in _leaves(metric):
                count, values = saved[path]
                for key, value in copied(values).items():
                    setattr(leaf, key, value)
                # There is no public way; with 0, compute warns that update was never called.
                leaf._update_count = count
            # The loaded states may be on the CPU or on a device.
            tensor = first_tensor([values for _, values in saved.values()])
            self.sums.append(metric if tensor is None else metric.to(tensor.device))

    def _take(self, batch: tuple[Any, ...]) -> None:
        """Have the metric updated with a batch, now or together with later ones."""
        self._waiting.append(batch)
        self._num_kept += sum(part.numel() for part in batch if isinstance(part, Tensor))
        if not self._joins or self._num_kept > MOST_KEPT:
            self._update()

    def _update(self) -> None:
        """Update the metric with the batches that wait."""
        if not self._waiting:
            return
        if not self.sums:
            self.sums = [self._empty(self._waiting[0])]
        waiting, self._waiting, self._num_kept = self._waiting, [], 0
        batches = _joined(waiting) if self._joins else waiting
        for batch in batches:
            self._updated(self.sums[-1], batch)
        if len(batches) < len(waiting):
            for _, leaf in _leaves(self.sums[-1]):
                leaf._update_count += len(waiting) - len(batches)

    def _empty(self, like: Any = None) -> Any:
        """Give a fresh copy of the metric, on the device of the tensors in `like`."""
        metric = self.metric.clone()
        tensor = first_tensor(like)
        if tensor is not None:
            metric.to(tensor.device)
        metric.reset()
        for _, leaf in _leaves(metric):
            # `add` merges the processes: compute must not wait for them or count them twice.
            leaf.distributed_available_fn = _no
            leaf.compute_with_cache = False  # after a merge a cached value would be wrong
        return metric

    def _updated(self, metric: Any, batch: tuple[Any, ...]) -> Any:
        try:
            metric.update(*batch)
        except Exception as error:
            found = " and ".join(map(describe, batch))
            add_note(error, f"The metric {metric_name(self.metric)!r} was updated with {found}.")
            raise
        return metric


def counts_whole_numbers(metric: Any) -> bool:
    """Whether a metric adds whole numbers up, so that batches can be joined.

    Sums of floats would differ in their last bits, and a wrapper may do something for each update.
    """
    leaves = [leaf for _, leaf in _leaves(metric)]
    return all(
        type(leaf).__module__.startswith("torchmetrics.classification.")
        and all(_is_count(default) for default in leaf._defaults.values())
        for leaf in leaves
    )


def _is_count(default: Any) -> bool:
    return isinstance(default, Tensor) and not default.is_floating_point()


def _joined(batches: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Join batches of plain tensors whose rows are alike; others stay as they are.

    torchmetrics takes the outputs of an update for scores if one of them is not from 0 to 1, and
    for probabilities if all are: batches of both kinds would be another thing when joined.
    """
    parts_of_all = [part for batch in batches for part in batch]
    if len(batches) == 1 or not all(isinstance(p, Tensor) and p.ndim for p in parts_of_all):
        return batches
    kinds = {tuple((p.shape[1:], p.dtype, p.device) for p in batch) for batch in batches}
    if len(kinds) > 1:
        return batches
    if not _are_of_one_kind([batch[0] for batch in batches]):
        return batches
    return [tuple(torch.cat(parts) for parts in zip(*batches, strict=True))]


def _are_of_one_kind(outputs: list[Tensor]) -> bool:
    """Whether all are probabilities, or none is."""
    if not outputs[0].is_floating_point():
        return True
    # Read once: an accelerator would be waited for with each.
    num = int(torch.stack([((x >= 0) & (x <= 1)).all() for x in outputs]).sum())
    return num in (0, len(outputs))


def _leaves(metric: Any) -> list[tuple[str, Any]]:
    """Give each metric in `metric`, which may be a collection or a wrapper, with its path."""
    from torchmetrics import Metric

    return [(path, leaf) for path, leaf in metric.named_modules() if isinstance(leaf, Metric)]


def _merged(sums: list[Any]) -> Any:
    """Give a metric that computes the value of several sums as if each were a process."""
    metric = sums[0].clone()
    others = [dict(_leaves(other)) for other in sums]
    for path, leaf in _leaves(metric):
        states = [leaves[path].metric_state for leaves in others]
        for key, value in leaf.metric_state.items():
            if isinstance(value, list):
                setattr(leaf, key, [item for state in states for item in state[key]])
        gather = functools.partial(_gathered, leaf, states)
        if leaf.sync_on_compute:
            leaf.dist_sync_fn, leaf.distributed_available_fn = gather, _yes
        else:
            leaf.sync(gather, distributed_available=_yes)
    return metric


def _gathered(leaf: Any, states: list[dict[str, Any]], tensor: Tensor, group: Any = None) -> Any:
    """Replace the exchange between processes: give one state of all sums."""
    for key, value in leaf.metric_state.items():
        if value is tensor:
            return [state[key].to(tensor.device) for state in states]
    return [tensor]  # from a list state, which already holds the items of all sums


def _yes() -> bool:
    return True


def _no() -> bool:
    return False
