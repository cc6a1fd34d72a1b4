"""Dicts: with attribute access, flattened, merged and summed; and lists made of anything.

>>> from deepepochs.legacy.mappings import ddict, flatten_dict, listify, sum_dicts
>>> config = ddict(model={"width": 64})
>>> config.model.width
64
>>> flatten_dict(config), sum_dicts([{"a": 1}, {"a": 2, "b": 3}]), listify("one")
({'model.width': 64}, {'a': 3, 'b': 3}, ['one'])
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn import Module
from torch.utils.data import DataLoader

from ..errors import ConfigError
from ..nest.codec import own_container
from ..nest.containers import map_tensors

__all__ = ["concat_dicts", "ddict", "flatten_dict", "keyset", "listify", "sum_dicts"]


@own_container
class ddict(dict[Any, Any]):
    """A dict whose text keys can be read, set and deleted as attributes.

    Dicts put into it become `ddict` too. A key that is also the name of a method of
    ``dict``, such as `items`, can be used in brackets only.

    Example:
        >>> config = ddict(lr=0.1)
        >>> config.opt = {"name": "adam"}
        >>> del config.lr
        >>> config.opt.name, config
        ('adam', {'opt': {'name': 'adam'}})
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        self.update(*args, **kwargs)

    def __setitem__(self, key: Any, value: Any) -> None:
        is_plain = isinstance(value, dict) and not isinstance(value, ddict)
        super().__setitem__(key, ddict(value) if is_plain else value)

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"there is no key {name!r}; the keys are {list(self)}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        if hasattr(dict, name):
            raise AttributeError(f"{name!r} is a method of dict: write d[{name!r}] = ...")
        self[name] = value

    def __delattr__(self, name: str) -> None:
        try:
            del self[name]
        except KeyError:
            raise AttributeError(f"there is no key {name!r}; the keys are {list(self)}") from None

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Set many keys, as ``dict.update`` does."""
        for key, value in dict(*args, **kwargs).items():
            self[key] = value

    def setdefault(self, key: Any, default: Any = None) -> Any:
        """Give the value of `key`, which is set to `default` if it is missing."""
        if key not in self:
            self[key] = default
        return self[key]

    def copy(self) -> ddict:
        """Give a new `ddict` with the same values; dicts in it are shared."""
        return ddict(self)

    def __or__(self, other: Any) -> Any:
        return ddict({**self, **other}) if isinstance(other, dict) else NotImplemented

    def __ior__(self, other: Any) -> Any:
        self.update(other)
        return self


def listify(obj: Any) -> list[Any]:
    """Make a list of what may be one thing, several, or nothing.

    Args:
        obj: None gives no element; a list is returned as it is; a tuple or other iterable is
            listed; anything else is the one element: also a dict, a text, and what is
            iterable but one thing (a tensor, array, module or DataLoader).

    Example:
        >>> listify(None), listify((1, 2)), listify({"a": 1})
        ([], [1, 2], [{'a': 1}])
    """
    if obj is None:
        return []
    if isinstance(obj, list):
        return obj
    one_thing = (str, bytes, Mapping, Tensor, np.ndarray, Module, DataLoader)
    if isinstance(obj, Iterable) and not isinstance(obj, one_thing):
        return list(obj)
    return [obj]


def flatten_dict(d: Mapping[Any, Any], parent_key: str = "", sep: str = ".") -> dict[Any, Any]:
    """Join the keys of nested dicts.

    Args:
        d: the dict. Empty inner dicts leave no trace.
        parent_key: goes before each key; an empty one adds nothing.
        sep: stands between the keys that are joined.

    Raises:
        ConfigError: two values would get one key.

    Example:
        >>> flatten_dict({"a": {"b": 1, "c": {"d": 2}}, "e": 3})
        {'a.b': 1, 'a.c.d': 2, 'e': 3}
    """
    flat: dict[Any, Any] = {}
    for key, value in d.items():
        full_key = f"{parent_key}{sep}{key}" if parent_key else key
        items = (
            flatten_dict(value, full_key, sep) if isinstance(value, Mapping) else {full_key: value}
        )
        for item_key, item in items.items():
            if item_key in flat:
                raise ConfigError(
                    f"flatten_dict finds two values for {item_key!r}: rename one, or give "
                    "another separator"
                )
            flat[item_key] = item
    return flat


def keyset(dicts: Iterable[Mapping[Any, Any]]) -> list[Any]:
    """List the keys of all `dicts`, each once: the first dict's first, in its order.

    >>> keyset([{"loss": 1, "acc": 2}, {"f1": 3, "loss": 4}])
    ['loss', 'acc', 'f1']
    """
    return list(dict.fromkeys(key for d in dicts for key in d))


def concat_dicts(dicts: Iterable[Mapping[Any, Any]], to_np: bool = True) -> dict[Any, list[Any]]:
    """Gather the values of each key in a list; 0 where a dict lacks the key.

    Args:
        dicts: for example the metrics of each epoch.
        to_np: make tensors NumPy arrays.

    Example:
        >>> concat_dicts([{"loss": 0.5}, {"loss": 0.25, "acc": 1}])
        {'loss': [0.5, 0.25], 'acc': [0, 1]}
    """
    dicts = list(dicts)
    gathered = {key: [d.get(key, 0) for d in dicts] for key in keyset(dicts)}
    return _to_np(gathered) if to_np else gathered


def sum_dicts(dicts: Iterable[Mapping[Any, Any]], to_np: bool = False) -> ddict:
    """Sum the values of each key; a dict that lacks the key adds nothing.

    Args:
        dicts: of numbers, arrays or tensors.
        to_np: make tensors NumPy arrays.

    Example:
        >>> sum_dicts([{"tp": 1}, {"tp": 2, "fp": 3}])
        {'tp': 3, 'fp': 3}
    """
    sums = ddict()
    for d in dicts:
        for key, value in d.items():
            sums[key] = sums[key] + value if key in sums else value
    return ddict(_to_np(sums)) if to_np else sums


def _to_np(values: Any) -> Any:
    return map_tensors(lambda t: t.numpy(force=True), values)
