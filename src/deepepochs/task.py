"""EpochTask: one pass over one loader, with its own step and metrics.

::

    task = EpochTask(night_dl, metrics=[accuracy], name="night", temperature=2.0)
    trainer.fit(train_dl, val_tasks=[task])     # night/loss, night/accuracy
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from .arguments import check_batch_size, check_flag, check_targets, with_hints
from .contracts import TrainerView
from .errors import ConfigError, ConfigTypeError, NotBoundError
from .hints.roles import TABLE, named, role_of
from .nest.operations import describe
from .nest.samples import BatchSize
from .optim.optimizers import Optimizers
from .patches import PatchBase
from .patches.base import metric_name
from .patches.plan import Metric, check_metrics
from .run import Run
from .runtime.base import Runtime
from .stages import Stage
from .steps import Steps

__all__ = ["EpochTask"]

VERBS = ("loss", "backward", "optimize", "do_metric", "record", "call_model")


# What a task has, and `dir` does not show: names of release 0.6, and what the loop asks of a task.
UNLISTED = frozenset([
    "batch_patch_dict", "batchs", "bind", "current_batch_size", "enter", "label", "over", "read_from",
    "runtime", "val_freq",
])  # fmt: skip


class EpochTask(Steps):
    """One pass over one loader, in any stage, with its own step and metrics.

    Args:
        dataloader: a ``DataLoader``, or any iterable of mini-batches that can be
            walked again.
        metrics: one metric or a list, computed before those of the stage.
        do_loss: compute the loss in validation and test; training always does.
        batch_size: weight of a mini-batch in means and in ``grad_accumulate``: a number from
            0, a function ``(batch_x, batch_y)`` that gives one, or ``None`` to have the samples
            counted.
        name: prefix of this task's own metrics where a stage has several tasks;
            ``None`` takes its index.
        targets: the name of the entry of a dict mini-batch that is ``batch_y``; ``None``: as the
            trainer's ``targets`` says.
        **step_args: handed to every step as keyword arguments.

    Raises:
        ConfigError: an argument that cannot be right.
    """

    run: Run | None = None
    """The pass that runs now, or ``None``."""

    read_from: Any = None
    """The loader that gave the mini-batches of ``dataloader``; ``None``: ``dataloader`` itself."""

    @with_hints
    def __init__(
        self,
        dataloader: Iterable[Any],
        metrics: Metric | Sequence[Metric] | None = None,
        do_loss: bool = True,
        batch_size: BatchSize = None,
        *,
        name: str | None = None,
        targets: str | None = None,
        **step_args: Any,
    ) -> None:
        check_loader(dataloader, f"{type(self).__name__}(dataloader)")
        check_batch_size(batch_size)
        if name is not None and (not isinstance(name, str) or not name or "/" in name):
            raise ConfigError(f"name={name!r}: give a text without '/', or None for the index.")
        self.dataloader = dataloader
        self.metrics = check_metrics(metrics, "metrics")
        self.do_loss = check_flag("do_loss", do_loss)
        self.batch_size = batch_size
        self.name = name
        self.targets = check_targets(targets)
        inner = step_args.pop("step_args", None)
        if inner is not None and not isinstance(inner, Mapping):
            raise ConfigTypeError(f"step_args={inner!r} is {describe(inner)}: give a dict.")
        self.step_args: dict[str, Any] = {**(inner or {}), **step_args}
        self._trainer: TrainerView | None = None

    def __dir__(self) -> list[str]:
        return [name for name in super().__dir__() if name not in UNLISTED]

    def enter(self, run: Run | None) -> None:
        """Take the pass that runs now; ``None`` when it is over."""
        self.run = run

    def bind(self, trainer: TrainerView) -> None:
        """Take a trainer, whose model, loss, optimizers and run the task uses.

        A verb such as ``optimize`` that the trainer's class overrides and the task's
        does not is the trainer's.
        """
        self._trainer = trainer
        for verb in VERBS:
            vars(self).pop(verb, None)
            plain = getattr(Steps, verb)
            if getattr(type(self), verb) is plain and getattr(type(trainer), verb) is not plain:
                setattr(self, verb, getattr(trainer, verb))

    def over(self, dataloader: Iterable[Any]) -> EpochTask:
        """Give a copy of the task that walks another loader."""
        twin = copy.copy(self)
        twin.dataloader, twin.read_from = dataloader, self.dataloader
        return twin

    def label(self, index: int) -> str:
        """The prefix of this task's metrics: its name, or else its index."""
        if "step_args" not in vars(self):
            raise ConfigError(
                f"{type(self).__name__}.__init__ did not call super().__init__(dataloader, ...)."
            )
        return str(index) if self.name is None else self.name

    def __repr__(self) -> str:
        kind = type(self).__name__
        if "step_args" not in vars(self):
            return f"{kind} without super().__init__(dataloader, ...)"
        size = "?" if self.length is None else self.length
        unit = "mini-batch" if size == 1 else "mini-batches"
        parts = [f"{size} {unit} of {type(self.dataloader).__name__}"]
        parts += [f"metrics: {', '.join(map(metric_name, self.metrics))}"] if self.metrics else []
        parts += [] if self.run is None else [f"runs in {self.run.stage}"]
        name = "" if self.name is None else f" {self.name!r}"
        return f"{kind}{name}: {'; '.join(parts)}"

    def __len__(self) -> int:
        return len(self.dataloader)  # type: ignore[arg-type]

    def __bool__(self) -> bool:
        return True

    def __call__(self) -> dict[str, Any]:
        """Run the pass in the present stage and give ``{name: value}``."""
        return self.trainer.run_task(self, self.trainer.stage or Stage.TEST)

    @property
    def length(self) -> int | None:
        """Number of mini-batches; ``None`` if the loader does not know."""
        try:
            return len(self)
        except (TypeError, NotImplementedError):
            return None

    @property
    def batchs(self) -> int:
        """Number of mini-batches; the name of release 0.6."""
        return len(self)

    @property
    def trainer(self) -> TrainerView:
        """The trainer that runs this task."""
        if self._trainer is None:
            raise NotBoundError(
                f"This {type(self).__name__} has no trainer yet: model, loss and the like are there "
                "once it has been given to fit() or test()."
            )
        return self._trainer

    @property
    def model(self) -> nn.Module:
        """The trainer's model."""
        return self.trainer.model

    @property
    def loss_fn(self) -> Any:
        """The trainer's loss function."""
        return self.trainer.loss_fn

    @property
    def opt(self) -> Optimizers:
        """The trainer's optimizers."""
        return self.trainer.opt

    @property
    def device(self) -> torch.device:
        """The trainer's device."""
        return self.trainer.device

    @property
    def accelerator(self) -> Any:
        """The trainer's ``Accelerator``, or ``None``."""
        return self.trainer.accelerator

    @property
    def runtime(self) -> Runtime:
        """The trainer's runtime."""
        return self.trainer.runtime

    @property
    def main_process(self) -> bool:
        """Whether this is the process that prints and writes."""
        return self.trainer.main_process

    @property
    def stage(self) -> Stage | None:
        """What the pass that runs now is for."""
        return self.trainer.stage

    @property
    def val_freq(self) -> int:
        """Epochs from one validation to the next."""
        return self.trainer.val_freq

    @property
    def current_batch_size(self) -> float:
        """The weight of the present mini-batch."""
        return self._run.weight

    @property
    def batch_patch_dict(self) -> dict[str, PatchBase]:
        """The patches recorded for the present mini-batch."""
        return self._run.batch_patches


def check_loader(loader: object, where: str) -> None:
    """Raise ``ConfigTypeError`` unless ``loader`` can be walked more than once."""
    text = _no_loader(loader, where)
    if text is not None:
        raise ConfigTypeError(f"{where} is {text}.")


def _model_as_loader(kind: str, where: str) -> str:
    call = "fit(train_dl, val_dl)" if where in ("train_dl", "val_dl") else "test(test_dl)"
    return f"a model, {kind}: the model belongs in Trainer(model, loss, opt), and the loaders in {call}"


def _no_loader(loader: Any, where: str) -> str | None:
    """Say what a thing is that is no loader, and how to make one of it; ``None`` for a loader."""
    if isinstance(loader, DataLoader):
        return None
    kind = type(loader)
    package = kind.__module__.partition(".")[0]
    if isinstance(loader, type):
        return f"the class {loader.__name__}: give an object"
    if isinstance(loader, Dataset) and not isinstance(loader, IterableDataset):
        return (
            f"a data set, {kind.__name__}: wrap it, for example DataLoader(dataset, batch_size=32)"
        )
    if isinstance(loader, torch.nn.Module):
        return _model_as_loader(kind.__name__, where)
    if package == "datasets":  # of Hugging Face, whose data sets would be walked by samples
        return (
            f"a data set, {kind.__name__}: wrap it, for example "
            "DataLoader(dataset.with_format('torch'), batch_size=32)"
        )
    if isinstance(loader, (torch.Tensor, np.ndarray)) or _is_pair_of_data(loader):
        return f"{describe(loader)}, and no loader: {_wrapped(loader, where)}"
    if role_of(loader) == TABLE:
        return (
            f"a table ({kind.__name__}), and no loader: make tensors of its columns, such as inputs = "
            "torch.tensor(table[columns].to_numpy(), dtype=torch.float32), and give "
            "DataLoader(TensorDataset(inputs, targets), batch_size=32)"
        )
    if isinstance(loader, (list, tuple)) and any(
        issubclass(kind, DataLoader) for kind in set(map(type, loader))
    ):
        return (
            f"a {kind.__name__} of loaders: make an EpochTask of each and give those, for "
            "example train_tasks=[EpochTask(one), EpochTask(other)]"
        )
    if isinstance(loader, (str, bytes, Mapping)) or not hasattr(kind, "__iter__"):
        epochs = (
            f"for a number of epochs write epochs={loader}; " if isinstance(loader, int) else ""
        )
        return f"{named(loader)}: {epochs}give a DataLoader or another iterable of mini-batches"
    if hasattr(kind, "__next__"):
        return f"{describe(loader)}, which can be walked only once: give the DataLoader itself, or a list"
    return None


def _is_pair_of_data(given: object) -> bool:
    """Whether inputs and targets are given, which two mini-batches of one loader would not be."""
    if not isinstance(given, (list, tuple)) or len(given) != 2:
        return False
    one, other = given
    if not all(isinstance(part, (torch.Tensor, np.ndarray)) and part.ndim for part in given):
        return False
    is_other_kind = one.ndim != other.ndim or one.dtype != other.dtype
    return is_other_kind and len(one) == len(other)


def _wrapped(given: Any, where: str) -> str:
    first = given[0] if isinstance(given, (list, tuple)) else given
    names = ("inputs", "targets")
    if isinstance(first, np.ndarray):
        dtype = ", dtype=torch.float32" if first.dtype == np.float64 else ""
        names = (f"torch.as_tensor(inputs{dtype})", "torch.as_tensor(targets)")
    shuffle = ", shuffle=True" if where == "train_dl" else ""
    return f"give DataLoader(TensorDataset({', '.join(names)}), batch_size=32{shuffle})"
