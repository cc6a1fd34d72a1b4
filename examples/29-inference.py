"""Example 29: from the best epoch of a training to predictions, also without this library.

Expect the best weights in weights.pt, and the same predictions in plain PyTorch.
"""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset, random_split

from deepepochs import CheckCallback, Trainer, set_seed
from deepepochs.metrics import accuracy

set_seed(1)
digits = load_digits()
images = torch.tensor(digits.images / 16, dtype=torch.float32)
dataset = TensorDataset(images, torch.tensor(digits.target))
train_ds, val_ds, test_ds = random_split(dataset, [0.6, 0.2, 0.2])
train_dl = DataLoader(train_ds, batch_size=32, shuffle=True)
val_dl, test_dl = DataLoader(val_ds, batch_size=32), DataLoader(test_ds, batch_size=32)


def new_model():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


# 1. Train, and keep the weights of the epoch with the highest validation accuracy.
model = new_model()
opt = torch.optim.Adam(model.parameters(), lr=5e-2)
check = CheckCallback("accuracy")
trainer = Trainer(model, F.cross_entropy, opt, epochs=12, callbacks=check, metrics=[accuracy])
history = trainer.fit(train_dl, val_dl)
print(f"best epoch: {history.best('val_accuracy').epoch} of {len(history.epochs)}")

# 2. Take these weights in place of the last ones, and predict: scores, in the order of the loader.
trainer.load_best()
scores = trainer.predict(test_dl)  # [359, 10]
probabilities, predicted = scores.softmax(1).max(1)
for index in range(3):
    true = int(test_ds[index][1])
    print(f"a {true}, predicted as {predicted[index]} with probability {probabilities[index]:.3f}")

# 3. Save the weights alone. Checkpoints contain much more, and are for going on with training.
trainer.save_weights("weights.pt")

# 4. Elsewhere, without this library: load them into the same model.
model = new_model()
model.load_state_dict(torch.load("weights.pt", weights_only=True))
model.eval()
with torch.no_grad():
    plain = torch.cat([model(images) for images, _ in test_dl])
labels = torch.cat([labels for _, labels in test_dl])
print(f"test accuracy: {(plain.argmax(1) == labels).float().mean():.4f}")
print("the predictions are the same:", torch.equal(plain.argmax(1), predicted))
