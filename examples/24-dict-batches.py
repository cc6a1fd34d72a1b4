"""Example 24: mini-batches that are dicts, and a small transformer for texts.

It tells the kind of a Unicode character from its name. Expect a test accuracy of about 0.98.
"""

import unicodedata

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, random_split

from deepepochs import Trainer, set_seed
from deepepochs.metrics import accuracy

set_seed(1)

# 1. Data: names, which come with Python, and kinds: capital, small and other letters, symbols
KINDS = ["Lu", "Ll", "Lo", "So"]
chars = [char for char in map(chr, range(0x3000)) if unicodedata.category(char) in KINDS]
samples = [(unicodedata.name(char), KINDS.index(unicodedata.category(char))) for char in chars]
words = sorted({word for name, _ in samples for word in name.split()})
numbers = {word: number for number, word in enumerate(words, start=1)}


# 2. A mini-batch is a dict. Shorter texts are filled up with 0; the mask tells where words are.
def collate(samples):
    names, kinds = zip(*samples, strict=True)
    texts = [torch.tensor([numbers[word] for word in name.split()]) for name in names]
    input_ids = nn.utils.rnn.pad_sequence(texts, batch_first=True)
    return {"input_ids": input_ids, "mask": input_ids > 0, "labels": torch.tensor(kinds)}


train_ds, val_ds, test_ds = random_split(samples, [0.8, 0.1, 0.1])
train_dl = DataLoader(train_ds, batch_size=64, shuffle=True, collate_fn=collate)
val_dl, test_dl = (DataLoader(ds, 64, collate_fn=collate) for ds in (val_ds, test_ds))


# 3. The model gets the entries of the dict by their names, and gives scores.
class Classifier(nn.Module):
    def __init__(self, num_words, num_kinds, width=32):
        super().__init__()
        self.words = nn.Embedding(num_words + 1, width, padding_idx=0)
        self.block = nn.TransformerEncoderLayer(width, 4, 2 * width, batch_first=True)
        self.head = nn.Linear(width, num_kinds)

    def forward(self, input_ids, mask):
        hidden = self.block(self.words(input_ids), src_key_padding_mask=~mask)
        return self.head((hidden * mask.unsqueeze(2)).sum(1) / mask.sum(1, keepdim=True))


# 4. `targets` names the entry with the labels. Models that compute their loss, as those of Hugging
#    Face, are trained without F.cross_entropy, and get all entries.
model = Classifier(len(words), len(KINDS))
opt = torch.optim.AdamW(model.parameters(), lr=3e-3)
trainer = Trainer(model, F.cross_entropy, opt, epochs=4, metrics=[accuracy], targets="labels")
trainer.fit(train_dl, val_dl)
results = trainer.test(test_dl)
print(f"test accuracy: {results['accuracy']:.4f}")
print(f"{test_ds[0][0]}: {KINDS[trainer.predict(test_dl)[0].argmax()]}")
