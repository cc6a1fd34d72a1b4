"""Example 10: several optimizers, each with its part of the model and its own schedule."""

import torch
from data import digits
from torch import nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import CosineAnnealingLR, StepLR

from deepepochs import Optimizer, Trainer, set_seed
from deepepochs.metrics import accuracy

set_seed(1)
train_dl, val_dl, test_dl = digits(batch_size=32)
epochs = 6


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Flatten())
        self.head = nn.Linear(16 * 6 * 6, 10)

    def forward(self, images):
        return self.head(self.features(images))


model = Net()
adam = torch.optim.Adam(model.features.parameters(), lr=2e-3)
sgd = torch.optim.SGD(model.head.parameters(), lr=5e-2, momentum=0.9)
opts = [
    Optimizer(adam, CosineAnnealingLR(adam, T_max=epochs)),
    Optimizer(sgd, StepLR(sgd, step_size=2, gamma=0.5)),
]

# After each mini-batch all of them step. Where only one is to (as in a GAN), a step of your
# own calls `self.optimize(0)` or `self.optimize(1)`: see examples 15 to 17.
trainer = Trainer(model, F.cross_entropy, opts, epochs, metrics=[accuracy])
trainer.fit(train_dl, val_dl)
trainer.test(test_dl)
print("learning rates:", [round(rate, 6) for rate in trainer.opt.get_current_lr()])
