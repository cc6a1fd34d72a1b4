"""Averaging the gradients that several processes do not exchange in the backward pass.

``DistributedDataParallel`` exchanges the gradients of the model's weights that required one
when it was made. It leaves out weights of the loss function, weights that only an optimizer
has, and layers that were frozen then: these would differ among the processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.parameter import is_lazy

from ..errors import ConfigError
from ..optim.optimizers import Optimizer, params_of

if TYPE_CHECKING:
    from accelerate import Accelerator

LARGEST = 2**24  # the most numbers that are exchanged at once, except in one larger weight


class OutsideWeights:
    """Gives all processes the same values and gradients of such weights.

    ``model`` is the prepared one; ``total`` adds up numbers over the processes.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        model: nn.Module,
        total: Callable[[list[float], str], list[float]],
    ) -> None:
        self._accelerator = accelerator
        self._total = total
        # By id, with the weight itself: without it another object could get the same id.
        self._exchanged = exchanged_by(model)
        weights: Iterable[Tensor] = model.parameters()
        self._of_model = {id(weight): weight for weight in weights}
        is_alike = isinstance(model, DistributedDataParallel)
        alike: list[Tensor] = [*model.parameters(), *model.buffers()] if is_alike else []
        self._alike = {id(tensor): tensor for tensor in alike}

    def give_values(self, tensors: Iterable[Tensor]) -> None:
        """Give the processes the values of the main process, once for each tensor."""
        from accelerate.utils import broadcast

        for tensor in tensors:
            if id(tensor) not in self._alike and not is_lazy(tensor):
                own = tensor.detach().to(self._accelerator.device, copy=True)
                tensor.data.copy_(broadcast(own))
                self._alike[id(tensor)] = tensor

    def join(self, optimizers: Iterable[Optimizer], *, has_samples: bool) -> None:
        """Average such gradients before optimizers step, the same ones in all processes.

        ``has_samples``: whether this process had samples since the last step.
        """
        known = self._exchanged
        outside = [w for w in params_of(optimizers) if id(w) not in known and w.requires_grad]
        if outside:
            self.give_values(outside)  # a parameter group may have been added since
            self._average(outside, has_samples)

    def end_window(self, optimizers: Iterable[Optimizer]) -> None:
        """Average the model's gradients that were kept back; ``join`` does the others."""
        self._average([w for w in params_of(optimizers) if id(w) in self._of_model], True)

    def _average(self, weights: Sequence[Tensor], has_samples: bool) -> None:
        """Average gradients over the processes; where only some have one, it is 0 in the others.

        Raises:
            ConfigError: a sparse gradient of a weight outside of the model.
        """
        # Those of the model may be averaged already, even if this process had only fillers.
        has = [
            weight.grad is not None and (has_samples or id(weight) in self._of_model)
            for weight in weights
        ]
        # All processes must raise together: if one raised, the others would wait for it.
        sparse = any(w.grad is not None and w.grad.layout is not torch.strided for w in weights)
        *numbers, num_sparse = self._total([*map(float, has), float(sparse)], "averages gradients")
        if num_sparse and not all(id(weight) in self._of_model for weight in weights):
            raise ConfigError(
                "A weight outside of the model has a sparse gradient, which several processes cannot "
                "average: make it a parameter of the model, or its embedding sparse=False."
            )
        joint = []
        for weight, counts, number in zip(weights, has, numbers, strict=True):
            if not counts:
                weight.grad = None  # it may be that of a filler
            if number:
                joint.append(weight)
        if num_sparse:
            for weight in joint:
                own = torch.zeros_like(weight) if weight.grad is None else weight.grad
                weight.grad = self._accelerator.reduce(own, reduction="mean").detach().clone()
            return
        for part in parts_of(joint):
            own_parts = [
                weight.new_zeros(weight.numel()) if weight.grad is None else weight.grad.reshape(-1)
                for weight in part
            ]
            flat = torch.cat(own_parts).to(self._accelerator.device)
            mean = self._accelerator.reduce(flat, reduction="mean").to(part[0].device)
            for weight, gradient in zip(part, mean.split([w.numel() for w in part]), strict=True):
                weight.grad = gradient.detach().clone().view(weight.shape)


def exchanged_by(model: nn.Module) -> dict[int, Tensor]:
    """Return the weights that a model exchanges by itself, by id; none if that is unknown."""
    if not isinstance(model, DistributedDataParallel):
        return {}
    weights: Iterable[Tensor] = model.parameters()
    trained = {id(weight): weight for weight in weights if weight.requires_grad}
    # The user may have made it when other layers were frozen. To average twice is no harm.
    data: dict[str, int] = getattr(model, "_get_ddp_logging_data", dict)()
    return trained if data.get("num_parameter_tensors") == len(trained) else {}


def parts_of(weights: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Divide weights into parts that are exchanged at once, each of one type and device."""
    parts: dict[tuple[torch.dtype, torch.device], tuple[list[Tensor], int]] = {}
    for weight in weights:
        kind = weight.dtype, weight.device
        part, size = parts.get(kind, ([], 0))
        if part and size + weight.numel() > LARGEST:
            yield part
            part, size = [], 0
        part.append(weight)
        parts[kind] = part, size + weight.numel()
    for part, _ in parts.values():
        yield part
