"""Example 19: a patch of your own, for a metric that adds up in its own way."""

import torch
from data import digits
from torch import nn
from torch.nn import functional as F

from deepepochs import EpochTask, PatchBase, Trainer, set_seed
from deepepochs.metrics import accuracy

set_seed(1)
train_dl, val_dl, test_dl = digits(batch_size=32)
model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
opt = torch.optim.Adam(model.parameters(), lr=1e-3)


class HitsPerClass(PatchBase):
    """The accuracy of the best and of the worst class."""

    def load(self, preds, targets):  # the data of one mini-batch
        hits = preds.argmax(1) == targets
        num_classes = preds.shape[1]
        self.hits = torch.bincount(targets[hits], minlength=num_classes)
        self.nums = torch.bincount(targets, minlength=num_classes)
        return self

    def add(self, other):  # take in another patch
        self.hits = self.hits + other.hits
        self.nums = self.nums + other.nums
        return self

    def forward(self):  # the value: a number, or a dict of numbers
        share = self.hits / self.nums.clamp(min=1)
        return {"best": share.max(), "worst": share[self.nums > 0].min()}


class MyTask(EpochTask):
    def step(self, batch_x, batch_y, **step_args):
        model_out = self.model(*batch_x)
        self.loss(model_out, batch_y)
        # The keys of the dict follow the name: class.best and class.worst
        return {"class.": HitsPerClass().load(model_out.detach(), batch_y)}


trainer = Trainer(model, F.cross_entropy, opt, epochs=8, metrics=[accuracy])
trainer.fit(train_tasks=MyTask(train_dl), val_tasks=MyTask(val_dl))
trainer.test(tasks=MyTask(test_dl))
