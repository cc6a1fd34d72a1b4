"""The trainers that are measured: each trains a workload with the loss function it is given.

Every function imports its library itself, since each run is a process of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from workloads import Workload, by_hand

SYSTEMS: dict[str, Callable[[Workload, Any], None]] = {}


def system(name: str) -> Callable[[Any], Any]:
    """Register a system under the name that the table shows."""

    def register(function: Any) -> Any:
        SYSTEMS[name] = function
        return function

    return register


@system("hand-written loop")
def hand_written(work: Workload, loss_fn: Any) -> None:
    for _ in by_hand(work, loss_fn):
        pass


@system("hand-written, .item() and tqdm")
def hand_written_tqdm(work: Workload, loss_fn: Any) -> None:
    import torch
    from tqdm import tqdm

    for epoch in range(work.epochs):
        work.model.train()
        total, right, count = 0.0, 0, 0
        bar = tqdm(work.train, desc=f"epoch {epoch}", mininterval=0)
        for x, y in bar:
            work.opt.zero_grad()
            out = work.model(x)
            loss = loss_fn(out, y)
            loss.backward()
            work.opt.step()
            total += loss.item() * len(y)
            count += len(y)
            if work.with_accuracy:
                right += (out.argmax(1) == y).sum().item()
            bar.set_postfix(loss=f"{total / count:.4f}")
        if work.val is None:
            continue
        work.model.eval()
        with torch.no_grad():
            for x, y in work.val:
                loss_fn(work.model(x), y).item()


def _deepepochs(work: Workload, loss_fn: Any, **options: Any) -> None:
    import deepepochs

    metrics = [deepepochs.metrics.accuracy] if work.with_accuracy else None
    trainer = deepepochs.Trainer(
        work.model, loss_fn, work.opt, epochs=work.epochs, metrics=metrics, **options
    )
    trainer.fit(work.train, work.val)


@system("deepepochs, default")
def deepepochs_default(work: Workload, loss_fn: Any) -> None:
    _deepepochs(work, loss_fn)


@system("deepepochs, metric_patch='mean'")
def deepepochs_mean(work: Workload, loss_fn: Any) -> None:
    _deepepochs(work, loss_fn, metric_patch="mean")


@system("deepepochs, loader as it is")
def deepepochs_loader(work: Workload, loss_fn: Any) -> None:
    from torch.utils.data import DataLoader

    class OtherLoader(DataLoader):  # type: ignore[type-arg]
        """A class of its own is not taken apart: no tensor fast path."""

    for loader in (work.train, work.val):
        if isinstance(loader, DataLoader):
            loader.__class__ = OtherLoader
    _deepepochs(work, loss_fn)
