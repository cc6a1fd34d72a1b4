"""`verify_resume` names the attribute that keeps a resume from being exact, and no sound one."""

from __future__ import annotations

import functools
import io
import itertools
import os
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset, Sampler

from deepepochs import (
    Callback,
    CheckCallback,
    EarlyStopCallback,
    EpochTask,
    GradClipCallback,
    GradNormCallback,
    Optimizer,
    ReportCallback,
    RunRecordCallback,
    TimingCallback,
    Trainer,
)

sys.path.insert(0, str(Path(__file__).parent))
from exact_runs import Samples, make_model

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
HERE = __name__


def fit(
    model: Callable[[], nn.Module] = make_model,
    loss: Any = F.cross_entropy,
    samples: Callable[[], Any] = Samples,
    sampler: Any = None,
    callbacks: tuple[Callback, ...] = (),
    trainer: type[Trainer] = Trainer,
    limits: Any = None,
    schedule: Any = None,
    metrics: Any = (),
    collate: Any = None,
    task: type[EpochTask] | None = None,
) -> tuple[Trainer, dict[str, Any]]:
    """A fit of four mini-batches of training and three of validation in an epoch."""
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    net, data = model(), samples()
    order = {} if isinstance(data, IterableDataset) else {"shuffle": sampler is None}
    loader = DataLoader(
        data, 3, sampler=sampler and sampler(len(data)), collate_fn=collate, **order
    )
    opt = torch.optim.SGD(net.parameters(), lr=0.01)
    made = trainer(
        net, loss, Optimizer(opt, schedule and schedule(opt), sched_on="step"), epochs=3,
        callbacks=list(callbacks), metrics=list(metrics), console="off", **(limits or {}),
    )  # fmt: skip
    train = {"train_dl": loader} if task is None else {"train_tasks": [task(loader)]}
    return made, {**train, "val_dl": DataLoader(Samples(), 4)}


class Scaled(nn.Module):
    """Its scale is a plain attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = make_model()
        self.scale = 1.0

    def forward(self, x: torch.Tensor) -> Any:
        self.scale += 0.5
        return self.inner(x) * self.scale


class ScaledByBuffer(nn.Module):
    scale: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.inner = make_model()
        self.register_buffer("scale", torch.ones(()))

    def forward(self, x: torch.Tensor) -> Any:
        self.scale += 0.5
        return self.inner(x) * self.scale


class NoisyModel(nn.Module):
    """Draws from a generator that it keeps."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = make_model()
        self.rng = np.random.default_rng(0)

    def forward(self, x: torch.Tensor) -> Any:
        return self.inner(x + 10 * float(self.rng.normal()))


class MoreDropout(Callback):
    """Changes a setting of a layer that no state has."""

    def on_before_train_batch(self, trainer: Any, **_: Any) -> None:
        trainer.model[3].p = min(0.9, trainer.model[3].p * 1.2)


class DropoutByEpoch(Callback):
    """Sets it from the number of the epoch, which is done again at a resume."""

    def on_before_epoch(self, trainer: Any, epoch_idx: int, **_: Any) -> None:
        trainer.model[3].p = 0.1 * epoch_idx


class Counts(Callback):
    """Sets the rate from a list that it keeps."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[int] = []

    def on_after_train_batch(self, trainer: Any, **_: Any) -> None:
        self.done.append(1)
        for group in trainer.opt[0].opt.param_groups:
            group["lr"] = 0.01 * len(self.done)


class CountsAndSaves(Counts):
    def state_dict(self) -> dict[str, Any]:
        return {"done": list(self.done)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.done = list(state["done"])


class Watches(Callback):
    """Keeps what nothing depends on."""

    def __init__(self) -> None:
        super().__init__()
        self.last: Any = None

    def on_after_train_batch(self, metrics: Any, batch_idx: int, **_: Any) -> None:
        self.last = batch_idx


NUM = 0
SETTINGS = {"shift": 0}
HITS: list[int] = []


class ByGlobalNumber(Samples):
    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        global NUM
        NUM += 1
        x, y = super().__getitem__(index)
        return x + NUM, y


def shift() -> int:
    SETTINGS["shift"] += 1
    return SETTINGS["shift"]


class ByGlobalDict(Samples):
    """A function that its method calls changes a dict of the module."""

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        x, y = super().__getitem__(index)
        return x + shift(), y


class ByClass(Samples):
    num = 0

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        ByClass.num += 1
        x, y = super().__getitem__(index)
        return x + ByClass.num, y


class ByAttribute(Samples):
    """Its number is followed."""

    num = 0

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        self.num += 1
        x, y = super().__getitem__(index)
        return x + self.num, y


@functools.lru_cache
def drawn_once(index: int) -> float:
    return random.random()


class Cached(Samples):
    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        x, y = super().__getitem__(index)
        return x + drawn_once(index), y


class CountingSampler(Sampler[int]):
    """Its order depends on how many were drawn before, which it counts as an attribute."""

    def __init__(self, num: int) -> None:
        self.num, self.step = num, 0

    def __len__(self) -> int:
        return self.num

    def __iter__(self) -> Iterator[int]:
        self.step += 1
        yield from ((index * self.step) % self.num for index in range(self.num))


class SamplerOfGlobal(CountingSampler):
    """Its order depends on an iterator of the module."""

    def __iter__(self) -> Iterator[int]:
        for index in range(self.num):
            yield (index + next(STEPS) // 2) % self.num


STEPS = itertools.count(1)


class Collate:
    """Adds the next number of an iterator."""

    def __init__(self) -> None:
        self.numbers = iter(range(10**6))

    def __call__(self, samples: Any) -> Any:
        x, y = torch.utils.data.default_collate(samples)
        return x + next(self.numbers), y


def loss_of_a_closure() -> Any:
    calls = 0

    def loss(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return F.cross_entropy(outputs, labels) * calls

    return loss


class RunningLoss(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mean = 0.0

    def forward(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        loss = F.cross_entropy(outputs, labels)
        self.mean = 0.9 * self.mean + 0.1 * loss.item()
        return loss / (1 + self.mean)


class OfAnIterator(Trainer):
    """Its steps take weights from an iterator."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.weights: Any = iter([float(number) for number in range(1000)])

    def train_step(self, batch_x: Any, batch_y: Any) -> None:
        self.loss(self.model(*batch_x) * next(self.weights), batch_y)


def growing() -> Iterator[float]:
    value = 1.0
    while True:
        value *= 1.5
        yield value


class OfAGenerator(OfAnIterator):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.weights = growing()


class OfAFile(Trainer):
    """Its steps take weights from a file that is open."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.lines: Any = io.StringIO()

    def train_step(self, batch_x: Any, batch_y: Any) -> None:
        self.loss(self.model(*batch_x) * float(self.lines.readline()), batch_y)


class CountingTask(EpochTask):
    num = 0

    def train_step(self, batch_x: Any, batch_y: Any) -> None:
        self.num += 1
        self.loss(self.model(*batch_x) * self.num, batch_y)


def schedule_with_a_list(opt: Any) -> Any:
    seen: list[int] = []

    def factor(step: int) -> float:
        seen.append(step)
        return 1.0 + len(seen) % 3

    return torch.optim.lr_scheduler.LambdaLR(opt, factor)


class Factor:
    """The same as an object, whose attributes are saved."""

    def __init__(self) -> None:
        self.num = 0

    def __call__(self, step: int) -> float:
        self.num += 1
        return 1.0 + self.num % 3


def schedule_with_an_object(opt: Any) -> Any:
    return torch.optim.lr_scheduler.LambdaLR(opt, Factor())


def counted(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    HITS.append(1)
    return torch.tensor(float(len(HITS)))


HIDDEN: dict[str, tuple[dict[str, Any], str, str]] = {
    "plain attribute of the model": ({"model": Scaled}, "model.scale: 4.0 ", "buffer"),
    "generator of the model": ({"model": NoisyModel}, "model.rng: state of a Generator ", "buffer"),
    "setting of a layer": (
        {"callbacks": (MoreDropout(),)},
        "model.3.p: 0.62208 in the unbroken run, 0.3 in the resumed one",
        "buffer",
    ),
    "callback": (
        {"callbacks": (Counts(),)},
        "Counts.done: [1, 1, 1, 1] in the unbroken run, [] in the resumed one",
        "Give the callback state_dict",
    ),
    "global number": ({"samples": ByGlobalNumber}, f"{HERE}.NUM: 11 ", "of the data set"),
    "global dict": ({"samples": ByGlobalDict}, HERE + ".SETTINGS: {'shift': 11}", "of the data"),
    "attribute of a class": ({"samples": ByClass}, f"{HERE}.ByClass.num: 11 ", "of the data set"),
    "cache": ({"samples": Cached}, f"{HERE}.drawn_once.cache_info(): 11 ", "of the data set"),
    "global iterator of a sampler": ({"sampler": SamplerOfGlobal}, f"{HERE}.STEPS: count at ", ""),
    "iterator of a collate function": (
        {"collate": Collate()}, "train_dl.collate_fn.numbers: range_iterator at [4] ", "state_dict",
    ),
    "closure of a loss": ({"loss": loss_of_a_closure()}, "loss.calls: 6 ", "buffer"),
    "attribute of a loss": ({"loss": RunningLoss()}, "loss.mean: 0.", "buffer"),
    "iterator of a trainer": ({"trainer": OfAnIterator}, "trainer.weights: list_iterator", "parts"),
    "generator of a trainer": ({"trainer": OfAGenerator}, "trainer.weights: generator ", "parts"),
    "attribute of a task": (
        {"task": CountingTask},
        "train_tasks[0].num: 4 in the unbroken run, not there in the resumed one",
        "parts",
    ),
    "list of a schedule": (
        {"schedule": schedule_with_a_list},
        "schedulers[0].lr_lambdas[0].seen: [0, 1, 2, 3, 4] ",
        "whose attributes LambdaLR saves",
    ),
    "global list of a metric": ({"metrics": [counted]}, f"{HERE}.HITS: [1, 1, 1] ", "Keep it"),
}  # fmt: skip


@pytest.mark.parametrize("case", HIDDEN)
def test_the_cause_names_the_attribute_and_the_remedy(case: str) -> None:
    options, attribute, remedy = HIDDEN[case]
    trainer, data = fit(**options)
    report = trainer.verify_resume(**data, steps=12)
    assert not report.ok
    assert len(report.attributes) == 1, report.attributes
    assert report.attributes[0].startswith(attribute), report.attributes
    assert report.cause.startswith(f"the resume does not bring back {report.attributes[0]}. So ")
    assert remedy in report.cause.partition(". So ")[2], report.cause


class OfTheEnvironment(Samples):
    """Its number is where no walk of objects finds it."""

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        os.environ[HERE] = str(int(os.environ.get(HERE, "0")) + 1)
        x, y = super().__getitem__(index)
        return x + int(os.environ[HERE]), y


def test_a_cause_that_is_not_found_is_told_by_what_differs_first() -> None:
    trainer, data = fit(samples=OfTheEnvironment)
    report = trainer.verify_resume(**data, steps=12)
    assert not report.ok and report.attributes == ()
    expected = "mini-batch 8 holds other data: hidden state in the data set, the sampler"
    assert report.cause.startswith(expected)


SOUND: dict[str, dict[str, Any]] = {
    "buffer of the model": {"model": ScaledByBuffer},
    "setting of a layer by the epoch": {"callbacks": (DropoutByEpoch(),)},
    "callback with a state": {"callbacks": (CountsAndSaves(),)},
    "callback that only watches": {"callbacks": (Watches(),)},
    "number of the data set": {"samples": ByAttribute},
    "the same mini-batches in each epoch": {"limits": {"overfit_batches": 2}},
    "validations within an epoch": {"limits": {"val_every": 2}},
    "an average of the weights": {"limits": {"ema": 0.9}},
    "number of a sampler": {"sampler": CountingSampler},
    "object as the factor of a schedule": {"schedule": schedule_with_an_object},
}


@pytest.mark.parametrize("case", SOUND)
def test_a_sound_run_passes_without_a_word(case: str) -> None:
    trainer, data = fit(**SOUND[case])
    report = trainer.verify_resume(**data, steps=12)
    assert report.ok, report
    assert (report.attributes, report.not_followed, report.cause) == ((), (), "")


@pytest.mark.parametrize(
    ("options", "first", "second"),
    [
        ({"model": Scaled}, "model.scale", "Watches.last"),
        ({"samples": ByGlobalNumber}, f"{HERE}.NUM", "Watches.last"),
        ({"collate": Collate()}, "train_dl.collate_fn.numbers", "Watches.last"),
        ({"metrics": [counted]}, "Watches.last", f"{HERE}.HITS"),
    ],
)
def test_of_several_that_differ_the_nearest_is_named_first(
    options: dict[str, Any], first: str, second: str
) -> None:
    trainer, data = fit(callbacks=(Watches(),), **options)
    report = trainer.verify_resume(**data, steps=12)
    assert [line.partition(":")[0] for line in report.attributes] == [first, second]
    assert report.cause.startswith(f"the resume does not bring back one of these: {first}: ")


def test_nothing_of_the_library_is_named(tmp_path: Path) -> None:
    callbacks = (
        CheckCallback("loss", ckpt_dir=tmp_path, every_n_batches=2),
        EarlyStopCallback("loss"),
        GradClipCallback(1.0),
        GradNormCallback(),
        RunRecordCallback(log_dir=tmp_path),
        ReportCallback(log_dir=tmp_path),
        TimingCallback(),
    )
    limits = {"ema": 0.9, "max_steps": 100, "val_every": 2}
    trainer, data = fit(model=Scaled, callbacks=callbacks, limits=limits, metrics=["accuracy"])
    report = trainer.verify_resume(**data, steps=12)
    assert [line.partition(":")[0] for line in report.attributes] == ["model.scale"]
    assert list(tmp_path.iterdir()) == []


def test_what_the_checkpoint_could_not_follow_is_told_of_an_exact_resume_too() -> None:
    class Repeats(Samples):
        """Holds an iterator from one pass to the next, which is used no more."""

        def __init__(self) -> None:
            super().__init__()
            self.numbers = iter([1, 2])

    trainer, data = fit(samples=Repeats)
    report = trainer.verify_resume(**data, steps=12)
    assert report.ok
    expected = (
        "dataset.numbers of the loader of train/0 is an iterator, whose place cannot be read."
    )
    assert report.not_followed[0].startswith(expected)
    assert f"No checkpoint can follow this: {expected}" in repr(report)
    assert repr(report).endswith("A longer run may differ.")


def test_a_file_that_the_runs_read_is_named_and_is_where_it_was(tmp_path: Path) -> None:
    (tmp_path / "weights").write_text("".join(f"{number}\n" for number in range(1, 1000)))
    trainer, data = fit(trainer=OfAFile)
    with (tmp_path / "weights").open() as lines:
        trainer.lines = lines  # type: ignore[attr-defined]
        report = trainer.verify_resume(**data, steps=12)
        assert lines.readline() == "1\n"
    expected = (
        "trainer.lines: place 8 of a file in the unbroken run, place 0 of a file in the resumed"
    )
    assert report.attributes == (f"{expected} one",)
