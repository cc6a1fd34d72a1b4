"""The fits of a run, and the epochs of one: how each begins and ends, and how a fit resumes.

A fit ends in one of four ways: finished, stopped, interrupted, or with an error. A script that
was killed and is started again calls its fits again: those that were finished are skipped, and
the one that was not resumes.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from typing import Any, NamedTuple

from ..callbacks.base import Callback
from ..contracts import RunView, TrainerView
from ..data.cursor import Cursor, Loaders
from ..errors import LoopException, MetricError, StopLoopException
from ..history import Progress
from ..hooks import fire, fire_in_step
from ..patches.totals import LOSS, StageTotals
from ..run import Run
from ..runtime.base import together
from ..stages import Stage
from ..state.place import EpochState, Place
from .plan import FitPlan
from .session import Kind, Session


class FitSpan(NamedTuple):
    """The epochs of one fit, from 0, ``end`` excluded."""

    start: int
    end: int
    is_past: bool = False
    """Whether an earlier process has finished the fit."""


class FitLog:
    """The fits of a run.

    Attributes:
        progress: the counters of the run, without those of the pass that runs.
        max_epochs: the total number of epochs.
        num_calls: the fits that this process has called, without refused ones.
    """

    def __init__(self, max_epochs: int) -> None:
        self.max_epochs = max_epochs
        self.progress = Progress()
        self.num_calls = 0
        self._starts: list[int] = []  # the first epoch of each fit of the run
        self._replays = False  # this process calls the fits of an earlier one again

    def replay(self) -> None:
        """Expect the fits of an earlier process to be called again, from the first."""
        self._replays = True

    def next(self, epochs: int | None, *, resumes: bool) -> FitSpan:
        """Say which epochs the fit has that is called now; change nothing."""
        if self._replays and self.num_calls < len(self._starts) - 1:
            start, end = self._starts[self.num_calls : self.num_calls + 2]
            return FitSpan(start, end, is_past=True)
        done = self.progress.epoch_idx
        start = self._starts[-1] if resumes and self._starts else done
        if epochs is None:
            return FitSpan(start, self.max_epochs)
        if resumes and self._replays:
            return FitSpan(start, start + epochs)
        return FitSpan(start, epochs + (done if self.num_calls else 0))

    def begin(self, span: FitSpan, *, resumes: bool) -> None:
        """Record a fit that is not refused."""
        self.num_calls += 1
        if span.is_past:
            return
        self.max_epochs = span.end
        if not (resumes and self._starts):
            self._starts.append(span.start)

    def with_run(self, run: RunView | None) -> Progress:
        """Give the counters with those of a pass."""
        progress = self.progress
        if run is None or run.stage not in (Stage.TRAIN, Stage.VAL):
            return progress
        done, training = run.batch_idx + 1, run.is_training
        return progress._replace(
            num_train_batches=progress.num_train_batches + (done if training else 0),
            num_val_batches=progress.num_val_batches + (0 if training else done),
            num_steps=progress.num_steps + run.num_steps,
        )

    def count(self, run: RunView) -> None:
        """Add the counters of a pass that is over."""
        self.progress = self.with_run(run)

    def end_epoch(self) -> None:
        """Count an epoch."""
        self.progress = self.progress._replace(epoch_idx=self.progress.epoch_idx + 1)

    def state_dict(self) -> dict[str, Any]:
        """The counters, and where the fits began."""
        return {
            **self.progress.state_dict(),
            "first_epoch": self._starts[-1] if self._starts else 0,
            "fit_starts": list(self._starts),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load what ``state_dict`` gave."""
        self.progress = Progress.from_state(state)
        self._starts = [int(start) for start in state.get("fit_starts", [state["first_epoch"]])]


class FitSession(Session):
    """One call of fit: a session with epochs, which may resume a loaded state.

    Attributes:
        span: the epochs of the fit.
        place: the loaded state to resume, if there is one.
        resumes: whether the fit resumes it.
        epoch: the epoch that is under way; between epochs ``None``.
    """

    def __init__(
        self,
        trainer: TrainerView,
        plan: FitPlan,
        callbacks: Sequence[Callback],
        span: FitSpan,
        place: Place,
        fits: FitLog,
        loaders: Loaders,
    ) -> None:
        super().__init__(trainer, plan, Kind.FIT, callbacks)
        self.span = span
        self.place = place
        self.fits = fits
        self.loaders = loaders
        self.resumes = place.is_set
        saved = place.get("epoch")
        self.epoch: EpochState | None = None if saved is None else EpochState.from_state(saved)
        self._is_interrupted = False

    @property
    def fit(self) -> FitSession:
        """The session itself."""
        return self

    @property
    def epoch_idx(self) -> int | None:
        """The epoch that is under way, from 0."""
        return None if self.epoch is None else self.epoch.epoch_idx

    def has_metrics_of(self, stage: str) -> bool:
        """Whether the present epoch has ended a stage."""
        return self.epoch is not None and Stage(stage) in self.epoch.metrics

    def epoch_state(self) -> dict[str, Any] | None:
        """The state of the epoch that is under way."""
        return None if self.epoch is None else self.epoch.state_dict(self.run)

    def begin(self) -> None:
        """Begin anew, or where a loaded state was taken.

        Raises:
            CheckpointMismatch: the fit cannot resume there; the place is as it was.
        """
        with together(self.trainer.runtime, "begin the fit"):
            self._bring_to_place()
        if self.epoch is None or self.epoch.waiting is None:
            self._consume_place()

    def _bring_to_place(self) -> None:
        """Bring random states and loaders to where the fit begins."""
        if self.epoch is not None:
            stages = self.plan.stages_of(self.epoch.epoch_idx)
            self.epoch.check_tasks({stage: self.plan.labels[stage] for stage, _ in stages})
        if not self.resumes:
            # What a fit that was cut short, or the user, has left must not be part of this one.
            self.opt.drop_gradients()
        streams = self.trainer.runtime.streams
        if (random := self.place.get("random")) is not None:
            streams.load_state_dict(random)
        else:
            streams.part()
        share, tasks = self.trainer.runtime.share, self.plan.tasks
        walked = {
            f"{stage}/{index}": share(task.dataloader)
            for stage, listed in tasks.items()
            for index, task in enumerate(listed)
        }
        self.loaders.begin(walked, self.trainer.worker_seeding, self.place.get("loaders"))

    def _consume_place(self) -> None:
        """Forget the loaded state, and record the fit: it cannot be refused any more."""
        self.fits.begin(self.span, resumes=self.resumes)
        self.place.clear()
        if self.epoch is not None:
            self.epoch.resume()

    @contextmanager
    def until_stopped(self) -> Iterator[None]:
        """Let a stop, a signal or Ctrl-C end the block, and not the fit."""
        try:
            yield
        except StopLoopException as request:
            self.save_points.stop(str(request))
        except KeyboardInterrupt:
            self._is_interrupted = True
            self.save_points.stop("interrupted")

    @property
    def is_interrupted(self) -> bool:
        """Whether it is a signal or Ctrl-C that ends the fit."""
        return self._is_interrupted or self.save_points.signals.received is not None

    def end(self) -> None:
        """Call the hooks after a fit."""
        fire_in_step(self.hooks["on_after_fit"], self.trainer)

    def pass_on(self, on_interrupt: str) -> None:
        """Do what the signal or Ctrl-C that has ended the fit does without this library."""
        signals = self.save_points.signals
        if on_interrupt == "raise" or signals.received is signal.SIGTERM:
            signals.pass_on()
            if self._is_interrupted:
                raise KeyboardInterrupt

    def begin_epoch(self) -> EpochState:
        """Give the epoch that is under way, or begin one."""
        self.save_points.check()
        if self.epoch is None:
            self.epoch = EpochState(self.fits.progress.epoch_idx)
            self.fire(
                "on_before_epoch",
                train_tasks=self.plan.tasks[Stage.TRAIN],
                val_tasks=self.plan.tasks[Stage.VAL],
                epoch_idx=self.epoch.epoch_idx,
            )
        return self.epoch

    def begin_stage(self, epoch: EpochState, stage: Stage) -> None:
        """Begin the training or the validation of an epoch, unless that was done."""
        self.save_points.check()
        if epoch.begin_stage(stage, self.plan.labels[stage]):
            hooks = self.hooks.stages[stage].before_epochs
            fire(hooks, self.trainer, tasks=self.plan.tasks[stage], epoch_idx=epoch.epoch_idx)

    def end_stage(self, epoch: EpochState, stage: Stage) -> None:
        """Pool the passes of a stage."""
        if stage not in epoch.metrics:
            values = epoch.end_stage(stage, self.stage_values(epoch.totals[stage]))
            hooks, tasks = self.hooks.stages[stage].after_epochs, self.plan.tasks[stage]
            fire(hooks, self.trainer, tasks=tasks, metrics=values, epoch_idx=epoch.epoch_idx)

    def end_epoch(self, epoch: EpochState) -> None:
        """Add the epoch to the history, call the hooks, step the schedulers, save if asked."""
        train, val = epoch.metrics[Stage.TRAIN], epoch.metrics.get(Stage.VAL, {})
        history = self.trainer.history
        history.add_epoch(epoch.epoch_idx, train, val or None)
        try:
            self.fire(
                "on_after_epoch",
                train_tasks=self.plan.tasks[Stage.TRAIN],
                val_tasks=self.plan.tasks[Stage.VAL],
                train_metrics=train,
                val_metrics=val,
                epoch_idx=epoch.epoch_idx,
            )
            self._step_schedulers(epoch)
        except BaseException:
            # The next fit begins with this very epoch, which must not be there twice.
            history.forget(epoch.epoch_idx)
            raise
        self.fits.end_epoch()
        self.epoch = None
        self.save_points.check()

    def _step_schedulers(self, epoch: EpochState) -> None:
        """Step the schedulers that go by epochs.

        One that wants a loss gets one kind throughout: the validation loss of the epochs
        that validate, or without validation the training loss of every epoch.
        """
        validates = any(task.do_loss for task in self.plan.tasks[Stage.VAL])
        stage = Stage.VAL if validates else Stage.TRAIN
        values = epoch.metrics.get(stage)
        for index, optimizer in enumerate(self.opt):
            if optimizer.sched_on != "epoch" or not optimizer.needs_loss:
                optimizer.step("epoch")
            elif values is not None:
                if LOSS not in values:
                    raise MetricError(
                        f"The scheduler of optimizer {index} wants a loss, and the {stage} passes "
                        "recorded none. Call self.loss() in their step, or give do_loss=False to "
                        "have it fed the training loss."
                    )
                optimizer.step("epoch", float(values[LOSS]))

    def cursor(self, loader: Any) -> Cursor:
        """Give the walk over a loader that begins a pass."""
        return self.loaders.cursor(loader, self.trainer.worker_seeding)

    def make_run(self, *args: Any, **options: Any) -> Run:
        """Make the run of a pass, and bring it to where the checkpoint was taken inside it."""
        run = super().make_run(*args, **options)
        if self.epoch is not None and self.epoch.waiting is not None:
            with together(self.trainer.runtime, "resume the pass"):
                run.load_state_dict(self.epoch.waiting)
        return run

    def batches(self, run: Run) -> Iterable[tuple[int, Any]]:
        """The mini-batches of a pass. The first one of a resumed pass consumes the place."""
        if self.epoch is None or self.epoch.waiting is None:
            return run.batches
        rest = iter(run.batches)
        first = list(islice(rest, 1))
        self._consume_place()
        return chain(first, rest)

    def end_run(self, run: Run) -> None:
        """Count the pass, unless it was to resume and its first mini-batch never came."""
        if self.epoch is None or self.epoch.waiting is None:
            self.fits.count(run)

    def totals_of(self, stage: Stage) -> StageTotals:
        """Where the passes of a stage are pooled."""
        if self.epoch is None or stage not in self.epoch.totals:
            raise LoopException(
                f"The {stage} stage of this epoch has not begun: fit() runs its tasks when their "
                "turn comes. For numbers at another moment call trainer.test(tasks=task)."
            )
        return self.epoch.totals[stage]
