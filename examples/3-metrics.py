"""Example 3: metrics. Functions, dicts, torchmetrics, confusion matrices."""

from functools import partial

import torch
from data import digits
from torch import nn
from torch.nn import functional as F
from torchmetrics.classification import MulticlassAUROC
from torchmetrics.functional import accuracy as tm_accuracy

from deepepochs import Trainer, rename, set_seed
from deepepochs import metrics as dm

set_seed(1)
train_dl, val_dl, test_dl = digits(batch_size=32)
model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
opt = torch.optim.Adam(model.parameters(), lr=1e-3)


# A metric is a function of the model's outputs and the labels. Its name is what is printed.
def top2(preds, targets):
    return (preds.topk(2).indices == targets[:, None]).any(1).float().mean()


# It may give several values in a dict. Their names are the function's and the key: 'multi.p'.
# `rename` gives another name; '' leaves the keys alone.
@rename("multi.")
def multi_metrics(preds, targets):
    return {
        "p": dm.precision(preds, targets, average="macro"),
        "r": dm.recall(preds, targets, average="macro"),
    }


# A partial, or a function of torchmetrics, with a name of its own.
f1_macro = rename("f1_macro")(partial(dm.f1, average="macro"))
tm_acc = rename("tm_acc")(partial(tm_accuracy, task="multiclass", num_classes=10))
# An object of torchmetrics: updated with each mini-batch, computed at the end.
auroc = MulticlassAUROC(num_classes=10)

trainer = Trainer(model, F.cross_entropy, opt, epochs=5, metrics=[dm.accuracy])  # everywhere
trainer.fit(
    train_dl,
    val_dl,
    metrics=[f1_macro],  # in training and validation
    train_metrics=[top2],  # in training alone
    val_metrics=[multi_metrics, tm_acc],  # in validation alone
    batch_size=lambda batch_x, batch_y: len(batch_y),  # what a mini-batch weighs in means
)
results = trainer.test(test_dl, metrics=[top2, auroc])


# With metric_patch='confusion' metrics are functions of the confusion matrix of the whole
# epoch, and nothing else is kept: exact, and small.
@rename("")
def report(conf_mat):
    return {
        "accuracy": dm.accuracy(conf_mat=conf_mat),
        "recall": dm.recall(conf_mat=conf_mat, average="macro"),
    }


trainer = Trainer(model, F.cross_entropy, metrics=[report], metric_patch="confusion")
same = trainer.test(test_dl)
print("both ways the same:", bool(same["accuracy"] == results["accuracy"]))
