"""Makes one run of a trainer, in a process of its own, for a check.

The run writes its last state, and a log of its mini-batches, to a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch.utils.data import DataLoader

from .. import rng
from ..callbacks.base import Callback
from ..checkpoint.file import load, save
from ..errors import DeepEpochsError
from ..nest.compare import digest
from ..nest.operations import listify
from .attributes import readings, roots_of

if TYPE_CHECKING:
    from ..contracts import TrainerView

PROBE = "ResumeProbe"  # the name of the probe's state among the states of the callbacks


class ResumeProbe(Callback):
    """Logs digests of each mini-batch, and saves and ends the run after one of them.

    Args:
        options: the arguments of the fit.
        read_after: mini-batches before what the objects hold is read.
        stop_after: mini-batches before the end.
        target: the file for the state.
    """

    order = -(10**6)
    meets_fillers = True  # all processes stop after the same mini-batch

    def __init__(
        self, options: Mapping[str, Any], read_after: int, stop_after: int, target: Path
    ) -> None:
        super().__init__()
        self.options = options
        self.read_after = read_after
        self.stop_after = stop_after
        self.target = target
        self.num_done = 0
        self.log: list[dict[str, Any]] = []
        self.readings: dict[str, list[str]] = {}

    def on_before_train_batch(
        self, *, trainer: TrainerView, batch_x: Any, batch_y: Any, **others: Any
    ) -> None:
        if self.num_done == self.read_after:
            self.readings = readings(roots_of(trainer, self.options))
        data, state = digest((batch_x, batch_y)), digest(rng.get_state())
        self.log.append({"data": data, "random": state, "loss": ""})

    on_before_val_batch = on_before_train_batch

    def on_after_train_batch(self, *, trainer: TrainerView, **others: Any) -> None:
        if trainer.run is not None:
            self.log[-1]["loss"] = digest(trainer.run.batch_loss)
        self.num_done += 1
        if self.num_done >= self.stop_after:
            trainer.request_save(self.save_and_end, everywhere=True)

    on_after_val_batch = on_after_train_batch

    def on_after_fit(self, trainer: TrainerView) -> None:
        if not self.target.exists():
            self.save(trainer)

    def save_and_end(self, trainer: TrainerView) -> None:
        """Save, and end the run as a kill does: no hook is called for a part of an epoch."""
        self.save(trainer)
        raise Enough

    def save(self, trainer: TrainerView) -> None:
        loaders: Any = trainer.parts()["loaders"]
        content = {
            "state": trainer.state_dict(),
            "log": self.log,
            "num_done": self.num_done,
            "callbacks": list(trainer.callbacks.named()),
            "readings": self.readings,
            "unread": [list(found) for found in loaders.unread()],
        }
        save(self.target, content)

    def state_dict(self) -> dict[str, Any]:
        return {"num_done": self.num_done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.num_done = int(state["num_done"])


def make_run(
    trainer: TrainerView,
    options: dict[str, Any],
    counts: tuple[int, int],
    target: Path,
    source: Path | None,
    random_state: dict[str, Any],
) -> None:
    """Make one run, in the new process, and write what its probe saves.

    Args:
        trainer: the copy of this process.
        options: the arguments of the fit.
        counts: mini-batches before the objects are read, and before the end.
        target: the file to write.
        source: the file of the run to resume.
        random_state: of the parent.

    Raises:
        Refusal: the fit was refused before its first mini-batch.
    """
    _isolate(trainer, options, target.with_suffix(""))
    trainer.callbacks.append(probe := ResumeProbe(options, *counts, target))
    if source is not None:
        trainer.load_state_dict(load(source)["state"])
    # After the load: with resume='auto' it is the fit that loads, in a script that begins anew.
    rng.set_state(random_state)
    try:
        with suppress(Enough):
            trainer.fit(**options)
    except DeepEpochsError as error:
        if probe.log or source is not None:
            raise
        raise Refusal(str(error)) from error


class Enough(BaseException):
    """Ends a run that has made its mini-batches."""


class Refusal(Exception):
    """A fit that was refused before its first mini-batch: the message says all."""


def _isolate(trainer: TrainerView, options: dict[str, Any], folder: Path) -> None:
    """Have the run write to `folder`, and its loaders start new workers."""
    trainer.ignore_resume()
    if trainer.max_epochs <= trainer.progress.epoch_idx:
        options.setdefault("epochs", 10**6)
    for callback in trainer.callbacks:
        callback.move_to(folder)
    tasks = [*listify(options.get("train_tasks")), *listify(options.get("val_tasks"))]
    loaders = [options.get("train_dl"), options.get("val_dl"), *(t.dataloader for t in tasks)]
    for loader in loaders:
        if isinstance(loader, DataLoader) and loader._iterator is not None:
            _KEPT.append(loader._iterator)
            loader._iterator = None


# An iterator that is collected shuts down its workers, and these are the parent's.
_KEPT: list[Any] = []
