"""What a person would call an object that was given in the wrong place.

>>> import torch
>>> named(torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1))
'an optimizer (SGD)'
>>> named(torch.nn.functional.cross_entropy), named(0.1), named([1, 2])
('the function cross_entropy', '0.1, a float', 'a list of 2 int')
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.nn.modules.loss import _Loss
from torch.utils.data import DataLoader, Dataset

from ..nest.operations import describe

MODEL, LOSS, OPTIMIZER = "a model", "a loss function", "an optimizer"
SCHEDULER, CALLBACK = "a scheduler", "a callback"
LOADER, DATA_SET, TABLE = "a loader", "a data set", "a table"

_TABLES = ("pandas", "polars", "pyarrow", "xarray", "dask")


def role_of(value: Any) -> str | None:
    """Say what an object is for, as far as its class tells; a function may be a loss or a metric."""
    kind = type(value)
    bases = {base.__name__ for base in kind.__mro__}
    if isinstance(value, type) or value is None:
        return None
    if isinstance(value, nn.Module):
        return LOSS if isinstance(value, _Loss) else MODEL
    if "Optimizers" in bases or callable(getattr(kind, "zero_grad", None)):
        return OPTIMIZER
    if bases & {"LRScheduler", "_LRScheduler"} or (
        hasattr(kind, "step") and hasattr(value, "optimizer")
    ):
        return SCHEDULER
    if "Callback" in bases:
        return CALLBACK
    if isinstance(value, DataLoader):
        return LOADER
    if isinstance(value, Dataset):
        return DATA_SET
    if kind.__module__.partition(".")[0] in _TABLES:
        return TABLE
    if isinstance(value, (Tensor, np.ndarray)):
        return None
    return LOSS if is_function(value) else None


def is_function(value: Any) -> bool:
    """Whether an object is a function, or a partial of one, and not a class or module."""
    if isinstance(value, functools.partial):
        return is_function(value.func)
    return (
        callable(value) and not isinstance(value, (type, nn.Module)) and hasattr(value, "__name__")
    )


def named(value: Any) -> str:
    """Say what an object is in a few words, without its contents."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if value is None:
        return "None"
    if isinstance(value, (str, int, float, complex)):
        text = repr(value)
        return f"{text if len(text) <= 60 else text[:57] + '...'}, {describe(value)}"
    if isinstance(value, functools.partial):
        return f"a partial of {named(value.func)}"
    if is_function(value):
        return f"the function {value.__name__}"
    role = role_of(value)
    return describe(value) if role in (None, LOADER) else f"{role} ({type(value).__name__})"
