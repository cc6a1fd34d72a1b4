"""The digits with fastai."""

from pathlib import Path
from typing import Any

from common import EPOCHS, digits, loss_fn, mlp

# begin: train
from fastai.callback.progress import ProgressCallback  # noqa: F401
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.metrics import accuracy


def train() -> float:
    train_dl, val_dl, test_dl = digits()
    learn = Learner(DataLoaders(train_dl, val_dl), mlp(), loss_func=loss_fn, metrics=accuracy)
    learn.fit(EPOCHS, lr=1e-3)
    return learn.validate(dl=test_dl)[1]


# end


# begin: resume
from fastai.callback.tracker import SaveModelCallback


def train_and_resume() -> Any:
    train_dl, val_dl, test_dl = digits()
    learn = Learner(
        DataLoaders(train_dl, val_dl), mlp(), loss_func=loss_fn, metrics=accuracy, path="run"
    )
    saved = sorted(Path("run/models").glob("model_*.pth"))
    if saved:
        learn.load(saved[-1].stem, with_opt=True)
    save = SaveModelCallback(every_epoch=True, with_opt=True)
    learn.fit(EPOCHS, lr=1e-3, cbs=save, start_epoch=len(saved))
    return learn.model


# end
