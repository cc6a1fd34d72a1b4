"""Example 2: the common arguments of the trainer, of `fit` and of `test`."""

import torch
from data import digits
from torch import nn
from torch.nn import functional as F

from deepepochs import Trainer, set_seed
from deepepochs.metrics import accuracy

set_seed(1)
train_dl, val_dl, test_dl = digits(batch_size=32)
model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
opt = torch.optim.Adam(model.parameters(), lr=1e-3)

trainer = Trainer(
    model,
    F.cross_entropy,
    opt,
    epochs=4,  # how often to go through the training data
    device="cpu",  # or 'cuda'; left out: the GPU if there is one
    metrics=[accuracy],  # computed in training, validation and test
    metric_patch="tensor",  # an epoch's value is computed from all outputs and targets of it
    log_long=True,  # print 7 decimals instead of 4
    log_batch=False,  # no line for each mini-batch
    log_tqdm=False,  # True: a progress bar
)

history = trainer.fit(
    train_dl,
    val_dl,
    val_freq=2,  # validate after every second epoch
    do_val_loss=True,  # compute the loss in validation, too
)
# One value for each epoch, and one for each validation:
print("training loss:", [round(float(loss), 4) for loss in history["train"]["loss"]])
print("validation accuracy:", [round(float(acc), 4) for acc in history["val"]["accuracy"]])

# A second fit goes on where the first one ended: 8 more epochs.
trainer.fit(train_dl, val_dl, val_freq=4, epochs=8)

# do_loss=False: only the metrics. The result is a dict.
results = trainer.test(test_dl, do_loss=False)
print("test:", {name: round(float(value), 4) for name, value in results.items()})

# The model's outputs for a whole loader, in its order:
scores = trainer.predict(test_dl)
print("the first five predicted digits:", scores.argmax(1)[:5].tolist())
