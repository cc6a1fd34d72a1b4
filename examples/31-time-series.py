"""Example 31: forecast a time series with a recurrent network (GRU).

Expect an error that is much smaller than that of repeating the last value.
"""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from deepepochs import Trainer, set_seed

set_seed(1)
WINDOW, AHEAD = 40, 10  # from 40 values, tell the one that comes 10 steps later

# 1. Data: the Mackey-Glass series, often used to compare forecasts. It never repeats itself.
values = [1.2] * 18
for _ in range(3000):
    late = values[-18]
    values.append(0.9 * values[-1] + 0.2 * late / (1 + late**10))
series = torch.tensor(values[100:])


# 2. The past is for training, what comes after it for validation and test: no random split.
def loader(part, **options):
    windows = part.unfold(0, WINDOW + AHEAD, 1)
    dataset = TensorDataset(windows[:, :WINDOW, None], windows[:, -1:])
    return DataLoader(dataset, batch_size=64, **options)


mean, std = series[:2000].mean(), series[:2000].std()
scaled = (series - mean) / std
train_dl = loader(scaled[:2000], shuffle=True)
val_dl, test_dl = loader(scaled[2000:2400]), loader(scaled[2400:])


class Forecaster(nn.Module):
    def __init__(self, width=32):
        super().__init__()
        self.rnn = nn.GRU(1, width, batch_first=True)
        self.out = nn.Linear(width, 1)

    def forward(self, windows):  # [B, WINDOW, 1]
        states, _ = self.rnn(windows)
        return self.out(states[:, -1])  # [B, 1], from the last state


def mae(preds, targets):
    return (preds - targets).abs().mean() * std


model = Forecaster()
opt = torch.optim.Adam(model.parameters(), lr=5e-3)
trainer = Trainer(model, nn.MSELoss(), opt, epochs=6, metrics=[mae])
trainer.fit(train_dl, val_dl)
results = trainer.test(test_dl)

# 3. Compare with a simple forecast: the last value of the window.
windows, targets = test_dl.dataset.tensors
print(f"error of the last value: {mae(windows[:, -1], targets):.4f}")
print(f"error of the network: {results['mae']:.4f}")
