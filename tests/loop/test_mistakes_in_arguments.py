"""Arguments and names that newcomers get wrong, and the first two lines of what they are told.

Each entry is code as it is typed, and the words that must come at once: what is wrong, in the
user's names, and what to write instead. Below them are calls that look alike and are right.
"""

from __future__ import annotations

import copy
import importlib
import inspect
import pickle
import re
import sys
import traceback
import warnings
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import deepepochs
from deepepochs import (
    EMA,
    Callback,
    CheckCallback,
    EpochTask,
    FreezeCallback,
    GradClipCallback,
    LogCallback,
    Optimizer,
    Trainer,
    rename,
)
from deepepochs import metrics as dm
from deepepochs.errors import ConfigError, ConfigTypeError, MetricError
from deepepochs.hints import names as hints
from deepepochs.metrics import accuracy, f1

X, Y = torch.randn(12, 3), torch.arange(12) % 2


def objects() -> dict[str, Any]:
    """What the code of the table may use, made anew."""
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    opt = torch.optim.Adam(model.parameters())
    train_dl = DataLoader(TensorDataset(X, Y), batch_size=4)
    trainer = Trainer(model, F.cross_entropy, opt, epochs=1, show_info=False)
    imported = (
        Callback, CheckCallback, EMA, EpochTask, GradClipCallback, LogCallback, Optimizer, Trainer,
        SimpleNamespace, accuracy, f1, partial, r2_of_kept, r2_score, rename, KerasLoss, Net, DistanceLoss, MyTrainer,
    )  # fmt: skip
    return {
        **{thing.__name__: thing for thing in imported},
        "np": np,
        "torch": torch,
        "nn": nn,
        "F": F,
        "deepepochs": deepepochs,
        "X": X,
        "Y": Y,
        "model": model,
        "loss": F.cross_entropy,
        "opt": opt,
        "scheduler": torch.optim.lr_scheduler.StepLR(opt, 1),
        "train_dl": train_dl,
        "val_dl": train_dl,
        "test_dl": train_dl,
        "dataset": train_dl.dataset,
        "x": X.numpy(),
        "y": Y.numpy(),
        "trainer": trainer,
        "task": EpochTask(train_dl),
        "step": lambda **members: type("MyTask", (EpochTask,), members)(train_dl),
    }


def run(code: str) -> Any:
    made = objects()
    lines = code.split("; ")
    for line in lines[:-1]:
        exec(line, made)
    if lines[-1].startswith(("from ", "import ")):
        return exec(lines[-1], made)
    return eval(lines[-1], made)


class Mistake(NamedTuple):
    """What is typed, and the class and the words of what is said."""

    code: str
    kind: type[Exception]
    words: str


UNKNOWN = [
    Mistake("Trainer(model, loss, opt, metric=accuracy)", ConfigTypeError, "Trainer has no argument 'metric'. Did you mean 'metrics'?"),
    Mistake("Trainer(model, loss, optimizer=opt)", ConfigTypeError, "Trainer has no argument 'optimizer'. Did you mean 'opt'?"),
    Mistake("Trainer(model, criterion=loss, opt=opt)", ConfigTypeError, "Trainer has no argument 'criterion'. Did you mean 'loss'?"),
    Mistake("Trainer(model, loss_fn=loss, opt=opt)", ConfigTypeError, "Trainer has no argument 'loss_fn'. Did you mean 'loss'?"),
    Mistake("Trainer(net=model, loss=loss)", ConfigTypeError, "Trainer has no argument 'net'. Did you mean 'model'?"),
    Mistake("Trainer(model, loss, opt, max_epochs=3)", ConfigTypeError, "Trainer has no argument 'max_epochs'. Did you mean 'epochs'?"),
    Mistake("Trainer(model, loss, opt, num_epochs=3)", ConfigTypeError, "Trainer has no argument 'num_epochs'. Did you mean 'epochs'?"),
    Mistake("Trainer(model, loss, opt, epoch=3)", ConfigTypeError, "Trainer has no argument 'epoch'. Did you mean 'epochs'?"),
    Mistake("Trainer(model, loss, opt, callback=Callback())", ConfigTypeError, "Trainer has no argument 'callback'. Did you mean 'callbacks'?"),
    Mistake("Trainer(model, loss, opt, cbs=[])", ConfigTypeError, "Trainer has no argument 'cbs'. Did you mean 'callbacks'?"),
    Mistake("Trainer(model, loss, opt, accelerator='gpu')", ConfigTypeError, "Trainer has no argument 'accelerator'. Did you mean device='cuda'?"),
    Mistake("Trainer(model, loss, opt, gpus=1)", ConfigTypeError, "Trainer has no argument 'gpus'. Did you mean device='cuda'?"),
    Mistake("Trainer(model, loss, opt, metrcs=accuracy)", ConfigTypeError, "Trainer has no argument 'metrcs'. Did you mean 'metrics'?"),
    Mistake("Trainer(model, loss, opt, accumulate_grad_batches=2)", ConfigTypeError, "Did you mean 'grad_accumulate'?"),
    Mistake("Trainer(model, loss, lr=0.1)", ConfigTypeError, "Trainer has no argument 'lr'. The learning rate belongs to the optimizer: opt=torch.optim.Adam(model.parameters(), lr=1e-3)."),
    Mistake("Trainer(model, loss, learning_rate=0.1)", ConfigTypeError, "The learning rate belongs to the optimizer"),
    Mistake("Trainer(model, loss, opt, train_loader=train_dl)", ConfigTypeError, "Trainer has no argument 'train_loader'. The data are given to fit: trainer.fit(train_dl, val_dl)."),
    Mistake("Trainer(model, loss, opt, validation_data=val_dl)", ConfigTypeError, "The data are given to fit: trainer.fit(train_dl, val_dl)."),
    Mistake("Trainer(model, loss, opt, batch_size=32)", ConfigTypeError, "The batch size belongs to the loader: DataLoader(dataset, batch_size=32)."),
    Mistake("Trainer(model, loss, opt, shuffle=True)", ConfigTypeError, "It belongs to the loader: DataLoader(dataset, batch_size=32, shuffle=True"),
    Mistake("Trainer(model, loss, opt, patience=3)", ConfigTypeError, "A callback stops early: callbacks=EarlyStopCallback('loss', patience=5)."),
    Mistake("Trainer(model, loss, opt, save_dir='runs')", ConfigTypeError, "The folder is given to a callback: callbacks=CheckCallback('loss', ckpt_dir='runs')."),
    Mistake("Trainer(model, loss, opt, scheduler=scheduler)", ConfigTypeError, "A schedule is given with its optimizer: opt=Optimizer(opt, scheduler)."),
    Mistake("Trainer(model, loss, opt, gradient_clip_val=1.0)", ConfigTypeError, "A callback clips gradients: GradClipCallback(1.0, norm_type=2)"),
    Mistake("Trainer(model, loss, opt, seed=42)", ConfigTypeError, "Call set_seed(42) before the model and the loaders are made."),
    Mistake("Trainer(model, loss, opt, logger=True)", ConfigTypeError, "A callback logs: callbacks=LogCallback()"),
    Mistake("Trainer(model, loss, optimizer=opt, max_epochs=3)", ConfigTypeError, "Trainer has no argument 'optimizer'. Did you mean 'opt'?\nTrainer has no argument 'max_epochs'. Did you mean 'epochs'?"),
    Mistake("Trainer(model, loss, opt, colour='red')", ConfigTypeError, "Trainer has no argument 'colour'. Its arguments are model, loss, opt, epochs,"),
    Mistake("Trainer()", ConfigTypeError, "Trainer needs 'model': Trainer(model, loss, opt, epochs, ...)."),
    Mistake("Trainer(model, opt, loss=loss)", ConfigTypeError, "Trainer got loss twice: an optimizer (Adam) by its position, and loss=... by its name. The order is Trainer(model, loss, opt, epochs, ...)."),
    Mistake("trainer.fit(train_dl, validation_data=val_dl)", ConfigTypeError, "fit() has no argument 'validation_data'. Did you mean 'val_dl'?"),
    Mistake("trainer.fit(train_loader=train_dl)", ConfigTypeError, "fit() has no argument 'train_loader'. Did you mean 'train_dl'?"),
    Mistake("trainer.fit(train_dl, val_loader=val_dl)", ConfigTypeError, "fit() has no argument 'val_loader'. Did you mean 'val_dl'?"),
    Mistake("trainer.fit(train_dl, valid_dl=val_dl)", ConfigTypeError, "fit() has no argument 'valid_dl'. Did you mean 'val_dl'?"),
    Mistake("trainer.fit(train_dl, max_epochs=2)", ConfigTypeError, "fit() has no argument 'max_epochs'. Did you mean 'epochs'?"),
    Mistake("trainer.fit(x=x, y=y)", ConfigTypeError, "fit() has no arguments 'x' and 'y'. Data are given in a loader: DataLoader(TensorDataset(x, y), batch_size=32)."),
    Mistake("trainer.fit(train_dl, callbacks=[Callback()])", ConfigTypeError, "fit() has no argument 'callbacks'. Callbacks are given to the trainer: Trainer(..., callbacks=[...])."),
    Mistake("trainer.fit(train_dl, validation_split=0.2)", ConfigTypeError, "Split the data: train, val = torch.utils.data.random_split(dataset, [0.8, 0.2])"),
    Mistake("trainer.fit(train_dl, optimizer=opt)", ConfigTypeError, "The optimizer is given to the trainer: Trainer(model, loss, opt)."),
    Mistake("trainer.test(test_dl, metric=accuracy)", ConfigTypeError, "test() has no argument 'metric'. Did you mean 'metrics'?"),
    Mistake("trainer.test(dataloader=test_dl)", ConfigTypeError, "test() has no argument 'dataloader'. Did you mean 'test_dl'?"),
    Mistake("trainer.predict()", ConfigTypeError, "predict() needs 'dataloader': predict(dataloader)."),
    Mistake("trainer.predict(test_dl, True)", ConfigTypeError, "predict() got 2 arguments by position and takes 1, predict(dataloader): give the others by name."),
    Mistake("trainer.find_lr(train_dl, start_lr=1e-6)", ConfigTypeError, "find_lr() has no argument 'start_lr'. Did you mean 'min_lr'?"),
    Mistake("trainer.verify_resume(train_dl, metric=accuracy)", ConfigTypeError, "fit() has no argument 'metric'. Did you mean 'metrics'?"),
    Mistake("CheckCallback(metric='accuracy')", ConfigTypeError, "CheckCallback has no argument 'metric'. Did you mean 'monitor'?"),
    Mistake("CheckCallback('loss', save_top_k=3)", ConfigTypeError, "CheckCallback has no argument 'save_top_k'. Did you mean 'keep'?"),
    Mistake("GradClipCallback(max_norm=1.0)", ConfigTypeError, "GradClipCallback(1.0, norm_type=2) by their norm, GradClipCallback(0.5) by value."),
    Mistake("LogCallback(dir='runs')", ConfigTypeError, "LogCallback has no argument 'dir'. Did you mean 'log_dir'?"),
    Mistake("Optimizer(opt, lr_scheduler=scheduler)", ConfigTypeError, "Optimizer has no argument 'lr_scheduler'. Did you mean 'scheduler'?"),
    Mistake("trainer.record({'accuracy': 0.5})", ConfigTypeError, "record() needs 'value': record(name, value)."),
    Mistake("EpochTask(train_dl).record({'accuracy': 0.5})", ConfigTypeError, "record() needs 'value': record(name, value)."),
    Mistake("trainer.load_weights()", ConfigTypeError, "load_weights() needs 'source': load_weights(source)."),
    Mistake("trainer.load_checkpoint()", ConfigTypeError, "load_checkpoint() needs 'path': load_checkpoint(path)."),
    Mistake("trainer.save_weights()", ConfigTypeError, "save_weights() needs 'path': save_weights(path)."),
    Mistake("trainer.export()", ConfigTypeError, "export() needs 'path': export(path, format)."),
    Mistake("trainer.stop(because='good')", ConfigTypeError, "stop() has no argument 'because'."),
    Mistake("EpochTask()", ConfigTypeError, "EpochTask needs 'dataloader': EpochTask(dataloader, metrics, do_loss, batch_size)."),
    Mistake("trainer.fit(train_tasks=EpochTask(train_dl, metric=accuracy))", ConfigError, "EpochTask has no argument 'metric', and no step takes it. Did you mean 'metrics'?"),
]  # fmt: skip

SWAPPED = [
    Mistake("Trainer(model, opt, loss)", ConfigTypeError, "loss and opt are swapped: loss is an optimizer (Adam), opt is the function cross_entropy. The order is Trainer(model, loss, opt, epochs)."),
    Mistake("Trainer(loss, model)", ConfigTypeError, "model and loss are swapped: model is the function cross_entropy, loss is a model (Linear)."),
    Mistake("Trainer(nn.CrossEntropyLoss(), model)", ConfigTypeError, "model and loss are swapped: model is a loss function (CrossEntropyLoss)"),
    Mistake("Trainer(opt, loss, model)", ConfigTypeError, "model and opt are swapped: model is an optimizer (Adam), opt is a model (Linear)."),
    Mistake("Trainer(loss, opt, model)", ConfigTypeError, "model, loss and opt are swapped"),
    Mistake("Trainer(model, opt)", ConfigTypeError, "loss is an optimizer (Adam): the optimizer comes third, Trainer(model, loss, opt, epochs)."),
    Mistake("Trainer(model, loss, scheduler)", ConfigTypeError, "opt is a scheduler (StepLR): a scheduler is given with its optimizer, opt=Optimizer(opt, scheduler)."),
    Mistake("Trainer(model, loss, [opt, scheduler])", ConfigTypeError, "opt[1] is a scheduler (StepLR): a scheduler is given with its optimizer"),
    Mistake("Trainer(model, loss, partial(torch.optim.SGD, lr=0.1))", ConfigTypeError, "opt is a partial of the class SGD: call it with the weights"),
    Mistake("Trainer(model, loss, model.parameters())", ConfigTypeError, "opt is a generator: make an optimizer of the weights, torch.optim.Adam(model.parameters(), lr=1e-3)."),
    Mistake("Trainer(model, loss, 0.1)", ConfigTypeError, "opt=0.1 is a float: the learning rate belongs to the optimizer, opt=torch.optim.Adam(model.parameters(), lr=0.1)."),
    Mistake("Trainer(model, loss, 'adamw')", ConfigTypeError, "opt='adamw' is a str: give an optimizer, such as torch.optim.AdamW(model.parameters(), lr=1e-3)."),
    Mistake("Trainer(model, 'cross_entropy', opt)", ConfigTypeError, "loss='cross_entropy' is a str: give the function itself, F.cross_entropy (from torch.nn import functional as F)."),
    Mistake("Trainer(model, 'sparse_categorical_crossentropy', opt)", ConfigTypeError, "give the function itself, F.cross_entropy"),
    Mistake("Trainer(model, train_dl)", ConfigTypeError, "loss is a DataLoader: the data are given to fit, trainer.fit(train_dl, val_dl)."),
    Mistake("Trainer(model, loss, opt, train_dl)", ConfigTypeError, "epochs is a DataLoader: the data are given to fit, trainer.fit(train_dl, val_dl)."),
    Mistake("Trainer(model, loss, opt, accuracy)", ConfigTypeError, "epochs is the function accuracy: give an int of at least 0. Give what follows by name, such as metrics=..."),
    Mistake("Trainer(model, loss, opt, 5, CheckCallback())", ConfigTypeError, "device is a callback (CheckCallback): callbacks are given by name, callbacks=[...]."),
    Mistake("Trainer(model, loss, opt, 5, [accuracy])", ConfigTypeError, "device is a list of 1 function: give the name of a device"),
    Mistake("Trainer(model, loss, opt, 5.0)", ConfigTypeError, "epochs=5.0 is a float: give an int, epochs=5."),
    Mistake("Trainer(model, loss, opt, '5')", ConfigTypeError, "epochs='5' is a str: give an int, epochs=5."),
    Mistake("Trainer(model, loss, opt, precision='16-mixed')", ConfigError, "precision='16-mixed': give one of 'no', 'bf16', 'fp16'. Did you mean 'fp16'?"),
    Mistake("Trainer(model, loss, opt, hyper_params=SimpleNamespace(lr=1))", ConfigTypeError, "hyper_params is a SimpleNamespace: give a dict, such as vars(namespace), or None."),
    Mistake("Trainer(model, loss, opt, metric_patch='average')", ConfigError, "Did you mean 'mean'?"),
    Mistake("CheckCallback('accuracy', mode='maximize')", ConfigError, "mode='maximize': give one of 'min', 'max'. Did you mean 'max'?"),
    Mistake("CheckCallback('loss', on_stage='validation')", ConfigError, "on_stage='validation': give one of 'train', 'val'. Did you mean 'val'?"),
    Mistake("trainer.fit(train_dl, val_dl, 5)", ConfigTypeError, "metrics=5 is an int: for a number of epochs write epochs=5. For a metric give a function"),
    Mistake("trainer.fit(train_dl, val_dl, test_dl)", ConfigTypeError, "metrics is a DataLoader: fit(train_dl, val_dl) takes two loaders; a third is given to trainer.test(test_dl)."),
    Mistake("trainer.fit(train_dl, 5)", ConfigTypeError, "val_dl is 5, an int: for a number of epochs write epochs=5; give a DataLoader"),
    Mistake("trainer.fit(x, y, epochs=5)", ConfigTypeError, "train_dl is an array [12, 3], and no loader: give DataLoader(TensorDataset(torch.as_tensor(inputs), torch.as_tensor(targets)), batch_size=32, shuffle=True)."),
    Mistake("trainer.fit(X, Y)", ConfigTypeError, "train_dl is a tensor [12, 3], and no loader: give DataLoader(TensorDataset(inputs, targets), batch_size=32, shuffle=True)."),
    Mistake("trainer.fit((X, Y))", ConfigTypeError, "train_dl is a tuple of 2 tensors [12, 3], [12], and no loader: give DataLoader("),
    Mistake("trainer.predict(X)", ConfigTypeError, "dataloader is a tensor [12, 3], and no loader: give DataLoader(TensorDataset(inputs, targets), batch_size=32)."),
    Mistake("trainer.fit(dataset)", ConfigTypeError, "train_dl is a data set, TensorDataset: wrap it, for example DataLoader(dataset, batch_size=32)."),
    Mistake("trainer.fit([train_dl, train_dl])", ConfigTypeError, "train_dl is a list of loaders: make an EpochTask of each"),
]  # fmt: skip


def r2_score(y_true: Any, y_pred: Any, *, power: int = 2) -> Any:
    """Named as in scikit-learn, and not symmetric."""
    return 1 - (y_true - y_pred).abs().pow(power).sum() / y_true.var()


def r2_of_kept(y_pred: Any, targets: Any, y_true: Any = None) -> Any:
    return y_pred.mean() + targets.sum()


class KerasLoss(nn.Module):
    """A loss whose targets come first."""

    def forward(self, y_true: Any, y_pred: Any) -> Any:
        return F.cross_entropy(y_pred, y_true)


METRICS = [
    Mistake("trainer.fit(train_dl, metrics=r2_score)", ConfigError, "The metric 'r2_score' takes (y_true, y_pred), and a metric is called as metric(preds, targets). Give rename('r2_score')(lambda preds, targets: r2_score(targets, preds))."),
    Mistake("trainer.fit(train_dl, metrics=[accuracy, partial(r2_score, power=3)])", ConfigError, "Give rename('r2_score')(lambda preds, targets: r2_score(targets, preds, power=3))."),
    Mistake("trainer.fit(train_dl, metrics=rename('r2')(partial(r2_score)))", ConfigError, "The metric 'r2' takes (y_true, y_pred), and a metric is called as metric(preds, targets). Give rename('r2')(lambda preds, targets: r2_score("),
    Mistake("Trainer(model, loss, opt, metrics=lambda targets, preds: 1.0, metric_patch='mean').test(test_dl)", ConfigError, "Give rename('name')(lambda preds, targets: ..., with the outputs first)."),
    Mistake("Trainer(model, lambda y_true, y_pred: y_pred.sum(), opt)", ConfigError, "The loss function takes (y_true, y_pred), and it is called as loss(model_out, targets). Give lambda model_out, targets: ..., with the outputs first."),
    Mistake("Trainer(model, KerasLoss(), opt)", ConfigError, "Give lambda model_out, targets: loss_fn(targets, model_out)."),
    Mistake("Trainer(model, partial(r2_score, power=3), opt)", ConfigError, "Give lambda model_out, targets: r2_score(targets, model_out, power=3)."),
    Mistake("Trainer(model, loss, opt, metrics=[accuracy, None])", ConfigTypeError, "metrics[1]=None: leave it out."),
    Mistake("Trainer(model, loss, opt, metrics=opt)", ConfigTypeError, "metrics is an optimizer (Adam): the optimizer comes third"),
    Mistake("Trainer(model, loss, opt, metrics=nn.L1Loss)", ConfigTypeError, "metrics=L1Loss is a class: give an object, L1Loss(...)."),
    Mistake("Trainer(model, loss, opt, metrics={'acc': accuracy})", ConfigTypeError, "metrics is a dict with keys 'acc' (a function): give a list, in which a metric may have another name: [rename('acc')(accuracy)]."),
    Mistake("Trainer(model, loss, opt, metrics='acc')", ConfigError, "metrics='acc' is no metric of deepepochs. Did you mean 'accuracy'?"),
    Mistake("Trainer(model, loss, opt, metrics=['f1', 'acuracy'])", ConfigError, "metrics[1]='acuracy' is no metric of deepepochs. Did you mean 'accuracy'?"),
    Mistake("trainer.test(test_dl, metrics='f1_macro')", ConfigError, "Did you mean 'macro_f1'?"),
    Mistake("trainer.test(test_dl, metrics='f1_weighted')", ConfigError, "Give rename('f1_weighted')(functools.partial(f1, average='weighted'))."),
    Mistake("trainer.fit(train_dl, metrics='mse')", ConfigError, "torchmetrics has it: give torchmetrics.MeanSquaredError()."),
    Mistake("trainer.fit(train_dl, metrics='rmse')", ConfigError, "give torchmetrics.MeanSquaredError(squared=False)."),
    Mistake("trainer.fit(train_dl, metrics=f1(average='macro'))", ConfigError, "f1() was given nothing: pass either preds and targets, or a confusion matrix: f1(conf_mat=matrix). As a metric of a run give it without a call: partial(f1, average='macro')."),
    Mistake("trainer.fit(train_dl, metrics=accuracy())", ConfigError, "As a metric of a run give it without a call: accuracy."),
    Mistake("trainer.fit(train_dl, metrics='auroc')", ConfigError, "torchmetrics has it: give its object or function."),
    Mistake("trainer.fit(train_dl, train_metrics=['loss'])", ConfigError, "The loss is always recorded: leave it out."),
    Mistake("EpochTask(train_dl, metrics='accuarcy')", ConfigError, "Did you mean 'accuracy'?"),
    Mistake("trainer.fit(train_dl, metrics=[lambda p, t: 1.0, lambda p, t: 2.0])", MetricError, "Two metrics are named '<lambda>': the lambda in line 1 of <string> and the lambda in line 1 of <string>. Give each a name of its own: rename('error')(lambda preds, targets: ...)."),
    Mistake("trainer.fit(train_dl, metrics=[f1, partial(f1, average='macro')])", MetricError, "Two metrics are named 'f1': deepepochs.metrics.f1 and partial(f1, average='macro'). Give one another name: rename('other')(partial(f1, ...))."),
]  # fmt: skip

ATTRIBUTES = [
    Mistake("trainer.evaluate(test_dl)", AttributeError, "'Trainer' object has no attribute 'evaluate'. trainer.test(test_dl) gives the loss and the metrics of a loader."),
    Mistake("trainer.validate(val_dl)", AttributeError, "trainer.test(test_dl) gives"),
    Mistake("trainer.save('w.pt')", AttributeError, "trainer.save_weights(path) writes the weights"),
    Mistake("trainer.load('w.pt')", AttributeError, "trainer.load_weights(path) loads weights; trainer.load_checkpoint(path) loads the whole state"),
    Mistake("trainer.save_checkpoint('w.pt')", AttributeError, "A CheckCallback saves the whole state"),
    Mistake("trainer.compile(optimizer='adam')", AttributeError, "Trainer(model, loss, opt, metrics=...) is given what others give to compile()"),
    Mistake("trainer.lr_find()", AttributeError, "trainer.find_lr(train_dl) searches a learning rate."),
    Mistake("trainer.scale_batch_size(train_dl)", AttributeError, "trainer.find_batch_size(train_dl) searches a batch size."),
    Mistake("trainer.profiler", AttributeError, "trainer.profile(train_dl) tells where the time of some steps goes."),
    Mistake("trainer.summarize()", AttributeError, "trainer.summary(train_dl) lists the layers, shapes and parameters."),
    Mistake("trainer.summary(train_dl, max_depth=2)", ConfigTypeError, "Did you mean 'depth'?"),
    Mistake("trainer.profile(train_dl, step=5)", ConfigTypeError, "Did you mean 'steps'?"),
    Mistake("trainer.find_batch_size(train_dl, max=64)", ConfigTypeError, "Did you mean 'max_size'?"),
    Mistake("Trainer(model, loss, determinstic=True)", ConfigTypeError, "Did you mean 'deterministic'?"),
    Mistake("Trainer(model, loss, fast_dev_run=True)", ConfigTypeError, "Did you mean dry_run=True?"),
    Mistake("Trainer(model, loss, val_check_interval=0.5)", ConfigTypeError, "Did you mean val_every=500, in optimizer steps?"),
    Mistake("Trainer(model, loss, enable_model_summary=True)", ConfigTypeError, "print(trainer.summary(train_dl)) shows the layers, shapes and parameters."),
    Mistake("Trainer(model, loss, enable_checkpointing=False)", ConfigTypeError, "Only a callback saves checkpoints"),
    Mistake("Trainer(model, loss, num_sanity_val_steps=2)", ConfigTypeError, "Trainer(..., dry_run=True) tries one mini-batch of each stage."),
    Mistake("Trainer(model, loss, profiler='simple')", ConfigTypeError, "print(trainer.profile(train_dl)) tells"),
    Mistake("Trainer(model, loss, log_every_n_steps=5)", ConfigTypeError, "callbacks=LogCallback(every_n_batches=50)."),
    Mistake("Trainer(model, loss, detect_anomaly=True)", ConfigTypeError, "torch.autograd.set_detect_anomaly(True)."),
    Mistake("Trainer(model, loss, auto_scale_batch_size=True)", ConfigTypeError, "trainer.find_batch_size(train_dl) searches a batch size."),
    Mistake("Trainer(model, loss, limit_predict_batches=2)", ConfigTypeError, "predict takes all that its loader gives."),
    Mistake("Trainer(model, loss, eval_strategy='steps')", ConfigTypeError, "Trainer(..., val_every=1000)"),
    Mistake("Trainer(model, loss, epochs=None, max_steps=9)", ConfigTypeError, "epochs=None: give an int of at least 0, or leave it out where max_steps ends the fit."),
    Mistake("Trainer(model, loss, swa=True)", ConfigTypeError, "Did you mean ema=0.999?"),
    Mistake("Trainer(model, loss, ema=True)", ConfigTypeError, "give the decay, ema=0.999"),
    Mistake("trainer.test(test_dl, limit_test_batches=2)", ConfigTypeError, "It is given to the trainer: Trainer(..., limit_test_batches=100)."),
    Mistake("trainer.summary((32, 3))", ConfigTypeError, "summary((32, 3)): give a loader, a mini-batch or a tensor that is the input, such as torch.randn(32, 3)."),
    Mistake("trainer.fit(train_dl, overfit_batches=2)", ConfigTypeError, "It is given to the trainer: Trainer(..., overfit_batches=4)."),
    Mistake("EMA(0.9, update_every=2)", ConfigTypeError, "EMA has no argument 'update_every'. Did you mean 'every'?"),
    Mistake("from deepepochs import ModelSummary", ImportError, "trainer.summary(train_dl) lists the layers"),
    Mistake("from deepepochs import BatchSizeFinder", ImportError, "trainer.find_batch_size(train_dl) searches a batch size."),
    Mistake("from deepepochs import PyTorchLightningPruningCallback", ImportError, "PruneCallback(trial, 'accuracy') ends trials of Optuna."),
    Mistake("trainer.save_best('w.pt')", AttributeError, "trainer.load_best() takes them"),
    Mistake("trainer.fit_one_cycle(3)", AttributeError, "A schedule is given with its optimizer"),
    Mistake("trainer.learn.fit(3)", AttributeError, "trainer.fit(train_dl, val_dl) trains"),
    Mistake("trainer.train()", AttributeError, "trainer.model.train() sets the mode of the model."),
    Mistake("trainer.eval()", AttributeError, "trainer.model.eval() sets the mode of the model."),
    Mistake("trainer.predict_proba(x)", AttributeError, "trainer.predict(dataloader) gives the model's outputs: .softmax(1)"),
    Mistake("trainer.to('cuda')", AttributeError, "Trainer(..., device='cuda') chooses the device"),
    Mistake("trainer.freeze()", AttributeError, "model.requires_grad_(False) freezes a model"),
    Mistake("trainer.recorder.plot_loss()", AttributeError, "trainer.history.plot() draws the curves"),
    Mistake("trainer.callback_metrics['loss']", AttributeError, "trainer.history has the values of all epochs, for example trainer.history['val']['loss'][-1]."),
    Mistake("trainer.current_epoch", AttributeError, "trainer.init_epoch is the index of the next epoch"),
    Mistake("trainer.global_step", AttributeError, "trainer.progress.num_steps counts the optimizer steps."),
    Mistake("trainer.best_model_path", AttributeError, "trainer.load_best() takes the best weights"),
    Mistake("trainer.optimizer", AttributeError, "trainer.opt has the optimizers: trainer.opt[0]."),
    Mistake("trainer.fitt(train_dl)", AttributeError, "'Trainer' object has no attribute 'fitt'. Did you mean 'fit'?"),
    Mistake("task.log('acc', 1.0)", AttributeError, "'EpochTask' object has no attribute 'log'. trainer.record('name', value), in a step self.record('name', value), records a number."),
    Mistake("from deepepochs import ModelCheckpoint", ImportError, "cannot import name 'ModelCheckpoint' from 'deepepochs'. CheckCallback('loss') keeps checkpoints and the best weights."),
    Mistake("from deepepochs.callbacks import EarlyStopping", ImportError, "cannot import name 'EarlyStopping' from 'deepepochs.callbacks'. EarlyStopCallback('loss', patience=5) stops early; CheckCallback('loss', patience=5) keeps the best weights, too."),
    Mistake("from deepepochs import Learner", ImportError, "Trainer(model, loss, opt) trains a torch.nn.Module."),
    Mistake("from deepepochs import Accuracy", ImportError, "Write: from deepepochs.metrics import accuracy."),
    Mistake("from deepepochs.metrics import f1_score", ImportError, "cannot import name 'f1_score' from 'deepepochs.metrics'. Write: from deepepochs.metrics import f1."),
    Mistake("from deepepochs import CheckCallBack", ImportError, "cannot import name 'CheckCallBack' from 'deepepochs'. Did you mean 'CheckCallback'?"),
    Mistake("deepepochs.EarlyStopping", AttributeError, "module 'deepepochs' has no attribute 'EarlyStopping'. EarlyStopCallback('loss', patience=5) stops early; CheckCallback('loss', patience=5) keeps the best weights, too."),
    Mistake("deepepochs.seed_everything(42)", AttributeError, "set_seed(42) seeds everything."),
]  # fmt: skip

EVERY = [*UNKNOWN, *SWAPPED, *METRICS, *ATTRIBUTES]


@pytest.mark.parametrize("mistake", EVERY, ids=lambda mistake: mistake.code)
def test_the_first_two_lines_say_what_is_wrong_and_what_to_write(mistake: Mistake) -> None:
    with pytest.raises(mistake.kind) as caught:
        run(mistake.code)
    assert type(caught.value) is mistake.kind
    text = str(caught.value)
    assert mistake.words in "\n".join(text.splitlines()[:2])
    assert not re.search(r" at 0x[0-9a-f]+|Parameter Group", text)
    assert text == text.rstrip() and "  " not in text


PACKAGE = Path(deepepochs.__file__).parent


@pytest.mark.parametrize("mistake", EVERY, ids=lambda mistake: mistake.code)
def test_a_traceback_is_short_and_has_one_error(mistake: Mistake) -> None:
    with pytest.raises(mistake.kind) as caught:
        run(mistake.code)
    shown = traceback.TracebackException.from_exception(caught.value)
    ours = [frame for frame in shown.stack if Path(frame.filename).is_relative_to(PACKAGE)]
    assert 0 < len(ours) <= 4 + (sys.version_info < (3, 11))
    assert shown.__cause__ is None and (shown.__context__ is None or shown.__suppress_context__)


# --- what looks alike and is right


class Net(nn.Module):
    """A model that a loss function could be."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, *inputs: Any) -> Any:
        return self.linear(inputs[0])


class DistanceLoss(Net):
    """A loss function with a network of its own."""

    def forward(self, *inputs: Any) -> Any:
        return F.cross_entropy(inputs[0], inputs[1])


class MyTrainer(Trainer):
    """A trainer with arguments of its own."""

    def __init__(self, width: int, metric: Any = None, **options: Any) -> None:
        super().__init__(nn.Linear(3, 2), F.cross_entropy, epochs=1, show_info=False, **options)
        self.width, self.metric = width, metric

    @property
    def summary(self) -> str:
        return f"a width of {self.width}"

    @property
    def broken(self) -> Any:
        return self.width.no_such_thing  # type: ignore[attr-defined]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "code",
    [
        "Trainer(model, loss, opt)",
        "Trainer(model, None, opt)",
        "Trainer(model=model, loss=loss, opt=opt, epochs=2)",
        "Trainer(Net(), DistanceLoss(), None)",
        "Trainer(DistanceLoss(), F.mse_loss, None)",
        "Trainer(model, lambda out, y: out.sum(), [opt])",
        "Trainer(model, partial(F.cross_entropy, label_smoothing=0.1), Optimizer(opt, scheduler))",
        "Trainer(model, loss, opt, np.int64(2))",
        "Trainer(model, loss, opt, 1, 'cpu', CheckCallback('loss'), accuracy)",
        "Trainer(model, loss, opt, 1, torch.device('cpu'))",
        "MyTrainer(3, metric=accuracy).fit(train_dl)",
        "MyTrainer(3, metrics='f1').fit(train_dl)",
        "trainer.fit(train_dl, val_dl, accuracy)",
        "trainer.fit(train_dl, val_dl, rename('r')(lambda preds, targets: r2_score(targets * 1.0, preds[:, 0])))",
        "trainer.fit(train_dl, val_dl, [rename('t')(lambda preds, target: 1.0), rename('h')(lambda y_hat, y: 1.0)])",
        "trainer.fit(train_dl, val_dl, rename('k')(partial(r2_of_kept, y_true=None)))",
        "trainer.fit(train_dl, val_dl, [accuracy, 'f1'])",
        "trainer.fit(train_dl, val_dl, (accuracy, F.cross_entropy, lambda p, t: 1.0))",
        "trainer.fit([(X, Y)])",
        "trainer.fit(((X, Y), (X, Y)))",
        "trainer.predict([X, X])",
        "trainer.predict((X[:4], X[4:8]))",
        "trainer.fit(train_tasks=EpochTask(train_dl, metrics=['accuracy'], name='day'))",
        "step(train_step=lambda self, x, y, metric=1: self.loss(self.model(*x), y))",
        "Trainer(Net(), None, None, metrics=rename('my')(partial(f1, average='macro')))",
    ],
)
def test_what_is_right_is_silent(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    run(code)


def test_the_error_of_an_init_of_the_users_is_pythons_own() -> None:
    with pytest.raises(TypeError, match=r"argument .hight"):
        MyTrainer(3, hight=2)
    with pytest.raises(TypeError, match=r"MyTrainer.__init__\(\) missing 1 required positional"):
        MyTrainer()  # type: ignore[call-arg]


def test_what_a_class_of_the_users_hands_on_is_told_of_the_class_that_refuses_it() -> None:
    with pytest.raises(ConfigTypeError, match=r"^Trainer has no argument 'optimizer'"):
        MyTrainer(3, optimizer=None)

    class Plain(Trainer):
        pass

    with pytest.raises(ConfigTypeError, match=r"^Plain has no argument 'optimizer'"):
        Plain(nn.Linear(1, 1), optimizer=None)  # type: ignore[call-arg]

    class Mine(Callback):
        def __init__(self, path: str) -> None:
            super().__init__()

    with pytest.raises(TypeError, match=r"Mine.__init__\(\) got an unexpected keyword"):
        Mine(folder="a")  # type: ignore[call-arg]


def test_a_type_error_of_a_step_or_metric_is_its_own() -> None:
    made = objects()

    def wrong(self: Any, batch_x: Any, batch_y: Any) -> None:
        self.loss(self.model(*batch_x), batch_y, label_smoothing=0.1)

    task = type("MyTask", (EpochTask,), {"step": wrong})(made["train_dl"])
    with pytest.raises(TypeError, match="unexpected keyword argument 'label_smoothing'"):
        made["trainer"].fit(train_tasks=task)


def test_a_table_is_no_loader() -> None:
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"age": [1.0, 2.0], "label": [0, 1]})
    with pytest.raises(ConfigTypeError) as caught:
        objects()["trainer"].fit(table)
    assert str(caught.value).startswith(
        "train_dl is a table (DataFrame), and no loader: make tensors of its columns, such as "
        "inputs = torch.tensor(table[columns].to_numpy(), dtype=torch.float32)"
    )


def test_a_data_set_of_hugging_face_is_no_loader() -> None:
    # It may be walked, sample by sample, and would be taken for a loader of dicts.
    kind = type("Dataset", (list,), {"__module__": "datasets.arrow_dataset"})
    with pytest.raises(ConfigTypeError, match=r"train_dl is a data set, Dataset: wrap it"):
        objects()["trainer"].fit(kind([{"x": X[0], "labels": Y[0]}]))


# --- names of metrics


@pytest.mark.parametrize("name", dm.BY_NAME)
def test_each_metric_of_the_library_may_be_given_by_its_name(name: str) -> None:
    made = objects()
    trainer = Trainer(made["model"], F.cross_entropy, epochs=1, metrics=name, show_info=False)
    history = trainer.fit(made["train_dl"], made["val_dl"])
    assert list(history["val"]) == ["loss", name]
    expected = trainer.test(made["test_dl"])[name]
    assert expected == float(dm.BY_NAME[name](trainer.predict(made["test_dl"]), Y))


@pytest.mark.parametrize("plain", [dm.precision, dm.recall, dm.f1])
def test_a_macro_metric_by_name_is_the_mean_over_the_classes(plain: Any) -> None:
    preds, targets = (
        torch.eye(3)[torch.tensor([0, 0, 1, 2, 2, 0])],
        torch.tensor([0, 0, 0, 1, 2, 0]),
    )
    given = dm.BY_NAME[f"macro_{plain.__name__}"](preds, targets)
    assert given == plain(preds, targets, average="macro") != plain(preds, targets)


def test_names_and_functions_are_one_metric_wherever_they_are_given() -> None:
    made = objects()
    trainer = Trainer(
        made["model"], F.cross_entropy, epochs=1, metrics=["accuracy", f1], show_info=False
    )
    given = ["accuracy", "f1"]
    task = EpochTask(made["train_dl"], metrics=given)
    history = trainer.fit(
        train_tasks=task, val_dl=made["val_dl"], metrics=accuracy, val_metrics="recall"
    )
    assert list(history["train"]) == ["loss", "accuracy", "f1"]
    assert list(history["val"]) == ["loss", "recall", "accuracy", "f1"]
    assert list(trainer.test(made["test_dl"], metrics="precision")) == [
        "loss",
        "precision",
        "accuracy",
        "f1",
    ]
    assert given == ["accuracy", "f1"]


def test_the_direction_of_a_metric_that_is_given_by_name_is_known() -> None:
    made = objects()
    check = CheckCallback("f1")
    trainer = Trainer(
        made["model"], F.cross_entropy, epochs=1, metrics="f1", callbacks=check, show_info=False
    )
    trainer.fit(made["train_dl"], made["val_dl"])
    assert check.watch.mode == "max"


# --- attributes


def test_looking_for_an_attribute_finds_what_is_there_and_no_more() -> None:
    made = objects()
    trainer: Any = MyTrainer(7)
    assert trainer.summary == "a width of 7" and trainer.width == 7
    assert not hasattr(trainer, "evaluate") and not hasattr(made["task"], "log")
    assert getattr(trainer, "evaluate", None) is None
    assert not hasattr(trainer, "_repr_nothing_") and not hasattr(deepepochs, "EarlyStopping")
    assert "evaluate" not in dir(trainer)


def test_an_attribute_error_inside_of_a_property_is_told_as_it_is() -> None:
    trainer: Any = MyTrainer(7)
    with pytest.raises(AttributeError, match=r"^'int' object has no attribute 'no_such_thing'"):
        trainer.broken  # noqa: B018


@pytest.mark.parametrize("kind", [MyTrainer, EpochTask])
def test_copies_and_pickles_are_made_as_before(kind: Any) -> None:
    made: Any = MyTrainer(7) if kind is MyTrainer else EpochTask([(X, Y)])
    for other in (copy.copy(made), copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert type(other) is kind and vars(other).keys() == vars(made).keys()
    assert not hasattr(kind.__new__(kind), "running_id")  # before __init__


@pytest.mark.parametrize("name", [name for names in hints.ATTRIBUTES for name in names.split()])
def test_no_hint_is_given_for_a_name_that_exists(name: str) -> None:
    made = objects()
    assert not hasattr(made["trainer"], name), f"take {name} out of hints/names.py"


@pytest.mark.parametrize("module", ["deepepochs", "deepepochs.callbacks", "deepepochs.metrics"])
def test_no_hint_is_given_for_a_class_that_exists(module: str) -> None:
    names = [name for listed in hints.EXPORTED for name in listed.split()]
    found = [name for name in names if hasattr(importlib.import_module(module), name)]
    assert not found


def test_every_argument_that_a_hint_names_is_one() -> None:
    """What is taken for one of our arguments, and has no sentence, is an argument somewhere."""
    methods: list[Any] = [
        Trainer,
        Trainer.fit,
        Trainer.test,
        Trainer.predict,
        Trainer.find_lr,
        Trainer.find_batch_size,
        Trainer.profile,
        EpochTask,
    ]
    methods += [Optimizer, EMA, Trainer.summary]
    methods += [CheckCallback, FreezeCallback, GradClipCallback, LogCallback]
    known = {name for method in methods for name in inspect.signature(method).parameters}
    assert not hints.MEANT.keys() - known - hints.HOW.keys()
    assert hints.HOW.keys() <= hints.MEANT.keys()


# --- the wrapper of fit and the like


def test_the_frame_that_looks_at_arguments_is_in_no_traceback() -> None:
    made = objects()

    def fails(self: Any, batch_x: Any, batch_y: Any) -> None:
        raise ZeroDivisionError

    task = type("MyTask", (EpochTask,), {"step": fails})(made["train_dl"])
    with pytest.raises(ZeroDivisionError) as caught:
        made["trainer"].fit(train_tasks=task)
    names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    hidden = [] if sys.version_info >= (3, 11) else ["checked"]
    assert names[1:] == [*hidden, "fit", "run_pass", "fails"]


def test_warnings_about_arguments_point_at_the_line_of_the_call() -> None:
    made = objects()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        made["trainer"].fit(made["train_dl"], val_metrics=accuracy)
        made["trainer"].fit(made["train_dl"])
        made["trainer"].fit(made["train_dl"], made["val_dl"], val_freq=5, epochs=1)
        made["trainer"].predict([])
    assert len(caught) == 4
    assert {warning.filename for warning in caught} == {__file__}
