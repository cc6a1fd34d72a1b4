"""Example 28: object detection, where each image has a list of boxes of its own.

Digits lie on a canvas, and the network tells where. Expect it to find about 90 % of them.
"""

import itertools

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from deepepochs import Trainer, set_seed

set_seed(1)
digits = torch.tensor(load_digits().images / 16, dtype=torch.float32).unsqueeze(1)


# 1. Data: canvases of 48 x 48 pixels with up to four digits, and the boxes around them
def new_sample():
    canvas, boxes = torch.zeros(1, 48, 48), []
    for left, top in itertools.product((0, 24), repeat=2):
        size = int(torch.randint(8, 24, ()))
        x, y = (torch.randint(24 - size, (2,)) + torch.tensor([left, top])).tolist()
        if torch.rand(()) < 0.5:
            digit = F.interpolate(digits[torch.randint(len(digits), (1,))], (size, size))
            canvas[:, y : y + size, x : x + size] = digit[0]
            boxes.append([x, y, x + size, y + size])
    return canvas, torch.tensor(boxes).view(-1, 4) / 8  # in units of 8 pixels


# 2. A mini-batch: the canvases in one tensor, the boxes in a list with an entry for each canvas
def collate(samples):
    canvases, boxes = zip(*samples, strict=True)
    return torch.stack(canvases), list(boxes)


train_dl = DataLoader([new_sample() for _ in range(1000)], 32, shuffle=True, collate_fn=collate)
test_dl = DataLoader([new_sample() for _ in range(200)], 32, collate_fn=collate)

# 3. The model gives five numbers for each of 6 x 6 cells: whether there is a digit, and its sides.
layers = []
for num_in, num_out in ((1, 8), (8, 16), (16, 32)):
    layers += [nn.Conv2d(num_in, num_out, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
model = nn.Sequential(*layers, nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.Conv2d(64, 5, 1))


# 4. Loss and metric get the list of the boxes. A box belongs to the cell in which its middle is.
def cells_of(out, boxes):
    """Return which cells have a digit, the outputs there, and the sides seen from the cell."""
    image = torch.cat([torch.full((len(b),), i) for i, b in enumerate(boxes)])
    sides = torch.cat(boxes)
    x, y = ((sides[:, :2] + sides[:, 2:]) / 2).long().T
    has_digit = torch.zeros_like(out[:, 0])
    has_digit[image, y, x] = 1
    return has_digit, out[image, :, y, x], sides - torch.stack([x, y, x, y], dim=1)


def loss_of(out, boxes):
    has_digit, found, sides = cells_of(out, boxes)
    loss = F.binary_cross_entropy_with_logits(out[:, 0], has_digit)
    return loss + F.smooth_l1_loss(found[:, 1:], sides)


def recall(out, boxes):
    """The share of the digits whose sides are all found, to within 3 pixels."""
    _, found, sides = cells_of(out, boxes)
    is_near = (found[:, 1:] - sides).abs().amax(1) < 3 / 8
    return (is_near & (found[:, 0] > 0)).float().mean()


opt = torch.optim.Adam(model.parameters(), lr=4e-3)
trainer = Trainer(model, loss_of, opt, epochs=6, metrics=[recall])
trainer.fit(train_dl)
results = trainer.test(test_dl)
print(f"test recall: {results['recall']:.4f}")
