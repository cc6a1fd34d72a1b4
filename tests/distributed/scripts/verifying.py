"""Verify fits in several processes; what is found as JSON.

Started as ``verifying.py RESULT_FILE``, or by ``deepepochs verify`` as ``verifying.py FOLDER/any fits``.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import torch
from cases import X, Y, make_accelerator
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, TensorDataset

from deepepochs import Callback, CheckCallback, CheckpointError, Trainer, set_seed

RANK = int(os.environ["RANK"])
CALLS: list[int] = []
LOGS = Path(sys.argv[1]).parent / "logs"


class Noisy(Dataset[Any]):
    """Augments with the global generator."""

    def __len__(self) -> int:
        return 29

    def __getitem__(self, index: int) -> Any:
        return X[index] + 0.1 * torch.randn(6), Y[index]


class Counting(Noisy):
    """In process 1 its samples depend on how many were had before, which its module counts."""

    def __getitem__(self, index: int) -> Any:
        x, y = super().__getitem__(index)
        if RANK == 1:
            CALLS.append(1)
        return x + len(CALLS), y


class Scaled(nn.Module):
    """Its scale is a plain attribute, in all processes."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = make_model()
        self.scale = 1.0

    def forward(self, x: torch.Tensor) -> Any:
        self.scale += 0.5
        return self.inner(x) * self.scale


class Fails(Callback):
    """Fails in process 1."""

    def on_after_train_batch(self, batch_idx: int, **_: Any) -> None:
        if RANK == 1 and batch_idx == 1:
            raise ZeroDivisionError("in the hook")


class Forgets(Callback):
    """In process 1 it counts, and does not take back what it gives."""

    num = 0

    def on_after_train_batch(self, **_: Any) -> None:
        self.num += RANK

    def state_dict(self) -> dict[str, Any]:
        return {"num": self.num}


class Draws(Callback):
    """In process 1 it draws from the system."""

    def on_before_train_batch(self, trainer: Any, batch_x: Any, **_: Any) -> None:
        if RANK == 1:
            torch.manual_seed(int.from_bytes(os.urandom(4), "big"))


def make_model() -> nn.Module:
    return nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.ReLU(), nn.Linear(8, 3)
    )


def build(
    samples: type[Noisy] = Noisy, model: Any = make_model, callbacks: Any = (), workers: int = 0,
    **options: Any,
) -> tuple[Trainer, dict[str, Any]]:  # fmt: skip
    set_seed(0)
    net = model()
    trainer = Trainer(
        net, F.cross_entropy, torch.optim.Adam(net.parameters(), 0.01), epochs=2,
        device=make_accelerator(split=False), console="off", callbacks=list(callbacks), **options,
    )  # fmt: skip
    loader = DataLoader(samples(), 3, shuffle=True, num_workers=workers)
    return trainer, {"train_dl": loader, "val_dl": DataLoader(TensorDataset(X[:17], Y[:17]), 4)}


def prepared() -> tuple[Trainer, dict[str, Any]]:
    """Model, optimizer and loader are the user's own business, and mini-batches are split."""
    set_seed(0)
    accelerator = make_accelerator(split=True)
    model = make_model()
    opt = torch.optim.SGD(model.parameters(), 0.1)
    data = DataLoader(Noisy(), 6, shuffle=True, generator=torch.Generator().manual_seed(1))
    model, opt, train_dl = accelerator.prepare(model, opt, data)
    trainer = Trainer(model, F.cross_entropy, opt, epochs=3, device=accelerator, console="off")
    return trainer, {"train_dl": train_dl}


def told(trainer: Trainer, data: dict[str, Any], **options: Any) -> Any:
    """The report of this process, and whether all have the same."""
    report = trainer.verify_resume(**data, **{"steps": 10, **options})
    same = len({repr(of) for of in trainer.runtime.gather_objects(report)}) == 1
    return {**report._asdict(), "repr": repr(report), "same": same}


def raised(kind: type[Exception], trainer: Trainer, data: dict[str, Any], **options: Any) -> str:
    try:
        told(trainer, data, **options)
    except kind as error:
        return str(error)
    return "nothing raised"


def main() -> dict[str, Any]:
    results: dict[str, Any] = {}
    trainer, data = build(grad_accumulate=2, callbacks=[CheckCallback("loss", ckpt_dir=LOGS)])
    before = torch.get_rng_state()
    weights = [weight.clone() for weight in trainer.model.parameters()]
    results["sound"] = told(trainer, data)
    results["no trace"] = (
        torch.equal(torch.get_rng_state(), before)
        and all(map(torch.equal, weights, trainer.model.parameters()))
        and not LOGS.exists()
    )
    results["history"] = len(trainer.fit(**data)["train"]["loss"])
    results["after a fit"] = told(trainer, data, steps=5)
    results["workers"] = told(*build(workers=1), steps=4)
    results["prepared"] = told(*prepared())
    results["one faulty"] = told(*build(Counting))
    results["forgets"] = told(*build(callbacks=[Forgets()]), steps=4)
    results["all faulty"] = told(*build(model=Scaled))
    results["random"] = told(*build(callbacks=[Draws()]), steps=4)
    results["failing"] = raised(CheckpointError, *build(callbacks=[Fails()]))
    results["shorter"] = told(*build(), steps=1000)
    results["after all"] = len(trainer.fit(**data, epochs=1)["train"]["loss"])
    return results


def fits() -> None:
    """Two fits of one trainer; before the second, process 1 begins to count."""
    trainer, data = build()
    trainer.fit(**data)
    data["train_dl"] = DataLoader(Counting(), 3)
    trainer.fit(**data, epochs=4)


if __name__ == "__main__":
    if "fits" in sys.argv:
        fits()
    elif (found := main()) and RANK == 0:
        Path(sys.argv[1]).write_text(json.dumps(found))
