"""Two processes that train one model, against ``DistributedDataParallel`` by hand.

Both run in turns in the same two processes, each on a core of its own, in wall time: they switch
after the same mini-batch in both processes, which wait for each other there. Each process gets the
environment that ``torchrun`` gives it.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import forks
import report
import torch
from interleave import Interleaver
from systems import SYSTEMS
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, DistributedSampler, RandomSampler
from workloads import SHUFFLED_FROM, Workload, cross_entropy, likeness, make

from deepepochs.runtime.exchange import exchange_of

COLUMNS = ["W5", "W6"]
# The loops by hand, ours, and the other libraries that train in several processes on a CPU.
NAMES = (
    "hand-written loop", "deepepochs, default", "deepepochs, loader as it is",
    "Accelerate in a raw loop", "Lightning, barebones", "Lightning, default",
)  # fmt: skip
# Mini-batches in a turn: a tenth of a second or so.
EVERY = {"W5": 52, "W6": 8}
NUM_EXCHANGES = 500


class InBatches(DistributedSampler[Any]):
    """Gives each process every second mini-batch of the order that ``DataLoader`` would draw.

    PyTorch's own gives every second sample. Here the trainers get the same mini-batches.
    """

    def __init__(self, dataset: Dataset[Any], batch_size: int) -> None:
        super().__init__(dataset)
        self.batch_size = batch_size
        self.generator = torch.Generator().manual_seed(SHUFFLED_FROM)
        self.order = RandomSampler(dataset, generator=self.generator)

    def __iter__(self) -> Iterator[int]:
        torch.empty((), dtype=torch.int64).random_(generator=self.generator)  # a loader's seed
        batches = torch.tensor(list(self.order)).view(-1, self.num_replicas, self.batch_size)
        return iter(batches[:, self.rank].flatten().tolist())


def by_hand(work: Workload, loss_fn: Callable[..., Any]) -> Iterator[None]:
    """The reference: as `workloads.by_hand`, with the loss of all processes."""
    data, size = work.train.dataset, work.train.batch_size
    train = DataLoader(data, size, sampler=InBatches(data, size))
    data = work.val.dataset
    val = DataLoader(data, size, sampler=DistributedSampler(data, shuffle=False))
    model = DistributedDataParallel(work.model)
    for epoch in range(work.epochs):
        train.sampler.set_epoch(epoch)
        model.train()
        totals = torch.zeros(2)
        for x, y in train:
            work.opt.zero_grad()
            loss = loss_fn(model(x), y)
            loss.backward()
            work.opt.step()
            totals[0] += loss.detach() * len(y)
            totals[1] += len(y)
            yield
        dist.all_reduce(totals)
        (totals[0] / totals[1]).item()
        model.eval()
        totals = torch.zeros(2)
        with torch.no_grad():
            for x, y in val:
                totals[0] += loss_fn(model(x), y) * len(y)
                totals[1] += len(y)
                yield
        dist.all_reduce(totals)
        (totals[0] / totals[1]).item()


def time_of_all() -> float:
    """The time when all processes are here."""
    dist.barrier()
    return time.perf_counter()


def measure(system: str, workload: str) -> dict[str, Any]:
    """Measure one system on one workload in this process, which has a twin."""
    dist.init_process_group("gloo")
    train = _hand_written if system == "hand-written loop" else SYSTEMS[system]
    # Both warm up alike: imports, lazy initialisation and first connections.
    warm = make("W5")
    warm.epochs = 1
    train(warm, cross_entropy)
    hand = make(workload)
    timer = Interleaver(
        cross_entropy, lambda loss_fn: by_hand(hand, loss_fn), time_of_all, EVERY[workload]
    )
    work = make(workload)
    timer.start()
    train(work, timer)
    timer.stop()
    results = likeness(work.model.parameters(), hand.model.parameters())
    return {**timer.row(), "results": results}


def _hand_written(work: Workload, loss_fn: Callable[..., Any]) -> None:
    for _ in by_hand(work, loss_fn):
        pass


def measure_exchanges() -> dict[str, list[float]]:
    """Measure exchanges of two numbers in this process, which has a twin; in us."""
    dist.init_process_group("gloo")
    exchange = exchange_of(dist.get_rank(), dist.get_world_size())
    everyone, own, matrix = list(torch.zeros(2, 2).unbind()), torch.zeros(2), torch.ones(200, 200)
    kinds: dict[str, Callable[[], Any]] = {
        "deepepochs": lambda: exchange.total("measures", [0.0, 0.0]),
        "`all_gather` of gloo": lambda: dist.all_gather(everyone, own),
    }
    found: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(NUM_EXCHANGES):
        for kind, call in kinds.items():
            matrix @ matrix  # as a process that comes from its own work
            exchange.total("meets", [])
            start = time.perf_counter()
            call()
            found[kind].append((time.perf_counter() - start) * 1e6)
    return found


def sections(options: report.Options) -> report.Sections:
    """Give the tables, after each round."""
    pairs = [(name, column) for name in NAMES for column in COLUMNS]
    cores = sorted(os.sched_getaffinity(0))[:2]
    found = forks.call(measure_exchanges, cores=cores)
    rows = [
        f"| {kind} | {statistics.mean(each):,.0f} | {statistics.median(each):,.0f} |"
        for kind, each in found.items()
    ]
    exchanges = "\n".join(
        ["| an exchange of two numbers | mean, µs | median, µs |", "| --- | --- | --- |", *rows]
    )
    for table in report.compared(partial(forks.call, measure, cores=cores), pairs, options):
        yield (
            "Wall time of two processes, each on a core of its own. By hand it is "
            "`DistributedSampler` and `DistributedDataParallel`, with the mini-batches that the "
            "trainers get; Lightning draws others, and so comes to other weights.\n\n"
            f"{table}\n\n{exchanges}"
        )
