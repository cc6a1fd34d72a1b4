"""Example 14: callbacks of your own, which watch a training or change its course.

Expect the mean gradient norm after each epoch, and an end as soon as the accuracy is 0.95.
"""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset, random_split

from deepepochs import Callback, Trainer, set_seed
from deepepochs.metrics import accuracy

set_seed(1)
digits = load_digits()
images = torch.tensor(digits.images / 16, dtype=torch.float32)
train_ds, val_ds = random_split(TensorDataset(images, torch.tensor(digits.target)), [0.8, 0.2])
train_dl, val_dl = DataLoader(train_ds, batch_size=32, shuffle=True), DataLoader(val_ds, 32)


# 1. A callback defines methods that are called at certain points: docs/callbacks.md lists them
#    all. Arguments come by name; `**others` stands for those that you do not need.
class InitWeights(Callback):
    def on_before_fit(self, trainer, epochs):
        for weight in trainer.model.parameters():
            if weight.ndim > 1:
                nn.init.xavier_normal_(weight)


# 2. It may keep what it sees.
class GradientNorm(Callback):
    order = -1  # print after the row of the epoch, which is printed by a callback of order 0

    def on_before_epoch(self, trainer, **others):
        self.norms = []

    def on_after_backward(self, trainer, loss):  # the gradients are computed, and not yet used
        norms = [weight.grad.norm() for weight in trainer.model.parameters()]
        self.norms.append(torch.stack(norms).norm())

    def on_after_epoch(self, trainer, **others):
        trainer.print(f"mean gradient norm: {torch.stack(self.norms).mean():.4f}")


# 3. It may end the training.
class StopWhenGood(Callback):
    def on_after_epoch(self, trainer, val_metrics, epoch_idx, **others):
        if val_metrics["accuracy"] >= 0.95:
            trainer.stop(f"good enough after {epoch_idx + 1} epochs")


model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
opt = torch.optim.Adam(model.parameters(), lr=1e-3)
callbacks = [InitWeights(), GradientNorm(), StopWhenGood()]
trainer = Trainer(model, F.cross_entropy, opt, epochs=50, callbacks=callbacks, metrics=[accuracy])
history = trainer.fit(train_dl, val_dl)
print("validation accuracy:", *(round(value, 3) for value in history["val"]["accuracy"]))
