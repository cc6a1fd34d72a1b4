"""What goes wrong and how it is told: the written list, one test for each entry.

Each entry names an input that cannot be right, the class of the error or warning, and the
decisive words of its message: what was found, where, and what to do. The last part of the
file holds what looks wrong and is right.
"""

from __future__ import annotations

import contextlib
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from deepepochs import (
    Callback,
    CheckCallback,
    EpochTask,
    GradClipCallback,
    MeanPatch,
    Optimizer,
    PatchBase,
    Stage,
    TensorPatch,
    Trainer,
    ValuePatch,
    batches,
    rename,
)
from deepepochs import metrics as dm
from deepepochs.errors import (
    CallbackException,
    CheckpointMismatch,
    CheckpointNotFound,
    ConfigError,
    ConfigTypeError,
    DataError,
    HookError,
    LoopException,
    MetricError,
    NotBoundError,
    NotFiniteError,
    PatchError,
    StepError,
    StopLoopException,
    _print_notes,
    add_note,
)

torch.manual_seed(3)
X, Y = torch.randn(12, 3), torch.arange(12) % 2
DL = DataLoader(TensorDataset(X, Y), batch_size=4)
RAGGED = [(X[:4], Y[:4]), (X[4:6], Y[4:6])]
BARE: Any = DataLoader(X, batch_size=4)  # type: ignore[arg-type]
NAN_DL = [(X[:4], Y[:4]), (X[4:8] * float("nan"), Y[4:8])]


class Case(NamedTuple):
    """An entry: what is done, and the class and the words of what is said."""

    name: str
    act: Callable[[], Any]
    kind: type[BaseException]
    words: str


def trainer(
    model: Any = None, loss: Any = F.cross_entropy, opt: Any = None, **options: Any
) -> Trainer:
    model = nn.Linear(3, 2) if model is None else model
    return Trainer(model, loss, opt, **{"epochs": 1, "show_info": False, **options})


def fit(*args: Any, model: Any = None, loss: Any = F.cross_entropy, **options: Any) -> Any:
    """Fit a trainer with ``options`` on ``args``, by default on good data."""
    return trainer(model, loss, **options).fit(*(args or (DL,)))


def fit_args(*args: Any, **kwargs: Any) -> Any:
    return trainer().fit(*args, **kwargs)


def run_step(step: Callable[..., Any], **options: Any) -> Any:
    """Fit with a task that has ``step``."""
    task_class = type("MyTask", (EpochTask,), {"step": step})
    return trainer(**options).fit(train_tasks=task_class(DL))


def shapeless() -> torch.Tensor:
    """A tensor that has no shape to be described by."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The PyTorch API of nested tensors")
        return torch.nested.nested_tensor([X[:2], X[:1]])


def fit_always_failing(batches: Any) -> Any:
    """Fit with a step that raises, whatever it gets."""

    def step(self: Any, batch_x: Any, batch_y: Any) -> None:
        raise ValueError("as always")

    return trainer().fit(train_tasks=type("MyTask", (EpochTask,), {"step": step})(batches))


def returning(value: Any) -> Any:
    """Fit with a step that trains as it should and returns ``value``."""

    def step(self: Any, batch_x: Any, batch_y: Any) -> Any:
        self.loss(self.model(*batch_x), batch_y)
        return value

    step.__qualname__ = "MyTask.step"
    return run_step(step)


def optimizing(index: Any) -> Any:
    def step(self: Any, batch_x: Any, batch_y: Any) -> None:
        self.loss(self.model(*batch_x), batch_y, do_optimize=False)
        self.optimize(index)

    step.__qualname__ = "MyTask.step"
    return run_step(step)


def never_optimizing() -> Any:
    def step(self: Any, batch_x: Any, batch_y: Any) -> None:
        self.loss(self.model(*batch_x), batch_y, do_optimize=False)

    step.__qualname__ = "MyTask.step"
    return run_step(step)


def loss_twice(self: Any, batch_x: Any, batch_y: Any) -> None:
    self.loss(self.model(*batch_x), batch_y)
    self.loss(self.model(*batch_x), batch_y)


def bare_to_model(self: Any, batch_x: Any, batch_y: Any) -> None:
    self.loss(self.model(batch_x), batch_y)


def task_typo(self: Any, batch_x: Any, batch_y: Any) -> None:
    self.loss(self.modle(*batch_x), batch_y)


def no_backward(self: Any, batch_x: Any, batch_y: Any) -> None:
    self.model(*batch_x)


def two_kinds() -> Any:
    kinds = iter([ValuePatch(4).load(1.0), MeanPatch(dm.accuracy, 4).load(X[:4, :2], Y[:4])])

    def step(self: Any, batch_x: Any, batch_y: Any) -> Any:
        self.loss(self.model(*batch_x), batch_y)
        return {"score": next(kinds)}

    return run_step(step)


def callback(**members: Any) -> Callback:
    made: Callback = type("MyCallback", (Callback,), members)()
    return made


def task_with(**members: Any) -> type[EpochTask]:
    return type("MyTask", (EpochTask,), members)


def scaled(
    self: Any, batch_x: Any, batch_y: Any, temperature: float = 1.0, **step_args: Any
) -> None:
    self.loss(self.model(*batch_x) / temperature, batch_y)


def throws_away(self: Any, batch_x: Any, batch_y: Any, **rest: Any) -> None:
    self.loss(self.model(*batch_x), batch_y)


class NoSuper(EpochTask):
    def __init__(self, dataloader: Any) -> None:
        self.dataloader = dataloader


class WithDict(nn.Module):
    """Puts out a dict without a loss."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, x: Any) -> Any:
        return {"out": self.linear(x)}


class Failing(Callback):
    def on_after_epoch(self, **others: Any) -> None:
        raise KeyError("oops")


class HookOnObject(Callback):
    def __init__(self) -> None:
        super().__init__()
        self.on_after_fit = print  # type: ignore[method-assign, assignment]


def frozen_model() -> nn.Module:
    model = nn.Linear(3, 2)
    for weight in model.parameters():
        weight.requires_grad_(False)
    return model


def foreign_optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD(nn.Linear(3, 2).parameters(), lr=0.1)


def twice_the_optimizer() -> Any:
    model = nn.Linear(3, 2)
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    return trainer(model, opt=[opt, opt])


def foreign_scheduler() -> Any:
    model = nn.Linear(3, 2)
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    return Optimizer(opt, torch.optim.lr_scheduler.StepLR(foreign_optimizer(), 1))


def same_callback_twice() -> Any:
    one = Callback()
    return trainer(callbacks=[one, one])


def set_callback() -> None:
    trainer().callbacks[0] = "early"


def extend_callbacks() -> None:
    pool = trainer().callbacks
    pool += ["early"]  # type: ignore[list-item]


def task_before_its_stage() -> Any:
    task = EpochTask(DL)
    hook = {"on_before_epoch": lambda self, trainer, **others: trainer.run_task(task, Stage.VAL)}
    return trainer(callbacks=callback(**hook)).fit(DL, val_tasks=task)


def task_after_fit() -> Any:
    owner, task = trainer(), EpochTask(DL)
    owner.fit(train_tasks=task)
    return task()


def metric_named(name: str, metric: Any = lambda preds, targets: 1.0) -> Any:
    def named(*args: Any) -> Any:
        return metric(*args)

    return rename(name)(named)


BAD_TRAINER = [
    Case("model class", lambda: trainer(nn.Linear), ConfigTypeError, "model=Linear is a class: give an object, Linear()"),
    Case("no model", lambda: Trainer(None, F.mse_loss), ConfigTypeError, "model=None: give an nn.Module"),  # type: ignore[arg-type]
    Case("model name", lambda: trainer("resnet"), ConfigTypeError, "model='resnet' is a str: give an nn.Module"),
    Case("model without weights", lambda: trainer(nn.ReLU()), ConfigError, "over the weights of the model, and it has none"),
    Case("loss class", lambda: trainer(loss=nn.CrossEntropyLoss), ConfigTypeError, "loss=CrossEntropyLoss is a class: give an object"),
    Case("loss name", lambda: trainer(loss="mse"), ConfigTypeError, "loss='mse' is a str: give the function itself, F.mse_loss"),
    Case("optimizer of another model", lambda: trainer(opt=foreign_optimizer()), ConfigError, "Optimizer 0 (SGD) holds none of this model's weights"),
    Case("optimizer class", lambda: trainer(opt=torch.optim.SGD), ConfigTypeError, "opt=SGD is a class: give an object, SGD(model.parameters()"),
    Case("optimizer name", lambda: trainer(opt="adam"), ConfigTypeError, "opt='adam' is a str: give an optimizer, such as torch.optim.Adam("),
    Case("no optimizer in the list", lambda: trainer(opt=[]), ConfigTypeError, "opt is an empty list: give a torch optimizer"),
    Case("name in the list of optimizers", lambda: trainer(opt=["adam"]), ConfigTypeError, "opt[0]='adam' is a str: give an optimizer"),
    Case("one optimizer twice", twice_the_optimizer, ConfigError, "one torch optimizer twice"),
    Case("scheduler of another optimizer", foreign_scheduler, ConfigError, "StepLR of an Optimizer was made for another optimizer"),
    Case("epochs=-1", lambda: trainer(epochs=-1), ConfigError, "epochs=-1: give an int of at least 0"),
    Case("epochs='3'", lambda: trainer(epochs="3"), ConfigTypeError, "epochs='3' is a str: give an int"),
    Case("epochs=True", lambda: trainer(epochs=True), ConfigTypeError, "epochs=True is a bool: give an int"),
    Case("epochs=2.5", lambda: trainer(epochs=2.5), ConfigTypeError, "epochs=2.5 is a float: give an int"),
    Case("epochs=None", lambda: trainer(epochs=None), ConfigTypeError, "epochs=None: give an int"),
    Case("unknown device", lambda: trainer(device="gpu"), ConfigError, "device='gpu' cannot be used"),
    Case("device that is not there", lambda: trainer(device="cuda:99"), ConfigError, "device='cuda:99' cannot be used"),
    Case("device of a wrong type", lambda: trainer(device=3.5), ConfigTypeError, "device=3.5 is a float: give the name of a device"),
    Case("callback class", lambda: trainer(callbacks=Failing), ConfigTypeError, "callbacks holds the class Failing: give an object, Failing(...)"),
    Case("callback class in a list", lambda: trainer(callbacks=[Failing]), ConfigTypeError, "callbacks holds the class Failing"),
    Case("callback name", lambda: trainer(callbacks="early"), ConfigTypeError, "callbacks holds 'early': give one Callback object or a list"),
    Case("function as callback", lambda: trainer(callbacks=print), ConfigTypeError, "callbacks holds the function print: give one Callback"),
    Case("one callback twice", same_callback_twice, ConfigError, "One Callback object comes twice among the callbacks"),
    Case("callback put in place", set_callback, ConfigTypeError, "'early' is a str, not a Callback"),
    Case("callback added by +=", extend_callbacks, ConfigTypeError, "'early' is a str, not a Callback"),
    Case("callback appended", lambda: trainer().callbacks.append("early"), ConfigTypeError, "'early' is a str, not a Callback"),  # type: ignore[arg-type]
    Case("priority of a wrong type", lambda: trainer(callbacks=Callback(priority="high")), ConfigTypeError, "Callback.order='high': give an int"),  # type: ignore[arg-type]
    Case("metric by name", lambda: trainer(metrics="acuracy"), ConfigError, "metrics='acuracy' is no metric of deepepochs. Did you mean 'accuracy'?"),
    Case("metrics by name", lambda: trainer(metrics=[dm.f1, "AUC"]), ConfigError, "metrics[1]='AUC' is no metric of deepepochs. torchmetrics has it"),
    Case("a metric's value", lambda: trainer(metrics=[0.5]), ConfigTypeError, "metrics[0]=0.5 is a float: give a function (preds, targets)"),
    Case("metrics in a dict", lambda: trainer(metrics={"acc": dm.accuracy}), ConfigTypeError, "metrics is a dict with keys 'acc' (a function): give a list"),
    Case("unknown metric_patch", lambda: trainer(metric_patch="avg"), ConfigError, "metric_patch is 'avg': give 'auto', 'tensor', 'mean', 'confusion'"),
    Case("metric_patch of a wrong class", lambda: trainer(metric_patch=dict), ConfigTypeError, "metric_patch is a type: give 'auto', 'tensor'"),
    Case("running_id with a slash", lambda: trainer(running_id="a/b"), ConfigError, "running_id 'a/b' holds a separator"),
    Case("running_id of the folder above", lambda: trainer(running_id=".."), ConfigError, "running_id '..' is no name of a folder"),
    Case("running_id of a wrong type", lambda: trainer(running_id=["a"]), ConfigTypeError, "running_id is ['a'], a list: give a string or an integer"),
    Case("resume without CheckCallback", lambda: fit(resume=True), ConfigError, "resume=True needs a CheckCallback"),
    Case("grad_accumulate=0", lambda: trainer(grad_accumulate=0), ConfigError, "grad_accumulate=0: give an int of at least 1"),
    Case("grad_accumulate=1.5", lambda: trainer(grad_accumulate=1.5), ConfigTypeError, "grad_accumulate=1.5 is a float"),
    Case("unknown on_nan", lambda: trainer(on_nan="raise"), ConfigError, "on_nan='raise': give one of 'stop', 'warn', 'ignore'"),
    Case("unknown on_interrupt", lambda: trainer(on_interrupt="quit"), ConfigError, "on_interrupt='quit': give one of 'raise', 'return'"),
    Case("unknown worker_seeding", lambda: trainer(worker_seeding="yes"), ConfigError, "worker_seeding='yes': give one of"),
    Case("a flag as text", lambda: trainer(auto_traindata_to_device="no"), ConfigTypeError, "auto_traindata_to_device='no' is a str: give True or False"),
    Case("log_long as text", lambda: trainer(log_long="no"), ConfigTypeError, "log_long='no' is a str: give True or False"),
    Case("hyper_params of a wrong type", lambda: trainer(hyper_params=["lr"]), ConfigTypeError, "hyper_params is a list of 1 str: give a dict"),
    Case("unknown argument", lambda: trainer(epoch=3), ConfigTypeError, "Trainer has no argument 'epoch'. Did you mean 'epochs'?"),
    Case("clipping at a negative number", lambda: GradClipCallback(-1), ConfigError, "max_value=-1): give a positive number"),
]  # fmt: skip

BAD_FIT = [
    Case("no data", lambda: fit_args(), LoopException, "neither of train_dl and train_tasks: give one"),
    Case("validation data alone", lambda: fit_args(val_dl=DL), LoopException, "neither of train_dl and train_tasks"),
    Case("loader and tasks", lambda: fit_args(DL, train_tasks=EpochTask(DL)), LoopException, "both of train_dl and train_tasks"),
    Case("empty list of tasks", lambda: fit_args(train_tasks=[]), LoopException, "neither of train_dl and train_tasks"),
    Case("fit epochs=-1", lambda: fit_args(DL, epochs=-1), ConfigError, "epochs=-1: give an int of at least 0"),
    Case("fit epochs='3'", lambda: fit_args(DL, epochs="3"), ConfigTypeError, "epochs='3' is a str"),
    Case("val_freq=0", lambda: fit_args(DL, DL, val_freq=0), ConfigError, "val_freq=0: give an int of at least 1"),
    Case("val_freq=1.5", lambda: fit_args(DL, DL, val_freq=1.5), ConfigTypeError, "val_freq=1.5 is a float"),
    Case("do_val_loss as text", lambda: fit_args(DL, DL, do_val_loss="no"), ConfigTypeError, "do_val_loss='no' is a str: give True or False"),
    Case("val_metrics by name", lambda: fit_args(DL, DL, val_metrics="acc"), ConfigError, "val_metrics='acc' is no metric of deepepochs. Did you mean 'accuracy'?"),
    Case("third loader", lambda: fit_args(DL, DL, DL), ConfigTypeError, "metrics is a DataLoader: fit(train_dl, val_dl) takes two loaders"),
    Case("data set as train_dl", lambda: fit(DL.dataset), ConfigTypeError, "train_dl is a data set, TensorDataset: wrap it, for example DataLoader("),
    Case("data set as val_dl", lambda: fit(DL, DL.dataset), ConfigTypeError, "val_dl is a data set, TensorDataset"),
    Case("data set as test_dl", lambda: trainer().test(DL.dataset), ConfigTypeError, "test_dl is a data set, TensorDataset"),
    Case("data set to predict", lambda: trainer().predict(DL.dataset), ConfigTypeError, "dataloader is a data set, TensorDataset"),
    Case("generator", lambda: fit(batch for batch in DL), ConfigTypeError, "train_dl is a generator, which can be walked only once"),
    Case("iterator", lambda: fit(iter(DL)), ConfigTypeError, "which can be walked only once: give the DataLoader itself"),
    Case("list of loaders", lambda: fit([DL, DL]), ConfigTypeError, "train_dl is a list of loaders: make an EpochTask of each"),
    Case("tuple of loaders", lambda: fit(DL, (DL, DL)), ConfigTypeError, "val_dl is a tuple of loaders: make an EpochTask of each"),
    Case("dict of loaders", lambda: fit({"day": DL}), ConfigTypeError, "train_dl is a dict with keys 'day' (a DataLoader): give a DataLoader"),
    Case("tensor as loader", lambda: fit(X), ConfigTypeError, "train_dl is a tensor [12, 3], and no loader: give DataLoader(TensorDataset("),
    Case("array as loader", lambda: fit(X.numpy()), ConfigTypeError, "train_dl is an array [12, 3], and no loader: give DataLoader(TensorDataset(torch.as_tensor("),
    Case("pair of tensors as loader", lambda: fit((X, Y)), ConfigTypeError, "train_dl is a tuple of 2 tensors [12, 3], [12], and no loader: give DataLoader("),
    Case("name as loader", lambda: fit("mnist"), ConfigTypeError, "train_dl is 'mnist', a str: give a DataLoader"),
    Case("number as loader", lambda: fit(5), ConfigTypeError, "train_dl is 5, an int: for a number of epochs write epochs=5; give a DataLoader"),
    Case("loader class", lambda: fit(DataLoader), ConfigTypeError, "train_dl is the class DataLoader: give an object"),
    Case("nothing to predict", lambda: trainer().predict(None), ConfigTypeError, "dataloader is None: give a DataLoader"),
    Case("test without data", lambda: trainer().test(), ConfigError, "neither test_dl nor tasks: give one of them"),
    Case("test do_loss as text", lambda: trainer().test(DL, do_loss="no"), ConfigTypeError, "do_loss='no' is a str: give True or False"),  # type: ignore[arg-type]
    Case("task as train_dl", lambda: fit(EpochTask(DL)), ConfigError, "train_dl is an EpochTask: give it as train_tasks"),
    Case("task as val_dl", lambda: fit(DL, EpochTask(DL)), ConfigError, "val_dl is an EpochTask: give it as val_tasks"),
    Case("task as test_dl", lambda: trainer().test(EpochTask(DL)), ConfigError, "test_dl is an EpochTask: give it as tasks"),
    Case("task to predict", lambda: trainer().predict(EpochTask(DL)), ConfigError, "dataloader is an EpochTask: give its dataloader"),
    Case("loader as task", lambda: fit_args(train_tasks=DL), ConfigTypeError, "train_tasks holds a DataLoader: give one EpochTask object"),
    Case("loader as val task", lambda: fit_args(DL, val_tasks=[DL]), ConfigTypeError, "val_tasks holds a DataLoader"),
    Case("task class", lambda: fit_args(train_tasks=EpochTask), ConfigTypeError, "train_tasks holds the class EpochTask: give an object"),
    Case("task of a task", lambda: EpochTask(EpochTask(DL)), ConfigTypeError, "EpochTask(dataloader) is an EpochTask: give a DataLoader"),  # type: ignore[arg-type]
    Case("two tasks of one name", lambda: fit_args(train_tasks=[EpochTask(DL, name="day"), EpochTask(DL, name="day")]), ConfigError, "Two train tasks are named 'day'"),
    Case("task named as another's index", lambda: fit_args(train_tasks=[EpochTask(DL, name="1"), EpochTask(DL)]), ConfigError, "Two train tasks are named '1'"),
    Case("task name with a slash", lambda: EpochTask(DL, name="a/b"), ConfigError, "name='a/b': give a text without '/'"),
    Case("task metric by name", lambda: EpochTask(DL, metrics="acc"), ConfigError, "metrics='acc' is no metric"),
    Case("step_args of a wrong type", lambda: EpochTask(DL, step_args=3), ConfigTypeError, "step_args=3 is an int: give a dict"),
    Case("task without super().__init__", lambda: fit_args(train_tasks=NoSuper(DL)), ConfigError, "NoSuper.__init__ did not call super().__init__"),
    Case("batch_size=-3", lambda: fit_args(DL, batch_size=-3), ConfigError, "batch_size=-3: the weight of a mini-batch is at least 0"),
    Case("batch_size is NaN", lambda: fit_args(DL, batch_size=float("nan")), ConfigError, "batch_size=nan: the weight of a mini-batch is at least 0"),
    Case("batch_size='8'", lambda: fit_args(DL, batch_size="8"), ConfigTypeError, "batch_size='8' is a str: give a number, a function"),
    Case("batch_size=True", lambda: fit_args(DL, batch_size=True), ConfigTypeError, "batch_size=True is a bool"),
    Case("batch_size of a test", lambda: trainer().test(DL, batch_size=-1), ConfigError, "batch_size=-1"),
    Case("batch_size function gives an array", lambda: fit_args(DL, batch_size=lambda x, y: np.ones(2)), ConfigError, "batch_size function gave an array [2] for inputs a tuple of 1 tensor [4, 3]"),
    Case("batch_size function gives -4", lambda: fit_args(DL, batch_size=lambda x, y: -4), ConfigError, "batch_size function gave -4"),
    Case("batch_size function gives None", lambda: fit_args(DL, batch_size=lambda x, y: None), ConfigError, "batch_size function gave None"),
    Case("batch_size function gives text", lambda: fit_args(DL, batch_size=lambda x, y: "4"), ConfigError, "batch_size function gave '4'"),
    Case("batch_size function gives NaN", lambda: fit_args(DL, batch_size=lambda x, y: float("nan")), ConfigError, "batch_size function gave nan"),
    Case("batch_size function of one argument", lambda: fit_args(DL, batch_size=len), TypeError, "raised in the batch_size function, called with the input, a tensor [4, 3]"),
]  # fmt: skip

BAD_BATCH = [
    Case("bare tensors", lambda: fit(BARE), DataError, "yielded a tensor [4, 3], not a tuple or list: input and target cannot be told apart"),
    Case("bare tensors in a test", lambda: trainer().test(BARE), DataError, "input and target cannot be told apart"),
    Case("batches of one element", lambda: fit([(X,)]), DataError, "a tuple of 1 tensor [12, 3]: its last element is the target, so no input is left"),
    Case("empty batches", lambda: fit([()]), DataError, "yielded an empty tuple"),
    Case("texts", lambda: fit(["a", "b"]), DataError, "yielded a str; a mini-batch is a tuple or list"),
    Case("None", lambda: fit([None]), DataError, "gave no mini-batch, but None each time"),
    Case("numbers", lambda: fit([1, 2]), DataError, "yielded an int; a mini-batch is"),
    Case("texts to predict", lambda: trainer().predict(["a"]), DataError, "yielded a str; a mini-batch is"),
    Case("targets to leave out of one element", lambda: trainer().predict([(X,)], with_targets=True), DataError, "no input is left"),
    Case("empty training loader", lambda: fit([]), DataError, "training loader gave no mini-batch"),
    Case("arrays", lambda: fit([(X.numpy(), Y.numpy())]), StepError, "The loader yields NumPy arrays, and the model wants tensors: the inputs are NumPy float32 [12, 3]"),
    Case("target None", lambda: fit([(X, None)]), StepError, "There are no targets (None), and cross_entropy wants some"),
    Case("one input too many", lambda: fit([(X, X, Y)]), StepError, "The loader yields 3 items: the last is the target, the other 2 are inputs, and Linear.forward(input) takes 1"),
    Case("unknown key", lambda: fit([{"x": X}]), StepError, "has no 'x'"),
    Case("targets without a loss function", lambda: fit(DL, loss=None), StepError, "No loss function was given, so the model gets the whole mini-batch"),
    Case("one input too many to predict", lambda: trainer().predict([(X, X, Y)]), StepError, "In prediction batch 1: batch_x is (float32 [12, 3], float32 [12, 3]), batch_y is int64 [12]"),
    Case("targets to predict without a loss function", lambda: trainer(loss=None).predict(DL), StepError, "If the last input is the target, give with_targets=True"),
    Case("tuple to the model", lambda: run_step(bare_to_model), StepError, "Call self.model(*batch_x)"),
    Case("wrong width", lambda: fit(model=nn.Linear(5, 2)), StepError, "It was raised as RuntimeError: mat1 and mat2 shapes cannot be multiplied (4x3 and 5x2)"),
    Case("wrong width to the first layer", lambda: fit(model=nn.Linear(5, 2)), StepError, "In epoch 1, training batch 1 of 3: batch_x is (float32 [4, 3],), batch_y is int64 [4]."),
    Case("targets of a wrong dtype", lambda: fit([(X, Y.float())]), StepError, "The labels are float32 [12]: cross_entropy wants class numbers"),
    Case("inputs of a wrong dtype", lambda: fit([(X.double(), Y)]), StepError, "has weights of dtype float32, and the data are float64 [12, 3]"),
    Case("targets out of range", lambda: fit([(X, Y + 5)]), StepError, "The labels go from 5 to 6, and the model has 2 outputs, for the classes 0 to 1"),
    Case("targets out of range in a test", lambda: trainer().test([(X, Y), (X, Y + 5)]), StepError, "In test batch 2 of 2:"),
    Case("targets of another length", lambda: fit([(X, Y[:-1])]), StepError, "The model gives 12 rows, float32 [12, 2], for 11 targets, [11]"),
    Case("an input that cannot be described", lambda: fit_always_failing([(shapeless(), Y)]), ValueError, "batch_x is a TensorTuple, batch_y is int64 [12]"),
    Case("a dict of more keys than can be shown", lambda: fit_always_failing([{f"key {n}": X for n in range(500)}]), ValueError, "..., batch_y is None"),
    Case("wrong width to predict", lambda: trainer().predict([(X[:, :2], Y)]), StepError, "In prediction batch 1: batch_x is (float32 [12, 2],)"),
]  # fmt: skip

BAD_STEP = [
    Case("step returns a number", lambda: returning(3.0), StepError, "MyTask.step returned a float: a step returns None or a dict of patches"),
    Case("step returns a list", lambda: returning([1]), StepError, "MyTask.step returned a list"),
    Case("step returns the loss", lambda: returning(torch.ones(())), StepError, "MyTask.step returned a Tensor"),
    Case("step returns a patch", lambda: returning(ValuePatch(4).load(1.0)), StepError, "MyTask.step returned a ValuePatch"),
    Case("step returns texts", lambda: returning({"acc": "0.5"}), StepError, "returned {'acc': '0.5'}: values must be patches, numbers or 0-d tensors, and '0.5' is a str"),
    Case("step returns vectors", lambda: returning({"acc": torch.ones(2)}), StepError, "numbers or 0-d tensors, and this is a tensor [2]. Take its mean, or wrap it"),
    Case("step returns a patch class", lambda: returning({"acc": ValuePatch}), StepError, "returned {'acc': ValuePatch}, which is a class"),
    Case("step returns one name twice", lambda: returning({"a": ValuePatch(1, "b").load(1.0), "b": ValuePatch(1).load(1.0)}), MetricError, "recorded the metric 'b' twice"),
    Case("patches of two kinds under one name", two_kinds, PatchError, "A MeanPatch cannot be added to a ValuePatch"),
    Case("loss recorded twice", lambda: run_step(loss_twice), MetricError, "recorded the metric 'loss' twice in one mini-batch. Pass do_metric=False"),
    Case("loss of each sample", lambda: fit(loss=nn.CrossEntropyLoss(reduction="none")), StepError, "The loss is a tensor [4], and must be a tensor with no dimension.\nReduce it"),
    Case("loss of each sample in a test", lambda: trainer(loss=nn.CrossEntropyLoss(reduction="none")).test(DL), StepError, "The loss is a tensor [4]"),
    Case("loss of one element", lambda: fit(loss=lambda out, y: F.cross_entropy(out, y)[None]), StepError, "The loss is a tensor [1]"),
    Case("detached loss", lambda: fit(loss=lambda out, y: F.cross_entropy(out, y).detach()), StepError, "The loss depends on no weight that requires a gradient: there is nothing to learn.\nBetween model and loss look for .detach()"),
    Case("frozen model", lambda: fit(model=frozen_model()), StepError, "All weights of the model are frozen"),
    Case("loss is a number", lambda: fit(loss=lambda out, y: 1.0), StepError, "The loss is a float, and must be a tensor with no dimension.\nCompute it with torch"),
    Case("loss is None", lambda: fit(loss=lambda out, y: None), StepError, "The loss is None"),
    Case("loss is None in a test", lambda: trainer(loss=lambda out, y: None).test(DL), StepError, "The loss is None"),
    Case("loss is a text in a test", lambda: trainer(loss=lambda out, y: "low").test(DL), StepError, "The loss is a str"),
    Case("outputs as loss", lambda: fit(BARE, loss=None), StepError, "No loss function was given, so it is what the model returns"),
    Case("dict outputs without a loss", lambda: fit(BARE, loss=None, model=WithDict()), StepError, "keys ['out'] and no 'loss', and no loss function was given"),
    Case("optimizer index out of range", lambda: optimizing(3), ConfigError, "MyTask.step called optimize(3), and the trainer has 1 optimizer"),
    Case("optimizer index of a wrong type", lambda: optimizing("a"), ConfigError, "called optimize('a')"),
    Case("step without batch_y", lambda: run_step(lambda self, batch: None), ConfigError, "cannot be called as step(batch_x, batch_y"),
    Case("misspelt argument of a task", lambda: fit_args(train_tasks=EpochTask(DL, metric=dm.accuracy)), ConfigError, "EpochTask has no argument 'metric', and no step takes it. Did you mean 'metrics'?"),
    Case("misspelt argument of a validation task", lambda: fit_args(DL, val_tasks=EpochTask(DL, do_los=False)), ConfigError, "Did you mean 'do_loss'?"),
    Case("misspelt argument of a test task", lambda: trainer().test(tasks=EpochTask(DL, step_args={"batchsize": 3})), ConfigError, "Did you mean 'batch_size'?"),
    Case("misspelt argument of a task for find_lr", lambda: trainer().find_lr(train_tasks=EpochTask(DL, nmae="day")), ConfigError, "Did you mean 'name'?"),
    Case("misspelt argument of a step", lambda: fit_args(train_tasks=task_with(step=scaled)(DL, temprature=2.0)), ConfigError, "Did you mean 'temperature'?"),
    Case("an argument that the step throws away", lambda: fit_args(train_tasks=task_with(step=throws_away)(DL, depth=2)), ConfigError, "MyTask has no argument 'depth', and no step takes it."),
    Case("step without its step_args", lambda: fit_args(train_tasks=task_with(step=lambda self, x, y: None)(DL, alpha=3)), ConfigError, "unexpected keyword argument 'alpha'"),
    Case("step that is no method", lambda: fit_args(train_tasks=task_with(step=3)(DL)), ConfigTypeError, "A step method is set to 3, an int"),
    Case("typo on a task", lambda: run_step(task_typo), AttributeError, "'MyTask' object has no attribute 'modle'"),
    Case("loss outside a step", lambda: trainer().loss(torch.zeros(4, 2), Y[:4]), NotBoundError, "belong inside a step or a hook of a running pass"),
    Case("optimize outside a step", lambda: trainer().optimize(), NotBoundError, "belong inside a step"),
    Case("a free task's model", lambda: EpochTask(DL).model, NotBoundError, "This EpochTask has no trainer yet"),
    Case("a free task's loss function", lambda: EpochTask(DL).loss_fn, NotBoundError, "has no trainer yet"),
    Case("a free task's optimizers", lambda: EpochTask(DL).opt, NotBoundError, "has no trainer yet"),
    Case("a free task's device", lambda: EpochTask(DL).device, NotBoundError, "has no trainer yet"),
    Case("a free task is called", lambda: EpochTask(DL)(), NotBoundError, "has no trainer yet"),
    Case("a task is run before its stage", task_before_its_stage, LoopException, "The val stage of this epoch has not begun"),
    Case("a task is called after its fit", task_after_fit, LoopException, "is not a test task of what runs now. Give it to fit() or test()"),
]  # fmt: skip

BAD_METRIC = [
    Case("two metrics of one name", lambda: fit(metrics=[metric_named("m"), metric_named("m")]), MetricError, "Two metrics are named 'm': named in line "),
    Case("metric named as the loss", lambda: fit(metrics=[metric_named("loss")]), MetricError, "is named 'loss', as the loss itself is"),
    Case("metric that raises", lambda: fit(metrics=[metric_named("bad", lambda p, t: 1 / 0)]), ZeroDivisionError, "The metric 'bad' was called with a tensor [4, 2] and a tensor [4]"),
    Case("metric that raises in a mini-batch", lambda: fit(metrics=[metric_named("bad", lambda p, t: 1 / 0)], metric_patch="mean"), ZeroDivisionError, "The metric 'bad' was called with a tensor [4, 2]"),
    Case("metric of one argument", lambda: fit(metrics=[rename("bad")(lambda preds: 1.0)]), ConfigTypeError, "The metric 'bad' is called as bad(preds, targets) with metric_patch='tensor', and cannot be: too many"),
    Case("metric gives None", lambda: fit(metrics=[metric_named("bad", lambda p, t: None)]), MetricError, "metric 'bad' gave None: return a number, a tensor, or a dict"),
    Case("metric gives text", lambda: fit(metrics=[metric_named("bad", lambda p, t: "a")]), MetricError, "metric 'bad' gave a str"),
    Case("targets of a wrong length", lambda: trainer(loss=lambda out, y: out.mean(), metrics=[dm.accuracy]).fit([(X, Y[:5])], batch_size=12), MetricError, "preds [12, 2] and targets [5] do not fit"),
    Case("metric of outputs on a matrix", lambda: fit(metrics=[rename("bad")(lambda p, t: 1.0)], metric_patch="confusion"), ConfigTypeError, "is called as bad(conf_mat) with metric_patch='confusion', and cannot be: missing"),
    Case("patch class without load", lambda: fit(metrics=[PatchBase]), PatchError, "has no load: define"),
]  # fmt: skip

BAD_CALLBACK = [
    Case("misspelt hook", lambda: trainer(callbacks=callback(on_befor_fit=lambda self, **o: 0)), HookError, "MyCallback.on_befor_fit: there is no such hook. Did you mean 'on_before_fit'?"),
    Case("hook of no likely name", lambda: trainer(callbacks=callback(on_zzz=lambda self, **o: 0)), HookError, "on_zzz: there is no such hook. The hooks are: on_before_fit, on_before_epoch"),
    Case("hook without arguments", lambda: trainer(callbacks=callback(on_before_fit=lambda self: 0)), HookError, "Write: def on_before_fit(self, trainer, epochs), or **others"),
    Case("hook with a misspelt argument", lambda: trainer(callbacks=callback(on_before_fit=lambda self, trainer, epoch: 0)), HookError, "missing a required argument: 'epoch'"),
    Case("hook without self", lambda: trainer(callbacks=callback(on_before_fit=lambda: 0)), HookError, "Write: def on_before_fit(self, trainer, epochs)"),
    Case("hook that is no method", lambda: trainer(callbacks=callback(on_before_fit=3)), HookError, "MyCallback.on_before_fit is no method of the class"),
    Case("hook set on the object", lambda: trainer(callbacks=HookOnObject()), HookError, "HookOnObject.on_after_fit is no method of the class: define it there"),
    Case("unknown event", lambda: trainer().callbacks.trigger("befor_fit"), HookError, "There is no event 'befor_fit'. Did you mean 'on_before_fit'?"),
    Case("hook that raises", lambda: fit(callbacks=Failing()), KeyError, "raised in Failing.on_after_epoch of a callback"),
]  # fmt: skip

NOT_FINITE = [
    Case("NaN in training", lambda: fit(NAN_DL), NotFiniteError, "The loss is nan in epoch 1, training batch 2 of 2: 12 of the 12 numbers in its inputs are NaN or infinite"),
    Case("infinite in training", lambda: fit(loss=lambda out, y: F.cross_entropy(out, y) * float("inf")), NotFiniteError, "The loss is inf in epoch 1, training batch 1 of 3, though its inputs, targets and weights are finite"),
    Case("NaN in the second task", lambda: fit_args(train_tasks=[EpochTask(DL), EpochTask(NAN_DL, name="night")]), NotFiniteError, "training batch 2 of 2 of task 'night'"),
    Case("NaN in validation", lambda: fit(DL, NAN_DL), NotFiniteError, "epoch 1, validation batch 2 of 2"),
    Case("NaN in a test", lambda: trainer().test(NAN_DL), NotFiniteError, "The loss is nan in test batch 2 of 2"),
]  # fmt: skip

WARNED = [
    Case("val_freq larger than epochs", lambda: fit_args(DL, DL, val_freq=5), UserWarning, "val_freq=5 is more than the epochs of this fit: it never validates"),
    Case("val_metrics without validation", lambda: fit_args(DL, val_metrics=[dm.accuracy]), UserWarning, "val_metrics were given without val_dl or val_tasks"),
    Case("batch_size beside tasks", lambda: fit_args(train_tasks=EpochTask(DL), batch_size=3), UserWarning, "batch_size has no effect without val_dl: give do_loss and batch_size to each EpochTask"),
    Case("batch_size that the last mini-batch has not", lambda: fit_args(RAGGED, batch_size=4), UserWarning, "batch_size=4 was given, and one mini-batch has 4 samples, another one 2: both weigh 4 in means"),
    Case("a target of another length", lambda: fit([(X, Y[:5])], loss=lambda out, y: out.mean()), UserWarning, "The target of a mini-batch has 5 samples, and its input has 12: it weighs 5 in means. Give batch_size="),
    Case("weights that are all 0", lambda: fit_args(DL, batch_size=0), RuntimeWarning, "All mini-batches of the training of epoch 1 weigh nothing, so its loss is nan"),
    Case("do_val_loss beside tasks", lambda: fit_args(DL, val_tasks=EpochTask(DL), do_val_loss=False), UserWarning, "do_val_loss=False has no effect without val_dl"),
    Case("do_loss beside tasks", lambda: trainer().test(tasks=EpochTask(DL), do_loss=False), UserWarning, "do_loss=False has no effect without test_dl"),
    Case("empty validation loader", lambda: fit(DL, []), UserWarning, "The validation loader gave no mini-batch"),
    Case("empty test loader", lambda: trainer().test([]), UserWarning, "The test loader gave no mini-batch"),
    Case("empty loader to predict", lambda: trainer().predict([]), UserWarning, "predict() got no mini-batch"),
    Case("epochs=0", lambda: fit(epochs=0), UserWarning, "fit() runs no epoch: 0 of 0 are done"),
    Case("step without backward", lambda: run_step(no_backward), RuntimeWarning, "no_backward returned without a backward pass: nothing is learnt"),
    Case("backward without optimize", never_optimizing, RuntimeWarning, "MyTask.step made gradients in 3 mini-batches and no optimizer step"),
    Case("stop() outside a fit", lambda: trainer().stop("now"), UserWarning, "stop() was called while nothing runs"),
    Case("misspelt step", lambda: task_with(trian_step=no_backward), UserWarning, "MyTask.trian_step is never called as a step. Did you mean 'train_step'?"),
    Case("step named as elsewhere", lambda: task_with(validation_step=no_backward), UserWarning, "Did you mean 'val_step'?"),
    Case("hook without on_", lambda: trainer(callbacks=callback(before_fit=lambda self, **o: 0)), UserWarning, "MyCallback.before_fit is never called as a hook. Did you mean 'on_before_fit'?"),
    Case("NaN with on_nan='warn'", lambda: fit(NAN_DL, on_nan="warn"), RuntimeWarning, "The loss is nan in epoch 1, training batch 2 of 2"),
]  # fmt: skip

ERRORS = [
    *BAD_TRAINER, *BAD_FIT, *BAD_BATCH, *BAD_STEP, *BAD_METRIC, *BAD_CALLBACK, *NOT_FINITE
]  # fmt: skip


@pytest.mark.parametrize("case", ERRORS, ids=lambda case: case.name)
def test_what_cannot_be_right_is_refused_with_the_words_that_help(case: Case) -> None:
    with pytest.raises(case.kind) as caught:
        case.act()
    assert type(caught.value).__name__ == case.kind.__name__
    said = "\n".join([str(caught.value), *getattr(caught.value, "__notes__", [])])
    assert case.words in said


@pytest.mark.parametrize("case", WARNED, ids=lambda case: case.name)
def test_what_is_hardly_meant_is_warned_of(case: Case) -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        case.act()
    assert [type(one.message) for one in told if case.words in str(one.message)][:1] == [case.kind]
    assert all(case.words in str(one.message) for one in told)


def test_the_list_has_no_entry_twice() -> None:
    names = [case.name for case in (*ERRORS, *WARNED)]
    assert len(set(names)) == len(names) >= 60


def test_a_control_with_good_input_says_nothing() -> None:
    assert np.isfinite(fit(DL, DL, metrics=[dm.accuracy])["train"]["loss"][0])


def test_a_loss_that_depends_on_no_weight_is_no_error_in_validation() -> None:
    assert trainer(loss=lambda out, y: 1.5).test(DL) == {"loss": np.array(1.5)}


def test_nan_is_carried_on_with_ignore() -> None:
    history = fit(NAN_DL, NAN_DL, on_nan="ignore")
    assert np.isnan(history["train"]["loss"][0]) and np.isnan(history["val"]["loss"][0])


class OldError(ValueError):
    """An error of a Python that has no notes."""

    @property
    def add_note(self) -> Any:  # type: ignore[override]
        raise AttributeError


@pytest.mark.parametrize("given", [("found 3",), (), (3, "x"), ("utf-8", b"a", 0, 1, "no")])
def test_a_note_leaves_the_error_itself_as_it_is_where_python_has_none(
    given: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    _print_notes.cache_clear()
    error: Any = OldError(*given)
    before = repr(error)
    add_note(error, "in batch 2")
    add_note(error, "of a task")
    assert (error.args, repr(error), error.__notes__) == (
        given,
        before,
        ["in batch 2", "of a task"],
    )
    sys.excepthook(OldError, error, None)
    assert capsys.readouterr().err.endswith("\nin batch 2\nof a task\n")


class Vanishing(Exception):
    """An error of a kind that torch itself does not raise."""


@pytest.mark.parametrize("kind", [KeyError, AttributeError, ZeroDivisionError, Vanishing])
def test_every_error_of_a_step_says_which_mini_batch_it_was(kind: type[Exception]) -> None:
    def step(self: Any, batch_x: Any, batch_y: Any, **step_args: Any) -> None:
        raise kind("what the user said")

    with pytest.raises(kind) as caught:
        trainer().fit(train_tasks=task_with(step=step)([{"image": X, "y": Y}]))
    assert caught.value.args == ("what the user said",)
    (note,) = caught.value.__notes__
    assert "In epoch 1, training batch 1 of 1, " in note
    assert "batch_x is {'image': float32 [12, 3], 'y': int64 [12]}" in note


def uses_rest(self: Any, batch_x: Any, batch_y: Any, **rest: Any) -> None:
    self.loss(self.model(*batch_x) / rest["temperature"], batch_y)


def uses_rest_within(self: Any, batch_x: Any, batch_y: Any, **rest: Any) -> None:
    def divisor() -> Any:
        return rest["temperature"]

    self.loss(self.model(*batch_x) / divisor(), batch_y)


def reads_step_args(self: Any, batch_x: Any, batch_y: Any, **_: Any) -> None:
    self.loss(self.model(*batch_x) / self.step_args["temperature"], batch_y)


@pytest.mark.parametrize("step", [scaled, uses_rest, uses_rest_within, reads_step_args])
def test_an_argument_that_a_step_uses_in_some_way_is_handed_on(step: Any) -> None:
    task = task_with(step=step)(DL, temperature=1e9)
    (loss,) = fit_args(train_tasks=task)["train"]["loss"]
    assert loss == pytest.approx(np.log(2), abs=1e-6)


def test_an_argument_for_the_trainers_step_is_handed_on() -> None:
    class Own(Trainer):
        train_step = scaled

    Own(nn.Linear(3, 2), F.cross_entropy, epochs=1).fit(
        train_tasks=EpochTask(DL, temperature=2.0), val_tasks=EpochTask(DL, temperature=2.0)
    )


def test_labels_that_a_step_misses_without_a_loss_function_are_explained() -> None:
    class OwnLoss(EpochTask):
        def step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> None:
            (images,) = batch_x
            self.backward(F.cross_entropy(self.model(images), batch_y))

    data = [(torch.randn(4, 2), torch.tensor([0, 1, 0, 1]))]
    with pytest.raises(ValueError, match="too many values") as caught:
        Trainer(nn.Linear(2, 2), console="off").fit(train_tasks=OwnLoss(data))
    notes = "".join(getattr(caught.value, "__notes__", [str(caught.value)]))
    assert "with Trainer(model, loss) its last part is batch_y" in notes


def test_a_stop_in_a_step_gets_no_note() -> None:
    request = StopLoopException("enough")

    def step(self: Any, batch_x: Any, batch_y: Any, **step_args: Any) -> None:
        raise request

    trainer().fit(train_tasks=task_with(step=step)(DL))
    assert not hasattr(request, "__notes__")


@pytest.mark.parametrize("stage", ["val", "test", "predict"])
def test_gradients_where_there_are_none_get_the_remedy(stage: str) -> None:
    class Forces(nn.Linear):
        def forward(self, x: Any) -> Any:
            x = x.requires_grad_()
            energy = super().forward(x)
            return energy + torch.autograd.grad(energy.sum(), x, retain_graph=True)[0].sum()

    one = trainer(Forces(3, 2))
    acts = {
        "val": lambda: one.fit([(X.clone(), Y)], [(X.clone(), Y)]),
        "test": lambda: one.test([(X.clone(), Y)]),
        "predict": lambda: one.predict([(X.clone(), Y)]),
    }
    with pytest.raises(RuntimeError, match="does not require grad") as caught:
        acts[stage]()
    assert "torch.enable_grad()" in caught.value.__notes__[-1]


def test_an_error_of_another_kind_in_validation_gets_no_remedy_for_gradients() -> None:
    def val_step(self: Any, batch_x: Any, batch_y: Any, **step_args: Any) -> None:
        raise RuntimeError("no disk")

    with pytest.raises(RuntimeError, match="no disk") as caught:
        fit_args(DL, val_tasks=task_with(val_step=val_step)(DL))
    assert not any("enable_grad" in note for note in caught.value.__notes__)


def test_a_loss_that_the_step_replaces_by_a_patch_of_its_own_is_not_looked_at() -> None:
    def val_step(self: Any, batch_x: Any, batch_y: Any, **step_args: Any) -> Any:
        self.do_metric(float("nan"))
        return {"loss": ValuePatch(len(batch_y)).load(1.0)}

    task_class = task_with(val_step=val_step)
    assert fit_args(DL, val_tasks=task_class(DL))["val"]["loss"] == [1.0]


@pytest.mark.parametrize("by", ["the same", "a copy"])
def test_a_nan_is_told_once_a_mini_batch_in_whatever_way_it_is_recorded(by: str) -> None:
    def step(self: Any, batch_x: Any, batch_y: Any, **step_args: Any) -> None:
        value = self.loss_fn(self.model(*batch_x), batch_y)
        self.backward(value)
        self.optimize()
        self.do_metric(value if by == "the same" else value.detach())

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        run_step(step, on_nan="warn", loss=lambda out, y: F.cross_entropy(out, y) * float("nan"))
    words = [str(one.message) for one in told]
    num_batches = len(list(DL))
    assert [sum(f"batch {n + 1} " in text for text in words) for n in range(num_batches)] == [
        1
    ] * num_batches


def test_a_nan_that_a_step_catches_and_records_is_told_at_its_mini_batch() -> None:
    def step(self: Any, batch_x: Any, batch_y: Any, **step_args: Any) -> None:
        value = self.loss_fn(self.model(*batch_x), batch_y) * float("nan")
        with contextlib.suppress(NotFiniteError):
            self.backward(value)
        self.do_metric(value)

    with pytest.raises(NotFiniteError, match="training batch 1 of 3"):
        run_step(step)


def test_a_numpy_integer_is_a_number_of_epochs() -> None:
    assert len(fit(epochs=np.int64(2))["train"]["loss"]) == 2


def test_one_task_may_come_twice_in_a_stage() -> None:
    torch.manual_seed(0)
    task, owner = EpochTask(DL), trainer()
    values = owner.test(tasks=[task, task])
    assert values["loss"] == pytest.approx(float(owner.test(DL)["loss"]), rel=1e-6)
    assert values["0/loss"] == values["1/loss"]


def test_a_callback_without_super_init_works() -> None:
    class Plain(Callback):
        def __init__(self) -> None:
            self.count = 0

        def on_after_train_batch(self, **others: Any) -> None:
            self.count += 1

    plain = Plain()
    fit(callbacks=plain)
    assert plain.count == 3


def test_a_list_of_callbacks_that_was_refused_leaves_the_pool_as_it_was() -> None:
    pool = trainer().callbacks
    before = list(pool)
    with pytest.raises(ConfigTypeError):
        pool.extend([Callback(), "early"])  # type: ignore[list-item]
    with pytest.raises(ConfigError):
        pool.insert(0, before[0])
    with pytest.raises(ConfigError):
        pool[0:1] = [before[0], before[0]]
    assert list(pool) == before


def test_a_stop_outside_a_fit_does_not_stop_the_next_one() -> None:
    owner = trainer()
    with pytest.warns(UserWarning, match="nothing runs"):
        owner.stop("now")
    assert len(owner.fit(DL)["train"]["loss"]) == 1
    assert owner.stop_reason is None


def test_a_user_who_steps_the_optimizer_by_hand_is_not_warned() -> None:
    def step(self: Any, batch_x: Any, batch_y: Any) -> None:
        self.opt.zero_grad()
        self.backward(self.loss_fn(self.model(*batch_x), batch_y))
        self.opt.step()

    run_step(step)  # warnings are errors


def test_a_second_fit_without_epochs_left_warns_and_gives_nothing() -> None:
    owner = trainer()
    owner.fit(DL)
    with pytest.warns(UserWarning, match="fit\\(\\) runs no epoch: 1 of 1 are done"):
        assert owner.fit(DL) == {}


def test_an_unknown_checkpoint_is_named_with_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFound, match=r"none\.pt"):
        trainer().load_checkpoint(tmp_path / "none.pt")
    with pytest.raises(CheckpointMismatch, match="does not fit this trainer"):
        trainer().load_state_dict({"model": {}})


def test_a_monitored_metric_that_is_not_there_is_named_with_those_there_are(
    tmp_path: Path,
) -> None:
    check = CheckCallback("acc", ckpt_dir=str(tmp_path))
    with pytest.raises(CallbackException, match=r"monitors .acc.*it has loss"):
        fit(DL, DL, callbacks=check)


def test_slices_of_no_samples_are_refused() -> None:
    with pytest.raises(ConfigError, match="batch_size=0"):
        list(batches(X, 0))


def test_a_wrong_argument_leaves_a_trainer_that_can_be_used() -> None:
    owner = trainer()
    wrong: list[Any] = [
        partial(owner.fit, DL, epochs=-1), partial(owner.fit, [DL, DL]), partial(owner.fit, []),
        partial(owner.fit, DL, metrics="acc"), partial(owner.test), partial(owner.fit, ["a"]),
    ]  # fmt: skip
    for attempt in wrong:
        with pytest.raises(LoopException):
            attempt()
    modes = [module.training for module in owner.model.modules()]
    assert len(owner.fit(DL, DL)["val"]["loss"]) == 1
    assert [module.training for module in owner.model.modules()] == modes
    assert torch.is_grad_enabled()


def test_an_iterable_data_set_that_yields_nothing_the_second_time_is_told() -> None:
    class Once(IterableDataset[Any]):
        def __init__(self) -> None:
            self.samples = iter(list(zip(X, Y, strict=True)))

        def __iter__(self) -> Iterator[Any]:
            return self.samples

    owner = trainer(epochs=2)
    with pytest.raises(DataError, match="an iterator that was walked before"):
        owner.fit(DataLoader(Once(), batch_size=4))
    assert owner.init_epoch == 1


def test_messages_name_no_address_in_memory_of_what_was_given() -> None:
    for case in (*BAD_TRAINER, *BAD_FIT, *BAD_STEP):
        with pytest.raises(Exception) as caught:
            case.act()
        assert not re.search(r" at 0x[0-9a-f]+", str(caught.value)), case.name


def test_a_patch_made_of_the_outputs_is_taken() -> None:
    def step(self: Any, batch_x: Any, batch_y: Any) -> Any:
        model_out = self.model(*batch_x)
        self.loss(model_out, batch_y)
        return {"acc": TensorPatch(dm.accuracy).load(model_out, batch_y)}

    assert 0 <= run_step(step)["train"]["acc"][0] <= 1
