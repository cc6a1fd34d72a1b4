"""The digits with DeepEpochs."""

from typing import Any

from common import EPOCHS, digits, loss_fn, mlp

# begin: train
from torch.optim import Adam
from deepepochs import Trainer


def train() -> float:
    train_dl, val_dl, test_dl = digits()
    model = mlp()
    opt = Adam(model.parameters(), lr=1e-3)
    trainer = Trainer(model, loss_fn, opt, epochs=EPOCHS, metrics="accuracy")
    trainer.fit(train_dl, val_dl)
    return trainer.test(test_dl)["accuracy"]


# end


# begin: resume
from deepepochs import CheckCallback


def train_and_resume() -> Any:
    train_dl, val_dl, test_dl = digits()
    model = mlp()
    opt = Adam(model.parameters(), lr=1e-3)
    check = CheckCallback("loss", every_n_batches=50)
    trainer = Trainer(
        model,
        loss_fn,
        opt,
        epochs=EPOCHS,
        metrics="accuracy",
        callbacks=check,
        running_id="digits",
        resume="auto",
    )
    trainer.fit(train_dl, val_dl)
    return model


# end


def validate_in_processes() -> float:
    """Give the accuracy of the first weights on the validation data, of all processes."""
    trainer = Trainer(mlp(), loss_fn, device="auto", metrics="accuracy", show_info=False)
    return trainer.test(digits()[1])["accuracy"]
