"""Example 13: see the outputs of the layers, and the gradients that flow back through them."""

import torch
from data import digits
from torch import nn
from torch.nn import functional as F

from deepepochs import AnalyzeCallback, Trainer, set_seed

set_seed(1)
train_dl, val_dl, test_dl = digits(batch_size=64)

# Eight layers with sigmoids: a net in which gradients are known to vanish.
layers = [nn.Flatten(), nn.Linear(64, 32)]
for _ in range(6):
    layers += [nn.Sigmoid(), nn.Linear(32, 32)]
model = nn.Sequential(*layers, nn.Sigmoid(), nn.Linear(32, 10))
opt = torch.optim.Adam(model.parameters(), lr=1e-3)

# Mean and standard deviation of the gradients that reach each layer, for every mini-batch,
# and a histogram for every 20th. 'forward' looks at the layers' outputs instead.
analyze = AnalyzeCallback("backward", hist_every_n=20)
trainer = Trainer(model, F.cross_entropy, opt, epochs=3, callbacks=analyze)
trainer.fit(train_dl, val_dl)

# In TensorBoard compare BACKWARD_std/2-Linear (the first layer) with that of the last one: it is a
# million times smaller, and nothing is learnt there. This line waits until you press Ctrl-C:
# analyze.run_tensorboard()
