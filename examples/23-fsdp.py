"""Example 23: a small transformer whose weights are spread over the processes (FSDP2).

Alone, with the whole model:  python 23-fsdp.py
Spread over two processes:    torchrun --nproc_per_node 2 23-fsdp.py
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

NUM_PROCESSES = int(os.environ.get("WORLD_SIZE", "1"))
LENGTH, WIDTH = 64, 64

# The text: what scikit-learn says of its data sets, character by character.
loaders = (
    datasets.load_iris,
    datasets.load_wine,
    datasets.load_breast_cancer,
    datasets.load_diabetes,
)
text = "".join(load().DESCR for load in loaders)
letters = sorted(set(text))
codes = torch.tensor([letters.index(letter) for letter in text])
pieces = codes[: len(codes) // (LENGTH + 1) * (LENGTH + 1)].view(-1, LENGTH + 1)
data = TensorDataset(pieces[:, :-1], pieces[:, 1:])  # the next character for each


class CharTransformer(nn.Module):
    """Predicts the next character from those before it."""

    def __init__(self) -> None:
        super().__init__()
        self.letters = nn.Embedding(len(letters), WIDTH)
        self.places = nn.Embedding(LENGTH, WIDTH)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(WIDTH, 4, 2 * WIDTH, dropout=0, batch_first=True)
            for _ in range(2)
        )
        self.out = nn.Linear(WIDTH, len(letters))

    def forward(self, x):
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1], device=x.device)
        hidden = self.letters(x) + self.places.weight[: x.shape[1]]
        for block in self.blocks:
            hidden = block(hidden, mask, is_causal=True)
        return self.out(hidden)  # [B, LENGTH, letters]


def loss_of(out, targets):
    """The mean loss of a character."""
    return F.cross_entropy(out.flatten(0, 1), targets.flatten())


set_seed(1)  # the same in all processes: each makes the same model, and keeps its shards
model = CharTransformer()
if NUM_PROCESSES > 1:
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    if kind == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        model = model.cuda()
    mesh = init_device_mesh(kind, (NUM_PROCESSES,))
    for block in model.blocks:
        fully_shard(block, mesh=mesh)  # one block after the other is gathered, used and given back
    fully_shard(model, mesh=mesh)  # and then what is left: this must not be forgotten
opt = torch.optim.AdamW(model.parameters(), lr=3e-3)  # made from the shards

# Mini-batches are 16 pieces over all processes, so that the numbers are those of one process.
order = torch.Generator().manual_seed(1)
train_dl = DataLoader(data, 16 // NUM_PROCESSES, shuffle=True, generator=order)
trainer = Trainer(
    model, loss_of, opt, epochs=6, device="auto",
    callbacks=[GradClipCallback(1.0, norm_type=2), CheckCallback("loss", on_stage="train")],
)  # fmt: skip
trainer.fit(train_dl)

# The checkpoint is one file with whole tensors, whatever the number of processes. Processes read it
# together; a single one can read it with deepepochs.checkpoint.load.
result = trainer.test(DataLoader(data, 16))
trainer.print(f"loss of the best weights {float(result['loss']):.4f} in {trainer.runtime}")
