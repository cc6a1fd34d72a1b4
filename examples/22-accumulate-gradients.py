"""Example 22: the gradients of several mini-batches in one step, in three ways.

Expect 116 steps and the same accuracy in each way.
"""

import torch
from accelerate import Accelerator
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from deepepochs import EpochTask, Trainer, set_seed
from deepepochs.metrics import accuracy


def train(name, batch_size, task=EpochTask, **options):
    """Train for four epochs, and print the steps of the optimizer and the accuracy."""
    set_seed(1)
    pixels, labels = load_digits(return_X_y=True)
    dataset = TensorDataset(torch.tensor(pixels).float() / 16, torch.tensor(labels))
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    trainer = Trainer(model, F.cross_entropy, opt, epochs=4, metrics=[accuracy], **options)
    history = trainer.fit(train_tasks=task(DataLoader(dataset, batch_size, shuffle=True)))
    accuracies = history["train"]["accuracy"]
    print(f"{name}: {trainer.progress.num_steps} steps, training accuracy {accuracies[-1]:.3f}")


# 1. By an argument: a step for four mini-batches of 16. The gradient is that of the four joined
#    into one, and the last step of an epoch takes what is left.
train("by argument", 16, grad_accumulate=4)


# 2. By hand: a mini-batch of 64, which may be too large for the memory, in four parts.
class PartsTask(EpochTask):
    def train_step(self, batch_x, batch_y, **step_args):
        loss, outs = 0.0, []
        for x, y in zip(batch_x[0].chunk(4), batch_y.chunk(4), strict=True):
            out, share = self.model(x), len(y) / len(batch_y)
            # Only add up the gradients of the parts.
            part = self.loss(out, y, loss_adjust=share, do_optimize=False, do_metric=False)
            loss += share * part.detach()
            outs.append(out)
        self.optimize()
        self.do_metric(loss, torch.cat(outs), batch_y)


train("by hand", 64, PartsTask)


# 3. As in any script for Accelerate. Processes exchange their gradients once in four mini-batches.
class AccumulateTask(EpochTask):
    def train_step(self, batch_x, batch_y, **step_args):
        with self.accelerator.accumulate(self.model):
            self.loss(self.model(*batch_x), batch_y)


accelerator = Accelerator(cpu=not torch.cuda.is_available(), gradient_accumulation_steps=4)
train("with Accelerate", 16, AccumulateTask, device=accelerator)
