"""The optimizers of a trainer, each with the schedule of its learning rate.

A trainer always has an `Optimizers`: a list of `Optimizer`, each a torch optimizer with its
scheduler.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import CheckpointMismatch, ConfigError, ConfigTypeError
from .optimizer import Optimizer
from .schedules import LinearCosineScheduler

__all__ = [
    "AnyOptimizer",
    "LinearCosineScheduler",
    "Optimizer",
    "Optimizers",
    "as_optimizers",
    "params_of",
]


AnyOptimizer = Optimizer | torch.optim.Optimizer


def params_of(optimizers: Iterable[Optimizer]) -> list[Tensor]:
    """Return the parameters of optimizers, each once."""
    # By id: the hash of a tensor is a function in Python.
    return list({id(param): param for o in optimizers for param in o.params}.values())


class Optimizers(list[Optimizer]):
    """A list of `Optimizer` with the same methods for all; results are lists.

    Args:
        optimizers: `Optimizer`s or torch optimizers, which are wrapped.

    Raises:
        ConfigTypeError: one of them is neither.
        ConfigError: there is none, or one torch optimizer comes twice.

    Example:
        >>> opts = Optimizers([torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.5)])
        >>> opts.get_current_lr()
        [0.5]
    """

    def __init__(self, optimizers: Iterable[Optimizer | torch.optim.Optimizer]) -> None:
        super().__init__(o if isinstance(o, Optimizer) else Optimizer(o) for o in optimizers)
        if not self:
            raise ConfigError("Optimizers got no optimizer: give at least one.")
        if len({id(o.opt) for o in self}) < len(self):
            raise ConfigError(
                "Optimizers got one torch optimizer twice: it would step twice. Give each once."
            )

    @property
    def needs_loss(self) -> bool:
        """Whether some scheduler's step needs a loss."""
        return any(o.needs_loss for o in self)

    def needs_loss_at(self, at: str) -> bool:
        """Return whether some scheduler that steps on `at` needs a loss."""
        return any(o.needs_loss and o.sched_on == at for o in self)

    def zero_grad(self) -> None:
        """Clear the gradients of all parameters."""
        for o in self:
            o.zero_grad()

    def step(self, at: str = "step", loss: Any = None) -> None:
        """Step each optimizer: see `Optimizer.step`."""
        for o in self:
            o.step(at, loss)

    def after_step(self, loss: Any = None) -> None:
        """Step the schedulers due after a step: see `Optimizer.after_step`."""
        for o in self:
            o.after_step(loss)

    def sched_step(self, loss: Any = None) -> None:
        """Step each scheduler, due or not."""
        for o in self:
            o.sched_step(loss)

    def get_last_lr(self) -> list[list[Any] | None]:
        """Return each optimizer's `get_last_lr()`."""
        return [o.get_last_lr() for o in self]

    def get_current_lr(self) -> list[float]:
        """Return each optimizer's `get_current_lr()`."""
        return [o.get_current_lr() for o in self]

    @property
    def param_groups(self) -> list[list[dict[str, Any]]]:
        """The parameter groups of each optimizer."""
        return [o.param_groups for o in self]

    @property
    def params(self) -> list[Tensor]:
        """The parameters of all optimizers, each once."""
        return self[0].params if len(self) == 1 else params_of(self)

    def drop_gradients(self) -> None:
        """Set every gradient to None."""
        for o in self:
            o.drop_gradients()

    def gradients(self) -> list[Tensor]:
        """Return the gradients that are not None, in the order of `params`."""
        return [param.grad for param in self.params if param.grad is not None]

    def state_dict(self) -> list[dict[str, Any]]:
        """Return the state of each, in order."""
        return [o.state_dict() for o in self]

    def check_state(self, state: Any) -> None:
        """Check that `state` fits, without a change.

        Raises:
            CheckpointMismatch: a state does not fit, or their number.
        """
        states = [state] if isinstance(state, dict) else list(state)
        if len(states) != len(self):
            raise CheckpointMismatch(
                f"The checkpoint has the state of {len(states)} optimizers and the trainer has "
                f"{len(self)}: give the same optimizers in the same order."
            )
        for o, one in zip(self, states, strict=True):
            o.check_state(one)

    def load_state_dict(self, state: list[dict[str, Any]] | dict[str, Any]) -> None:
        """Load what `state_dict()` returned; for one optimizer also its state without a list.

        Raises:
            CheckpointMismatch: a state does not fit, or their number; nothing has been changed.
        """
        self.check_state(state)
        states = [state] if isinstance(state, dict) else list(state)
        for o, one in zip(self, states, strict=True):
            o.load_state_dict(one)


def as_optimizers(opt: Any, model: nn.Module, loss_fn: Any) -> Optimizers:
    """Return ``opt`` as an ``Optimizers``; ``None`` is Adam with rate 0.001 over the model.

    Raises:
        ConfigError: an optimizer has none of the weights of model and loss.
    """
    if opt is None:
        weights = list(model.parameters())
        if not weights:
            raise ConfigError("opt=None: the model has no weights to make an Adam over.")
        return Optimizers([torch.optim.Adam(weights, lr=0.001)])
    if isinstance(opt, (Optimizer, torch.optim.Optimizer)):
        opt = [opt]
    if isinstance(opt, type):
        raise ConfigTypeError(
            f"opt={opt.__name__} is a class: give an object, {opt.__name__}(model.parameters(), "
            "lr=...)."
        )
    if not isinstance(opt, (list, tuple)) or not opt:
        raise ConfigTypeError(
            f"opt={opt!r}: give a torch optimizer, a deepepochs.Optimizer, a list of them, or None."
        )
    optimizers = opt if isinstance(opt, Optimizers) else Optimizers(opt)
    known = {id(weight) for weight in model.parameters()}
    if isinstance(loss_fn, nn.Module):
        known |= {id(weight) for weight in loss_fn.parameters()}
    for index, optimizer in enumerate(optimizers):
        if not any(id(weight) in known for weight in optimizer.params):
            raise ConfigError(
                f"Optimizer {index} ({type(optimizer.opt).__name__}) holds none of this model's "
                "weights, so nothing would be learnt. Make it with model.parameters() of the model "
                "given to the trainer."
            )
    return optimizers
