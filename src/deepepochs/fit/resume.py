"""Resuming a loaded state in a fit: skip the fits before it, call its first hooks, load it again.

The hooks set up again what is outside of the state. The second load undoes what they have drawn or
counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..callbacks.base import HOOKS
from ..checkpoint.store import CheckpointStore, load
from ..contracts import TrainerView
from ..errors import CheckpointError, CheckpointMismatch, warn_user
from ..history import History
from ..hooks import HookTable, is_of_library
from ..nest.codec import from_plain
from ..state.place import Place
from ..state.strict import WEIGHTS_ALONE, at_present, copied_to_cpu, load_parts, of_source

EARLY = ("history", "callbacks", "random", "progress", "epoch", "loaders")
"""The parts that fit whatever a hook builds: they are loaded before it."""

_SET_UP = (
    *("on_before_fit", "on_before_epoch", "on_before_train_epochs", "on_before_train_epoch"),
    *("on_before_val_epochs", "on_before_val_epoch"),
)


class Resumption:
    """A state that a fit resumes.

    Args:
        trainer: the trainer of the fit.
        place: its place.
        state: the state; ``None``: it was loaded by hand, and the trainer may have been changed
            since, so it is what the trainer has now.
        source: the file; ``None``: it was loaded by hand.
    """

    def __init__(
        self,
        trainer: TrainerView,
        place: Place,
        state: Mapping[str, Any] | None = None,
        source: Path | None = None,
    ) -> None:
        self.run = "" if source is None else source.absolute().parent.name
        self._source = source
        self._trainer = trainer
        self._place = place
        self._before: dict[str, Any] | None = None  # the early parts, where the others wait
        if state is None:
            late = _late(trainer.parts())
            self._state = {name: copied_to_cpu(at_present(part)) for name, part in late.items()}
            for optimizer in trainer.opt:
                optimizer.shrink()
        else:
            self._state = dict(state)
            with self._told_of_source():
                self._load(self._state)

    def _load(self, state: Mapping[str, Any]) -> None:
        """Load the state; if it does not fit yet, only what fits whatever a hook builds."""
        parts = self._trainer.parts()
        table = HookTable(self._trainer.callbacks, HOOKS)
        builds = any(not is_of_library(hook) for name in _SET_UP for hook in table[name])
        try:
            load_parts(parts, state, grows=not builds, warns=True)
        except CheckpointMismatch:
            if not builds or not state.keys() >= set(EARLY):
                raise
            self._before = {name: copied_to_cpu(at_present(parts[name])) for name in EARLY}
            early = [name for name in EARLY if name != "callbacks"]
            load_parts({name: parts[name] for name in early}, {name: state[name] for name in early})
            parts["callbacks"].load_what_is_there(state["callbacks"])

    def put_back(self) -> None:
        """Load weights, optimizers, callbacks' state and random states once more.

        Raises:
            CheckpointMismatch: they do not fit, even with what the hooks have built; the
                trainer has nothing of the state then.
        """
        with self._told_of_source():
            self._put_back()
        self._before = None
        for optimizer in self._trainer.opt:
            optimizer.keep_groups()
        if (random := self._place.get("random")) is not None:
            self._trainer.runtime.streams.load_state_dict(random)

    @contextmanager
    def _told_of_source(self) -> Iterator[None]:
        """Have an error name the file, and the way out."""
        try:
            yield
        except CheckpointMismatch as error:
            if self._source is None:
                raise
            advice = (
                "Make model and optimizer as they were; for a new run give another running_id, or "
                f"resume=False. {WEIGHTS_ALONE}"
            )
            raise of_source(error, self._source, advice) from None

    def _put_back(self) -> None:
        parts = self._trainer.parts()
        try:
            load_parts(_late(parts), _late(self._state), warns=self._before is not None)
        except CheckpointMismatch:
            if self._before is not None:
                load_parts({name: parts[name] for name in EARLY}, self._before)
                self._place.clear()
            raise


def _late(named: Mapping[str, Any]) -> dict[str, Any]:
    """What is loaded again after the hooks."""
    return {name: each for name, each in named.items() if name not in EARLY or name == "callbacks"}


class EarlierFits:
    """The fits of an earlier process, which a script calls again.

    Those that were finished are skipped, with their history. The state is loaded when the fit
    is reached in which it was saved. Code between the last finished fit and that one runs on the
    state at the end of the last finished fit, as it did in the first process.

    Args:
        source: the checkpoint.
        state: its content.

    Attributes:
        starts: the first epoch of each fit.
    """

    def __init__(self, source: Path, state: Mapping[str, Any]) -> None:
        progress = from_plain(state["progress"])
        self.starts = [int(start) for start in progress.get("fit_starts", [0])]
        self._source = source
        self._history = from_plain(state["history"])
        self._was_loaded = False
        self._fault: str | None = None  # why the lines between the fits see other weights

    @property
    def num_past(self) -> int:
        """How many fits were finished."""
        return max(len(self.starts) - 1, 0)

    def is_due(self, num_calls: int, place: Place) -> bool:
        """Whether the next fit is the one in which the state was saved."""
        # After a fit that was refused, the user may have loaded something else.
        return num_calls == self.num_past and not (self._was_loaded and place.is_set)

    def load(self, trainer: TrainerView, place: Place) -> Resumption:
        """Load the state.

        Raises:
            CheckpointError: it cannot be loaded; the trainer is as it was.
        """
        state = from_plain(load(self._source))
        resumption = Resumption(trainer, place, state, self._source)
        self._was_loaded = True
        return resumption

    def skip(self, trainer: TrainerView, place: Place, span: tuple[int, int], num: int) -> History:
        """Skip the finished fit number ``num``, from 1, with its epochs; give its history."""
        history = trainer.history
        history.load_state_dict(self._history)
        history.forget(span[1])
        past = history.since(*span)
        if num == self.num_past:
            self._load_end(trainer, place)
        else:
            self._fault = "only the end of the last finished fit is kept"
        return past

    def _load_end(self, trainer: TrainerView, place: Place) -> None:
        """Load the state at the end of the last finished fit."""
        path = CheckpointStore(self._source.parent).last_fit
        self._fault = f"there is no {path}"
        if not path.exists():
            return
        try:
            state = load(path)
            if from_plain(state["progress"])["fit_starts"] != self.starts[:-1]:
                self._fault = f"{path} is of another fit"
                return
            load_parts(trainer.parts(), from_plain(state))
        except CheckpointError as error:
            self._fault = str(error)
            return
        self._fault = None
        trainer.runtime.streams.load_state_dict(place.get("random"))
        loaders = place.get("loaders")
        place.clear()
        place.keep("loaders", loaders)  # the next fit walks them

    def warn_of_weights(self, num_calls: int, call: str) -> None:
        """Warn of a call between skipped fits that does not see the weights it has seen."""
        if 0 < num_calls <= self.num_past and self._fault is not None:
            warn_user(
                f"{call}() is called between two fits that were finished before the restart. It runs "
                f"with other weights than then, because the weights of that moment were not found "
                f"({self._fault}).",
                UserWarning,
            )
