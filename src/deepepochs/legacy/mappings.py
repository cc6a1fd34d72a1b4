"""Small tools for dicts and lists: attribute access, flattening, merging and summing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import ConfigError
from ..nest.codec import own_container
from ..nest.operations import listify as listify
from .nested import to_numpy


@own_container
class ddict(dict[Any, Any]):
    """A dict whose text keys can be read, set and deleted as attributes.

    A dict that is put into it becomes a `ddict`, too. A key that is also the name of a method
    of ``dict``, such as `items`, works in brackets only.

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
            raise self._no_key(name) from None

    def __setattr__(self, name: str, value: Any) -> None:
        if hasattr(dict, name):
            raise AttributeError(f"{name!r} is a method of dict: write d[{name!r}] = ...")
        self[name] = value

    def __delattr__(self, name: str) -> None:
        if name not in self:
            raise self._no_key(name)
        del self[name]

    def _no_key(self, name: str) -> AttributeError:
        return AttributeError(f"there is no key {name!r}; the keys are {list(self)}")

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Set several keys, as ``dict.update`` does."""
        for key, value in dict(*args, **kwargs).items():
            self[key] = value

    def setdefault(self, key: Any, default: Any = None) -> Any:
        """Return the value of `key`; set it to `default` first if it is missing."""
        if key not in self:
            self[key] = default
        return self[key]

    def copy(self) -> ddict:
        """Return a new `ddict` with the same values; the dicts in it are shared."""
        return ddict(self)

    def __or__(self, other: Any) -> Any:
        return ddict({**self, **other}) if isinstance(other, dict) else NotImplemented

    def __ior__(self, other: Any) -> Any:
        self.update(other)
        return self


def flatten_dict(d: Mapping[Any, Any], parent_key: str = "", sep: str = ".") -> dict[Any, Any]:
    """Make one flat dict of nested ones, with joined keys.

    Args:
        d: the dict. Empty inner dicts are left out.
        parent_key: put before each key, unless it is empty.
        sep: put between joined keys.

    Raises:
        ConfigError: two values would get the same key.

    Example:
        >>> flatten_dict({"a": {"b": 1, "c": {"d": 2}}, "e": 3})
        {'a.b': 1, 'a.c.d': 2, 'e': 3}
    """
    flat: dict[Any, Any] = {}
    for key, value in d.items():
        full_key = f"{parent_key}{sep}{key}" if parent_key else key
        inner = flatten_dict(value, full_key, sep) if isinstance(value, Mapping) else None
        for item_key, item in ({full_key: value} if inner is None else inner).items():
            if item_key in flat:
                raise ConfigError(
                    f"flatten_dict finds two values for {item_key!r}: rename one, or give "
                    "another separator"
                )
            flat[item_key] = item
    return flat


def keyset(dicts: Iterable[Mapping[Any, Any]]) -> list[Any]:
    """List the keys of all `dicts`, each once, in the order of their first appearance.

    >>> keyset([{"loss": 1, "acc": 2}, {"f1": 3, "loss": 4}])
    ['loss', 'acc', 'f1']
    """
    return list(dict.fromkeys(key for d in dicts for key in d))


def concat_dicts(dicts: Iterable[Mapping[Any, Any]], to_np: bool = True) -> dict[Any, list[Any]]:
    """Collect the values of each key in a list, with 0 for a dict without the key.

    Args:
        dicts: for example the metrics of each epoch.
        to_np: turn tensors into NumPy arrays.

    Example:
        >>> concat_dicts([{"loss": 0.5}, {"loss": 0.25, "acc": 1}])
        {'loss': [0.5, 0.25], 'acc': [0, 1]}
    """
    dicts = list(dicts)
    gathered = {key: [d.get(key, 0) for d in dicts] for key in keyset(dicts)}
    return to_numpy(gathered) if to_np else gathered


def sum_dicts(dicts: Iterable[Mapping[Any, Any]], to_np: bool = False) -> ddict:
    """Sum the values of each key; a dict without the key adds nothing.

    Args:
        dicts: dicts of numbers, arrays or tensors.
        to_np: turn tensors into NumPy arrays.

    Example:
        >>> sum_dicts([{"tp": 1}, {"tp": 2, "fp": 3}])
        {'tp': 3, 'fp': 3}
    """
    sums = ddict()
    for d in dicts:
        for key, value in d.items():
            sums[key] = sums[key] + value if key in sums else value
    return to_numpy(sums) if to_np else sums
