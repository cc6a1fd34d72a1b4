"""A patch for torchmetrics objects: their own update and compute, on a copy, in constant memory.

>>> import torch
>>> from torchmetrics.classification import MulticlassAccuracy
>>> from deepepochs.patches import MetricPatch
>>> metric = MulticlassAccuracy(3, average="micro")
>>> one = MetricPatch(metric).load(torch.tensor([0, 1]), torch.tensor([0, 2]))
>>> two = MetricPatch(metric).load(torch.tensor([2, 2]), torch.tensor([2, 2]))
>>> (one + two)()
tensor(0.7500)
>>> metric.update_count  # the object given stays as it was
0
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..errors import PatchError, add_note
from ..nest.containers import describe, first_tensor
from ..nest.operations import detach
from .base import PatchBase, check_same_metric, copied, describe_patch, for_checkpoint
from .metric import checked_metric, metric_name

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["MetricPatch"]


class MetricPatch(PatchBase):
    """A ``torchmetrics.Metric`` or ``MetricCollection`` over the batches so far.

    The object given is never updated, moved or reset: the first merge makes a copy for the sum.
    The patch of one batch holds no more than outputs and targets. Two sums are merged as
    torchmetrics merges those of two processes, with the metric's own reductions.

    Args:
        metric: the object; its ``update`` gets outputs and targets (outputs alone where targets
            are None).
        batch_size: not used; here so that all patches of metrics are made alike.
        name: see `PatchBase`.
    """

    def __init__(self, metric: Any, batch_size: Any = None, name: str | None = None) -> None:
        super().__init__(name)
        self.metric = checked_metric(metric, type(self).__name__)
        self.batch_size = batch_size
        self.batch: tuple[Any, ...] | None = None
        # Sums that came from different patches: states without a reduction (PearsonCorrCoef)
        # can be merged only all at once, when the value is read.
        self.sums: list[Any] = []

    def load(self, outputs: Any, targets: Any = None) -> Self:
        """Keep the outputs and targets of one mini-batch until they are merged."""
        self.sums = []
        self.batch = (detach(outputs),) if targets is None else (detach(outputs), detach(targets))
        return self

    def add(self, other: Any) -> Self:
        """Update with another's batch, or join another's sums."""
        check_same_metric(self, other)
        if self.batch is not None:
            self.sums, self.batch = [self._updated(self._empty(self.batch), self.batch)], None
        if other.batch is not None:
            if not self.sums:
                self.sums = [self._empty(other.batch)]
            self._updated(self.sums[-1], other.batch)
        self.sums.extend(metric.clone() for metric in other.sums)
        return self

    def forward(self) -> Any:
        """Give what the metric's ``compute`` gives.

        Raises:
            PatchError: nothing was loaded, or the metric cannot merge two sums.
        """
        if self.batch is not None:
            return self._updated(self._empty(self.batch), self.batch).compute()
        if not self.sums:
            raise PatchError(f"{describe_patch(self)} holds no data: call load(outputs, targets).")
        if len(self.sums) == 1:
            return self.sums[0].compute()
        try:
            return _merged(self.sums).compute()
        except Exception as error:
            raise PatchError(
                f"{describe_patch(self)}: torchmetrics cannot merge two sums of it ({error}); "
                "use it in one task and one process, or its function with metric_patch='tensor'."
            ) from error

    def copy(self) -> Self:
        """Give an independent patch; the data of a batch, which nobody changes, are shared."""
        new = type(self).__new__(type(self))
        new.__dict__.update(self.__dict__)
        new.sums = [metric.clone() for metric in self.sums]
        return new

    def state_dict(self) -> dict[str, Any]:
        """Give the states of the metric and of those inside it."""
        where = describe_patch(self)
        sums = [
            {
                path: [leaf.update_count, for_checkpoint(leaf.metric_state, where)]
                for path, leaf in _leaves(metric)
            }
            for metric in self.sums
        ]
        batch = None if self.batch is None else [for_checkpoint(data, where) for data in self.batch]
        return {"sums": sums, "batch": batch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.batch = None if state["batch"] is None else tuple(map(copied, state["batch"]))
        self.sums = []
        for saved in state["sums"]:
            metric = self._empty()
            for path, leaf in _leaves(metric):
                count, values = saved[path]
                for key, value in copied(values).items():
                    setattr(leaf, key, value)
                # No public way: without it compute warns that update was never called.
                leaf._update_count = count
            # States may have been saved on a device, or loaded from there to the CPU.
            tensor = first_tensor([values for _, values in saved.values()])
            self.sums.append(metric if tensor is None else metric.to(tensor.device))

    def _empty(self, like: Any = None) -> Any:
        """Give a fresh copy of the metric, on the device of the batch it will be updated with."""
        metric = self.metric.clone()
        tensor = first_tensor(like)
        if tensor is not None:
            metric.to(tensor.device)
        metric.reset()
        for _, leaf in _leaves(metric):
            # Processes are merged by `add`; compute must not wait for the others, nor count twice.
            leaf.distributed_available_fn = _no
            leaf.compute_with_cache = False  # a cached value would outlive a merge
        return metric

    def _updated(self, metric: Any, batch: tuple[Any, ...]) -> Any:
        try:
            metric.update(*batch)
        except Exception as error:
            found = " and ".join(map(describe, batch))
            add_note(error, f"The metric {metric_name(self.metric)!r} was updated with {found}.")
            raise
        return metric


def _leaves(metric: Any) -> list[tuple[str, Any]]:
    """Give each metric inside of `metric`, which may be a collection or a wrapper, by its path."""
    from torchmetrics import Metric

    return [(path, leaf) for path, leaf in metric.named_modules() if isinstance(leaf, Metric)]


def _merged(sums: list[Any]) -> Any:
    """Give a metric that computes the value of several sums, as if they were processes."""
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
    """Stand in for the exchange between processes: give one state of all sums."""
    for key, value in leaf.metric_state.items():
        if value is tensor:
            return [state[key].to(tensor.device) for state in states]
    return [tensor]  # of a list state, which holds the items of all sums already


def _yes() -> bool:
    return True


def _no() -> bool:
    return False
