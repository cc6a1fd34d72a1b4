"""Example 1: basic use. Train, validate and test a network on MNIST digits."""

import torch
from data import mnist
from torch import nn
from torch.nn import functional as F

from deepepochs import Trainer, set_seed
from deepepochs.metrics import accuracy

set_seed(1)  # the same numbers every time

# 1. --- data: three DataLoaders, whose mini-batches are (images, labels)
#
# These are 5,000 digits that are there without a download. For all 70,000, by torchvision:
#
#     transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.13,), (0.31,))])
#     mnist_full = MNIST('./datasets', train=True, transform=transform, download=True)
#     train_ds, val_ds = random_split(mnist_full, [55000, 5000])
#     test_ds = MNIST('./datasets', train=False, transform=transform, download=True)
#     train_dl = DataLoader(train_ds, batch_size=32, shuffle=True)
#     val_dl, test_dl = DataLoader(val_ds, batch_size=32), DataLoader(test_ds, batch_size=32)
train_dl, val_dl, test_dl = mnist(batch_size=32)

# 2. --- model
model = nn.Sequential(
    nn.Flatten(),
    nn.Linear(28 * 28, 64), nn.ReLU(), nn.Dropout(0.1),
    nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.1),
    nn.Linear(64, 10),
)  # fmt: skip

# 3. --- optimizer
opt = torch.optim.Adam(model.parameters(), lr=1e-3)

# 4. --- train
trainer = Trainer(model, F.cross_entropy, opt, epochs=10, metrics=[accuracy])
history = trainer.fit(train_dl, val_dl)  # training and validation, epoch by epoch
trainer.test(test_dl)  # test

history.plot().savefig("curves.png")  # loss and accuracy of all epochs
print("curves.png shows how it went.")
