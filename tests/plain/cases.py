"""Small trainings, each of which uses something that a written script has to say; and its style."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn


class Pair(NamedTuple):
    """What a script has left when it ended, and what the one has that was written by it."""

    ours: dict[str, Any]
    theirs: dict[str, Any]
    text: str

    @property
    def model(self) -> Any:
        """The model that the written script has trained."""
        keys = self.ours["trainer"].model.state_dict().keys()
        objects = [value for value in self.theirs.values() if type(value).__name__ == "Experiment"]
        values = [
            *self.theirs.values(),
            *(value for one in objects for value in vars(one).values()),
        ]
        modules = [value for value in values if isinstance(value, nn.Module)]
        return next(module for module in modules if module.state_dict().keys() == keys)


def check_style(path: Path) -> None:
    """Have ruff look at a script: its default rules, the order of imports, and the layout."""
    for arguments in (["check", "--extend-select", "I"], ["format", "--diff"]):
        options = ["--line-length", "100", "--isolated", "--quiet", str(path)]
        command = [sys.executable, "-m", "ruff", *arguments, *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


MODULE = """import math

from deepepochs import EpochTask
import torch

SCALE = 0.3


def shift(value):
    return value + math.pi


class Mixed(EpochTask):
    def train_step(self, batch_x, batch_y, **step_args):
        self.loss(self.model(shift(batch_x[0]) * SCALE + torch.randn(1)), batch_y)
"""
"""A module that has a step, and what the step needs."""

HEAD = """import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import deepepochs
from deepepochs import (
    Callback,
    CheckCallback,
    EpochTask,
    GradClipCallback,
    Optimizer,
    Trainer,
    rename,
    set_seed,
)
from deepepochs.metrics import accuracy, f1, fbeta, precision, recall
from deepepochs.patches import ValuePatch, accumulates

set_seed(1)
x = torch.randn(70, 8)
y = (x.sum(1) > 0).long()
train_dl = DataLoader(TensorDataset(x, y), 16, shuffle=True)
val_dl = DataLoader(TensorDataset(x[:30], y[:30]), 12)


class Net(nn.Module):
    def __init__(self, outputs=2):
        super().__init__()
        self.one = nn.Linear(8, 16)
        self.norm = nn.BatchNorm1d(16)
        self.drop = nn.Dropout(0.3)
        self.two = nn.Linear(16, outputs)

    def forward(self, x):
        return self.two(self.drop(self.norm(self.one(x)).relu()))
"""

CASES = {
    "plainest": """
trainer = Trainer(Net(), F.cross_entropy, epochs=2, console="off")
trainer.fit(train_dl, val_dl)
""",
    "one_batch": """
model = Net()
trainer = Trainer(model, F.cross_entropy, epochs=2, console="off", metrics="accuracy")
trainer.fit(DataLoader(TensorDataset(x, y), 70), DataLoader(TensorDataset(x[:7], y[:7]), 9))
""",
    "two_optimizers": """
net = Net()
one = torch.optim.Adam([*net.one.parameters(), *net.norm.parameters()], lr=0.01)
two = torch.optim.SGD(net.two.parameters(), lr=0.1, momentum=0.9)
sched = torch.optim.lr_scheduler.OneCycleLR(two, 0.2, total_steps=10)
optimizers = [Optimizer(one), Optimizer(two, sched, sched_on="step")]
clip = GradClipCallback(0.5)
trainer = Trainer(net, F.cross_entropy, optimizers, epochs=2, console="off", callbacks=clip)
trainer.fit(train_dl, val_dl)
""",
    "turn_of_a_loop": """
for number, (train_ids, val_ids) in enumerate(torch.randperm(60).view(3, 2, 10), 1):
    set_seed(number)
    fold_dl = DataLoader(TensorDataset(x[train_ids], y[train_ids]), 16, shuffle=True)
    held_dl = DataLoader(TensorDataset(x[val_ids], y[val_ids]), 16)
    trainer = Trainer(Net(), F.cross_entropy, epochs=2, console="off")
    trainer.fit(fold_dl, held_dl)
""",
    "turn_of_a_loop_around_a_function": """
def train(ids, number):
    set_seed(number)
    fold_dl = DataLoader(TensorDataset(x[ids], y[ids]), 16, shuffle=True)
    trainer = Trainer(Net(), F.cross_entropy, epochs=2, console="off")
    trainer.fit(fold_dl)
    return trainer


for fold, (train_ids, val_ids) in enumerate(torch.randperm(60).view(3, 2, 10)):
    trainer = train(train_ids, fold)
""",
    "epochs_of_a_config": """
config = {"epochs": 2, "outputs": 2}


def main():
    model = Net(config["outputs"])
    trainer = Trainer(model, F.cross_entropy, epochs=config["epochs"], console="off")
    trainer.fit(train_dl, val_dl)
    return trainer


trainer = main()
""",
    "epochs_of_a_name": """
EPOCHS = 3
trainer = Trainer(Net(), F.cross_entropy, epochs=EPOCHS, console="off")
trainer.fit(train_dl, val_dl, val_freq=2)
""",
    "seed_in_a_function": """
def prepare(seed):
    set_seed(seed)
    return DataLoader(TensorDataset(x, y), 16, shuffle=True), Net()


dl, model = prepare(7)
trainer = Trainer(model, F.cross_entropy, epochs=2, console="off")
trainer.fit(dl)
""",
    "default_of_an_argument": """
class Config:
    outputs = 2


def main(config=Config(), *, more=Config()):
    config.outputs = more.outputs
    trainer = Trainer(Net(config.outputs), F.cross_entropy, epochs=2, console="off")
    trainer.fit(train_dl)
    return trainer


trainer = main()
""",
    "values_in_a_call_of_dict": """
class Task(EpochTask):
    def step(self, batch_x, batch_y, **step_args):
        loss = self.loss(self.model(*batch_x), batch_y)
        return dict(twice=2 * loss.detach(), one=loss.detach())


trainer = Trainer(Net(), F.cross_entropy, epochs=2, console="off")
trainer.fit(train_tasks=Task(train_dl))
""",
    "library_by_another_name": """
import deepepochs as de
import deepepochs.callbacks as hooks


class Own(de.TrainerBase):
    def train_step(self, batch_x, batch_y, **step_args):
        self.loss(self.model(*batch_x), batch_y)


de.set_seed(5)
model = Net()
opt = torch.optim.SGD(model.parameters(), lr=0.1)
sched = torch.optim.lr_scheduler.ExponentialLR(opt, 0.5)
opt = de.Optimizer(opt, sched)
clip = hooks.GradClipCallback(0.1)
trainer = Own(model, F.cross_entropy, opt, epochs=2, console="off", callbacks=clip)
trainer.fit(train_dl)
""",
    "groups_by_names": """
from deepepochs import param_groups as grouped

model = Net()
patterns = {"norm": {"lr": 0.02}, ("two.w*", "two.b*"): {"lr": 0.3, "weight_decay": 0.1}}
opt = torch.optim.SGD(grouped(model, patterns, weight_decay=0.2), lr=0.1)
print([group["name"] for group in opt.param_groups])
trainer = Trainer(model, F.cross_entropy, opt, epochs=2, console="off")
trainer.fit(train_dl, val_dl)
""",
    "groups_by_the_name_of_the_module": """
import deepepochs as library

model = Net()
param_groups = library.param_groups(model, {"one": {"lr": 0.01}, "two": None}, weight_decay=0.1)
opt = torch.optim.AdamW(param_groups, lr=0.1)
trainer = library.Trainer(model, F.cross_entropy, opt, epochs=2, console="off")
trainer.fit(train_dl, val_dl)
""",
    "groups_and_a_seed_by_the_name_of_the_module_in_a_function": """
import deepepochs


def build(seed):
    deepepochs.set_seed(seed + 0.5)
    net = Net()
    return net, torch.optim.SGD(deepepochs.param_groups(net, {"*bias": {"lr": 0.01}}), lr=0.1)


model, opt = build(3)
trainer = Trainer(model, F.cross_entropy, opt, epochs=2, console="off")
trainer.fit(train_dl, val_dl)
""",
    "groups_with_frozen_ones": """
from deepepochs import *

model = Net()
groups = param_groups(model, {"one": None, "two": {"lr": 0.01}})
opt = torch.optim.AdamW(groups, lr=0.1)
trainer = Trainer(model, F.cross_entropy, opt, epochs=2, console="off")
trainer.fit(train_dl, val_dl)
""",
    "optimizer_under_the_same_name": """
model = Net()
opt = torch.optim.SGD(model.parameters(), lr=0.1)
sched = torch.optim.lr_scheduler.ExponentialLR(opt, 0.5)
opt = Optimizer(opt, sched)
trainer = Trainer(model, F.cross_entropy, opt, epochs=3, console="off")
trainer.fit(train_dl)
""",
    "optimizer_under_the_same_name_with_its_schedule": """
model = Net()
opt = torch.optim.SGD(model.parameters(), lr=0.1)
opt = deepepochs.Optimizer(opt, torch.optim.lr_scheduler.ExponentialLR(opt, 0.5))
trainer = Trainer(model, F.cross_entropy, opt, epochs=3, console="off")
trainer.fit(train_dl)
""",
    "methods_of_every_kind": """
def double(value):
    return 2 * value


class Task(EpochTask):
    factor = 0.5

    def __init__(self, loader):
        super().__init__(loader)
        self.scaled = double

    @staticmethod
    def smooth(out, y):
        return F.cross_entropy(out, y, label_smoothing=0.1)

    @classmethod
    def shrink(cls, value):
        return cls.factor * value

    @torch.no_grad()
    def decay(self):
        for weight in self.model.parameters():
            weight.mul_(0.99)

    def step(self, batch_x, batch_y, **step_args):
        loss = self.shrink(self.scaled(self.smooth(self.model(*batch_x), batch_y)))
        self.backward(loss)
        self.optimize()
        if self.stage == "train":
            self.decay()
        self.record("smooth", loss.detach())


trainer = Trainer(Net(), F.cross_entropy, epochs=2, console="off")
trainer.fit(train_tasks=Task(train_dl), val_tasks=Task(val_dl))
""",
    "gradients_of_one_optimizer_are_cleared": """
class Task(EpochTask):
    def train_step(self, batch_x, batch_y, **step_args):
        self.backward(self.loss_fn(self.model(*batch_x), batch_y))
        self.trainer.opt[1].zero_grad()
        self.opt[0].param_groups[0]["lr"] *= 0.9
        self.optimize(0)
        out = self.model(*batch_x)
        self.backward(self.loss_fn(out, batch_y))
        self.opt[0].zero_grad()
        self.optimize(1)


net = Net()
one = torch.optim.SGD([*net.one.parameters(), *net.norm.parameters()], lr=0.1)
two = torch.optim.SGD(net.two.parameters(), lr=0.1)
trainer = Trainer(net, F.cross_entropy, [one, two], epochs=2, console="off")
trainer.fit(train_tasks=Task(train_dl))
""",
    "means_in_patches": """
class Task(EpochTask):
    def step(self, batch_x, batch_y, **step_args):
        out = self.model(*batch_x)
        self.loss(out, batch_y)
        top = out.softmax(1).max(1).values.mean().detach()
        size = out.detach().norm()
        return {
            "top": ValuePatch(len(batch_y)).load(top),
            "size": ValuePatch(batch_y.size(0)).load(size),
        }


trainer = Trainer(Net(), F.cross_entropy, epochs=2, console="off")
trainer.fit(train_tasks=Task(train_dl), val_tasks=Task(val_dl))
""",
    "step_of_trainer": """

class Mine(Trainer):
    scale = 0.5

    def train_step(self, batch_x, batch_y, **step_args):
        noise = torch.randn_like(batch_x[0])
        # both views
        clean = self.model(*batch_x)
        noisy = self.model(batch_x[0] + noise)  # the second one
        if clean.mean() > 100:
            return None
        elif noisy.mean() > 100:  # never
            clean = noisy
        self.loss(clean + self.scale * noisy, batch_y)
        return {"spread": noisy.std()}


model = Net()
opt = torch.optim.AdamW(model.parameters(), lr=0.01)
trainer = Mine(model, F.cross_entropy, opt, epochs=2, metrics="accuracy", console="off")
trainer.fit(train_dl, val_dl)
""",
    "step_of_task": """

class Task(EpochTask):
    def step(self, batch_x, batch_y, factor=1.0):
        out = self.model(*batch_x)
        value = self.loss_fn(out, batch_y) * factor
        self.backward(value)
        self.optimize()
        self.do_metric(value, out, batch_y)


def close(preds, targets):
    return (preds[:, 1] - targets).abs().mean()


model = Net()
opt = torch.optim.Adam(model.parameters(), lr=0.01)
trainer = Trainer(
    model, F.cross_entropy, opt, epochs=2, metrics=close, console="off", grad_accumulate=2
)
trainer.fit(train_tasks=Task(train_dl, factor=2.0), val_tasks=Task(val_dl))
""",
    "methods_of_a_step": """

class Task(EpochTask):
    count = 0

    def noise(self, like, size=1.0):
        return size * self.width * torch.randn_like(like)

    def train_step(self, xs, target):
        self.count += 1
        total = self.noise(xs[0])
        weight = self.model(xs[0] + total)
        for one in range(2):
            weight = weight + one * self.model(*xs)
        loss = self.loss(weight, target)
        return {"twice": 2 * loss, "counted": self.count}


class Wide(Task):
    width = 0.1


model = Net()
trainer = Trainer(model, F.cross_entropy, epochs=2, metrics="f1", console="off")
trainer.fit(train_tasks=Wide(train_dl), val_dl=val_dl)
""",
    "sub_batches": """

class Task(EpochTask):
    def train_step(self, batch_x, batch_y, **step_args):
        outs, half = [], len(batch_y) // 2
        for part in (slice(0, half), slice(half, None)):
            out = self.model(batch_x[0][part])
            share = len(batch_y[part]) / len(batch_y)
            self.loss(out, batch_y[part], loss_adjust=share, do_optimize=False, do_metric=False)
            outs.append(out)
        self.optimize()
        out = torch.cat(outs)
        self.do_metric(F.cross_entropy(out, batch_y), out, batch_y)


model = Net()
trainer = Trainer(model, F.cross_entropy, epochs=2, metrics="accuracy", console="off")
trainer.fit(train_tasks=Task(train_dl), val_dl=val_dl)
""",
    "gan": """

class Gan(nn.Module):
    def __init__(self):
        super().__init__()
        self.g = nn.Linear(4, 8)
        self.d = nn.Linear(8, 1)


class GanTrainer(Trainer):
    def noise(self, n):
        return torch.randn(n, 4)

    def train_step(self, batch_x, batch_y, **step_args):
        real = batch_x[0]
        fake = self.model.g(self.noise(len(real)))
        d_loss = self.model.d(fake.detach()).mean() - self.model.d(real).mean()
        self.backward(d_loss)
        self.optimize(1)
        g_loss = -self.model.d(fake).mean()
        self.backward(g_loss)
        self.optimize(0)
        return {"d_loss": d_loss, "g_loss": g_loss}


model = Gan()
g = torch.optim.Adam(model.g.parameters())
d = torch.optim.Adam(model.d.parameters())
trainer = GanTrainer(model, F.cross_entropy, [g, d], epochs=2, console="off")
trainer.fit(train_dl)
""",
    "dict_batches": """

class Rows(torch.utils.data.Dataset):
    def __len__(self):
        return 40

    def __getitem__(self, i):
        return {"x": x[i], "label": y[i]}


model = Net()
trainer = Trainer(
    model, F.cross_entropy, epochs=2, metrics="accuracy", targets="label", console="off"
)
trainer.fit(DataLoader(Rows(), 8, shuffle=True), DataLoader(Rows(), 16))
""",
    "loss_of_the_model": """

class Whole(Net):
    def forward(self, x, y):
        logits = super().forward(x)
        return {"loss": F.cross_entropy(logits, y), "logits": logits}


model = Whole()
trainer = Trainer(model, epochs=2, console="off")
trainer.fit(train_dl, val_dl)
""",
    "several_tasks": """
model = Net()
day = DataLoader(TensorDataset(x[:20], y[:20]), 8)
trainer = Trainer(model, F.cross_entropy, epochs=3, metrics="accuracy", console="off")
trainer.fit(
    train_tasks=[EpochTask(train_dl, name="night"), EpochTask(day, name="day")],
    val_tasks=[EpochTask(val_dl, name="night"), EpochTask(day, name="day", do_loss=False)],
    val_freq=2,
)
""",
    "class_metrics": """
y3 = torch.randint(0, 3, (70,))
train3 = DataLoader(TensorDataset(x, y3), 16, shuffle=True)
model = Net(3)
trainer = Trainer(model, F.cross_entropy, epochs=2, metrics=[accuracy, "macro_f1"], console="off")
weighted = rename("weighted")(deepepochs.metrics.recall)
trainer.fit(train3, train3, metrics=[f1, precision], train_metrics=[recall])
""",
    "probabilities": """
targets = (x.sum(1) > 0).float()
data = DataLoader(TensorDataset(x, targets), 16, shuffle=True)
model = nn.Sequential(nn.Linear(8, 1), nn.Flatten(0), nn.Sigmoid())
trainer = Trainer(
    model, F.binary_cross_entropy, epochs=2, metrics=[accuracy, f1, precision], console="off"
)
trainer.fit(data, data)
""",
    "probabilities_in_a_column": """
targets = (x.sum(1, keepdim=True) > 0).float()
data = DataLoader(TensorDataset(x, targets), 16, shuffle=True)
model = nn.Sequential(nn.Linear(8, 1), nn.Sigmoid())
trainer = Trainer(model, nn.BCELoss(), epochs=2, metrics=[accuracy, recall], console="off")
trainer.fit(data, data)
""",
    "partial_metrics": """
from functools import partial

beta = partial(fbeta, beta=0.3, average="weighted")
model = Net()
trainer = Trainer(model, F.cross_entropy, epochs=2, metrics=beta, console="off")
trainer.fit(train_dl, val_dl)
""",
    "pixels": """
masks = (x.view(70, 2, 4) > 0).long()
data = DataLoader(TensorDataset(x.view(70, 1, 2, 4), masks), 16, shuffle=True)
model = nn.Conv2d(1, 3, 1)
trainer = Trainer(
    model, F.cross_entropy, epochs=2, metrics=[accuracy, "macro_recall"], console="off"
)
trainer.fit(data, data)
""",
    "own_metrics": """

@accumulates("mean", direction="min")
def distance(preds, targets):
    return (preds[:, 1] - targets).abs().mean()


@rename("top.")
def shares(preds, targets):
    return {"one": (preds > 0).float().mean(), "two": (preds > 1).float().mean()}


def diagonal(matrix):
    return matrix.trace() / matrix.sum()


diagonal = accumulates("confusion")(diagonal)
model = Net()
trainer = Trainer(
    model, F.cross_entropy, epochs=2, metrics=[distance, shares, diagonal], console="off"
)
trainer.fit(train_dl, val_dl, val_metrics=rename("gap")(lambda p, t: p.std() - t.float().std()))
""",
    "mean_of_metrics": """
model = Net()
trainer = Trainer(
    model, F.cross_entropy, epochs=2, metrics=["accuracy", f1], metric_patch="mean", console="off"
)
trainer.fit(train_dl, val_dl)
""",
    "torchmetrics": """
from torchmetrics.classification import MulticlassAUROC, MulticlassF1Score

auroc = MulticlassAUROC(2)
model = Net()
trainer = Trainer(
    model, F.cross_entropy, epochs=2, metrics=[auroc, MulticlassF1Score(2)], console="off"
)
trainer.fit(train_dl, val_dl)
""",
    "weights_of_batches": """

def size(batch_x, batch_y):
    return 1 + batch_y.sum()


model = Net()
opt = torch.optim.SGD(model.parameters(), lr=0.1)
trainer = Trainer(model, F.cross_entropy, opt, epochs=2, grad_accumulate=2, console="off")
trainer.fit(train_dl, val_dl, batch_size=size)
""",
    "early_stop": """
model = Net()
check = CheckCallback("accuracy", patience=2)
trainer = Trainer(
    model, F.cross_entropy, epochs=9, metrics="accuracy", callbacks=check, console="off"
)
trainer.fit(train_dl, val_dl)
""",
    "best_of_every_other_epoch": """
model = Net()
check = CheckCallback("loss", patience=1)
opt = torch.optim.SGD(model.parameters(), lr=1.0)
trainer = Trainer(model, F.cross_entropy, opt, epochs=9, callbacks=check, console="off")
trainer.fit(train_dl, val_dl, val_freq=2)
""",
    "bf16": """
model = Net()
trainer = Trainer(
    model, nn.CrossEntropyLoss(label_smoothing=0.1), epochs=2, precision="bf16", console="off"
)
trainer.fit(train_dl, val_dl)
""",
    "clashing_names": """
best = train = val = history = epoch = total = count = weight = 1
out = nn.Linear(8, 2)
loss = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0]))


def right(scores, target):
    return (scores.argmax(1) == target).float().mean() * weight + total - count


trainer = Trainer(
    out, loss, epochs=2, metrics=right, callbacks=CheckCallback("right", mode="max"), console="off"
)
trainer.fit(train_dl, val_dl)
""",
    "clashing_names_in_a_step": """

class Task(EpochTask):
    def step(self, x, y):
        model = self.model
        loss_fn = self.loss_fn
        opt = model(*x)
        total = loss_fn(opt, y)
        self.backward(total)
        self.optimize()
        self.do_metric(total, opt, y)


model = Net()
opt = torch.optim.SGD(model.parameters(), lr=0.1)
loss_fn = nn.CrossEntropyLoss()
trainer = Trainer(model, loss_fn, opt, epochs=2, metrics="accuracy", console="off")
trainer.fit(train_tasks=Task(train_dl), val_tasks=Task(val_dl))
""",
    "lambda_and_walrus": """
trainer = Trainer(
    net := Net(),
    lambda out, target: F.cross_entropy(out, target) + out.pow(2).mean(),
    torch.optim.SGD(net.parameters(), lr=0.1),
    epochs=2,
    console="off",
)
trainer.fit(train_dl, val_dl)
""",
    "main_function": """

def main(rate=0.01, folds=2):
    torch.manual_seed(5)
    net = Net()
    for fold in range(folds):
        opt = torch.optim.SGD(net.parameters(), lr=rate * (fold + 1))
        if fold == 0:
            trainer = Trainer(net, F.cross_entropy, opt, epochs=2, console="off")
            trainer.fit(train_dl, val_dl)
            return trainer


if __name__ == "__main__":
    trainer = main()
    model = trainer.model
""",
    "model_by_another_name": """
trainer = Trainer(Net(), F.cross_entropy, epochs=2, console="off")
network = trainer.model
print(sum(one.numel() for one in network.parameters()))
trainer.fit(train_dl, val_dl)
""",
    "default_step_called_by_hand": """

class Task(EpochTask):
    def train_step(self, batch_x, batch_y, **step_args):
        mixed = batch_x[0] + torch.randn(1)
        return super().train_step((mixed,), batch_y, **step_args)


model = Net()
trainer = Trainer(model, F.cross_entropy, epochs=2, metrics="accuracy", console="off")
trainer.fit(train_tasks=Task(train_dl), val_dl=val_dl)
""",
    "stream": """

class Stream(torch.utils.data.IterableDataset):
    def __iter__(self):
        yield from zip(x[:20], y[:20])


model = Net()
trainer = Trainer(model, F.cross_entropy, epochs=2, console="off", metrics="accuracy")
trainer.fit(DataLoader(Stream(), 8), val_dl)
""",
    "ema": """
model = Net()
check = CheckCallback("loss", patience=9)
trainer = Trainer(
    model, F.cross_entropy, epochs=3, metrics="f1", ema=0.9, callbacks=check, console="off"
)
trainer.fit(train_dl, val_dl)
""",
    "ema_with_warmup": """
from deepepochs import EMA

model = Net()
average = EMA(0.99, warmup=3, buffers=False)
trainer = Trainer(model, F.cross_entropy, epochs=2, ema=average, precision="bf16", console="off")
trainer.fit(train_dl, val_dl)
""",
    "limits": """
model = Net()
trainer = Trainer(
    model,
    F.cross_entropy,
    epochs=2,
    console="off",
    limit_train_batches=3,
    limit_val_batches=0.4,
    grad_accumulate=2,
)
trainer.fit(train_dl, val_dl)
""",
    "early_stop_without_files": """
from deepepochs import EarlyStopCallback

model = Net()
stop = EarlyStopCallback("accuracy", patience=2, min_delta=0.01, on_stage="train")
trainer = Trainer(
    model, F.cross_entropy, epochs=9, metrics="accuracy", callbacks=stop, console="off"
)
trainer.fit(train_dl)
""",
    "min_delta": """
model = Net()
check = CheckCallback("loss", patience=2, min_delta=0.2)
trainer = Trainer(model, F.cross_entropy, epochs=9, callbacks=check, console="off")
trainer.fit(train_dl, val_dl)
""",
    "recorded_values": """

class Task(EpochTask):
    def step(self, batch_x, batch_y, **step_args):
        out = self.model(*batch_x)
        self.record("largest", out.max(), how="max")
        self.record("spread", out.std())
        for part in out:
            self.record("sum", part.sum(), how="sum")
        self.record("smallest", out.min(), how="min")
        self.record("end", out.mean(), how="last")
        self.loss(out, batch_y)


model = Net()
trainer = Trainer(model, F.cross_entropy, epochs=2, console="off")
trainer.fit(train_tasks=Task(train_dl), val_tasks=Task(val_dl))
""",
    "several_inputs_and_outputs": """

class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Linear(8, 2)

    def forward(self, a, b):
        return self.one(a), self.one(b)


def both(outs, targets):
    return (outs[0] - outs[1]).abs().mean() + (targets[0] - targets[1]).abs().float().mean()


def loss(outs, targets):
    return F.cross_entropy(outs[0], targets[0]) + F.cross_entropy(outs[1], targets[1])


pairs = [(x[i : i + 9], x[i : i + 9] + 1, (y[i : i + 9], 1 - y[i : i + 9])) for i in (0, 9, 64)]
half = rename("half")(accumulates("mean")(lambda outs, targets: outs[0].mean()))
model = Pair()
trainer = Trainer(model, loss, epochs=2, metrics=[both, half], console="off")
trainer.fit(pairs, pairs)
""",
    "outputs_that_are_a_dict": """

class Named(Net):
    def forward(self, x, label=None):
        logits = super().forward(x)
        loss = None if label is None else F.cross_entropy(logits, label)
        return {"loss": loss, "logits": logits}


@accumulates("mean")
def width(outs, targets):
    return outs["logits"].std()


rows = [{"x": x[i : i + 12], "label": y[i : i + 12]} for i in range(0, 70, 12)]
model = Named()
trainer = Trainer(
    model, epochs=2, metrics=["accuracy", "f1", width], targets="label", console="off"
)
trainer.fit(rows, rows)
""",
    "step_in_another_module": """
from steps_of_mine import Mixed

model = Net()
trainer = Trainer(model, F.cross_entropy, epochs=2, console="off")
trainer.fit(train_tasks=Mixed(train_dl), val_dl=val_dl)
""",
    "statements_of_many_kinds": """

class Task(EpochTask):
    size = 0.1

    def step(self, batch_x, batch_y, **step_args):
        "Try everything."

        def noisy(value):
            return value + self.size * torch.randn_like(value)

        try:
            data = noisy(batch_x[0])
        finally:
            self.seen = len(batch_y)
        with torch.enable_grad() if self.stage == "train" else torch.no_grad():
            out = self.model(
                data,  # with noise
                # and nothing else
            )
            while out.abs().max() > 1e9:
                out = out / 2
        loss: torch.Tensor = self.loss_fn(out, batch_y)
        if (penalty := self.model.one.weight.abs().mean()) > 1e9:
            loss = loss + penalty
        elif self.stage == "train":
            self.backward(loss)
            self.optimize()
        else:
            pass
        self.do_metric(loss, out, batch_y)
        return {
            "penalty": penalty.item(),
            "half": (0.5 * penalty),
        }


model = Net()
trainer = Trainer(model, F.cross_entropy, epochs=2, console="off")
trainer.fit(train_tasks=Task(train_dl), val_tasks=Task(val_dl))
""",
    "function_called_with_what_the_module_has": """

def train(net, opt, rate_of_noise=0.1):
    torch.rand(1)
    trainer = Trainer(net, F.cross_entropy, opt, epochs=2, console="off")
    trainer.fit(train_dl, val_dl)
    return trainer


model = Net()
opt = torch.optim.SGD(model.parameters(), lr=0.1)
trainer = train(model, opt)
""",
    "list_of_optimizers_with_schedules": """
from torch.optim.lr_scheduler import CosineAnnealingLR, StepLR

model = Net()
adam = torch.optim.Adam([*model.one.parameters(), *model.norm.parameters()])
optimizers = [
    Optimizer(adam, CosineAnnealingLR(adam, T_max=3)),
    Optimizer(
        sgd := torch.optim.SGD(model.two.parameters(), lr=0.1),
        StepLR(sgd, step_size=1, gamma=0.5),
        sched_on="epoch",
    ),
]
trainer = Trainer(model, F.cross_entropy, optimizers, epochs=3, console="off")
trainer.fit(train_dl, val_dl)
""",
    "val_every": """
model = Net()
opt = torch.optim.SGD(model.parameters(), lr=0.5)
scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(opt, patience=0, factor=0.7)
check = CheckCallback("accuracy")
trainer = Trainer(
    model,
    F.cross_entropy,
    Optimizer(opt, scheduler),
    epochs=3,
    metrics="accuracy",
    val_every=2,
    callbacks=check,
    console="off",
)
trainer.fit(train_dl, val_dl)
""",
    "val_every_beside_val_freq": """
model = Net()
trainer = Trainer(
    model, F.cross_entropy, epochs=4, val_every=5, grad_accumulate=2, ema=0.9, console="off"
)
trainer.fit(train_dl, val_dl, val_freq=2)
""",
    "val_every_ends_within_an_epoch": """
model = Net()
check = CheckCallback("loss", patience=3)
opt = torch.optim.SGD(model.parameters(), lr=1.0)
trainer = Trainer(
    model, F.cross_entropy, opt, epochs=9, val_every=2, callbacks=check, console="off"
)
trainer.fit(train_dl, val_dl)
""",
    "val_every_with_data_that_draw": """
import random

import numpy


class Noisy(torch.utils.data.Dataset):
    def __len__(self):
        return 20

    def __getitem__(self, i):
        return x[i] + random.random() + float(numpy.random.rand()), y[i]


numbers = torch.Generator()
numbers.manual_seed(3)
data = DataLoader(Noisy(), 8, shuffle=True, generator=numbers)
model = Net()
trainer = Trainer(model, F.cross_entropy, epochs=2, val_every=2, console="off")
trainer.fit(data, val_tasks=[EpochTask(val_dl, name="night"), EpochTask(data, name="day")])
""",
    "val_every_with_a_step_of_its_own": """

class Task(EpochTask):
    def train_step(self, batch_x, batch_y, **step_args):
        steps = self.model(*batch_x)
        loss = self.loss(steps, batch_y)
        if len(batch_y) > 10:
            return {"seen": loss}
        self.backward(self.model.one.weight.pow(2).mean())
        self.optimize()


model = Net()
trainer = Trainer(model, F.cross_entropy, epochs=3, val_every=3, max_steps=14, console="off")
trainer.fit(train_tasks=Task(train_dl), val_dl=val_dl)
""",
    "max_steps": """
model = Net()
trainer = Trainer(model, F.cross_entropy, max_steps=7, metrics="accuracy", console="off")
trainer.fit(train_dl, val_dl)
""",
    "max_steps_of_epochs": """
model = Net()
opt = torch.optim.SGD(model.parameters(), lr=0.1)
scheduler = torch.optim.lr_scheduler.ExponentialLR(opt, 0.5)
trainer = Trainer(
    model,
    F.cross_entropy,
    Optimizer(opt, scheduler, sched_on="epoch"),
    epochs=9,
    max_steps=7,
    grad_accumulate=2,
    callbacks=CheckCallback("loss", patience=4),
    console="off",
)
trainer.fit(train_dl, val_dl, val_freq=2)
""",
    "max_steps_at_a_validation": """
model = Net()
trainer = Trainer(
    model, F.cross_entropy, max_steps=8, val_every=4, callbacks=CheckCallback(), console="off"
)
trainer.fit(train_dl, val_dl, val_freq=3)
""",
    "values_of_some_mini_batches": """

class Task(EpochTask):
    def train_step(self, batch_x, batch_y, **step_args):
        out = self.model(*batch_x)
        for part in out.chunk(3):
            self.record("part", part.mean())
        self.record("twice", out.max())
        self.record("twice", out.min())
        if len(batch_y) > 10:
            self.loss(out, batch_y)
            self.record("large", out.std())
            return {"first": out.mean()}
        value = self.loss_fn(out, batch_y)
        self.backward(value)
        self.optimize()
        return {"second": out.mean()}

    def val_step(self, batch_x, batch_y):
        with torch.no_grad():
            out = self.model(*batch_x)
            if len(batch_y) < 10:
                self.loss(out, batch_y)


def spread(preds, targets):
    return preds.std()


model = Net()
trainer = Trainer(
    model, F.cross_entropy, metrics=spread, metric_patch="mean", epochs=2, console="off"
)
trainer.fit(train_tasks=Task(train_dl), val_tasks=Task(val_dl))
""",
    "weight_read_in_a_single_batch": """

class Task(EpochTask):
    def train_step(self, batch_x, batch_y):
        out = self.model(*batch_x)
        value = self.loss_fn(out, batch_y) * self.current_batch_size / 70
        self.backward(value)
        self.optimize()


model = Net()
trainer = Trainer(model, F.cross_entropy, epochs=2, console="off")
trainer.fit(train_tasks=Task(DataLoader(TensorDataset(x, y), 70)))
""",
    "made_in_a_function": """

def make(rate, wide=False, **options):
    set_seed(3)
    # a network
    net = Net()
    if wide:
        net.drop.p = 0.5
    adam = torch.optim.Adam(net.parameters(), lr=rate)
    # the schedule of the rate
    halved = torch.optim.lr_scheduler.StepLR(adam, 2, gamma=0.5)
    optimizer = Optimizer(adam, halved, sched_on="step")
    # where it stops
    check = CheckCallback("loss", patience=3)
    loss = nn.CrossEntropyLoss(label_smoothing=0.1)
    trainer = Trainer(
        net, loss, optimizer, epochs=2, callbacks=check, metrics="accuracy", **options
    )
    return trainer, DataLoader(TensorDataset(x, y), 20, shuffle=True)


trainer, data = make(0.01, wide=True, console="off")
trainer.fit(data, val_dl)
""",
    "made_in_a_function_at_once": """

def make(net):
    return Trainer(net, F.cross_entropy, torch.optim.SGD(net.parameters(), 0.1), 2, console="off")


trainer = make(Net())
trainer = make(Net())
trainer.fit(train_dl)
""",
    "made_in_a_function_without_more": """

def make():
    return Trainer(Net(), F.cross_entropy, epochs=2, console="off")


trainer = make()
model = trainer.model
trainer.fit(train_dl)
""",
    "optimizer_given_to_a_function": """

def train(net, opt):
    trainer = Trainer(net, F.cross_entropy, opt, epochs=2, console="off")
    trainer.fit(train_dl, val_dl)
    return trainer


model = Net()
sgd = torch.optim.SGD(model.parameters(), lr=0.1)
schedule = torch.optim.lr_scheduler.ExponentialLR(sgd, 0.9)
trainer = train(model, Optimizer(sgd, schedule, sched_on="step"))
""",
    "closure": """
model = Net()
opt = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=4)
trainer = Trainer(
    model,
    F.cross_entropy,
    opt,
    epochs=2,
    metrics="accuracy",
    callbacks=GradClipCallback(0.1),
    console="off",
)
trainer.fit(train_dl, val_dl)
""",
    "closure_of_a_step": """

class Twice(torch.optim.SGD):
    @torch.no_grad()
    def step(self, closure):
        closure()
        super().step()
        super().step(closure)


class Task(EpochTask):
    def step(self, batch_x, batch_y, scale=1.0):
        xs = tuple(one * scale for one in batch_x)
        self.optimize(closure=lambda: self.loss(self.call_model(xs), batch_y, do_optimize=False))


model = Net()
opt = Twice(model.parameters(), lr=0.1)
schedule = torch.optim.lr_scheduler.ExponentialLR(opt, 0.9)
chosen = Optimizer(opt, schedule, sched_on="step")
trainer = Trainer(model, F.cross_entropy, chosen, epochs=2, metrics="f1", ema=0.9, console="off")
trainer.fit(train_tasks=Task(train_dl, scale=0.5), val_tasks=Task(val_dl))
""",
    "ema_that_begins_late": """
from deepepochs import EMA

model = Net()
average = EMA(0.9, every=7, buffers=False)
trainer = Trainer(
    model, F.cross_entropy, epochs=4, ema=average, val_every=3, precision="bf16", console="off"
)
trainer.fit(train_dl, val_dl)
""",
    "ema_that_never_begins": """
from deepepochs import EMA

model = Net()
trainer = Trainer(model, F.cross_entropy, epochs=2, ema=EMA(0.9, every=99), console="off")
trainer.fit(train_dl, val_dl)
""",
    "ema_every_other_step": """
from deepepochs import EMA

model = Net()
average = EMA(0.9, warmup=4, every=3)
trainer = Trainer(model, F.cross_entropy, epochs=3, ema=average, metrics="f1", console="off")
trainer.fit(train_dl, val_dl)
""",
    "fp16_on_a_cpu": """
model = Net()
trainer = Trainer(model, F.cross_entropy, epochs=2, precision="fp16", device="cpu", console="off")
trainer.fit(train_dl, val_dl)
""",
    "scaled_gradients": """

def large(out, target):
    return 1000 * F.cross_entropy(out, target)


model = Net()
opt = torch.optim.SGD(model.parameters(), lr=0.1)
schedule = torch.optim.lr_scheduler.ExponentialLR(opt, 0.5)
trainer = Trainer(
    model,
    large,
    Optimizer(opt, schedule, sched_on="step"),
    epochs=2,
    precision="fp16",
    device="cpu",
    grad_accumulate=2,
    callbacks=GradClipCallback(0.05, norm_type=2),
    console="off",
)
# as on a GPU: the first steps overflow, and are left out
trainer.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, growth_interval=3)
trainer.fit(train_dl, val_dl)
""",
    "scaled_gradients_of_two": """
model = Net()
one = torch.optim.SGD([*model.one.parameters(), *model.norm.parameters()], lr=0.1)
two = torch.optim.Adam(model.two.parameters())
trainer = Trainer(
    model, F.cross_entropy, [one, two], epochs=2, precision="fp16", device="cpu", console="off"
)
trainer.accelerator.scaler = torch.amp.GradScaler("cpu")
trainer.fit(train_dl, val_dl)
""",
    "frozen": """
from deepepochs import FreezeCallback

model = Net()
model.one.bias.requires_grad_(False)
freeze = FreezeCallback(["one", "norm", "two.bias"], epochs=2)
trainer = Trainer(
    model, F.cross_entropy, epochs=3, callbacks=freeze, val_every=2, max_steps=13, console="off"
)
trainer.fit(train_dl, val_dl)
""",
    "frozen_backbone": """
from deepepochs import FreezeCallback


def block(inputs, outputs):
    return nn.Sequential(nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU())


model = nn.Sequential(nn.Sequential(block(8, 6), block(6, 5)), nn.BatchNorm1d(5), nn.Linear(5, 2))
freeze = FreezeCallback("0.*", epochs=1)
trainer = Trainer(model, F.cross_entropy, epochs=3, callbacks=freeze, ema=0.9, console="off")
trainer.fit(train_dl, val_dl)
""",
    "made_in_a_class": """

class Experiment:
    def __init__(self, rate):
        self.net = Net()
        # the optimizer
        self.opt = torch.optim.SGD(self.net.parameters(), lr=rate)
        self.data = DataLoader(TensorDataset(x, y), 20, shuffle=True)
        check = CheckCallback("loss", patience=3)
        self.trainer = Trainer(
            self.net, F.cross_entropy, self.opt, epochs=2, callbacks=check, console="off"
        )

    def size(self):
        return len(self.data)

    # where it is trained
    def run(self):
        noise = torch.rand(self.size())
        self.trainer.fit(self.data, val_dl)
        return noise


experiment = Experiment(0.1)
experiment.run()
trainer = experiment.trainer
""",
    "made_in_a_class_at_once": """
made: list = []


class Experiment:
    def __init__(self, rate, loss):
        set_seed(7)
        net = Net()
        opt = torch.optim.SGD(net.parameters(), lr=rate)
        schedule = torch.optim.lr_scheduler.ExponentialLR(opt, 0.9)
        self.trainer = Trainer(
            net, loss, Optimizer(opt, schedule, sched_on="step"), epochs=2, console="off"
        )
        made.append(net)

    def run(self):
        trainer = self.trainer
        trainer.fit(train_dl, val_dl)
        return trainer


trainer = Experiment(0.1, loss=nn.CrossEntropyLoss(label_smoothing=0.1)).run()
""",
    "made_in_a_data_class": """
from dataclasses import dataclass


@dataclass
class Experiment:
    rate: float = 0.1

    def __post_init__(self):
        self.net = Net()
        opt = torch.optim.SGD(self.net.parameters(), self.rate)
        self.trainer = Trainer(self.net, F.cross_entropy, opt, epochs=2, console="off")

    def run(self):
        self.trainer.fit(train_dl)
        return self


trainer = Experiment(0.2).run().trainer
""",
    "made_in_the_method_of_the_fit": """

class Experiment:
    def __init__(self, wide=False):
        self.net = Net()
        self.opt = torch.optim.SGD(self.net.parameters(), 0.1)

    def train(self):
        trainer = Trainer(self.net, F.cross_entropy, self.opt, epochs=2, console="off")
        trainer.fit(train_dl, self.data(x[:30]), batch_size=lambda one, two: 1 + two.sum())
        return trainer

    def data(self, some):
        return DataLoader(TensorDataset(some, y[: len(some)]), 7)


experiment = Experiment(wide=True)
trainer = experiment.train()
""",
    "a_trainer_of_its_own_that_fits_itself": """

class Mine(Trainer):
    def go(self, data):
        trainer = self
        trainer.fit(data, val_dl)
        return self


trainer = Mine(Net(), F.cross_entropy, epochs=2, console="off").go(train_dl)
""",
    "imported_in_a_function": """

def make():
    from deepepochs import Trainer as Made
    net = Net()
    return Made(net, F.cross_entropy, torch.optim.SGD(net.parameters(), 0.1), 2, console="off")


trainer = make()
trainer.fit(train_dl)
""",
    "step_that_reads_its_progress": """

class Warm(EpochTask):
    def train_step(self, batch_x, batch_y, **step_args):
        share = min(1.0, (1 + self.trainer.progress.num_steps) / 7)
        share = share * 0.9**self.trainer.progress.epoch_idx + self.trainer.init_epoch
        self.loss(share * self.model(*batch_x), batch_y)

    def val_step(self, batch_x, batch_y, **step_args):
        self.loss(self.trainer.progress.num_steps * self.model(*batch_x), batch_y)


model = Net()
trainer = Trainer(model, F.cross_entropy, epochs=2, grad_accumulate=2, console="off")
trainer.fit(train_tasks=Warm(train_dl), val_tasks=Warm(val_dl))
""",
    "bf16_of_a_dict": """

class Named(Net):
    def forward(self, x):
        logits = super().forward(x)
        return {"logits": logits, "ids": logits.argmax(1)}


def loss(out, target):
    return F.cross_entropy(out["logits"], target)


model = Named()
trainer = Trainer(model, loss, epochs=2, precision="bf16", metrics="accuracy", console="off")
trainer.fit(train_dl, val_dl)
""",
    "bf16_of_a_pair": """

class Pair(Net):
    def forward(self, x):
        logits = super().forward(x)
        return logits, logits * 2


def loss(out, target):
    return F.cross_entropy(out[0] + out[1], target)


model = Pair()
trainer = Trainer(model, loss, epochs=2, precision="bf16", ema=0.5, console="off")
trainer.fit(train_dl, val_dl)
""",
    "loss_with_layers": """

class Critic(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))
        self.teacher = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5)).eval()

    def forward(self, out, target):
        return F.cross_entropy(self.inner(out) + self.teacher(out), target)


model, loss = Net(), Critic()
opt = torch.optim.SGD([*model.parameters(), *loss.parameters()], lr=0.1)
trainer = Trainer(model, loss, opt, epochs=2, val_every=2, console="off")
trainer.fit(train_dl, val_dl)
""",
    "optimizer_with_modes": """

class Averaging(torch.optim.SGD):
    def train(self):
        self.exchange(True)

    def eval(self):
        self.exchange(False)

    @torch.no_grad()
    def exchange(self, training):
        for weight in self.param_groups[0]["params"]:
            state = self.state.setdefault(weight, {"on": training})
            if state["on"] is not training:
                state["on"] = training
                weight.mul_(2.0 if training else 0.5)


model = Net()
opt = Averaging(model.parameters(), lr=0.1)
trainer = Trainer(model, F.cross_entropy, opt, epochs=2, console="off")
trainer.fit(train_dl, val_dl)
""",
    "told_the_epoch": """

class Order(torch.utils.data.Sampler):
    def __init__(self, number):
        self.number, self.epoch = number, 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __len__(self):
        return self.number

    def __iter__(self):
        generator = torch.Generator().manual_seed(self.epoch)
        yield from torch.randperm(self.number, generator=generator).tolist()


class Noise:
    size = 0.0

    def set_epoch(self, epoch):
        self.size = epoch / 10


class Rows(torch.utils.data.Dataset):
    transform = None

    def __init__(self):
        self.transforms = [Noise()]

    def __len__(self):
        return 40

    def __getitem__(self, i):
        return x[i] * (1 + self.transforms[0].size), y[i]


data = DataLoader(torch.utils.data.Subset(Rows(), range(30)), 8, sampler=Order(30))
model = Net()
trainer = Trainer(model, F.cross_entropy, epochs=3, console="off")
trainer.fit(data, val_dl)
""",
    "values_of_a_task": """

class Task(EpochTask):
    def __init__(self, data, margin, **step_args):
        super().__init__(data, **step_args)
        self.margin = margin
        self.scale = torch.ones(2) / 3

    def step(self, batch_x, batch_y, weight=None, shift=None, k=2):
        out = self.model(*batch_x) * self.scale + self.margin + shift
        loss = F.cross_entropy(out, batch_y, weight=weight) / k
        self.backward(loss)
        self.optimize()
        self.do_metric(loss, out, batch_y)


rates = torch.rand(2)
model = Net()
trainer = Trainer(model, F.cross_entropy, epochs=2, console="off")
task = Task(train_dl, 0.5, weight=rates, shift=torch.tensor(0.1), k=3)
trainer.fit(train_tasks=task, val_tasks=Task(val_dl, 0.1, shift=1))
""",
    "leaves_of_what_is_around": """

def main(dry=False):
    for fold in range(3):
        set_seed(fold)
        net = Net()
        if dry:
            print("dry")
            return None
        if fold == 1:
            break
        for number in range(3):
            if number == 1:
                continue
            torch.rand(number + 1)
        trainer = Trainer(net, F.cross_entropy, epochs=2, console="off")
        trainer.fit(train_dl, val_dl)
        return trainer


trainer = main()
""",
    "norm_of_the_gradients": """
from deepepochs import GradNormCallback

model = Net()
callbacks = [GradClipCallback(0.1), GradNormCallback(with_max=True)]
trainer = Trainer(
    model, F.cross_entropy, epochs=2, callbacks=callbacks, grad_accumulate=2, console="off"
)
trainer.fit(train_dl, val_dl)
""",
    "bf16_in_a_step": """

class Task(EpochTask):
    def double(self, inputs):
        return 2 * self.model(inputs)

    def step(self, batch_x, batch_y):
        part = self.model.one(batch_x[0])
        out = self.trainer.model(*batch_x) + self.double(batch_x[0])
        value = self.loss_fn(out, batch_y) + part.pow(2).mean()
        self.backward(value)
        self.optimize()
        self.do_metric(value, out, batch_y)


model = Net()
trainer = Trainer(model, F.cross_entropy, epochs=2, precision="bf16", console="off")
trainer.fit(train_tasks=Task(train_dl), val_tasks=Task(val_dl))
""",
    "attributes_that_every_step_has": """

class Task(EpochTask):
    def train_step(self, batch_x, batch_y, **step_args):
        out = self.trainer.model(batch_x[0].to(self.device))
        out = out * self.run.batch_idx + self.current_batch_size
        self.loss(out, batch_y)


trainer = Trainer(Net(), F.cross_entropy, epochs=1, console="off", device="cpu")
trainer.fit(train_tasks=Task(train_dl))
""",
    "tasks_made_in_the_call": """
whole = DataLoader(TensorDataset(x, y), 30)
trainer = Trainer(Net(), F.cross_entropy, epochs=1, console="off")
day = EpochTask(DataLoader(TensorDataset(x[:9], y[:9]), 4), name="day")
trainer.fit(
    train_tasks=EpochTask(DataLoader(TensorDataset(x, y), 16, shuffle=True)),
    val_dl=whole,
    val_tasks=[EpochTask(DataLoader(TensorDataset(x, y), 7), name="night"), day],
)
""",
}

OWN_STEPS = {
    "": "",
    "train": """

class Task(EpochTask):
    def train_step(self, batch_x, batch_y):
        out = self.model(*batch_x) + self.trainer.progress.num_steps / 100
        self.loss(out, batch_y)
        return {"spread": out.std()}
""",
    "both": """

class Task(EpochTask):
    def step(self, batch_x, batch_y):
        out = self.model(*batch_x)
        value = self.loss_fn(out, batch_y)
        self.backward(value)
        self.optimize()
        self.do_metric(value, out, batch_y)
""",
}
SCHEDULES = {
    "": "opt",
    "ExponentialLR(opt, 0.9)": 'Optimizer(opt, schedule, sched_on="step")',
    "StepLR(opt, 2)": 'Optimizer(opt, schedule, sched_on="epoch")',
    "ReduceLROnPlateau(opt, patience=0)": "Optimizer(opt, schedule)",
}
CALLBACKS = [
    "",
    'CheckCallback("loss", patience=1)',
    "GradNormCallback(), GradClipCallback(0.1)",
    'FreezeCallback(["norm", "two"], 1), GradClipCallback(0.3, norm_type=2)',
    'EarlyStopCallback("accuracy", patience=2), CheckCallback("loss", min_delta=0.01)',
]


def combined(number: int) -> str:
    """A training with several of these at once; each number has others beside one another."""

    def pick(options: Iterable[str], stride: int) -> str:
        listed = [*options]
        return listed[(number * stride + number // len(listed)) % len(listed)]

    own, schedule = pick(OWN_STEPS, 1), pick(SCHEDULES, 1)
    lines = ["model = Net()", "opt = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.5)"]
    if schedule:
        lines.append(f"schedule = torch.optim.lr_scheduler.{schedule}")
    options = [
        SCHEDULES[schedule],
        f"callbacks=[{pick(CALLBACKS, 2)}]",
        pick(["epochs=3", "max_steps=7", "epochs=4, max_steps=9", "epochs=5"], 3),
        pick(["grad_accumulate=1", "grad_accumulate=2"], 1),
        pick(["val_every=None", "val_every=2", "val_every=3"], 2),
        pick(["ema=None", "ema=0.9", "ema=EMA(0.8, every=4)"], 1),
        pick(["", "", "", 'precision="bf16"', "limit_train_batches=4"], 3),
    ]
    given = ["train_tasks=Task(train_dl)" if own else "train_dl=train_dl"]
    given.append("val_tasks=Task(val_dl)" if own == "both" else "val_dl=val_dl")
    trainer = 'Trainer(model, F.cross_entropy, {}, metrics="accuracy", console="off")'
    lines.append(f"trainer = {trainer.format(', '.join(filter(None, options)))}")
    lines.append(f"trainer.fit({', '.join(given)}, val_freq={1 + number % 2})")
    imports = "from deepepochs import EMA, EarlyStopCallback, FreezeCallback, GradNormCallback"
    return "\n".join(["", imports, OWN_STEPS[own], "", *lines, ""])


COMBINED = {f"combined_{number}": combined(number) for number in range(24)}
