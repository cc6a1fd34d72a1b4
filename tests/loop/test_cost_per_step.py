"""What a step costs, in calls and in memory: figures that are the same on every machine.

A cost in seconds depends on what else the machine does, the number of Python and C calls that
cProfile counts does not.
"""

from __future__ import annotations

import cProfile
import gc
import importlib.util
import os
import pstats
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepepochs import GradClipCallback, Trainer
from deepepochs.patches import torchmetric

sys.path.insert(0, str(Path(__file__).parent))
from calls_of_a_step import (
    Batch,
    calls_per_step,
    ready_batches,
    same_on_every_machine,
    setting,
    train_bare,
    train_by_hand,
    train_by_library,
)
from memory_growth import fit_with_every_metric

OWN_CALLS = 3 if sys.version_info >= (3, 11) else 4
"""Calls of a step beyond model, loss, torch.autograd.backward and optimizer: 0.5 measured."""

STATM = Path("/proc/self/statm")
# A fixed threshold: glibc's own rises with what is freed, and then 8 MB that a metric needs for
# a moment are in the heap at one look and not at the other.
ONE_HEAP = {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "1048576"}


@pytest.fixture(autouse=True)
def _same_on_every_machine() -> Iterator[None]:
    with same_on_every_machine():
        yield


def said_by(script: str, *args: str, **environment: str) -> str:
    """Run a script in a process of its own and return what it prints last."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name(script)), *args],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[-1]


def test_a_step_makes_no_more_calls_than_the_loop_by_hand() -> None:
    assert calls_per_step(train_by_library) <= calls_per_step(train_by_hand) - 10


@pytest.mark.skipif(not torch.__version__.startswith("2.13."), reason="others make other calls")
def test_a_step_makes_at_most_170_calls() -> None:
    # In a process of its own: once a test has compiled a model, torch makes 8 more in each step.
    assert float(said_by("calls_of_a_step.py")) <= 170


def test_an_accelerator_looks_for_no_package_in_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    from accelerate import Accelerator

    looked_for: list[str] = []
    find_spec = importlib.util.find_spec

    def spy(name: str, package: str | None = None) -> Any:
        looked_for.append(name)
        return find_spec(name, package)

    def looks(num_batches: int) -> int:
        model = nn.Linear(3, 2)
        trainer = Trainer(
            model, F.mse_loss, torch.optim.Adam(model.parameters()), epochs=1, console="off",
            device=Accelerator(cpu=True), callbacks=GradClipCallback(1.0, norm_type=2),
        )  # fmt: skip
        looked_for.clear()
        with monkeypatch.context() as patched:
            patched.setattr(importlib.util, "find_spec", spy)
            trainer.fit([(torch.ones(4, 3), torch.ones(4, 2))] * num_batches)
        return len(looked_for)

    looks(2)
    assert looks(30) == looks(2)


def test_a_step_adds_few_calls_to_what_nobody_can_leave_out() -> None:
    assert calls_per_step(train_by_library) - calls_per_step(train_bare) <= OWN_CALLS


class Probed:
    """A loader that measures its own pass: calls a step in windows of it, and tensors."""

    def __init__(self, batch: Batch, number: int, windows: list[tuple[int, int]]) -> None:
        self.batch = batch
        self.number = number
        self.windows = windows
        self.calls: list[float] = []
        self.num_tensors: list[int] = []

    def __len__(self) -> int:
        return self.number

    def __iter__(self) -> Iterator[Batch]:
        starts = {start for start, _ in self.windows}
        ends = {end: end - start for start, end in self.windows}
        profiler = cProfile.Profile()
        for index in range(self.number):
            if index in ends:
                profiler.disable()
                total = pstats.Stats(profiler).total_calls  # type: ignore[attr-defined]
                self.calls.append(total / ends[index])
                self.num_tensors.append(len(live_tensors()))
            if index in starts:
                profiler = cProfile.Profile()
                profiler.enable()
            yield self.batch


def live_tensors() -> list[Tensor]:
    return [thing for thing in gc.get_objects() if issubclass(type(thing), Tensor)]


def test_a_bare_step_costs_the_same_early_and_late_in_an_epoch() -> None:
    loader = Probed(ready_batches(1)[0], 4000, [(230, 250), (3979, 3999)])
    model, opt = setting()
    Trainer(model, F.cross_entropy, opt, epochs=1, show_info=False).fit(loader)
    early, late = loader.calls
    assert late == early


def test_a_step_with_metrics_of_every_kind_costs_the_same_early_and_late_in_an_epoch() -> None:
    # Windows of 64 batches: TensorPatch moves its chunks so often.
    loader = Probed(ready_batches(1)[0], 2000, [(186, 250), (1930, 1994)])
    fit_with_every_metric(loader, setting()[0], keeps_all=True)
    early, late = loader.calls
    assert late == early


def test_metrics_keep_no_tensor_of_the_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchmetric, "MOST_KEPT", 0)  # or it keeps some, to update with all at once
    # What earlier tests have left behind is held, lest it goes between the two looks.
    _held = live_tensors()
    batch = torch.randn(8, 4), torch.randint(0, 1000, (8,))
    loader = Probed(batch, 500, [(190, 200), (489, 499)])
    fit_with_every_metric(loader, nn.Linear(4, 1000), keeps_all=False)
    early, late = loader.num_tensors
    assert late == early


def test_the_probe_sees_a_loop_that_keeps_tensors() -> None:
    kept = []
    batch = torch.randn(8, 4), torch.randint(0, 1000, (8,))
    loader = Probed(batch, 500, [(100, 110), (489, 499)])
    model = nn.Linear(4, 1000)
    for x, _ in loader:
        kept.append(model(x).detach())
    early, late = loader.num_tensors
    assert late > early


def growth(what: str) -> int:
    """Bytes that the address space of a process of its own grows over an epoch.

    Its own, because the heap of this one has holes of any size from other tests.
    """
    return int(said_by("memory_growth.py", what, **ONE_HEAP))


@pytest.mark.skipif(not STATM.exists(), reason="the address space is read from /proc")
def test_metrics_keep_no_memory_of_8000_batches() -> None:
    """Their outputs `[8, 1000]` would be 256 MB."""
    assert growth("metrics") < 5_000_000


@pytest.mark.skipif(not STATM.exists(), reason="the address space is read from /proc")
@pytest.mark.parametrize("what", ["kept outputs", "kept losses"])
def test_the_probe_sees_a_loop_that_keeps_memory(what: str) -> None:
    assert growth(what) > 5_000_000
