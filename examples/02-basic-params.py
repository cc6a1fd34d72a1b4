"""Example 2: the arguments of the trainer, of `fit`, `test` and `predict` that are used most.

Expect 12 epochs in two parts, a test accuracy of about 0.93, and ten predicted digits.
"""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset, random_split

from deepepochs import Trainer, set_seed
from deepepochs.metrics import accuracy

set_seed(1)

# 1. Data: 1,797 images of digits, 8 x 8 pixels, which scikit-learn contains
digits = load_digits()
images = torch.tensor(digits.images / 16, dtype=torch.float32)  # [1797, 8, 8], from 0 to 1
dataset = TensorDataset(images, torch.tensor(digits.target))
train_ds, val_ds, test_ds = random_split(dataset, [0.8, 0.1, 0.1])
train_dl = DataLoader(train_ds, batch_size=32, shuffle=True)
val_dl, test_dl = DataLoader(val_ds, batch_size=32), DataLoader(test_ds, batch_size=32)

# 2. The trainer. Only the model must be given.
model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
trainer = Trainer(
    model,
    F.cross_entropy,  # a function of the model's outputs and the labels
    torch.optim.Adam(model.parameters(), lr=1e-3),
    epochs=4,  # how often to go through the training data
    metrics=[accuracy],  # computed in training, validation and test
    device="cpu",  # or "cuda"; if left out: the GPU, if there is one
    log_long=True,  # print 7 decimals instead of 4
    console="rows",  # a row for each epoch, and nothing while it runs; "off" prints nothing
)

# 3. `fit` returns the history: a value for each epoch, or for each validation.
history = trainer.fit(train_dl, val_dl, val_freq=2)  # validate after every second epoch
print("training loss:", *(round(loss, 4) for loss in history["train"]["loss"]))
print("validation accuracy:", *(round(value, 4) for value in history["val"]["accuracy"]))

# 4. A second `fit` goes on where the first one ended: 8 more epochs.
more = trainer.fit(train_dl, val_dl, epochs=8)
print("epochs in both parts:", len(history["train"]["loss"]), len(more["train"]["loss"]))

# 5. `test` returns a dict, and `predict` the model's outputs in the order of the loader.
results = trainer.test(test_dl)
print(f"test accuracy: {results['accuracy']:.4f}")
scores = trainer.predict(test_dl)
print("predicted digits:", *scores.argmax(1)[:10].tolist())
print("true digits:     ", *(int(label) for _, label in list(test_ds)[:10]))
