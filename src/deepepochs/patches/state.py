"""Copies of what a patch holds, and its form in a checkpoint: tensors and plain types only.

A checkpoint is read with ``weights_only=True``, which knows neither arrays nor our own
containers; those are written as a dict with one marked key.

>>> import numpy as np
>>> from deepepochs.patches.state import decoded, encoded
>>> encoded({"n": 1, "sums": np.zeros(2)}, "MyPatch.seen")
{'n': 1, 'sums': {'__numpy__': tensor([0., 0.], dtype=torch.float64)}}
>>> decoded(encoded({1, 2}, "MyPatch.seen"))
{1, 2}
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import PatchError
from ..legacy.mappings import ddict
from ..nest.containers import TensorDict, TensorTuple, describe, walk

__all__ = ["Copyable", "copied", "decoded", "encoded", "is_configuration"]


class Copyable:
    """What copies itself: patches, also inside of other patches' attributes."""

    def copy(self) -> Any:
        """Give an independent copy."""
        raise NotImplementedError


_PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.Size)
# Built from one argument; the name in the checkpoint is the mark.
_MARKED: dict[str, Any] = {
    "__numpy__": lambda tensor: tensor.numpy(force=True),
    "__number__": lambda tensor: tensor.numpy(force=True)[()],
    "__set__": set,
    "__TensorTuple__": TensorTuple,
    "__TensorDict__": TensorDict,
    "__ddict__": ddict,
}


def copied(value: Any) -> Any:
    """Copy tensors, containers and plain objects; share what can be called (metrics, models)."""
    return walk(_copied_leaf, value)


def _copied_leaf(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, Copyable):
        return value.copy()
    if callable(value) or isinstance(value, _PLAIN):
        return value
    return copy.deepcopy(value)


def is_configuration(value: Any) -> bool:
    """Say whether `value` is a metric, a model, or a container of such, rather than data."""
    leaves: list[Any] = []
    walk(leaves.append, value)
    functions = [leaf for leaf in leaves if callable(leaf) and not isinstance(leaf, Copyable)]
    rest = [leaf for leaf in leaves if not callable(leaf)]
    patches = len(leaves) - len(functions) - len(rest)
    return bool(functions) and not patches and all(isinstance(i, (str, type(None))) for i in rest)


def encoded(value: Any, where: str) -> Any:
    """Give `value` as tensors and plain types; the tensors are copies.

    Args:
        value: numbers, strings, tensors, arrays, or tuples, lists, dicts and sets of them.
        where: the attribute, for the message.

    Raises:
        PatchError: something else is in it.
    """
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, np.ndarray) and value.dtype != object:
        return {"__numpy__": torch.from_numpy(value.copy())}
    if isinstance(value, (np.number, np.bool_)):
        return {"__number__": torch.from_numpy(np.array(value))}
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, TensorTuple):
        return {"__TensorTuple__": [encoded(item, where) for item in value]}
    if isinstance(value, (TensorDict, ddict)):
        mark = "__TensorDict__" if isinstance(value, TensorDict) else "__ddict__"
        return {mark: {key: encoded(item, where) for key, item in value.items()}}
    if isinstance(value, dict):
        return {encoded(key, where): encoded(item, where) for key, item in value.items()}
    if isinstance(value, (set, frozenset)):
        return {"__set__": [encoded(item, where) for item in value]}
    if isinstance(value, tuple):
        return tuple(encoded(item, where) for item in value)
    if isinstance(value, list):
        return [encoded(item, where) for item in value]
    raise PatchError(
        f"{where} holds {describe(value)}, which a checkpoint cannot: keep numbers, strings, "
        "tensors, arrays, and tuples, lists and dicts of them, or give the class its own "
        "state_dict and load_state_dict."
    )


def decoded(value: Any) -> Any:
    """Turn what `encoded` gave into what it was given; the tensors are copies."""
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, dict):
        if len(value) == 1:
            ((mark, inner),) = value.items()
            if mark in _MARKED:
                return _MARKED[mark](decoded(inner))
        return {key: decoded(item) for key, item in value.items()}
    if type(value) in (tuple, list):
        return type(value)(decoded(item) for item in value)
    return value
