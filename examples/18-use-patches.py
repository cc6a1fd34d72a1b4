"""Example 18: the built-in patches. A patch is the value of a metric so far.

The patches of the mini-batches add up to the value of the epoch. Expect five metrics of the test,
each computed in another way.
"""

import torch
from sklearn.datasets import load_breast_cancer
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset, random_split

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
values, labels = load_breast_cancer(return_X_y=True)  # 569 tumours with 30 measures; benign or not
values = torch.tensor((values - values.mean(0)) / values.std(0), dtype=torch.float32)
train_ds, test_ds = random_split(TensorDataset(values, torch.tensor(labels)), [0.8, 0.2])
train_dl, test_dl = DataLoader(train_ds, 32, shuffle=True), DataLoader(test_ds, 32)


class MyTask(EpochTask):
    def evaluate_step(self, batch_x, batch_y, **step_args):
        out = self.model(*batch_x)
        loss = self.loss(out, batch_y, do_metric=False)  # record nothing by itself
        num_samples = len(batch_y)
        return {
            # 1. A mean that you have computed, and how many samples it is the mean of
            "my_loss": ValuePatch(num_samples).load(loss),
            # 2. Keeps outputs and labels, and computes the metric of all: right for any metric
            "f1": TensorPatch(dm.f1).load(out, batch_y),
            # 3. The mean of the values of the mini-batches: right if the metric is itself a mean
            "accuracy": MeanPatch(dm.accuracy, num_samples).load(out, batch_y),
            # 4. A function of the confusion matrix of all samples
            "recall": ConfusionPatch(lambda m: dm.recall(conf_mat=m)).load(out, batch_y),
            # 5. Several of them at once, named C.acc and C.f1
            "C.": ConfusionMetrics(["accuracy", "f1"]).load(out, batch_y),
        }


model = nn.Sequential(nn.Linear(30, 16), nn.ReLU(), nn.Linear(16, 2))
trainer = Trainer(model, F.cross_entropy, torch.optim.Adam(model.parameters(), lr=3e-3), epochs=8)
trainer.fit(train_dl)
results = trainer.test(tasks=MyTask(test_dl))
for name, value in results.items():
    print(f"test {name}: {value:.4f}")

# 6. Without a trainer: the mean of 32 times 0.5 and 8 times 1.0
print("sum of two patches:", (ValuePatch(32).load(0.5) + ValuePatch(8).load(1.0))())
