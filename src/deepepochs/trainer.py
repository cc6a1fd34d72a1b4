"""Trainer: owns the model, the optimizers and the run.

::

    trainer = Trainer(model, F.cross_entropy, opt, epochs=2)
    trainer.fit(train_dl, val_dl)
    trainer.test(test_dl)
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from .archive import Archive
from .arguments import (
    as_list,
    check_choice,
    check_count,
    check_dict,
    check_flag,
    check_loss,
    check_model,
)
from .callbacks.base import Callback, fire
from .callbacks.console import ConsoleCallback
from .callbacks.pool import CallbackPool
from .errors import LoopException
from .fit.plan import FitPlan, as_task, plan_fit, plan_test
from .history import History
from .loop import predict_batches, run_task
from .losses import default_loss
from .nest import operations as nested
from .nest.batch import BatchSize, split_batch
from .optim.optimizers import Optimizers, as_optimizers
from .patches import check_patch_kind
from .patches.plan import check_metrics
from .patches.totals import StageTotals
from .runs.folder import check_running_id, new_running_id
from .runtime.base import Runtime, compile_calls
from .runtime.choose import make_runtime
from .stages import Stage
from .task import EpochTask

__all__ = ["Trainer", "TrainerBase"]


class TrainerBase(Archive):
    """Trains, validates and tests a model.

    Args:
        model: an ``nn.Module``; it is moved to the device and not wrapped.
        loss: function ``(model_out, targets) -> scalar tensor``. ``None``: the model's
            output is the loss, or its entry ``'loss'``, and the whole mini-batch is input.
        opt: a torch optimizer, an ``Optimizer``, or a list of either; ``None``: Adam
            with rate 0.001.
        epochs: total number of epochs over all fits and a resumed run.
        device: a device name or ``torch.device``; ``None``: ``'cuda'`` if there is one,
            else ``'cpu'``; an ``accelerate.Accelerator``; or ``'auto'``, which makes one
            exactly when the script was started by torchrun or accelerate launch.
        callbacks: one ``Callback`` or a list.
        metrics: one metric or a list, computed in training, validation and test.
        metric_patch: how a metric is carried from mini-batches to the epoch:
            ``'tensor'``, ``'mean'``, ``'confusion'`` or a ``PatchBase`` subclass.
        resume: go on from a checkpoint; needs a ``CheckCallback``.
        running_id: name of this run's folder; ``None``: a new one from the time.
        hyper_params: values that ``LogCallback`` writes after a test.
        log_long: print 7 decimals instead of 4.
        log_batch: show mini-batches in a terminal.
        log_tqdm: show a tqdm bar over the epochs.
        show_info: print a header at the first fit.
        auto_traindata_to_device: ``False`` hands training mini-batches to the step
            where the loader left them.
        compile_model: compile the model with ``torch.compile``.
        grad_accumulate: mini-batches for one optimizer step; the gradient equals that
            of the mini-batches joined into one.
        on_nan: what a NaN or infinite loss does: ``'stop'``, ``'warn'`` or ``'ignore'``.
        on_interrupt: after Ctrl-C, ``'raise'`` KeyboardInterrupt again or ``'return'``.
        worker_seeding: ``'position'`` seeds the random stream of each mini-batch made in
            a worker process from its place in the epoch; ``'torch'`` leaves PyTorch's own.
        precision: ``'bf16'`` or ``'fp16'``: mixed precision without an ``Accelerator`` of
            one's own.

    Raises:
        ConfigError: an argument that cannot be right; the message says what to give.

    Example:
        >>> data = [(torch.randn(8, 4), torch.randn(8, 1)) for _ in range(3)]
        >>> trainer = Trainer(nn.Linear(4, 1), nn.MSELoss(), epochs=2, show_info=False)
        >>> history = trainer.fit(data)  # doctest: +ELLIPSIS
        E 1/2  TRAIN> loss: ...
        >>> len(history["train"]["loss"])
        2
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Any = None,
        opt: Any = None,
        epochs: int = 1000,
        device: Any = None,
        callbacks: Callback | Iterable[Callback] | None = None,
        metrics: Any = None,
        metric_patch: Any = "tensor",
        resume: bool | int | str = False,
        running_id: int | str | None = None,
        hyper_params: dict[str, Any] | None = None,
        log_long: bool = False,
        log_batch: bool = True,
        log_tqdm: bool = False,
        show_info: bool = True,
        auto_traindata_to_device: bool = True,
        compile_model: bool = False,
        *,
        grad_accumulate: int = 1,
        on_nan: str = "stop",
        on_interrupt: str = "raise",
        worker_seeding: str = "position",
        precision: str | None = None,
    ) -> None:
        super().__init__()
        self.max_epochs = check_count("epochs", epochs)
        self.grad_accumulate = check_count("grad_accumulate", grad_accumulate, 1)
        self.on_nan = check_choice("on_nan", on_nan, ["stop", "warn", "ignore"])
        self.on_interrupt = check_choice("on_interrupt", on_interrupt, ["raise", "return"])
        self.worker_seeding = check_choice("worker_seeding", worker_seeding, ["position", "torch"])
        self.metric_patch = check_patch_kind(metric_patch)
        self.general_metrics = list(check_metrics(metrics, "metrics"))
        self.loss_fn = check_loss(loss)
        check_model(model)
        if precision is not None:
            check_choice("precision", precision, ["no", "bf16", "fp16"])
        self.runtime: Runtime = make_runtime(model, device, precision)
        if check_flag("compile_model", compile_model):
            compile_calls(model)
        self.opt: Optimizers = as_optimizers(opt, model, self.loss_fn)
        self.model = self.runtime.prepare(model, self.loss_fn, self.opt)
        given = as_list("callbacks", callbacks, Callback)
        consoles = [cbk for cbk in given if isinstance(cbk, ConsoleCallback)]
        if not consoles:
            check_flag("log_long", log_long)
            check_flag("log_batch", log_batch)
            consoles = [ConsoleCallback(log_long, log_batch, log_tqdm)]
            given = [*consoles, *given]
        self.default_cbk = consoles[0]
        self.callbacks = CallbackPool(given)
        self.resume = resume
        self._has_own_id = running_id is not None
        own_id = new_running_id() if running_id is None else check_running_id(running_id)
        self.running_id: str = self.runtime.gather_objects(own_id)[0]
        self.hyper_params = check_dict("hyper_params", hyper_params)
        self.log_tqdm = check_flag("log_tqdm", log_tqdm)
        self.show_info = check_flag("show_info", show_info)
        self.auto_traindata_to_device = check_flag(
            "auto_traindata_to_device", auto_traindata_to_device
        )
        self.logger: Any = None

    def fit(
        self,
        train_dl: Any = None,
        val_dl: Any = None,
        metrics: Any = None,
        val_freq: int = 1,
        do_val_loss: bool = True,
        batch_size: BatchSize = None,
        train_metrics: Any = None,
        val_metrics: Any = None,
        train_tasks: Any = None,
        val_tasks: Any = None,
        epochs: int | None = None,
    ) -> History:
        """Train, and validate where there is something to validate on.

        Args:
            train_dl: training loader; exactly one of it and ``train_tasks`` is given.
            val_dl: validation loader; comes before ``val_tasks``.
            metrics: one metric or a list for training and validation.
            val_freq: validate after every n-th epoch.
            do_val_loss: compute the loss on ``val_dl``.
            batch_size: weight of a mini-batch in means: an int, a function
                ``(batch_x, batch_y) -> int``, or ``None`` to have it guessed.
            train_metrics: further metrics for training.
            val_metrics: further metrics for validation.
            train_tasks: an ``EpochTask`` or a list.
            val_tasks: an ``EpochTask`` or a list.
            epochs: in the first fit, the number of epochs instead of the trainer's; in a
                later one, that many more.

        Returns:
            ``{'train': {name: [value per epoch]}, 'val': {name: [value per validation]}}``.

        Raises:
            LoopException: neither or both of ``train_dl`` and ``train_tasks``.
            NotFiniteError: a loss that is NaN or infinite.
        """
        if epochs is not None:
            check_count("epochs", epochs)
        if self._is_acting:
            raise LoopException(
                "fit() was called inside a running fit or test. Train another model with a trainer "
                "of its own, or call fit() after this one."
            )
        self._resume_if_asked()
        finished = self._finished_before()
        if finished is not None:
            return finished
        if not self._set_epochs(epochs):
            return self._finish_resumed() if self._resumed else History()
        plan = plan_fit(
            self,
            train_dl=train_dl,
            val_dl=val_dl,
            metrics=metrics,
            train_metrics=train_metrics,
            val_metrics=val_metrics,
            train_tasks=train_tasks,
            val_tasks=val_tasks,
            val_freq=val_freq,
            do_val_loss=do_val_loss,
            batch_size=batch_size,
        )
        with self._fitting(plan) as first_epoch:
            while self._progress.epoch_idx < self.max_epochs:
                epoch = self._begin_epoch(plan)
                for stage, tasks in plan.stages_of(epoch.epoch_idx):
                    self._begin_stage(epoch, stage, plan)
                    for index in range(epoch.num_done(stage), len(tasks)):
                        run_task(self, tasks[index], stage, (index, len(tasks)))
                    self._end_stage(epoch, stage, tasks)
                self._end_epoch(epoch, plan)
        return self.history.since(first_epoch)

    def test(
        self,
        test_dl: Any = None,
        metrics: Any = None,
        do_loss: bool = True,
        batch_size: BatchSize = None,
        tasks: Any = None,
    ) -> dict[str, Any]:
        """Test the model; can be called without a fit.

        Args:
            test_dl: test loader; comes before ``tasks``.
            metrics: one metric or a list, before those of the trainer.
            do_loss: compute the loss on ``test_dl``.
            batch_size: weight of a mini-batch in means, as in ``fit``.
            tasks: an ``EpochTask`` or a list.

        Returns:
            ``{name: NumPy array}``; of several tasks pooled, and each task's own.
        """
        plan = plan_test(self, test_dl, tasks, metrics, do_loss, batch_size)
        testing = plan.tasks[Stage.TEST]
        values: dict[str, Any] = {}
        with self._acting(plan):
            self._totals = StageTotals()
            fire(self.hooks["on_before_test_epochs"], self, tasks=testing)
            for index, task in enumerate(testing):
                run_task(self, task, Stage.TEST, (index, len(testing)))
            values = self.stage_values(self._totals)
            fire(self.hooks["on_after_test_epochs"], self, tasks=testing, metrics=values)
        return values

    def predict(self, dataloader: Any, *, with_targets: bool | None = None) -> Any:
        """Give the model's outputs for a loader, joined on the CPU in the loader's order.

        Args:
            dataloader: a loader as for ``test``, or one that yields inputs only.
            with_targets: the last element of a mini-batch is a target to leave out.
                ``None``: it is where a loss function is given and a mini-batch has more
                than one element; a ``prepare_data`` of your own splits it instead.

        Returns:
            Outputs ``[N, ...]`` as the model gives them: a tensor, tuple or dict; an
            empty list from an empty loader.
        """
        task = as_task(dataloader, "dataloader", None)
        plan = FitPlan({Stage.PREDICT: [task]}, {Stage.PREDICT: []}, "tensor")
        outputs: list[Any] = []
        with self._acting(plan):
            self.model.eval()
            self.run = None  # inside a fit, its forward hooks are not told of this
            outputs = predict_batches(self, dataloader, with_targets=with_targets)
        if not outputs and self.stop_reason is None:
            warnings.warn(
                "predict() got no mini-batch from its loader, and gives an empty list.",
                UserWarning,
                stacklevel=2,
            )
        return nested.concat(outputs) if outputs else outputs

    def print(self, *values: Any, **options: Any) -> None:
        """Print in the main process only, without breaking the console's line."""
        if self.main_process:
            self.default_cbk.write(*values, **options)

    def prepare_data(self, batch_data: Any, to_device: bool = True) -> tuple[Any, Any]:
        """Split a mini-batch into ``(batch_x, batch_y)``, moved to the device if asked."""
        if to_device:
            batch_data = nested.to_device(batch_data, self.device)
        return split_batch(batch_data, with_targets=self.loss_fn is not default_loss)

    def splits_pairs(self, stage: Stage) -> bool:
        """Whether ``split_pair`` does all of ``prepare_data`` for a pair of tensors on the CPU."""
        stays = self.runtime.on_cpu or not self.moves_data(stage)
        return stays and self.loss_fn is not default_loss and not self.has_own_split

    @property
    def has_own_split(self) -> bool:
        """Whether the user has put a ``prepare_data`` in place of the library's."""
        return getattr(self.prepare_data, "__func__", None) is not _PREPARE_DATA

    def moves_data(self, stage: Stage) -> bool:
        """Whether the mini-batches of a stage are moved to the device."""
        return self.auto_traindata_to_device or stage is not Stage.TRAIN

    def run_task(
        self, task: EpochTask, stage: Stage, place: tuple[int, int] = (0, 1)
    ) -> dict[str, Any]:
        """Run one pass over one task's data and give its metrics."""
        return run_task(self, task, stage, place)

    @property
    def _trainer(self) -> TrainerBase:
        return self

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.runtime.device

    @property
    def accelerator(self) -> Any:
        """The ``Accelerator``, or ``None``."""
        return self.runtime.accelerator

    @property
    def main_process(self) -> bool:
        """Whether this is the process that prints and writes."""
        return self.runtime.is_main

    @property
    def is_interrupted(self) -> bool:
        """Whether it is a signal or Ctrl-C that ends the fit."""
        return self._signals.received is not None or self.stop_reason == "interrupted"

    @property
    def init_epoch(self) -> int:
        """Index of the next epoch, from 0."""
        return self._progress.epoch_idx

    @property
    def stage(self) -> Stage | None:
        """What the pass that runs now is for; ``None`` between passes."""
        return None if self.run is None else self.run.stage

    @property
    def current_task(self) -> EpochTask | None:
        """The task of the pass that runs now."""
        return None if self.run is None else self.run.task

    @property
    def val_freq(self) -> int:
        """Epochs from one validation to the next, in the latest fit."""
        return 1 if self._plan is None else self._plan.val_freq

    @property
    def train_metrics(self) -> list[Any]:
        """The metrics common to the training tasks of the latest fit."""
        return [] if self._plan is None else self._plan.metrics.get(Stage.TRAIN, [])

    @property
    def val_metrics(self) -> list[Any]:
        """The metrics common to the validation tasks of the latest fit."""
        return [] if self._plan is None else self._plan.metrics.get(Stage.VAL, [])

    @property
    def test_metrics(self) -> list[Any]:
        """The metrics common to the tasks of the latest test."""
        return [] if self._plan is None else self._plan.metrics.get(Stage.TEST, [])


_PREPARE_DATA = TrainerBase.prepare_data


class Trainer(TrainerBase):
    """Trains, validates and tests a model; see ``TrainerBase`` for the arguments."""
