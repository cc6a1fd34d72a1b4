"""Example 30: search for good hyper-parameters with Optuna, and go on after a break.

    python 30-search.py 3       three trials
    python 30-search.py         five more, which makes eight

Expect a list of the trials. The best has a validation accuracy of about 0.95.
"""

import sys
from pathlib import Path

import optuna
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset, random_split

from deepepochs import LogCallback, Trainer, set_seed
from deepepochs.metrics import accuracy

set_seed(1)
digits = load_digits()
images = torch.tensor(digits.data / 16, dtype=torch.float32)
train_ds, val_ds = random_split(TensorDataset(images, torch.tensor(digits.target)), [0.8, 0.2])


# 1. A trial asks for values, trains with them, and returns its result.
def train(trial):
    lr = trial.suggest_float("lr", 1e-4, 1e-1, log=True)
    width = trial.suggest_int("width", 8, 128, log=True)
    set_seed(1)
    model = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))
    trainer = Trainer(
        model,
        F.cross_entropy,
        torch.optim.Adam(model.parameters(), lr=lr),
        epochs=3,
        metrics=[accuracy],
        callbacks=LogCallback(),  # logs/trial-0, logs/trial-1 and so on
        hyper_params=trial.params,
        running_id=f"trial-{trial.number}",
    )
    history = trainer.fit(DataLoader(train_ds, 32, shuffle=True), DataLoader(val_ds, 32))
    return history["val"]["accuracy"][-1]


# 2. All trials are kept in a file. If it is there already, the search goes on with it.
optuna.logging.set_verbosity(optuna.logging.WARNING)
Path("logs").mkdir(exist_ok=True)
study = optuna.create_study(
    storage="sqlite:///logs/search.db",
    study_name="digits",
    load_if_exists=True,
    direction="maximize",
)

# 3. Run the trials that are missing. A trial that was interrupted does not count. The seed must be
#    another one each time, or the search would repeat itself.
complete = [optuna.trial.TrialState.COMPLETE]
num_done = len(study.get_trials(states=complete))
print("trials found:", num_done)
study.sampler = optuna.samplers.TPESampler(seed=len(study.trials))
num_trials = int(sys.argv[1]) if len(sys.argv) > 1 else 8
study.optimize(train, n_trials=max(0, num_trials - num_done))

# 4. The results
for trial in study.get_trials(states=complete):
    print(f"trial {trial.number}: {trial.params}, accuracy {trial.value:.4f}")
print(f"best accuracy: {study.best_value:.4f}")
