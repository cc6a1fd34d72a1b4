"""Example 14: a callback of your own, which watches training or steers it."""

import torch
from data import digits
from torch import nn
from torch.nn import functional as F

from deepepochs import Callback, Trainer, set_seed
from deepepochs.metrics import accuracy

set_seed(1)
train_dl, val_dl, test_dl = digits(batch_size=32)
model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
opt = torch.optim.Adam(model.parameters(), lr=1e-3)


# The hooks are listed in docs/callbacks.md. Each gets its arguments by name; `**others`
# takes those that you do not need.
class InitWeights(Callback):
    def on_before_fit(self, trainer, epochs):
        for weight in trainer.model.parameters():
            if weight.ndim > 1:
                nn.init.xavier_normal_(weight)


class GradientNorm(Callback):
    """Shows the mean size of the gradient in each epoch."""

    order = -1  # its after_ hooks come later than the console's, which has 0 (the usual is 1)

    def __init__(self):
        super().__init__()
        self.norms = []

    def on_after_backward(self, trainer, loss):  # the gradients are there now
        norms = [weight.grad.norm() for weight in trainer.model.parameters()]
        self.norms.append(torch.stack(norms).norm())

    def on_after_epoch(self, trainer, **others):
        trainer.print(f"mean gradient norm: {torch.stack(self.norms).mean():.4f}")
        self.norms.clear()


class StopWhenGood(Callback):
    def on_after_epoch(self, trainer, val_metrics, epoch_idx, **others):
        if val_metrics["accuracy"] >= 0.95:
            trainer.stop(f"good enough after {epoch_idx + 1} epochs")


callbacks = [InitWeights(), GradientNorm(), StopWhenGood()]
trainer = Trainer(model, F.cross_entropy, opt, epochs=50, callbacks=callbacks, metrics=[accuracy])
trainer.fit(train_dl, val_dl)
trainer.test(test_dl)
