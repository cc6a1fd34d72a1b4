"""Makes torch use only operations that give the same result each time, while a call runs.

On a GPU many operations add their terms in the order in which they come, which differs from run
to run. Torch has slower forms of most of them, and raises an error for the others.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

CUBLAS = "CUBLAS_WORKSPACE_CONFIG"
SIZES = ":4096:8"  # one of the two values that torch accepts here


@contextmanager
def deterministic_operations(device: torch.device) -> Iterator[None]:
    """Let the block use deterministic operations only; put the settings of torch back after it.

    They are of the whole process. A ``CUBLAS_WORKSPACE_CONFIG`` that is set already is kept.

    Args:
        device: of the model.

    Example:
        >>> with deterministic_operations(torch.device("cpu")):
        ...     torch.are_deterministic_algorithms_enabled()
        True
        >>> torch.are_deterministic_algorithms_enabled()
        False
    """
    cudnn = torch.backends.cudnn
    was_on = torch.are_deterministic_algorithms_enabled()
    was_warning = torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = cudnn.benchmark
    sets_cublas = device.type == "cuda" and CUBLAS not in os.environ
    try:
        torch.use_deterministic_algorithms(True)
        cudnn.benchmark = False  # it chooses by time, which differs
        if sets_cublas:
            os.environ[CUBLAS] = SIZES
        yield
    finally:
        torch.use_deterministic_algorithms(was_on, warn_only=was_warning)
        cudnn.benchmark = benchmark
        if sets_cublas:
            os.environ.pop(CUBLAS, None)
