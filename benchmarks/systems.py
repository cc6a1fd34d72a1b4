"""The trainers that are measured: each trains a workload with the loss function it is given.

Every function imports its library itself, since each run is a process of its own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from workloads import Workload, by_hand

SYSTEMS: dict[str, Callable[[Workload, Any], None]] = {}
# Beside the environment, as `make bench` puts it.
OLD_RELEASE = Path(sys.prefix).with_name("deepepochs-0.6")


def system(name: str) -> Callable[[Any], Any]:
    """Register a system under the name that the table shows."""

    def register(function: Any) -> Any:
        SYSTEMS[name] = function
        return function

    return register


@system("hand-written loop")
def hand_written(work: Workload, loss_fn: Any) -> None:
    for _ in by_hand(work, loss_fn):
        pass


@system("hand-written, .item() and tqdm")
def hand_written_tqdm(work: Workload, loss_fn: Any) -> None:
    import torch
    from tqdm import tqdm

    for epoch in range(work.epochs):
        work.model.train()
        total, right, count = 0.0, 0, 0
        bar = tqdm(work.train, desc=f"epoch {epoch}", mininterval=0)
        for x, y in bar:
            work.opt.zero_grad()
            out = work.model(x)
            loss = loss_fn(out, y)
            loss.backward()
            work.opt.step()
            total += loss.item() * len(y)
            count += len(y)
            if work.with_accuracy:
                right += (out.argmax(1) == y).sum().item()
            bar.set_postfix(loss=f"{total / count:.4f}")
        if work.val is None:
            continue
        work.model.eval()
        with torch.no_grad():
            for x, y in work.val:
                loss_fn(work.model(x), y).item()


@system("hand-written, whole batches")
def hand_written_whole(work: Workload, loss_fn: Any) -> None:
    """The least that a loop needs: each mini-batch is indexed at once, gradients are dropped."""
    import torch

    weights = [weight for group in work.opt.param_groups for weight in group["params"]]

    def run(loader: Any, *, training: bool) -> None:
        work.model.train(training)
        total, outs, targets = 0.0, [], []
        for x, y in _whole_batches(loader):
            out = work.model(x)
            loss = loss_fn(out, y)
            total += loss.item() * len(y)
            if work.with_accuracy:
                outs.append(out.detach())
                targets.append(y)
            if training:
                loss.backward()
                work.opt.step()
                for weight in weights:
                    weight.grad = None
        if outs:
            (torch.cat(outs).argmax(1) == torch.cat(targets)).sum().item()

    for _ in range(work.epochs):
        run(work.train, training=True)
        if work.val is not None:
            with torch.no_grad():
                run(work.val, training=False)


def _whole_batches(loader: Any) -> Any:
    """Give the mini-batches of a loader of tensors, in its order and with its random numbers."""
    import torch

    if isinstance(loader, list):
        yield from loader
        return
    torch.empty((), dtype=torch.int64).random_(generator=loader.generator)  # the seed of workers
    indices = torch.tensor(list(loader.sampler))
    for chosen in indices.split(loader.batch_size):
        yield tuple(tensor.index_select(0, chosen) for tensor in loader.dataset.tensors)


def with_deepepochs(work: Workload, loss_fn: Any, **options: Any) -> None:
    import deepepochs

    metrics = [deepepochs.metrics.accuracy] if work.with_accuracy else None
    if "WORLD_SIZE" in os.environ:
        options["device"] = "auto"
    trainer = deepepochs.Trainer(
        work.model, loss_fn, work.opt, epochs=work.epochs, metrics=metrics, **options
    )
    trainer.fit(work.train, work.val)


@system("deepepochs, default")
def deepepochs_default(work: Workload, loss_fn: Any) -> None:
    with_deepepochs(work, loss_fn)


@system("deepepochs, metric_patch='mean'")
def deepepochs_mean(work: Workload, loss_fn: Any) -> None:
    with_deepepochs(work, loss_fn, metric_patch="mean")


@system("deepepochs, loader as it is")
def deepepochs_loader(work: Workload, loss_fn: Any) -> None:
    from torch.utils.data import DataLoader

    class OtherLoader(DataLoader):  # type: ignore[type-arg]
        """A class of its own is not taken apart: no tensor fast path."""

    for loader in (work.train, work.val):
        if isinstance(loader, DataLoader):
            loader.__class__ = OtherLoader
    with_deepepochs(work, loss_fn)


@system("deepepochs, Adam(fused=True)")
def deepepochs_fused(work: Workload, loss_fn: Any) -> None:
    """Another optimizer than the loop by hand has: its last bits differ."""
    import torch

    group = work.opt.param_groups[0]
    work.opt = torch.optim.Adam(group["params"], lr=group["lr"], fused=True)
    with_deepepochs(work, loss_fn)


# --- peers: each as lean as its documentation shows, and as it comes


def _fitted_by_ignite(work: Workload, loss_fn: Any, default: bool) -> None:
    from ignite.contrib.handlers import ProgressBar
    from ignite.engine import Events, create_supervised_evaluator, create_supervised_trainer
    from ignite.metrics import Accuracy, Loss, RunningAverage

    trainer = create_supervised_trainer(work.model, work.opt, loss_fn)
    metrics: dict[str, Any] = {"loss": Loss(loss_fn)}
    if work.with_accuracy:
        metrics["accuracy"] = Accuracy()
    evaluator = create_supervised_evaluator(work.model, metrics)
    if default:
        RunningAverage(output_transform=lambda loss: loss).attach(trainer, "loss")
        ProgressBar().attach(trainer, ["loss"])
    if work.val is not None:

        @trainer.on(Events.EPOCH_COMPLETED)
        def validate() -> None:
            evaluator.run(work.val)

    trainer.run(work.train, max_epochs=work.epochs)


@system("Ignite, leanest")
def ignite_lean(work: Workload, loss_fn: Any) -> None:
    _fitted_by_ignite(work, loss_fn, default=False)


@system("Ignite, default")
def ignite_default(work: Workload, loss_fn: Any) -> None:
    _fitted_by_ignite(work, loss_fn, default=True)


@system("skorch")
def skorch(work: Workload, loss_fn: Any) -> None:
    import torch
    from skorch import NeuralNet
    from skorch.helper import predefined_split

    class Criterion(torch.nn.Module):
        def forward(self, out: Any, y: Any) -> Any:
            return loss_fn(out, y)

    loaders = {"train": work.train, "valid": work.val}
    has_val = work.val is not None
    net = NeuralNet(
        work.model,
        Criterion(),
        optimizer=lambda params, **_: work.opt,
        max_epochs=work.epochs,
        train_split=predefined_split(_Named("valid")) if has_val else None,
        iterator_train=lambda dataset, **_: loaders["train"],
        iterator_valid=lambda dataset, **_: loaders["valid"],
    )
    net.fit(_Named("train"), y=None)


class _Named(list):  # type: ignore[type-arg]
    """Stands where skorch wants a data set; its iterators give the workload's own loaders."""

    def __init__(self, name: str) -> None:
        super().__init__([(0, 0)])
        self.name = name


def _fitted_by_poutyne(work: Workload, loss_fn: Any, default: bool) -> None:
    from poutyne import Model

    metrics = ["accuracy"] if work.with_accuracy else None
    model = Model(work.model, work.opt, loss_fn, batch_metrics=metrics)
    model.fit_generator(work.train, work.val, epochs=work.epochs, verbose=default)


@system("Poutyne, leanest")
def poutyne_lean(work: Workload, loss_fn: Any) -> None:
    _fitted_by_poutyne(work, loss_fn, default=False)


@system("Poutyne, default")
def poutyne_default(work: Workload, loss_fn: Any) -> None:
    _fitted_by_poutyne(work, loss_fn, default=True)


def _fitted_by_deepepochs_06(work: Workload, loss_fn: Any, **options: Any) -> None:
    # Of the two libraries of one name the older one is wanted here.
    sys.path.insert(0, str(OLD_RELEASE))
    for name in [name for name in sys.modules if name.partition(".")[0] == "deepepochs"]:
        del sys.modules[name]
    import deepepochs

    if not str(deepepochs.__file__).startswith(str(OLD_RELEASE)):
        raise ImportError("deepepochs 0.6.18 is not in .bench: run `make bench`.")
    metrics = [deepepochs.metrics.accuracy] if work.with_accuracy else None
    trainer = deepepochs.Trainer(
        work.model, loss_fn, work.opt, epochs=work.epochs, device="cpu", metrics=metrics, **options
    )
    trainer.fit(work.train, work.val)


@system("deepepochs 0.6.18, silent")
def deepepochs_06_silent(work: Workload, loss_fn: Any) -> None:
    _fitted_by_deepepochs_06(work, loss_fn, log_batch=False, show_info=False)


@system("deepepochs 0.6.18, default")
def deepepochs_06_default(work: Workload, loss_fn: Any) -> None:
    _fitted_by_deepepochs_06(work, loss_fn)


@system("Accelerate in a raw loop")
def accelerate(work: Workload, loss_fn: Any) -> None:
    import torch
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    model, opt = accelerator.prepare(work.model, work.opt)
    train, val = work.train, work.val
    if val is not None:
        train, val = accelerator.prepare(train, val)
    for _ in range(work.epochs):
        model.train()
        total, right, count = torch.zeros(()), torch.zeros((), dtype=torch.long), 0
        for x, y in train:
            opt.zero_grad()
            out = model(x)
            loss = loss_fn(out, y)
            accelerator.backward(loss)
            opt.step()
            total += loss.detach() * len(y)
            count += len(y)
            if work.with_accuracy:
                right += (out.argmax(1) == y).sum()
        (total / count).item()
        if val is None:
            continue
        model.eval()
        with torch.no_grad():
            for x, y in val:
                loss_fn(model(x), y)


@system("fastai, default")
def fastai(work: Workload, loss_fn: Any) -> None:
    from fastai.callback.core import Callback, CancelValidException
    from fastai.callback.progress import ProgressCallback  # noqa: F401 - shows by default
    from fastai.data.core import DataLoaders
    from fastai.learner import Learner
    from fastai.metrics import accuracy
    from fastai.optimizer import OptimWrapper

    class NoValidation(Callback):  # type: ignore[misc]
        def before_validate(self) -> None:
            raise CancelValidException

    class Loader(list):  # type: ignore[type-arg]
        """Ready mini-batches; fastai asks a loader for its data set's length."""

        dataset: Any = ()

    has_val = work.val is not None
    train = work.train if has_val else Loader(work.train)
    learner = Learner(
        DataLoaders(train, work.val if has_val else Loader()),
        work.model,
        loss_func=loss_fn,
        opt_func=lambda params, **_: OptimWrapper(opt=work.opt),
        metrics=[accuracy] if work.with_accuracy else None,
        cbs=None if has_val else [NoValidation()],
    )
    learner.fit(work.epochs)


@system("Keras, torch backend")
def keras(work: Workload, loss_fn: Any) -> None:
    """The same layers of Keras's own, whose first weights and last bits differ."""
    os.environ["KERAS_BACKEND"] = "torch"
    import keras
    import torch
    from keras import layers

    keras.config.set_image_data_format("channels_first")
    made = {
        torch.nn.Linear: lambda layer: layers.Dense(layer.out_features),
        torch.nn.ReLU: lambda layer: layers.ReLU(),
        torch.nn.Dropout: lambda layer: layers.Dropout(layer.p),
        torch.nn.Conv2d: lambda layer: layers.Conv2D(layer.out_channels, 3),
        torch.nn.MaxPool2d: lambda layer: layers.MaxPooling2D(2),
        torch.nn.Flatten: lambda layer: layers.Flatten(),
    }
    torch_layers = [work.model] if isinstance(work.model, torch.nn.Linear) else list(work.model)
    model = keras.Sequential([made[type(layer)](layer) for layer in torch_layers])
    model.compile(
        keras.optimizers.Adam(1e-3),
        loss=lambda y_true, y_pred: loss_fn(y_pred, y_true.reshape(-1).long()),
        metrics=["sparse_categorical_accuracy"] if work.with_accuracy else None,
    )
    # Ready mini-batches: a generator, which Keras takes and a list it does not.
    train = work.train if work.val is not None else (batch for batch in work.train)
    model.fit(train, validation_data=work.val, epochs=work.epochs)


class Batches:
    """Ready mini-batches as a loader that is no list."""

    def __init__(self, batches: list[Any]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Any:
        return iter(self.batches)


def _fitted_by_lightning(work: Workload, loss_fn: Any, default: bool) -> None:
    import logging
    import tempfile

    import lightning

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    class Module(lightning.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.net = work.model

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return self.shared_step(batch, "train")

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.shared_step(batch, "val")

        def shared_step(self, batch: Any, stage: str) -> Any:
            x, y = batch
            out = self.net(x)
            loss = loss_fn(out, y)
            values = {f"{stage}_loss": loss}
            if work.with_accuracy:
                values[f"{stage}_acc"] = (out.argmax(1) == y).float().mean()
            if default:
                self.log_dict(values, on_epoch=True, prog_bar=True, batch_size=len(y))
            return loss

        def configure_optimizers(self) -> Any:
            return work.opt

    with tempfile.TemporaryDirectory() as folder:
        options: dict[str, Any] = {"default_root_dir": folder} if default else {"barebones": True}
        if "WORLD_SIZE" in os.environ:
            options.update(strategy="ddp", devices=int(os.environ["WORLD_SIZE"]))
        trainer = lightning.Trainer(max_epochs=work.epochs, accelerator="cpu", **options)
        # A list would be taken for several loaders.
        train = Batches(work.train) if isinstance(work.train, list) else work.train
        trainer.fit(Module(), train, work.val)


@system("Lightning, barebones")
def lightning_barebones(work: Workload, loss_fn: Any) -> None:
    _fitted_by_lightning(work, loss_fn, default=False)


@system("Lightning, default")
def lightning_default(work: Workload, loss_fn: Any) -> None:
    _fitted_by_lightning(work, loss_fn, default=True)
