"""Shared set-up: one thread, one seed, deterministic Hypothesis."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator

os.environ.setdefault("MPLBACKEND", "Agg")

import numpy as np
import pytest
import torch
from hypothesis import settings

settings.register_profile("exact", derandomize=True, deadline=None, database=None)
settings.load_profile("exact")
torch.set_num_threads(1)
# A program started in the background inherits that Ctrl-C is ignored; these tests press it.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    """Every test starts from the same random state, whatever ran before it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    yield
