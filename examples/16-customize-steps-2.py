"""Example 16: your own train_step, val_step and test_step, in a subclass of EpochTask."""

import torch
from data import digits
from torch import nn
from torch.nn import functional as F

from deepepochs import EpochTask, TensorPatch, Trainer, ValuePatch, set_seed
from deepepochs.metrics import accuracy

set_seed(1)
train_dl, val_dl, test_dl = digits(batch_size=32)
model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
opt = torch.optim.Adam(model.parameters(), lr=1e-3)


class MyTask(EpochTask):
    # `smoothing` comes from where the task is made; in **step_args would be any others.
    def train_step(self, batch_x, batch_y, smoothing=0.0, **step_args):
        model_out = self.model(*batch_x)
        # The four parts of `self.loss(model_out, batch_y)`, one by one, with another loss
        # than the trainer's:
        value = F.cross_entropy(model_out, batch_y, label_smoothing=smoothing)
        self.backward(value)
        self.optimize()
        self.do_metric(value, model_out, batch_y)

    def val_step(self, batch_x, batch_y, **step_args):
        model_out = self.model(*batch_x)
        self.loss(model_out, batch_y)

    def test_step(self, batch_x, batch_y, **step_args):
        # Four looks at each image, each with a little noise; the mean counts.
        (images,) = batch_x
        looks = [self.model(images + 0.05 * torch.randn_like(images)) for _ in range(4)]
        model_out = torch.stack(looks).mean(0)
        self.loss(model_out, batch_y)
        return {
            "spread": ValuePatch(len(batch_y)).load(torch.stack(looks).std(0).mean()),
            "four_looks": TensorPatch(accuracy).load(model_out, batch_y),
        }


# One class for all stages; a task, or a list of them.
trainer = Trainer(model, F.cross_entropy, opt, epochs=8)
trainer.fit(train_tasks=MyTask(train_dl, smoothing=0.1), val_tasks=MyTask(val_dl, accuracy))
trainer.test(tasks=MyTask(test_dl, metrics=[accuracy]))
