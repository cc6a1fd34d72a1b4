"""Loaders of every kind, and the walk that compares a resumed pass with an unbroken one."""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, TensorDataset

from deepepochs import rng
from deepepochs.data.cursor import Cursor
from deepepochs.nest.codec import from_plain, to_plain

NUM = 11


class Augmented(Dataset):
    """Draws from torch, NumPy and Python for every sample."""

    def __len__(self) -> int:
        return NUM

    def __getitem__(self, index: int) -> torch.Tensor:
        noise = [float(torch.rand(())), np.random.rand(), random.random()]
        return torch.tensor([float(index), *noise], dtype=torch.float64)


class OwnRandom(Augmented):
    """Draws from generators of its own."""

    def __init__(self) -> None:
        self.numpy_rng = np.random.default_rng(3)
        self.python_rng = random.Random(3)
        self.legacy_rng = np.random.RandomState(3)

    def __getitem__(self, index: int) -> torch.Tensor:
        noise = [self.numpy_rng.random(), self.python_rng.random(), self.legacy_rng.rand()]
        return torch.tensor([float(index), *noise], dtype=torch.float64)


class LazySampler:
    """Draws each index from the global generator as it is asked."""

    def __iter__(self) -> Iterator[int]:
        for _ in range(NUM):
            yield int(torch.randint(NUM, ()))

    def __len__(self) -> int:
        return NUM


class EagerSampler(LazySampler):
    """Draws all indices when its iterator is made, from a generator of its own."""

    def __init__(self) -> None:
        self.own_rng = np.random.default_rng(5)

    def __iter__(self) -> Iterator[int]:
        return iter(self.own_rng.permutation(NUM).tolist())


class StatefulSampler(LazySampler):
    """Draws without replacement, one by one, from the global generator; says what it has left."""

    def __init__(self) -> None:
        self.left: list[int] = []
        self.goes_on = False

    def __iter__(self) -> Iterator[int]:
        if not self.goes_on:
            self.left = list(range(NUM))
        self.goes_on = False
        while self.left:
            yield self.left.pop(int(torch.randint(len(self.left), ())))

    def state_dict(self) -> dict[str, Any]:
        return {"left": list(self.left)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.left = list(state["left"])
        self.goes_on = True


class TensorBatches:
    """A batch sampler that gives tensors, in another order each time, of several sizes."""

    def __iter__(self) -> Iterator[torch.Tensor]:
        yield from torch.randperm(NUM).split([3, 1, 4, 3])

    def __len__(self) -> int:
        return 4


class Stream(IterableDataset):
    """Augmented samples in a row."""

    def __iter__(self) -> Iterator[torch.Tensor]:
        data = Augmented()
        info = torch.utils.data.get_worker_info()
        first, step = (0, 1) if info is None else (info.id, info.num_workers)
        for index in range(first, NUM, step):
            yield data[index]


class StatefulStream(Stream):
    """Knows where it is, and cannot be had twice: each item changes its generator."""

    def __init__(self) -> None:
        self.position = 0
        self.hidden = np.random.default_rng(1)
        self.num_loaded = 0

    def __iter__(self) -> Iterator[torch.Tensor]:
        data = Augmented()
        while self.position < NUM:
            self.position += 1
            self.num_loaded += 1
            yield data[self.position - 1]
        self.position = 0

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.position = state["position"]


class StreamIterator:
    """A stateful iterator of a stateless data set."""

    def __init__(self) -> None:
        self.position = 0

    def __iter__(self) -> StreamIterator:
        return self

    def __next__(self) -> torch.Tensor:
        if self.position >= NUM:
            raise StopIteration
        self.position += 1
        return Augmented()[self.position - 1]

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.position = state["position"]


class StreamOfIterators(IterableDataset):
    """Its iterator knows where it is."""

    def __iter__(self) -> StreamIterator:
        return StreamIterator()


class OwnLoader:
    """A loader that is no DataLoader and knows where it is."""

    def __init__(self) -> None:
        self.position = 0

    def __iter__(self) -> Iterator[torch.Tensor]:
        while self.position < NUM:
            self.position += 1
            yield Augmented()[self.position - 1]
        self.position = 0

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.position = state["position"]


class Batches:
    """Any iterable: no length, no state."""

    def __iter__(self) -> Iterator[torch.Tensor]:
        data = Augmented()
        for index in torch.randperm(NUM).tolist():
            yield data[index]


class DropsSome(DataLoader):
    """A loader with an ``__iter__`` of its own that leaves some batches out."""

    def __iter__(self) -> Iterator[Any]:
        for index, batch in enumerate(super().__iter__()):
            if index != 1:
                yield batch


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(9)


def table() -> TensorDataset:
    return TensorDataset(torch.arange(NUM * 2.0).reshape(NUM, 2), torch.arange(NUM))


KINDS: dict[str, Callable[[], Any]] = {
    "in order": lambda: DataLoader(Augmented(), batch_size=3),
    "shuffled": lambda: DataLoader(Augmented(), batch_size=3, shuffle=True),
    "drop_last": lambda: DataLoader(Augmented(), batch_size=3, shuffle=True, drop_last=True),
    "not batched": lambda: DataLoader(Augmented(), batch_size=None, shuffle=True),
    "own generator": lambda: DataLoader(
        Augmented(), batch_size=4, shuffle=True, generator=generator()
    ),
    "data set with generators": lambda: DataLoader(OwnRandom(), batch_size=3, shuffle=True),
    "lazy sampler": lambda: DataLoader(Augmented(), batch_size=2, sampler=LazySampler()),
    "eager sampler": lambda: DataLoader(Augmented(), batch_size=2, sampler=EagerSampler()),
    "eager sampler, not batched": lambda: DataLoader(
        Augmented(), batch_size=None, sampler=EagerSampler()
    ),
    "stateful sampler": lambda: DataLoader(Augmented(), batch_size=2, sampler=StatefulSampler()),
    "replacement": lambda: DataLoader(
        Augmented(),
        batch_size=3,
        sampler=torch.utils.data.RandomSampler(
            range(NUM), replacement=True, num_samples=40, generator=generator()
        ),
    ),
    "weighted": lambda: DataLoader(
        Augmented(),
        batch_size=3,
        sampler=torch.utils.data.WeightedRandomSampler(torch.arange(1.0, NUM + 1), NUM),
    ),
    "own batch sampler": lambda: DataLoader(Augmented(), batch_sampler=TensorBatches()),
    "lazy batch sampler": lambda: DataLoader(
        Augmented(), batch_sampler=BatchSampler(LazySampler(), 3, drop_last=False)
    ),
    "tensors": lambda: DataLoader(table(), batch_size=3, shuffle=True),
    "tensors, own generator": lambda: DataLoader(
        table(), batch_size=3, shuffle=True, generator=generator()
    ),
    "tensors, lazy sampler": lambda: DataLoader(table(), batch_size=3, sampler=LazySampler()),
    "own __iter__": lambda: DropsSome(Augmented(), batch_size=3, shuffle=True),
    "stream": lambda: DataLoader(Stream(), batch_size=3),
    "stateful stream": lambda: DataLoader(StatefulStream(), batch_size=3),
    "stream with a stateful iterator": lambda: DataLoader(StreamOfIterators(), batch_size=3),
    "own stateful loader": OwnLoader,
    "list": lambda: [torch.tensor([float(i)]) for i in range(4)],
    "any iterable": Batches,
}


def model_draws() -> list[float]:
    """What a step draws: dropout, say."""
    return [float(torch.rand(())), float(np.random.rand()), random.random()]


def as_bits(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, float):
        return value
    return [as_bits(item) for item in value]


def through_a_file(state: Any) -> Any:
    """Save and load as a checkpoint does."""
    file = io.BytesIO()
    torch.save(to_plain(state), file)
    file.seek(0)
    return from_plain(torch.load(file, weights_only=True))


def seed_all() -> None:
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)


Trace = list[Any]


def walk(
    make: Callable[[], Any], num_passes: int, *, save: bool = True, **options: Any
) -> tuple[Trace, list[tuple[Any, int]]]:
    """Walk a loader from the beginning, saving after each batch and after each pass.

    Args:
        make: makes the loader.
        num_passes: how many passes to make.
        save: whether to save at all.
        **options: the cursor's.

    Returns:
        What was seen; and for each entry of it the state after it, as it comes from a file, and
        the pass that is to be walked next.
    """
    seed_all()
    loader = make()
    trace: Trace = []
    saved: list[tuple[Any, int]] = []

    def save_point(cursor: Cursor, number: int) -> None:
        if save:
            state = {"rng": rng.get_state(), "cursor": cursor.state_dict()}
            saved.append((through_a_file(state), number))

    for number in range(num_passes):
        cursor = Cursor(loader, **options)
        for index, batch in cursor:
            trace.append((number, index, as_bits(batch), model_draws()))
            save_point(cursor, number)
        trace.append((number, "end", model_draws()))
        save_point(cursor, number + 1)
    return trace, saved


def resume(
    make: Callable[[], Any],
    state: Any,
    number: int,
    num_passes: int,
    *,
    with_rng: bool = True,
    **options: Any,
) -> Trace:
    """Go on in a new loader, whatever random state there was before."""
    random.seed(77)
    np.random.seed(77)
    torch.manual_seed(77)
    loader = make()
    trace: Trace = []
    first = Cursor(loader, **options)
    first.load_state_dict(state["cursor"])
    if with_rng:
        rng.set_state(state["rng"])
    for later in range(number, num_passes):
        cursor = first if later == number else Cursor(loader, **options)
        for index, batch in cursor:
            trace.append((later, index, as_bits(batch), model_draws()))
        trace.append((later, "end", model_draws()))
    return trace
