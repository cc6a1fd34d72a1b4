"""Example 22: gradients of several mini-batches in one step: by argument, and by hand."""

import torch
from accelerate import Accelerator
from data import digits
from torch import nn
from torch.nn import functional as F

from deepepochs import EpochTask, Trainer, set_seed
from deepepochs.metrics import accuracy


def make():
    set_seed(1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    return model, torch.optim.SGD(model.parameters(), lr=0.1)


options = {"epochs": 4, "metrics": accuracy}

# 1. Four mini-batches in one step. The gradient is that of the four joined into one, whatever
# their sizes; the last step of an epoch takes what is left.
train_dl, val_dl, test_dl = digits(batch_size=16)
model, opt = make()
by_argument = Trainer(model, F.cross_entropy, opt, grad_accumulate=4, **options)
by_argument.fit(train_dl, val_dl)


class PartsTask(EpochTask):
    """2. A mini-batch that is too large for the memory, in four parts."""

    def train_step(self, batch_x, batch_y, **step_args):
        loss, outs = 0.0, []
        for x, y in zip(batch_x[0].chunk(4), batch_y.chunk(4), strict=True):
            share = len(y) / len(batch_y)
            out = self.model(x)
            # The gradients of the parts add up; loss and metrics are recorded once, below.
            part = self.loss(out, y, loss_adjust=share, do_optimize=False, do_metric=False)
            loss += part.detach() * share
            outs.append(out)
        self.optimize()
        self.do_metric(loss, torch.cat(outs), batch_y)


train_dl, val_dl, test_dl = digits(batch_size=64)
model, opt = make()
by_hand = Trainer(model, F.cross_entropy, opt, **options)
by_hand.fit(train_tasks=PartsTask(train_dl), val_tasks=EpochTask(val_dl))


class AccumulateTask(EpochTask):
    """3. As in any script for Accelerate; the processes exchange gradients once in four."""

    def train_step(self, batch_x, batch_y, **step_args):
        with self.accelerator.accumulate(self.model):
            self.loss(self.model(*batch_x), batch_y)


train_dl, val_dl, test_dl = digits(batch_size=16)
model, opt = make()
accelerator = Accelerator(cpu=not torch.cuda.is_available(), gradient_accumulation_steps=4)
with_accelerate = Trainer(model, F.cross_entropy, opt, device=accelerator, **options)
with_accelerate.fit(train_tasks=AccumulateTask(train_dl), val_tasks=EpochTask(val_dl))

for name, trainer in [
    ("by argument", by_argument), ("by hand", by_hand), ("with accelerate", with_accelerate)
]:  # fmt: skip
    trainer.print(f"{name}: {trainer.progress.num_steps} steps")
    trainer.test(test_dl)
