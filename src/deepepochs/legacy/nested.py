"""Functions of 0.6 for nested batches, beside those in `deepepochs.nest`.

>>> import torch
>>> from deepepochs.loops import batch_size
>>> batch_size([torch.zeros(8, 3), torch.zeros(8)])
8
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sized
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from ..nest.operations import TensorDict, TensorTuple, first_tensor, map_tensors, walk


def batch_size(data: Any, batch_dim: int = 0) -> int:
    """Guess the number of samples in a mini-batch.

    Args:
        data: a tensor or array (its dimension `batch_dim`; a 0-d one counts 1), a list or
            tuple (its first element; of texts, their number), a dict (its first tensor), a
            batch of graphs (``num_graphs``), or anything with a length.
        batch_dim: the dimension that counts samples.

    Returns:
        The number; 1 if it cannot be guessed.

    Example:
        >>> batch_size((torch.zeros(8, 3), torch.zeros(4))), batch_size({"x": torch.zeros(5)})
        (8, 5)
    """
    if isinstance(data, (Tensor, np.ndarray)):
        return int(data.shape[batch_dim]) if data.ndim > batch_dim else 1
    if isinstance(data, PackedSequence):
        return int(data.batch_sizes[0])
    if isinstance(data, Mapping):
        first = first_tensor(data)
        if first is not None:
            return batch_size(first, batch_dim)
        return batch_size(next(iter(data.values()), None), batch_dim)
    if isinstance(data, (list, tuple)):
        if data and isinstance(data[0], (str, bytes)):
            return len(data)
        return batch_size(data[0], batch_dim) if data else 1
    num_graphs = getattr(data, "num_graphs", None)
    if isinstance(num_graphs, int):
        return num_graphs
    # The length of one graph is its number of fields, that of a text its number of letters.
    is_one = isinstance(data, (str, bytes)) or hasattr(data, "num_nodes")
    return len(data) if isinstance(data, Sized) and not is_one else 1


def detach_clone(x: Any) -> Any:
    """Copy every tensor in `x`, detached from autograd.

    >>> detach_clone({"x": torch.ones(1, requires_grad=True)})
    {'x': tensor([1.])}
    """
    return map_tensors(lambda t: t.detach().clone(), x)


def clone_value(x: Any) -> Any:
    """Copy `x` deeply; unlike in ``copy.deepcopy``, tensors keep their autograd history.

    >>> clone_value({"n": 1, "x": [torch.ones(1)]})
    {'n': 1, 'x': [tensor([1.])]}
    """
    return walk(lambda i: i.clone() if isinstance(i, Tensor) else copy.deepcopy(i), x)


def to_numpy(x: Any) -> Any:
    """Convert every tensor in `x` to a NumPy array; bfloat16, which NumPy lacks, to float32.

    >>> to_numpy([torch.ones(2), {"x": torch.zeros(())}])
    [array([1., 1.], dtype=float32), {'x': array(0., dtype=float32)}]
    """

    def array(t: Tensor) -> Any:
        return (t.float() if t.dtype is torch.bfloat16 else t).numpy(force=True)

    return map_tensors(array, x)


def tensor_tuple(x: Any) -> Any:
    """Make a list or tuple a `TensorTuple`, inner ones too; return anything else unchanged.

    >>> type(tensor_tuple([torch.ones(1)])).__name__
    'TensorTuple'
    """
    return TensorTuple(map(tensor_tuple, x)) if isinstance(x, (list, tuple)) else x


def compose_data(x: Any) -> Any:
    """Make lists and tuples `TensorTuple` and dicts `TensorDict`, inner ones too.

    >>> type(compose_data({"x": torch.ones(1)})).__name__
    'TensorDict'
    """
    if isinstance(x, dict):
        return TensorDict({key: compose_data(item) for key, item in x.items()})
    return TensorTuple(map(compose_data, x)) if isinstance(x, (list, tuple)) else x
