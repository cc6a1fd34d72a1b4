"""Example 15: your own training and evaluation steps, in a subclass of TrainerBase.

Expect eight epochs. The model becomes more confident, and its test accuracy is about 0.93.
"""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset, random_split

from deepepochs import TrainerBase, set_seed
from deepepochs.metrics import accuracy

set_seed(1)
digits = load_digits()
images = torch.tensor(digits.images / 16, dtype=torch.float32)
dataset = TensorDataset(images, torch.tensor(digits.target))
train_ds, val_ds, test_ds = random_split(dataset, [0.8, 0.1, 0.1])
train_dl = DataLoader(train_ds, batch_size=32, shuffle=True)
val_dl, test_dl = DataLoader(val_ds, batch_size=32), DataLoader(test_ds, batch_size=32)


class MyTrainer(TrainerBase):
    # 1. The step for training. `batch_x` is the tuple of all inputs of a mini-batch (here there is
    #    only one), `batch_y` is the target.
    def train_step(self, batch_x, batch_y, **step_args):
        (images,) = batch_x
        model_out = self.model(images + 0.1 * torch.randn_like(images))  # with some noise
        # In training, this computes the loss and the gradients, and the optimizer makes a step.
        self.loss(model_out, batch_y)

    # 2. The step for validation and test. `val_step` or `test_step` is for one of them.
    def evaluate_step(self, batch_x, batch_y, **step_args):
        model_out = self.model(*batch_x)
        # In validation and test, this computes the loss and the metrics.
        self.loss(model_out, batch_y)
        # Other values to record: here the mean probability of the predicted digit.
        return {"confidence": model_out.softmax(1).amax(1).mean()}


model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
opt = torch.optim.Adam(model.parameters(), lr=1e-3)
trainer = MyTrainer(model, F.cross_entropy, opt, epochs=8, metrics=[accuracy])
history = trainer.fit(train_dl, val_dl)
results = trainer.test(test_dl)
print("validation confidence:", *(round(value, 3) for value in history["val"]["confidence"]))
print(f"test confidence: {results['confidence']:.4f}")
print(f"test accuracy: {results['accuracy']:.4f}")
