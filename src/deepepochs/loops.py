"""Keeps the import path ``deepepochs.loops`` of 0.6, and the names `seed` and `detach` of 0.5.

>>> from deepepochs.loops import ddict, set_seed
>>> set_seed(1)
"""

from __future__ import annotations

from .arguments import default_loss
from .errors import LoopException, StopLoopException
from .legacy.mappings import concat_dicts, ddict, flatten_dict, keyset, listify, sum_dicts
from .legacy.naming import check_path, make_runningid, rename
from .legacy.nested import (
    batch_size,
    clone_value,
    compose_data,
    detach_clone,
    tensor_tuple,
    to_numpy,
)
from .legacy.printing import info as info
from .legacy.printing import log_batch as log_batch
from .legacy.printing import log_epoch as log_epoch
from .legacy.printing import print_out as print_out
from .nest.operations import TensorDict, TensorTuple, concat
from .rng import set_seed

__all__ = [
    "LoopException", "StopLoopException", "TensorDict", "TensorTuple", "batch_size", "check_path",
    "clone_value", "compose_data", "concat", "concat_dicts", "ddict", "default_loss", "detach",
    "detach_clone", "flatten_dict", "keyset", "listify", "make_runningid", "rename", "seed",
    "set_seed", "sum_dicts", "tensor_tuple", "to_numpy",
]  # fmt: skip

detach = detach_clone  # the names of 0.5
seed = set_seed
