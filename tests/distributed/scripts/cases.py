"""Fits on the same global mini-batches, whatever the number of processes; results as JSON.

Started as ``cases.py RESULT_FILE [NAME...]`` alone, with torchrun or accelerate launch.
"""

from __future__ import annotations

import io
import itertools
import json
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torchmetrics
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration, gather_object
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset, TensorDataset, default_collate

from deepepochs import (
    ConfigError,
    EpochTask,
    GradClipCallback,
    Optimizer,
    PatchBase,
    TensorPatch,
    Trainer,
    ValuePatch,
    set_seed,
)
from deepepochs import metrics as dm

torch.set_num_threads(1)
X = torch.randn(53, 6, generator=torch.Generator().manual_seed(3))
Y = (X.sum(1) > 0).long() + (X[:, 0] > 1).long()


def make_accelerator(*, split: bool, **options: Any) -> Accelerator:
    # Accelerators share one state in a process, and so does what was configured.
    plugin = DataLoaderConfiguration(split_batches=split)
    return Accelerator(cpu=True, dataloader_config=plugin, **options)


def make_model() -> nn.Sequential:
    set_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))


def loader(rows: slice = slice(None), size: int = 12, *, shuffle: bool = False) -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(5) if shuffle else None
    data = TensorDataset(X[rows], Y[rows])
    return DataLoader(data, size, shuffle=shuffle, generator=generator)


def macro_f1(preds: torch.Tensor, targets: torch.Tensor) -> Any:
    return dm.f1(preds, targets, average="macro")


def cm_accuracy(conf_mat: torch.Tensor) -> Any:
    return dm.accuracy(conf_mat=conf_mat)


def spread(preds: torch.Tensor, targets: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"std": preds.std(), "share": (targets == 1).float().mean()}


def whole(weight: torch.Tensor) -> torch.Tensor:
    """A sharded weight from all processes; another one as it is."""
    full: torch.Tensor = weight.full_tensor() if hasattr(weight, "full_tensor") else weight
    return full.detach()


def outcome(trainer: Trainer, history: Any, test: Any = None) -> dict[str, Any]:
    model = trainer.runtime.unwrap(trainer.model)
    return {
        "history": {
            stage: {k: [float(v) for v in values] for k, values in of.items() if k[-1:] != "_"}
            for stage, of in history.items()
        },
        "test": {name: float(value) for name, value in (test or {}).items()},
        "weights": [round(float(whole(w).double().sum()), 9) for w in model.parameters()],
        "steps": trainer.progress.num_steps,
    }


def train(
    accelerator: Accelerator,
    train_dl: Any,
    val_dl: Any = None,
    test_dl: Any = None,
    model: nn.Module | None = None,
    task: type[EpochTask] = EpochTask,
    opt: Any = None,
    **options: Any,
) -> dict[str, Any]:
    model = model or make_model()
    opt = opt or torch.optim.SGD(model.parameters(), 0.1)
    options = {"metrics": [dm.accuracy, macro_f1], "epochs": 2, **options}
    trainer = Trainer(
        model, F.cross_entropy, opt, device=accelerator, show_info=False, log_batch=False, **options
    )
    val = {} if val_dl is None else {"val_tasks": task(val_dl)}
    history = trainer.fit(train_tasks=task(train_dl), **val)
    test = None if test_dl is None else trainer.test(tasks=task(test_dl))
    return outcome(trainer, history, test)


class Plain(EpochTask):
    """The default step, as a class that can be made with the loader alone."""


class HitsPatch(PatchBase):
    """A patch that adds up in its own way."""

    def load(self, preds: torch.Tensor, targets: torch.Tensor) -> HitsPatch:
        self.hits = torch.bincount(targets[preds.argmax(1) == targets], minlength=3)
        self.nums = torch.bincount(targets, minlength=3)
        return self

    def add(self, other: Any) -> HitsPatch:
        self.hits, self.nums = self.hits + other.hits, self.nums + other.nums
        return self

    def forward(self) -> dict[str, torch.Tensor]:
        share = self.hits / self.nums.clamp(min=1)
        return {"best": share.max(), "mean": share.mean()}


class ReturningTask(EpochTask):
    """A step that returns patches."""

    def step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> Any:
        model_out = self.model(*batch_x)
        self.loss(model_out, batch_y)
        out = model_out.detach()
        return {
            "hits.": HitsPatch().load(out, batch_y),
            "top": ValuePatch(len(batch_y)).load(out.max(1).values.mean()),
            "spread.": TensorPatch(spread).load(out, batch_y),
        }


def function_metrics() -> Any:
    return train(
        make_accelerator(split=True),
        loader(shuffle=True),
        loader(slice(31)),
        loader(slice(20, 53), 6),
        callbacks=GradClipCallback(0.5, 2),
        metrics=[dm.accuracy, macro_f1, spread],
    )


def mean_and_confusion() -> Any:
    return {
        "mean": train(
            make_accelerator(split=True),
            loader(),
            loader(slice(31)),
            metric_patch="mean",
            metrics=[dm.accuracy],
        ),
        "confusion": train(
            make_accelerator(split=True),
            loader(),
            loader(slice(31)),
            loader(slice(7)),
            metric_patch="confusion",
            metrics=[cm_accuracy],
        ),
    }


def metric_objects() -> Any:
    metrics = [
        torchmetrics.F1Score(task="multiclass", num_classes=3, average="macro"),
        torchmetrics.AUROC(task="multiclass", num_classes=3),
    ]
    return train(
        make_accelerator(split=True), loader(shuffle=True), loader(slice(31)), loader(slice(40)),
        metrics=metrics,
    )  # fmt: skip


def returned_patches() -> Any:
    return train(
        make_accelerator(split=True), loader(), loader(slice(31)), loader(slice(7)),
        task=ReturningTask,
    )  # fmt: skip


def whole_batches() -> Any:
    """N processes with mini-batches of 12 / N samples each in turn are one with 12."""
    accelerator = make_accelerator(split=False)
    size = 12 // accelerator.num_processes
    return train(
        accelerator, loader(size=size, shuffle=True), loader(slice(31), size),
        loader(slice(20, 53), 2),
    )  # fmt: skip


def few_samples() -> Any:
    """Processes without any sample: in validation throughout, in training in the last round."""
    accelerator = make_accelerator(split=False)
    size = 12 // accelerator.num_processes
    trainer = Trainer(make_model(), F.cross_entropy, device=accelerator, show_info=False)
    tasks = [ReturningTask(loader(slice(3), 4)), ReturningTask(loader(slice(2), 4))]
    tested = trainer.test(tasks=tasks)
    return {
        "fit": train(
            accelerator, loader(slice(37), size), loader(slice(2), 4), loader(slice(5), 4)
        ),
        "tasks": {name: float(value) for name, value in tested.items()},
    }


class Stream(IterableDataset[Any]):
    """Samples without a length."""

    def __init__(self, num: int) -> None:
        self.num = num

    def __iter__(self) -> Iterator[Any]:
        for index in range(self.num):
            yield X[index], Y[index]


def streams() -> Any:
    accelerator = make_accelerator(split=False)
    size = 12 // accelerator.num_processes
    whole = DataLoader(Stream(53), size), DataLoader(Stream(31), size), DataLoader(Stream(2), size)
    split = make_accelerator(split=True)
    return {
        "whole": train(accelerator, *whole),
        "split": train(split, DataLoader(Stream(53), 12), DataLoader(Stream(31), 12)),
    }


class Endless:
    """Ready mini-batches without a length."""

    def __init__(self, size: int, num: int) -> None:
        self.size, self.num = size, num

    def __iter__(self) -> Iterator[Any]:
        for start in range(0, self.num, self.size):
            rows = slice(start, min(start + self.size, self.num))
            yield X[rows], Y[rows]


def ready_batches() -> Any:
    accelerator = make_accelerator(split=False)
    size = 12 // accelerator.num_processes
    listed = list(Endless(size, 53))
    return {
        "unknown": train(accelerator, Endless(size, 53), Endless(size, 31), Endless(size, 2)),
        "listed": train(accelerator, listed, list(Endless(size, 31)), listed[: 12 // size]),
    }


def accumulated() -> Any:
    split = make_accelerator(split=True)
    whole = make_accelerator(split=False)
    size = 12 // whole.num_processes
    return {
        "known": train(split, loader(shuffle=True), grad_accumulate=2),
        "more": train(split, loader(), loader(slice(31)), grad_accumulate=3),
        "unknown": train(whole, Endless(size, 53), grad_accumulate=2),
    }


class Labelled(EpochTask):
    """A mini-batch weighs its labels that are there."""

    def __init__(self, dataloader: Any) -> None:
        super().__init__(dataloader, batch_size=lambda batch_x, batch_y: (batch_y != -100).sum())


def without_labels() -> Any:
    """The loss of a mini-batch without labels is 0/0: in one process, in all of them."""
    labels = Y.clone()
    labels[:6] = labels[12:24] = labels[30:33] = -100
    data = TensorDataset(X, labels)
    accelerator = make_accelerator(split=True)
    return {
        f"windows of {size}": train(
            accelerator,
            DataLoader(data, 12),
            DataLoader(data, 12),
            DataLoader(data, 6),
            task=Labelled,
            metrics=[],
            grad_accumulate=size,
        )
        for size in (1, 2, 3)
    }


class SkippingTask(EpochTask):
    """Leaves out some mini-batches, the last ones of windows of two and three among them."""

    def train_step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> Any:
        assert self.run is not None
        if self.run.batch_idx not in (1, 2):
            self.loss(self.model(*batch_x), batch_y)


def skipped() -> Any:
    accelerator = make_accelerator(split=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*returned without a backward pass")
        return {
            f"windows of {size}": train(
                accelerator, loader(), task=SkippingTask, grad_accumulate=size
            )
            for size in (2, 3)
        }


class WronglySized(Stream):
    def __len__(self) -> int:
        return 20


def wrong_lengths() -> Any:
    accelerator = make_accelerator(split=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*(mend its __len__|Length of IterableDataset)")
        return train(
            accelerator,
            DataLoader(WronglySized(53), 12),
            DataLoader(WronglySized(31), 12),
            grad_accumulate=2,
        )


class ByHandTask(EpochTask):
    """Accumulation by hand over mini-batches."""

    def train_step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> Any:
        with self.accelerator.accumulate(self.model):
            self.loss(self.model(*batch_x), batch_y)


def buffers() -> Any:
    """The running means with which each process evaluates, in whatever window a fit or its stop is."""
    from deepepochs import Callback

    class Looks(Callback):
        def __init__(self, test_at: int | None, stop_at: int | None) -> None:
            self.test_at, self.stop_at = test_at, stop_at

        def on_after_train_batch(self, trainer: Any, metrics: Any, batch_idx: int) -> None:
            if batch_idx == self.test_at:
                trainer.test(loader())
            if batch_idx == self.stop_at:
                trainer.stop("enough", validate=True)

    def look(norm: Any, *_: Any) -> None:
        if not norm.training:
            means.append(norm.running_mean.tolist())

    means: list[Any] = []
    found: dict[str, Any] = {}
    for name, options, task in (
        ("hand", {"gradient_accumulation_steps": 3}, ByHandTask),
        ("stopped", {}, Plain),
        ("tested", {}, Plain),
    ):
        set_seed(0)
        model = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.Linear(16, 3))
        model[1].register_forward_hook(look)
        accelerator = make_accelerator(split=True, **options)
        accelerator.gradient_accumulation_steps = options.get("gradient_accumulation_steps", 1)
        looks = Looks(1 if name == "tested" else None, 1 if name == "stopped" else None)
        means.clear()
        train(
            accelerator, loader(slice(48)), loader(slice(48)), model=model, task=task,
            callbacks=looks, grad_accumulate=1 if options else 3, epochs=1,
        )  # fmt: skip
        accelerator.gradient_accumulation_steps = 1
        gathered = gather_object([means])
        found[name] = {"num": len(means), "alike": all(of == means for of in gathered)}
    return found


class PartsTask(EpochTask):
    """Accumulation by hand over two parts of each mini-batch."""

    def train_step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> Any:
        half = (len(batch_y) + 1) // 2
        outs, losses = [], []
        for rows in (slice(half), slice(half, None)):
            with self.accelerator.accumulate(self.model):
                out = self.model(batch_x[0][rows])
                value = self.loss(
                    out, batch_y[rows], loss_adjust=2 * len(out) / len(batch_y), do_metric=False
                )
            outs.append(out.detach())
            losses.append(value.detach() * len(out) / len(batch_y))
        self.do_metric(sum(losses), torch.cat(outs), batch_y)


def by_hand() -> Any:
    def fit(task: type[EpochTask], train_dl: Any, steps: int, **options: Any) -> Any:
        accelerator = make_accelerator(split=True, gradient_accumulation_steps=steps)
        accelerator.gradient_accumulation_steps = steps
        return train(accelerator, train_dl, task=task, **options)

    equal = slice(48)  # mini-batches of one size: by hand they are not weighed
    return {
        "two": fit(ByHandTask, loader(equal), 2),
        "three": fit(ByHandTask, loader(equal), 3, callbacks=GradClipCallback(0.1, 2)),
        "parts": fit(PartsTask, loader(equal), 2),
        "two by argument": fit(Plain, loader(equal), 1, grad_accumulate=2),
        "three by argument": fit(
            Plain, loader(equal), 1, grad_accumulate=3, callbacks=GradClipCallback(0.1, 2)
        ),
        "plain": fit(Plain, loader(equal), 1),
    }


class ClosingTask(EpochTask):
    """A step with a closure, for all stages."""

    def step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> Any:
        def closure() -> Any:
            return self.loss(self.call_model(batch_x), batch_y, do_optimize=False)

        self.optimize(closure=closure)


def closures() -> Any:
    """LBFGS, whose line search decides by the loss of all processes.

    On all data at once: with mini-batches, rounding errors grow from step to step.
    """

    def fit(task: type[EpochTask], data: Any, search: str | None, **options: Any) -> Any:
        model = make_model()
        opt = torch.optim.LBFGS(model.parameters(), 0.2, max_iter=3, line_search_fn=search)
        accelerator = make_accelerator(split=True)
        return train(accelerator, data, data, model=model, task=task, opt=opt, **options)

    return {
        "default": fit(EpochTask, loader(size=54), None),
        "searched": fit(EpochTask, loader(size=54), "strong_wolfe"),
        "own": fit(ClosingTask, loader(size=54), None, callbacks=GradClipCallback(0.5, 2)),
        "fillers": fit(EpochTask, [(X, Y)], "strong_wolfe"),
    }


BAD = frozenset([*range(6), *range(12, 24), *range(48, 53)])
"""Rows that the collate function drops: half of a mini-batch, a whole one, and the last one."""


def of_good_rows(rows: list[int]) -> Any:
    good = [row for row in rows if row not in BAD]
    return (X[good], Y[good]) if good else None


def left_out() -> Any:
    """Mini-batches for which the collate function gives None, in one process or in all."""
    from deepepochs import CheckCallback

    def fit(accumulate: int, **options: Any) -> Any:
        warnings.filterwarnings("ignore", "The training loader gave None", UserWarning)
        warnings.filterwarnings("ignore", "The validation loader gave None", UserWarning)
        data = DataLoader(range(53), 12, collate_fn=of_good_rows)  # type: ignore[arg-type]
        accelerator = make_accelerator(split=True)
        return train(accelerator, data, data, data, grad_accumulate=accumulate, **options)

    model = make_model()
    opt = torch.optim.Adam(model.parameters(), 0.01)  # it would move without gradients
    found = {
        "each": fit(1),
        "adam": fit(1, model=model, opt=opt),
        "two": fit(2),
        "three": fit(3, callbacks=GradClipCallback(0.1, 2)),
        **{f"{num} steps": fit(1, max_steps=num) for num in (2, 3)},
    }
    with tempfile.TemporaryDirectory() as folder:
        check = CheckCallback("loss", "train", ckpt_dir=folder, every_n_batches=1)
        return {**found, "saved": fit(1, callbacks=check)}


class Signs(nn.Module):
    """Looks the signs of two inputs up in a table whose gradients are sparse."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(4, 6, sparse=True)
        # Small: torch adds sparse gradients up on the weight, sample by sample.
        nn.init.uniform_(self.table.weight, -0.1, 0.1)
        self.last = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = (x[:, 0] > 0).long() + 2 * (x[:, 1] > 0).long()
        found: torch.Tensor = self.last(self.table(rows))
        return found


def by_hand_sparse() -> Any:
    """The last window of accumulation by hand is cut short, with sparse gradients in it."""
    accelerator = make_accelerator(split=True)
    accelerator.gradient_accumulation_steps = 3
    set_seed(0)
    try:
        return train(accelerator, loader(slice(48)), model=Signs(), task=ByHandTask, epochs=1)
    finally:
        accelerator.gradient_accumulation_steps = 1


def several() -> Any:
    """Two tasks, two optimizers of which one has a schedule on steps."""
    accelerator = make_accelerator(split=True)
    model = make_model()
    first = torch.optim.SGD(model[0].parameters(), 0.1)
    second = torch.optim.Adam(model[2].parameters(), 0.01)
    schedule = torch.optim.lr_scheduler.StepLR(first, 3)
    trainer = Trainer(
        model, F.cross_entropy, [Optimizer(first, schedule, sched_on="step"), second],
        epochs=2, device=accelerator, show_info=False, log_batch=False,
        metrics=[dm.accuracy], callbacks=GradClipCallback(0.2, 2),
    )  # fmt: skip
    history = trainer.fit(
        train_tasks=[EpochTask(loader(slice(29))), EpochTask(loader(slice(29, 53)), name="b")],
        val_tasks=[ReturningTask(loader(slice(31))), ReturningTask(loader(slice(2)))],
    )
    found = outcome(trainer, history)
    found["rates"] = trainer.opt.get_current_lr()
    return found


def plateau() -> Any:
    """A schedule that wants a loss after each step: that of all processes, or they would part."""

    def fit(**options: Any) -> Any:
        model = make_model()
        opt = torch.optim.SGD(model.parameters(), 0.1)
        schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(opt, patience=0)
        made = Optimizer(opt, schedule, sched_on="step")
        accelerator = make_accelerator(split=True)
        found = train(accelerator, loader(), model=model, opt=made, **options)
        return {**found, "rate": made.get_current_lr()}

    return {"each": fit(), "windows": fit(grad_accumulate=2, epochs=4)}


class Tempered(nn.Module):
    """A loss with a weight of its own; each process begins with another one."""

    def __init__(self, start: float) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.tensor(start))

    def forward(self, model_out: torch.Tensor, batch_y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model_out / self.temperature, batch_y)


def weights_outside() -> Any:
    """Trained weights that are not the model's: of the loss, and of nothing but the optimizer."""
    found = {}
    for name, options in {
        "plain": {},
        "clipped": {"callbacks": GradClipCallback(0.2, 2.0)},
        "accumulated": {"grad_accumulate": 3, "callbacks": GradClipCallback(0.2, 2.0)},
    }.items():
        accelerator = make_accelerator(split=True)
        start = 1.0 + accelerator.process_index
        model, loss = make_model(), Tempered(start)
        bias = nn.Parameter(torch.full((3,), start))

        class Biased(EpochTask):
            def step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> None:
                out = self.model(*batch_x)
                rare = (batch_y == 2).unsqueeze(1)
                # Without such a sample the bias has no gradient, in one process or in all.
                self.loss(out + rare * bias if rare.any() else out, batch_y)  # noqa: B023

        opt = torch.optim.SGD([*model.parameters(), loss.temperature, bias], 0.1, momentum=0.9)
        trainer = Trainer(
            model, loss, opt, device=accelerator, show_info=False, log_batch=False, epochs=2, **options
        )  # fmt: skip
        found[name] = outcome(trainer, trainer.fit(train_tasks=Biased(loader())))
        own = [loss.temperature.tolist(), bias.tolist()]
        found[name]["outside"] = own
        found[name]["alike"] = all(o == own for o in trainer.runtime.gather_objects(own))
    return found


def unfrozen() -> Any:
    """A layer that is frozen when the model is prepared, and trained from the second epoch on."""
    from deepepochs import Callback

    class Unfreeze(Callback):
        def on_before_epoch(self, trainer: Any, epoch_idx: int, **_: Any) -> None:
            first.requires_grad_(epoch_idx > 0)

    model = make_model()
    first = model[0].requires_grad_(False)
    opt = torch.optim.SGD(model.parameters(), 0.1)
    return train(
        make_accelerator(split=True), loader(), model=model, opt=opt, callbacks=Unfreeze(), epochs=3
    )


def frozen_first() -> Any:
    """Layers that a callback freezes for the first epoch, in a model that was prepared whole."""
    from deepepochs import FreezeCallback

    found = {}
    for size in (1, 2):
        model = make_model()
        opt = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=0.1)
        found[size] = train(
            make_accelerator(split=True), loader(), loader(), model=model, opt=opt, grad_accumulate=size,
            callbacks=[FreezeCallback("0.*", epochs=1), GradClipCallback(0.5, norm_type=2)],
        )  # fmt: skip
    return found


def averaged() -> Any:
    """The average of the weights: alike in all processes, validated, saved and loaded."""
    from deepepochs import EMA

    def make() -> Trainer:
        model = make_model()
        opt = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
        return Trainer(
            model, F.cross_entropy, opt, device=accelerator, show_info=False, log_batch=False,
            epochs=2, ema=EMA(0.8, warmup=10, every=2), grad_accumulate=2,
        )  # fmt: skip

    def sums(trainer: Trainer) -> list[float]:
        model = trainer.runtime.unwrap(trainer.model)
        return [float(whole(weight).double().sum()) for weight in model.parameters()]

    accelerator = make_accelerator(split=True)
    trainer, other = make(), make()
    found = outcome(trainer, trainer.fit(loader(size=6), loader()))
    other.load_state_dict(trainer.state_dict())
    trainer.fit(loader(size=6), epochs=1)
    other.fit(loader(size=6), epochs=3)  # a first fit: of all epochs
    own = sums(trainer)
    assert trainer.ema is not None
    with trainer.ema.raw():
        own += sums(trainer)
    found["alike"] = all(one == own for one in trainer.runtime.gather_objects(own))
    found["loaded"] = sums(other) == sums(trainer)
    found["raw"] = [round(value, 7) for value in own]
    return found


def fillers_and_rare_weights() -> Any:
    """In the last round one process has one sample, and no other may count what fills it up."""
    labels = torch.zeros(13, dtype=torch.long)
    labels[6:12] = 2
    model, bias = make_model(), nn.Parameter(torch.ones(3))

    class Biased(EpochTask):
        def step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> None:
            out, rare = self.model(*batch_x), (batch_y == 2).unsqueeze(1)
            self.loss(out + rare * bias if rare.any() else out, batch_y)

    opt = torch.optim.SGD([*model.parameters(), bias], 0.1, momentum=0.9, weight_decay=0.1)
    found = train(
        make_accelerator(split=True), DataLoader(TensorDataset(X[:13], labels), 12), model=model,
        opt=opt, task=Biased, epochs=3,
    )  # fmt: skip
    return {**found, "bias": bias.tolist()}


def unfrozen_between_trainers() -> Any:
    """The model of a second trainer was prepared by the first, when a layer was frozen."""
    accelerator, model = make_accelerator(split=True), make_model()
    first = model[0].requires_grad_(False)
    trainer = Trainer(
        model, F.cross_entropy, torch.optim.SGD(model.parameters(), 0.1), device=accelerator,
        show_info=False, log_batch=False, epochs=1,
    )  # fmt: skip
    trainer.fit(loader())
    first.requires_grad_()
    opt = torch.optim.SGD(model.parameters(), 0.1)
    return train(accelerator, loader(slice(25)), model=trainer.model, opt=opt)


def frozen_model() -> Any:
    """Only a weight of the loss is trained, and from the second epoch on a layer and another weight."""
    from deepepochs import Callback

    accelerator = make_accelerator(split=True)
    model, loss = make_model().requires_grad_(False), Tempered(1.0 + accelerator.process_index)
    late = nn.Parameter(torch.full((3,), float(accelerator.process_index)))
    opt = torch.optim.SGD([*model.parameters(), loss.temperature], 0.1)

    class Later(Callback):
        def on_before_epoch(self, trainer: Any, epoch_idx: int, **_: Any) -> None:
            if epoch_idx == 1:
                model[2].requires_grad_()
                opt.add_param_group({"params": [late], "lr": 0.01})

    class Shifted(EpochTask):
        def step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> None:
            out = self.model(*batch_x)
            # Its own start is each process's, until the first step; it must not matter before.
            self.loss(out + late - late.detach(), batch_y)

    trainer = Trainer(
        model, loss, opt, device=accelerator, show_info=False, log_batch=False, epochs=3,
        callbacks=Later(),
    )  # fmt: skip
    found = outcome(trainer, trainer.fit(train_tasks=Shifted(loader())))
    own = [late.tolist(), loss.temperature.tolist(), [w.tolist() for w in model.parameters()]]
    alike = all(each == own for each in trainer.runtime.gather_objects(own))
    return {**found, "outside": own[:2], "alike": alike}


def searched() -> Any:
    """A search for a learning rate, which ends for all at one rate, and the fit after it."""
    model = make_model()
    opt = torch.optim.SGD(model.parameters(), 0.1)
    trainer = Trainer(
        model, F.cross_entropy, opt, epochs=2, device=make_accelerator(split=True),
        show_info=False, log_batch=False,
    )  # fmt: skip
    gentle = trainer.find_lr(loader(slice(29)), 9, max_lr=0.1)
    steep = trainer.find_lr(loader(slice(29)), 40, max_lr=1e6)
    ends = trainer.runtime.gather_objects(len(steep.lrs))
    history = trainer.fit(loader(shuffle=True), loader(slice(31)))
    return {
        **outcome(trainer, history),
        "losses": gentle.losses,
        "rates": gentle.lrs,
        "ends": sorted(set(ends)),
        "ended early": len(steep.lrs) < 40,
    }


def looked_at_before() -> Any:
    """A summary, also by the main process alone, and a profile, and the fit after them."""
    model = make_model()
    opt = torch.optim.SGD(model.parameters(), 0.1)
    trainer = Trainer(
        model, F.cross_entropy, opt, epochs=2, device=make_accelerator(split=True),
        show_info=False, log_batch=False, deterministic=True,
    )  # fmt: skip
    shapes = [layer.output for layer in trainer.summary(loader(slice(29))).layers]
    if trainer.main_process:
        shapes += [layer.output for layer in trainer.summary(X[:4]).layers]
    trace = Path(tempfile.mkdtemp()) / "trace.json"
    profile = trainer.profile(loader(slice(29)), 4, trace)
    refused = ""
    try:
        trainer.find_batch_size(loader())
    except ConfigError as error:
        refused = str(error)
    history = trainer.fit(loader(shuffle=True), loader(slice(31)))
    samples = sum(trainer.runtime.gather_objects(profile.num_samples))
    return {
        **outcome(trainer, history),
        "shapes": shapes,
        "samples": samples,
        "trace": trace.exists(),
        "refused": bool(refused) is (trainer.runtime.num_processes > 1),
        "words": not refused or "find_batch_size() works in one process" in refused,
    }


def prepared() -> Any:
    """What the user has prepared himself, with Accelerate's repeated samples switched on."""
    accelerator = make_accelerator(split=False)
    accelerator.even_batches = True
    size = 12 // accelerator.num_processes
    model = make_model()
    opt = torch.optim.SGD(model.parameters(), 0.1)
    model, opt, train_dl, val_dl, test_dl = accelerator.prepare(
        model, opt, loader(size=size, shuffle=True), loader(slice(31), size), loader(slice(2), size)
    )
    found = train(accelerator, train_dl, val_dl, test_dl, model=model, opt=opt)
    found["even again"] = bool(getattr(train_dl.batch_sampler, "even_batches", True))
    partly = make_model()
    its_opt = accelerator.prepare(torch.optim.SGD(partly.parameters(), 0.1))
    found["only the optimizer"] = train(accelerator, val_dl, model=partly, opt=its_opt)
    return found


def predictions() -> Any:
    accelerator = make_accelerator(split=False)
    trainer = Trainer(make_model(), F.cross_entropy, device=accelerator, show_info=False)
    own = accelerator.prepare(DataLoader(TensorDataset(X, Y), 4))
    return {
        "whole": trainer.predict(loader(size=5)).tolist(),
        "list": trainer.predict(list(Endless(5, 53))).tolist(),
        "few": trainer.predict(loader(slice(2))).tolist(),
        "prepared": trainer.predict(own).tolist(),
    }


def early_stop() -> Any:
    """One process asks to stop: all do, at the same mini-batch."""
    from deepepochs import Callback

    class Stopper(Callback):
        def on_after_train_batch(self, trainer: Any, metrics: Any, batch_idx: int) -> None:
            if batch_idx == 2 and trainer.runtime.rank == trainer.runtime.num_processes - 1:
                trainer.stop("enough")

    trainer = Trainer(
        make_model(), F.cross_entropy, device=make_accelerator(split=True), show_info=False,
        log_batch=False, epochs=3, callbacks=Stopper(),
    )  # fmt: skip
    history = trainer.fit(loader())
    found = outcome(trainer, history)
    batches = trainer.progress.num_train_batches
    found["batches"] = sorted(set(trainer.runtime.gather_objects(batches)))
    found["reasons"] = sorted(set(trainer.runtime.gather_objects(trainer.stop_reason)))
    return found


class RecordingTask(EpochTask):
    """Records in the step what is one number of all samples, whichever process has them."""

    def step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> None:
        model_out = self.model(*batch_x)
        self.record("mean", model_out.max(1).values.mean())
        self.record("sum", len(batch_y), how="sum")
        self.record("max", model_out.max(), how="max")
        self.record("min", model_out.min(), how="min")
        self.record("last", batch_x[0][-1, 0], how="last")
        self.loss(model_out, batch_y)


def recorded() -> Any:
    """Values of steps, of optimizer steps and of the end of a pass; and a stop by one of them."""
    from deepepochs import Callback, EarlyStopCallback, GradNormCallback

    class Late(Callback):
        def on_after_train_epoch(self, trainer: Any, task: Any, metrics: Any) -> None:
            trainer.record("late", metrics["sum"] + trainer.runtime.rank)

    found = {}
    for name, split in (("whole", False), ("split", True)):
        accelerator = make_accelerator(split=split)
        size = 12 if split else 12 // accelerator.num_processes
        stop = EarlyStopCallback("loss", patience=1, min_delta=0.05)
        callbacks = [GradNormCallback(with_max=True), GradClipCallback(0.2, 2), Late(), stop]
        model = make_model()
        trainer = Trainer(
            model, F.cross_entropy, torch.optim.SGD(model.parameters(), 0.1), epochs=9,
            device=accelerator, callbacks=callbacks, console="off",
        )  # fmt: skip
        history = trainer.fit(
            train_tasks=RecordingTask(loader(size=size)),
            val_tasks=[
                RecordingTask(loader(slice(31), size)),
                RecordingTask(loader(slice(2), size)),
            ],
        )
        found[name] = outcome(
            trainer, history, trainer.test(tasks=RecordingTask(loader(slice(5), size)))
        )
        reasons = trainer.runtime.gather_objects((len(history.epochs), str(history.epochs)))
        found[name]["ends"] = sorted(map(list, set(reasons)))
    return found


def interpreted() -> Any:
    """Confusion matrices and extreme samples, over fillers, several tasks and a resume."""
    from deepepochs import Callback, InterpretCallback

    class KeepState(Callback):
        """Keeps the whole state in the middle of the second epoch."""

        meets_fillers = True  # all processes save together

        state: Any = None

        def on_before_fit(self, trainer: Any, epochs: int) -> None:
            trainer.add_saver(self.keep)  # in all processes, whichever of them asks

        def on_after_train_batch(self, trainer: Any, metrics: Any, batch_idx: int) -> None:
            if trainer.progress.num_train_batches == 8:
                trainer.request_save(self.keep)

        def keep(self, trainer: Any) -> None:
            file = io.BytesIO()
            torch.save(trainer.state_dict(), file)
            self.state = torch.load(io.BytesIO(file.getvalue()), weights_only=True)

    def run(accelerator: Accelerator, size: int, state: Any = None) -> tuple[Any, Any]:
        with tempfile.TemporaryDirectory() as folder:
            interpret = InterpretCallback(
                lambda preds, targets: (preds.argmax(1) != targets).float(), k=40, log_dir=folder
            )
            keeper = KeepState()
            trainer = Trainer(
                make_model(), F.cross_entropy, epochs=2, device=accelerator, show_info=False,
                log_batch=False, callbacks=[interpret, keeper],
            )  # fmt: skip
            if state is not None:
                trainer.load_state_dict(state)
            trainer.fit(
                train_tasks=[EpochTask(loader(slice(29), size)), EpochTask(loader(slice(29, 53), size))],
                val_tasks=EpochTask(loader(slice(31), size)),
            )  # fmt: skip
            trainer.test(
                tasks=[EpochTask(loader(slice(26), size)), EpochTask(loader(slice(2), size))]
            )
        matrices = {str(stage): matrix.tolist() for stage, matrix in interpret.matrices.items()}
        top = [[value, int(target), x.tolist()] for value, _, target, x in interpret.top_samples()]
        return {"matrices": matrices, "top": top}, keeper.state

    found = {}
    for name, split in (("whole", False), ("split", True)):
        accelerator = make_accelerator(split=split)
        size = 12 if split else 12 // accelerator.num_processes
        found[name], state = run(accelerator, size)
        found[f"{name} resumed"], _ = run(accelerator, size, state)
    return found


def hooks_and_fillers() -> Any:
    """Which hooks are called, by process, where one process has a mini-batch less than another."""
    from deepepochs import Callback

    class Seeing(Callback):
        """Counts its calls; of those for fillers by themselves."""

        def __init__(self) -> None:
            super().__init__()
            self.calls: dict[str, list[int]] = {}

        def count(self, trainer: Any, hook: str) -> None:
            self.calls.setdefault(hook, [0, 0])[trainer.run.is_filler] += 1

        def on_before_train_batch(self, trainer: Any, **_: Any) -> None:
            self.count(trainer, "before_batch")

        def on_after_train_forward(self, trainer: Any, **_: Any) -> None:
            self.count(trainer, "after_forward")

        def on_after_backward(self, trainer: Any, **_: Any) -> None:
            self.count(trainer, "after_backward")

        def on_before_optimize(self, trainer: Any, **_: Any) -> None:
            self.count(trainer, "before_optimize")

        def on_train_metrics(self, trainer: Any, **_: Any) -> None:
            self.count(trainer, "metrics")

        def on_after_train_batch(self, trainer: Any, **_: Any) -> None:
            self.count(trainer, "after_batch")

    class SeeingAll(Seeing):
        meets_fillers = True

    plain, every = Seeing(), SeeingAll()
    train(make_accelerator(split=False), loader(slice(20), 4), callbacks=[plain, every], epochs=1)
    return gather_object([{"plain": plain.calls, "every": every.calls}])


def lone_save() -> Any:
    """A save that one process alone is asked for, since its mini-batch only fills up a round."""
    from deepepochs import Callback, CheckCallback, LoopException

    class Saving(Callback):
        def on_after_train_batch(self, trainer: Any, batch_idx: int, **_: Any) -> None:
            trainer.request_save(self.save)

        def save(self, trainer: Any) -> None:
            trainer.state_dict()

    class Added(Saving):
        def on_before_fit(self, trainer: Any, epochs: int) -> None:
            trainer.add_saver(self.save)

    found = {}
    for name, kind in (("alone", Saving), ("beside another", Saving), ("added", Added)):
        with tempfile.TemporaryDirectory() as folder:
            check = [] if name == "alone" else [CheckCallback("loss", "train", ckpt_dir=folder)]
            accelerator = make_accelerator(split=False)
            try:
                train(accelerator, loader(slice(20), 4), callbacks=[*check, kind()], epochs=1)
                found[name] = "saved"
            except LoopException as error:
                found[name] = str(error)
    return found


def returned_by_one() -> Any:
    """A value that one process alone returns from its steps, over two tasks."""

    class Rare(EpochTask):
        def train_step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> Any:
            self.loss(self.model(*batch_x), batch_y)
            process = self.accelerator.process_index
            last = self.accelerator.num_processes - 1
            return {"rare": ValuePatch(2).load(1.5)} if process == last else None

    trainer = Trainer(
        make_model(), F.cross_entropy, device=make_accelerator(split=True), show_info=False,
        log_batch=False, epochs=1,
    )  # fmt: skip
    history = trainer.fit(train_tasks=[Rare(loader(slice(24))), Rare(loader(slice(24, 48)))])
    return {name: float(values[0]) for name, values in history["train"].items() if "rare" in name}


def limited() -> Any:
    """The first mini-batches, accumulated: the last window is short."""
    options: dict[str, Any] = {"limit_train_batches": 3, "limit_val_batches": 0.5}
    data = loader(shuffle=True), loader(slice(31))
    found = train(make_accelerator(split=True), *data, grad_accumulate=2, **options)
    steps = train(make_accelerator(split=True), *data, max_steps=7, epochs=1000)
    every = train(make_accelerator(split=True), *data, val_every=2)
    return {"limited": found, "steps": steps, "val_every": every}


def stopped_and_gone_on() -> Any:
    """A stop within an epoch, in one process, and a fit that goes on from there."""
    from deepepochs import Callback

    class StopOnce(Callback):
        def on_after_train_batch(self, trainer: Any, **others: Any) -> None:
            if trainer.progress.num_train_batches == 2 and trainer.main_process:
                trainer.stop("enough", validate=True)

    found = {}
    for name, callbacks in [("stopped", [StopOnce()]), ("whole", [])]:
        model, data = make_model(), (loader(shuffle=True), loader(slice(31)))
        trainer = Trainer(
            model, F.cross_entropy, torch.optim.SGD(model.parameters(), 0.1), epochs=3,
            device=make_accelerator(split=True), console="off", callbacks=callbacks,
        )  # fmt: skip
        first = trainer.fit(*data)
        found[f"{name} first"] = bool(first.partial)
        if first.partial:
            trainer.fit(*data)
        found[name] = outcome(trainer, trainer.history)
    return found


def stopping(hook: str, *, validate: bool, rank: int = -1) -> Any:
    """Make a callback in which one process asks for a stop, the last one unless that is said."""
    from deepepochs import Callback

    class Stops(Callback):
        def on_after_train_batch(self, trainer: Any, batch_idx: int, **others: Any) -> None:
            is_last = batch_idx == trainer.run.num_batches - 1
            if hook == "the last mini-batch" and is_last and trainer.main_process:
                trainer.stop("enough", validate=validate)

        def stop(self, trainer: Any, **others: Any) -> None:
            if trainer.runtime.rank == rank % trainer.runtime.num_processes:
                trainer.stop("enough", validate=validate)

    if hook.startswith("on_"):
        setattr(Stops, hook, Stops.stop)
    return Stops()


def stops_of_one() -> Any:
    """A stop that one process asks for between the mini-batches of two passes, in any hook there."""
    hooks = (
        "on_before_fit", "on_before_epoch", "on_before_train_epochs", "on_after_train_epoch",
        "on_after_train_epochs", "on_before_val_epochs", "on_after_val_epochs", "on_after_epoch",
        "the last mini-batch",
    )  # fmt: skip
    found = {}
    for hook, validate, val_freq in itertools.product(hooks, [True, False], [1, 2]):
        trainer = Trainer(
            make_model(), F.cross_entropy, device=make_accelerator(split=True), epochs=3,
            console="off", callbacks=stopping(hook, validate=validate),
        )  # fmt: skip
        history = trainer.fit(loader(), loader(slice(31)), val_freq=val_freq)
        found[f"{hook}, validate={validate}, val_freq={val_freq}"] = ended(trainer, history)
    return found


def ended(trainer: Any, history: Any) -> dict[str, Any]:
    """The outcome of a fit, and how it has ended in each process."""
    ends = trainer.stop_reason, trainer.progress, sorted(history.partial.items())
    of_all = trainer.runtime.gather_objects(ends)
    return {**outcome(trainer, history), "ends": sorted(set(map(str, of_all)))}


def stops_in_a_part() -> Any:
    """A stop without a validation that one process asks for where steps have ended an epoch."""
    hooks = (
        "on_after_train_epoch", "on_after_train_epochs", "on_before_val_epochs",
        "on_after_val_epochs", "on_after_epoch",
    )  # fmt: skip
    found = {}
    for hook in hooks:
        trainer = Trainer(
            make_model(), F.cross_entropy, device=make_accelerator(split=True), max_steps=2,
            console="off", callbacks=stopping(hook, validate=False, rank=0),
        )  # fmt: skip
        found[hook] = ended(trainer, trainer.fit(loader(), loader(slice(31))))
    return found


def counted() -> Any:
    """How often the processes exchange something in the second epoch, where a round takes 1 ms."""
    from deepepochs import Callback
    from deepepochs.runtime import rounds
    from deepepochs.runtime.exchange import Exchange

    purposes: list[str] = []
    all_of, clock = Exchange._all, itertools.count()

    class Empties(Callback):
        def on_before_epoch(self, trainer: Any, **others: Any) -> None:
            purposes.clear()

    def noting(self: Exchange, where: str, own: bytearray) -> Any:
        purposes.append(where.partition("it ")[2])
        return all_of(self, where, own)

    model = make_model()
    trainer = Trainer(
        model, F.cross_entropy, torch.optim.SGD(model.parameters(), 0.1), epochs=2, console="off",
        metrics=[dm.accuracy], device=make_accelerator(split=False), callbacks=Empties(),
    )  # fmt: skip
    with (
        mock.patch.object(Exchange, "_all", noting),
        mock.patch.object(rounds, "monotonic", lambda: next(clock) / 1000),
    ):
        trainer.fit(loader(size=1), loader(size=1))
    return {"rounds": trainer.progress.num_steps // 2, "purposes": purposes}


def exchanges() -> Any:
    """What the processes exchange of their own between the second and the last mini-batch."""
    from deepepochs import Callback

    found = {}
    plain = loader(size=2, shuffle=True)
    collated = DataLoader(plain.dataset, 2, collate_fn=lambda samples: default_collate(samples))
    for name, data, batch_size in [
        ("plain", plain, None), ("number", collated, 2), ("collated", collated, None),
        ("ready", list(plain), None), ("function", plain, lambda x, y: len(y)),
    ]:  # fmt: skip
        purposes: set[str] = set()

        class Looks(Callback):
            def on_before_fit(self, trainer: Any, epochs: int) -> None:
                self.exchange = getattr(trainer.runtime, "_exchange", None)
                self.gather = None if self.exchange is None else self.exchange.gather

            def on_after_train_batch(self, trainer: Any, metrics: Any, batch_idx: int) -> None:
                if self.exchange is None:
                    return
                if batch_idx == 1:
                    self.exchange.gather = self.noted
                if batch_idx + 2 >= trainer.run.num_batches:
                    self.exchange.gather = self.gather

            def noted(self, purpose: str, value: bytes, purposes: Any = purposes) -> Any:
                purposes.add(purpose)
                return self.gather(purpose, value)

        trainer = Trainer(
            make_model(), F.cross_entropy, device=make_accelerator(split=False), show_info=False,
            log_batch=False, epochs=1, callbacks=Looks(),
        )  # fmt: skip
        trainer.fit(data, batch_size=batch_size)
        found[name] = sorted(purposes - {"may save or stop"})
    return found


CASES: dict[str, Callable[[], Any]] = {
    case.__name__: case
    for case in (
        function_metrics, mean_and_confusion, metric_objects, returned_patches, whole_batches,
        few_samples, streams, ready_batches, accumulated, averaged, frozen_first,
        without_labels, skipped, wrong_lengths, by_hand, by_hand_sparse, several, plateau,
        weights_outside, unfrozen, fillers_and_rare_weights, unfrozen_between_trainers,
        frozen_model, searched, looked_at_before, prepared, predictions, early_stop, recorded,
        interpreted, closures, left_out, hooks_and_fillers, lone_save, returned_by_one,
        exchanges, limited, stopped_and_gone_on, stops_of_one, stops_in_a_part, counted, buffers,
    )
}  # fmt: skip


def main() -> None:
    file, *names = sys.argv[1:]
    found: dict[str, Any] = {}
    for name in names or CASES:
        try:
            found[name] = CASES[name]()
        except Exception as error:
            error.args = (f"case {name}: {error}",)
            raise
    if Accelerator(cpu=True).is_main_process:
        Path(file).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
