"""Checks the arguments that users give. Each error says what was found and what to give."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from numbers import Integral
from typing import Any, TypeVar, cast

import numpy as np
from torch import nn

from .errors import ConfigError, ConfigTypeError, StepError
from .hints import roles
from .hints.roles import named, role_of
from .nest.operations import describe

Function = TypeVar("Function", bound=Callable[..., Any])


def with_hints(method: Function) -> Function:
    """Make a method whose errors about its arguments say what to write instead.

    The signature that editors, ``help`` and type checkers see is that of the method.
    """

    @functools.wraps(method)
    def checked(*args: Any, **options: Any) -> Any:
        try:
            return method(*args, **options)
        except BaseException as error:
            # No name for the rest of the traceback: it would keep all its frames alive.
            if error.__traceback__ is not None and error.__traceback__.tb_next is not None:
                # Leaves this frame, which says nothing, out of the traceback (not in Python 3.10).
                error.__traceback__ = error.__traceback__.tb_next
            elif isinstance(error, TypeError):
                from .hints.calls import refusal

                raise (refusal(method, args, options) or error) from None
            raise

    return cast(Function, checked)


def check_count(name: str, value: object, least: int = 0) -> int:
    """Return ``value`` as an int of at least ``least``, or raise ``ConfigError``."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise ConfigTypeError(_not_a_count(name, value, least))
    if value < least:
        raise ConfigError(f"{name}={value}: give an int of at least {least}.")
    return int(value)


def _not_a_count(name: str, value: object, least: int) -> str:
    advice = f"give an int of at least {least}."
    text = str(int(value) if isinstance(value, float) and value.is_integer() else value)
    if isinstance(value, (float, str)) and text.isdecimal() and int(text) >= least:
        advice = f"give an int, {name}={text}."
    elif name == "epochs" and value is None:
        advice = f"give an int of at least {least}, or leave it out where max_steps ends the fit."
    elif name == "epochs" and not isinstance(value, (bool, float, str)):
        advice = place_of(value) or f"{advice} Give what follows by name, such as metrics=..."
    return f"{found(name, value)}: {advice}"


def check_batch_size(batch_size: object) -> None:
    """Raise ``ConfigError`` unless ``batch_size`` is ``None``, a number from 0 or a function."""
    if batch_size is None or callable(batch_size):
        return
    if isinstance(batch_size, bool) or not isinstance(batch_size, (int, float, np.number)):
        raise ConfigTypeError(
            f"{found('batch_size', batch_size)}: give a number, a function (batch_x, batch_y) -> "
            "number, or None to have the samples counted."
        )
    if not 0 <= batch_size < math.inf:
        raise ConfigError(f"batch_size={batch_size!r}: the weight of a mini-batch is at least 0.")


def check_flag(name: str, value: object) -> bool:
    """Return ``value`` if it is true or false; a text such as ``'no'`` would count as true."""
    if not isinstance(value, (bool, np.bool_)) and value not in (0, 1):
        raise ConfigTypeError(f"{found(name, value)}: give True or False.")
    return bool(value)


def check_dict(name: str, value: Any) -> dict[str, Any] | None:
    """Return ``value`` if it is a dict or ``None``, or raise ``ConfigTypeError``."""
    if value is not None and not isinstance(value, dict):
        raise ConfigTypeError(
            f"{name} is {describe(value)}: give a dict, such as vars(namespace), or None."
        )
    return value


def check_choice(name: str, value: object, choices: Iterable[str]) -> str:
    """Return ``value`` if it is one of ``choices``, or raise ``ConfigError``."""
    choices = list(choices)
    if not isinstance(value, str) or value not in choices:
        from .hints.names import value_meant

        meant = value_meant(value, choices)
        raise ConfigError(f"{name}={value!r}: give one of {', '.join(map(repr, choices))}.{meant}")
    return value


ORDER = "Trainer(model, loss, opt, epochs)"
_ROLES = {"model": roles.MODEL, "loss": roles.LOSS, "opt": roles.OPTIMIZER}


def check_order(model: object, loss: object, opt: object) -> None:
    """Raise ``ConfigTypeError`` if two or three of a trainer's arguments are swapped."""
    given = {"model": model, "loss": loss, "opt": opt}
    is_now = {name: role_of(value) for name, value in given.items()}
    wrong = [
        name for name, role in is_now.items() if role in _ROLES.values() and role != _ROLES[name]
    ]
    if len(wrong) > 1 and {_ROLES[name] for name in wrong} == {is_now[name] for name in wrong}:
        told = ", ".join(f"{name} is {named(given[name])}" for name in wrong)
        are = " and ".join(wrong) if len(wrong) == 2 else "model, loss and opt"
        raise ConfigTypeError(f"{are} are swapped: {told}. The order is {ORDER}.")


def check_model(model: object) -> nn.Module:
    """Return the model if it is a module, or raise ``ConfigTypeError``."""
    _refuse_class("model", model)
    if not isinstance(model, nn.Module):
        raise ConfigTypeError(f"{found('model', model)}: give an nn.Module. The order is {ORDER}.")
    return model


def check_loss(loss: Any) -> Any:
    """Return the loss function; ``default_loss`` for ``None``."""
    if loss is None:
        return default_loss
    _refuse_class("loss", loss)
    if isinstance(loss, str):
        from .hints.names import loss_meant

        raise ConfigTypeError(
            f"{found('loss', loss)}: give the function itself, {loss_meant(loss)}."
        )
    if not callable(loss):
        wanted = (
            "give a function (model_out, targets) -> scalar tensor, or None if the model's output is "
            "the loss."
        )
        raise ConfigTypeError(f"{found('loss', loss)}: {place_of(loss) or wanted}")
    order = targets_first(loss)
    if order is not None:
        raise ConfigError(
            f"The loss function takes ({', '.join(order)}), and it is called as "
            f"loss(model_out, targets). Give {in_order(loss, 'model_out', 'targets')}."
        )
    return loss


_TARGETS = frozenset([
    "y_true", "true", "labels_true", "targets", "target", "labels", "label", "y", "gt",
    "ground_truth",
])  # fmt: skip
_OUTPUTS = frozenset([
    "y_pred", "pred", "labels_pred", "preds", "prediction", "predictions", "pred_decision",
    "y_score", "y_scores", "y_prob", "y_proba", "y_hat", "yhat", "output", "outputs", "out",
    "logits", "model_out", "scores", "probs",
])  # fmt: skip


def targets_first(function: Any) -> tuple[str, str] | None:
    """Give the names of a function's first two parameters if they are targets and outputs.

    So do Keras and scikit-learn name them. What is given with (outputs, targets) would be swapped,
    which most functions compute without an error.

    >>> targets_first(lambda y_true, y_pred: 0.0)
    ('y_true', 'y_pred')
    >>> targets_first(lambda preds, target: 0.0)
    """
    called = function.forward if isinstance(function, nn.Module) else function
    try:
        parameters = inspect.signature(called).parameters.values()
    except (TypeError, ValueError):  # a function written in C has no signature
        return None
    names = [
        parameter.name
        for parameter in parameters
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ][:2]
    if len(names) == 2 and names[0].lower() in _TARGETS and names[1].lower() in _OUTPUTS:
        return names[0], names[1]
    return None


def in_order(function: Any, output: str, target: str) -> str:
    """Write the code that calls a function with the targets first."""
    is_partial = isinstance(function, functools.partial)
    # `rename` sets another __name__.
    name = getattr(function.func if is_partial else function, "__qualname__", "loss_fn")
    name = name.rpartition(".")[2]
    if not name.isidentifier():  # a lambda
        return f"lambda {output}, {target}: ..., with the outputs first"
    options = (
        "".join(f", {key}={value!r}" for key, value in function.keywords.items())
        if is_partial
        else ""
    )
    return f"lambda {output}, {target}: {name}({target}, {output}{options})"


def place_of(value: object) -> str:
    """Say where an object belongs that was given elsewhere; an empty text if that is unknown."""
    places = {
        roles.MODEL: f"the model comes first, {ORDER}.",
        roles.OPTIMIZER: f"the optimizer comes third, {ORDER}.",
        roles.SCHEDULER: "a scheduler is given with its optimizer, opt=Optimizer(opt, scheduler).",
        roles.CALLBACK: "callbacks are given by name, callbacks=[...].",
        roles.LOADER: "the data are given to fit, trainer.fit(train_dl, val_dl).",
        roles.DATA_SET: "the data are given to fit, trainer.fit(DataLoader(dataset, batch_size=32)).",
    }
    return places.get(str(role_of(value)), "")


def found(name: str, value: object) -> str:
    """Describe an argument: a number or a text as it is, other things by their class."""
    if value is None:
        return f"{name}=None"
    if isinstance(value, type):
        return f"{name}={value.__name__} is a class"
    is_short = isinstance(value, (str, bytes, int, float, complex)) and len(repr(value)) <= 60
    return f"{name}={value!r} is {describe(value)}" if is_short else f"{name} is {named(value)}"


def _refuse_class(name: str, value: object) -> None:
    if isinstance(value, type) and issubclass(value, nn.Module):
        raise ConfigTypeError(f"{found(name, value)}: give an object, {value.__name__}().")


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
            shown = repr(entry) if isinstance(entry, str) else named(entry)
            raise ConfigTypeError(
                f"{name} holds {shown}: give one {kind.__name__} object or a list of them."
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
            f"The model's output has the keys {list(preds)} and no 'loss', and no loss function was "
            "given.\nGive one, as Trainer(model, F.cross_entropy), or have the model return its loss "
            "under this key, as those of Hugging Face do where they get labels."
        )
    return preds["loss"]
