"""Example 11: several DataLoaders in training, validation and test.

One network learns the digits of two sources at once: those of MNIST, made small, and
those of scikit-learn.
"""

import torch
from data import digits, mnist
from torch import nn
from torch.nn import functional as F

from deepepochs import EpochTask, Trainer, set_seed
from deepepochs.metrics import accuracy

set_seed(1)
mnist_train, mnist_val, mnist_test = mnist(batch_size=64)
small_train, small_val, small_test = digits(batch_size=32)

model = nn.Sequential(
    nn.AdaptiveAvgPool2d(8),  # 28 x 28 and 8 x 8 images become 8 x 8
    nn.Flatten(),
    nn.Linear(64, 128),
    nn.ReLU(),
    nn.Linear(128, 10),
)
opt = torch.optim.Adam(model.parameters(), lr=5e-3)
trainer = Trainer(model, F.cross_entropy, opt, epochs=6, metrics=[accuracy])

# An EpochTask is one pass over one loader. It can have a name, its own metrics, and further
# arguments for its step (here there are none).
trainer.fit(
    train_tasks=[EpochTask(small_train, name="small"), EpochTask(mnist_train, name="mnist")],
    val_tasks=[EpochTask(small_val, name="small"), EpochTask(mnist_val, name="mnist")],
)
results = trainer.test(
    tasks=[EpochTask(small_test, name="small"), EpochTask(mnist_test, name="mnist")]
)

# The plain name has the value of all samples; each task has its own beside it.
for name in ("accuracy", "small/accuracy", "mnist/accuracy"):
    print(f"{name:15} {results[name]:.4f}")
