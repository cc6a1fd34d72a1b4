"""Batches of in-memory tensors by one index operation each.

A ``DataLoader`` over a ``TensorDataset`` reads the samples one by one and stacks them again:
20 % of a small model's training step. `tensor_fetch` gives a function that reads the whole
batch at once, or ``None`` where its result could differ from the loader's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Subset, TensorDataset, default_collate, get_worker_info
from torch.utils.data._utils import collate as torch_collate

_STOCK = {
    (cls, name): vars(cls).get(name)
    for cls in (TensorDataset, Subset, DataLoader)
    for name in ("__getitem__", "__getitems__", "__iter__", "_get_iterator")
}
_STACK = getattr(torch_collate, "default_collate_fn_map", {}).get(torch.Tensor)

# For these index_select and stack give the same on every supported version.
_DTYPES = {
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64),
    *(torch.complex128, torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32),
    torch.int64,
}


def tensor_fetch(loader: Any) -> Callable[[Any], list[torch.Tensor]] | None:
    """Give a function that reads a batch by one index operation; ``None`` where that is not exact.

    It is exact for a ``DataLoader`` without workers, with the default collate function and
    automatic batching, over a ``TensorDataset`` in any number of ``Subset``, of dense contiguous
    tensors. A subclass of any of these may mean something else by a sample.
    """
    if not _is_stock(loader):
        return None
    chain: list[Any] = []
    dataset = loader.dataset
    while type(dataset) is Subset and not vars(dataset).keys() & {"__getitems__"}:
        chain.append(dataset.indices)
        dataset = dataset.dataset
    if type(dataset) is not TensorDataset or "__getitems__" in vars(dataset):
        return None
    tensors = dataset.tensors
    if not tensors or not all(_is_plain(tensor) for tensor in tensors):
        return None
    num_samples = tensors[0].shape[0]
    if any(tensor.shape[0] != num_samples for tensor in tensors):
        return None
    chosen = _compose(chain, num_samples)
    if chain and chosen is None:
        return None
    pin = _pins(loader)
    if pin is None or (pin and any(tensor.device.type != "cpu" for tensor in tensors)):
        return None
    return _make_fetch(loader, tuple(tensors), chosen, pin)


def _is_stock(loader: Any) -> bool:
    return (
        type(loader) is DataLoader
        and loader.num_workers == 0
        and loader.batch_sampler is not None
        and loader.collate_fn is default_collate
        and not vars(loader).keys() & {"_get_iterator", "_index_sampler"}
        and get_worker_info() is None  # in a worker the collate function stacks into shared memory
        and all(vars(cls).get(name) is stock for (cls, name), stock in _STOCK.items())
        and _STACK is not None
        and torch_collate.default_collate_fn_map.get(torch.Tensor) is _STACK
    )


def _is_plain(tensor: Any) -> bool:
    return (
        type(tensor) is torch.Tensor
        and tensor.layout is torch.strided
        and not tensor.is_nested
        and tensor.dim() >= 1
        and tensor.dtype in _DTYPES
        and tensor.device.type in ("cpu", "cuda")
        and tensor.is_contiguous()
        and not tensor.requires_grad
        and not tensor.is_conj()
        and not tensor.is_neg()
    )


def _compose(chain: list[Any], num_samples: int) -> torch.Tensor | None:
    """Join the index lists of nested subsets, outermost first; ``None`` if that is not exact."""
    chosen: torch.Tensor | None = None
    for indices in reversed(chain):
        if not isinstance(indices, (list, tuple, range, np.ndarray, torch.Tensor)):
            return None
        try:
            step = torch.as_tensor(indices)
        except (TypeError, ValueError, RuntimeError, OverflowError):
            return None
        if step.numel() == 0:
            step = step.to(torch.int64)
        if step.dim() != 1 or step.dtype not in (torch.int64, torch.int32):
            return None
        limit = num_samples if chosen is None else chosen.numel()
        if step.numel() and not (int(step.min()) >= 0 and int(step.max()) < limit):
            return None  # negative or out of range: the data set says what that means
        step = step.to("cpu", torch.int64)
        chosen = step if chosen is None else chosen[step]
    return None if chosen is None else chosen.contiguous()


def _pins(loader: Any) -> bool | None:
    """Whether the loader would pin its batches; ``None`` where pinning is not CUDA's."""
    if not loader.pin_memory or not torch.accelerator.is_available():
        return False
    accelerator = torch.accelerator.current_accelerator()
    return True if accelerator is not None and accelerator.type == "cuda" else None


def _make_fetch(
    loader: Any, tensors: tuple[torch.Tensor, ...], chosen: torch.Tensor | None, pin: bool
) -> Callable[[Any], list[torch.Tensor]]:
    dataset, collate = loader.dataset, loader.collate_fn
    on_cpu = all(tensor.device.type == "cpu" for tensor in tensors)
    from_numpy, as_array, int64 = torch.from_numpy, np.array, torch.int64

    def fetch(indices: Any) -> list[torch.Tensor]:
        # Negative, out of range, no integers, no list: the data set itself gives the right
        # result or error. It is called only where the fast way fails, so that costs nothing.
        if type(indices) is not list:
            return slowly(indices)
        try:
            rows = from_numpy(as_array(indices))  # 2 us for 32 numbers; torch.tensor takes 9
            if rows.dtype is not int64 or rows.dim() != 1:
                return slowly(indices)
            if chosen is not None:
                rows = chosen.index_select(0, rows)
            if on_cpu:
                batch = [tensor.index_select(0, rows) for tensor in tensors]
            else:
                batch = [tensor.index_select(0, rows.to(tensor.device)) for tensor in tensors]
        except (IndexError, TypeError, ValueError, RuntimeError, OverflowError):
            return slowly(indices)
        return [tensor.pin_memory() for tensor in batch] if pin else batch

    def slowly(indices: Any) -> list[torch.Tensor]:
        batch: list[torch.Tensor] = collate([dataset[index] for index in indices])
        return [tensor.pin_memory() for tensor in batch] if pin else batch

    return fetch
