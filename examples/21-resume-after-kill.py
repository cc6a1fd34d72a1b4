"""Example 21: a run that is killed and started again ends as if nothing had happened.

Expect a process that kills itself in its third epoch, a second one that goes on, and the same
weights, to the last bit, as those of a run without a break. Noise and dropout go on as well.
"""

import os
import signal
import subprocess
import sys
import tempfile

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from deepepochs import Callback, CheckCallback, Trainer, set_seed


def with_noise(samples):
    images, labels = zip(*samples, strict=True)
    images = torch.stack(images)
    return images + 0.1 * torch.randn(images.shape), torch.stack(labels)


class PowerCut(Callback):
    def on_after_train_batch(self, trainer, metrics, batch_idx):
        if trainer.progress.epoch_idx == 2 and batch_idx == 17:
            os.kill(os.getpid(), signal.SIGKILL)  # now nothing can be saved any more


def train(folder, running_id, *callbacks):
    """Train for four epochs, or what is left of them, and return the weights."""
    set_seed(1)
    digits = load_digits()
    images = torch.tensor(digits.data / 16, dtype=torch.float32)
    dataset = TensorDataset(images, torch.tensor(digits.target))
    train_dl = DataLoader(dataset, batch_size=32, shuffle=True, collate_fn=with_noise)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 10))
    # Save after each epoch, and after every tenth mini-batch. resume="auto": go on if there is
    # something to go on with, or else start.
    check = CheckCallback("loss", on_stage="train", ckpt_dir=folder, every_n_batches=10)
    options = {"running_id": running_id, "resume": "auto", "callbacks": [check, *callbacks]}
    Trainer(model, F.cross_entropy, epochs=4, **options).fit(train_dl)
    return model.state_dict()


if sys.argv[1:] and sys.argv[1] == "be-killed":
    train(sys.argv[2], "killed", PowerCut())

with tempfile.TemporaryDirectory() as folder:
    killed = subprocess.run([sys.executable, __file__, "be-killed", folder], check=False)
    print("killed by signal:", -killed.returncode)
    resumed = train(folder, "killed")
    unbroken = train(folder, "unbroken")
same = [torch.equal(resumed[name], unbroken[name]) for name in unbroken]
print("the weights are the same:", all(same))
