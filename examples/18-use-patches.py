"""Example 18: the built-in patches.

A patch is a metric's value so far. The patches of the mini-batches add up to the value
of the epoch.
"""

import torch
from data import tumours
from torch import nn
from torch.nn import functional as F

from deepepochs import (
    ConfusionMetrics,
    ConfusionPatch,
    EpochTask,
    MeanPatch,
    TensorPatch,
    Trainer,
    ValuePatch,
    set_seed,
)
from deepepochs import metrics as dm

set_seed(1)
train_dl, val_dl, test_dl = tumours(batch_size=32)
model = nn.Sequential(nn.Linear(30, 16), nn.ReLU(), nn.Linear(16, 2))
opt = torch.optim.Adam(model.parameters(), lr=3e-3)


def recall_of(conf_mat):
    return dm.recall(conf_mat=conf_mat)


class MyTask(EpochTask):
    def evaluate_step(self, batch_x, batch_y, **step_args):
        model_out = self.model(*batch_x)
        loss = self.loss(model_out, batch_y, do_metric=False)  # record nothing by itself
        num = len(batch_y)
        return {
            # a mean that you have computed, and how many samples it stands for
            "my_loss": ValuePatch(num).load(loss),
            # outputs and labels are kept; the metric is computed of all: right for every metric
            "f1": TensorPatch(dm.f1).load(model_out, batch_y),
            # the metric of each mini-batch, averaged: right for means over samples
            "accuracy": MeanPatch(dm.accuracy, num).load(model_out, batch_y),
            # a function of the confusion matrix of all mini-batches
            "recall": ConfusionPatch(recall_of).load(model_out, batch_y),
            # several such at once, called C.acc and C.f1
            "C.": ConfusionMetrics(["accuracy", "f1"]).load(model_out, batch_y),
        }


trainer = Trainer(model, F.cross_entropy, opt, epochs=8)
trainer.fit(train_dl, val_tasks=MyTask(val_dl))
results = trainer.test(tasks=MyTask(test_dl))

# Patches can be used without a trainer, too:
first, second = ValuePatch(32).load(0.5), ValuePatch(8).load(1.0)
print("mean of 32 times 0.5 and 8 times 1.0:", (first + second)())
