"""Says how many bytes the address space of a process grows over 8,000 mini-batches.

    python memory_growth.py metrics           every kind of metric but TensorPatch
    python memory_growth.py 'kept outputs'    a loop that keeps all outputs
    python memory_growth.py 'kept losses'     a loop that keeps the loss of each sample

Small tensors also pin the holes that freed outputs leave in the heap, by luck. There are so many
of them here that they are seen by their own size.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepepochs import EpochTask, Trainer
from deepepochs.metrics import accuracy
from deepepochs.patches import ConfusionMetrics, MeanPatch, PatchBase, ValuePatch

NUM_BATCHES = 8_000


class Returning(EpochTask):
    """Returns a patch from its step, as users do."""

    def train_step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> dict[str, PatchBase]:
        model_out = self.model(*batch_x)
        self.loss(model_out, batch_y)
        values = {"x": model_out[0, 0].detach(), "y": 1.0}
        # Of ten classes at most: the matrix of a thousand is 8 MB.
        confusion = ConfusionMetrics("recall", average="macro")
        return {
            "value": ValuePatch(len(batch_y)).load(values),
            "confusion": confusion.load(model_out.detach()[:, :10], batch_y % 10),
        }


def mean_score(model_out: Tensor, targets: Tensor) -> Tensor:
    return model_out.mean()


class MeanScore(MeanPatch):
    """A metric whose value is averaged, beside others that are not."""

    def __init__(self, batch_size: float) -> None:
        super().__init__(mean_score, batch_size)


def fit_with_every_metric(loader: Any, model: nn.Module, *, keeps_all: bool) -> None:
    """Train an epoch with every kind of metric; ``TensorPatch`` is the one that keeps all."""
    import torchmetrics

    classes = model(loader.batch[0]).shape[1]
    opt = torch.optim.SGD(model.parameters(), lr=1e-3)
    metrics = [
        # Not by class: that makes a matrix of a thousand by a thousand, 8 MB, at each batch.
        torchmetrics.classification.MulticlassAccuracy(classes, average="micro"),
        MeanScore,
        *([accuracy] if keeps_all else []),
    ]
    trainer = Trainer(model, F.cross_entropy, opt, epochs=1, show_info=False)
    trainer.fit(train_tasks=[Returning(loader, metrics=metrics)])


class Weighed:
    """The same mini-batch again and again; reads the address space early and late."""

    def __init__(self) -> None:
        self.batch = torch.randn(8, 4), torch.randint(0, 1000, (8,))
        self.reserved: list[int] = []

    def __len__(self) -> int:
        return NUM_BATCHES

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for index in range(NUM_BATCHES):
            if index in (NUM_BATCHES // 16, NUM_BATCHES - 1):
                # Not the resident pages, which come and go with what other programs do.
                pages = int(Path("/proc/self/statm").read_text().split()[0])
                self.reserved.append(pages * resource.getpagesize())
            yield self.batch


def main(what: str) -> None:
    """Measure and print."""
    torch.manual_seed(0)
    loader, model = Weighed(), nn.Linear(4, 1000)
    if what == "metrics":
        fit_with_every_metric(loader, model, keeps_all=False)
    else:
        kept = []
        for x, y in loader:
            model_out = model(x).detach()
            losses = F.cross_entropy(model_out, y, reduction="none")
            kept.append(model_out if what == "kept outputs" else losses.unbind())
    early, late = loader.reserved
    print(late - early)


if __name__ == "__main__":
    main(sys.argv[1])
