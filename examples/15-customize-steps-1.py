"""Example 15: your own training and evaluation steps, in a subclass of TrainerBase."""

import torch
from data import digits
from torch import nn
from torch.nn import functional as F

from deepepochs import TrainerBase, ValuePatch, set_seed
from deepepochs.metrics import accuracy

set_seed(1)
train_dl, val_dl, test_dl = digits(batch_size=32)
model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
opt = torch.optim.Adam(model.parameters(), lr=1e-3)


class MyTrainer(TrainerBase):
    # batch_x is the tuple of all inputs of the mini-batch (here there is one), batch_y the target.
    def train_step(self, batch_x, batch_y, **step_args):
        (images,) = batch_x
        noisy = images + 0.1 * torch.randn_like(images)
        model_out = self.model(noisy)
        # In training: computes the loss, goes backward, steps the optimizers, records metrics.
        self.loss(model_out, batch_y)

    # For validation and test; `val_step` and `test_step` would be for one of them.
    def evaluate_step(self, batch_x, batch_y, **step_args):
        model_out = self.model(*batch_x)
        # In validation and test: computes the loss, records it and the metrics.
        self.loss(model_out, batch_y)
        # What a step returns is recorded as well: a dict of patches (see example 18).
        surety = model_out.softmax(1).amax(1).mean()
        return {"surety": ValuePatch(len(batch_y)).load(surety)}


trainer = MyTrainer(model, F.cross_entropy, opt, epochs=8, metrics=[accuracy])
trainer.fit(train_dl, val_dl)
trainer.test(test_dl)
