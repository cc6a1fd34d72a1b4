"""Checkpoints that were written before the files moved into rooms load and resume.

`before_the_rooms/` was written at commit 35b4a42 by this very file, run as a script:

    python tests/resume/test_earlier_checkpoints.py FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from deepepochs import Callback, CheckCallback, EpochTask, Optimizer, Trainer, ValuePatch
from deepepochs.metrics import accuracy, f1

FOLDER = Path(__file__).parent / "before_the_rooms"
# Mini-batches after which the checkpoints were taken, of 6 for training and 2 for validation an
# epoch: inside of an accumulation window, at its end, inside of validation, and after an epoch.
PLACES = (3, 4, 7, 8, 12)


class Counting(EpochTask):
    def train_step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> Any:
        self.loss(self.model(*batch_x), batch_y)
        return {"positive": ValuePatch(len(batch_y)).load(batch_y.float().mean())}


class StopAfter(Callback):
    """Stops after a number of mini-batches, over all passes."""

    def __init__(self, place: int) -> None:
        super().__init__()
        self.place, self.count = place, 0

    def on_after_train_batch(self, trainer: Any, **others: Any) -> None:
        self.count += 1
        if self.count == self.place:
            trainer.stop("there")

    on_after_val_batch = on_after_train_batch


def run(folder: Path, place: int | None = None, resume: Any = False) -> Trainer:
    torch.manual_seed(3)
    np.random.seed(3)
    x = torch.randn(46, 5)
    data = TensorDataset(x, (x.sum(1) > 0).long())
    generator = torch.Generator().manual_seed(5)
    train_dl = DataLoader(data, 8, shuffle=True, generator=generator)
    model = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 2))
    opt = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.StepLR(opt, 2, 0.5)
    check = CheckCallback("loss", ckpt_dir=folder)
    trainer = Trainer(
        model, F.cross_entropy, Optimizer(opt, schedule, sched_on="step"), epochs=3,
        callbacks=[check] if place is None else [check, StopAfter(place)],
        metrics=[accuracy, f1], show_info=False, grad_accumulate=2, resume=resume,
        running_id="run" if place is None else place,
    )  # fmt: skip
    trainer.fit(train_tasks=Counting(train_dl), val_dl=DataLoader(data, 30))
    return trainer


def outcome(trainer: Trainer) -> dict[str, Any]:
    weights = {name: value.tolist() for name, value in trainer.model.state_dict().items()}
    history = {
        f"{stage}/{name}": [float(value) for value in values]
        for stage, metrics in trainer.history.items()
        for name, values in metrics.items()
    }
    return {"weights": weights, "history": history, "drawn": torch.rand(1).item()}


def compare(here: Any, there: Any) -> None:
    assert here["history"].keys() == there["history"].keys()
    for name, values in there["history"].items():
        assert here["history"][name] == pytest.approx(values, rel=1e-4), name
    for name, value in there["weights"].items():
        assert np.allclose(here["weights"][name], value, atol=1e-4), name
    assert here["drawn"] == there["drawn"]


@pytest.mark.parametrize("place", PLACES)
def test_a_checkpoint_of_the_flat_folder_resumes_as_its_own_run_went_on(
    tmp_path: Path, place: int
) -> None:
    (tmp_path / "run").mkdir()
    name = f"after-{place}.ckpt"
    (tmp_path / "run" / "checkpoint.ckpt").write_bytes((FOLDER / name).read_bytes())
    there = torch.load(FOLDER / "outcome.pt", weights_only=True)
    compare(outcome(run(tmp_path, resume=True)), there)


def test_the_comparison_sees_another_run(tmp_path: Path) -> None:
    there = torch.load(FOLDER / "outcome.pt", weights_only=True)
    compare(outcome(run(tmp_path)), there)
    torch.rand(1)
    other = {**there, "drawn": torch.rand(1).item()}
    with pytest.raises(AssertionError):
        compare(outcome(run(tmp_path / "again")), other)


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(exist_ok=True)
    torch.save(outcome(run(target / "runs")), target / "outcome.pt")
    for number in PLACES:
        run(target / "runs", number)
        checkpoint = target / "runs" / str(number) / "checkpoint.ckpt"
        (target / f"after-{number}.ckpt").write_bytes(checkpoint.read_bytes())
