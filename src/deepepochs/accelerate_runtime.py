"""A run on Accelerate: several processes, mixed precision, sharded models.

Accelerate is the engine; what is added here is exactness: every process gets its
own share of the data without repeated samples, and what is counted is counted once.

::

    trainer = Trainer(model, loss, opt, device=Accelerator(mixed_precision="bf16"))
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from .errors import ConfigError
from .optimizers import Optimizer, Optimizers

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["AccelerateRuntime", "is_accelerator", "make_accelerator"]


class AccelerateRuntime:
    """The processes, precision and devices of an ``Accelerator``.

    Args:
        accelerator: the user's; whatever he has prepared with it is left alone.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.device: torch.device = accelerator.device
        self.on_cpu = self.device.type == "cpu"
        self.is_main: bool = accelerator.is_main_process
        self.rank: int = accelerator.process_index
        self.num_processes: int = accelerator.num_processes
        self._shares: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()

    def __str__(self) -> str:
        kind = str(self.accelerator.distributed_type).rpartition(".")[2]
        return f"Accelerate-{kind}-{self.num_processes}"

    def prepare(self, model: nn.Module, loss_fn: Any, opt: Optimizers) -> nn.Module:
        """Prepare model, loss function and optimizers, but not what is prepared already."""
        from accelerate.optimizer import AcceleratedOptimizer

        todo: list[Any] = [] if _is_prepared(model) else [model]
        fresh = [o for o in opt if not isinstance(o.opt, AcceleratedOptimizer)]
        todo += [o.opt for o in fresh]
        if todo:
            done = self.accelerator.prepare(*todo)
            done = list(done) if isinstance(done, tuple) else [done]
            if not _is_prepared(model) or len(done) > len(fresh):
                model = done.pop(0)
            for optimizer, prepared in zip(fresh, done, strict=True):
                optimizer.rewrap(prepared)
        if isinstance(loss_fn, nn.Module):
            loss_fn.to(self.device)
        return model

    def backward(self, loss: Tensor) -> None:
        self.accelerator.backward(loss)

    def step(self, optimizer: Optimizer, loss: Any) -> None:
        optimizer.step("step", loss)

    def clip_by_norm(self, parameters: Iterable[Tensor], max_norm: float, norm_type: float) -> None:
        self.accelerator.clip_grad_norm_(parameters, max_norm, norm_type)

    def clip_by_value(self, parameters: Iterable[Tensor], max_value: float) -> None:
        self.accelerator.clip_grad_value_(parameters, max_value)

    def unscale(self, optimizer: Optimizer) -> None:
        """Undo the fp16 scaling of the gradients before they are looked at."""
        self.accelerator.unscale_gradients(optimizer.opt)

    def unwrap(self, model: nn.Module) -> nn.Module:
        module: nn.Module = self.accelerator.unwrap_model(model)
        return module

    def sync_gradients(
        self, model: nn.Module, wanted: bool
    ) -> contextlib.AbstractContextManager[Any]:
        """Keep gradients in this process unless they are ``wanted`` by all now."""
        if wanted or self.num_processes == 1:
            return contextlib.nullcontext()
        context: contextlib.AbstractContextManager[Any] = self.accelerator.no_sync(model)
        return context

    @contextlib.contextmanager
    def shared(self, loader: Any) -> Iterator[Any]:
        """Give the loader of this process's share, without samples repeated to even it out."""
        from accelerate.data_loader import BatchSamplerShard, prepare_data_loader

        if self.num_processes == 1:
            yield loader
            return
        if _is_prepared(loader):
            shard = loader.batch_sampler
            if not isinstance(shard, BatchSamplerShard):
                yield loader
                return
            even, shard.even_batches = shard.even_batches, False
            try:
                yield loader
            finally:
                shard.even_batches = even
        elif not isinstance(loader, DataLoader):
            yield _EveryNth(loader, self.num_processes, self.rank)
        elif isinstance(loader.dataset, IterableDataset):
            yield _share_iterable(loader, self.num_processes, self.rank)
        else:
            if loader not in self._shares:
                self._shares[loader] = prepare_data_loader(
                    loader,
                    num_processes=self.num_processes,
                    process_index=self.rank,
                    split_batches=self.accelerator.split_batches,
                    put_on_device=False,
                    rng_types=list(self.accelerator.rng_types or ()),
                    dispatch_batches=False,
                    even_batches=False,
                )
            yield self._shares[loader]

    def any(self, flag: bool) -> bool:
        """Whether any process says so."""
        return self.total([float(flag)])[0] > 0

    def total(self, values: list[float]) -> list[float]:
        """Add numbers up over the processes."""
        if self.num_processes == 1:
            return values
        tensor = torch.tensor(values, dtype=torch.float64, device=self._exchange_device())
        summed: Tensor = self.accelerator.reduce(tensor, reduction="sum")
        return [float(value) for value in summed.tolist()]

    def gather_objects(self, value: Any) -> list[Any]:
        """Give the value of every process, in the order of their ranks."""
        from accelerate.utils import gather_object

        if self.num_processes == 1:
            return [value]
        gathered: list[Any] = gather_object([value])
        return gathered

    def wait(self) -> None:
        """Wait for all processes."""
        self.accelerator.wait_for_everyone()

    @property
    def scaler(self) -> Any:
        """The fp16 gradient scaler, or ``None``."""
        return self.accelerator.scaler

    def _exchange_device(self) -> torch.device:
        # MPS knows no float64, and never has several processes.
        return self.device if self.device.type in ("cuda", "cpu", "xpu") else torch.device("cpu")


class _EveryNth:
    """The mini-batches of one process from an iterable of ready ones: every n-th."""

    def __init__(self, batches: Iterable[Any], num_processes: int, rank: int) -> None:
        self.batches = batches
        self.num_processes = num_processes
        self.rank = rank

    def __iter__(self) -> Iterator[Any]:
        for index, batch in enumerate(self.batches):
            if index % self.num_processes == self.rank:
                yield batch

    def __len__(self) -> int:
        total = len(self.batches)  # type: ignore[arg-type]
        return (total - self.rank + self.num_processes - 1) // self.num_processes


class _IterableShare(IterableDataset[Any]):
    """The samples of one process from a stream: blocks of a batch's size in turn."""

    def __init__(self, dataset: Any, block: int, num_processes: int, rank: int) -> None:
        self.dataset = dataset
        self.block = block
        self.num_processes = num_processes
        self.rank = rank

    def __iter__(self) -> Iterator[Any]:
        for index, sample in enumerate(self.dataset):
            if index // self.block % self.num_processes == self.rank:
                yield sample


def _share_iterable(loader: DataLoader[Any], num_processes: int, rank: int) -> DataLoader[Any]:
    return DataLoader(
        _IterableShare(loader.dataset, loader.batch_size or 1, num_processes, rank),
        batch_size=loader.batch_size,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        drop_last=loader.drop_last,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        generator=loader.generator,
    )


def _is_prepared(thing: Any) -> bool:
    return bool(getattr(thing, "_is_accelerate_prepared", False))


def is_accelerator(device: Any) -> bool:
    """Whether ``device`` is an ``Accelerator``, without importing Accelerate to ask."""
    return any(
        base.__name__ == "Accelerator" and base.__module__.startswith("accelerate.")
        for base in type(device).__mro__
    )


def make_accelerator(device: Any, precision: str | None) -> Any:
    """Make the ``Accelerator`` that ``device`` and ``precision`` ask for; ``None`` for none.

    ``device='auto'`` takes one exactly when started by torchrun or accelerate launch.
    """
    if is_accelerator(device):
        if precision is not None and device.mixed_precision != precision:
            raise ConfigError(
                f"precision={precision!r}, and the Accelerator has {device.mixed_precision!r}: give "
                "it to one of them."
            )
        return device
    launched = device == "auto" and int(os.environ.get("WORLD_SIZE", "1")) > 1
    if not launched and precision in (None, "no"):
        return None
    from accelerate import Accelerator

    name = str(device) if device not in (None, "auto") else ""
    if name not in ("", "cpu", "cuda", "mps"):
        raise ConfigError(
            f"device={device!r} with precision={precision!r}: make the device visible alone (for "
            "example CUDA_VISIBLE_DEVICES=1) and give device='cuda'."
        )
    return Accelerator(mixed_precision=precision, cpu=name == "cpu")
