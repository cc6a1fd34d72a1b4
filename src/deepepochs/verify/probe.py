"""Runs a trainer in a new process, for a check: the trainer in this process does not change.

The run writes its last state, and a log of its mini-batches, to a file.
"""

from __future__ import annotations

import multiprocessing
import os
import stat
import sys
import traceback
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing.context import BaseContext
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader

from .. import rng
from ..callbacks.base import Callback
from ..checkpoint.file import load, save
from ..errors import CheckpointError, ConfigError, DeepEpochsError, LoopException
from ..nest.compare import digest
from ..nest.operations import listify
from .attributes import readings, roots_of

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from ..contracts import TrainerView

PROBE = "ResumeProbe"  # the name of the probe's state among the states of the callbacks


class ResumeProbe(Callback):
    """Logs digests of each mini-batch, and stops and saves the run after one of them.

    Args:
        options: the arguments of the fit.
        read_after: mini-batches before what the objects hold is read.
        stop_after: mini-batches before the end.
        target: the file for the state.
    """

    order = -(10**6)

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

    def on_before_fit(self, trainer: TrainerView, epochs: int) -> None:
        trainer.add_saver(self.save)

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
            trainer.stop("verify_resume has enough mini-batches")

    on_after_val_batch = on_after_train_batch

    def on_after_fit(self, trainer: TrainerView) -> None:
        if not self.target.exists():
            self.save(trainer)

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


def run_probe(
    context: BaseContext,
    folder: Path,
    trainer: TrainerView,
    options: dict[str, Any],
    name: str,
    read_after: int,
    stop_after: int,
    resume_from: str | None = None,
) -> dict[str, Any]:
    """Make one run in a new process, and return what its probe saved.

    Raises:
        CheckpointError: the run failed; the message has the traceback.
        ConfigError: the fit was refused before its first mini-batch.
    """
    target, fault = folder / f"{name}.ckpt", folder / f"{name}.txt"
    refusal = _refusal(target)
    source = None if resume_from is None else folder / f"{resume_from}.ckpt"
    job = (trainer, options, (read_after, stop_after), target, fault, source, rng.get_state())
    process = context.Process(target=_run, args=job)  # type: ignore[attr-defined]
    with _same_places_in_files():
        with warnings.catch_warnings():
            # Python warns of a fork beside threads. The child uses one thread and none of their
            # locks.
            warnings.simplefilter("ignore", DeprecationWarning)
            process.start()
        try:
            process.join()
        finally:
            if process.is_alive():
                process.kill()
                process.join()
    if refusal.exists():
        raise ConfigError(f"verify_resume: {refusal.read_text('utf-8')}")
    if fault.exists() or not target.exists():
        text = fault.read_text("utf-8") if fault.exists() else f"exit {process.exitcode}"
        raise CheckpointError(f"The run {name!r} of verify_resume failed:\n{text}")
    return load(target)


def choose_context(trainer: TrainerView, options: Mapping[str, Any]) -> BaseContext:
    """Choose to fork processes, which needs no pickling, unless CUDA is in use.

    Raises:
        LoopException: they cannot be forked, and the trainer or its data cannot be pickled.
    """
    can_fork = "fork" in multiprocessing.get_all_start_methods() and sys.platform != "darwin"
    is_cuda_used: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    if can_fork and not is_cuda_used:
        return multiprocessing.get_context("fork")
    try:
        ForkingPickler.dumps((trainer, dict(options)))
    except Exception as error:  # pickling runs any code
        why = "CUDA is in use" if can_fork else "This system cannot fork"
        raise LoopException(
            f"verify_resume starts new processes. {why}, so the trainer and its data are sent to "
            f"them, and these cannot be pickled: {error}. Define classes and functions in a "
            "module, or verify with device='cpu' before CUDA is used."
        ) from error
    return multiprocessing.get_context("spawn")


def _run(
    trainer: TrainerView,
    options: dict[str, Any],
    counts: tuple[int, int],
    target: Path,
    fault: Path,
    source: Path | None,
    random_state: dict[str, Any],
) -> None:
    """Make one run, in the new process."""
    try:
        with Path(os.devnull).open("w") as nowhere:
            sys.stdout = sys.stderr = nowhere
            # OpenMP's threads do not survive a fork, and to wait for them never ends.
            torch.set_num_threads(1)
            warnings.simplefilter("ignore")
            rng.set_state(random_state)
            _isolate(trainer, options, target.with_suffix(""))
            trainer.callbacks.append(probe := ResumeProbe(options, *counts, target))
            if source is not None:
                trainer.load_state_dict(load(source)["state"])
            try:
                trainer.fit(**options)
            except DeepEpochsError as error:
                if probe.log or source is not None:
                    raise
                # The fit was refused before its first mini-batch: the message says all.
                _refusal(target).write_text(str(error), "utf-8")
    except BaseException:
        fault.write_text(traceback.format_exc(), "utf-8")


@contextmanager
def _same_places_in_files() -> Iterator[None]:
    """Put the places in open files back: a fork has the same ones, and reading there moves them."""
    places: dict[int, int] = {}
    listing = Path("/dev/fd")
    for path in listing.iterdir() if listing.is_dir() else ():
        descriptor = int(path.name)
        with suppress(OSError):  # the listing itself was open
            is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
            mode = fcntl.fcntl(descriptor, fcntl.F_GETFL) if is_file else os.O_WRONLY
            if not mode & (os.O_WRONLY | os.O_APPEND):
                places[descriptor] = os.lseek(descriptor, 0, os.SEEK_CUR)
    try:
        yield
    finally:
        for descriptor, place in places.items():
            os.lseek(descriptor, place, os.SEEK_SET)


def _refusal(target: Path) -> Path:
    """The file for the message of a fit that was refused."""
    return target.with_suffix(".refused")


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
