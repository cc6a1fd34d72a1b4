"""What a step is made of: the five step methods, and the verbs they call.

``Steps`` is the base of trainers and tasks. A step handles one mini-batch::

    class MyTask(EpochTask):
        def step(self, batch_x, batch_y, **step_args):
            model_out = self.model(*batch_x)
            self.loss(model_out, batch_y)

The second line has a long form, which gives the same bits::

            value = self.loss_fn(model_out, batch_y)
            self.backward(value)
            self.optimize()
            self.do_metric(value, model_out, batch_y)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .arguments import with_hints
from .errors import NotBoundError, warn_user
from .faults.first_batch import look_at_loss, look_at_pair
from .faults.returned import no_place_to_record, no_such_optimizer, not_a_loss
from .faults.words import DEFAULT_STEP
from .hints.attributes import missing_attribute
from .hints.near import nearest
from .hooks import fire_in_step
from .nest import operations as nested
from .nest.operations import TensorTuple
from .run import Run
from .runtime.base import ENGINE_OPTIONS
from .stages import Stage

STEP_NAMES: dict[Stage, tuple[str, ...]] = {
    Stage.TRAIN: ("step", "train_step"),
    Stage.VAL: ("step", "val_step", "evaluate_step"),
    Stage.TEST: ("step", "test_step", "evaluate_step"),
}
"""The step methods that can serve a stage, the first defined one wins."""

_MEANT = {
    "training_step": "train_step",
    "validation_step": "val_step",
    "valid_step": "val_step",
    "eval_step": "evaluate_step",
    "evaluation_step": "evaluate_step",
    "testing_step": "test_step",
}


class Steps:
    """The step methods and their verbs, shared by trainers and tasks.

    Override one or more of ``step`` (all stages), ``train_step``, ``val_step``,
    ``test_step``, ``evaluate_step`` (validation and test). A task's beat a
    trainer's; within one of them ``step`` comes first and ``evaluate_step`` last.
    """

    _set_by_init = ""  # the first attribute that __init__ sets, where a lack of it is told

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        warn_of_misspelt(cls, Steps)

    if TYPE_CHECKING:

        @property
        def model(self) -> nn.Module:
            """The model that is trained."""

        @property
        def run(self) -> Run | None:
            """The pass that runs now; steps record into it."""

    else:
        # A type checker must not see this method: it would let any misspelt name pass.
        def __getattr__(self, name: str) -> Any:
            """Raise for an attribute that is not there, and say what is meant by it."""
            if hasattr(type(self), name):  # a property, which has failed: its own error
                return object.__getattribute__(self, name)
            raise missing_attribute(self, name)

    @property
    def _run(self) -> Run:
        """The pass that runs now, or an error that says that there is none."""
        if self.run is None:
            raise NotBoundError(
                f"{type(self).__name__}: loss, backward, optimize and do_metric belong inside a "
                "step or a hook of a running pass. Start one with fit() or test()."
            )
        return self.run

    def step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> Any:
        """Handle one mini-batch in any stage.

        Args:
            batch_x: the inputs, always a tuple (or the dict that the loader yielded).
            batch_y: the target: the last element of what the loader yielded.
            **step_args: the keyword arguments of the ``EpochTask``.

        Returns:
            ``None``, or ``{name: value}`` to be recorded beside the loss and the metrics. A
            value is a patch, or a number or 0-d tensor: a mean over the mini-batch, which
            weighs what the loss weighs.
        """
        self.loss(self.call_model(batch_x), batch_y)

    def train_step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> Any:
        """Handle one mini-batch in training; see ``step``."""
        self.loss(self.call_model(batch_x), batch_y)

    def val_step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> Any:
        """Handle one mini-batch in validation; see ``step``."""
        self.loss(self.call_model(batch_x), batch_y)

    def test_step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> Any:
        """Handle one mini-batch in a test; see ``step``."""
        self.loss(self.call_model(batch_x), batch_y)

    def evaluate_step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> Any:
        """Handle one mini-batch in validation or a test; see ``step``."""
        self.loss(self.call_model(batch_x), batch_y)

    def call_model(self, batch_x: Any) -> Any:
        """Call the model: a dict as keyword arguments, a tuple as several arguments."""
        # A tuple first: a look at an abstract class costs more than all the rest here.
        run = self.run
        model = self.model if run is None else run.trainer.model
        if type(batch_x) is TensorTuple or isinstance(batch_x, tuple):
            return model(*batch_x)
        return model(**batch_x)

    def loss(
        self,
        model_out: Any,
        batch_y: Any,
        *,
        loss_adjust: float = 1.0,
        do_optimize: bool = True,
        do_metric: bool = True,
    ) -> Tensor | None:
        """Compute the loss of a mini-batch; in training also step; record loss and metrics.

        Args:
            model_out: what the model returned.
            batch_y: the target.
            loss_adjust: the share of a sub-batch in its mini-batch, so that summed
                gradients are those of the whole.
            do_optimize: step the optimizers (training only).
            do_metric: record loss and metrics.

        Returns:
            The loss, unscaled, in training still attached to its graph; ``None`` in
            validation and test where ``do_loss`` is off.

        Raises:
            StepError: a loss that is not a scalar tensor; outputs and targets that do not fit.
        """
        run = self.run or self._run
        value: Tensor | None = None
        if run.is_training or run.task.do_loss:
            if not run.batch_idx:
                look_at_pair(run.trainer.tell_once, run.trainer.loss_fn, model_out, batch_y)
            value = run.trainer.loss_fn(model_out, batch_y)
            if value is None:
                raise not_a_loss(run.recorder.step_name, value, run.trainer)
        if run.is_training:
            self.backward(value, loss_adjust=loss_adjust)
            if do_optimize:
                self.optimize()
        if do_metric:
            self.do_metric(value, model_out, batch_y)
        return value

    def backward(self, value: Any, *, loss_adjust: float = 1.0) -> None:
        """Add the gradients of ``value * loss_adjust``; does nothing outside training.

        Raises:
            StepError: ``value`` is not a scalar tensor, or depends on no weight.
            NotFiniteError: it is NaN or infinite; on an accelerator this is raised later.
        """
        run = self.run or self._run
        if not run.is_training:
            return
        is_tensor = type(value) is Tensor or isinstance(value, Tensor)
        if not is_tensor or value.ndim or not value.requires_grad:
            raise not_a_loss(run.recorder.step_name, value, run.trainer)
        if not run.batch_idx:
            look_at_loss(run.trainer.tell_once, run.batch_y, value)
        if not run.weigher.weight:
            value = run.without_weight(value)
        run.recorder.see(value, run.batch_idx)
        losses = run.losses
        factor = loss_adjust * losses.scale
        scaled = value if factor == 1.0 else value * factor
        hooks = run.hooks
        if hooks.before_backward:
            fire_in_step(hooks.before_backward, run.trainer, loss=value.detach())
        engine = run.engine
        if engine is None or type(scaled) is not Tensor:
            run.trainer.runtime.backward(scaled)
        else:
            engine((scaled,), (torch.ones_like(scaled),), *ENGINE_OPTIONS)
        if losses.is_wanted:
            losses.keep(value.detach(), loss_adjust, run.batch_idx)
        if hooks.after_backward:
            fire_in_step(hooks.after_backward, run.trainer, loss=value.detach())

    def optimize(
        self, optimize_index: int | None = None, *, closure: Callable[[], Any] | None = None
    ) -> None:
        """Step, then drop the gradients, of all optimizers or of the one with an index.

        Does nothing outside training, and nothing yet while ``grad_accumulate``
        waits for further mini-batches.

        Args:
            optimize_index: which of several optimizers; ``None``: all.
            closure: for an optimizer that computes the loss itself, such as LBFGS: a function
                that makes the backward pass and returns the loss, as ``lambda:
                self.loss(self.call_model(batch_x), batch_y, do_optimize=False)``. Its first call in
                a mini-batch is recorded. Outside training it is called once.

        Raises:
            ConfigError: a closure with ``grad_accumulate``, with fp16 or for several optimizers.
            StepError: an optimizer that needs a closure gets none, or it does not return the loss.
        """
        run = self.run or self._run
        if not run.is_training:
            if closure is not None:
                closure()
            return
        try:
            chosen = run.opt if optimize_index is None else (run.opt[optimize_index],)
        except (IndexError, TypeError):
            raise no_such_optimizer(run.recorder.step_name, optimize_index, len(run.opt)) from None
        if closure is not None:
            from .repeats.closures import step_with_closure  # most steps have none

            step_with_closure(run, chosen, optimize_index, closure)
            return
        if run.window is not None and run.window.waits(chosen, optimize_index):
            return
        trainer, hooks = run.trainer, run.hooks
        if run.rounds is not None:
            trainer.runtime.join_gradients(chosen, has_samples=run.rounds.has_samples)
        if hooks.before_optimize:
            trainer.runtime.unscale(chosen)
            fire_in_step(hooks.before_optimize, trainer, optimize_index=optimize_index)
        run.make_step(chosen)
        if hooks.after_optimize:
            fire_in_step(hooks.after_optimize, trainer, optimize_index=optimize_index)

    def do_metric(self, loss: Any = None, model_out: Any = None, batch_y: Any = None) -> None:
        """Record loss and metrics of the present mini-batch.

        Called by ``loss``; by hand after ``loss(..., do_metric=False)`` on its parts.

        Args:
            loss: the loss of the whole mini-batch; ``None`` leaves it out.
            model_out: the outputs; ``None`` leaves the metrics out.
            batch_y: the targets.

        Raises:
            MetricError: recorded twice in one mini-batch.
        """
        run = self.run or self._run
        recorder, hooks = run.recorder, run.hooks.metrics
        if loss is not None:
            recorder.record_loss(loss)
        if model_out is None or not (recorder.plan or hooks):
            return
        model_out, batch_y = nested.detach(model_out), nested.detach(batch_y)
        if recorder.plan:
            weigher = run.weigher
            recorder.record_metrics(model_out, batch_y, weigher.weight, weigher.num_samples)
        if hooks:
            loss = loss.detach() if isinstance(loss, Tensor) else loss
            arguments = {"loss": loss, "model_out": model_out, "batch_y": batch_y}
            fire_in_step(hooks, run.trainer, task=run.task, **arguments)

    @with_hints
    def record(
        self, name: str, value: Any, *, weight: float | Tensor | None = None, how: str = "mean"
    ) -> None:
        """Record a number beside the loss and the metrics of the pass that runs now.

        Call it as ``self.record`` in a step, or as ``trainer.record`` in a hook of a mini-batch,
        of an optimizer step, or of the end of a pass, such as ``on_after_val_epoch``. The epoch
        gets one value of all that were recorded, in all processes. A value on an accelerator
        stays there: no step waits for it. After a pass its value is that of the main process.

        Args:
            name: of the value in the history, the console and the logs.
            value: a number, or a tensor or an array with one element.
            weight: of the value in the mean, at least 0; ``None``: what the mini-batch weighs,
                as for the loss.
            how: ``'mean'``, ``'last'``, ``'sum'``, ``'max'`` or ``'min'`` of the values. If one
                of them is NaN, so are the mean, the sum, the maximum and the minimum.

        Raises:
            LoopException: no pass runs, or its first mini-batch has not begun.
            MetricError: a metric, the loss or what a step returns has that name.
            ConfigError: another argument that cannot be right.

        Example:
            >>> import torch
            >>> from deepepochs import EpochTask, Trainer
            >>> class Task(EpochTask):
            ...     def step(self, batch_x, batch_y, **step_args):
            ...         model_out = self.model(*batch_x)
            ...         self.record("largest", model_out.max(), how="max")
            ...         self.loss(model_out, batch_y)
            >>> model = torch.nn.Linear(2, 1)
            >>> trainer = Trainer(model, torch.nn.MSELoss(), epochs=1, console="off")
            >>> data = [(torch.ones(4, 2), torch.ones(4, 1))]
            >>> history = trainer.fit(train_tasks=Task(data))
            >>> sorted(history["train"])
            ['largest', 'loss']
        """
        if self.run is None:
            raise no_place_to_record(name)
        self.run.record(name, value, weight, how)


DEFAULT_STEPS = [
    getattr(Steps, name)
    for name in dict.fromkeys(name for of in STEP_NAMES.values() for name in of)
]


def resolve_step(task: Steps, trainer: object, stage: Stage) -> Callable[..., Any]:
    """Choose the method that handles the mini-batches of a pass.

    The owner comes first: the task, then the trainer. Within an owner the order is
    that of ``STEP_NAMES``. If neither defines one, it is the default, called on the
    task, whose verbs are its own or the trainer's.
    """
    for owner in (task, trainer):
        for name in STEP_NAMES[stage]:
            if getattr(type(owner), name) is not getattr(Steps, name):
                method: Callable[..., Any] = getattr(owner, name)
                return method
    default: Callable[..., Any] = getattr(task, STEP_NAMES[stage][1])
    return default


def is_default(step: Callable[..., Any]) -> bool:
    """Whether a step is the library's own."""
    return getattr(step, "__func__", None) in DEFAULT_STEPS


def step_name(step: Callable[..., Any]) -> str:
    """Name a step as a reader finds it, for example ``MyTask.train_step``."""
    if is_default(step):
        return DEFAULT_STEP
    return getattr(step, "__qualname__", repr(step)).rpartition("<locals>.")[2]


def warn_of_misspelt(cls: type, base: type) -> None:
    """Warn of methods of a class that are no steps and are named much like one."""
    known = sorted({name for names in STEP_NAMES.values() for name in names})
    for name, value in vars(cls).items():
        if name.startswith("_") or hasattr(base, name) or not callable(value):
            continue
        meant = _MEANT.get(name) or nearest(name, known, 0.8)
        if meant:
            warn_user(
                f"{cls.__name__}.{name} is never called as a step. Did you mean {meant!r}? "
                f"The step methods are {', '.join(known)}.",
                UserWarning,
            )
