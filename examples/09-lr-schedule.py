"""Example 9: learning-rate schedules that move after each mini-batch or after each epoch.

Expect the rate to rise and fall in the first training, and to drop in steps in the second.
"""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau
from torch.utils.data import DataLoader, TensorDataset, random_split

from deepepochs import Callback, Optimizer, Trainer, set_seed
from deepepochs.metrics import accuracy

set_seed(1)
digits = load_digits()
images = torch.tensor(digits.images / 16, dtype=torch.float32)
dataset = TensorDataset(images, torch.tensor(digits.target))
train_ds, val_ds, test_ds = random_split(dataset, [0.8, 0.1, 0.1])
train_dl = DataLoader(train_ds, batch_size=32, shuffle=True)
val_dl, test_dl = DataLoader(val_ds, batch_size=32), DataLoader(test_ds, batch_size=32)


class Rates(Callback):
    """Notes the learning rate at the beginning of each epoch."""

    def on_before_fit(self, trainer, epochs):
        self.rates = []

    def on_before_epoch(self, trainer, **others):
        self.rates += trainer.opt.get_current_lr()  # a list, with one rate for each optimizer


def train(model, opt, epochs):
    rates = Rates()
    trainer = Trainer(model, F.cross_entropy, opt, epochs, metrics=[accuracy], callbacks=rates)
    trainer.fit(train_dl, val_dl)
    results = trainer.test(test_dl)
    print("rates:", *(f"{rate:.6f}" for rate in rates.rates))
    print(f"test accuracy: {results['accuracy']:.4f}")


# 1. A schedule that moves after each mini-batch: sched_on="step"
model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
adam = torch.optim.Adam(model.parameters())
schedule = OneCycleLR(adam, max_lr=1e-2, total_steps=6 * len(train_dl))
train(model, Optimizer(adam, schedule, sched_on="step"), epochs=6)

# 2. A schedule that moves after each epoch, which is the default. This one needs the loss: it
#    gets that of validation if there is one, or else that of training.
model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
sgd = torch.optim.SGD(model.parameters(), lr=1.0)
schedule = ReduceLROnPlateau(sgd, factor=0.2, patience=1)
train(model, Optimizer(sgd, schedule, sched_with_loss=True), epochs=10)
