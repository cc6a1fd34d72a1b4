"""The digits with Lightning."""

import os
from pathlib import Path
from typing import Any

from common import EPOCHS, digits, loss_fn, mlp

# begin: train
import lightning
from torch.optim import Adam
from torchmetrics.classification import MulticlassAccuracy


class Digits(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = mlp()
        self.accuracy = MulticlassAccuracy(10, average="micro")
        self.val_accuracy = MulticlassAccuracy(10, average="micro")

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        out = self.net(x)
        loss = loss_fn(out, y)
        self.accuracy(out, y)
        self.log("loss", loss, on_step=False, on_epoch=True, prog_bar=True)
        self.log("accuracy", self.accuracy, on_step=False, on_epoch=True, prog_bar=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        x, y = batch
        out = self.net(x)
        self.val_accuracy(out, y)
        self.log("val_loss", loss_fn(out, y), prog_bar=True)
        self.log("val_accuracy", self.val_accuracy, prog_bar=True)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        x, y = batch
        self.val_accuracy(self.net(x), y)
        self.log("test_accuracy", self.val_accuracy)

    def configure_optimizers(self) -> Any:
        return Adam(self.parameters(), lr=1e-3)


def train() -> float:
    train_dl, val_dl, test_dl = digits()
    trainer = lightning.Trainer(max_epochs=EPOCHS, accelerator="cpu")
    model = Digits()
    trainer.fit(model, train_dl, val_dl)
    return trainer.test(model, test_dl)[0]["test_accuracy"]


# end


# begin: resume
from lightning.pytorch.callbacks import ModelCheckpoint


def train_and_resume() -> Any:
    train_dl, val_dl, test_dl = digits()
    check = ModelCheckpoint("run", every_n_train_steps=50, save_last=True)
    trainer = lightning.Trainer(max_epochs=EPOCHS, accelerator="cpu", callbacks=check)
    model = Digits()
    last = Path("run/last.ckpt")
    trainer.fit(model, train_dl, val_dl, ckpt_path=last if last.exists() else None)
    return model.net


# end


def validate_in_processes() -> float:
    """Give the accuracy of the first weights on the validation data, of all processes."""
    processes = int(os.environ["PROCESSES"])
    strategy = "ddp" if processes > 1 else "auto"
    trainer = lightning.Trainer(
        accelerator="cpu", devices=processes, strategy=strategy, logger=False
    )
    return trainer.validate(Digits(), digits()[1], verbose=False)[0]["val_accuracy"]
