"""Checks of what users hand to a trainer: each says what was found and what to give.

>>> from deepepochs.errors import ConfigError
>>> try:
...     check_count("epochs", -1)
... except ConfigError as error:
...     print(error)
epochs=-1: give an int of at least 0.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from .errors import ConfigError, ConfigTypeError
from .losses import default_loss
from .optimizers import Optimizer, Optimizers

__all__ = [
    "as_list",
    "as_optimizers",
    "check_choice",
    "check_count",
    "check_loss",
    "check_model",
]


def check_count(name: str, value: object, least: int = 0) -> int:
    """Give ``value`` if it is an int of at least ``least``; raise ``ConfigError`` otherwise."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigTypeError(
            f"{name}={value!r} is a {type(value).__name__}: give an int of at least {least}."
        )
    if value < least:
        raise ConfigError(f"{name}={value}: give an int of at least {least}.")
    return value


def check_choice(name: str, value: object, choices: Iterable[str]) -> str:
    """Give ``value`` if it is one of ``choices``; raise ``ConfigError`` otherwise."""
    choices = list(choices)
    if not isinstance(value, str) or value not in choices:
        raise ConfigError(f"{name}={value!r}: give one of {', '.join(map(repr, choices))}.")
    return value


def check_model(model: object) -> nn.Module:
    """Give the model, or raise ``ConfigTypeError`` if it is no module."""
    if isinstance(model, type) and issubclass(model, nn.Module):
        raise ConfigTypeError(
            f"model={model.__name__} is a class: give an object, {model.__name__}()."
        )
    if not isinstance(model, nn.Module):
        raise ConfigTypeError(f"model={model!r} is a {type(model).__name__}, not an nn.Module.")
    return model


def check_loss(loss: Any) -> Any:
    """Give the loss function, ``default_loss`` for ``None``."""
    if loss is None:
        return default_loss
    if isinstance(loss, type) and issubclass(loss, nn.Module):
        raise ConfigTypeError(
            f"loss={loss.__name__} is a class: give an object, {loss.__name__}()."
        )
    if not callable(loss):
        raise ConfigTypeError(
            f"loss={loss!r} is a {type(loss).__name__}: give a function (model_out, targets) -> "
            "scalar tensor, or None if the model's output is the loss."
        )
    return loss


def as_optimizers(opt: Any, model: nn.Module, loss_fn: Any) -> Optimizers:
    """Give ``opt`` as an ``Optimizers``; ``None`` is Adam with rate 0.001 over the model.

    Raises:
        ConfigError: an optimizer that holds none of the weights of model and loss.
    """
    if opt is None:
        weights = list(model.parameters())
        if not weights:
            raise ConfigError("opt=None: the model has no weights to make an Adam over.")
        return Optimizers([torch.optim.Adam(weights, lr=0.001)])
    if isinstance(opt, (Optimizer, torch.optim.Optimizer)):
        opt = [opt]
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


def as_list(name: str, value: Any, kind: type) -> list[Any]:
    """Give one object of ``kind`` or a list or tuple of them as a new list.

    Raises:
        ConfigTypeError: an entry of another class.
    """
    if value is None:
        return []
    listed = list(value) if isinstance(value, (list, tuple)) else [value]
    for entry in listed:
        if not isinstance(entry, kind):
            raise ConfigTypeError(
                f"{name} holds {entry!r}, a {type(entry).__name__}, not a {kind.__name__}."
            )
    return listed
