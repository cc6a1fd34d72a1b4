"""The part of an epoch that was trained before a stop, kept until the next fit.

The history gets the part at once, marked. The state at the stop is kept. The next fit on the same
data goes on from it, to the bit, and its whole epoch takes the place of the part. The same holds
for a validation that follows a stop between two epochs: there the part is empty.
"""

from __future__ import annotations

import copy
import math
from typing import Any, NamedTuple

from ..contracts import TrainerView
from ..nest.codec import from_plain, to_plain
from ..patches.resumed import patch_kinds
from ..stages import Stage
from ..state.place import EpochState, Place
from ..state.strict import load_parts
from .plan import FitPlan
from .resume import EARLY


class TrainedPart(NamedTuple):
    """The part of an epoch that was trained.

    Attributes:
        share: of the training mini-batches; ``nan`` where it is not known how many there are;
            ``None`` between two epochs.
        state: the parts of the trainer's state that change when the part is closed.
        loaders: what the fit walks.
        metrics: the names and kinds of what each of its passes records.
        read: the training loaders of which it has the first mini-batches alone, with these.
    """

    share: float | None
    state: dict[str, Any]
    loaders: list[Any]
    metrics: list[Any]
    read: list[tuple[Any, Any]]


def part_of(trainer: TrainerView, plan: FitPlan, epoch: EpochState | None) -> TrainedPart:
    """Keep the state of an epoch that is stopped now, or that between two epochs."""
    parts, names = trainer.parts(), list(EARLY)
    if any(optimizer.training for optimizer in trainer.opt):
        names += ["model", "optimizers"]  # train() after eval() may round their weights
    state = {name: parts[name].state_dict() for name in names}
    state = from_plain(copy.deepcopy(to_plain(state, with_meta=True)))
    read = [(t.read_from, t.dataloader) for t in plan.tasks[Stage.TRAIN] if t.read_from is not None]
    return TrainedPart(share_of(trainer, plan, epoch), state, *_facts(plan), read)


def share_of(trainer: TrainerView, plan: FitPlan, epoch: EpochState | None) -> float | None:
    """The share of the training mini-batches of an epoch that are done."""
    if epoch is None or Stage.TRAIN not in epoch.begun:
        return None
    if Stage.TRAIN in epoch.metrics:
        return 1.0
    done = float(epoch.num_done(Stage.TRAIN))
    run = trainer.run
    if run is not None and run.is_training:
        done += (run.batch_idx + 1) / run.num_batches if run.num_batches else math.nan
    return done / len(plan.tasks[Stage.TRAIN])


def takes_up(part: TrainedPart, plan: FitPlan) -> bool:
    """Whether a fit is on the data of the part, and records the same."""
    loaders, metrics = _facts(plan)
    return (
        len(loaders) == len(part.loaders)
        and all(one is other for one, other in zip(loaders, part.loaders, strict=True))
        and metrics == part.metrics
    )


def put_back(trainer: TrainerView, part: TrainedPart) -> None:
    """Bring the trainer to the state at the stop, but for what the user may have changed since."""
    parts = trainer.parts()
    load_parts({name: parts[name] for name in part.state}, part.state)


def go_on(trainer: TrainerView, place: Place, fits: Any, plan: FitPlan) -> None:
    """Begin a fit after a part: take it up, or else leave it in the history as an epoch."""
    part = fits.part
    fits.drop_part()
    if place.is_set:  # the user has loaded something else
        return
    if takes_up(part, plan):
        put_back(trainer, part)
        fits.take_up()
    elif part.share is not None:
        fits.end_epoch()


def _facts(plan: FitPlan) -> tuple[list[Any], list[Any]]:
    tasks = [(stage, task) for stage, listed in plan.tasks.items() for task in listed]
    kinds = [(plan.labels[stage], patch_kinds(plan.metrics_of(stage, t))) for stage, t in tasks]
    return [task.dataloader for _, task in tasks], kinds
