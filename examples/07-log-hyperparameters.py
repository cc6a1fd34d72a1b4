"""Example 7: compare hyper-parameters in TensorBoard.

Expect four short trainings and their test accuracies. The higher rate and the larger net win.
"""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset, random_split

from deepepochs import LogCallback, Trainer, set_seed
from deepepochs.metrics import accuracy

set_seed(1)
digits = load_digits()
images = torch.tensor(digits.images / 16, dtype=torch.float32)
dataset = TensorDataset(images, torch.tensor(digits.target))
train_ds, val_ds, test_ds = random_split(dataset, [0.8, 0.1, 0.1])
train_dl = DataLoader(train_ds, batch_size=32, shuffle=True)
val_dl, test_dl = DataLoader(val_ds, batch_size=32), DataLoader(test_ds, batch_size=32)


def train(lr, width):
    """Train a run with a folder of its own, and return its test accuracy."""
    set_seed(1)  # all runs begin with the same random numbers
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))
    trainer = Trainer(
        model,
        F.cross_entropy,
        torch.optim.Adam(model.parameters(), lr=lr),
        epochs=4,
        metrics=[accuracy],
        callbacks=LogCallback(),
        hyper_params={"lr": lr, "width": width},  # written after the test, with its results
        running_id=f"lr{lr}-width{width}",
    )
    trainer.fit(train_dl, val_dl)
    return trainer.test(test_dl)["accuracy"]


found = {(lr, width): train(lr, width) for lr in (3e-3, 3e-4) for width in (16, 64)}
for (lr, width), value in found.items():
    print(f"lr {lr}, width {width}: {value:.3f}")
print("best: lr {}, width {}".format(*max(found, key=found.get)))

# TensorBoard has the four runs in its tab HPARAMS, at http://localhost:6006. It runs until you
# press Ctrl-C:
# LogCallback().run_tensorboard()
