"""The base class of all patches: adding, copying and saving.

A patch of your own needs two methods, ``add`` and ``forward``; most also have a ``load``.

>>> from deepepochs.patches import PatchBase
>>> class Longest(PatchBase):
...     def load(self, texts):
...         self.length = max(len(text) for text in texts)
...         return self
...     def add(self, other):
...         self.length = max(self.length, other.length)
...         return self
...     def forward(self):
...         return self.length
>>> sum([Longest().load(["a", "four"]), Longest().load(["six"])])()
4
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from types import BuiltinMethodType, FunctionType, MethodType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..errors import ArgumentsChanged, ConfigTypeError, MetricError, PatchError, add_note
from ..nest import reuse
from ..nest.codec import is_plain, keeps_class
from ..nest.operations import describe, walk

if TYPE_CHECKING:
    from typing_extensions import Self


class PatchBase:
    """The base of all patches: the value of a metric so far, which can be added to another's.

    These laws hold, and `add` and `forward` of a subclass must keep them:

    1. ``a + b`` is a new patch; ``a`` and ``b`` are unchanged.
    2. ``(a + b) + c`` equals ``a + (b + c)``.
    3. ``0 + a`` and ``a + 0`` equal ``a``, so ``sum(patches)`` works.
    4. Merging the patches of a split batch equals the patch of the whole.
    5. ``load_state_dict(state_dict())`` is the identity.

    This class keeps 1 and 3, since ``+`` works on copies, and 5 for attributes that are
    numbers, strings, tensors, arrays, or tuples, lists and dicts of them.

    Args:
        name: replaces the name under which a step returns the patch, unless it is None.
    """

    name: str | None = None  # for subclasses that do not call super().__init__()
    on_copies = False

    def __init__(self, name: str | None = None) -> None:
        self.name = name

    def named(self, name: str) -> Self:
        """Set the name under which a step returns the patch, and return self."""
        self.name = name
        return self

    def use_copies(self) -> Self:
        """Give the metric copies of its arguments, because it changes them; return self."""
        self.on_copies = True
        return self

    def load(self, *args: Any, **kwargs: Any) -> Self:
        """Store the data of one mini-batch and return self.

        Raises:
            PatchError: the subclass does not define it.
        """
        raise _no_method(self, "load(self, *data)", "store the data and return self")

    def add(self, other: Any) -> Self:
        """Add `other` to this patch: change and return self, or return a new patch.

        Raises:
            PatchError: the subclass does not define it.
        """
        raise _no_method(self, "add(self, other)", "add other to it and return self")

    def forward(self) -> Any:
        """Give the value: a number, a 0-d or small tensor, or a dict of them.

        Raises:
            PatchError: the subclass does not define it.
        """
        raise _no_method(self, "forward(self)", "return a number or a dict of numbers")

    def __call__(self) -> Any:
        """Give the value of `forward`."""
        return self.forward()

    def __add__(self, other: Any) -> Self:
        """Add two patches of one class into a new one; adding 0 gives a copy.

        Raises:
            PatchError: the classes or metrics differ, or `add` returned no patch.
        """
        if type(other) is int and other == 0:
            return self.copy()
        if type(other) is not type(self):
            raise PatchError(mismatch(self, "", other))
        joined = self.copy().add(other.copy())
        if not isinstance(joined, PatchBase):
            raise PatchError(
                f"{type(self).__name__}.add returned {describe(joined)}: it must return a patch; "
                "end it with `return self`."
            )
        return joined

    def __radd__(self, other: Any) -> Self:
        """Give a copy for ``0 + self``, with which ``sum`` begins."""
        if type(other) is int and other == 0:
            return self.copy()
        raise PatchError(mismatch(self, "", other))

    def copy(self) -> Self:
        """Give an independent patch: containers and tensors are copied, functions are shared."""
        new = type(self).__new__(type(self))
        for key, value in self.__dict__.items():
            new.__dict__[key] = copied(value)
        return new

    def num_numbers(self, most: int) -> int:
        """Count the numbers that the patch holds; stop at more than `most`."""
        return count_numbers(self.__dict__, most)

    def state_dict(self) -> dict[str, Any]:
        """Give a copy of all attributes but metrics, models and the name.

        Raises:
            PatchError: a checkpoint cannot hold an attribute; the subclass then needs its own
                state_dict and load_state_dict.
        """
        return {
            key: for_checkpoint(value, f"{type(self).__name__}.{key}")
            for key, value in self._attributes_with_data().items()
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load what `state_dict` gave, in place of what this patch holds."""
        for key in self._attributes_with_data().keys() - state.keys():
            del self.__dict__[key]
        for key, value in state.items():
            setattr(self, key, copied(value))

    def _attributes_with_data(self) -> dict[str, Any]:
        return {
            key: value
            for key, value in self.__dict__.items()
            if key not in ("name", "on_copies") and not is_configuration(value)
        }

    def __repr__(self) -> str:
        """Give the class, the metric, the name, and how much is in it."""
        metric = getattr(self, "metric", None)
        parts = [] if metric is None else [metric_name(metric)]
        parts += [] if self.name is None else [f"name={self.name!r}"]
        return f"{type(self).__name__}({', '.join([*parts, *self._amounts()])})"

    def _amounts(self) -> list[str]:
        """Say how much was loaded, without a wait for an accelerator."""
        return []


def metric_name(metric: Any) -> str:
    """Give the name under which a metric is printed and returned.

    Args:
        metric: a function (its ``__name__``), a ``functools.partial`` (the function's name), any
            other object or module (its class's name; ``''`` for a torchmetrics
            ``MetricCollection``, whose keys are names), or a patch (its ``name``) or patch class.
            A name that `rename` has set takes precedence.

    Example:
        >>> import functools, torch
        >>> from deepepochs.metrics import f1
        >>> metric_name(functools.partial(f1, average="macro")), metric_name(torch.nn.L1Loss())
        ('f1', 'L1Loss')
    """
    attribute = "name" if isinstance(metric, PatchBase) else "__name__"
    name = getattr(metric, attribute, None)
    if isinstance(name, str):
        return name
    if isinstance(metric, functools.partial):
        return metric_name(metric.func)
    own = type(metric).__name__
    return "" if own == "MetricCollection" else own


def mismatch(patch: PatchBase, detail: str, other: Any) -> str:
    """Give the message for two patches that cannot be added."""
    found = other if isinstance(other, PatchBase) else describe(other)
    return (
        f"{patch} + {found}{detail}: only patches of one class and one metric can be added; give "
        "different metrics different names."
    )


def check_same_metric(patch: Any, other: Any) -> None:
    """Raise a PatchError if the metrics of two patches differ."""
    if patch.metric is not other.metric and not _is_same(patch.metric, other.metric):
        raise PatchError(mismatch(patch, " (two metrics)", other))


def _is_same(one: Any, two: Any) -> bool:
    """Say whether two functions are equal: a lambda or partial in a step is made for each batch."""
    if one is two:
        return True
    if isinstance(one, functools.partial) and isinstance(two, functools.partial):
        return (
            _is_same(one.func, two.func)
            and len(one.args) == len(two.args)
            and all(map(_is_same, one.args, two.args))
            and one.keywords.keys() == two.keywords.keys()
            and all(_is_same(one.keywords[key], two.keywords[key]) for key in one.keywords)
        )
    if isinstance(one, FunctionType) and isinstance(two, FunctionType):
        cells = [[cell.cell_contents for cell in f.__closure__ or ()] for f in (one, two)]
        return (
            one.__code__ is two.__code__
            and all(map(_is_same, *cells))
            and all(map(_is_same, one.__defaults__ or (), two.__defaults__ or ()))
            and one.__kwdefaults__ == two.__kwdefaults__
        )
    plain = (bool, int, float, str, tuple, type(None), MethodType, BuiltinMethodType)
    return type(one) is type(two) and isinstance(one, plain) and bool(one == two)


def _no_method(patch: PatchBase, signature: str, what: str) -> PatchError:
    method = signature.partition("(")[0]
    return PatchError(
        f"{type(patch).__name__} has no {method}: define `def {signature}` to {what}."
    )


def copied(value: Any) -> Any:
    """Copy tensors, containers and plain objects; share what can be called (metrics, models)."""

    def leaf(item: Any) -> Any:
        if isinstance(item, Tensor):
            return item.detach().clone()
        if isinstance(item, PatchBase):
            return item.copy()
        return item if callable(item) else copy.deepcopy(item)

    return walk(leaf, value)


def count_numbers(value: Any, most: int) -> int:
    """Count the numbers in containers, tensors, arrays and patches; stop at more than `most`."""
    total, waiting = 0, [value]
    while waiting and total <= most:
        item = waiting.pop()
        if isinstance(item, dict):
            waiting += item.values()
        elif isinstance(item, (list, tuple, set, frozenset)):
            waiting += item
        elif isinstance(item, PatchBase):
            total += item.num_numbers(most)
        else:
            total += item.numel() if isinstance(item, Tensor) else np.size(item)
    return total


def for_checkpoint(value: Any, where: str) -> Any:
    """Copy `value` for a checkpoint; raise a PatchError that names `where` if it cannot be saved.

    A container whose class a checkpoint does not keep, such as a named tuple, becomes a plain
    dict, list, tuple or set.
    """
    plain: Any
    if isinstance(value, dict):
        plain = {key: for_checkpoint(item, where) for key, item in value.items()}
    elif isinstance(value, (set, frozenset)):
        plain = {for_checkpoint(item, where) for item in value}
    elif isinstance(value, (tuple, list)):
        plain = [for_checkpoint(item, where) for item in value]
        plain = tuple(plain) if isinstance(value, tuple) else plain
    elif isinstance(value, Tensor) or is_plain(value):
        return copied(value)
    else:
        raise PatchError(
            f"{where} holds {describe(value)}, which cannot be saved: keep numbers, strings, tensors, "
            "arrays, and tuples, lists and dicts of them, or give the class its own state_dict and "
            "load_state_dict."
        )
    return type(value)(plain) if keeps_class(type(value)) else plain


def is_configuration(value: Any) -> bool:
    """Say whether `value` is a metric, a model, or a container of them, and no data."""
    leaves: list[Any] = []
    walk(leaves.append, value)
    rest = [leaf for leaf in leaves if isinstance(leaf, PatchBase) or not callable(leaf)]
    return len(rest) < len(leaves) and all(isinstance(leaf, (str, type(None))) for leaf in rest)


def checked_metric(metric: Any, owner: str) -> Any:
    """Return `metric`, or raise a ConfigTypeError if it cannot be called."""
    if not callable(metric):
        raise ConfigTypeError(
            f"{owner} got {describe(metric)} as metric: give a function (outputs, targets)."
        )
    return metric


def flatten_value(name: str, value: Any) -> dict[str, Any]:
    """Give a metric's value as a flat dict, with the names that a user sees.

    Args:
        name: the metric's name; the keys of a dict are appended to it directly.
        value: a number, a NumPy number, a tensor, or a dict of these; the keys of nested dicts
            are joined by a dot.

    Returns:
        Names and values; one pair unless the value is a dict.

    Raises:
        MetricError: a value is none of these.

    Example:
        >>> flatten_value("m.", {"p": 0.5, "of": {"cat": 1.0}})
        {'m.p': 0.5, 'm.of.cat': 1.0}
    """
    if type(value) is float:
        return {name: value}
    if isinstance(value, dict):
        flat: dict[str, Any] = {}
        for key, item in value.items():
            dot = "." if isinstance(item, dict) else ""
            flat.update(flatten_value(f"{name}{key}{dot}", item))
        return flat
    if not isinstance(value, (Tensor, int, float, np.number, np.bool_, np.ndarray)):
        raise MetricError(
            f"metric {name!r} gave {describe(value)}: return a number, a tensor, or a dict of them."
        )
    return {name: value}


def call_metric(
    metric: Callable[..., Any], *args: Any, on_copies: bool = False, **named: Any
) -> Any:
    """Call a metric outside autograd, ``on_copies`` of tensors if asked.

    An error gets a note with the metric's arguments.

    Raises:
        ArgumentsChanged: it has changed its arguments in place, and they were no copies.
    """
    args = reuse.clones(args) if on_copies else args
    before = reuse.versions(args)
    try:
        with torch.no_grad():
            value = metric(*args, **named)
    except Exception as error:
        found = " and ".join(describe(arg) for arg in [*args, *named.values()])
        add_note(error, f"The metric {metric_name(metric)!r} was called with {found}.")
        raise
    if not on_copies and reuse.versions(args) != before:
        raise ArgumentsChanged(
            f"The metric {metric_name(metric)!r} has changed its arguments in place, so that the "
            "values of other metrics and of the epoch would be wrong: compute new tensors, for "
            "example with preds.sigmoid() instead of preds.sigmoid_()."
        )
    return value
