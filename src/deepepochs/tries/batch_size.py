"""Finds the largest mini-batch that memory takes, and how fast training is with each size.

::

    found = trainer.find_batch_size(train_dl)
    print(found)
    train_dl = DataLoader(dataset, batch_size=found.batch_size, shuffle=True)
"""

from __future__ import annotations

import gc
import time
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader

from ..arguments import check_count
from ..callbacks.base import Callback
from ..data.followed import as_before
from ..errors import ConfigError, DataError
from ..faults.backward import is_out_of_memory
from ..fit.plan import as_task, plan_try
from ..fit.session import Kind
from ..loop import run_pass
from ..nest.samples import BatchSize
from ..report.text import size as size_text
from ..show.tables import html_table, text_table
from ..show.terminal import rate
from ..stages import Stage

FIRST = 2  # a batch norm cannot train on one sample, which is tried only if two do not fit
STEPS = (3, 12)  # of each size, at least and at most; the first one is not timed
ENOUGH_S = 0.2  # after the least steps, no further one is made after so long
LONG_S = 1.0  # on a CPU, which has no limit of its own, sizes grow while a step is shorter
GAIN = 1.1  # or while training gets faster by so much


class Trial(NamedTuple):
    """One size that was tried.

    Attributes:
        batch_size: samples of the mini-batch.
        fits: whether memory was enough.
        samples_per_s: with the mini-batch ready, so without the time of the loader; ``None``
            where it did not fit.
        memory: the most bytes of a CUDA device that were in use; ``None`` elsewhere.
    """

    batch_size: int
    fits: bool
    samples_per_s: float | None = None
    memory: int | None = None


class FoundBatchSize:
    """What ``trainer.find_batch_size()`` gives; it prints as a table.

    Attributes:
        batch_size: where a size did not fit, and on an accelerator, the largest that fits; else
            the smallest that is within a tenth of the fastest.
        largest: the largest that was tried and fits.
        trials: each size that was tried, a ``Trial``, by size.
        memory_limit: the bytes of the CUDA device, or ``None``.
    """

    def __init__(
        self, trials: list[Trial], *, memory_limit: int | None = None, by_speed: bool = False
    ) -> None:
        self.trials = sorted(trials)
        self.memory_limit = memory_limit
        fitting = [trial for trial in self.trials if trial.fits]
        self.largest = fitting[-1].batch_size
        self.batch_size = self.largest
        if by_speed and len(fitting) == len(trials):
            most = max(trial.samples_per_s or 0.0 for trial in fitting)
            self.batch_size = next(
                trial.batch_size for trial in fitting if (trial.samples_per_s or 0.0) >= most / GAIN
            )

    def __str__(self) -> str:
        last = self.trials[-1]
        why = "the largest that fits" if not last.fits else "the largest that was tried"
        if self.batch_size < self.largest:
            why = "larger ones are hardly faster"
        limit = (
            "" if self.memory_limit is None else f", of {size_text(self.memory_limit)} of memory"
        )
        table = text_table([self._head(), *map(self._cells, self.trials)])
        return f"{table}\n\nbatch_size={self.batch_size}: {why}{limit}"

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return html_table(self._head(), map(self._cells, self.trials))

    def _head(self) -> list[str]:
        memory = [] if self.memory_limit is None else ["memory"]
        return ["batch size", "samples/s", *memory]

    def _cells(self, trial: Trial) -> list[str]:
        cells = [str(trial.batch_size), "does not fit"]
        if trial.fits:
            cells[1] = rate(trial.samples_per_s or 0.0)
        if self.memory_limit is not None:
            cells.append("" if trial.memory is None else size_text(trial.memory))
        return cells


class StepClock(Callback):
    """Measures the shortest of some steps, without the first."""

    order = -1000
    meets_fillers = True

    def __init__(self, device: torch.device, least: int) -> None:
        super().__init__()
        self.shortest_s = float("inf")
        self._device = device
        self._least = least
        self._since_s = 0.0
        self._total_s = 0.0

    def _now_s(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()

    def on_before_train_batch(self, **others: Any) -> None:
        self._since_s = self._now_s()

    def on_after_train_batch(self, trainer: Any, metrics: Any, batch_idx: int) -> None:
        step_s = self._now_s() - self._since_s
        self._total_s += step_s
        if batch_idx:
            self.shortest_s = min(self.shortest_s, step_s)
        if self._total_s > ENOUGH_S and batch_idx + 1 >= self._least:
            trainer.stop("steps measured")


def find_batch_size(
    trainer: Any, loader: Any, max_size: int | None, batch_size: BatchSize
) -> FoundBatchSize:
    """Try sizes from 2 on, doubled while they fit, then between the last two.

    Raises:
        ConfigError: the loader, or another argument, cannot be right; several processes.
        DataError: the loader has no sample.
        torch.OutOfMemoryError: not even one sample fits.
    """
    if max_size is not None:
        check_count("max_size", max_size, 1)
    check_loader_and_processes(trainer, loader)
    total = size_of(loader)
    limit = min(size for size in (max_size, total, 2**20) if size is not None)
    if limit < 1:
        raise DataError("find_batch_size() got a loader whose data set is empty.")
    tried: dict[int, Trial] = {}

    def fits(size: int) -> bool:
        tried[size] = try_size(trainer, loader, size, batch_size, raises=size == 1)
        return tried[size].fits

    low, high = 0, limit + 1
    while low < limit < high and goes_on(trainer, list(tried.values())):
        size = min(max(2 * low, FIRST), limit)
        low, high = (size, high) if fits(size) else (low, size)
    while high <= limit and high - low > max(1, low // 16):
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    cuda = trainer.device.type == "cuda"
    memory = torch.cuda.get_device_properties(trainer.device).total_memory if cuda else None
    trials = list(tried.values())
    return FoundBatchSize(trials, memory_limit=memory, by_speed=trainer.device.type == "cpu")


def check_loader_and_processes(trainer: Any, loader: Any) -> None:
    """Raise ``ConfigError`` unless mini-batches of any size can be made of the loader's data."""
    if trainer.runtime.num_processes > 1:
        raise ConfigError(
            f"find_batch_size() works in one process, and there are "
            f"{trainer.runtime.num_processes}: call it in a script that is started without "
            "torchrun. Each process takes as much as one alone."
        )
    if not isinstance(loader, DataLoader):
        raise ConfigError(
            f"find_batch_size() got {type(loader).__name__}: give a DataLoader, whose data set is "
            "put together in mini-batches of other sizes."
        )
    if loader.batch_size is None:
        raise ConfigError(
            "find_batch_size() got a DataLoader without a batch_size, whose mini-batches are made "
            "by its batch_sampler or its data set: give one with batch_size=1, of the same samples."
        )


def size_of(loader: DataLoader[Any]) -> int | None:
    """Return the number of samples that a loader takes; ``None`` if it is not known."""
    try:
        return len(loader.sampler)  # type: ignore[arg-type]
    except TypeError:  # of a stream
        return None


def goes_on(trainer: Any, trials: list[Trial]) -> bool:
    """Whether a larger size may be worth trying: on a CPU not if a step is long and no faster."""
    if trainer.device.type != "cpu" or len(trials) < 2:
        return True
    last, before = (trial.samples_per_s or 0.0 for trial in (trials[-1], trials[-2]))
    return trials[-1].batch_size < LONG_S * last or last > GAIN * before


def batch_of(loader: DataLoader[Any], size: int, epoch_idx: int) -> Any:
    """Make the first mini-batch of a size, in the loader's order and by its collate function.

    Random states are put back, so that each size has the same first samples.
    """
    with as_before(loader, epoch_idx):
        is_stream = isinstance(loader.dataset, torch.utils.data.IterableDataset)
        sampler = None if is_stream else loader.sampler
        other: DataLoader[Any] = DataLoader(
            loader.dataset, size, sampler=sampler, collate_fn=loader.collate_fn,
            generator=loader.generator,
        )  # fmt: skip
        return next(iter(islice(other, 1)), None)


def try_size(
    trainer: Any, loader: DataLoader[Any], size: int, batch_size: BatchSize, *, raises: bool
) -> Trial:
    """Train some steps with mini-batches of a size, and put everything back."""
    batch = batch_of(loader, size, trainer.init_epoch)
    if batch is None:
        raise DataError("find_batch_size() got a loader that gives no mini-batch.")
    least, most = (steps + trainer.grad_accumulate - 1 for steps in STEPS)
    task, device = as_task([batch] * most, "train_dl", batch_size), trainer.device
    plan, clock = plan_try(trainer, [task]), StepClock(device, least)
    cuda, fits = device.type == "cuda", True
    with trainer.trying(Kind.FIND_BATCH_SIZE, plan, clock) as session:
        if cuda:
            torch.cuda.reset_peak_memory_stats(device)
        try:
            run_pass(session, task, Stage.TRAIN)
        except Exception as error:
            if raises or not is_out_of_memory(error):
                raise
            fits = False
        if not fits:
            # What the frames of the error hold must go before the state is put back.
            trainer.opt.drop_gradients()
            if cuda:
                gc.collect()
                torch.cuda.empty_cache()
    if not fits:
        return Trial(size, False)
    memory = torch.cuda.max_memory_allocated(device) if cuda else None
    return Trial(size, True, size / clock.shortest_s, memory)
