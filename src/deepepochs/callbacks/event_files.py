"""The base class of callbacks that write to TensorBoard.

All callbacks of a trainer write through one ``SummaryWriter``, ``trainer.logger``. Their state
has the sizes of the event files. A resumed run cuts the files to these sizes, so that no step is
logged twice.

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

from ..errors import CallbackException, MissingExtraError
from ..runs.folder import run_folder
from ..runs.record import EVENTS
from .base import Callback

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from ..contracts import TrainerView
    from .event_writer import RunWriter

RESULTS_SUFFIX = ".results"  # event files with test results end with this, and are never cut


def open_writer(folder: Path, suffix: str = "") -> RunWriter:
    """Open a new event file in a folder, which is created if it does not exist.

    Raises:
        MissingExtraError: TensorBoard is not installed.
        CallbackException: the folder cannot be written.
    """
    try:
        from .event_writer import RunWriter
    except ImportError as error:
        raise MissingExtraError(
            "Logging needs TensorBoard, which is not installed: pip install tensorboard."
        ) from error
    try:
        return RunWriter(folder, suffix)
    except OSError as error:
        raise CallbackException(
            f"cannot write to {folder}: {error.strerror or error}. Give another log_dir."
        ) from error


def run_tensorboard(log_dir: str | os.PathLike[str] = "./logs", *options: str) -> int:
    """Run TensorBoard on a folder, and wait until it ends. Ctrl-C ends it.

    Args:
        log_dir: the folder of the runs.
        *options: further arguments, such as ``"--port=6007"``.

    Returns:
        TensorBoard's exit code.
    """
    command = [sys.executable, "-m", "tensorboard.main", f"--logdir={os.fspath(log_dir)}", *options]
    try:
        return subprocess.run(command, check=False).returncode
    except KeyboardInterrupt:
        return 0


class EventFileCallback(Callback):
    """A callback that writes to TensorBoard.

    Its hooks call ``super()``, so that a subclass can have a second base class.

    Args:
        log_dir: the folder of the runs; a run writes to ``<log_dir>/<running_id>``. If several
            such callbacks differ, the first one that writes decides.
    """

    def __init__(self, log_dir: str | os.PathLike[str] = "./logs") -> None:
        super().__init__()
        self.log_dir = Path(log_dir).absolute()
        self._folder: Path | None = None
        self._rewind_to: dict[str, int] | None = None

    @property
    def runs_in(self) -> Path:
        return self.log_dir

    def writer(self, trainer: TrainerView) -> SummaryWriter:
        """Return the trainer's ``SummaryWriter``, opened on first use."""
        logger: SummaryWriter = trainer.open_logger(self.log_dir)
        self._folder = Path(logger.log_dir)
        return logger

    def run_tensorboard(self, *options: str) -> int:
        """Run TensorBoard on ``log_dir``, and wait until it ends."""
        return run_tensorboard(self.log_dir, *options)

    def take_sizes(self) -> dict[str, int] | None:
        """Return the sizes from a loaded checkpoint, and forget them."""
        sizes, self._rewind_to = self._rewind_to, None
        return sizes

    def on_before_fit(self, trainer: TrainerView, epochs: int) -> None:
        """Open the writer; after a resume, cut the event files to their sizes in the checkpoint."""
        if trainer.main_process:
            sharing = [cbk for cbk in trainer.callbacks if isinstance(cbk, EventFileCallback)]
            if self is min(sharing, key=lambda cbk: cbk.order):
                # The state that was made last has what all of them had written.
                saved = [callback.take_sizes() for callback in sharing][-1]
                # A fit that does not resume goes on where the files are now.
                if saved is not None and trainer.is_resumed:
                    trainer.close_logger()
                    rewind_files(run_folder(self.log_dir, trainer.running_id), saved)
            self.writer(trainer)
        super().on_before_fit(trainer=trainer, epochs=epochs)

    def on_after_epoch(self, *, trainer: TrainerView, **others: Any) -> None:
        self.flush()
        if trainer.main_process:
            self.writer(trainer).flush()
        super().on_after_epoch(trainer=trainer, **others)

    def on_after_fit(self, trainer: TrainerView) -> None:
        """Close the file; a later use of the writer opens it again."""
        self.flush()
        trainer.close_logger()
        super().on_after_fit(trainer=trainer)

    def on_exception(self, trainer: TrainerView, exception: BaseException) -> None:
        self.flush()
        trainer.close_logger()
        super().on_exception(trainer=trainer, exception=exception)

    def on_after_test_epochs(self, trainer: TrainerView, tasks: Any, metrics: Any) -> None:
        """Close the file, unless the test runs inside a fit."""
        if trainer.session is None or trainer.session.fit is None:
            trainer.close_logger()
        super().on_after_test_epochs(trainer=trainer, tasks=tasks, metrics=metrics)

    def flush(self) -> None:
        """Write the values that this callback has buffered."""

    def state_dict(self) -> dict[str, Any]:
        """Return the sizes of the event files."""
        if self._folder is None:
            return {}
        self.flush()
        sizes = {path.name: path.stat().st_size for path in event_files(self._folder)}
        return {"running_id": self._folder.name, "sizes": sizes}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load the sizes; the next fit cuts the files to them."""
        if "sizes" in state:
            self._rewind_to = dict(state["sizes"])


def event_files(folder: Path) -> list[Path]:
    """The event files of a run, without those of test results."""
    found = folder.glob(EVENTS)
    return sorted(path for path in found if not path.name.endswith(RESULTS_SUFFIX))


def rewind_files(folder: Path, sizes: Mapping[str, int]) -> None:
    """Cut event files to their earlier sizes, and remove files that did not exist then.

    A folder that has none of the files is another run's, and stays as it is. One that has them
    is this run's, whatever its name is now.
    """
    files = event_files(folder)
    if not any(path.name in sizes for path in files):
        return
    for path in files:
        size = sizes.get(path.name)
        if size is None:
            path.unlink()
        elif path.stat().st_size > size:
            os.truncate(path, size)
