"""Example 7: compare hyper-parameters in TensorBoard."""

import torch
from data import digits
from torch import nn
from torch.nn import functional as F

from deepepochs import LogCallback, Trainer, set_seed
from deepepochs.metrics import accuracy

train_dl, val_dl, test_dl = digits(batch_size=32)

# Four trainings: two learning rates, two sizes. Each is a run with a folder of its own.
for lr in (3e-3, 3e-4):
    for width in (16, 64):
        set_seed(1)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))
        opt = torch.optim.Adam(model.parameters(), lr=lr)
        log = LogCallback()
        trainer = Trainer(
            model,
            F.cross_entropy,
            opt,
            epochs=4,
            metrics=[accuracy],
            callbacks=log,
            # Written after the test, together with its metrics:
            hyper_params={"lr": lr, "width": width, "optimizer": "Adam"},
            running_id=f"lr{lr}-width{width}",
        )
        trainer.fit(train_dl, val_dl)
        results = trainer.test(test_dl)
        print(f"lr {lr}, width {width}: {results['accuracy']:.3f}")

# The tab HPARAMS has a line for each of the four runs. This line waits until you press Ctrl-C:
# log.run_tensorboard()
