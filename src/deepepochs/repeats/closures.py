"""Optimizer steps with a closure, a function that computes loss and gradients of a mini-batch.

The optimizer calls it, once or several times, and moves the weights in between: so do LBFGS and
the two passes of SAM.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import ConfigError, StepError
from ..hooks import fire_in_step
from ..nest.operations import describe
from ..optim.optimizers import WITH_CLOSURE, Optimizer
from ..run import Run


def check_closures(trainer: Any, kind: str) -> None:
    """Raise ``ConfigError`` if a trainer is to do what steps of a kind of optimizer cannot."""
    size = trainer.grad_accumulate
    if size > 1:
        raise ConfigError(
            f"grad_accumulate={size} does not work with {kind}, which computes the loss of a "
            "mini-batch several times in a step: the mini-batches before it would be gone. Give the "
            f"loader mini-batches of {size} times the size, and cut them in the closure if they do not fit."
        )
    _check_precision(trainer.runtime, kind)


def _check_precision(runtime: Any, kind: str) -> None:
    if runtime.scaler is not None:
        raise ConfigError(
            f"precision='fp16' does not work with a closure ({kind}): its gradient scaler may leave out "
            "a step that the optimizer has begun. Give precision='bf16', or none."
        )


def default_step(task: Any) -> Callable[..., None]:
    """Give the default training step, made for an optimizer that needs a closure."""

    def step(batch_x: Any, batch_y: Any, **_: Any) -> None:
        def closure() -> Any:
            return task.loss(task.call_model(batch_x), batch_y, do_optimize=False)

        task.optimize(closure=closure)

    return step


def step_with_closure(
    run: Run, chosen: Sequence[Optimizer], index: int | None, closure: Callable[[], Any]
) -> None:
    """Step one optimizer, which calls the closure; it counts as one step.

    Raises:
        ConfigError: the optimizer is one of several, or accumulates or scales its gradients.
        StepError: the closure does not return the loss.
    """
    if len(chosen) > 1:
        raise ConfigError(
            f"A closure is for one optimizer, and there are {len(chosen)}: write a step of your own, "
            "with self.optimize(index, closure=...) for each that needs one."
        )
    if run.window is not None and (run.window.size > 1 or run.window.waits(chosen, index)):
        raise ConfigError(
            "Gradients are accumulated over several mini-batches, and self.optimize(closure=...) computes "
            "those of one: leave out grad_accumulate (or accelerator.accumulate)."
        )
    optimizer = chosen[0]
    _check_precision(run.trainer.runtime, optimizer.kind)
    run.make_step(chosen, Evaluations(run, optimizer, index, closure))
    if run.hooks.after_optimize:
        fire_in_step(run.hooks.after_optimize, run.trainer, optimize_index=index)


class Evaluations:
    """A closure as an optimizer gets it: the same loss and gradients in all processes, hooks called.

    The first evaluation of a mini-batch is recorded, the later ones are not.
    """

    def __init__(
        self, run: Run, optimizer: Optimizer, index: int | None, closure: Callable[[], Any]
    ) -> None:
        self.run = run
        self.optimizer = optimizer
        self.index = index
        self.closure = closure
        self.is_first = True

    def __call__(self) -> Tensor:
        run, hooks, runtime = self.run, self.run.hooks, self.run.trainer.runtime
        self.optimizer.drop_gradients()
        with torch.enable_grad():
            if self.is_first:
                self.is_first = False
                loss = self.closure()
            else:
                with run.unrecorded(Unrecorded(run)):
                    loss = self.closure()
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            raise StepError(
                f"The closure given to self.optimize() returned {describe(loss)}, and the optimizer needs "
                f"the loss. Write: {WITH_CLOSURE}."
            )
        if run.rounds is not None:
            runtime.join_gradients([self.optimizer], has_samples=run.rounds.has_samples)
            # The optimizer decides by it, and must decide alike in all processes.
            loss = loss.new_tensor(run.rounds.mean(float(loss)))
        if hooks.before_optimize:
            fire_in_step(hooks.before_optimize, run.trainer, optimize_index=self.index)
        return loss.detach()


class Unrecorded:
    """Takes the place of a pass's recorder and losses where a mini-batch is computed again."""

    plan = ()
    is_wanted = False

    def __init__(self, run: Run) -> None:
        self.step_name = run.recorder.step_name
        self.scale = run.losses.scale

    def see(self, loss: Tensor, batch_idx: int) -> None:
        """Let a loss pass: a line search may try weights at which it is infinite."""

    def record_loss(self, loss: Any) -> None:
        """Record nothing."""
