"""The log of fits: which epochs each fit of a run had, and how far the run has come.

A script that was killed and is started again calls its fits again. Those that were finished
are skipped, and the one that was not goes on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ..contracts import RunView
from ..history import Progress
from ..stages import Stage

__all__ = ["FitLog", "FitSpan"]


class FitSpan(NamedTuple):
    """The epochs of one fit.

    Attributes:
        start: its first epoch, from 0.
        end: the epoch after its last one.
        is_past: an earlier process has finished the fit.
    """

    start: int
    end: int
    is_past: bool = False


class FitLog:
    """The fits of a run.

    Args:
        max_epochs: the total number of epochs, unless a fit is given its own.

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
        """Say which epochs the fit has that is called now; change nothing.

        Args:
            epochs: the number given to the fit, or ``None``.
            resumes: whether it goes on from a loaded state.
        """
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
        """Take in a fit that is not refused."""
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
        """Take back what ``state_dict`` gave."""
        self.progress = Progress.from_state(state)
        self._starts = [int(start) for start in state.get("fit_starts", [state["first_epoch"]])]
