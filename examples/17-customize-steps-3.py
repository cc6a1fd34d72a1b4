"""Example 17: one `step` for training, validation and test: an autoencoder of digits."""

import torch
from data import digits
from torch import nn
from torch.nn import functional as F

from deepepochs import EpochTask, Trainer, ValuePatch, set_seed

set_seed(1)
train_dl, val_dl, test_dl = digits(batch_size=32)
model = nn.Sequential(  # 64 pixels, 8 numbers, 64 pixels
    nn.Flatten(),
    nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 8),
    nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 64), nn.Sigmoid(),
)  # fmt: skip
opt = torch.optim.Adam(model.parameters(), lr=3e-3)


class Reconstruct(EpochTask):
    # `step` comes before all other steps, and serves every stage. Backward and optimizer are
    # left out by themselves where nothing is trained.
    def step(self, batch_x, batch_y, **step_args):
        (images,) = batch_x
        pixels = images.flatten(1)
        noise = 0.2 * torch.randn_like(images) if self.model.training else 0.0
        model_out = self.model(images + noise)
        self.loss(model_out, pixels)  # the target is the image, not the label
        error = (model_out - pixels).abs().mean()
        return {"pixel_error": ValuePatch(len(images)).load(error)}


trainer = Trainer(model, F.mse_loss, opt, epochs=12)
trainer.fit(train_tasks=Reconstruct(train_dl), val_tasks=Reconstruct(val_dl))
# do_loss=False: no loss in this test, only what the step returns.
results = trainer.test(tasks=Reconstruct(test_dl, do_loss=False))

# The error of always giving the mean image, to compare:
images = torch.cat([images.flatten(1) for images, _ in test_dl])
print(f"pixel error of the mean image: {(images - images.mean(0)).abs().mean():.4f}")
