"""Example 6: log a training, as a table and for TensorBoard.

Expect five epochs, a folder with the logs, and the table of the epochs printed from it.
"""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset, random_split

from deepepochs import LogCallback, Trainer, set_seed
from deepepochs.metrics import accuracy

set_seed(1)
digits = load_digits()
images = torch.tensor(digits.images / 16, dtype=torch.float32)
dataset = TensorDataset(images, torch.tensor(digits.target))
train_ds, val_ds, test_ds = random_split(dataset, [0.8, 0.1, 0.1])
train_dl = DataLoader(train_ds, batch_size=32, shuffle=True)
val_dl, test_dl = DataLoader(val_ds, batch_size=32), DataLoader(test_ds, batch_size=32)
model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
opt = torch.optim.Adam(model.parameters(), lr=3e-3)

# 1. Loss, metrics and learning rate of each mini-batch and each epoch, and the model's graph
log = LogCallback(log_graph=True)
trainer = Trainer(model, F.cross_entropy, opt, epochs=5, metrics=[accuracy], callbacks=log)
trainer.fit(train_dl, val_dl)
trainer.test(test_dl)

# 2. Your own curves go to the same place: here the size of the weights of each unit.
for unit, size in enumerate(model[1].weight.norm(dim=1).tolist()):
    trainer.logger.add_scalar("size of the weights", size, unit)
trainer.close_logger()

# 3. The folder of the run has the files of TensorBoard and metrics.csv, a row for each epoch.
print("files:", *sorted(path.name for path in trainer.run_dir.glob("[a-z]*")))
print((trainer.run_dir / "metrics.csv").read_text(), end="")

# 4. See the curves in a browser at http://localhost:6006. It runs until you press Ctrl-C:
# log.run_tensorboard()
