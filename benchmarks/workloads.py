"""The workloads that are trained, and the loop that a good engineer writes for them by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, TensorDataset

WORKLOADS = {
    "W1": "MLP 784-64-64-10 with dropout, Adam, batches of 32 of 10,000 samples in a `DataLoader`,"
    " 2 epochs with validation",
    "W2": "the same with accuracy",
    "W3": "a small CNN on images of 28x28, batches of 64 of 4,000 samples, 2 epochs with validation",
    "W4": "`Linear(8, 2)`, Adam, 5,000 batches of 32 that are ready",
    "W5": "MLP 784-64-64-10, Adam, two processes (gloo) with batches of 32 each, 4 epochs of 9,984"
    " samples with validation",
    "W6": "the CNN of W3, two processes with batches of 64 each, 2 epochs of 4,096 samples with"
    " validation",
    "W7": "the MLP of W1, a data set in Python that adds noise to each sample, 2 workers, batches of"
    " 32 of 10,000 samples, 2 epochs",
    "W8": "a day: the MLP of W1, 6 epochs with accuracy, macro F1, TensorBoard and checkpoints",
    "W9": "saving 100 MB, forced to the disk",
    "W10": "a small GPT: 4 layers, 128 wide, 64 tokens, cross-entropy of each token, AdamW, batches"
    " of 16 of 480 texts, 1 epoch with validation",
}
SHUFFLED_FROM = 7
NUM_TOKENS = 256


@dataclass
class Workload:
    """What is trained: made anew, from the same seed, for each run."""

    name: str
    model: nn.Module
    opt: torch.optim.Optimizer
    train: Any
    val: Any
    epochs: int
    with_accuracy: bool


class Noisy(Dataset[Any]):
    """A data set as users write it: takes one sample and adds noise to it."""

    def __init__(self, x: torch.Tensor, y: torch.Tensor) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.x[index] + 0.1 * torch.randn(784), self.y[index]


class GPT(nn.Module):
    """A small one: for each token the scores of the next, ``[B, T]`` to ``[B, T, NUM_TOKENS]``."""

    def __init__(self, width: int = 128, length: int = 64, depth: int = 4) -> None:
        super().__init__()
        self.tokens = nn.Embedding(NUM_TOKENS, width)
        self.places = nn.Parameter(0.02 * torch.randn(length, width))
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, 4, 4 * width, 0.1, "gelu", batch_first=True, norm_first=True
            )
            for _ in range(depth)
        )
        self.head = nn.Linear(width, NUM_TOKENS)
        mask = torch.full((length, length), float("-inf")).triu(1)
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Give the scores."""
        out = self.tokens(x) + self.places
        for layer in self.layers:
            out = layer(out, src_mask=self.mask, is_causal=True)
        return self.head(out)


def mlp(dropout: float) -> nn.Module:
    drop = [nn.Dropout(dropout)] if dropout else []
    return nn.Sequential(
        nn.Linear(784, 64), nn.ReLU(), *drop,
        nn.Linear(64, 64), nn.ReLU(), *drop,
        nn.Linear(64, 10),
    )  # fmt: skip


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(400, 10),
    )  # fmt: skip


def digits(num: int, *shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Give random samples of ten classes."""
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(num, *shape, generator=generator)
    return x, torch.randint(0, 10, (num,), generator=generator)


def loaders(
    data: tuple[torch.Tensor, torch.Tensor], num_train: int, size: int
) -> tuple[DataLoader[Any], DataLoader[Any]]:
    """Give those of training, in another order each epoch, and of validation."""
    train = TensorDataset(*(tensor[:num_train] for tensor in data))
    val = TensorDataset(*(tensor[num_train:] for tensor in data))
    return DataLoader(train, size, shuffle=True), DataLoader(val, size)


def make(name: str, num_batches: int = 5_000) -> Workload:
    """Make a workload by its name; ``'W4'`` of so many mini-batches."""
    torch.manual_seed(0)
    epochs, val = 2, None
    train: Any
    if name in ("W1", "W2"):
        model = mlp(dropout=0.1)
        train, val = loaders(digits(12_000, 784), 10_000, 32)
    elif name == "W3":
        model = cnn()
        train, val = loaders(digits(4_800, 1, 28, 28), 4_000, 64)
    elif name == "W5":
        # Whole rounds of mini-batches: no sample has to count twice by hand.
        model, epochs = mlp(dropout=0), 4
        train, val = loaders(digits(9_984 + 1_920, 784), 9_984, 32)
    elif name == "W6":
        model = cnn()
        train, val = loaders(digits(4_096 + 768, 1, 28, 28), 4_096, 64)
    elif name == "W7":
        model = mlp(dropout=0.1)
        train = DataLoader(Noisy(*digits(10_000, 784)), 32, shuffle=True, num_workers=2)
    elif name == "W10":
        model, epochs = GPT(), 1
        texts = torch.randint(NUM_TOKENS, (640, 65), generator=torch.Generator().manual_seed(7))
        train, val = loaders((texts[:, :-1], texts[:, 1:]), 480, 16)
    else:
        model, epochs = nn.Linear(8, 2), 1
        generator = torch.Generator().manual_seed(7)
        train = [
            (
                torch.randn(32, 8, generator=generator),
                torch.randint(0, 2, (32,), generator=generator),
            )
            for _ in range(num_batches)
        ]
    if name in ("W5", "W6"):
        # The processes draw the order of the samples alike.
        order = torch.Generator().manual_seed(SHUFFLED_FROM)
        train = DataLoader(train.dataset, train.batch_size, shuffle=True, generator=order)
    chosen = torch.optim.AdamW if name == "W10" else torch.optim.Adam
    opt = chosen(model.parameters(), lr=1e-3)
    return Workload(name, model, opt, train, val, epochs, name == "W2")


def by_hand(work: Workload, loss_fn: Callable[..., Any]) -> Iterator[None]:
    """The reference: no progress line, no events; loss (and accuracy) of every epoch."""
    for _ in range(work.epochs):
        work.model.train()
        total, right, count = torch.zeros(()), torch.zeros((), dtype=torch.long), 0
        for x, y in work.train:
            work.opt.zero_grad()
            out = work.model(x)
            loss = loss_fn(out, y)
            loss.backward()
            work.opt.step()
            total += loss.detach() * len(y)
            count += len(y)
            if work.with_accuracy:
                right += (out.argmax(1) == y).sum()
            yield
        (total / count).item()
        if work.val is None:
            continue
        work.model.eval()
        total, right, count = torch.zeros(()), torch.zeros((), dtype=torch.long), 0
        with torch.no_grad():
            for x, y in work.val:
                out = work.model(x)
                total += loss_fn(out, y) * len(y)
                count += len(y)
                if work.with_accuracy:
                    right += (out.argmax(1) == y).sum()
                yield
        (total / count).item()


def cross_entropy(out: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Mean over samples; of texts, over tokens."""
    if y.dim() == 2:
        out, y = out.flatten(0, 1), y.flatten()
    return F.cross_entropy(out, y)


def likeness(ours: Any, hand: Any) -> str:
    """Compare two lists of tensors: ``'equal'`` to the bit, ``'to 1e-6'``, or ``'differ'``."""
    pairs = list(zip(ours, hand, strict=True))
    if all(torch.equal(a, b) for a, b in pairs):
        return "equal"
    close = all(a.shape == b.shape and torch.allclose(a, b, rtol=0, atol=1e-6) for a, b in pairs)
    return "to 1e-6" if close else "differ"
