"""Example 13: watch the gradients that flow back through the layers.

Expect a network that learns nothing, and to see why: its gradients vanish on their way back.
"""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from deepepochs import AnalyzeCallback, Trainer, set_seed
from deepepochs.metrics import accuracy

set_seed(1)
digits = load_digits()
images = torch.tensor(digits.images / 16, dtype=torch.float32)
labels = torch.tensor(digits.target)
train_dl = DataLoader(TensorDataset(images, labels), batch_size=64, shuffle=True)

# 1. Eight layers with sigmoids: gradients are known to vanish in such a network.
layers = [nn.Flatten(), nn.Linear(64, 32)]
for _ in range(6):
    layers += [nn.Sigmoid(), nn.Linear(32, 32)]
model = nn.Sequential(*layers, nn.Sigmoid(), nn.Linear(32, 10))

# 2. For TensorBoard: mean and standard deviation of the gradient at each layer, for every
#    mini-batch, and a histogram for every 20th. "forward" is for the outputs of the layers.
analyze = AnalyzeCallback("backward", hist_every_n=20)
opt = torch.optim.Adam(model.parameters(), lr=1e-3)
trainer = Trainer(model, F.cross_entropy, opt, epochs=3, metrics=[accuracy], callbacks=analyze)
history = trainer.fit(train_dl)
print(f"training accuracy: {history['train']['accuracy'][-1]:.2f}, a guess has 0.10")

# 3. The same without TensorBoard, for one mini-batch: the mean size of the gradients of the first
#    layer is less than a hundred-thousandth of that of the last one.
F.cross_entropy(model.cpu()(images[:64]), labels[:64]).backward()
sizes = [layer.weight.grad.abs().mean() for layer in model if isinstance(layer, nn.Linear)]
print("sizes, from the first layer to the last:", *(f"{size:.0e}" for size in sizes))

# 4. See the curves at http://localhost:6006. It runs until you press Ctrl-C:
# analyze.run_tensorboard()
