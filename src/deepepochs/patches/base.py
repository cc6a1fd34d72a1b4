"""What every patch shares: adding, copying and saving.

A user's own patch needs two methods, ``add`` and ``forward``; most have a ``load`` too.

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
from types import BuiltinMethodType, FunctionType, MethodType
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..errors import PatchError
from ..nest.codec import is_plain, keeps_class
from ..nest.containers import describe, walk
from .metric import Copyable, metric_name

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = [
    "PatchBase",
    "check_same_metric",
    "copied",
    "describe_patch",
    "for_checkpoint",
    "mismatch",
]


class PatchBase(Copyable):
    """A metric's value so far, which can be added to another's: the base of all patches.

    The laws, which a subclass's `add` and `forward` must keep:

    1. ``a + b`` is a new patch; ``a`` and ``b`` are unchanged.
    2. ``(a + b) + c`` equals ``a + (b + c)``.
    3. ``0 + a`` and ``a + 0`` equal ``a``, so ``sum(patches)`` works.
    4. Merging the patches of a split batch equals the patch of the whole.
    5. ``load_state_dict(state_dict())`` is the identity.

    This class sees to 1 and 3 (``+`` works on copies), and to 5 for attributes that are
    numbers, strings, tensors, arrays, or tuples, lists and dicts of them.

    Args:
        name: if not None, replaces the name under which a step returns the patch.
    """

    name: str | None = None  # here, too, for subclasses that forget super().__init__()

    def __init__(self, name: str | None = None) -> None:
        self.name = name

    def load(self, *args: Any, **kwargs: Any) -> Self:
        """Store the data of one mini-batch and return self.

        Raises:
            PatchError: the subclass has no such method.
        """
        raise PatchError(_no_method(self, "load(self, *data)", "store the data and return self"))

    def add(self, other: Any) -> Self:
        """Join `other` into this patch; may change and return self, or return a new patch.

        Raises:
            PatchError: the subclass has no such method.
        """
        raise PatchError(_no_method(self, "add(self, other)", "join other and return self"))

    def forward(self) -> Any:
        """Give the value: a number, a 0-d or small tensor, or a dict of them.

        Raises:
            PatchError: the subclass has no such method.
        """
        raise PatchError(_no_method(self, "forward(self)", "return a number or a dict of numbers"))

    def __call__(self) -> Any:
        """Give the value, as `forward`."""
        return self.forward()

    def __add__(self, other: Any) -> Self:
        """Join two patches of one class into a new one; 0 adds nothing.

        Raises:
            PatchError: patches of different classes or metrics.
        """
        if type(other) is int and other == 0:
            return self.copy()
        if type(other) is not type(self):
            raise PatchError(mismatch(self, "", other))
        return self.copy()._checked_add(other.copy())

    def __radd__(self, other: Any) -> Self:
        """Give a copy for ``0 + self``, with which ``sum`` begins."""
        if type(other) is int and other == 0:
            return self.copy()
        raise PatchError(mismatch(self, "", other))

    def _checked_add(self, other: Self) -> Self:
        joined = self.add(other)
        if not isinstance(joined, PatchBase):
            raise PatchError(
                f"{type(self).__name__}.add returned {describe(joined)}: it must return a patch; "
                "end it with `return self`."
            )
        return joined

    def copy(self) -> Self:
        """Give an independent patch: containers and tensors are copied, functions are shared."""
        new = type(self).__new__(type(self))
        for key, value in self.__dict__.items():
            new.__dict__[key] = copied(value)
        return new

    def state_dict(self) -> dict[str, Any]:
        """Give a copy of what was accumulated; metrics and the name are left out.

        Raises:
            PatchError: an attribute holds something that a checkpoint cannot; the subclass
                should then have its own state_dict and load_state_dict.
        """
        return {
            key: for_checkpoint(value, f"{type(self).__name__}.{key}")
            for key, value in self.__dict__.items()
            if key != "name" and not is_configuration(value)
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave, in place of what this patch holds."""
        for key, value in list(self.__dict__.items()):
            if key != "name" and key not in state and not is_configuration(value):
                del self.__dict__[key]
        for key, value in state.items():
            setattr(self, key, copied(value))

    def __repr__(self) -> str:
        """Give the class and, if it has one, the name."""
        return describe_patch(self)


def describe_patch(patch: Any) -> str:
    """Say what `patch` is, for a message."""
    if not isinstance(patch, PatchBase):
        return describe(patch)
    metric = getattr(patch, "metric", None)
    parts = [] if metric is None else [metric_name(metric)]
    parts += [] if patch.name is None else [f"name={patch.name!r}"]
    return f"{type(patch).__name__}({', '.join(parts)})"


def mismatch(patch: PatchBase, detail: str, other: Any) -> str:
    """Give the sentence for two patches that cannot be added."""
    return (
        f"{describe_patch(patch)} + {describe_patch(other)}{detail}: only patches of one class "
        "and one metric can be added; give different metrics different names."
    )


def check_same_metric(patch: Any, other: Any) -> None:
    """Raise a PatchError where the metrics of two patches differ."""
    if patch.metric is not other.metric and not _is_same(patch.metric, other.metric):
        raise PatchError(mismatch(patch, " (two metrics)", other))


def _is_same(one: Any, two: Any) -> bool:
    """Say whether two functions are one, made again: as a lambda or partial in a step is."""
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


def _no_method(patch: PatchBase, signature: str, what: str) -> str:
    name = type(patch).__name__
    return f"{name} has no {signature.partition('(')[0]}: define `def {signature}` to {what}."


def copied(value: Any) -> Any:
    """Copy tensors, containers and plain objects; share what can be called (metrics, models)."""
    return walk(_copied_leaf, value)


def _copied_leaf(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, Copyable):
        return value.copy()
    return value if callable(value) else copy.deepcopy(value)


def for_checkpoint(value: Any, where: str) -> Any:
    """Copy `value` for a checkpoint.

    A container of a class that a checkpoint does not keep becomes the dict, list, tuple or set
    that it is: a model may put out a named tuple.

    Args:
        value: numbers, strings, tensors, arrays, or tuples, lists, dicts and sets of them.
        where: the attribute, for the message.

    Raises:
        PatchError: something else is in it.
    """
    kind = type(value)
    if isinstance(value, dict):
        items = {key: for_checkpoint(item, where) for key, item in value.items()}
        return kind(items) if keeps_class(kind) else items
    if isinstance(value, (set, frozenset)):
        return {for_checkpoint(item, where) for item in value}
    if isinstance(value, (tuple, list)):
        listed = [for_checkpoint(item, where) for item in value]
        if keeps_class(kind):
            return kind(listed)
        return tuple(listed) if isinstance(value, tuple) else listed
    if isinstance(value, Tensor) or is_plain(value):
        return copied(value)
    raise PatchError(
        f"{where} holds {describe(value)}, which a checkpoint cannot: keep numbers, strings, "
        "tensors, arrays, and tuples, lists and dicts of them, or give the class its own "
        "state_dict and load_state_dict."
    )


def is_configuration(value: Any) -> bool:
    """Say whether `value` is a metric, a model, or a container of such, rather than data."""
    leaves: list[Any] = []
    walk(leaves.append, value)
    functions = [leaf for leaf in leaves if callable(leaf) and not isinstance(leaf, Copyable)]
    rest = [leaf for leaf in leaves if not callable(leaf)]
    patches = len(leaves) - len(functions) - len(rest)
    return bool(functions) and not patches and all(isinstance(i, (str, type(None))) for i in rest)
