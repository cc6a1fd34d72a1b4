"""What each of several processes draws: noise of its own, the order of the samples in common.

Started as ``drawing.py RESULT_FILE``; writes for each case what every process met.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn
from torch.nn import functional as F
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    WeightedRandomSampler,
    default_collate,
)

from deepepochs import Callback, Trainer, set_seed

torch.set_num_threads(1)
NUM_SAMPLES = 24


def noise() -> list[float]:
    return [random.random(), float(np.random.rand()), float(torch.rand(()))]


class Noisy(Dataset[Any]):
    """Samples of their index and of noise from all three generators."""

    def __len__(self) -> int:
        return NUM_SAMPLES

    def __getitem__(self, index: int) -> Any:
        return torch.tensor([float(index), *noise()]), index % 3


class Bare(Noisy):
    """Samples without noise: the collate function adds it."""

    def __getitem__(self, index: int) -> Any:
        return float(index), index % 3


def collate(samples: list[Any]) -> Any:
    return default_collate([(torch.tensor([index, *noise()]), y) for index, y in samples])


class Shuffled:
    """A sampler that draws its order bit by bit, from Python and NumPy."""

    def __len__(self) -> int:
        return NUM_SAMPLES

    def __iter__(self) -> Iterator[int]:
        rest = list(range(NUM_SAMPLES))
        while rest:
            draw = random.random() if len(rest) % 2 else float(np.random.rand())
            yield rest.pop(int(draw * len(rest)))


class Stream(IterableDataset[Any]):
    """A stream that mixes its samples."""

    def __iter__(self) -> Iterator[Any]:
        for index in Shuffled():
            yield torch.tensor([float(index), *noise()]), index % 3


class Ready:
    """Mini-batches that the object shuffles by itself."""

    def __iter__(self) -> Iterator[Any]:
        for part in torch.randperm(NUM_SAMPLES).split(4):
            yield default_collate([Noisy()[int(index)] for index in part])


class Model(nn.Module):
    """Notes a dropout mask of each training step."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.masks: list[list[float]] = []

    def forward(self, x: torch.Tensor) -> Any:
        if self.training:
            self.masks.append(F.dropout(torch.ones(30), 0.5).tolist())
        return self.linear(x)


class Notes(Callback):
    """Notes the mini-batches; ``seeds`` in all processes alike before the fit, if asked."""

    def __init__(self, *, seeds: bool) -> None:
        super().__init__()
        self.rows: list[list[float]] = []
        self.seeds = seeds

    def on_before_fit(self, trainer: Any, epochs: int) -> None:
        if self.seeds:
            set_seed(5)

    def on_before_train_batch(self, trainer: Any, batch_x: Any, **_: Any) -> None:
        self.rows += batch_x[0].tolist()


def fitted(
    make: Callable[[], Any], seed: int | None = 0, fits: int = 1, *, seeds: bool = False
) -> dict[str, Any]:
    if seed is not None:
        set_seed(seed)
    model, notes = Model(), Notes(seeds=seeds)
    trainer = Trainer(
        model, F.cross_entropy, epochs=1, device=Accelerator(cpu=True), callbacks=notes,
        show_info=False, log_batch=False,
    )  # fmt: skip
    before = model.linear.weight.tolist()
    loader = make()
    for _ in range(fits):
        trainer.fit(loader, epochs=1)
    return {"rows": notes.rows, "masks": model.masks, "before": before, "after": noise()}


def order() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def weighted() -> Any:
    sampler = WeightedRandomSampler([1.0] * NUM_SAMPLES, NUM_SAMPLES, replacement=False)
    return DataLoader(Noisy(), 4, sampler=sampler)


def prepared() -> Any:
    return Accelerator(cpu=True).prepare(DataLoader(Noisy(), 4, shuffle=True))


CASES: dict[str, Callable[[int], Any]] = {
    "here": lambda _: fitted(lambda: DataLoader(Noisy(), 4, shuffle=True)),
    "no seed": lambda _: fitted(lambda: DataLoader(Noisy(), 4, shuffle=True), None),
    "in workers": lambda _: fitted(
        lambda: DataLoader(Noisy(), 4, shuffle=True, num_workers=2, generator=order())
    ),
    "in one worker": lambda _: fitted(
        lambda: DataLoader(Noisy(), 4, shuffle=True, num_workers=1, generator=order())
    ),
    "collate": lambda _: fitted(lambda: DataLoader(Bare(), 4, num_workers=2, collate_fn=collate)),
    "sampler": lambda _: fitted(lambda: DataLoader(Noisy(), 4, sampler=Shuffled())),
    "weighted": lambda _: fitted(weighted),
    "stream": lambda _: fitted(lambda: DataLoader(Stream(), 4)),
    "stream in a worker": lambda _: fitted(lambda: DataLoader(Stream(), 4, num_workers=1)),
    "ready": lambda _: fitted(Ready),
    "prepared": lambda _: fitted(prepared),
    "seeded in a hook": lambda _: fitted(lambda: DataLoader(Noisy(), 4, shuffle=True), seeds=True),
    "seeds of their own": lambda rank: fitted(lambda: DataLoader(Noisy(), 4, shuffle=True), rank),
    "two fits": lambda _: fitted(lambda: DataLoader(Noisy(), 4), fits=2),
}


def main() -> None:
    from accelerate.utils import gather_object

    accelerator = Accelerator(cpu=True)
    own = {name: case(accelerator.process_index) for name, case in CASES.items()}
    found = gather_object([own])
    if accelerator.is_main_process:
        Path(sys.argv[1]).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
