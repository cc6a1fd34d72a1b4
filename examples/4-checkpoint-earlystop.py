"""Example 4: checkpoints, early stopping, and going on later."""

import torch
from data import digits
from torch import nn
from torch.nn import functional as F

from deepepochs import CheckCallback, Trainer, set_seed
from deepepochs.metrics import accuracy

train_dl, val_dl, test_dl = digits(batch_size=32)


def new_trainer(epochs, **arguments):
    """Make everything anew, as a script does that is started again."""
    set_seed(1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    opt = torch.optim.Adam(model.parameters(), lr=3e-3)
    # The run's state is saved after every epoch. The validation loss decides which is best;
    # if it has not become lower for 3 epochs, training stops.
    check = CheckCallback("loss", on_stage="val", mode="min", patience=3)
    return Trainer(
        model, F.cross_entropy, opt, epochs, callbacks=check, metrics=[accuracy], **arguments
    )


# 1. --- Three epochs. The checkpoints are in ./logs/<running_id>.
trainer = new_trainer(epochs=3, running_id="example-4")
trainer.fit(train_dl, val_dl)
print("checkpoints:", sorted(path.name for path in trainer.run_dir.glob("*.ckpt")))

# 2. --- Later, perhaps after a power cut: `resume` goes on where the run of this id ended, as
#        if it had never stopped. The weights will be the same to the last bit.
trainer = new_trainer(epochs=1000, running_id="example-4", resume="example-4")
history = trainer.fit(train_dl, val_dl)
print("epochs in the history:", len(history["val"]["loss"]))

# 3. --- The test uses the best weights, not the last ones.
results = trainer.test(test_dl)
