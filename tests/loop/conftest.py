"""The real data of the loop tests: 512 of scikit-learn's handwritten digits."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import TensorDataset


@pytest.fixture(scope="session")
def digits() -> TensorDataset:
    """Images `[512, 64]` in 0..1 and their digits `[512]`."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return TensorDataset(
        torch.tensor(images[:512] / 16.0, dtype=torch.float32), torch.tensor(labels[:512])
    )
