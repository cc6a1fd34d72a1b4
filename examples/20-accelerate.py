"""Example 20: one script for one process, for several processes, and for mixed precision.

    python 20-accelerate.py                             one process
    torchrun --nproc_per_node 2 20-accelerate.py        two processes
    accelerate launch 20-accelerate.py                  as Accelerate is set up
    python 20-accelerate.py bf16                        bfloat16

Expect about the same accuracy each time.
"""

import sys

import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset, random_split

from deepepochs import Trainer, set_seed
from deepepochs.metrics import accuracy

# 1. With `split_batches` each mini-batch of 32 is divided among the processes.
accelerator = Accelerator(
    cpu=not torch.cuda.is_available(),
    mixed_precision=sys.argv[1] if len(sys.argv) > 1 else "no",
    dataloader_config=DataLoaderConfiguration(split_batches=True),
)

# 2. Data and model are made as always: the trainer prepares them for the Accelerator.
set_seed(1)
digits = load_digits()
images = torch.tensor(digits.images / 16, dtype=torch.float32)
dataset = TensorDataset(images, torch.tensor(digits.target))
train_ds, val_ds, test_ds = random_split(dataset, [0.8, 0.1, 0.1])
train_dl = DataLoader(train_ds, batch_size=32, shuffle=True)
val_dl, test_dl = DataLoader(val_ds, batch_size=32), DataLoader(test_ds, batch_size=32)
model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
opt = torch.optim.Adam(model.parameters(), lr=1e-3)

# 3. Metrics are those of all processes, and each sample counts once.
trainer = Trainer(model, F.cross_entropy, opt, epochs=8, device=accelerator, metrics=[accuracy])
trainer.fit(train_dl, val_dl)
results = trainer.test(test_dl)

# 4. trainer.print prints in the first process only.
trainer.print("processes:", accelerator.num_processes)
trainer.print(f"test accuracy: {results['accuracy']:.4f}")
