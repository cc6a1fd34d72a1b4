"""Example 17: one `step` for training, validation and test: an autoencoder of digits.

Expect a network that puts 64 pixels into 8 numbers and back, with a small error for each pixel.
"""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset, random_split

from deepepochs import EpochTask, Trainer, set_seed

set_seed(1)
digits = load_digits()
images = torch.tensor(digits.data / 16, dtype=torch.float32)  # [1797, 64]
dataset = TensorDataset(images, torch.tensor(digits.target))
train_ds, val_ds, test_ds = random_split(dataset, [0.8, 0.1, 0.1])
train_dl = DataLoader(train_ds, batch_size=32, shuffle=True)
val_dl, test_dl = DataLoader(val_ds, batch_size=32), DataLoader(test_ds, batch_size=32)


class Reconstruct(EpochTask):
    # `step` is used in every stage, and comes before all other steps. In validation and test
    # `self.loss` computes no gradients, and the optimizer makes no step.
    def step(self, batch_x, batch_y, **step_args):
        (images,) = batch_x
        noise = 0.2 * torch.randn_like(images) if self.model.training else 0.0
        model_out = self.model(images + noise)
        self.loss(model_out, images)  # the target is the image itself, not its label
        return {"pixel_error": (model_out - images).abs().mean()}


encoder = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 8))
decoder = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 64), nn.Sigmoid())
model = nn.Sequential(encoder, decoder)
opt = torch.optim.Adam(model.parameters(), lr=3e-3)
trainer = Trainer(model, F.mse_loss, opt, epochs=12)
trainer.fit(train_tasks=Reconstruct(train_dl), val_tasks=Reconstruct(val_dl))
# do_loss=False: compute no loss in this test, only what the step returns.
results = trainer.test(tasks=Reconstruct(test_dl, do_loss=False))

# Compare with a simple answer: the mean image, whatever the digit.
pixels = torch.stack([image for image, _ in test_ds])
print(f"error of the mean image: {(pixels - pixels.mean(0)).abs().mean():.4f}")
print(f"error of the autoencoder: {results['pixel_error']:.4f}")
