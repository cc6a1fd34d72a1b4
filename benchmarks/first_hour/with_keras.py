"""The digits with Keras 3 on its PyTorch backend; the model is Keras's own, of the same layers."""

import os

os.environ["KERAS_BACKEND"] = "torch"

from typing import Any

import common
from common import EPOCHS, digits

from keras import layers


def mlp() -> Any:
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((784,)),
            layers.Dense(64, activation="relu"),
            layers.Dropout(0.1),
            layers.Dense(10),
        ]
    )


# begin: train
import keras


def train() -> float:
    train_dl, val_dl, test_dl = digits()
    model = mlp()
    model.compile(keras.optimizers.Adam(1e-3), loss=loss(), metrics=["accuracy"])
    model.fit(train_dl, validation_data=val_dl, epochs=EPOCHS)
    return model.evaluate(test_dl)[1]


# end


# begin: resume
def train_and_resume() -> Any:
    train_dl, val_dl, test_dl = digits()
    model = mlp()
    model.compile(keras.optimizers.Adam(1e-3), loss=loss(), metrics=["accuracy"])
    backup = keras.callbacks.BackupAndRestore("run", save_freq=50)
    model.fit(train_dl, validation_data=val_dl, epochs=EPOCHS, callbacks=[backup])
    return model


# end


def loss() -> Any:
    """Keras's loss, which can end the process as that of the others does."""

    class Loss(keras.losses.SparseCategoricalCrossentropy):  # type: ignore[misc]
        def call(self, y_true: Any, y_pred: Any) -> Any:
            common.loss_fn(y_pred.detach(), y_true.reshape(-1).long())
            return super().call(y_true, y_pred)

    return Loss(from_logits=True)
