"""Example 16: your own steps for training, validation and test, in a subclass of EpochTask.

Expect eight epochs, and a test in which eight noisy copies of each image are better than one.
"""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset, random_split

from deepepochs import EpochTask, TensorPatch, Trainer, set_seed
from deepepochs.metrics import accuracy

set_seed(1)
digits = load_digits()
images = torch.tensor(digits.images / 16, dtype=torch.float32)
dataset = TensorDataset(images, torch.tensor(digits.target))
train_ds, val_ds, test_ds = random_split(dataset, [0.8, 0.1, 0.1])
train_dl = DataLoader(train_ds, batch_size=32, shuffle=True)
val_dl, test_dl = DataLoader(val_ds, batch_size=32), DataLoader(test_ds, batch_size=32)


class MyTask(EpochTask):
    # 1. Training, with another loss than the trainer's. The last three lines are what
    #    `self.loss(model_out, batch_y)` does. `smoothing` is an argument of the task.
    def train_step(self, batch_x, batch_y, smoothing=0.0, **step_args):
        model_out = self.model(*batch_x)
        value = F.cross_entropy(model_out, batch_y, label_smoothing=smoothing)
        self.backward(value)
        self.optimize()
        self.do_metric(value, model_out, batch_y)

    # 2. Validation
    def val_step(self, batch_x, batch_y, **step_args):
        self.loss(self.model(*batch_x), batch_y)

    # 3. Test: the mean of the scores of eight copies, each with its own noise. What a step returns
    #    is recorded; a metric of your own choice is wrapped in a patch (see example 18).
    def test_step(self, batch_x, batch_y, **step_args):
        (images,) = batch_x
        copies = [self.model(images + 0.4 * torch.randn_like(images)) for _ in range(8)]
        self.loss(torch.stack(copies).mean(0), batch_y)
        return {"accuracy of one copy": TensorPatch(accuracy).load(copies[0], batch_y)}


# 4. Each task has its own DataLoader, metrics and arguments.
model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
opt = torch.optim.Adam(model.parameters(), lr=1e-3)
trainer = Trainer(model, F.cross_entropy, opt, epochs=8)
history = trainer.fit(
    train_tasks=MyTask(train_dl, smoothing=0.1), val_tasks=MyTask(val_dl, metrics=[accuracy])
)
results = trainer.test(tasks=MyTask(test_dl, metrics=[accuracy]))
print("training loss, with smoothed labels:", round(history["train"]["loss"][-1], 4))
print("validation loss:", round(history["val"]["loss"][-1], 4))
print("test accuracy of eight copies:", round(results["accuracy"], 4))
print("test accuracy of one copy:", round(results["accuracy of one copy"], 4))
