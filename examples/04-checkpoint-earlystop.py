"""Example 4: save checkpoints, stop early, resume later.

Expect 3 epochs, then the same run resumed until the validation loss no longer falls.
"""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset, random_split

from deepepochs import CheckCallback, Trainer, set_seed
from deepepochs.metrics import accuracy


def new_trainer(epochs, **arguments):
    """Make everything, as a script does each time it is started."""
    set_seed(1)
    digits = load_digits()
    images = torch.tensor(digits.images / 16, dtype=torch.float32)
    dataset = TensorDataset(images, torch.tensor(digits.target))
    train_ds, val_ds, test_ds = random_split(dataset, [0.8, 0.1, 0.1])
    train_dl = DataLoader(train_ds, batch_size=32, shuffle=True)
    val_dl, test_dl = DataLoader(val_ds, batch_size=32), DataLoader(test_ds, batch_size=32)

    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    opt = torch.optim.Adam(model.parameters(), lr=1e-2)
    # Everything is saved after each epoch. The epoch with the lowest validation loss is the best.
    # If there is no better one for 3 epochs, training stops.
    check = CheckCallback("loss", on_stage="val", mode="min", patience=3)
    trainer = Trainer(
        model, F.cross_entropy, opt, epochs, callbacks=check, metrics=[accuracy], **arguments
    )
    return trainer, train_dl, val_dl, test_dl


# 1. Three epochs. The checkpoints are in the folder logs/<running_id>.
trainer, train_dl, val_dl, test_dl = new_trainer(epochs=3, running_id="example-4")
trainer.fit(train_dl, val_dl)
print("checkpoints:", *sorted(path.name for path in trainer.run_dir.glob("*.ckpt")))

# 2. Later, perhaps after a power cut: `resume` goes on where the run with this id ended, as if
#    it had never stopped.
trainer, train_dl, val_dl, test_dl = new_trainer(
    epochs=100, running_id="example-4", resume="example-4"
)
history = trainer.fit(train_dl, val_dl)
print("epochs in the history:", len(history.epochs))
print("best epoch:", history.best("val_loss").epoch)

# 3. The test uses the weights of the best epoch, not those of the last one.
results = trainer.test(test_dl)
print(f"test accuracy: {results['accuracy']:.4f}")
