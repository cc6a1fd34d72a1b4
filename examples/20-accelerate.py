"""Example 20: one script for one process, several processes and mixed precision.

Alone:                      python 20-accelerate.py
In two processes:           torchrun --nproc_per_node 2 20-accelerate.py
As accelerate is set up:    accelerate launch 20-accelerate.py
In bfloat16:                python 20-accelerate.py bf16
"""

import sys

import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration
from data import digits
from torch import nn
from torch.nn import functional as F

from deepepochs import Trainer, set_seed
from deepepochs.metrics import accuracy

# Every mini-batch of 32 is split among the processes: the numbers are those of one process.
accelerator = Accelerator(
    cpu=not torch.cuda.is_available(),
    mixed_precision=sys.argv[1] if len(sys.argv) > 1 else "no",
    dataloader_config=DataLoaderConfiguration(split_batches=True),
)
set_seed(1)
train_dl, val_dl, test_dl = digits(batch_size=32)
model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
opt = torch.optim.Adam(model.parameters(), lr=1e-3)

# Nothing needs to be prepared: the trainer does it. What is prepared already is left alone.
trainer = Trainer(model, F.cross_entropy, opt, epochs=8, device=accelerator, metrics=accuracy)
trainer.fit(train_dl, val_dl)  # metrics are those of all processes, each sample counted once
result = trainer.test(test_dl)
trainer.print(
    f"accuracy {float(result['accuracy']):.4f} in {accelerator.num_processes} process(es)"
)
