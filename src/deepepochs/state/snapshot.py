"""Trying something on a trainer, and leaving no trace: snapshot, try, restore."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from .. import rng
from ..callbacks.base import Callback
from ..callbacks.pool import CallbackPool
from ..contracts import TrainerView
from ..data.cursor import Cursor
from ..data.followed import set_epoch
from ..data.routes import own_workers
from ..errors import ConfigError
from .parts import CallbacksPart
from .strict import copied_to_cpu, load_parts

TRIED = (
    "model",
    "loss_fn",
    "loss_parts",
    "other_weights",
    "extras",
    "optimizers",
    "gradients",
    "ema",
)
"""The parts of the state that training changes; the others are kept away from a try."""


@contextmanager
def no_trace(
    trainer: TrainerView, loaders: Iterable[object], callbacks: Sequence[Callback] = ()
) -> Iterator[None]:
    """Let the block train; put back all that this changes.

    These are weights, optimizers, schedulers, gradients, buffers, random states, the place
    in the loaders, and the states of the ``callbacks`` that take part.

    Raises:
        ConfigError: a model with lazy layers, which could not be put back.
    """
    if any(nn.parameter.is_lazy(weight) for weight in trainer.model.parameters()):
        raise ConfigError(
            "The model has lazy layers whose weights are not there yet, so they cannot be put "
            "back: call the model on one mini-batch first."
        )
    loaders = list(loaders)
    before = {
        name: copied_to_cpu(part.state_dict())
        for name, part in trainer.parts().items()
        if name in TRIED
    }
    buffers = [(buffer, buffer.clone()) for buffer in _hidden_buffers(trainer)]
    acting = CallbacksPart(CallbackPool(callbacks))
    states = copy.deepcopy(acting.present_state())
    moments = [(loader, Cursor(loader).state_dict()) for loader in loaders]  # type: ignore[arg-type]
    random = rng.get_state()
    try:
        with ExitStack() as workers:
            for loader in loaders:
                workers.enter_context(own_workers(loader))
                set_epoch(loader, trainer.progress.epoch_idx)  # as in a fit
            yield
    finally:
        # Collected anew: an optimizer may have given a tensor another storage.
        parts = trainer.parts()
        load_parts({name: parts[name] for name in before}, before)
        acting.load_state_dict(states)
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)
        for loader, moment in moments:
            Cursor(loader).load_state_dict(moment)  # type: ignore[arg-type]
        rng.set_state(random)


def _hidden_buffers(trainer: TrainerView) -> list[torch.Tensor]:
    """The buffers that a state does not hold."""
    modules = [part for part in (trainer.model, trainer.loss_fn) if isinstance(part, nn.Module)]
    hidden = []
    for module in modules:
        saved = {id(value) for value in module.state_dict(keep_vars=True).values()}
        hidden += [buffer for buffer in module.buffers() if id(buffer) not in saved]
    return hidden
