"""Example 10: two optimizers, each with its part of the model and its own schedule.

Expect six epochs, one rate that falls to 0, and one that is halved three times.
"""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import CosineAnnealingLR, StepLR
from torch.utils.data import DataLoader, TensorDataset, random_split

from deepepochs import Optimizer, Trainer, set_seed
from deepepochs.metrics import accuracy

set_seed(1)
digits = load_digits()
images = torch.tensor(digits.images / 16, dtype=torch.float32).unsqueeze(1)  # [1797, 1, 8, 8]
dataset = TensorDataset(images, torch.tensor(digits.target))
train_ds, val_ds, test_ds = random_split(dataset, [0.8, 0.1, 0.1])
train_dl = DataLoader(train_ds, batch_size=32, shuffle=True)
val_dl, test_dl = DataLoader(val_ds, batch_size=32), DataLoader(test_ds, batch_size=32)
epochs = 6


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Flatten())
        self.head = nn.Linear(16 * 6 * 6, 10)

    def forward(self, images):
        return self.head(self.features(images))


# `Optimizer` joins an optimizer and its schedule.
model = Net()
adam = torch.optim.Adam(model.features.parameters(), lr=2e-3)
sgd = torch.optim.SGD(model.head.parameters(), lr=5e-2, momentum=0.9)
opts = [
    Optimizer(adam, CosineAnnealingLR(adam, T_max=epochs)),
    Optimizer(sgd, StepLR(sgd, step_size=2, gamma=0.5)),
]

# After each mini-batch both make a step. If only one should, as in a GAN, write your own step
# that calls `self.optimize(0)` or `self.optimize(1)`: see example 26.
trainer = Trainer(model, F.cross_entropy, opts, epochs, metrics=[accuracy])
trainer.fit(train_dl, val_dl)
results = trainer.test(test_dl)
print("learning rates at the end:", *(round(rate, 6) for rate in trainer.opt.get_current_lr()))
print(f"test accuracy: {results['accuracy']:.4f}")
