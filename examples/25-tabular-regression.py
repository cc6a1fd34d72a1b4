"""Example 25: regression on a pandas table, and predictions as a new column of it.

Expect an error that is about 40 % smaller than that of always predicting the mean.
"""

import torch
from sklearn.datasets import load_diabetes
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from deepepochs import Trainer, set_seed

set_seed(1)

# 1. The table: 442 patients, ten measures of each, and how far their diabetes got in a year.
table = load_diabetes(as_frame=True, scaled=False).frame
train, val, test = table[:300], table[300:370], table[370:].copy()
features = table.columns.drop("target")
mean, std = train.mean(), train.std()  # of the training data only


# 2. A DataLoader of a table: all columns are made to have mean 0 and deviation 1. The target has
#    the shape [N, 1] of the model's output; with [N] the loss would compare each with each.
def loader(part, **options):
    scaled = torch.tensor(((part - mean) / std).to_numpy(), dtype=torch.float32)
    return DataLoader(TensorDataset(scaled[:, :-1], scaled[:, -1:]), batch_size=32, **options)


# 3. Metrics in the unit of the target: the mean absolute error, and the share of the variance
#    that is explained. Both are computed from all samples of an epoch together.
def mae(preds, targets):
    return (preds - targets).abs().mean() * float(std["target"])


def r2(preds, targets):
    return 1 - (preds - targets).square().mean() / targets.var(correction=0)


model = nn.Sequential(nn.Linear(len(features), 32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 1))
opt = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.1)
trainer = Trainer(model, nn.MSELoss(), opt, epochs=8, metrics=[mae, r2])
trainer.fit(loader(train, shuffle=True), loader(val))
results = trainer.test(loader(test))

# 4. Predictions, in the order of the table and in the unit of the target
test["predicted"] = trainer.predict(loader(test))[:, 0].numpy() * std["target"] + mean["target"]
print(test[["age", "bmi", "bp", "target", "predicted"]].head().round(1))
print(f"error of the mean: {(test['target'] - mean['target']).abs().mean():.2f}")
print(f"error of the model: {(test['target'] - test['predicted']).abs().mean():.2f}")
print(f"test mae: {results['mae']:.2f}")
print(f"test r2: {results['r2']:.2f}")
