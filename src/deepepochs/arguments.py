"""Checks of what users hand to a trainer: each says what was found and what to give.

>>> from deepepochs.errors import ConfigError
>>> try:
...     check_count("epochs", -1)
... except ConfigError as error:
...     print(error)
epochs=-1: give an int of at least 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from numbers import Integral
from typing import Any

import numpy as np
from torch import nn

from .errors import ConfigError, ConfigTypeError, StepError
from .nest.containers import describe

__all__ = [
    "as_list", "check_choice", "check_count", "check_dict", "check_flag", "check_loss",
    "check_model", "default_loss",
]  # fmt: skip


def check_count(name: str, value: object, least: int = 0) -> int:
    """Give ``value`` as an int of at least ``least``; raise ``ConfigError`` otherwise."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        found = repr(value) if value is None else f"{value!r} is {describe(value)}"
        raise ConfigTypeError(f"{name}={found}: give an int of at least {least}.")
    if value < least:
        raise ConfigError(f"{name}={value}: give an int of at least {least}.")
    return int(value)


def check_flag(name: str, value: object) -> bool:
    """Give ``value`` if it is True or False: a text such as ``'no'`` would count as true."""
    if not isinstance(value, (bool, np.bool_)) and value not in (0, 1):
        raise ConfigTypeError(f"{name}={value!r}: give True or False.")
    return bool(value)


def check_dict(name: str, value: Any) -> dict[str, Any] | None:
    """Give ``value`` if it is a dict or ``None``; raise ``ConfigTypeError`` otherwise."""
    if value is not None and not isinstance(value, dict):
        raise ConfigTypeError(f"{name} is {describe(value)}: give a dict, or None.")
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
        found = repr(model) if model is None else f"{model!r} is {describe(model)}"
        raise ConfigTypeError(f"model={found}: give an nn.Module.")
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


def as_list(name: str, value: Any, kind: type) -> list[Any]:
    """Give one object of ``kind`` or a list or tuple of them as a new list.

    Raises:
        ConfigTypeError: an entry of another class.
    """
    if value is None:
        return []
    listed = list(value) if isinstance(value, (list, tuple)) else [value]
    for entry in listed:
        if isinstance(entry, type) and issubclass(entry, kind):
            raise ConfigTypeError(
                f"{name} holds the class {entry.__name__}: give an object, {entry.__name__}(...)."
            )
        if not isinstance(entry, kind):
            found = repr(entry) if isinstance(entry, str) else describe(entry)
            raise ConfigTypeError(
                f"{name} holds {found}: give one {kind.__name__} object or a list of them."
            )
    return listed


def default_loss(preds: Any, targets: Any = None) -> Any:
    """Give the loss that the model has put out: stands in where no loss function is given.

    Args:
        preds: the model's output: the loss itself, or a dict with the entry `'loss'`.
        targets: not looked at.

    Returns:
        The loss.

    Raises:
        StepError: the output is a dict without that entry.

    Example:
        >>> default_loss(0.25)
        0.25
    """
    if not isinstance(preds, Mapping):
        return preds
    if "loss" not in preds:
        raise StepError(
            f"the model's output has the keys {list(preds)} and no 'loss', and no loss function "
            "was given: let the model put out its loss under that key, or pass loss=... to the "
            "Trainer"
        )
    return preds["loss"]
