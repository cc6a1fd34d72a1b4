"""Shared set-up: one thread, one seed, deterministic Hypothesis, matplotlib as it comes."""

from __future__ import annotations

import os
import random
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("MPLBACKEND", "Agg")
# The user's own settings would change pictures, and their cached list of fonts may be of an
# installation that is gone. The workers of xdist inherit the folder.
if "PYTEST_XDIST_WORKER" not in os.environ:
    matplotlib_folder = tempfile.TemporaryDirectory(prefix="matplotlib-")
    os.environ["MPLCONFIGDIR"] = matplotlib_folder.name

import numpy as np
import pytest
import torch
from hypothesis import settings

settings.register_profile("exact", derandomize=True, deadline=None, database=None)
settings.load_profile("exact")
torch.set_num_threads(1)
# A program started in the background inherits that Ctrl-C is ignored; these tests press it.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The slowest files, which begin first where workers run side by side: a long one that began last
# would leave the other workers idle.
SLOWEST = (
    "distributed/test_fully_sharded.py",
    "docs/test_examples.py",
    "distributed/test_faults.py",
    "distributed/test_same_numbers.py",
    "loop/test_cost_per_step.py",
    "resume/test_exact_resume.py",
    "distributed/test_resume_of_processes.py",
    "docs/test_code_blocks.py",
    "resume/test_cursor_workers.py",
    "unit/test_import.py",
    "resume/test_checkpoint_files.py",
    "unit/test_wheel.py",
)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Move the slowest files to the front, after pytest-randomly has shuffled them."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        ranks = {Path(__file__).parent / name: rank for rank, name in enumerate(SLOWEST)}
        assert all(path.is_file() for path in ranks), "a file in SLOWEST is not there"
        items.sort(key=lambda item: ranks.get(item.path, len(ranks)))


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    """Every test starts from the same random state and no Accelerator, whatever ran before it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    yield
    if "accelerate" in sys.modules:
        # Accelerators share one state in a process, which makes the next one what this one was.
        from accelerate.state import AcceleratorState, GradientState

        AcceleratorState._reset_state(True)
        GradientState._reset_state()
