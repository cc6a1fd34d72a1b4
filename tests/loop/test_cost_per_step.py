"""What a step costs, in calls and in memory: figures that are the same on every machine.

A cost in seconds depends on what else the machine does, the number of Python and C calls that
cProfile counts does not. The step is that of W4 of ``benchmarks/``: ``Linear(8, 2)``, Adam and
mini-batches of 32 that are ready.
"""

from __future__ import annotations

import cProfile
import gc
import itertools
import os
import pstats
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepepochs import Trainer, loop

sys.path.insert(0, str(Path(__file__).parent))
from memory_growth import fit_with_every_metric

OWN_CALLS = 3
"""Calls of a step beyond model, loss, torch.autograd.backward and optimizer: 0.5 measured."""

STATM = Path("/proc/self/statm")
# A fixed threshold: glibc's own rises with what is freed, and then 8 MB that a metric needs for
# a moment are in the heap at one look and not at the other.
ONE_HEAP = {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "1048576"}

Batch = tuple[Tensor, Tensor]


@pytest.fixture(autouse=True)
def standing_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is shown ten times a second is shown once: how often would be a matter of speed."""
    now_s = time.monotonic()
    monkeypatch.setattr(loop, "monotonic", itertools.repeat(now_s).__next__)


@pytest.fixture(autouse=True)
def no_garbage_collection() -> Iterator[None]:
    """Others may have callbacks on collections, whose calls would be counted."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def setting() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Linear(8, 2)
    return model, torch.optim.Adam(model.parameters(), lr=1e-3)


def ready_batches(number: int) -> list[Batch]:
    generator = torch.Generator().manual_seed(7)
    one = torch.randn(32, 8, generator=generator), torch.randint(0, 2, (32,), generator=generator)
    return [one] * number


def train_bare(batches: list[Batch]) -> None:
    """What nobody can leave out: model, loss, backward, step, and no gradients after it."""
    model, opt = setting()
    weights = list(model.parameters())
    for x, y in batches:
        torch.autograd.backward(F.cross_entropy(model(x), y))
        opt.step()
        for weight in weights:
            weight.grad = None


def train_by_hand(batches: list[Batch]) -> None:
    """The loop of a good engineer, with the loss of the epoch."""
    model, opt = setting()
    model.train()
    total, count = torch.zeros(()), 0
    for x, y in batches:
        opt.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        opt.step()
        total += loss.detach() * len(y)
        count += len(y)
    (total / count).item()


def train_by_library(batches: list[Batch]) -> None:
    model, opt = setting()
    Trainer(model, F.cross_entropy, opt, epochs=1, show_info=False).fit(batches)


def calls_per_step(train: Callable[[list[Batch]], None]) -> float:
    """Count the calls of 200 steps, without those of starting and ending."""
    totals = []
    train(ready_batches(5))  # what is imported or cached at the first use
    for number in (50, 250):
        batches = ready_batches(number)
        profiler = cProfile.Profile()
        profiler.enable()
        train(batches)
        profiler.disable()
        totals.append(pstats.Stats(profiler).total_calls)  # type: ignore[attr-defined]
    return (totals[1] - totals[0]) / 200


def test_a_step_makes_no_more_calls_than_the_loop_by_hand() -> None:
    assert calls_per_step(train_by_library) <= calls_per_step(train_by_hand) - 10


@pytest.mark.skipif(not torch.__version__.startswith("2.13."), reason="others make other calls")
def test_a_step_makes_at_most_170_calls() -> None:
    assert calls_per_step(train_by_library) <= 170


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


def test_metrics_keep_no_tensor_of_the_batches() -> None:
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
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("memory_growth.py")), what],
        env={**os.environ, **ONE_HEAP},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[-1])


@pytest.mark.skipif(not STATM.exists(), reason="the address space is read from /proc")
def test_metrics_keep_no_memory_of_8000_batches() -> None:
    """Their outputs `[8, 1000]` would be 256 MB."""
    assert growth("metrics") < 5_000_000


@pytest.mark.skipif(not STATM.exists(), reason="the address space is read from /proc")
@pytest.mark.parametrize("what", ["kept outputs", "kept losses"])
def test_the_probe_sees_a_loop_that_keeps_memory(what: str) -> None:
    assert growth(what) > 5_000_000
