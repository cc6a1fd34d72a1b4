"""What the callbacks that write to TensorBoard share: one writer, and going back on a resume.

All of a trainer's callbacks write through one ``SummaryWriter``, ``trainer.logger``. Their
state says how long the event files were when a checkpoint was taken: a resumed run cuts
them there, so that no step is in them twice.

::

    class LogNorm(EventFileCallback):
        def on_after_train_batch(self, trainer, metrics, batch_idx):
            norm = sum(float(w.norm()) for w in trainer.model.parameters())
            self.writer(trainer).add_scalar("norm", norm, trainer.progress.num_train_batches)
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import MissingExtraError
from ..runs.folder import run_folder
from .base import Callback

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from ..contracts import TrainerView

__all__ = [
    "RESULTS_SUFFIX",
    "EventFileCallback",
    "open_writer",
    "run_tensorboard",
]

FLUSH_S = 5
"""A killed process loses what it logged in the last seconds, at most this many."""

RESULTS_SUFFIX = ".results"
"""End of the names of files with test results, which no resume cuts."""


def open_writer(folder: Path, suffix: str = "") -> SummaryWriter:
    """Open a new event file in a folder, which is made if need be.

    Raises:
        MissingExtraError: TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingExtraError(
            "Logging needs TensorBoard, which is not installed: pip install tensorboard."
        ) from error
    writer: SummaryWriter = SummaryWriter(
        str(folder), flush_secs=FLUSH_S, filename_suffix=suffix, max_queue=1000
    )
    return writer


def run_tensorboard(log_dir: str | os.PathLike[str] = "./logs", *options: str) -> int:
    """Run TensorBoard on a folder and wait until it ends, by Ctrl-C for instance.

    Args:
        log_dir: the folder of the runs.
        *options: further arguments, such as ``"--port=6007"``.

    Returns:
        Its exit code.
    """
    command = [sys.executable, "-m", "tensorboard.main", f"--logdir={os.fspath(log_dir)}", *options]
    try:
        return subprocess.run(command, check=False).returncode
    except KeyboardInterrupt:
        return 0


class EventFileCallback(Callback):
    """A callback that writes to TensorBoard.

    Its hooks call those of the class that comes next, so that a subclass can have a second base.

    Args:
        log_dir: the folder of the runs; a run writes to ``<log_dir>/<running_id>``. Of
            several such callbacks the first to write decides.
    """

    def __init__(self, log_dir: str | os.PathLike[str] = "./logs") -> None:
        super().__init__()
        self.log_dir = Path(log_dir)
        self._folder: Path | None = None
        self._rewind_to: dict[str, Any] | None = None

    def writer(self, trainer: TrainerView) -> SummaryWriter:
        """The trainer's ``SummaryWriter``, which is opened if it is not."""
        logger: SummaryWriter = trainer.open_logger(self.log_dir)
        self._folder = Path(logger.log_dir)
        return logger

    def run_tensorboard(self, *options: str) -> int:
        """Run TensorBoard on ``log_dir`` and wait until it ends."""
        return run_tensorboard(self.log_dir, *options)

    def take_sizes(self) -> dict[str, Any] | None:
        """Give the sizes of a loaded checkpoint, once."""
        sizes, self._rewind_to = self._rewind_to, None
        return sizes

    def on_before_fit(self, trainer: TrainerView, epochs: int) -> None:
        """Open the writer; after a resume drop what was written after the checkpoint."""
        if trainer.main_process:
            sharing = [cbk for cbk in trainer.callbacks if isinstance(cbk, EventFileCallback)]
            if self is min(sharing, key=lambda cbk: cbk.order):
                # The last to give its state had seen what all of them have written.
                saved = [callback.take_sizes() for callback in sharing]
                self._rewind(trainer, saved[-1])
            self.writer(trainer)
        super().on_before_fit(trainer=trainer, epochs=epochs)

    def on_after_epoch(self, *, trainer: TrainerView, **others: Any) -> None:
        """Bring to the disk what was logged."""
        if trainer.main_process:
            self.writer(trainer).flush()
        super().on_after_epoch(trainer=trainer, **others)

    def on_after_fit(self, trainer: TrainerView) -> None:
        """Close the file; the writer opens another if it is used again."""
        trainer.close_logger()
        super().on_after_fit(trainer=trainer)

    def on_exception(self, trainer: TrainerView, exception: BaseException) -> None:
        """Close the file."""
        trainer.close_logger()
        super().on_exception(trainer=trainer, exception=exception)

    def on_after_test_epochs(self, trainer: TrainerView, tasks: Any, metrics: Any) -> None:
        """Close the file, unless the test is inside a fit."""
        if trainer.session is None or trainer.session.fit is None:
            trainer.close_logger()
        super().on_after_test_epochs(trainer=trainer, tasks=tasks, metrics=metrics)

    def _rewind(self, trainer: TrainerView, state: dict[str, Any] | None) -> None:
        if state is not None and state["running_id"] == trainer.running_id:
            trainer.close_logger()
            rewind_files(run_folder(self.log_dir, trainer.running_id), state["sizes"])

    def flush(self) -> None:
        """Hand over what this callback holds back, before a checkpoint takes its state."""

    def state_dict(self) -> dict[str, Any]:
        """How long the event files are."""
        if self._folder is None:
            return {}
        self.flush()
        sizes = {path.name: path.stat().st_size for path in event_files(self._folder)}
        return {"running_id": self._folder.name, "sizes": sizes}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what ``state_dict`` gave; the next fit cuts the files to that."""
        if "sizes" in state:
            self._rewind_to = {"running_id": state["running_id"], "sizes": dict(state["sizes"])}


def event_files(folder: Path) -> list[Path]:
    """The event files of a run, but those with test results."""
    found = folder.glob("events.out.tfevents.*")
    return sorted(path for path in found if not path.name.endswith(RESULTS_SUFFIX))


def rewind_files(folder: Path, sizes: Mapping[str, int]) -> None:
    """Cut event files to the sizes they had; those that were not there yet are removed."""
    for path in event_files(folder):
        size = sizes.get(path.name)
        if size is None:
            path.unlink()
        elif path.stat().st_size > size:
            os.truncate(path, size)
