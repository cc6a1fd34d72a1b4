"""Example 19: a patch of your own, for a metric that adds up in its own way.

Expect eight epochs with the accuracy of the best and of the worst class.
"""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset, random_split

from deepepochs import EpochTask, PatchBase, Trainer, set_seed
from deepepochs.metrics import accuracy

set_seed(1)
digits = load_digits()
images = torch.tensor(digits.images / 16, dtype=torch.float32)
dataset = TensorDataset(images, torch.tensor(digits.target))
train_ds, val_ds, test_ds = random_split(dataset, [0.8, 0.1, 0.1])
train_dl = DataLoader(train_ds, batch_size=32, shuffle=True)
val_dl, test_dl = DataLoader(val_ds, batch_size=32), DataLoader(test_ds, batch_size=32)


class ByClass(PatchBase):
    """The accuracy of the best and of the worst class."""

    def load(self, preds, targets):  # 1. Take in the data of a mini-batch.
        hits = targets[preds.argmax(1) == targets]
        self.num_hits = torch.bincount(hits, minlength=preds.shape[1])
        self.num_samples = torch.bincount(targets, minlength=preds.shape[1])
        return self

    def add(self, other):  # 2. Add another patch.
        self.num_hits = self.num_hits + other.num_hits
        self.num_samples = self.num_samples + other.num_samples
        return self

    def forward(self):  # 3. Compute the value: a number, or a dict of numbers.
        shares = (self.num_hits / self.num_samples)[self.num_samples > 0]
        return {"best": shares.max(), "worst": shares.min()}


class MyTask(EpochTask):
    def step(self, batch_x, batch_y, **step_args):
        model_out = self.model(*batch_x)
        self.loss(model_out, batch_y)
        # The keys of the dict follow the name: class.best and class.worst
        return {"class.": ByClass().load(model_out.detach(), batch_y)}


model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
opt = torch.optim.Adam(model.parameters(), lr=1e-3)
trainer = Trainer(model, F.cross_entropy, opt, epochs=8, metrics=[accuracy])
history = trainer.fit(train_tasks=MyTask(train_dl), val_tasks=MyTask(val_dl))
results = trainer.test(tasks=MyTask(test_dl))
print("worst class in training:", *(round(value, 2) for value in history["train"]["class.worst"]))
for name in ("class.worst", "accuracy", "class.best"):
    print(f"test {name}: {results[name]:.4f}")
