"""Trying something on a trainer and leaving no trace: snapshot, try, restore.

::

    curve = trainer.find_lr(train_dl)
    trainer.fit(train_dl)               # as if nothing had been tried, to the bit
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from .. import rng
from ..arguments import as_list
from ..callbacks.base import Callback
from ..callbacks.pool import CallbackPool
from ..data.cursor import Cursor
from ..errors import ConfigError, LoopException
from ..loop import run_task
from ..nest.batch import BatchSize
from ..optim.optimizers import Optimizer, Optimizers
from ..patches.totals import StageTotals
from ..stages import Stage
from ..task import EpochTask
from .epochs import Fitting
from .plan import FitPlan, as_task

if TYPE_CHECKING:
    from ..show.lr_curve import LRCurve
    from ..state.strict import Part

__all__ = ["Trials"]

TRIED = ("model", "loss_fn", "other_weights", "extras", "optimizers", "gradients")
"""The parts of the state that a try may change; all others are kept away from it."""


class Trials(Fitting):
    """What a trainer can try without a trace."""

    loss_fn: Any

    def parts(self) -> dict[str, Part]:
        """The parts of the state by name."""
        raise NotImplementedError

    def find_lr(
        self,
        train_dl: Any = None,
        max_batch: int = 100,
        min_lr: float = 1e-6,
        max_lr: float = 5,
        opt_id: int | None = None,
        *,
        train_tasks: Any = None,
        batch_size: BatchSize = None,
    ) -> LRCurve:
        """Train with a rising learning rate, note the losses, and put everything back.

        Weights, optimizers, schedulers, gradients, random states and the order of the data
        are afterwards as they were; callbacks (but gradient clipping, which stays on),
        history and progress take no part, and schedulers rest.

        Args:
            train_dl: training loader; exactly one of it and ``train_tasks`` is given.
            max_batch: mini-batches to try; short epochs are repeated.
            min_lr: below the first rate.
            max_lr: the last rate. A loss of ten times the best one ends the search before it.
            opt_id: which optimizer, where the trainer has several; the others keep their rates.
            train_tasks: an ``EpochTask`` or a list.
            batch_size: weight of a mini-batch, as in ``fit``.

        Returns:
            The curve, with ``.lrs``, ``.losses``, ``.suggestion`` (``.steepest``, ``.valley``) and
            ``.plot()``.

        Raises:
            LoopException: neither or both of ``train_dl`` and ``train_tasks``.
            ConfigError: another argument that cannot be right; a model with lazy layers that
                have not been called yet.
        """
        from ..callbacks.lr_find import LRSweep, check_range
        from ..show.lr_curve import LRCurve

        check_range(max_batch, min_lr, max_lr)
        if (train_dl is None) == (train_tasks is None):
            raise LoopException("find_lr() takes one of train_dl and train_tasks.")
        tasks = as_list("train_tasks", train_tasks, EpochTask)
        if train_dl is not None:
            tasks = [as_task(train_dl, "train_dl", batch_size)]
        if opt_id is None and len(self.opt) == 1:
            opt_id = 0
        if opt_id is None or not 0 <= opt_id < len(self.opt):
            raise ConfigError(
                f"opt_id={opt_id!r}: the trainer has {len(self.opt)} optimizers, so give 0 to "
                f"{len(self.opt) - 1}."
            )
        sweep = LRSweep(max_batch, min_lr, max_lr, opt_id)
        with self._trying(tasks, sweep):
            while not sweep.done:
                for index, task in enumerate(tasks):
                    run_task(self._trainer, task, Stage.TRAIN, (index, len(tasks)))
        return LRCurve(sweep.lrs, sweep.losses)

    @contextmanager
    def _trying(self, tasks: Sequence[EpochTask], watcher: Callback) -> Iterator[None]:
        """Let the block run training passes; put back all that they change."""
        from ..state.strict import load_parts

        self._refuse_lazy_layers()
        before = {
            name: copy.deepcopy(part.state_dict())
            for name, part in self.parts().items()
            if name in TRIED
        }
        buffers = [(buffer, buffer.clone()) for buffer in self._hidden_buffers()]
        moments = [Cursor(task.dataloader).state_dict() for task in tasks]
        random = rng.get_state()
        outer = self._set_aside(watcher)
        plan = FitPlan({Stage.TRAIN: list(tasks)}, {Stage.TRAIN: []}, "tensor")
        try:
            self.opt.drop_gradients()
            with self._acting(plan):
                yield
        finally:
            vars(self).update(outer)
            # Collected anew: an optimizer may have given a tensor another storage.
            parts = self.parts()
            load_parts({name: parts[name] for name in before}, before)
            with torch.no_grad():
                for buffer, value in buffers:
                    buffer.copy_(value)
            for task, moment in zip(tasks, moments, strict=True):
                Cursor(task.dataloader).load_state_dict(moment)
            rng.set_state(random)

    def _set_aside(self, watcher: Callback) -> dict[str, Any]:
        """Give the trial a session of its own; return what was there before."""
        from ..callbacks.grad_clip import GradClipCallback

        outer = {
            name: vars(self)[name]
            for name in (
                "callbacks", "opt", "on_nan", "epoch", "run", "stop_reason",
                "_progress", "_totals", "_savers", "_requests",
            )
        }  # fmt: skip
        clipping = [cbk for cbk in self.callbacks if isinstance(cbk, GradClipCallback)]
        self.callbacks = CallbackPool([*clipping, watcher])
        # A scheduler may know how many steps it is to make, and object to more.
        self.opt = Optimizers(Optimizer(optimizer.opt) for optimizer in self.opt)
        self.on_nan = "ignore"
        self.epoch = self.run = self.stop_reason = None
        self._totals = StageTotals()
        self._savers, self._requests = [], []
        return outer

    def _hidden_buffers(self) -> list[torch.Tensor]:
        """The buffers that a state does not hold."""
        modules = [self.model, *([self.loss_fn] if isinstance(self.loss_fn, nn.Module) else [])]
        hidden = []
        for module in modules:
            saved = {id(value) for value in module.state_dict(keep_vars=True).values()}
            hidden += [buffer for buffer in module.buffers() if id(buffer) not in saved]
        return hidden

    def _refuse_lazy_layers(self) -> None:
        if any(nn.parameter.is_lazy(weight) for weight in self.model.parameters()):
            raise ConfigError(
                "The model has lazy layers whose weights are not there yet, so they cannot be put "
                "back: call the model on one mini-batch first."
            )
