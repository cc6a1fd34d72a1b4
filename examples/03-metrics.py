"""Example 3: metrics: your own, those of the library, those of torchmetrics.

Expect five epochs with up to five metrics, and values of the test that are exact.
"""

from functools import partial

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset, random_split
from torchmetrics.classification import MulticlassMatthewsCorrCoef

from deepepochs import Trainer, rename, set_seed
from deepepochs import metrics as dm

set_seed(1)
digits = load_digits()
images = torch.tensor(digits.images / 16, dtype=torch.float32)
dataset = TensorDataset(images, torch.tensor(digits.target))
train_ds, val_ds, test_ds = random_split(dataset, [0.8, 0.1, 0.1])
train_dl = DataLoader(train_ds, batch_size=32, shuffle=True)
val_dl, test_dl = DataLoader(val_ds, batch_size=32), DataLoader(test_ds, batch_size=32)


# 1. A metric is a function of the model's outputs and the labels. It is shown by its name.
def top2(preds, targets):
    return (preds.topk(2).indices == targets[:, None]).any(1).float().mean().item()


# 2. It may return a dict. These two are shown as macro.p and macro.r.
@rename("macro.")
def precision_and_recall(preds, targets):
    recall = dm.recall(preds, targets, average="macro")
    return {"p": dm.precision(preds, targets, average="macro"), "r": recall}


# 3. A function of the library with another argument and another name
f1_macro = rename("f1_macro")(partial(dm.f1, average="macro"))

# 4. An object of torchmetrics. Functions of torchmetrics can be used as well.
matthews = rename("matthews")(MulticlassMatthewsCorrCoef(num_classes=10))

model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
opt = torch.optim.Adam(model.parameters(), lr=1e-3)
trainer = Trainer(model, F.cross_entropy, opt, epochs=5, metrics=[dm.accuracy])  # everywhere
# Those of `metrics` are computed in training and validation, the others in one of them.
val_metrics = [precision_and_recall, matthews]
trainer.fit(train_dl, val_dl, metrics=[f1_macro], train_metrics=[top2], val_metrics=val_metrics)
results = trainer.test(test_dl, metrics=[top2, matthews])
print("test:", {name: round(value, 4) for name, value in results.items()})

# 5. A value is that of all samples together, whatever the size of the mini-batches.
scores, labels = trainer.predict(test_dl), torch.stack([label for _, label in test_ds])
print("top2 of all test samples at once:", round(top2(scores, labels), 4))
