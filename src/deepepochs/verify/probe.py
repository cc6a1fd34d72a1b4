"""Runs of one trainer, each in a process of its own that starts from the trainer as it is.

What a run ends with, and what each of its mini-batches met, comes back through a file;
the trainer, its loaders and the run's folder are not touched.

::

    runs = ProbeRuns(choose_context(trainer, options), folder, trainer, options)
    content = runs.run("unbroken", 20)        # {'state': ..., 'log': ..., 'num_done': 20}
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import traceback
import warnings
from collections.abc import Mapping
from multiprocessing.context import BaseContext
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from .. import rng
from ..callbacks.base import Callback, Metrics
from ..checkpoint.file import load, save
from ..errors import CheckpointError, LoopException
from ..nest.compare import digest

if TYPE_CHECKING:
    from ..contracts import TrainerView

__all__ = ["PROBE", "ProbeRuns", "ResumeProbe", "choose_context"]

PROBE = "ResumeProbe"
"""The name of the probe's state among those of the callbacks."""


class ResumeProbe(Callback):
    """Notes what each mini-batch met, and stops and saves after one of them."""

    order = -(10**6)

    def __init__(self, stop_after: int, target: Path) -> None:
        super().__init__()
        self.stop_after = stop_after
        self.target = target
        self.num_done = 0
        self.log: list[dict[str, Any]] = []
        self.has_saved = False

    def on_before_fit(self, trainer: TrainerView, epochs: int) -> None:
        trainer.add_saver(self.save)

    def on_before_train_batch(
        self, trainer: TrainerView, batch_x: Any, batch_y: Any, batch_idx: int
    ) -> None:
        self.note(batch_x, batch_y)

    def on_before_val_batch(
        self, trainer: TrainerView, batch_x: Any, batch_y: Any, batch_idx: int
    ) -> None:
        self.note(batch_x, batch_y)

    def on_after_train_batch(self, trainer: TrainerView, metrics: Metrics, batch_idx: int) -> None:
        self.count(trainer)

    def on_after_val_batch(self, trainer: TrainerView, metrics: Metrics, batch_idx: int) -> None:
        self.count(trainer)

    def on_after_fit(self, trainer: TrainerView) -> None:
        if not self.has_saved:
            self.save(trainer)

    def note(self, batch_x: Any, batch_y: Any) -> None:
        data, state = digest((batch_x, batch_y)), digest(rng.get_state())
        self.log.append({"data": data, "random": state, "loss": ""})

    def count(self, trainer: TrainerView) -> None:
        if trainer.run is not None:
            self.log[-1]["loss"] = digest(trainer.run.batch_loss)
        self.num_done += 1
        if self.num_done >= self.stop_after:
            trainer.stop("verify_resume has seen enough")

    def save(self, trainer: TrainerView) -> None:
        self.has_saved = True
        content = {"state": trainer.state_dict(), "log": self.log, "num_done": self.num_done}
        save(self.target, content)

    def state_dict(self) -> dict[str, Any]:
        return {"num_done": self.num_done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.num_done = int(state["num_done"])


class ProbeRuns:
    """Makes runs of one trainer, each in a process of its own."""

    def __init__(
        self, context: BaseContext, folder: Path, trainer: TrainerView, options: dict[str, Any]
    ) -> None:
        self.context = context
        self.folder = folder
        self.trainer = trainer
        self.options = options

    def run(self, name: str, stop_after: int, resume_from: str | None = None) -> dict[str, Any]:
        """Make one run and give what its probe saved.

        Raises:
            CheckpointError: it failed; the message has the traceback.
        """
        target, fault = self.folder / f"{name}.ckpt", self.folder / f"{name}.txt"
        source = None if resume_from is None else self.folder / f"{resume_from}.ckpt"
        job = (self.trainer, self.options, stop_after, target, fault, source, rng.get_state())
        process = self.context.Process(target=_run, args=job)  # type: ignore[attr-defined]
        with warnings.catch_warnings():
            # Of forks of processes with threads: the child uses one thread and no lock of theirs.
            warnings.simplefilter("ignore", DeprecationWarning)
            process.start()
        try:
            process.join()
        finally:
            if process.is_alive():
                process.kill()
                process.join()
        if fault.exists() or not target.exists():
            text = fault.read_text("utf-8") if fault.exists() else f"exit {process.exitcode}"
            raise CheckpointError(f"The run {name!r} of verify_resume failed:\n{text}")
        return load(target)


def choose_context(trainer: TrainerView, options: Mapping[str, Any]) -> BaseContext:
    """Choose how processes are started: forked, which needs no pickling, where CUDA is unused.

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
            f"verify_resume runs in processes of its own. {why}, so they must be sent the trainer "
            f"and its data, which cannot be pickled: {error}. Define classes and functions in a "
            "module, or verify with device='cpu' before CUDA is used."
        ) from error
    return multiprocessing.get_context("spawn")


def _run(
    trainer: TrainerView,
    options: dict[str, Any],
    stop_after: int,
    target: Path,
    fault: Path,
    source: Path | None,
    random_state: dict[str, Any],
) -> None:
    """Make one run, in a process of its own."""
    try:
        with Path(os.devnull).open("w") as nowhere:
            sys.stdout = sys.stderr = nowhere
            # OpenMP's threads do not survive a fork, and waiting for them would never end.
            torch.set_num_threads(1)
            warnings.simplefilter("ignore")
            rng.set_state(random_state)
            _lead_aside(trainer, options, target.with_suffix(""))
            trainer.callbacks.append(ResumeProbe(stop_after, target))
            if source is not None:
                trainer.load_state_dict(load(source)["state"])
            trainer.fit(**options)
    except BaseException:
        fault.write_text(traceback.format_exc(), "utf-8")


def _lead_aside(trainer: TrainerView, options: dict[str, Any], folder: Path) -> None:
    """Lead what a run writes into another folder, and its loaders to workers of their own."""
    trainer.ignore_resume()
    if trainer.max_epochs <= trainer.progress.epoch_idx:
        options.setdefault("epochs", 10**6)
    for callback in trainer.callbacks:
        callback.move_to(folder)
    for loader in _loaders(options):
        if vars(loader).get("_iterator") is not None:
            _KEPT.append(loader._iterator)  # its workers are the parent's: not to be shut down
            loader._iterator = None


_KEPT: list[Any] = []


def _loaders(options: Mapping[str, Any]) -> list[Any]:
    found = [options.get("train_dl"), options.get("val_dl")]
    for key in ("train_tasks", "val_tasks"):
        tasks = options.get(key) or []
        found += [t.dataloader for t in (tasks if isinstance(tasks, (list, tuple)) else [tasks])]
    return [loader for loader in found if hasattr(loader, "__dict__")]
