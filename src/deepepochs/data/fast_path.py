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
_COLLATE = getattr(torch_collate, "default_collate_fn_map", {})
_STACK = _COLLATE.get(torch.Tensor)

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

    What is changed in the course of a pass is seen: indices of a subset, values, tensors.
    """
    if not _is_stock(loader):
        return None
    subsets: list[Any] = []
    dataset = loader.dataset
    while type(dataset) is Subset and not vars(dataset).keys() & {"__getitems__"}:
        if not _is_plain_indices(dataset.indices):
            return None
        subsets.append(dataset)
        dataset = dataset.dataset
    if type(dataset) is not TensorDataset or "__getitems__" in vars(dataset):
        return None
    tensors = dataset.tensors
    if not _are_plain(tensors):
        return None
    pin = _pins(loader)
    if pin is None or (pin and any(tensor.device.type != "cpu" for tensor in tensors)):
        return None
    return _make_fetch(loader, dataset, subsets, pin)


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
        and torch_collate.default_collate_fn_map is _COLLATE
        and _COLLATE.get(torch.Tensor) is _STACK
        # Samples are tuples; there is no function of the user's for them.
        and not any(issubclass(tuple, kind) for kind in _COLLATE)
    )


def _are_plain(tensors: tuple[torch.Tensor, ...]) -> bool:
    """Whether there are tensors, all of one length, and rows of them are read as by a loader."""
    return (
        bool(tensors)
        and all(map(_is_plain, tensors))
        and all(tensor.shape[0] == tensors[0].shape[0] for tensor in tensors)
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


def _is_plain_indices(indices: Any) -> bool:
    if type(indices) in (list, tuple, range):
        return True
    if type(indices) is np.ndarray:
        return indices.ndim == 1 and indices.dtype in (np.int64, np.int32)
    return (
        type(indices) is torch.Tensor
        and indices.dim() == 1
        and indices.dtype in (torch.int64, torch.int32)
        and indices.device.type == "cpu"
    )


def _pins(loader: Any) -> bool | None:
    """Whether the loader would pin its batches; ``None`` where pinning is not CUDA's."""
    if not loader.pin_memory or not torch.accelerator.is_available():
        return False
    accelerator = torch.accelerator.current_accelerator()
    return True if accelerator is not None and accelerator.type == "cuda" else None


def _make_fetch(
    loader: Any, source: Any, subsets: list[Any], pin: bool
) -> Callable[[Any], list[torch.Tensor]]:
    dataset, collate = loader.dataset, loader.collate_fn
    tensors = source.tensors
    links = list(zip(subsets, [*subsets[1:], source], strict=False))
    on_cpu = all(tensor.device.type == "cpu" for tensor in tensors)
    from_numpy, as_array, int64 = torch.from_numpy, np.array, torch.int64

    def fetch(indices: Any) -> list[torch.Tensor]:
        nonlocal tensors, on_cpu
        # Negative, out of range, no integers, no list, a collate function that was set by now:
        # the data set itself gives the right result or error. It is called only where the fast
        # way fails, so that costs nothing.
        if type(indices) is not list:
            return slowly(indices)
        try:
            if source.tensors is not tensors:
                if not _are_plain(source.tensors):
                    return slowly(indices)
                tensors = source.tensors
                on_cpu = all(tensor.device.type == "cpu" for tensor in tensors)
            if tuple in _COLLATE or _COLLATE[torch.Tensor] is not _STACK:
                return slowly(indices)
            chosen = _choose(links, indices) if links else indices
            rows = from_numpy(as_array(chosen))  # 2 us for 32 numbers; torch.tensor takes 9
            if rows.dtype is not int64 or rows.dim() != 1:
                return slowly(indices)
            if on_cpu:
                batch = [tensor.index_select(0, rows) for tensor in tensors]
            else:
                batch = [tensor.index_select(0, rows.to(tensor.device)) for tensor in tensors]
        except (LookupError, TypeError, ValueError, RuntimeError, OverflowError):
            return slowly(indices)
        return [tensor.pin_memory() for tensor in batch] if pin else batch

    def slowly(indices: Any) -> list[torch.Tensor]:
        batch: list[torch.Tensor] = collate(_samples(dataset, indices))
        return [tensor.pin_memory() for tensor in batch] if pin else batch

    return fetch


def _samples(dataset: Any, indices: Any) -> Any:
    """Read samples as a loader does."""
    if getattr(dataset, "__getitems__", None):
        return dataset.__getitems__(indices)
    return [dataset[index] for index in indices]


def _choose(links: list[tuple[Any, Any]], indices: Any) -> Any:
    """Go through nested subsets, the outermost first, as they are now; raise where that differs.

    ``links`` are the subsets, each with the data set that it is of.
    """
    for subset, within in links:
        chosen = subset.indices
        if subset.dataset is not within or not _is_plain_indices(chosen):
            raise ValueError("changed in the course of the pass")
        if type(chosen) in (list, tuple, range):
            indices = list(map(chosen.__getitem__, indices))
            continue
        rows = np.array(indices)
        if rows.dtype != np.int64:
            raise ValueError("these are no indices")
        picked = chosen[rows] if type(chosen) is np.ndarray else chosen[torch.from_numpy(rows)]
        indices = np.asarray(picked, dtype=np.int64)
    return indices
