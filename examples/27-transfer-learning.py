"""Example 27: transfer learning: a trained network gets a new head, first with a frozen body.

Expect a test accuracy of about 0.9 with the frozen body, and a higher one when all is trained.
"""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset, random_split

from deepepochs import Trainer, set_seed
from deepepochs.metrics import accuracy

set_seed(1)

# 1. Data: the digits 0 to 4 for the first training, and 5 to 9 as five new classes
digits = load_digits()
images = torch.tensor(digits.images / 16, dtype=torch.float32).unsqueeze(1)
labels = torch.tensor(digits.target)
old_ds = TensorDataset(images[labels < 5], labels[labels < 5])
new_ds = TensorDataset(images[labels >= 5], labels[labels >= 5] - 5)
new_train_ds, new_test_ds = random_split(new_ds, [0.5, 0.5])
old_dl = DataLoader(old_ds, batch_size=32, shuffle=True)
new_dl = DataLoader(new_train_ds, batch_size=32, shuffle=True)
test_dl = DataLoader(new_test_ds, batch_size=32)

# 2. Train a network on the digits 0 to 4. From torchvision or Hugging Face you would take one that
#    is trained already.
body = nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.ReLU(), nn.Flatten())
model = nn.Sequential(body, nn.Linear(32 * 4 * 4, 5))
opt = torch.optim.Adam(model.parameters(), lr=1e-3)
Trainer(model, F.cross_entropy, opt, epochs=5, metrics=[accuracy]).fit(old_dl)

# 3. Give it a new head and freeze the body: only the head is trained.
body.requires_grad_(False)
model = nn.Sequential(body, nn.Linear(32 * 4 * 4, 5))
before = body[0].weight.clone()
opt = torch.optim.Adam(model[1].parameters(), lr=1e-3)
trainer = Trainer(model, F.cross_entropy, opt, epochs=5, metrics=[accuracy])
trainer.fit(new_dl)
frozen = trainer.test(test_dl)
print("the frozen weights are the same:", torch.equal(body[0].weight, before))

# 4. Unfreeze the body, and train all weights with a lower rate.
body.requires_grad_(True)
opt = torch.optim.Adam(model.parameters(), lr=3e-4)
trainer = Trainer(model, F.cross_entropy, opt, epochs=5, metrics=[accuracy])
trainer.fit(new_dl)
tuned = trainer.test(test_dl)
print(f"test accuracy with the frozen body: {frozen['accuracy']:.4f}")
print(f"test accuracy after all was trained: {tuned['accuracy']:.4f}")
