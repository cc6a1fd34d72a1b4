"""The order in which ``DistributedDataParallel`` exchanges gradients, kept over a resume.

It adds gradients up in buckets. After its first step it rebuilds them in the order in which the
gradients of that step were ready. Where a number lies in a bucket decides the order in which
those of three and more processes are added, and so the last bits of the sum. A resumed run would
have a first step again, where the unbroken one has the rebuilt buckets.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel


class Buckets:
    """The orders of the gradients of a prepared model, one for each of its wrappers.

    An order has the places of the weights among those that the wrapper trains; it is empty
    before the first step.
    """

    def __init__(self, wrappers: Sequence[DistributedDataParallel]) -> None:
        # A static graph has two first steps. A hook in place of the sum may count its calls.
        self._models: list[Any] = [
            m for m in wrappers if not m.static_graph and not _logged(m).get("comm_hook")
        ]
        self._loaded: list[list[int]] = []

    def state_dict(self) -> list[list[int]]:
        """Give the orders; all processes call this together."""
        return self._loaded or [_order(model) for model in self._models]

    def load_state_dict(self, state: Sequence[Sequence[int]]) -> None:
        """Keep the orders for ``take``, since one process alone may fail to load the rest."""
        self._loaded = [list(order) for order in state]

    def take(self) -> None:
        """Exchange gradients in the loaded orders, as after a first step; all processes call it."""
        for model, order in zip(self._models, self._loaded, strict=False):
            fits = sorted(order) == list(range(_logged(model)["num_parameter_tensors"]))
            if fits and not _order(model):
                _rebuild(model, order)
        self._loaded = []


def _logged(model: Any) -> dict[str, Any]:
    data: dict[str, Any] = model._get_ddp_logging_data()
    return data


def _order(model: Any) -> list[int]:
    """Return the order in which a model exchanges gradients; it is empty before a first step."""
    model.reducer._rebuild_buckets()  # the next forward call would do it
    model.logger.set_runtime_stats_and_log()
    buckets = _logged(model).get("rebuilt_per_bucket_param_indices", "")  # as "3 2, 1 0"
    return [int(index) for index in buckets.replace(",", " ").split()]


def _rebuild(model: Any, order: list[int]) -> None:
    """Exchange zeros in an order, and have the buckets rebuilt in it.

    Neither weights nor their gradients take part in the backward pass, so no hook of them runs.
    """
    gradients = [(weight, weight.grad) for weight in model.parameters()]
    for weight, is_sparse in zip(*model._build_params_for_reducer(), strict=True):
        weight.grad = torch.zeros_like(weight).to_sparse(1) if is_sparse else None

    def arrive(_: Any) -> None:
        for index in order:
            model.reducer._autograd_hook(index)

    model.reducer.prepare_for_forward()
    model.reducer.prepare_for_backward([])
    with torch.enable_grad():
        end: Any = torch.zeros((), device="cpu", requires_grad=True).clone()
    end.register_hook(arrive)
    end.backward()
    model.reducer._rebuild_buckets()
    for weight, gradient in gradients:
        weight.grad = gradient
