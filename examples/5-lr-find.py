"""Example 5: find a learning rate before you train."""

import torch
from data import mnist
from torch import nn
from torch.nn import functional as F

from deepepochs import LRFindCallback, Trainer, set_seed
from deepepochs.metrics import accuracy

set_seed(1)
train_dl, val_dl, test_dl = mnist(batch_size=32)


def new_trainer(lr, **arguments):
    model = nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 64), nn.ReLU(), nn.Linear(64, 10))
    opt = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    return Trainer(model, F.cross_entropy, opt, metrics=[accuracy], **arguments)


# 1. --- The trainer trains a few mini-batches with an ever larger rate, notes the losses, and
#        puts everything back: weights, optimizer, random numbers, the order of the data.
trainer = new_trainer(lr=0.1, epochs=3)
curve = trainer.find_lr(train_dl, max_batch=200)
print("tried", len(curve.lrs), f"rates, from {curve.lrs[0]:.1e} to {curve.lrs[-1]:.1e}")

# Where the loss falls fastest, and the middle of its longest descent, which is safer.
print(f"steepest: {curve.suggestion.steepest:.3f}, valley: {curve.suggestion.valley:.3f}")
curve.plot().savefig("lr_find.png")

# 2. --- Train with it.
trainer = new_trainer(lr=curve.suggestion.valley, epochs=3)
trainer.fit(train_dl, val_dl)
trainer.test(test_dl)

# 3. --- The same as a callback: it ends the fit, shows the plot if there is a display, and
#        writes it to the folder of the run.
finder = LRFindCallback(max_batch=100)
trainer = new_trainer(lr=0.1, callbacks=finder, running_id="example-5")
trainer.fit(train_dl)
print("tried", len(finder.lrs), "rates")
