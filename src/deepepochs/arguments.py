"""Checks the arguments that users give. Each error says what was found and what to give."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from numbers import Integral
from typing import Any

import numpy as np
from torch import nn

from .errors import ConfigError, ConfigTypeError, StepError
from .nest.operations import describe


def check_count(name: str, value: object, least: int = 0) -> int:
    """Return ``value`` as an int of at least ``least``, or raise ``ConfigError``."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise ConfigTypeError(f"{name}={_found(value)}: give an int of at least {least}.")
    if value < least:
        raise ConfigError(f"{name}={value}: give an int of at least {least}.")
    return int(value)


def check_batch_size(batch_size: object) -> None:
    """Raise ``ConfigError`` unless ``batch_size`` is ``None``, a number from 0 or a function."""
    if batch_size is None or callable(batch_size):
        return
    if isinstance(batch_size, bool) or not isinstance(batch_size, (int, float, np.number)):
        raise ConfigTypeError(
            f"batch_size={batch_size!r} is {describe(batch_size)}: give a number, a function "
            "(batch_x, batch_y) -> number, or None to have the samples counted."
        )
    if not 0 <= batch_size < math.inf:
        raise ConfigError(f"batch_size={batch_size!r}: the weight of a mini-batch is at least 0.")


def check_flag(name: str, value: object) -> bool:
    """Return ``value`` if it is true or false; a text such as ``'no'`` would count as true."""
    if not isinstance(value, (bool, np.bool_)) and value not in (0, 1):
        raise ConfigTypeError(f"{name}={value!r}: give True or False.")
    return bool(value)


def check_dict(name: str, value: Any) -> dict[str, Any] | None:
    """Return ``value`` if it is a dict or ``None``, or raise ``ConfigTypeError``."""
    if value is not None and not isinstance(value, dict):
        raise ConfigTypeError(f"{name} is {describe(value)}: give a dict, or None.")
    return value


def check_choice(name: str, value: object, choices: Iterable[str]) -> str:
    """Return ``value`` if it is one of ``choices``, or raise ``ConfigError``."""
    choices = list(choices)
    if not isinstance(value, str) or value not in choices:
        raise ConfigError(f"{name}={value!r}: give one of {', '.join(map(repr, choices))}.")
    return value


def check_model(model: object) -> nn.Module:
    """Return the model if it is a module, or raise ``ConfigTypeError``."""
    _refuse_class("model", model)
    if not isinstance(model, nn.Module):
        raise ConfigTypeError(f"model={_found(model)}: give an nn.Module.")
    return model


def check_loss(loss: Any) -> Any:
    """Return the loss function; ``default_loss`` for ``None``."""
    if loss is None:
        return default_loss
    _refuse_class("loss", loss)
    if not callable(loss):
        raise ConfigTypeError(
            f"loss={loss!r} is a {type(loss).__name__}: give a function (model_out, targets) -> "
            "scalar tensor, or None if the model's output is the loss."
        )
    return loss


def _found(value: object) -> str:
    return repr(value) if value is None else f"{value!r} is {describe(value)}"


def _refuse_class(name: str, value: object) -> None:
    if isinstance(value, type) and issubclass(value, nn.Module):
        kind = value.__name__
        raise ConfigTypeError(f"{name}={kind} is a class: give an object, {kind}().")


def as_list(name: str, value: Any, kind: type) -> list[Any]:
    """Return a new list of one object of ``kind``, or of a list or tuple of them.

    Raises:
        ConfigTypeError: an entry is of another class.
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


def check_targets(targets: Any) -> str | None:
    """Return the name of a dict's entry, or raise `ConfigTypeError`."""
    if targets is None or isinstance(targets, str):
        return targets
    raise ConfigTypeError(
        f"targets={describe(targets)}: give the name of the entry of a dict mini-batch that is the "
        "target, such as 'labels'."
    )


def default_loss(preds: Any, targets: Any = None) -> Any:
    """Return the loss that the model computed: the loss function if none is given.

    Args:
        preds: the model's output: the loss itself, or a dict with the entry `'loss'`.
        targets: not used.

    Raises:
        StepError: the output is a dict without this entry.

    Example:
        >>> default_loss(0.25)
        0.25
    """
    if not isinstance(preds, Mapping):
        return preds
    if "loss" not in preds:
        raise StepError(
            f"the model's output has the keys {list(preds)} and no 'loss', and no loss function "
            "was given: let the model return its loss under this key, or pass loss=... to the "
            "Trainer"
        )
    return preds["loss"]
