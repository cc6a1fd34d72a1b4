"""Keeps the import path ``deepepochs.loops`` of 0.6, and of 0.5 the names `seed` and `detach`.

Everything here is defined elsewhere in the package: see each name's own module. What
prints is loaded when it is first asked for.

>>> from deepepochs.loops import ddict, set_seed
>>> set_seed(1)
"""

from __future__ import annotations

import importlib
from typing import Any

from .arguments import default_loss
from .errors import LoopException, StopLoopException
from .legacy.mappings import concat_dicts, ddict, flatten_dict, keyset, listify, sum_dicts
from .legacy.naming import check_path, make_runningid, rename
from .nest.operations import (
    TensorDict,
    TensorTuple,
    batch_size,
    clone_value,
    compose_data,
    concat,
    detach_clone,
    tensor_tuple,
    to_numpy,
)
from .rng import set_seed

__all__ = [
    "LoopException",
    "StopLoopException",
    "TensorDict",
    "TensorTuple",
    "batch_size",
    "check_path",
    "clone_value",
    "compose_data",
    "concat",
    "concat_dicts",
    "ddict",
    "default_loss",
    "detach",
    "detach_clone",
    "flatten_dict",
    "keyset",
    "listify",
    "make_runningid",
    "rename",
    "seed",
    "set_seed",
    "sum_dicts",
    "tensor_tuple",
    "to_numpy",
]

detach = detach_clone  # what 0.5 called it
seed = set_seed  # likewise

_PRINTING = ("info", "log_batch", "log_epoch", "print_out")


def __getattr__(name: str) -> Any:
    if name in _PRINTING:
        console = importlib.import_module(".callbacks.console", __package__)
        return getattr(console, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_PRINTING])
