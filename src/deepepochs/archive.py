"""What a trainer keeps: its state, its checkpoints, and the files of its run."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import ConfigError, LoopException
from .fit.snapshot import Trials
from .history import Progress
from .nest.codec import from_plain, to_plain
from .runs.folder import run_folder

# What a plain fit does not need (checkpoints, reports and the like, two modules in five) is
# imported where it is asked for.
if TYPE_CHECKING:
    from .callbacks.check import CheckCallback
    from .state.strict import Part
    from .trainer import TrainerBase
    from .verify.proof import ResumeReport

__all__ = ["Archive"]


class Archive(Trials):
    """State, checkpoints and the run's folder of a trainer."""

    loss_fn: Any
    running_id: str
    resume: bool | int | str
    logger: Any
    _has_own_id: bool

    def parts(self) -> dict[str, Part]:
        """The parts of the state by name, each with ``state_dict`` and ``load_state_dict``."""
        from .state.parts import collect_parts

        return collect_parts(self._trainer)

    def state_dict(self) -> dict[str, Any]:
        """The whole state, from which a run goes on to the bit: tensors and plain types.

        The tensors are those in use: save them or copy them before training goes on. All
        processes call this together; of a sharded model, the first one alone has the values.
        """
        state = {name: part.state_dict() for name, part in self.parts().items()}
        return dict(to_plain(state, with_meta=True))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what ``state_dict`` gave; the next fit goes on from there.

        Raises:
            CheckpointMismatch: the state does not fit; the trainer is as it was.
        """
        if self._is_acting:
            raise LoopException(
                "A whole state cannot be loaded while a fit or test runs: the loop has its place in "
                "the data already. Load it before fit(), or take load_weights(state)."
            )
        from .state.strict import load_parts

        load_parts(self.parts(), from_plain(dict(state)))

    def load_weights(self, state: Mapping[str, Any]) -> None:
        """Take all weights and the optimizers from a state, and leave everything else.

        Raises:
            CheckpointMismatch: they do not fit; the trainer is as it was.
        """
        from .state.strict import load_parts

        weights = {"model", "loss_fn", "other_weights", "optimizers"}
        parts = {name: part for name, part in self.parts().items() if name in weights}
        load_parts(parts, from_plain({name: state[name] for name in parts if name in state}))

    def load_checkpoint(self, path: str | PathLike[str]) -> TrainerBase:
        """Load a checkpoint file, or the newest whole one of a run's folder.

        Args:
            path: a file written by ``CheckCallback``, also that of release 0.6, or a folder.

        Returns:
            The trainer, whose next fit goes on after the checkpoint.

        Raises:
            CheckpointError: missing, damaged or of another model; the trainer is as it was.
        """
        from .callbacks.checkpoint_source import read_checkpoint

        source, state = read_checkpoint(path)
        self._trainer.print(f"loading checkpoint {source}")
        if state.get("format") == "0.6":
            # Release 0.6 saves the model alone, be the loss function one with class weights.
            own = {name: part.state_dict() for name, part in self.parts().items()}
            self.load_weights({**own, **state})
            self.load_progress_state(
                {
                    **Progress()._asdict(),
                    "epoch_idx": state["progress"]["epoch"] + 1,
                    "first_epoch": 0,
                }
            )
        else:
            self.load_state_dict(state)
        return self._trainer

    def verify_resume(
        self, train_dl: Any = None, val_dl: Any = None, *, steps: int = 20, **fit_options: Any
    ) -> ResumeReport:
        """Prove, on this model and data, that a resumed run is the unbroken one to the bit.

        Runs unbroken, runs to the middle, resumes in a fresh process and compares
        everything. The trainer, its loaders and the disk are left as they are.

        Args:
            train_dl: training loader, as for ``fit``.
            val_dl: validation loader, as for ``fit``.
            steps: mini-batches to run, of training and validation together.
            **fit_options: further arguments of ``fit``, such as ``train_tasks``.

        Returns:
            A report: ``ok``, ``differences`` and the likely ``cause``.
        """
        from .verify.proof import verify_resume

        options = {"train_dl": train_dl, "val_dl": val_dl, **fit_options}
        return verify_resume(self._trainer, steps, options)

    def adopt_run(self, running_id: str) -> None:
        """Go on in the folder of an earlier run, unless this trainer was given an id."""
        if not self._has_own_id:
            self.running_id = running_id

    @property
    def has_own_id(self) -> bool:
        """Whether the running id was given."""
        return self._has_own_id

    @property
    def checker(self) -> CheckCallback | None:
        """The first ``CheckCallback``, which decides where checkpoints are."""
        from .callbacks.check import CheckCallback

        return next((cbk for cbk in self.callbacks if isinstance(cbk, CheckCallback)), None)

    @property
    def run_dir(self) -> Path:
        """The folder of this run: of its checkpoints, logs and reports."""
        from .callbacks.run_record import RunRecordCallback

        recorders = [cbk for cbk in self.callbacks if isinstance(cbk, RunRecordCallback)]
        first = self.checker or next(iter(recorders), None)
        return run_folder("./logs" if first is None else first.log_dir, self.running_id)

    def report(self, path: str | PathLike[str] | None = None) -> Path:
        """Write a page of HTML on the run: curves, metrics, settings, model and machine.

        It is one file that asks for nothing from anywhere. With an ``InterpretCallback`` it
        has its confusion matrix and samples.

        Args:
            path: the file; ``None``: ``report.html`` in the run's folder.

        Returns:
            The path.
        """
        from .callbacks.report import write_report

        return write_report(self._trainer, path)

    def open_logger(self, log_dir: str | PathLike[str] = "./logs") -> Any:
        """Give the TensorBoard writer that the callbacks share, made at the first call.

        Args:
            log_dir: the folder of the runs, for the first call.

        Returns:
            ``trainer.logger``, a ``SummaryWriter`` for ``<log_dir>/<running_id>``.
        """
        if self.logger is None:
            from .callbacks.event_files import open_writer

            self.logger = open_writer(run_folder(log_dir, self.running_id))
            weakref.finalize(self, self.logger.close)
        return self.logger

    def close_logger(self) -> None:
        """Close the file of ``trainer.logger``; a later use of it opens another."""
        if self.logger is not None:
            self.logger.close()

    def _resume_if_asked(self) -> None:
        """Load what ``resume`` asks for, once, before the first fit."""
        if self._has_resumed or self._num_fits or self.resume is False or self.resume is None:
            return
        if self.checker is None:
            raise ConfigError(
                f"resume={self.resume!r} needs a CheckCallback, which knows where checkpoints are: "
                "Trainer(..., callbacks=CheckCallback('loss'), resume=...)."
            )
        self.checker.resume(self._trainer)
        # Not again after a fit that was refused: what was loaded since then is to be kept.
        self._has_resumed, self._is_replayed = True, self._resumed
