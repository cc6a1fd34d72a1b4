"""Example 21: a run that is killed and started again ends as if nothing had happened.

Random noise on every image, dropout, shuffling: all of it goes on where it was.
"""

import os
import signal
import subprocess
import sys
import tempfile

import torch
from data import digits
from torch import nn
from torch.nn import functional as F

from deepepochs import Callback, CheckCallback, Trainer, set_seed


def train(folder, running_id, callbacks=()):
    set_seed(1)
    train_dl, val_dl, _ = digits(batch_size=32)
    train_dl.collate_fn = lambda samples: (
        torch.stack([image + 0.1 * torch.randn(image.shape) for image, _ in samples]),
        torch.stack([label for _, label in samples]),
    )
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 10)
    )
    opt = torch.optim.Adam(model.parameters(), lr=1e-3)
    check = CheckCallback("loss", ckpt_dir=folder, every_n_batches=10)  # also between epochs
    trainer = Trainer(
        model,
        F.cross_entropy,
        opt,
        epochs=4,
        running_id=running_id,
        resume="auto",  # go on if there is something to go on from, else begin
        callbacks=[check, *callbacks],
    )
    trainer.fit(train_dl, val_dl)
    return model


class PowerCut(Callback):
    def on_after_train_batch(self, trainer, metrics, batch_idx):
        if trainer.init_epoch == 2 and batch_idx == 17:  # in the middle of the third epoch
            os.kill(os.getpid(), signal.SIGKILL)  # nothing can be saved any more


if sys.argv[1:2] == ["be-killed"]:
    train(sys.argv[2], "killed", [PowerCut()])

with tempfile.TemporaryDirectory() as folder:
    print("--- a run in another process, which is killed", flush=True)
    run = subprocess.run([sys.executable, __file__, "be-killed", folder], check=False)
    assert run.returncode == -signal.SIGKILL
    print("--- the same script again: it goes on")
    resumed = train(folder, "killed").state_dict()
    print("--- a run that nobody disturbs")
    undisturbed = train(folder, "whole").state_dict()

same = all(torch.equal(resumed[name], undisturbed[name]) for name in undisturbed)
print("the weights are identical:", same)
