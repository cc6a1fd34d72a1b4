"""Example 23: a small transformer whose weights are distributed over the processes (FSDP2).

    python 23-fsdp.py                               one process with the whole model
    torchrun --nproc_per_node 2 23-fsdp.py          two processes with half of it each

It learns to predict the next character of a text. Expect the same losses in both ways.
"""

import os

import torch
from sklearn import datasets
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from deepepochs import CheckCallback, GradClipCallback, Trainer, set_seed

# 1. The text: the descriptions of scikit-learn's data sets, in pieces of 64 characters
loaders = (
    datasets.load_iris,
    datasets.load_wine,
    datasets.load_breast_cancer,
    datasets.load_diabetes,
)
text = "".join(load().DESCR for load in loaders)
letters = sorted(set(text))
codes = torch.tensor([letters.index(letter) for letter in text])
pieces = codes.unfold(0, 65, 65)
data = TensorDataset(pieces[:, :-1], pieces[:, 1:])  # the next character for each


class CharTransformer(nn.Module):
    def __init__(self, num_letters, length=64, width=64):
        super().__init__()
        self.letters = nn.Embedding(num_letters, width)
        self.places = nn.Parameter(0.1 * torch.randn(length, width))
        block = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0, batch_first=True)
        self.blocks = nn.TransformerEncoder(block, 2)
        self.out = nn.Linear(width, num_letters)

    def forward(self, x):
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1], device=x.device)
        return self.out(self.blocks(self.letters(x) + self.places, mask, is_causal=True))


def loss_of(out, targets):
    return F.cross_entropy(out.flatten(0, 1), targets.flatten())


# 2. All processes make the same model, and then each keeps its part of the weights: first block
#    by block, then the rest. The optimizer is made afterwards.
set_seed(1)
model = CharTransformer(len(letters))
num_processes = int(os.environ.get("WORLD_SIZE", "1"))
if num_processes > 1:
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    if kind == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        model = model.cuda()
    mesh = init_device_mesh(kind, (num_processes,))
    for block in model.blocks.layers:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
opt = torch.optim.AdamW(model.parameters(), lr=3e-3)

# 3. A mini-batch is 16 pieces over all processes. The checkpoint is one file with whole weights.
order = torch.Generator().manual_seed(1)
train_dl = DataLoader(data, 16 // num_processes, shuffle=True, generator=order)
callbacks = [GradClipCallback(1.0, norm_type=2), CheckCallback("loss", on_stage="train")]
trainer = Trainer(model, loss_of, opt, epochs=6, device="auto", callbacks=callbacks)
history = trainer.fit(train_dl)
results = trainer.test(DataLoader(data, 16))  # with the best weights
trainer.print("training losses:", *(f"{loss:.4f}" for loss in history["train"]["loss"]))
trainer.print(f"test loss: {results['loss']:.4f}")
