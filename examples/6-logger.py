"""Example 6: log a training to TensorBoard."""

import torch
from data import digits
from torch import nn
from torch.nn import functional as F

from deepepochs import LogCallback, Trainer, set_seed
from deepepochs.metrics import accuracy

set_seed(1)
train_dl, val_dl, test_dl = digits(batch_size=32)
model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
opt = torch.optim.Adam(model.parameters(), lr=3e-3)

# Loss, metrics and learning rate of each mini-batch and each epoch, and the model's graph.
# A table of the epochs, metrics.csv, is written beside them.
log = LogCallback(log_graph=True)
trainer = Trainer(model, F.cross_entropy, opt, epochs=5, metrics=[accuracy], callbacks=log)
trainer.fit(train_dl, val_dl)
trainer.test(test_dl)
print(sorted(path.name for path in trainer.run_dir.iterdir()))

# Your own curves go to the same place. In a callback's hook, or afterwards:
for step, weight in enumerate(model[1].weight.norm(dim=1).tolist()):
    trainer.logger.add_scalar("first_layer_norms", weight, step)
trainer.close_logger()

# See it in a browser, at http://localhost:6006. This line waits until you press Ctrl-C:
# log.run_tensorboard()
