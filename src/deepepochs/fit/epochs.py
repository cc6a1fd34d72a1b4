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
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..callbacks.base import Callback
from ..contracts import RunView, TrainerView
from ..data.cursor import Cursor, Loaders
from ..data.followed import set_epoch
from ..errors import LoopException, MetricError, StopLoopException, warn_user
from ..history import Progress
from ..hooks import fire, fire_in_step
from ..patches.totals import LOSS, StageTotals
from ..run import Run
from ..runtime.base import together
from ..stages import Stage
from ..state.place import EpochState, Place
from ..task import EpochTask
from .plan import FitPlan, look_for_monitors, unknown_monitor, warn_of_plan
from .save_points import SavePoints
from .session import Kind, Session

if TYPE_CHECKING:
    from .part import TrainedPart
    from .resume import Resumption


class FitSpan(NamedTuple):
    """The epochs of one fit, from 0, ``end`` excluded."""

    start: int
    end: int
    is_past: bool = False
    """Whether an earlier process has finished the fit."""
    is_open: bool = False
    """Whether steps alone end the fit: ``end`` is where they are expected to."""


class FitLog:
    """The fits of a run.

    Attributes:
        progress: the counters of the run, without those of the pass that runs.
        max_epochs: the total number of epochs.
        num_calls: the fits that this process has called, without refused ones.
        seconds: spent in fits, where a limit of time is given.
        part: the part of an epoch that the latest fit has trained before a stop.
        takes_up_part: whether the next fit goes on with such a part.
    """

    def __init__(self, max_epochs: int) -> None:
        self.max_epochs = max_epochs
        self.progress = Progress()
        self.num_calls = 0
        self._starts: list[int] = []  # the first epoch of each fit of the run
        self._settings: dict[str, str] = {}  # of the latest fit, in words
        self._replays = False  # this process calls the fits of an earlier one again
        self.seconds = 0.0
        self.part: TrainedPart | None = None
        self.takes_up_part = False

    def replay(self, starts: Sequence[int]) -> None:
        """Expect the fits of an earlier process to be called again, from the first."""
        self._replays = True
        self._starts = list(starts)

    def skip(self, span: FitSpan) -> None:
        """Count a fit that an earlier process has finished."""
        self.num_calls += 1
        self.progress = self.progress._replace(epoch_idx=span.end)

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

    def spend(self, seconds: float) -> None:
        """Count time in fits."""
        self.seconds += seconds

    def keep_part(self, part: TrainedPart) -> None:
        """Keep what was trained of an epoch, until the next fit."""
        self.part = part

    def drop_part(self) -> None:
        """Forget the part."""
        self.part = None

    def take_up(self) -> None:
        """Have the next fit go on with the part, whose state is loaded."""
        self.takes_up_part = True

    def resumes(self, place: Place) -> bool:
        """Whether the next fit resumes a loaded state, which is not that of a part."""
        return place.is_set and not self.takes_up_part

    def begin(self, span: FitSpan, settings: dict[str, str], *, resumes: bool) -> None:
        """Record a fit that is not refused, with what it is called with."""
        self._settings = settings
        self.takes_up_part = False
        self.num_calls += 1
        self.max_epochs = span.end
        if not (resumes and self._starts):
            self._starts.append(span.start)

    def warn_of_other_settings(self, settings: Mapping[str, str]) -> None:
        """Say in one warning where a fit that resumes is called with something else."""
        changed = [
            f"{name} is {here} ({self._settings[name]} in the checkpoint)"
            for name, here in settings.items()
            if self._settings.get(name, here) != here
        ]
        if changed:
            warn_user(
                f"The script differs from the checkpoint: {'; '.join(changed)}. What the script "
                "says is used from here on.",
                UserWarning,
            )

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
            "settings": dict(self._settings),
            **({"seconds": self.seconds} if self.seconds else {}),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load what ``state_dict`` gave."""
        self.progress = Progress.from_state(state)
        self._settings = dict(state.get("settings", {}))
        self.seconds = float(state.get("seconds", 0.0))
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
        self.resumes = fits.resumes(place)
        saved = place.get("epoch")
        self.epoch: EpochState | None = None if saved is None else EpochState.from_state(saved)
        self._is_interrupted = False
        self._resumption: Resumption | None = None

    def points(self, outer: Session | None) -> SavePoints:
        """Make the save points of the fit, which look at its limits if there are some."""
        if not self.trainer.limits.acts_in_epochs:
            return SavePoints(self.trainer, saves=True)
        from .limits import LimitedSavePoints

        return LimitedSavePoints(self.trainer)

    @property
    def fit(self) -> FitSession:
        """The session itself."""
        return self

    @property
    def has_no_epoch(self) -> bool:
        """Whether nothing is left to run."""
        limits, done = self.trainer.limits, self.fits.progress.epoch_idx
        if limits.acts_in_epochs and self.epoch is None and limits.reached(self.fits):
            return True
        return self.span.end <= done and not (self.span.is_open and self.epoch is not None)

    @property
    def epoch_idx(self) -> int | None:
        """The epoch that is under way, from 0."""
        return None if self.epoch is None else self.epoch.epoch_idx

    @property
    def _waiting(self) -> dict[str, Any] | None:
        """The state of the pass inside which the checkpoint was taken, until it resumes."""
        return None if self.epoch is None else self.epoch.waiting

    def has_metrics_of(self, stage: str) -> bool:
        """Whether the present epoch has ended a stage."""
        return self.epoch is not None and Stage(stage) in self.epoch.metrics

    def epoch_state(self) -> dict[str, Any] | None:
        """The state of the epoch that is under way."""
        return None if self.epoch is None else self.epoch.state_dict(self.run)

    def check(self) -> None:
        """Warn of what is hardly meant; raise for what a callback needs and the fit does not have."""
        if self.trainer.limits.val_every is not None:
            from .between import warn_of_no_validation

            warn_of_no_validation(self)
        if not self.trainer.limits.dry_run:  # it has one epoch, whatever the schedules are for
            span = range(self.fits.progress.epoch_idx, self.span.end)
            warn_of_plan(self.trainer, self.plan, span)
        for callback in self.trainer.callbacks:
            callback.check_fit(self.trainer, self)

    def begin(self, resumption: Resumption | None) -> None:
        """Begin anew, or where a loaded state was taken.

        Raises:
            CheckpointMismatch: the fit cannot resume there; the place is as it was.
        """
        self._resumption = resumption
        self.trainer.history.know_directions(self.plan.directions())
        self.fire("on_before_fit", epochs=self.span.end)
        with together(self.trainer.runtime, "begin the fit"):
            self._bring_to_place()
        if self._waiting is None:
            self._consume_place()

    def _bring_to_place(self) -> None:
        """Bring the state, random states and loaders to where the fit begins."""
        resumption, streams = self._resumption, self.trainer.runtime.streams
        if self.epoch is not None:
            stages = self.plan.stages_of(self.epoch.epoch_idx)
            self.epoch.check_tasks({stage: self.plan.labels[stage] for stage, _ in stages})
            self._tell_epoch(self.epoch)
            self._set_up_again(self.epoch)
        if resumption is None:
            # Gradients that an interrupted fit or the user has left must not enter the first step.
            self.opt.drop_gradients()
        elif self._waiting is None:
            resumption.put_back()
        # Inside a pass, its own hooks come first: see `batches`.
        if (random := self.place.get("random")) is not None:
            streams.load_state_dict(random)
        else:
            streams.separate()
        self._begin_loaders()

    def _begin_loaders(self) -> None:
        seeding, saved = self.trainer.worker_seeding, self.place.get("loaders")
        self.loaders.begin(self._own_loaders(), seeding, saved, self.fits.num_calls)

    def skip(self) -> None:
        """Count the fit, which an earlier process has finished."""
        self.loaders.keep(self._own_loaders(), self.fits.num_calls)
        self.fits.skip(self.span)

    def end_at_once(self, resumption: Resumption | None) -> None:
        """Count the fit, which has no epoch left to run."""
        if resumption is not None:
            resumption.put_back()
        random = self.place.get("random")
        self._begin_loaders()
        self.fits.begin(self.span, self.plan.settings(self.trainer), resumes=self.resumes)
        self.place.clear()
        done, end = self.fits.progress.epoch_idx, self.span.end
        reached = self.trainer.limits.acts_in_epochs and self.trainer.limits.reached(self.fits)
        if random is not None:
            # As they were in the script after this fit.
            self.trainer.runtime.streams.load_state_dict(random)
        if self.resumes:
            inside = "" if self.epoch is None else ", and the checkpoint is inside of the next one"
            many = f"{done} of {end} epochs are done"
            if done > end:
                many = f"{done} epochs are done, and epochs is {end}"
            more = "a larger limit" if reached else "a larger number of epochs"
            self.trainer.note(
                f"running ID {self.trainer.running_id} has nothing left to do: "
                f"{reached or many + inside}. To go on, give {more}; for a new run, another "
                "running_id or resume=False."
            )
        else:
            many = f"{done if done > end else f'{done} of {end}'} are done"
            more = "the trainer a larger limit" if reached else "fit(..., epochs=n) for n more"
            warn_user(f"fit() runs no epoch: {reached or many}. Give {more}.", UserWarning)

    def _set_up_again(self, epoch: EpochState) -> None:
        """Call the hooks again that had run in this epoch before the checkpoint was saved."""
        self._before_epoch(epoch)
        for stage, _ in self.plan.stages_of(epoch.epoch_idx):
            if stage in epoch.begun and stage not in epoch.metrics:
                self._before_stage(epoch, stage)

    def _before_epoch(self, epoch: EpochState) -> None:
        self.fire(
            "on_before_epoch",
            train_tasks=self.plan.tasks[Stage.TRAIN],
            val_tasks=self.plan.tasks[Stage.VAL],
            epoch_idx=epoch.epoch_idx,
        )

    def _before_stage(self, epoch: EpochState, stage: Stage) -> None:
        hooks = self.hooks.stages[stage].before_epochs
        fire(hooks, self.trainer, tasks=self.plan.tasks[stage], epoch_idx=epoch.epoch_idx)

    def _consume_place(self) -> None:
        """Forget the loaded state, and record the fit: it cannot be refused any more."""
        settings = self.plan.settings(self.trainer)
        if self.resumes:
            self.fits.warn_of_other_settings(settings)
        self.fits.begin(self.span, settings, resumes=self.resumes)
        self.place.clear()
        self._resumption = None
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
            self.save_points.stop_at_once("interrupted")

    @property
    def resumes_at(self) -> str:
        """Where the fit resumes, in words; ``''`` if it does not."""
        if self._resumption is None:
            return ""
        run = f"run {self._resumption.run} " if self._resumption.run else ""
        if self.epoch is None:
            return f"{run}at epoch {self.fits.progress.epoch_idx + 1}"
        return f"{run}in epoch {self.epoch.epoch_idx + 1}, {self.epoch.in_words()}"

    @property
    def is_interrupted(self) -> bool:
        """Whether it is a signal or Ctrl-C that ends the fit."""
        return self._is_interrupted or self.save_points.signals.received is not None

    def end(self) -> None:
        """End the saves, and call the hooks after a fit."""
        if not self._is_interrupted:  # else the other processes may be anywhere
            self.save_points.finish()
        fire_in_step(self.hooks["on_after_fit"], self.trainer)

    def pass_on(self, on_interrupt: str) -> BaseException | None:
        """Do what the signal or Ctrl-C does that has ended the fit, or give what is to be raised."""
        signals = self.save_points.signals
        if on_interrupt != "raise" and signals.received is not signal.SIGTERM:
            return None
        return signals.pass_on() or (KeyboardInterrupt() if self._is_interrupted else None)

    def passes(self) -> Iterator[tuple[EpochTask, Stage, tuple[int, int]]]:
        """Yield each pass of the fit: task, stage, and place among the tasks of the stage."""
        num_steps = -1  # after the epoch before
        if self.epoch is None or not self.trainer.limits.acts_in_epochs:
            self.save_points.check()
        while self.fits.progress.epoch_idx < self.span.end or self.span.is_open:
            epoch, before = self.begin_epoch(), num_steps
            yield from self._passes_of(epoch, Stage.TRAIN)
            if self.plan.validates(epoch.epoch_idx):
                yield from self._passes_of(epoch, Stage.VAL)
            elif self.plan.tasks[Stage.VAL]:
                self.save_points.agree()
                if self._is_to_validate():
                    self.save_points.check()  # stops: this epoch would not validate
            self.end_epoch(epoch)
            num_steps = self.fits.progress.num_steps
            if self.span.is_open and num_steps == before:
                return  # no step is made: it would never end

    def _passes_of(
        self, epoch: EpochState, stage: Stage
    ) -> Iterator[tuple[EpochTask, Stage, tuple[int, int]]]:
        self.begin_stage(epoch, stage)
        tasks = self.plan.tasks[stage]
        for index in range(epoch.num_done(stage), len(tasks)):
            yield tasks[index], stage, (index, len(tasks))
            if self.save_points.has_part and stage is Stage.TRAIN:
                raise StopLoopException(self.save_points.stop_reason)
        self.end_stage(epoch, stage)

    def passes_of_part(self) -> Iterator[tuple[EpochTask, Stage, tuple[int, int]]]:
        """Yield the passes that follow a stop within an epoch, and close the epoch as a part.

        After a stop between two epochs at most a validation follows.
        """
        epoch, part = self.epoch, self.fits.part
        if part is None:
            return
        if epoch is None or part.share is None:  # the stop came between epochs
            self.epoch = None
            self.trainer.validate_between()
        else:
            self.end_stage(epoch, Stage.TRAIN)
            self.save_points.agree()
            if self._is_to_validate():
                yield from self._passes_of(epoch, Stage.VAL)
            self._add_epoch(epoch, part.share)
        self.save_points.save_requested()
        self.epoch = None

    def _is_to_validate(self) -> bool:
        """Whether a stop asked for a validation, and these weights have had none."""
        has_tasks = bool(self.plan.tasks[Stage.VAL])
        return self.save_points.validates and has_tasks and not self._latest_validation

    @property
    def _latest_validation(self) -> dict[str, Any]:
        """The values of the validation of these very weights in the latest epoch, if there was one."""
        history, done = self.trainer.history, self.fits.progress
        is_under_way = self.epoch is not None and Stage.TRAIN in self.epoch.begun
        latest = history.val_epochs[-1:], history.steps["val"][-1:]
        if latest != ([done.epoch_idx - (not is_under_way)], [done.num_steps]):
            return {}
        return {name: values[-1] for name, values in history["val"].items()}

    def keep_part(self) -> None:
        """Keep the state at a stop, if the part of an epoch or a validation is to follow it."""
        epoch = self.epoch
        if self._waiting is not None or self.is_interrupted:
            return
        if epoch is None or Stage.TRAIN not in epoch.begun:
            follows = self.fits.progress.epoch_idx > self.span.start and self._is_to_validate()
        else:
            in_pass = self.run is not None and self.run.is_training
            follows = in_pass or epoch.num_done(Stage.TRAIN) > 0
        if follows:
            from .part import part_of

            self.fits.keep_part(part_of(self.trainer, self.plan, epoch))

    def check_before(self, stage: Stage) -> None:
        """Save or stop before a pass, unless the place to resume comes first."""
        if self._waiting is None or not self.trainer.limits.acts_in_epochs:
            self.save_points.check(stage=stage)

    def begin_epoch(self) -> EpochState:
        """Give the epoch that is under way, or begin one."""
        if self.epoch is None:
            self.epoch = EpochState(self.fits.progress.epoch_idx)
            self._tell_epoch(self.epoch)
            self._before_epoch(self.epoch)
        return self.epoch

    def _tell_epoch(self, epoch: EpochState) -> None:
        """Call ``set_epoch`` in the loaders, before the hooks: a script may give other numbers."""
        for loader in self._own_loaders().values():
            set_epoch(loader, epoch.epoch_idx)

    def begin_stage(self, epoch: EpochState, stage: Stage) -> None:
        """Begin the training or the validation of an epoch, unless that was done."""
        self.check_before(stage)
        if epoch.begin_stage(stage, self.plan.labels[stage]):
            self._before_stage(epoch, stage)

    def end_stage(self, epoch: EpochState, stage: Stage) -> None:
        """Pool the passes of a stage."""
        if stage not in epoch.metrics:
            values = epoch.end_stage(stage, self.stage_values(epoch.totals[stage]))
            hooks, tasks = self.hooks.stages[stage].after_epochs, self.plan.tasks[stage]
            fire(hooks, self.trainer, tasks=tasks, metrics=values, epoch_idx=epoch.epoch_idx)

    def end_epoch(self, epoch: EpochState) -> None:
        """Add the epoch to the history, call the hooks, step the schedulers, save if asked."""
        self._add_epoch(epoch)
        self.fits.end_epoch()
        self.epoch = None
        self.save_points.check()

    def _add_epoch(self, epoch: EpochState, part: float | None = None) -> None:
        """Add an epoch, or a part of one, to the history and call the hooks.

        The schedulers move with whole epochs.
        """
        self.modes.exchange(training=False)  # what is saved and looked at are the weights to use
        if latest := self._latest_validation:
            # val_every has validated these weights, and that counts. A loader without a length
            # does not say which step is its last, so the epoch has validated, too: it draws
            # random numbers in any case, but these values are left out.
            epoch.metrics.pop(Stage.VAL, None)
        train, val = epoch.metrics[Stage.TRAIN], epoch.metrics.get(Stage.VAL, {})
        history = self.trainer.history
        step = self.fits.progress.num_steps
        history.add_epoch(epoch.epoch_idx, train, val or None, part=part, step=step)
        try:
            self.fire(
                "on_after_epoch",
                train_tasks=self.plan.tasks[Stage.TRAIN],
                val_tasks=self.plan.tasks[Stage.VAL],
                train_metrics=train,
                val_metrics=val or latest,
                epoch_idx=epoch.epoch_idx,
            )
            if part is None:
                self._step_schedulers(epoch.metrics)
        except BaseException:
            # The next fit begins with this very epoch, which must not be there twice.
            history.forget(epoch.epoch_idx)
            raise

    def follow_validation(self, values: dict[str, Any]) -> None:
        """Have the schedulers that follow a validation follow one within an epoch."""
        self._step_schedulers({Stage.VAL: values}, all_move=False)

    def _step_schedulers(
        self, metrics: Mapping[Stage, dict[str, Any]], *, all_move: bool = True
    ) -> None:
        """Step the schedulers that go by epochs, all or those that follow a validation.

        One that wants a loss, or a metric, gets one kind throughout: that of validation in
        the epochs that validate, or without validation that of training in every epoch.
        """
        for index, optimizer in enumerate(self.opt):
            if optimizer.sched_on != "epoch" or not optimizer.needs_loss:
                if all_move:
                    optimizer.step("epoch")
                continue
            stage = self.plan.stage_followed(optimizer.monitor)
            values, name = metrics.get(stage), optimizer.monitor or LOSS
            if values is None:
                continue
            if name == LOSS and name not in values:
                raise MetricError(
                    f"The scheduler of optimizer {index} wants a loss, and the {stage} passes "
                    "recorded none. Call self.loss() in their step, or give do_loss=False to "
                    "have it fed the training loss."
                )
            if np.size(values.get(name, ())) != 1:
                raise unknown_monitor(index, name, stage, values)
            optimizer.step("epoch", float(np.asarray(values[name]).item()))

    def cursor(self, loader: Any) -> Cursor:
        """Give the walk over a loader that begins a pass."""
        return self.loaders.cursor(loader, self.trainer.worker_seeding)

    def make_run(self, *args: Any, **options: Any) -> Run:
        """Make the run of a pass, and bring it to where the checkpoint was taken inside it."""
        run = super().make_run(*args, **options)
        if self._waiting is not None:
            with together(self.trainer.runtime, "resume the pass"):
                run.load_state_dict(self._waiting)
        return run

    def batches(self, run: Run) -> Iterable[tuple[int, Any]]:
        """The mini-batches of a pass. The first one of a resumed pass consumes the place."""
        batches = super().batches(run)
        if any(optimizer.monitor is not None for optimizer in self.opt):
            walk = iter(batches)
            batches = chain(islice(walk, 1), look_for_monitors(run, self.plan), walk)
        if self._waiting is None:
            return batches
        if self._resumption is not None:
            self._resumption.put_back()
        if self.trainer.ema is not None:
            # A state is saved with the average in the model.
            self.trainer.ema.train(run.is_training)
        run.restore_modes(self._waiting)
        if self.save_points.is_over(run):
            self._consume_place()
            if self.save_points.check(run):
                return ()
        rest = iter(batches)
        first = list(islice(rest, 1))
        if self._waiting is not None:
            self._consume_place()
        return chain(first, rest)

    def end_run(self, run: Run) -> None:
        """Count the pass, unless it was to resume and its first mini-batch never came."""
        if self._waiting is None:
            self.fits.count(run)

    def totals_of(self, stage: Stage) -> StageTotals:
        """Where the passes of a stage are pooled."""
        if self.epoch is None or stage not in self.epoch.totals:
            raise LoopException(
                f"The {stage} stage of this epoch has not begun: fit() runs its tasks when their "
                "turn comes. For numbers at another moment call trainer.test(tasks=task)."
            )
        return self.epoch.totals[stage]

    def _own_loaders(self) -> dict[str, Any]:
        """The loaders of the fit in this process, by ``<stage>/<index of the task>``."""
        return {
            f"{stage}/{index}": self.trainer.runtime.share(task.dataloader)
            for stage, tasks in self.plan.tasks.items()
            for index, task in enumerate(tasks)
        }
