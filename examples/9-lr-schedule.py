"""Example 9: learning-rate schedules, step by step or epoch by epoch."""

import torch
from data import digits
from torch import nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau

from deepepochs import Callback, Optimizer, Trainer, set_seed
from deepepochs.metrics import accuracy

set_seed(1)
train_dl, val_dl, test_dl = digits(batch_size=32)
epochs = 6


def new_model():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


class ShowRate(Callback):
    def on_before_epoch(self, trainer, **others):
        (rate,) = trainer.opt.get_current_lr()  # one for each optimizer
        trainer.print(f"learning rate: {rate:.6f}")


# 1. --- A schedule that moves after every mini-batch: sched_on='step'
model = new_model()
opt = torch.optim.Adam(model.parameters())
schedule = OneCycleLR(opt, max_lr=1e-2, total_steps=epochs * len(train_dl))
opt = Optimizer(opt, schedule, sched_on="step")  # optimizer and schedule belong together
trainer = Trainer(model, F.cross_entropy, opt, epochs, metrics=[accuracy], callbacks=ShowRate())
trainer.fit(train_dl, val_dl)
trainer.test(test_dl)

# 2. --- A schedule that moves after every epoch (the default), and looks at the loss: that of
#        validation if there is one, else that of training
model = new_model()
opt = torch.optim.SGD(model.parameters(), lr=1.0)
schedule = ReduceLROnPlateau(opt, factor=0.2, patience=1)
opt = Optimizer(opt, schedule, sched_on="epoch", sched_with_loss=True)
trainer = Trainer(model, F.cross_entropy, opt, epochs=10, metrics=[accuracy], callbacks=ShowRate())
trainer.fit(train_dl, val_dl)
trainer.test(test_dl)
