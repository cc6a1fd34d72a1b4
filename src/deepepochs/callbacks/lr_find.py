"""Finds a good learning rate: raises it with each mini-batch, and records the losses.

::

    curve = trainer.find_lr(train_dl)
    curve.suggestion.valley             # a rate to start with
    curve.plot().savefig("rates.png")

``LRFindCallback`` does the same at the start of a fit, and then ends the fit.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..arguments import check_count
from ..errors import CallbackException, ConfigError
from ..show.figures import can_show, is_inline
from ..show.lr_curve import LRCurve
from .base import Callback

if TYPE_CHECKING:
    from ..contracts import TrainerView

LATEST = 5  # the mean of so many losses is looked at: one mini-batch says little
WORSE = 10.0  # a mean of this many times the best one ends the search


class LRSweep(Callback):
    """Raises the rate of one optimizer before each mini-batch, and records the losses.

    Mini-batch i (from 0, over all epochs) gets ``min_lr * (max_lr / min_lr)^((i + 1) /
    max_batch)``. The first parameter group gets this rate; the ratios of the other groups'
    rates to it do not change.
    """

    order = 1000
    acts_in_tries = True
    meets_fillers = True  # all processes take part in the mean of each loss

    def __init__(self, max_batch: int, min_lr: float, max_lr: float, opt_id: int) -> None:
        super().__init__()
        self.max_batch = max_batch
        self.min_lr = min_lr
        self.max_lr = max_lr
        self.opt_id = opt_id
        self.lrs: list[float] = []
        self.losses: list[float] = []
        self.done = False
        self._best = math.inf
        self._num_empty = 0  # mini-batches that weigh nothing
        self._ratios: list[float] = []

    def on_before_train_batch(self, trainer: TrainerView, **others: Any) -> None:
        if self.done:  # several processes stop some mini-batches later
            return
        groups = trainer.opt[self.opt_id].param_groups
        if not self._ratios:
            first = float(groups[0]["lr"])
            self._ratios = [float(group["lr"]) / first if first else 1.0 for group in groups]
        lr = self.min_lr * (self.max_lr / self.min_lr) ** ((len(self.lrs) + 1) / self.max_batch)
        for group, ratio in zip(groups, self._ratios, strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(lr * ratio)
            else:
                group["lr"] = lr * ratio
        self.lrs.append(lr)

    def on_after_train_batch(self, trainer: TrainerView, metrics: Any, batch_idx: int) -> None:
        if self.done:
            return
        if "loss" not in metrics:
            raise CallbackException(
                "The learning-rate search needs a loss, and the training step recorded none: call "
                "self.loss(model_out, batch_y) in it."
            )
        loss = loss_of_all(trainer, float(metrics["loss"]))
        if loss is None:
            self.lrs.pop()  # no sample has met this rate: the next mini-batch tries it
            self._num_empty += 1
            is_over = self._num_empty >= self.max_batch
        else:
            self.losses.append(loss)
            latest = self.losses[-LATEST:]
            mean = sum(latest) / len(latest)
            self._best = min(self._best, mean)
            is_worse = mean > WORSE * self._best > 0
            is_over = len(self.lrs) >= self.max_batch or is_worse or not math.isfinite(loss)
        if is_over:
            self.done = True
            trainer.stop("learning rates tried")


def loss_of_all(trainer: TrainerView, loss: float) -> float | None:
    """Return the mean loss of all processes, which must all stop at the same rate.

    It is ``None`` where their mini-batches weigh nothing.
    """
    run, runtime = trainer.run, trainer.runtime
    if run is None:
        return loss
    weight = 0.0 if run.is_filler else float(run.weight)
    of_this = [loss * weight if weight else 0.0, weight]
    total, weights = runtime.total(of_this, "notes a loss")
    if runtime.num_processes == 1:
        return loss if weight else None
    return total / weights if weights else None


class LRFindCallback(Callback):
    """Finds a learning rate on the data of a fit, and ends the fit.

    Weights, optimizers, schedulers, random states and the order of the data are restored
    afterwards. The plot is shown if there is a display, and written to ``lr_find.png`` in the
    run's folder.

    Args:
        max_batch: mini-batches to try; short epochs are repeated.
        min_lr: the first rate is just above it.
        max_lr: the last rate. The search ends earlier where the mean of five losses is ten
            times the best one.
        opt_id: the index of the optimizer, if the trainer has several.

    Attributes:
        lrs: the rates.
        losses: the loss at each rate.
        curve: both, with ``.suggestion`` and ``.plot()``; ``None`` before the fit.

    Raises:
        ConfigError: an argument has a wrong value.
        CallbackException: in a fit, the trainer has several optimizers and ``opt_id`` is
            ``None``.
    """

    def __init__(
        self,
        max_batch: int = 100,
        min_lr: float = 1e-6,
        max_lr: float = 5,
        opt_id: int | None = None,
    ) -> None:
        super().__init__()
        check_range(max_batch, min_lr, max_lr)
        self.max_batch = max_batch
        self.min_lr = min_lr
        self.max_lr = max_lr
        self.opt_id = opt_id
        self.curve: LRCurve | None = None
        self.lrs: list[float] = []
        self.losses: list[float] = []

    def on_before_train_epochs(self, trainer: TrainerView, tasks: Any, epoch_idx: int) -> None:
        if self.opt_id is None and len(trainer.opt) > 1:
            raise CallbackException(
                f"The trainer has {len(trainer.opt)} optimizers: choose one with "
                f"LRFindCallback(opt_id=0) to {len(trainer.opt) - 1}."
            )
        self.curve = trainer.find_lr(
            train_tasks=list(tasks),
            max_batch=self.max_batch,
            min_lr=self.min_lr,
            max_lr=self.max_lr,
            opt_id=self.opt_id,
        )
        self.lrs, self.losses = self.curve.lrs, self.curve.losses
        if trainer.main_process:
            show_curve(trainer, self.curve)
        trainer.stop("learning rates tried; the model is unchanged")


def show_curve(trainer: TrainerView, curve: LRCurve) -> None:
    """Write the plot of a curve to the run's folder, and show it if there is a display."""
    path = trainer.run_dir / "lr_find.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    curve.plot().savefig(path)  # a notebook shows this one below the cell
    trainer.note(f"learning rates and losses: {path}")
    if can_show() and not is_inline():
        import matplotlib.pyplot as plt

        curve.plot(plt.figure(layout="constrained"))
        plt.show()


def check_range(max_batch: int, min_lr: float, max_lr: float) -> None:
    """Raise ``ConfigError`` unless 0 < min_lr < max_lr and there is a mini-batch."""
    check_count("max_batch", max_batch, 1)
    if not (0 < min_lr < max_lr and math.isfinite(max_lr)):
        raise ConfigError(
            f"min_lr={min_lr!r}, max_lr={max_lr!r}: the rates rise from one to the other; give "
            "0 < min_lr < max_lr."
        )
