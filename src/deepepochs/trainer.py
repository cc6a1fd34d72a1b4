"""Trainer: owns the model, the optimizers and the run.

::

    trainer = Trainer(model, F.cross_entropy, opt, epochs=2)
    trainer.fit(train_dl, val_dl)
    trainer.test(test_dl)
"""

from __future__ import annotations

import inspect
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from . import rng
from .arguments import (
    as_list,
    check_choice,
    check_count,
    check_dict,
    check_flag,
    check_loss,
    check_model,
    check_order,
    check_targets,
    default_loss,
    with_hints,
)
from .callbacks.base import Callback
from .callbacks.console import ConsoleCallback
from .callbacks.pool import CallbackPool
from .data.cursor import Loaders
from .errors import (
    CheckpointMismatch,
    ConfigError,
    ConfigTypeError,
    DataError,
    LoopException,
    warn_user,
)
from .fit.epochs import FitLog, FitSession, FitSpan
from .fit.limits import Limits
from .fit.plan import FitPlan, as_task, lengths_of, plan_fit, plan_search, plan_test
from .fit.save_points import SavePoints
from .fit.session import Kind, LatestCall, Session, not_running
from .history import History, Progress, Results
from .loop import predict_batches, run_pass, split_inputs
from .nest import operations as nested
from .nest.codec import from_plain, to_plain
from .nest.operations import split_batch
from .nest.samples import BatchSize, join_outputs
from .optim.loss_modules import find_loss_module
from .optim.optimizers import AnyOptimizer, Optimizers, as_optimizers
from .patches import PatchBase, check_patch_kind
from .patches.base import metric_name
from .patches.plan import Metric, check_metrics
from .run import Run
from .runs.folder import check_running_id, new_running_id, run_folder
from .runs.ownership import RunFolders
from .runtime.base import Runtime, compile_calls, in_main_process, together
from .runtime.choose import Device, make_runtime
from .show.tables import html_table
from .stages import Stage
from .state.place import Place
from .steps import Steps
from .task import EpochTask

# What a plain fit does not need (checkpoints, reports and the like) is imported where it is
# asked for.
if TYPE_CHECKING:
    from .checks.findings import Findings
    from .fit.resume import EarlierFits, Resumption
    from .optim.average import EMA, AveragedWeights
    from .plain.words import Explanation
    from .show.lr_curve import LRCurve
    from .state.strict import Part
    from .tries.batch_size import FoundBatchSize
    from .tries.profile import Profile
    from .tries.summary import ModelSummary
    from .verify import ResumeReport

__all__ = ["EpochTask", "Trainer", "TrainerBase"]


DEFAULT_EPOCHS = 1000

# What a trainer has, and `dir` does not show: names of release 0.6 that old scripts read, and
# what the parts of the library ask of one another.
UNLISTED = frozenset([
    "adopt_run", "auto_traindata_to_device", "buffer_shapes", "checker", "close_logger", "current_task",
    "default_cbk", "deterministic", "findings", "fits", "general_metrics", "grad_accumulate", "has_own_id", "has_own_split",
    "hyper_params", "ignore_resume", "init_epoch", "is_fit_run", "is_interrupted", "is_resumed",
    "known_epochs", "limits", "loaders", "log_tqdm", "loss_module", "metric_patch", "moves_data", "note", "on_interrupt", "on_nan", "on_oom", "options_of_fit", "place",
    "resume", "resume_from", "run_task", "runtime", "show_info", "span_of", "splits_pairs", "tell_once",
    "targets", "test_metrics", "train_metrics", "trying", "val_freq", "val_metrics", "validate_between", "was_told", "worker_seeding",
])  # fmt: skip


def with_console(
    callbacks: Sequence[Callback], own: ConsoleCallback, console: str
) -> list[Callback]:
    """Give callbacks with a console: the ``own`` one, unless the script has given another."""
    given = [callback for callback in callbacks if callback.is_console]
    if given and console != "auto":
        raise ConfigError(
            f"console={console!r} is given together with a {type(given[0]).__name__}: give it to "
            "the callback, or leave the callback out."
        )
    return [*callbacks] if given else [own, *callbacks]


def shapes_of_buffers(model: nn.Module) -> dict[str, list[int]]:
    """Give the shape of each buffer that has one yet."""
    buffers = model.named_buffers()
    return {name: list(buffer.shape) for name, buffer in buffers if not is_lazy(buffer)}


class TrainerBase(Steps):
    """Trains, validates and tests a model.

    Example:
        >>> data = [(torch.randn(8, 4), torch.randn(8, 1)) for _ in range(3)]
        >>> trainer = Trainer(nn.Linear(4, 1), nn.MSELoss(), epochs=2, show_info=False)
        >>> history = trainer.fit(data)  # doctest: +ELLIPSIS
        <BLANKLINE>
        epoch     loss      time  best
          1/2 ...
        >>> len(history["train"]["loss"])
        2
    """

    _set_by_init = "session"

    model: nn.Module

    @with_hints
    def __init__(
        self,
        model: nn.Module,
        loss: Callable[[Any, Any], Tensor] | None = None,
        opt: AnyOptimizer | Sequence[AnyOptimizer] | None = None,
        epochs: int = DEFAULT_EPOCHS,
        device: Device = None,
        callbacks: Callback | Sequence[Callback] | None = None,
        metrics: Metric | Sequence[Metric] | None = None,
        metric_patch: str | type[PatchBase] = "auto",
        resume: bool | int | str | PathLike[str] = False,
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
        targets: str | None = None,
        console: str = "auto",
        deterministic: bool = False,
        ema: float | EMA | None = None,
        on_oom: str = "raise",
        max_steps: int | None = None,
        max_time: float | str | timedelta | None = None,
        limit_train_batches: float | None = None,
        limit_val_batches: float | None = None,
        limit_test_batches: float | None = None,
        val_every: int | None = None,
        overfit_batches: int = 0,
        dry_run: bool = False,
    ) -> None:
        """Make a trainer.

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
            metrics: one metric or a list, computed in training, validation and test: functions,
                objects of torchmetrics, or names of the library's own, as ``'accuracy'``.
            metric_patch: how a metric is carried from mini-batches to the epoch: ``'auto'``, as
                each declares (see ``accumulates``), or one way for all: ``'tensor'``, ``'mean'``,
                ``'confusion'`` or a ``PatchBase`` subclass.
            resume: load a checkpoint and resume there: ``'auto'``, ``True``, a run's id, or the
                path of a file or of a run's folder; needs a ``CheckCallback``.
            running_id: name of this run's folder; ``None``: a new one that can be read, such as
                ``2026-11-25_2136_brave-otter``.
            hyper_params: values that ``LogCallback`` writes after a test.
            log_long: print 7 decimals instead of 4.
            log_batch: ``False`` is ``console='rows'``.
            log_tqdm: show the progress within the epoch, whatever ``log_batch`` is.
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
            targets: the name of the entry of a dict mini-batch that is ``batch_y``, for the
                metrics and the loss function. It is taken out of ``batch_x``, unless the model
                computes the loss itself. ``None``: a dict is all input.
            console: ``'auto'``: a row for each epoch, and in a terminal or notebook a live line
                with the progress within it; ``'rows'``: without the live line; ``'bar'``: with it
                also where the output does not say that it is a terminal; ``'off'``: nothing.
            deterministic: use only operations that give the same result each time, by
                ``torch.use_deterministic_algorithms``, in each call of the trainer; the settings
                of torch are put back after it. An operation that has no such form is an error.
            ema: the decay of an exponential moving average of the weights, such as 0.999, or an
                ``EMA``. Validation, tests and predictions use the average, and it is what is kept
                as best. ``None``: no average.
            on_oom: what a training step does that runs out of memory: ``'raise'``, or
                ``'split'``: it is repeated on halves of its mini-batch, or on smaller parts, with
                the same gradients and one optimizer step. For losses that are a mean over samples.
            max_steps: optimizer steps over all fits and a resumed run; the fit ends after that
                step, with a validation. The default of ``epochs`` is no limit then.
            max_time: the time of all fits and a resumed run: seconds, a ``timedelta`` or a text
                such as ``'1h30m'``; the fit ends after the mini-batch in which it is over.
            limit_train_batches: train on the first mini-batches of each pass: a number, or a
                share of them, a float up to 1.0. In several processes, of each process.
            limit_val_batches: the same for validation; 0: no validation.
            limit_test_batches: the same for tests; 0: a test does nothing.
            val_every: validate after every n optimizer steps as well as by ``val_freq``.
            overfit_batches: train and validate on the first n mini-batches of the training data,
                the same in each epoch and without shuffle; 0: on all data.
            dry_run: a fit or test tries one mini-batch of each stage and every hook; it writes
                nothing, and everything is as it was afterwards.

        Raises:
            ConfigError: an argument that cannot be right; the message says what to give.
        """
        self.session: Session | None = None
        self.history = History()
        self.fits = FitLog(check_count("epochs", epochs))
        self.place = Place()
        self.loaders = Loaders()
        self.grad_accumulate = check_count("grad_accumulate", grad_accumulate, 1)
        self.on_nan = check_choice("on_nan", on_nan, ["stop", "warn", "ignore"])
        self.on_interrupt = check_choice("on_interrupt", on_interrupt, ["raise", "return"])
        self.on_oom = check_choice("on_oom", on_oom, ["raise", "split"])
        self.worker_seeding = check_choice("worker_seeding", worker_seeding, ["position", "torch"])
        self.targets = check_targets(targets)
        self.deterministic = check_flag("deterministic", deterministic)
        self.limits = Limits(
            max_steps, max_time, limit_train_batches, limit_val_batches, limit_test_batches,
            val_every, overfit_batches, dry_run,
        )  # fmt: skip
        self.metric_patch = check_patch_kind(metric_patch)
        self.general_metrics = list(check_metrics(metrics, "metrics"))
        check_order(model, loss, opt)
        self.loss_fn = check_loss(loss)
        self.loss_module = find_loss_module(self.loss_fn, check_model(model))
        check_choice("precision", precision or "no", ["no", "bf16", "fp16"])
        self.buffer_shapes = shapes_of_buffers(model)
        self.runtime: Runtime = make_runtime(model, device, precision)
        if check_flag("compile_model", compile_model):
            compile_calls(model)
        self.opt: Optimizers = as_optimizers(opt, model, self.loss_module)
        if on_oom == "split" or any(optimizer.needs_closure for optimizer in self.opt):
            from .repeats import check_setup

            check_setup(self)
        self.model = self.runtime.prepare(model, self.loss_module, self.opt)
        self.ema: AveragedWeights | None = None if ema is None else self._average(ema)
        own = ConsoleCallback(
            check_flag("log_long", log_long),
            check_flag("log_batch", log_batch),
            check_flag("log_tqdm", log_tqdm),
            console=console,
        )
        given = with_console(as_list("callbacks", callbacks, Callback), own, console)
        self.default_cbk: Any = next(callback for callback in given if callback.is_console)
        self.callbacks = CallbackPool(given)
        self.resume = resume
        self.has_own_id = running_id is not None
        self.running_id = self._same_id(running_id)
        self.hyper_params = check_dict("hyper_params", hyper_params)
        self.log_tqdm = log_tqdm
        self.show_info = check_flag("show_info", show_info)
        self.auto_traindata_to_device = check_flag(
            "auto_traindata_to_device", auto_traindata_to_device
        )
        self.logger: Any = None
        self._own_logger: Any = None  # the one that was opened here
        self._to_resume = resume is not None and resume is not False  # at the first fit
        self._earlier: EarlierFits | None = None
        self._latest = LatestCall()
        self.findings: Findings | None = None  # those of the latest check
        self._told: set[str] = set()
        self._folders = RunFolders()

    def _same_id(self, given: int | str | None) -> str:
        """Give the id of the run, the same in all processes."""
        made = None if self.has_own_id else new_running_id(self._folders_of_runs())
        own_id = made or check_running_id(given)
        same: str = self.runtime.gather_objects(own_id, "makes a Trainer")[0]
        return same

    def _average(self, ema: float | EMA) -> AveragedWeights:
        from .optim.average import averaged

        return averaged(ema, self.opt, self.runtime.unwrap(self.model))

    def __getstate__(self) -> dict[str, Any]:
        # A copy runs nothing; what runs here has generators, which cannot be copied. It is
        # another run, to which no folder belongs yet.
        own = {"session": None, "logger": None, "_own_logger": None, "_folders": RunFolders()}
        return {**vars(self), **own}

    def __repr__(self) -> str:
        if "_folders" not in vars(self):  # __init__ has not come to its end
            return object.__repr__(self)
        facts = self._facts()
        state = f"of run {facts.pop('run')!r}, {facts.pop('epochs')} epochs"
        lines = (f"  {name + ':':<10} {value}" for name, value in facts.items())
        return "\n".join([f"{type(self).__name__} {state}", *lines])

    def _repr_html_(self) -> str | None:
        return html_table([], self._facts().items()) if "_folders" in vars(self) else None

    def _facts(self) -> dict[str, str]:
        """Return what is shown of the trainer, by name."""
        model = self.runtime.unwrap(self.model)
        sizes = [weight.numel() for weight in model.parameters() if not is_lazy(weight)]
        total = "" if self.known_epochs is None else f" of {self.known_epochs}"
        return {
            "run": self.running_id,
            "epochs": f"{self.init_epoch}{total}",
            "model": f"{type(model).__name__}, {sum(sizes):,} parameters",
            "optimizer": ", ".join(map(repr, self.opt)),
            "metrics": ", ".join(map(metric_name, self.general_metrics)) or "none",
            "device": str(self.device),
        }

    def __dir__(self) -> list[str]:
        return [name for name in super().__dir__() if name not in UNLISTED]

    @with_hints
    def fit(
        self,
        train_dl: Iterable[Any] | None = None,
        val_dl: Iterable[Any] | None = None,
        metrics: Metric | Sequence[Metric] | None = None,
        val_freq: int = 1,
        do_val_loss: bool = True,
        batch_size: BatchSize = None,
        train_metrics: Metric | Sequence[Metric] | None = None,
        val_metrics: Metric | Sequence[Metric] | None = None,
        train_tasks: EpochTask | Sequence[EpochTask] | None = None,
        val_tasks: EpochTask | Sequence[EpochTask] | None = None,
        epochs: int | None = None,
    ) -> History:
        """Train, and validate where there is something to validate on.

        Args:
            train_dl: training loader; exactly one of it and ``train_tasks`` is given.
            val_dl: validation loader; comes before ``val_tasks``.
            metrics: one metric or a list for training and validation.
            val_freq: validate after every n-th epoch.
            do_val_loss: compute the loss on ``val_dl``.
            batch_size: weight of a mini-batch in means and in ``grad_accumulate``: a number
                from 0, a function ``(batch_x, batch_y)`` that gives one, or ``None`` to have
                the samples counted.
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
            epochs=epochs,
        )
        with self._tried(plan) if self.limits.dry_run else nullcontext():
            resumption = self._resume_if_asked(plan)
            session = self._session(plan, 1 if self.limits.dry_run else epochs)
            if (past := self._without_epochs(session, resumption)) is not None:
                return past
            session.check()
            with self._opened(session), session.save_points.signals:
                session.begin(resumption)
                for passes in (session.passes, session.passes_of_part):
                    with session.until_stopped():
                        for task, stage, place in passes():
                            run_pass(session, task, stage, place)
                session.end()
            history = self.history.since(session.span.start)
        if (interruption := session.pass_on(self.on_interrupt)) is not None:
            raise interruption from None
        return history

    def _session(self, plan: FitPlan, epochs: int | None) -> FitSession:
        span = self.span_of(plan, epochs)
        return FitSession(self, plan, self.callbacks, span, self.place, self.fits, self.loaders)

    def _without_epochs(self, session: FitSession, resumption: Resumption | None) -> History | None:
        """Give the history of a fit that an earlier process has finished, or that has no epoch."""
        span = session.span
        if span.is_past and self._earlier is not None:
            session.skip()
            return self._earlier.skip(self, self.place, span[:2], self.fits.num_calls)
        if session.has_no_epoch:
            session.end_at_once(resumption)
            return self.history.since(span.start)
        return None

    @contextmanager
    def _tried(self, plan: FitPlan) -> Iterator[None]:
        """Let the block run on copies of what a call changes, and put back the rest."""
        from .fit.dry_run import copied_callbacks, scratch_folder, told
        from .state.snapshot import no_trace

        kept = dict(vars(self))
        loaders = [self.runtime.share(task.dataloader) for task in plan.all_tasks()]
        with no_trace(self, loaders), scratch_folder(self) as folder:
            try:
                self.callbacks = CallbackPool(copied_callbacks(self, folder))
                self.history, self.fits = History(), FitLog(1)
                self.place, self.loaders, self._folders = Place(), Loaders(), RunFolders()
                self.logger = self._own_logger = self._earlier = None
                self._to_resume, self._told = False, set()
                yield
                self.close_logger()
                said = told(plan, self.callbacks)
            finally:
                for name in vars(self).keys() - kept.keys():  # a step has made it
                    delattr(self, name)
                vars(self).update(kept)
        self.note(said)

    def _take_folders(self, kind: Kind) -> None:
        """Have the run's folders ready for a call that writes to them."""
        parents = self._folders_of_runs()
        if not parents:
            return
        enter = partial(self._folders.enter, is_given=self.has_own_id)
        take = enter if kind is Kind.FIT else self._folders.follow
        taken = in_main_process(
            self.runtime, "take the run's folder", take, parents, self.running_id
        )
        self.running_id, said = self.runtime.gather_objects(taken)[0]
        for sentence in said:
            self.note(sentence)

    @contextmanager
    def _opened(self, session: Session) -> Iterator[None]:
        """Make a session the one that runs, for a block."""
        if session.kind is Kind.FIT:
            self._take_folders(Kind.FIT)
        if self._earlier is not None and session.kind in (Kind.TEST, Kind.PREDICT):
            self._earlier.warn_of_weights(self.fits.num_calls, session.kind.value)
        outer, self.session = self.session, session
        try:
            with self.runtime.call(f"{session.kind.value}()"), session:
                yield
        finally:
            self.session = outer
            if outer is None and not session.kind.is_try:
                # Not the plan, whose tasks know the trainer: a circle would keep models alive.
                plan, reason = session.plan, session.save_points.stop_reason
                self._latest = LatestCall(plan.val_freq, plan.metrics, reason)

    def options_of_fit(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Give all arguments of ``fit`` by name: the given ones, and the defaults of the others."""
        # Not those of a subclass, whose fit may have others.
        bound = inspect.signature(TrainerBase.fit).bind(self, **given)
        bound.apply_defaults()
        return {name: value for name, value in bound.arguments.items() if name != "self"}

    def span_of(self, plan: FitPlan, epochs: int | None) -> FitSpan:
        """Say which epochs the fit has; of steps alone as many as they take."""
        span = self.fits.next(epochs, resumes=self.fits.resumes(self.place))
        is_given = epochs is not None or span.end != DEFAULT_EPOCHS
        if is_given or self.limits.max_steps is None or span.is_past:
            return span
        lengths = lengths_of(self, plan)
        end = self.limits.num_epochs(self.fits.progress, lengths, self.grad_accumulate)
        return span._replace(end=DEFAULT_EPOCHS if end is None else end, is_open=True)

    def ignore_resume(self) -> None:
        """Have the next fit begin here, whatever ``resume`` asks for."""
        self._to_resume = False
        self._earlier = None

    def _resume_if_asked(self, plan: FitPlan) -> Resumption | None:
        """Load what ``resume`` asks for, before the fit in which it was saved."""
        if self.fits.part is not None:
            from .fit.part import go_on

            go_on(self, self.place, self.fits, plan)
        if self._to_resume and not self.fits.num_calls:
            if self.checker is None:
                raise ConfigError(
                    f"resume={self.resume!r} needs a CheckCallback, which knows where checkpoints "
                    "are: Trainer(..., callbacks=CheckCallback('loss'), resume=...)."
                )
            self.checker.resume(self)
            # Once: after a refused fit, the user may have loaded something else.
            self._to_resume = False
        if self._earlier is not None and self._earlier.is_due(self.fits.num_calls, self.place):
            return self._earlier.load(self, self.place)
        if not self.place.is_set:
            return None
        from .fit.resume import Resumption

        return Resumption(self, self.place)

    def resume_from(self, path: str | PathLike[str]) -> None:
        """Have the fits resume a checkpoint: skip those that were finished, then load it."""
        from .checkpoint.store import read_checkpoint
        from .fit.resume import EarlierFits

        source, state = read_checkpoint(path)
        if state.get("format") == "0.6":  # it does not say of which fit it is
            self.load_checkpoint(source)
            return
        self._folders.continue_run(source.absolute().parent.name)
        self._earlier = EarlierFits(source, state)
        self.fits.replay(self._earlier.starts)

    @with_hints
    def test(
        self,
        test_dl: Iterable[Any] | None = None,
        metrics: Metric | Sequence[Metric] | None = None,
        do_loss: bool = True,
        batch_size: BatchSize = None,
        tasks: EpochTask | Sequence[EpochTask] | None = None,
    ) -> Results:
        """Test the model; can be called without a fit.

        With a ``CheckCallback``, the best weights of this trainer's run are tested, which is said
        in a line. Afterwards the trainer is as it was. A test in a hook of a fit, and one after
        ``load_weights`` or ``load_checkpoint``, tests the weights that are there.

        Args:
            test_dl: test loader; comes before ``tasks``.
            metrics: one metric or a list, before those of the trainer.
            do_loss: compute the loss on ``test_dl``.
            batch_size: weight of a mini-batch in means, as in ``fit``.
            tasks: an ``EpochTask`` or a list.

        Returns:
            A dict ``{name: float}``, with a NumPy array for a metric that gives several numbers;
            of several tasks pooled, and each task's own. It prints as a table.
        """
        plan = plan_test(self, test_dl, tasks, metrics, do_loss, batch_size)
        with self._tried(plan) if self.limits.dry_run else nullcontext():
            return self._test_plan(plan)

    def _test_plan(self, plan: FitPlan) -> Results:
        """Run a test that is planned."""
        testing = plan.tasks[Stage.TEST]
        values = Results()
        session = Session(self, plan, Kind.TEST, self.callbacks, self.session)
        with self._using_best(for_test=True), self._opened(session):
            session.fire("on_before_test_epochs", tasks=testing)
            for index, task in enumerate(testing):
                run_pass(session, task, Stage.TEST, (index, len(testing)))
            values = Results(session.stage_values(session.totals))
            session.fire("on_after_test_epochs", tasks=testing, metrics=values)
        return values

    @with_hints
    def predict(
        self, dataloader: Iterable[Any], *, with_targets: bool | None = None, best: bool = False
    ) -> Any:
        """Give the model's outputs for a loader, joined on the CPU in the loader's order.

        Args:
            dataloader: a loader as for ``test``, or one that yields inputs only.
            with_targets: the last element of a mini-batch, or the entry ``targets`` of a dict,
                is a target to leave out. ``None``: the target is left out if the trainer has a
                loss function and the mini-batch has more than one element. If you have
                overridden ``prepare_data``, it splits the mini-batch.
            best: use the best weights of this run, and put back those that are there.

        Returns:
            Outputs ``[N, ...]`` as the model gives them: a tensor, tuple or dict. A list
            with one entry for each sample, where the model gives such lists or the outputs
            have unequal shapes. An empty list from an empty loader.

        Raises:
            CheckpointError: ``best``, and there are no best weights, as for ``load_best``.
        """
        task = as_task(dataloader, "dataloader", None)
        plan = FitPlan({Stage.PREDICT: [task]}, {Stage.PREDICT: []}, "tensor")
        outputs: list[Any] = []
        using_best = self._using_best() if check_flag("best", best) else nullcontext()
        session = Session(self, plan, Kind.PREDICT, self.callbacks, self.session)
        with using_best, self._opened(session):
            session.modes.set(training=False)
            outputs = predict_batches(self, dataloader, with_targets=with_targets)
        if not outputs and self.stop_reason is None:
            warn_user(
                "predict() got no mini-batch from its loader, and gives an empty list.", UserWarning
            )
        return join_outputs(outputs) if outputs else outputs

    def print(self, *values: Any, **options: Any) -> None:
        """Print in the main process only, without breaking the console's line."""
        if self.main_process:
            self.default_cbk.write(*values, **options)

    def note(self, text: str) -> None:
        """Print a sentence of the library, unless the console is off."""
        if self.main_process:
            getattr(self.default_cbk, "note", self.default_cbk.write)(text)

    def prepare_data(self, batch_data: Any, to_device: bool = True) -> tuple[Any, Any]:
        """Split a mini-batch into ``(batch_x, batch_y)``, moved to the device if asked."""
        if to_device:
            batch_data = nested.to_device(batch_data, self.device)
        with_targets = self.loss_fn is not default_loss
        return split_batch(batch_data, with_targets=with_targets, entry=self._target_entry())

    def _target_entry(self) -> str | None:
        """The entry of a dict mini-batch that is its target: as the task says, or the trainer."""
        own = None if self.current_task is None else self.current_task.targets
        return self.targets if own is None else own

    def splits_pairs(self, stage: Stage) -> bool:
        """Whether ``split_pair`` does all of ``prepare_data`` for a pair of tensors on the CPU."""
        stays = self.runtime.on_cpu or not self.moves_data(stage)
        return stays and self.loss_fn is not default_loss and not self.has_own_split

    @property
    def has_own_split(self) -> bool:
        """Whether the user has put a ``prepare_data`` in place of the library's."""
        return getattr(self.prepare_data, "__func__", None) is not TrainerBase.prepare_data

    def moves_data(self, stage: Stage) -> bool:
        """Whether the mini-batches of a stage are moved to the device."""
        return self.auto_traindata_to_device or stage is not Stage.TRAIN

    @with_hints
    def find_lr(
        self,
        train_dl: Iterable[Any] | None = None,
        max_batch: int = 100,
        min_lr: float = 1e-6,
        max_lr: float = 5,
        opt_id: int | None = None,
        *,
        train_tasks: EpochTask | Sequence[EpochTask] | None = None,
        batch_size: BatchSize = None,
    ) -> LRCurve:
        """Train with a rising learning rate, note the losses, and put everything back.

        Afterwards weights, optimizers, schedulers, gradients, random states and the order of
        the data are restored. Only callbacks with ``acts_in_tries = True`` are called, such as
        ``GradClipCallback``. Schedulers do not step.

        Args:
            train_dl: training loader; exactly one of it and ``train_tasks`` is given.
            max_batch: mini-batches to try; short epochs are repeated.
            min_lr: below the first rate.
            max_lr: the last rate. The search ends before it where the mean of five losses is
                ten times the best one.
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
        from .callbacks.lr_find import LRSweep, check_range
        from .show.lr_curve import LRCurve

        check_range(max_batch, min_lr, max_lr)
        plan, opt_id = plan_search(self, train_dl, train_tasks, batch_size, opt_id)
        tasks, sweep = plan.tasks[Stage.TRAIN], LRSweep(max_batch, min_lr, max_lr, opt_id)
        with self.trying(Kind.FIND_LR, plan, sweep) as session:
            while not sweep.done:
                for index, task in enumerate(tasks):
                    run_pass(session, task, Stage.TRAIN, (index, len(tasks)))
        return LRCurve(sweep.lrs, sweep.losses)

    @contextmanager
    def trying(self, kind: Kind, plan: FitPlan, watch: Callback) -> Iterator[Session]:
        """Let the block train in a session of its own, and put back all that this changes.

        ``watch`` is called, and those callbacks that act in tries.
        """
        from .state.snapshot import no_trace

        acting = CallbackPool([*(c for c in self.callbacks if c.acts_in_tries), watch])
        session = Session(self, plan, kind, acting, self.session)
        with (
            self.runtime.call(f"{kind.value}()"),
            no_trace(self, [task.dataloader for task in plan.all_tasks()], acting),
            self._opened(session),
        ):
            self.opt.drop_gradients()
            yield session

    @with_hints
    def summary(self, data: Any = None, *, depth: int | None = 3) -> ModelSummary:
        """List the layers of the model with their parameters, and what memory they take.

        Nothing is changed: where there are ``data``, a copy of the model is called on them once,
        in evaluation mode and without gradients.

        Args:
            data: a loader, of which one mini-batch is taken, a mini-batch, or a tensor that is
                the input; it gives the shapes of the outputs. ``None``: no shapes.
            depth: the layers below so many levels are counted in that above them; ``None``:
                all are shown.

        Returns:
            A summary that prints as a table, with ``.layers``, ``.parameters``, ``.trainable``
            and ``.memory`` in bytes.

        Raises:
            ConfigError: an argument that cannot be right; ``data``, and the model is sharded or
                cannot be copied.

        Example:
            >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
            >>> trainer = Trainer(model, nn.functional.cross_entropy)
            >>> print(trainer.summary(torch.randn(16, 4)))
            layer       kind        output   parameters
            Sequential  Sequential  [16, 2]
              0         Linear      [16, 8]          40
              1         ReLU        [16, 8]
              2         Linear      [16, 2]          18
            <BLANKLINE>
            parameters: 58, all of them trained
            memory: 232 bytes of weights and buffers, 232 bytes of gradients, 464 bytes for the optimizer
            outputs of the layers: about 1.15 kB for a mini-batch of 16 samples
        """
        from .tries.summary import summarize

        return summarize(self, data, depth)

    @with_hints
    def find_batch_size(
        self,
        train_dl: Iterable[Any],
        max_size: int | None = None,
        *,
        batch_size: BatchSize = None,
    ) -> FoundBatchSize:
        """Find the largest mini-batch that fits, and how fast each size is; put everything back.

        Sizes are doubled from 2 on until memory runs out, the data are used up or ``max_size`` is
        reached, and then tried between the last two, to a sixteenth. Each size makes 3 to 12
        training steps with the same first samples of the loader.

        A CPU has no limit of its own: the system slows down, or ends the process. There sizes are
        doubled while a step takes less than a second or gets faster for each sample, and the size
        that is given is the smallest that is within a tenth of the fastest.

        Args:
            train_dl: a ``DataLoader``, whose data set, sampler and collate function are used.
            max_size: no larger one is tried.
            batch_size: weight of a mini-batch, as in ``fit``.

        Returns:
            What was found, with ``.batch_size``, ``.largest`` and ``.trials``; it prints as a
            table.

        Raises:
            ConfigError: an argument that cannot be right; a ``DataLoader`` with a ``batch_sampler``
                of its own; several processes; a model with lazy layers.
            torch.OutOfMemoryError: not even one sample fits.
        """
        from .tries.batch_size import find_batch_size

        return find_batch_size(self, train_dl, max_size, batch_size)

    @with_hints
    def profile(
        self,
        train_dl: Iterable[Any] | EpochTask,
        steps: int = 20,
        path: str | PathLike[str] | None = None,
        *,
        batch_size: BatchSize = None,
    ) -> Profile:
        """Measure where the time of some training steps goes, and put everything back.

        The first three steps are not measured. Callbacks take part as in ``find_lr``.
        ``torch.profiler`` makes each step some tenths slower. On a GPU each part waits until the
        device is done, so that parts that overlap otherwise follow one another.

        Args:
            train_dl: training loader, or an ``EpochTask``; short epochs are repeated.
            steps: mini-batches to measure.
            path: a file that ends in ``.json``, for the trace, which https://ui.perfetto.dev and
                ``chrome://tracing`` show; TensorBoard wants ``.pt.trace.json``. ``None``: nothing
                is written.
            batch_size: weight of a mini-batch, as in ``fit``.

        Returns:
            A profile with ``.parts`` and ``.operations`` in seconds; it prints as tables.

        Raises:
            ConfigError: an argument that cannot be right; a model with lazy layers.
        """
        from .tries.profile import profile_steps

        return profile_steps(self, train_dl, steps, path, batch_size)

    @with_hints
    def check(
        self,
        train_dl: Iterable[Any] | None = None,
        val_dl: Iterable[Any] | None = None,
        **fit_options: Any,
    ) -> Findings:
        """Look for faults of a training before it is run, and put everything back.

        Weights and optimizers, labels and outputs, the order of the data, samples shared with the
        validation, modes of layers, gradients, the rate, schedules, loading and resuming are
        looked at. It makes some hundred training steps, and reads some hundred samples. What is
        found is likely to be a fault: a doubt is passed over. The report of the run has it, too.

        Args:
            train_dl: training loader, as for ``fit``.
            val_dl: validation loader, as for ``fit``.
            **fit_options: further arguments of ``fit``, such as ``train_tasks``.

        Returns:
            A list of findings, the worst first, each with ``severity``, ``text`` and ``remedy``;
            it prints in words. It is empty, and so false, where nothing was found.

        Raises:
            ConfigError: an argument that ``fit`` refuses; a model with lazy layers.
            LoopException: called in a running fit.

        Example:
            >>> data = [(torch.randn(8, 4), torch.randint(0, 3, (8,))) for _ in range(3)]
            >>> model = nn.Sequential(nn.Linear(4, 3), nn.Softmax(dim=1))
            >>> trainer = Trainer(model, nn.CrossEntropyLoss(), torch.optim.SGD(model.parameters(), 0.1))
            >>> for finding in trainer.check(data):
            ...     print(finding.severity, finding.text[:40])
            warning The outputs go through softmax before cr
        """
        from .checks.run import check_training

        told = set(self._told)
        try:
            given = {"train_dl": train_dl, "val_dl": val_dl}
            given = {name: value for name, value in given.items() if value is not None}
            self.findings = check_training(self, {**given, **fit_options})
            return self.findings
        finally:
            self._told = told  # the fit warns of what it finds itself

    def run_task(self, task: EpochTask, stage: Stage) -> dict[str, Any]:
        """Run one pass over one task's data, inside of a call whose task it is."""
        if self.session is None:
            raise not_running(task, stage)
        return run_pass(self.session, task, stage)

    def validate_between(self) -> None:
        """Validate between two mini-batches of the fit that runs."""
        from .fit.between import Validation

        if (fit := self._fit) is not None:
            validation = Validation(fit)
            with self._opened(validation):
                validation.run_all(run_pass)

    # state

    def parts(self) -> dict[str, Part]:
        """The parts of the state by name, each with ``state_dict`` and ``load_state_dict``."""
        from .state.parts import collect_parts

        return collect_parts(self, self.place, self.fits, self.loaders)

    def state_dict(self) -> dict[str, Any]:
        """The whole state, from which a run resumes to the bit: tensors and plain types.

        The tensors are those in use: save them or copy them before training goes on. All
        processes call this together; of a sharded model, the first one alone has the values.
        """
        self.runtime.any(False, "saves its state")  # before the collectives of a sharded model
        state = {name: part.state_dict() for name, part in self.parts().items()}
        if self.fits.part is not None and not self.place.is_set:
            state.update(self.fits.part.state)  # at the stop, from which a fit goes on
        return dict(to_plain(state, with_meta=True))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load a state; the next fit resumes there.

        Raises:
            CheckpointMismatch: the state does not fit; the trainer is as it was.
        """
        from .state.strict import WEIGHTS_ALONE, load_parts

        if self.session is not None:
            raise LoopException(
                "A whole state cannot be loaded while a fit or test runs: the loop has its place in "
                "the data already. Load it before fit(), or take load_weights(state)."
            )
        checking = together(self.runtime, "load the state")
        try:
            load_parts(self.parts(), from_plain(dict(state)), checking=checking, warns=True)
        except CheckpointMismatch as error:
            raise CheckpointMismatch(f"{error}\n{WEIGHTS_ALONE}") from error.__cause__
        self._note_load()
        self._folders.continue_run(self.running_id)

    @with_hints
    def load_weights(
        self,
        source: Mapping[str, Any] | str | PathLike[str] | int,
        *,
        strict: bool = True,
    ) -> TrainerBase:
        """Take weights alone, whatever the optimizer is, and leave everything else.

        These are the weights and buffers of the model; of a checkpoint of this library also
        those of a loss function with parameters, and what the optimizers train beside them.

        Args:
            source: a checkpoint; the folder or id of a run, for its newest checkpoint; a file
                of ``torch.save`` or ``.safetensors`` with a ``state_dict``; or a dict: a
                ``state_dict``, one that has it under ``'model'`` or ``'state_dict'``, or what
                ``trainer.state_dict()`` gives. Names may have the prefix of a compiled model
                (``_orig_mod.``) or of DDP (``module.``).
            strict: all names, shapes and types must be those of the model. ``False``: take
                the entries of the same name and shape, for example for another head, and say
                what was left.

        Returns:
            The trainer.

        Raises:
            CheckpointNotFound: there is no such file or run.
            CheckpointMismatch: the weights do not fit; the trainer is as it was.

        Example:
            >>> trainer = Trainer(nn.Linear(4, 1), nn.MSELoss(), show_info=False)
            >>> model = trainer.load_weights(nn.Linear(4, 1).state_dict()).model
        """
        from .state.weights import read_source, take_weights

        with together(self.runtime, "load the weights"):
            where, state = read_source(self, source)
        told = take_weights(self, where, state, strict=check_flag("strict", strict))
        if told or not isinstance(source, Mapping):
            self.note(f"loading weights of {where}{': ' if told else ''}{told}")
        self._note_load()
        return self

    @with_hints
    def save_weights(self, path: str | PathLike[str]) -> Path:
        """Write the weights of the model alone, for other programs.

        ``torch.load(path, weights_only=True)`` gives the ``state_dict`` of the model without
        any wrapper. All processes call this together; the main one writes.

        Args:
            path: the file; one that ends in ``.safetensors`` gets this format.

        Returns:
            The path.

        Raises:
            CheckpointError: the file cannot be written.

        Example:
            >>> import tempfile
            >>> trainer = Trainer(nn.Linear(4, 1), nn.MSELoss(), show_info=False)
            >>> path = trainer.save_weights(tempfile.mkdtemp() + "/weights.pt")
            >>> list(torch.load(path, weights_only=True))
            ['weight', 'bias']
        """
        from .checkpoint.file import write_weights
        from .state.weights import plain_weights

        weights = plain_weights(self)
        in_main_process(self.runtime, f"write {path}", write_weights, path, weights)
        return Path(path)

    @with_hints
    def export(
        self, path: str | PathLike[str], format: str = "torch", *, data: Iterable[Any] | None = None
    ) -> Path:
        """Write the model as a program that needs neither its code nor this library.

        It has the best weights of this run, as a test does, or the present ones if there are none.
        The example that ``torch.export`` follows is the first mini-batch of the data; the number of
        samples is free. All processes call this together; the main one writes.

        Args:
            path: the file, whose name ends in ``.pt2``, or in ``.onnx`` for ``'onnx'``.
            format: ``'torch'``, for ``torch.export.load(path).module()``; or ``'onnx'``.
            data: a loader as for ``predict``; ``None``: that of the latest fit.

        Returns:
            The path.

        Raises:
            ConfigError: there are no data, or the model cannot be exported.
            MissingExtraError: the packages for ``'onnx'`` are not installed.

        Example:
            >>> import tempfile
            >>> trainer = Trainer(nn.Linear(4, 1), nn.MSELoss(), console="off")
            >>> path = trainer.export(tempfile.mkdtemp() + "/model.pt2", data=[torch.randn(8, 4)])
            >>> torch.export.load(path).module()(torch.randn(3, 4)).shape
            torch.Size([3, 1])
        """
        from .data.routes import first_batch
        from .fit.export import check_target, write_program

        target = check_target(path, format)
        loader = self.loaders.first if data is None else data
        if loader is None:
            raise ConfigError(
                "export() needs an example mini-batch, and this trainer has run no fit: give "
                "export(path, data=loader)."
            )
        as_task(loader, "data", None)
        shared = nullcontext(loader) if data is None else self.runtime.shared(loader)
        with rng.preserved(), shared as share:
            if (batch := first_batch(share, self.init_epoch)) is None:
                raise DataError(
                    "export() got no mini-batch from the loader: there is no example input."
                )
            batch_x, batch_y = split_inputs(self, batch)
        model = self.runtime.unwrap(self.model)
        with self._using_best(for_test=True):
            arguments = (model, target, format, batch_x, batch_y)
            in_main_process(self.runtime, f"write {path}", write_program, *arguments)
        return target

    def load_best(self) -> TrainerBase:
        """Take the best weights of this run for good; the optimizers stay as they are.

        Returns:
            The trainer.

        Raises:
            ConfigError: the trainer has no ``CheckCallback``.
            CheckpointNotFound: there are no best weights of this run, or their file is gone.
            CheckpointDamaged: their file is damaged.
        """
        from .state.weights import take_weights

        take_weights(self, "the best weights", self._read_best(), strict=True)
        self.note(f"loading best model from running ID {self.running_id}")
        return self

    def _read_best(self) -> dict[str, Any]:
        if self.checker is None:
            raise ConfigError(
                "There are no best weights without a CheckCallback, which keeps them: "
                "Trainer(..., callbacks=CheckCallback('loss'))."
            )
        self._take_folders(Kind.TEST)
        state: dict[str, Any] = self.checker.read_best(self)
        return state

    @contextmanager
    def _using_best(self, *, for_test: bool = False) -> Iterator[None]:
        """Use the best weights in a block; a test does so only where it is to, and says it."""
        with nullcontext() if self.ema is None else self.ema.applied():
            state = self._best_for_test() if for_test else self._read_best()
            if state is None:
                yield
                return
            from .state.weights import using_weights

            with using_weights(self, state):
                yield

    def _best_for_test(self) -> dict[str, Any] | None:
        """The best weights if a test is to use them; in a hook it uses those that are there."""
        if self.session is not None:
            return None
        self._take_folders(Kind.TEST)
        return None if self.checker is None else self.checker.best_for_test(self)

    def _note_load(self, source: Path | None = None) -> None:
        """Have the callback that keeps checkpoints know that something was loaded by hand."""
        if self.checker is not None:
            self.checker.note_load(source)

    @with_hints
    def load_checkpoint(self, path: str | PathLike[str]) -> TrainerBase:
        """Load a checkpoint file, or the newest whole one of a run's folder.

        Args:
            path: a file written by ``CheckCallback``, also that of release 0.6, or a folder.

        Returns:
            The trainer, whose next fit resumes at the checkpoint.

        Raises:
            CheckpointError: missing, damaged or of another model; the trainer is as it was.
        """
        from .checkpoint.store import read_checkpoint
        from .state.parts import load_0_6
        from .state.strict import WEIGHTS_ALONE, of_source
        from .state.weights import told_of_flags

        with together(self.runtime, "read the checkpoint"):
            source, state = read_checkpoint(path)
        self.note(f"loading checkpoint {source}")
        try:
            if state.get("format") == "0.6":
                load_0_6(self.parts(), state)
            else:
                with told_of_flags(self.runtime.unwrap(self.model)):
                    self.load_state_dict(state)
        except CheckpointMismatch as error:
            raise of_source(error, source, WEIGHTS_ALONE) from None
        self._note_load(source.absolute())
        self._folders.continue_run(source.absolute().parent.name)
        return self

    def verify_resume(
        self,
        train_dl: Iterable[Any] | None = None,
        val_dl: Iterable[Any] | None = None,
        *,
        steps: int = 20,
        **fit_options: Any,
    ) -> ResumeReport:
        """Prove, on this model and data, that a resumed run is the unbroken one to the bit.

        Runs unbroken, runs to the middle, resumes in a fresh process and compares
        everything. The trainer, its loaders and the disk are left as they are. It may be
        called before each fit. In several processes all call it, and get the same report.

        Args:
            train_dl: training loader, as for ``fit``.
            val_dl: validation loader, as for ``fit``.
            steps: mini-batches to run at most, of training and validation together.
            **fit_options: further arguments of ``fit``, such as ``train_tasks``.

        Returns:
            A report: ``ok``, ``differences``, the likely ``cause``, the ``attributes`` that the
            resume does not bring back, and what checkpoints could not follow.

        Raises:
            ConfigError: ``steps`` or the run are fewer than 2, or a sharded model.
            LoopException: called in a running fit, or the processes cannot be started.
            CheckpointError: a run failed; the message has the traceback.

        Example:
            >>> data = [(torch.randn(8, 4), torch.randn(8, 1)) for _ in range(3)]
            >>> trainer = Trainer(nn.Linear(4, 1), nn.MSELoss(), epochs=2, show_info=False)
            >>> trainer.verify_resume(data, steps=4)
            Exact resume: saved after mini-batch 2 of 4; every entry of the state is the same to the
            bit.
        """
        from .verify import verify_resume

        options = {"train_dl": train_dl, "val_dl": val_dl, **fit_options}
        return verify_resume(self, steps, options)

    def plain_loop(
        self,
        path: str | PathLike[str] | None = None,
        train_dl: Iterable[Any] | None = None,
        val_dl: Iterable[Any] | None = None,
        **fit_options: Any,
    ) -> str:
        """Write the training of ``fit`` as a PyTorch script that does not need this library.

        Call it in the script that makes model, data and trainer: the lines up to the call are
        taken over, without those that use the library.

        Args:
            path: the file to write; ``None``: none.
            train_dl: training loader, as for ``fit``.
            val_dl: validation loader, as for ``fit``.
            **fit_options: further arguments of ``fit``, such as ``train_tasks``.

        Returns:
            The text of the script.

        Raises:
            ConfigTypeError: ``path`` is no path.
        """
        from .plain import write_plain_loop

        wrong: Any = path
        if path is not None and not isinstance(wrong, (str, PathLike)):
            given = type(wrong).__name__
            raise ConfigTypeError(
                f"plain_loop(path={given}): the first argument is the file to write, or None. Give "
                "plain_loop('loop.py', train_dl, val_dl)."
            )
        options = {"train_dl": train_dl, "val_dl": val_dl, **fit_options}
        return write_plain_loop(self, options, sys._getframe(1), path)

    def explain(
        self,
        train_dl: Iterable[Any] | None = None,
        val_dl: Iterable[Any] | None = None,
        **fit_options: Any,
    ) -> Explanation:
        """Say in words what ``fit`` with these arguments is going to do.

        Args:
            train_dl: training loader, as for ``fit``.
            val_dl: validation loader, as for ``fit``.
            **fit_options: further arguments of ``fit``, such as ``train_tasks``.

        Returns:
            An object to print: epochs, data, steps, optimizers, metrics, callbacks and files.
        """
        from .plain import explain

        return explain(self, {"train_dl": train_dl, "val_dl": val_dl, **fit_options})

    # the run's folder

    @property
    def checker(self) -> Any:
        """The first callback that keeps checkpoints, or ``None``."""
        return next((cbk for cbk in self.callbacks if cbk.keeps_checkpoints), None)

    @property
    def run_dir(self) -> Path:
        """The folder of this run: of its checkpoints, logs and reports."""
        first = next(iter(self._folders_of_runs()), self._folders.start / "logs")
        return run_folder(first if self.checker is None else self.checker.runs_in, self.running_id)

    def _folders_of_runs(self) -> list[Path]:
        """The folders of runs that callbacks write to."""
        found = dict.fromkeys(callback.runs_in for callback in self.callbacks)
        return [folder for folder in found if folder is not None]

    def adopt_run(self, running_id: str) -> None:
        """Use the folder of an earlier run, unless this trainer was given an id."""
        if not self.has_own_id:
            self.running_id = running_id

    def report(self, path: str | PathLike[str] | None = None) -> Path:
        """Write a page of HTML on the run: curves, metrics, settings, model and machine.

        The page is one file, and loads nothing from the network. With an ``InterpretCallback``
        it has its confusion matrix and samples.

        Args:
            path: the file; ``None``: ``report.html`` in the run's folder.

        Returns:
            The path.
        """
        from .callbacks.report import write_report

        return write_report(self, path)

    def open_logger(self, log_dir: str | PathLike[str] = "./logs") -> Any:
        """Give the TensorBoard writer that the callbacks share, made at the first call.

        Args:
            log_dir: the folder of the runs, for the first call.

        Returns:
            ``trainer.logger``, a ``SummaryWriter`` for ``<log_dir>/<running_id>``.
        """
        own = self._own_logger
        if own is not None and self.logger is own and Path(own.log_dir).name != self.running_id:
            own.close()
            self.logger = None
        if self.logger is None:
            from .callbacks.event_files import open_writer

            parent = self._folders.start / log_dir
            self._folders.use(run_folder(parent, self.running_id))
            self.logger = self._own_logger = open_writer(run_folder(parent, self.running_id))
            weakref.finalize(self, self.logger.close)
        return self.logger

    def close_logger(self) -> None:
        """Close the file of ``trainer.logger``; a later use of it opens the file again.

        A writer that you have put there yourself is flushed, and stays open.
        """
        if self.logger is None:
            return
        if self.logger is self._own_logger:
            self.logger.close()
        else:
            self.logger.flush()

    # stopping and saving

    @with_hints
    def stop(self, reason: str = "", validate: bool = False) -> None:
        """End the fit or test after this mini-batch.

        Epochs that are done stay done. Of the one that is under way the history gets the part
        that was trained, marked in ``history.partial``. The next fit on the same data goes on
        where this one has stopped, and has the whole epoch.

        Args:
            reason: what the console and the record of the run say.
            validate: validate before the fit ends, where it has validation data; the weights
                there may be the best.
        """
        if self.session is None:
            warn_user(
                "stop() was called while nothing runs, and does nothing: call it in a hook or a "
                "step of a fit or test.",
                UserWarning,
            )
        else:
            self.session.save_points.stop(reason, validate=check_flag("validate", validate))

    @with_hints
    def add_saver(self, saver: Any, finish: Any = None) -> None:
        """Have ``saver(trainer)`` called where a fit is stopped before its end.

        Args:
            saver: a function of the trainer.
            finish: a function of the trainer that is called when the epochs of the fit are over
                or it was stopped, before ``on_after_fit``: it waits for what is saved in the
                background.
        """
        self._saving().add_saver(saver, finish)

    @with_hints
    def request_save(self, saver: Any, *, everywhere: bool = False) -> None:
        """Have ``saver(trainer)`` called at the next save point of the fit.

        Save points are after a mini-batch of training or validation and after an epoch, when all
        ``after_`` hooks have run: only there is the state whole. Several processes agree on them a
        few times a second.

        Args:
            saver: a function of the trainer.
            everywhere: all processes ask for it after the same mini-batch, and save there; if one
                may have no sample of it, they save where they agree next, as in a validation.
        """
        self._saving().request(saver, everywhere=everywhere)

    def _saving(self) -> SavePoints:
        if self.session is None:
            raise LoopException(
                "request_save() and add_saver() work only inside of a fit: call them in a hook or a "
                "step. To save now, take trainer.state_dict()."
            )
        return self.session.save_points.outermost

    def tell_once(self, about: str) -> bool:
        """Whether a warning about something is the first of this trainer."""
        first = not self.was_told(about)
        self._told.add(about)
        return first

    def was_told(self, about: str) -> bool:
        """Whether this trainer has warned of something."""
        return about in self._told

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
    def _fit(self) -> FitSession | None:
        """The fit that runs, also while a test inside of it does."""
        fit = None if self.session is None else self.session.fit
        return fit if isinstance(fit, FitSession) else None

    @property
    def is_interrupted(self) -> bool:
        """Whether it is a signal or Ctrl-C that ends the fit."""
        return self._fit is not None and self._fit.is_interrupted

    @property
    def init_epoch(self) -> int:
        """Index of the next epoch, from 0."""
        return self.fits.progress.epoch_idx

    @property
    def max_epochs(self) -> int:
        """The total number of epochs, of the fit that runs or of all so far."""
        return self.fits.max_epochs if self._fit is None else self._fit.span.end

    @property
    def known_epochs(self) -> int | None:
        """``max_epochs``; ``None`` where steps end the fit in an epoch that is not known before."""
        by_steps = (
            self.limits.max_steps is not None if self._fit is None else self._fit.span.is_open
        )
        return None if by_steps and self.max_epochs == DEFAULT_EPOCHS else self.max_epochs

    @property
    def is_fit_run(self) -> bool:
        """Whether a fit has begun."""
        return self.fits.num_calls > 0

    @property
    def is_resumed(self) -> bool:
        """Whether the next fit, or the one that begins now, resumes a loaded state."""
        return self.place.is_set

    @property
    def progress(self) -> Progress:
        """How far the run has come: epochs, mini-batches, optimizer steps."""
        run = None if self._fit is None else self._fit.run
        progress, inner = self.fits.with_run(run), self.run
        if inner is not None and inner is not run and inner.stage is Stage.VAL:
            done = progress.num_val_batches + inner.batch_idx + 1
            return progress._replace(num_val_batches=done)
        return progress

    @property
    def stop_reason(self) -> str | None:
        """Why the call that runs, or the latest one, was stopped; ``None``: it was not."""
        if self.session is None:
            return self._latest.stop_reason
        return self.session.save_points.stop_reason

    @property
    def run(self) -> Run | None:
        """The pass that runs now, or ``None``."""
        return None if self.session is None else self.session.run

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
        """Epochs from one validation to the next, in the call that runs or the latest one."""
        return self._latest.val_freq if self.session is None else self.session.plan.val_freq

    @property
    def train_metrics(self) -> list[Any]:
        """The metrics of all training tasks, in the call that runs or the latest one."""
        return self._metrics_of(Stage.TRAIN)

    @property
    def val_metrics(self) -> list[Any]:
        """The metrics of all validation tasks, likewise."""
        return self._metrics_of(Stage.VAL)

    @property
    def test_metrics(self) -> list[Any]:
        """The metrics of all test tasks, likewise."""
        return self._metrics_of(Stage.TEST)

    def _metrics_of(self, stage: Stage) -> list[Any]:
        metrics = self._latest.metrics if self.session is None else self.session.plan.metrics
        return metrics.get(stage, [])


class Trainer(TrainerBase):
    """Trains, validates and tests a model.

    The model comes first, then the loss function, the optimizer and the number of epochs. All
    arguments are described at ``Trainer.__init__``. The data are given to ``fit``, ``test`` and
    ``predict``. Subclass it to give all tasks steps of your own.

    Example:
        >>> data = [(torch.randn(8, 4), torch.randint(0, 3, (8,))) for _ in range(3)]
        >>> model = nn.Linear(4, 3)
        >>> opt = torch.optim.Adam(model.parameters(), lr=0.01)
        >>> trainer = Trainer(
        ...     model, nn.functional.cross_entropy, opt, epochs=2, metrics="accuracy", console="off"
        ... )
        >>> history = trainer.fit(data, data)
        >>> len(history["val"]["accuracy"]), sorted(trainer.test(data))
        (2, ['accuracy', 'loss'])
    """
