"""Example 26: a GAN: two networks, each with its own optimizer, trained in one step.

Expect the picture digits.png, with images that are much nearer to real digits than at first.
"""

import torch
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from deepepochs import EpochTask, Trainer, set_seed

set_seed(1)

# 1. Data: 1,797 images with 64 pixels from -1 to 1, and no labels. An epoch has them ten times.
real_images = torch.tensor(load_digits().data / 8 - 1, dtype=torch.float32)
train_dl = DataLoader(real_images.repeat(10, 1), batch_size=64, shuffle=True)

# 2. The generator makes images from noise. The critic learns to tell them from real ones.
hidden = [nn.Linear(16, 128), nn.BatchNorm1d(128), nn.ReLU()]
generator = nn.Sequential(*hidden, nn.Linear(128, 64), nn.Tanh())
critic = nn.Sequential(nn.Linear(64, 128), nn.LeakyReLU(0.2), nn.Dropout(0.3), nn.Linear(128, 1))
model = nn.ModuleList([generator, critic])
opts = [torch.optim.Adam(part.parameters(), lr=1e-3, betas=(0.5, 0.999)) for part in model]


def loss_of(scores, target):
    return F.binary_cross_entropy_with_logits(scores, torch.full_like(scores, target))


# 3. A step for both. `optimize(0)` is for the first optimizer, `optimize(1)` for the second.
class GANTask(EpochTask):
    def train_step(self, batch_x, batch_y, **step_args):
        (real,) = batch_x
        made = generator(torch.randn(len(real), 16, device=real.device))

        critic_loss = loss_of(critic(real), 1.0) + loss_of(critic(made.detach()), 0.0)
        self.backward(critic_loss)
        self.optimize(1)

        critic.requires_grad_(False)  # it must not learn from the generator's loss
        generator_loss = loss_of(critic(made), 1.0)
        self.backward(generator_loss)
        self.optimize(0)
        critic.requires_grad_(True)
        return {"generator": generator_loss.detach(), "critic": critic_loss.detach()}


# 4. The mean distance of an image to the nearest real one, before and after the training
noise = torch.randn(200, 16)
print(f"distance before: {torch.cdist(generator(noise), real_images).amin(1).mean():.2f}")
Trainer(model, opt=opts, epochs=4).fit(train_tasks=GANTask(train_dl))
made = generator.cpu()(noise).detach()
print(f"distance after: {torch.cdist(made, real_images).amin(1).mean():.2f}")

# 5. The picture: six rows of ten images
tiles = F.pad(made[:60].view(6, 10, 8, 8), (1, 1, 1, 1), value=-1)
plt.imsave("digits.png", tiles.transpose(1, 2).reshape(60, 100), cmap="gray_r")
