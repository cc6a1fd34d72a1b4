"""Checks that train some steps: one mini-batch by heart, and the learning rate."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor

from ..callbacks.base import Callback
from ..data.routes import first_batch
from ..errors import DeepEpochsError
from ..fit.plan import as_task, plan_try
from ..fit.session import Kind
from ..loop import run_pass
from ..stages import Stage
from ..task import EpochTask
from .data import tensors_in
from .findings import Finding
from .look import Look, told

STEPS = 40  # on one mini-batch
FALL = 0.98
"""The share of its first loss that it must reach.

Most reach a half. But the cross-entropy of soft targets, such as grey pixels, has a floor which may
be just below the first loss.
"""
RATES = (1e-2, 1e-1, 1e-3, 1.0, 10.0, 1e-4)
"""Tried where the trainer's own rate does not get there. The large ones are for large targets."""
NOTHING = 1e-3  # a first loss below it was learnt before
MOST_WINDOWS = 8  # mini-batches of a window; with more, a mini-batch is not tried
SWEEP = 60  # mini-batches for the range of rates
WORSE = 3.0  # times the first loss of a mini-batch, after some steps on it
FAR = 1e4  # a rate so much below what the search suggests; for fine-tuning, 100 times is usual
FELL = 0.8  # the share of the first losses to which the search must get to say anything


class Watch(Callback):
    """Sets the rate of all optimizers, and ends where the loss has fallen enough."""

    def __init__(self, rate: float | None) -> None:
        super().__init__()
        self.rate = rate
        self.losses: list[float] = []

    def on_before_train_batch(self, trainer: Any, **_: Any) -> None:
        if self.rate is None:
            return
        for group in (group for groups in trainer.opt.param_groups for group in groups):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(self.rate)
            else:
                group["lr"] = self.rate

    def on_after_train_batch(self, trainer: Any, metrics: Any, **_: Any) -> None:
        if not trainer.run.weight:  # the loss may be 0/0
            trainer.stop("nothing is to be learnt")
            return
        self.losses.append(float(metrics["loss"]))
        if self.has_learnt or not math.isfinite(self.losses[-1]):
            trainer.stop("enough was seen")

    @property
    def has_learnt(self) -> bool:
        """Whether two losses in a row, which dropout makes differ, are well below the first."""
        if not self.losses:
            return True
        goal = FALL * self.losses[0]
        return any(max(pair) < goal for pair in pairwise(self.losses))


def one_batch_by_heart(look: Look) -> Iterator[Finding]:
    """Find a model that cannot learn even one mini-batch, at any usual rate.

    It is asked only of models with more weights than the mini-batch has targets, and of steps that
    the library makes: the loss of two networks against each other need not fall.
    """
    for seen in look.seen:
        losses = seen.probe.losses
        if seen.error is not None or not losses or not may_be_tried(look, seen.task):
            continue
        inputs, targets = seen.probe.batches[0]
        if any(x.requires_grad for x in tensors_in(inputs)):
            continue  # the samples are weights, which another data set has not
        num = targets.numel() if isinstance(targets, Tensor) else 0
        trained = sum(w.numel() for w in look.trainer.opt.params if w.requires_grad)
        if not losses[0] > NOTHING or not math.isfinite(losses[0]) or trained <= num:
            continue
        batch, tried = own_try(look, seen.task)
        watches = [tried]
        for rate in RATES:
            if watches[-1].has_learnt:
                break
            watches.append(learn(look, seen.task, batch, rate))
        if not watches[-1].has_learnt:
            finite = [x for watch in watches for x in watch.losses if math.isfinite(x)]
            yield Finding(
                "error",
                f"One mini-batch cannot be learnt by heart: in {STEPS} steps its loss goes from "
                f"{losses[0]:.4g} to {min(finite):.4g} at best, whatever the rate.",
                "Look for labels that do not belong to their inputs, for an end of the model that "
                "cuts the outputs off (ReLU, softmax, sigmoid), and for detach().",
            )


def may_be_tried(look: Look, task: EpochTask) -> bool:
    """Whether a task is one whose loss must fall on one mini-batch."""
    trainer = look.trainer
    return (
        look.is_plain(task)
        and len(trainer.opt) == 1
        and trainer.grad_accumulate <= MOST_WINDOWS
        and all(group.get("lr") is not None for group in trainer.opt[0].param_groups)
    )


def own_try(look: Look, task: EpochTask) -> tuple[Any, Watch]:
    """The first mini-batch of a task, and what the trainer's own rate makes of it; tried once."""
    if id(task) not in look.tries:
        batch = first_batch(task.dataloader, look.trainer.init_epoch)
        look.tries[id(task)] = batch, learn(look, task, batch, None)
    tried: tuple[Any, Watch] = look.tries[id(task)]
    return tried


def learn(look: Look, task: EpochTask, batch: Any, rate: float | None) -> Watch:
    """Train on one mini-batch, and put everything back."""
    times = STEPS * look.trainer.grad_accumulate
    watch = Watch(rate)
    again = as_task([batch] * times, "train_dl", task.batch_size)
    again = again if task.targets is None else EpochTask([batch] * times, targets=task.targets)
    plan = plan_try(look.trainer, [again])
    with told(), look.trainer.trying(Kind.CHECK, plan, watch) as session:
        run_pass(session, again, Stage.TRAIN)
    return watch


def learning_rate(look: Look) -> Iterator[Finding]:
    """Find a rate at which the loss rises, or one far below the range of ``find_lr``."""
    if look.failed or look.is_steered or len(look.training) != 1:
        return
    if not may_be_tried(look, look.training[0]):
        return
    if not (losses := look.seen[0].probe.losses) or not math.isfinite(losses[0]):
        return
    watch = own_try(look, look.training[0])[1]
    groups = look.trainer.opt[0].param_groups
    rate = max(float(group["lr"]) for group in groups)
    try:
        with told():
            curve = look.trainer.find_lr(train_tasks=look.training[0], max_batch=SWEEP)
            suggested = curve.suggestion.valley
    except DeepEpochsError:
        suggested = None  # the losses of the search say nothing
    if not watch.has_learnt and (text := rises(watch.losses, rate)) is not None:
        advice = "" if suggested is None else f" trainer.find_lr suggests {suggested:.2g}."
        yield Finding("error", text, f"Lower the rate.{advice}")
    elif (
        suggested is not None
        and look.trainer.opt[0].scheduler is None
        and is_far_below(rate, suggested, curve.losses)
    ):
        yield Finding(
            "warning",
            f"The rate {rate:.2g} is far below those at which the loss falls.",
            f"trainer.find_lr suggests {suggested:.2g}.",
        )


def rises(losses: Sequence[float], rate: float) -> str | None:
    """Say that the loss of one mini-batch rises as it is trained on, or is not finite any more.

    >>> rises([2.3, 9.0, 30.0, 44.0, 51.0], 10.0)
    'At the rate 10 the loss of one mini-batch rises in 5 steps from 2.3 to 41.7.'
    >>> rises([2.3, 2.4, 2.2, 2.5, 2.1], 0.1) is None
    True
    """
    told = f"At the rate {rate:.3g} the loss of one mini-batch rises in {len(losses)} steps from "
    if not math.isfinite(losses[-1]):
        return f"{told}{losses[0]:.3g} to {losses[-1]}."
    mean = sum(losses[-3:]) / 3
    if len(losses) < 5 or losses[0] <= 0 or mean < WORSE * losses[0] + 1:
        return None
    return f"{told}{losses[0]:.3g} to {mean:.3g}."


def is_far_below(rate: float, suggested: float, losses: Sequence[float]) -> bool:
    """Whether a rate is far below one at which the loss clearly falls.

    >>> is_far_below(1e-7, 0.05, [2.3, 2.3, 2.3, 2.2, 1.6, 1.1, 1.5])
    True
    >>> is_far_below(1e-5, 0.05, [2.3, 2.3, 2.3, 2.2, 1.6, 1.1, 1.5])
    False
    """
    start = sum(losses[:3]) / 3
    return rate * FAR < suggested and min(losses) < FELL * start
