"""The full event trace of runs, kept as text files in `traces/` to be read.

Each line is one hook with the short form of its arguments; the indentation shows what the
event is about. After a deliberate change: ``UPDATE_TRACES=1 pytest tests/loop/test_event_trace.py``,
then read the difference.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Subset, TensorDataset

from deepepochs import Callback, EpochTask, StopLoopException, Trainer
from deepepochs.callbacks.base import HOOKS

FOLDER = Path(__file__).parent / "traces"


def hit_rate(preds: Tensor, targets: Tensor) -> Tensor:
    return (preds.argmax(1) == targets).double().mean()


def short(value: Any) -> str:
    """Say what a hook's argument is, in a word or two."""
    if isinstance(value, Tensor):
        attached = " with graph" if value.requires_grad else ""
        return f"tensor{list(value.shape)}{attached}".replace(" ", "")
    if isinstance(value, EpochTask):
        return str(value.name)
    if isinstance(value, Mapping):
        return "{" + ", ".join(value) + "}"
    if isinstance(value, BaseException):
        return f"{type(value).__name__}({str(value)!r})"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "(" + ", ".join(map(short, value)) + ")"
    return repr(value)


def depth(name: str) -> int:
    """How deep in a fit the event lies."""
    if name.endswith("_fit") or name == "on_exception":
        return 0
    if name in ("on_before_epoch", "on_after_epoch"):
        return 1
    if name.endswith("_epochs"):
        return 2
    if name.endswith("_epoch"):
        return 3
    return 4 if name.endswith("_batch") else 5


def add_hooks(cls: type) -> type:
    """Give a class every hook, each handing over to `note`."""
    for name in HOOKS:

        def hook(self: Any, trainer: Any, *, _name: str = name, **arguments: Any) -> None:
            self.note(_name, trainer, arguments)

        hook.__name__ = name
        setattr(cls, name, hook)
    return cls


@add_hooks
class Outer(Callback):
    """Writes every event with its arguments."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__()
        self.lines = lines

    def note(self, name: str, trainer: Any, arguments: Mapping[str, Any]) -> None:
        told = [f"{key}={short(value)}" for key, value in arguments.items()]
        if re.search("backward|optimize", name):
            has = any(weight.grad is not None for weight in trainer.model.parameters())
            told.append("gradients there" if has else "no gradients")
        if torch.is_grad_enabled():
            told.append("GRADIENTS ARE ON")
        if re.search("forward|batch", name):
            told.append("model trains" if trainer.model.training else "model evaluates")
        self.lines.append(f"{'  ' * depth(name)}{name.removeprefix('on_')}  {'; '.join(told)}")


@add_hooks
class Inner(Callback):
    """Writes that it was called, inside of the other."""

    order = 2

    def __init__(self, lines: list[str]) -> None:
        super().__init__()
        self.lines = lines

    def note(self, name: str, trainer: Any, arguments: Mapping[str, Any]) -> None:
        self.lines.append(f"{'  ' * depth(name)}inner {name.removeprefix('on_')}")


@add_hooks
class Acting(Callback):
    """Does something at the n-th call of one hook, and writes that."""

    order = 2

    def __init__(self, lines: list[str], hook: str, action: str, at: int = 1) -> None:
        super().__init__()
        self.lines, self.hook, self.action, self.at = lines, hook, action, at
        self.count = 0

    def note(self, name: str, trainer: Any, arguments: Mapping[str, Any]) -> None:
        if name != self.hook:
            return
        self.count += 1
        if self.count == self.at:
            self.lines.append(f"--- {self.action} in {name}")
            act(self.action, trainer)


class ActingTask(EpochTask):
    """Does something inside the step of the second mini-batch, after the backward pass."""

    def step(self, batch_x: Any, batch_y: Any, *, action: str, lines: list[str]) -> None:
        model_out = self.model(*batch_x)
        self.loss(model_out, batch_y, do_optimize=False)
        if self._run.batch_idx == 1:
            lines.append(f"--- {action} in the step")
            act(action, self.trainer)
        self.optimize()


def act(action: str, trainer: Any) -> None:
    if action == "stop":
        trainer.stop("enough")
    elif action == "raise StopLoopException":
        raise StopLoopException("enough")
    elif action == "raise KeyboardInterrupt":
        raise KeyboardInterrupt
    else:
        raise RuntimeError("no disk")


class NoLength:
    """A loader that does not know how long it is."""

    def __init__(self, loader: DataLoader[Any]) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[Any]:
        return iter(self.loader)


def loader_of(data: TensorDataset, first: int, num: int) -> DataLoader[Any]:
    """A loader of `num` samples in mini-batches of 2."""
    return DataLoader(Subset(data, range(first, first + num)), batch_size=2)


def compare(name: str, lines: list[str]) -> None:
    """Compare a trace with its file, or write the file where that is asked."""
    path = FOLDER / f"{name}.txt"
    text = "\n".join(line.rstrip() for line in lines) + "\n"
    if os.environ.get("UPDATE_TRACES"):
        path.write_text(text)
    assert text == path.read_text(), f"{path} differs; see the top of this file"


def make_trainer(callbacks: list[Callback], **options: Any) -> Trainer:
    model = nn.Linear(64, 10)
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    options = {"epochs": 2, "metrics": hit_rate, "show_info": False, **options}
    return Trainer(model, F.cross_entropy, opt, callbacks=callbacks, **options)


def tell_end(lines: list[str], trainer: Trainer, call: Any) -> None:
    """Run `call` and write how it ended."""
    try:
        result = call()
    except BaseException as error:
        lines.append(f"raised {short(error)}")
        lines.extend(f"  note: {note}" for note in getattr(error, "__notes__", ()))
    else:
        told = {stage: len(values["loss"]) for stage, values in result.items()}
        lines.append(f"returned losses: {told}")
    lines.append(f"stop_reason={trainer.stop_reason!r}")
    lines.append(f"{trainer.progress}")


def test_a_whole_fit_and_test_with_several_tasks_has_the_trace_of_the_file(
    digits: TensorDataset,
) -> None:
    lines: list[str] = []
    trainer = make_trainer([Inner(lines), Outer(lines)], grad_accumulate=2)
    train = [
        EpochTask(loader_of(digits, 0, 5), name="day"),
        EpochTask(NoLength(loader_of(digits, 10, 2)), name="night"),
    ]
    val = [
        EpochTask(loader_of(digits, 20, 3), name="near", do_loss=False),
        EpochTask(loader_of(digits, 30, 2), name="far"),
    ]
    trainer.fit(train_tasks=train, val_tasks=val, val_freq=2)
    lines.append("")
    trainer.test(tasks=val)
    compare("whole", lines)


ENDINGS: dict[str, tuple[str, str, int]] = {
    "stopped_in_training": ("on_after_train_batch", "stop", 1),
    "stopped_before_a_batch": ("on_before_train_batch", "stop", 2),
    "stopped_at_last_train_batch": ("on_after_train_batch", "stop", 3),
    "stopped_in_validation": ("on_after_val_batch", "stop", 1),
    "stopped_at_last_val_batch": ("on_after_val_batch", "stop", 2),
    "stopped_after_epoch": ("on_after_epoch", "stop", 1),
    "stop_raised_before_fit": ("on_before_fit", "raise StopLoopException", 1),
    "stop_raised_before_epoch": ("on_before_epoch", "raise StopLoopException", 2),
    "stop_raised_before_pass": ("on_before_train_epoch", "raise StopLoopException", 1),
    "stop_raised_before_backward": ("on_before_backward", "raise StopLoopException", 2),
    "stop_raised_after_pass": ("on_after_train_epoch", "raise StopLoopException", 1),
    "interrupted_in_hook": ("on_after_train_batch", "raise KeyboardInterrupt", 1),
    "error_in_hook": ("on_after_train_batch", "raise RuntimeError", 1),
    "error_in_hook_of_backward": ("on_after_backward", "raise RuntimeError", 1),
    "error_before_fit": ("on_before_fit", "raise RuntimeError", 1),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_a_fit_that_a_hook_ends_has_the_trace_of_the_file(digits: TensorDataset, name: str) -> None:
    lines: list[str] = []
    hook, action, at = ENDINGS[name]
    trainer = make_trainer([Acting(lines, hook, action, at), Outer(lines)])
    train = EpochTask(loader_of(digits, 0, 6), name="day")
    val = EpochTask(loader_of(digits, 20, 4), name="near")
    tell_end(lines, trainer, lambda: trainer.fit(train_tasks=train, val_tasks=val))
    compare(name, lines)


@pytest.mark.parametrize(
    ("name", "action", "options"),
    [
        ("stop_raised_in_step", "raise StopLoopException", {}),
        ("interrupted_in_step", "raise KeyboardInterrupt", {}),
        ("interrupted_in_step_and_returned", "raise KeyboardInterrupt", {"on_interrupt": "return"}),
        ("error_in_step", "raise RuntimeError", {}),
    ],
)
def test_a_fit_that_a_step_ends_has_the_trace_of_the_file(
    digits: TensorDataset, name: str, action: str, options: dict[str, Any]
) -> None:
    lines: list[str] = []
    trainer = make_trainer([Outer(lines)], **options)
    train = ActingTask(loader_of(digits, 0, 6), name="day", action=action, lines=lines)
    tell_end(lines, trainer, lambda: trainer.fit(train_tasks=train))
    assert not torch.is_inference_mode_enabled() and torch.is_grad_enabled()
    assert trainer.run is None
    compare(name, lines)


@pytest.mark.parametrize(
    ("name", "action"),
    [
        ("test_stopped", "raise StopLoopException"),
        ("test_interrupted", "raise KeyboardInterrupt"),
        ("test_error", "raise RuntimeError"),
    ],
)
def test_a_test_that_a_hook_ends_has_the_trace_of_the_file(
    digits: TensorDataset, name: str, action: str
) -> None:
    lines: list[str] = []
    trainer = make_trainer([Outer(lines), Acting(lines, "on_after_test_batch", action)])
    task = EpochTask(loader_of(digits, 0, 6), name="day")
    tell_end(lines, trainer, lambda: {"test": {"loss": list(trainer.test(tasks=task))}})
    compare(name, lines)


def test_no_event_is_missing_from_the_traces_and_each_comes_in_declared_order() -> None:
    text = (FOLDER / "whole.txt").read_text()
    lines = [line.split()[0] for line in text.splitlines() if line]
    missing = {name for name in HOOKS if name.removeprefix("on_") not in lines}
    assert missing == {"on_exception"}
    first = {n: lines.index(n.removeprefix("on_")) for n in HOOKS if n not in missing}
    per_batch = [n for n in first if "train" in n or "backward" in n or "optimize" in n]
    per_batch = [n for n in per_batch if depth(n) >= 4 or "before" in n]
    # with accumulation the first optimizer step comes with the second mini-batch
    per_batch = [n for n in per_batch if "optimize" not in n]
    assert sorted(per_batch, key=first.__getitem__) == per_batch


def ending_of(name: str) -> list[str]:
    """The events of a trace after the one where it was decided that the run ends."""
    lines = (FOLDER / f"{name}.txt").read_text().splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("---"))
    return [line.split()[0] for line in lines[start + 1 :] if line.split()[0] in EVENTS]


EVENTS = {name.removeprefix("on_") for name in HOOKS}
REST = ["after_optimize", "train_metrics", "after_train_batch"]
BATCH = [
    "before_train_batch", "before_train_forward", "after_train_forward",
    "before_backward", "after_backward", "before_optimize", *REST,
]  # fmt: skip
PASS = ["after_train_epoch", "after_train_epochs"]
PART = ["after_epoch", "after_fit"]


@pytest.mark.parametrize(
    ("name", "events"),
    [
        # what docs/callbacks.md says about each ending
        ("stopped_in_training", ["after_train_batch", *PASS, *PART]),
        ("stopped_in_validation", ["after_val_batch", *PART]),
        ("stopped_at_last_train_batch", ["after_train_batch", *PASS, *PART]),
        (
            "stopped_at_last_val_batch",
            ["after_val_batch", "after_val_epoch", "after_val_epochs", "after_epoch", "after_fit"],
        ),
        ("stopped_after_epoch", ["after_epoch", "after_fit"]),
        ("stop_raised_before_fit", ["after_fit"]),
        ("stop_raised_before_epoch", ["after_fit"]),
        ("stop_raised_before_pass", [*BATCH, *PASS, *PART]),
        ("stop_raised_after_pass", [*PASS, *PART]),
        ("stop_raised_before_backward", ["after_backward", "before_optimize", *REST, *PASS, *PART]),
        ("stop_raised_in_step", ["after_fit"]),
        ("interrupted_in_step", ["after_fit"]),
        ("interrupted_in_step_and_returned", ["after_fit"]),
        ("interrupted_in_hook", ["after_fit"]),
        ("error_in_hook", ["exception"]),
        ("error_in_hook_of_backward", ["exception"]),
        ("error_before_fit", ["exception"]),
        ("error_in_step", ["exception"]),
        ("test_stopped", ["after_test_batch"]),
        ("test_interrupted", ["exception"]),
        ("test_error", ["exception"]),
    ],
)
def test_the_hooks_of_each_ending_are_those_of_the_documented_table(
    name: str, events: list[str]
) -> None:
    assert ending_of(name) == events
