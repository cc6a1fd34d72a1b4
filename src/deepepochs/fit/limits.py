"""How long a fit runs: the limits of steps, time and mini-batches that a trainer is given.

::

    Trainer(model, loss, opt, max_steps=10_000, max_time="1h30m", limit_val_batches=0.1)

The arguments are checked here, once. Without limits, a step asks nothing here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from itertools import islice
from numbers import Integral, Real
from time import monotonic
from typing import TYPE_CHECKING, Any

from torch.utils.data import BatchSampler, DataLoader, IterableDataset

from .. import rng
from ..arguments import check_count, check_flag, found
from ..contracts import TrainerView
from ..data.followed import set_epoch
from ..errors import ConfigError, ConfigTypeError
from ..history import Progress
from ..run import Run
from ..show.screens import duration
from ..stages import Stage
from ..task import EpochTask
from .save_points import SavePoints

if TYPE_CHECKING:
    from .epochs import FitLog

_TEXT = re.compile(
    r"(?:(?P<days>\d+(\.\d+)?) *d)? *(?:(?P<hours>\d+(\.\d+)?) *h)? *"
    r"(?:(?P<minutes>\d+(\.\d+)?) *m(in)?)? *(?:(?P<seconds>\d+(\.\d+)?) *s)?"
)

Share = int | float
"""A number of mini-batches, or a share of them: ``0 < x <= 1.0``, a float."""


class Limits:
    """The limits of a trainer; the arguments are those of ``Trainer``.

    Attributes:
        max_steps: optimizer steps over all fits, or ``None``.
        max_time_s: seconds in fits, or ``None``.
        val_every: optimizer steps from one validation to the next, or ``None``.
        overfit: the number of mini-batches to train and validate on; 0: all.
        dry_run: whether a fit only tries one mini-batch of each stage.
        batches: the limit of mini-batches of each stage that has one.
        acts_in_epochs: whether a fit may end or validate within an epoch.

    Example:
        >>> limits = Limits(train=0.25, val=10)
        >>> limits.num_batches(Stage.TRAIN, 40), limits.num_batches(Stage.VAL, 8)
        (10, 8)
    """

    def __init__(
        self,
        max_steps: int | None = None,
        max_time: float | str | timedelta | None = None,
        train: Share | None = None,
        val: Share | None = None,
        test: Share | None = None,
        val_every: int | None = None,
        overfit: int = 0,
        dry_run: bool = False,
    ) -> None:
        self.max_steps = None if max_steps is None else check_count("max_steps", max_steps, 1)
        self.max_time_s = None if max_time is None else seconds_of(max_time)
        self.val_every = None if val_every is None else check_count("val_every", val_every, 1)
        self.overfit = check_count("overfit_batches", overfit)
        self.dry_run = check_flag("dry_run", dry_run)
        self.acts_in_epochs = any(x is not None for x in (max_steps, max_time, val_every))
        given = {Stage.TRAIN: train, Stage.VAL: val, Stage.TEST: test}
        self.batches: dict[Stage, Share] = {
            stage: check_share(stage, share) for stage, share in given.items() if share is not None
        }
        if self.overfit and not self.batches.keys() <= {Stage.TEST}:
            raise ConfigError(
                f"overfit_batches={overfit} already says on which mini-batches to train and to "
                "validate: leave out limit_train_batches and limit_val_batches."
            )
        if self.dry_run:
            self.batches = {s: 0 if self.batches.get(s) == 0 else 1 for s in given}

    def has_steps(self, num_steps: int) -> bool:
        """Whether so many optimizer steps are all that ``max_steps`` allows."""
        return self.max_steps is not None and num_steps >= self.max_steps

    def given(self) -> dict[str, Any]:
        """The limits that were given, by the names of the arguments.

        >>> Limits(max_time="1m30s", val=0.5, val_every=100).given()
        {'max_time': '90s', 'limit_val_batches': 0.5, 'val_every': 100}
        """
        time = None if self.max_time_s is None else f"{self.max_time_s:g}s"
        every = {
            "max_steps": self.max_steps,
            "max_time": time,
            **{f"limit_{stage}_batches": share for stage, share in self.batches.items()},
            "val_every": self.val_every,
            "overfit_batches": self.overfit or None,
        }
        return {name: value for name, value in every.items() if value is not None}

    def reached(self, fits: FitLog, run: Run | None = None) -> str:
        """Say which limit of a run of fits is reached; ``''`` if none is."""
        if self.has_steps(fits.with_run(run).num_steps):
            return f"max_steps={self.max_steps} is reached"
        if self.max_time_s is not None and fits.seconds >= self.max_time_s:
            return f"max_time is over, after {duration(fits.seconds)} in fits"
        return ""

    def num_epochs(self, done: Progress, lengths: list[int | None], accumulate: int) -> int | None:
        """How many epochs the steps up to ``max_steps`` take; ``None`` if that is not known.

        A step of the user's own may make more or fewer optimizer steps than this takes for granted.
        """
        if self.max_steps is None or None in lengths:
            return None
        per_epoch = sum(-(-(length or 0) // accumulate) for length in lengths)
        left = max(0, self.max_steps - done.num_steps)
        return done.epoch_idx + -(-left // max(1, per_epoch))

    def num_batches(self, stage: Stage, length: int | None) -> int | None:
        """How many mini-batches a pass over a loader of some length has at most.

        Raises:
            ConfigError: a share of a loader that has no length.
        """
        limit = self.batches.get(stage)
        if limit is None:
            return length
        if isinstance(limit, float):
            if length is None:
                raise ConfigError(
                    f"limit_{stage}_batches={limit} is a share of the mini-batches, and the loader "
                    "does not know how many it has: give a number of mini-batches, an int."
                )
            # 0.29 * 100 is 28.999999999999996.
            limit = max(1, math.floor(length * limit + 1e-9))
        return limit if length is None else min(limit, length)

    def tasks(self, stage: Stage, tasks: list[EpochTask]) -> list[EpochTask]:
        """Give the tasks of a stage, none if it is switched off.

        Raises:
            ConfigError: as for ``num_batches``.
        """
        for task in tasks:
            self.num_batches(stage, task.length)
        return [] if self.batches.get(stage) == 0 else tasks

    def overfitted(
        self,
        training: list[EpochTask],
        validation: list[EpochTask],
        num_processes: int,
        known: Sequence[tuple[Any, Any]],
        epoch_idx: int,
    ) -> tuple[list[EpochTask], list[EpochTask]]:
        """Give the tasks over the first mini-batches of the training loaders.

        They are read once for all epochs of a fit. A validation task validates on those of the
        training task at its place, or of the last one. ``known`` are loaders with their mini-batches,
        which are not read again: the fit may go on within an epoch of them. The other loaders are told
        ``epoch_idx`` first.
        """
        read = {id(loader): batches for loader, batches in known}
        num = self.overfit * num_processes
        kept = [
            read.get(id(task.dataloader)) or first_batches(task.dataloader, num, epoch_idx)
            for task in training
        ]
        trained = [task.over(batches) for task, batches in zip(training, kept, strict=True)]
        last = len(kept) - 1
        return trained, [t.over(kept[min(i, last)]) for i, t in enumerate(validation)]


def first_batches(loader: Iterable[Any], num: int, epoch_idx: int) -> list[Any]:
    """Read the first mini-batches of a loader in the order of its data set, if that is known."""
    with rng.preserved(loader):
        set_epoch(loader, epoch_idx)
        return list(islice(_in_order(loader), num))


def _in_order(loader: Iterable[Any]) -> Iterator[Any]:
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        return iter(loader)
    if type(loader.batch_sampler) not in (BatchSampler, type(None)):
        return iter(loader)  # only it knows what belongs to one mini-batch
    ordered: DataLoader[Any] = DataLoader(
        loader.dataset,
        batch_size=loader.batch_size,
        drop_last=loader.drop_last,
        collate_fn=loader.collate_fn,
    )
    return iter(ordered)


def check_share(stage: Stage, value: Any) -> Share:
    """Return a limit of mini-batches, or raise ``ConfigError``."""
    name = f"limit_{stage}_batches"
    advice = "give a number of mini-batches, an int, or a share of them, a float up to 1.0."
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ConfigTypeError(f"{found(name, value)}: {advice}")
    if isinstance(value, Integral):
        if value == 0 and stage is not Stage.TRAIN:
            return 0
        if value < 1:
            off = "" if stage is Stage.TRAIN else " 0 switches the stage off."
            raise ConfigError(f"{name}={value}: {advice}{off}")
        return int(value)
    share = float(value)
    if not 0 < share <= 1:
        whole = f" For {share:g} mini-batches give {int(share)}." if share.is_integer() else ""
        raise ConfigError(f"{name}={value}: {advice}{whole}")
    return share


def seconds_of(value: Any) -> float:
    """Return the seconds of a number, a ``timedelta`` or a text.

    >>> seconds_of("1h30m"), seconds_of("90s"), seconds_of("2d"), seconds_of(timedelta(minutes=1))
    (5400.0, 90.0, 172800.0, 60.0)

    Raises:
        ConfigError: it is no such time, or not more than 0.
    """
    seconds = math.nan
    if isinstance(value, timedelta):
        seconds = value.total_seconds()
    elif isinstance(value, str) and (match := _TEXT.fullmatch(value.strip())) and value.strip():
        parts = {unit: float(number) for unit, number in match.groupdict().items() if number}
        seconds = timedelta(**parts).total_seconds()
    elif isinstance(value, Real) and value is not True:
        seconds = float(value)
    if not 0 < seconds < math.inf:
        raise ConfigError(
            f"max_time={value!r}: give seconds, a timedelta, or a text such as '1h30m', '90s' or "
            "'2d'."
        )
    return seconds


class LimitedSavePoints(SavePoints):
    """Save points of a fit that ends after some steps or some time."""

    def __init__(self, trainer: TrainerView) -> None:
        super().__init__(trainer, saves=True)
        self._limits: Limits = trainer.limits
        self._last_s = monotonic()
        self._num_steps = trainer.fits.progress.num_steps  # at the latest save point

    def check(self, run: Run | None = None, *, stage: Stage | None = None) -> bool:
        if self._limits.val_every is not None:
            self._validate_if_due(run, stage, self._limits.val_every)
        self._look(run)
        return super().check(run, stage=stage)

    def is_over(self, run: Run | None = None) -> bool:
        self._look(run)
        return self.trainer.runtime.any(self.stop_reason is not None, "looks at its limits")

    def _validate_if_due(self, run: Run | None, stage: Stage | None, every: int) -> None:
        """Validate before the state is saved, so that a resume finds it done.

        Between two passes it is due if the end of the first one has made an optimizer step.
        """
        before, now = self._num_steps // every, self.trainer.fits.with_run(run).num_steps // every
        session = self.trainer.session
        if before == now or session is None or not session.plan.tasks[Stage.VAL]:
            return
        is_end = stage is Stage.VAL
        if run is not None:
            is_end = bool(run.is_last) and run.task_idx + 1 == run.num_tasks
        if not (is_end and session.plan.validates(session.epoch_idx)):  # which follows at once
            self.trainer.validate_between()

    def _look(self, run: Run | None) -> None:
        limits, fits = self._limits, self.trainer.fits
        self._num_steps = fits.with_run(run).num_steps
        if limits.max_time_s is not None:
            now_s = monotonic()
            fits.spend(now_s - self._last_s)
            self._last_s = now_s
        if self.stop_reason is None and (reason := limits.reached(fits, run)):
            # All processes make the same steps, and each has its own clock.
            self.stop(reason, validate=True, everywhere=limits.has_steps(self._num_steps))
