"""A user's script, typed: checked by mypy in strict mode, and run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from deepepochs import (
    Callback,
    CheckCallback,
    EpochTask,
    GradClipCallback,
    History,
    Optimizer,
    PatchBase,
    TensorPatch,
    Trainer,
    TrainerBase,
    ValuePatch,
    rename,
)
from deepepochs import metrics as dm


@rename("top")
def top_score(preds: Tensor, targets: Tensor) -> float:
    """A metric."""
    return preds.max().item()


class Largest(PatchBase):
    """A patch: the largest value seen."""

    def __init__(self, name: str | None = None) -> None:
        super().__init__(name)
        self.largest = float("-inf")

    def load(self, values: Tensor) -> Largest:
        self.largest = values.max().item()
        return self

    def forward(self) -> float:
        return self.largest

    def add(self, other: Largest) -> Largest:
        self.largest = max(self.largest, other.largest)
        return self


class MyTask(EpochTask):
    """A custom step, with an argument and patches of its own."""

    def step(
        self, batch_x: tuple[Tensor, ...], batch_y: Tensor, *, scale: float = 1.0, **others: Any
    ) -> dict[str, PatchBase]:
        model_out = self.model(*batch_x)
        self.loss(model_out * scale, batch_y)
        return {
            "acc": TensorPatch(dm.accuracy).load(model_out, batch_y),
            "largest": Largest().load(model_out),
            "mean": ValuePatch(len(batch_y)).load(model_out.mean().item()),
        }


class LongForm(EpochTask):
    """The parts of ``self.loss``, and a step for each stage."""

    def train_step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> None:
        model_out = self.model(*batch_x)
        value = self.loss_fn(model_out, batch_y)
        self.backward(value)
        self.optimize()
        self.do_metric(value, model_out, batch_y)

    def evaluate_step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> None:
        value: Tensor | None = self.loss(self.model(*batch_x), batch_y)
        assert value is None or value.ndim == 0


class MyTrainer(TrainerBase):
    """A trainer with a step."""

    def val_step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> None:
        self.loss(self.model(*batch_x), batch_y)


class Watching(Callback):
    """Hooks with all their arguments, with some, and with none by name."""

    def __init__(self) -> None:
        super().__init__()
        self.losses: list[float] = []

    def on_before_fit(self, trainer: TrainerBase, epochs: int) -> None:
        trainer.print("training for", epochs)

    def on_before_epoch(
        self,
        trainer: TrainerBase,
        train_tasks: Sequence[EpochTask],
        val_tasks: Sequence[EpochTask],
        epoch_idx: int,
    ) -> None:
        assert len(train_tasks) == 1

    def on_after_train_batch(self, metrics: Any, **others: Any) -> None:
        self.losses.append(float(metrics["loss"]))

    def on_after_epoch(self, trainer: TrainerBase, epoch_idx: int, **others: Any) -> None:
        if epoch_idx == 5:
            trainer.stop("enough")

    def on_after_fit(self, **others: Any) -> None:
        self.losses.sort()


def main(folder: str) -> History:
    """Use the whole of it."""
    inputs, targets = torch.randn(16, 3), torch.arange(16) % 2
    train_dl = DataLoader(TensorDataset(inputs, targets), batch_size=4)
    model = nn.Linear(3, 2)
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    opt = Optimizer(sgd, torch.optim.lr_scheduler.StepLR(sgd, 1), sched_on="epoch")
    watching = Watching()
    trainer = Trainer(
        model,
        F.cross_entropy,
        opt,
        epochs=2,
        callbacks=[watching, GradClipCallback(1.0), CheckCallback("loss", ckpt_dir=folder)],
        metrics=[top_score, dm.accuracy],
        show_info=False,
    )
    history = trainer.fit(train_tasks=MyTask(train_dl, scale=0.5), val_tasks=LongForm(train_dl))
    best: float = min(float(value) for value in history["val"]["loss"])
    results: dict[str, Any] = trainer.test(train_dl, metrics=[dm.f1])
    assert best >= 0 and "accuracy" in results and watching.losses
    outputs: Tensor = trainer.predict(train_dl)
    assert outputs.shape == (16, 2)
    named = MyTrainer(model, nn.CrossEntropyLoss(), epochs=1, metrics="accuracy", show_info=False)
    named.fit(train_dl, train_dl, metrics=["f1", dm.recall], val_metrics="precision")
    named.test(tasks=EpochTask(train_dl, metrics=["accuracy"]))
    return history
