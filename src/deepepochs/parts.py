"""The parts of a trainer's state, by name: what a checkpoint holds and a resume brings back.

Each part has ``state_dict`` and ``load_state_dict``. Loading checks first: keys,
shapes and types of everything that can be checked, before anything is copied; if a
part fails all the same, the trainer is put back as it was.

::

    state = trainer.state_dict()
    trainer.parts()["model"].state_dict()
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from . import rng
from .callback import CallbackPool
from .epoch_state import EpochState
from .errors import CheckpointError, CheckpointMismatch, add_note
from .progress import Progress

if TYPE_CHECKING:
    from .trainer import TrainerBase

__all__ = ["Part", "check_module_state", "collect_parts", "load_parts"]


class Part(Protocol):
    """What has a state: PyTorch's ``Stateful`` protocol."""

    def state_dict(self) -> Any:
        """Give the state: tensors and plain types."""

    def load_state_dict(self, state: Any) -> Any:
        """Take back what ``state_dict`` gave."""


class GradientsPart:
    """Gradients waiting for an optimizer step, as inside an accumulation window."""

    def __init__(self, model: nn.Module, loss_fn: Any) -> None:
        self._weights: dict[str, Tensor] = {
            f"model.{name}": weight for name, weight in model.named_parameters()
        }
        if isinstance(loss_fn, nn.Module):
            named = loss_fn.named_parameters()
            self._weights.update({f"loss_fn.{name}": weight for name, weight in named})

    def state_dict(self) -> dict[str, Tensor]:
        return {
            name: weight.grad for name, weight in self._weights.items() if weight.grad is not None
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        for name, weight in self._weights.items():
            gradient = state.get(name)
            weight.grad = None if gradient is None else gradient.to(weight.device, copy=True)


class ProgressPart:
    """The counters of the run, and the epoch at which the present fit began."""

    def __init__(self, trainer: TrainerBase) -> None:
        self._trainer = trainer

    def state_dict(self) -> dict[str, Any]:
        return self._trainer.progress_state()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._trainer.load_progress_state(state)


class EpochPart:
    """How far the present epoch has come; ``None`` between epochs."""

    def __init__(self, trainer: TrainerBase) -> None:
        self._trainer = trainer

    def state_dict(self) -> dict[str, Any] | None:
        epoch = self._trainer.epoch
        return None if epoch is None else epoch.state_dict(self._trainer.run)

    def load_state_dict(self, state: dict[str, Any] | None) -> None:
        self._trainer.epoch = None if state is None else EpochState.from_state(state)


class CallbacksPart:
    """The state of the callbacks, by unique name."""

    def __init__(self, callbacks: CallbackPool) -> None:
        self._callbacks = callbacks

    def state_dict(self) -> dict[str, Any]:
        states = {name: callback.state_dict() for name, callback in self._callbacks.named().items()}
        return {name: state for name, state in states.items() if state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        named = self._callbacks.named()
        for name, saved in state.items():
            if name in named:
                named[name].load_state_dict(saved)
            else:
                warnings.warn(
                    f"The checkpoint holds state of a callback {name!r}, which this trainer does "
                    "not have: it is left out.",
                    UserWarning,
                    stacklevel=2,
                )


class RandomPart:
    """The random states of Python, NumPy, torch and its devices."""

    def __init__(self, trainer: TrainerBase) -> None:
        self._trainer = trainer

    def state_dict(self) -> dict[str, Any]:
        return rng.get_state()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        rng.set_state(state)
        self._trainer.random_state = dict(state)


def collect_parts(trainer: TrainerBase) -> dict[str, Part]:
    """Give the parts of a trainer's state, in the order in which they are loaded."""
    model = trainer.runtime.unwrap(trainer.model)
    parts: dict[str, Part] = {"model": model}
    if isinstance(trainer.loss_fn, nn.Module) and trainer.loss_fn.state_dict():
        parts["loss_fn"] = trainer.loss_fn
    parts["optimizers"] = trainer.opt
    parts["gradients"] = GradientsPart(model, trainer.loss_fn)
    parts["history"] = trainer.history
    parts["callbacks"] = CallbacksPart(trainer.callbacks)
    parts["progress"] = ProgressPart(trainer)
    parts["epoch"] = EpochPart(trainer)
    parts["random"] = RandomPart(trainer)
    return parts


def load_parts(parts: Mapping[str, Part], state: Mapping[str, Any]) -> None:
    """Load a state into parts: all of it, or nothing.

    Raises:
        CheckpointMismatch: parts are missing or unknown, or do not fit.
    """
    missing, unknown = sorted(parts.keys() - state.keys()), sorted(state.keys() - parts.keys())
    if missing or unknown:
        raise CheckpointMismatch(
            f"The state does not fit this trainer: missing {missing or 'nothing'}, unknown "
            f"{unknown or 'nothing'}. Was it saved with another loss or another version?"
        )
    for name, part in parts.items():
        if isinstance(part, nn.Module):
            check_module_state(name, part, state[name])
    before = {name: copy.deepcopy(part.state_dict()) for name, part in parts.items()}
    try:
        _load(parts, state, parts)
    except Exception as error:
        _load(parts, before, parts)
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointMismatch(f"The state could not be loaded: {error}") from error


def _load(parts: Mapping[str, Part], state: Mapping[str, Any], names: Iterable[str]) -> None:
    for name in names:
        try:
            parts[name].load_state_dict(state[name])
        except Exception as error:
            add_note(error, f"while loading the part {name!r}")
            raise


def check_module_state(where: str, module: nn.Module, state: Any) -> None:
    """Raise ``CheckpointMismatch`` unless keys, shapes and types are those of the module."""
    own = module.state_dict()
    if not isinstance(state, Mapping):
        raise CheckpointMismatch(f"{where}: the state is a {type(state).__name__}, not a dict.")
    faults = [f"{key} is missing" for key in own if key not in state]
    faults += [f"{key} is unknown" for key in state if key not in own]
    for key in (key for key in own if key in state):
        mine, saved = own[key], state[key]
        if not isinstance(mine, Tensor):
            continue
        if not isinstance(saved, Tensor):
            faults.append(f"{key} is a {type(saved).__name__}, not a tensor")
        elif saved.shape != mine.shape:
            faults.append(f"{key} is {list(saved.shape)}, and here {list(mine.shape)}")
        elif saved.dtype != mine.dtype:
            faults.append(f"{key} is {saved.dtype}, and here {mine.dtype}")
    if faults:
        shown = "; ".join(faults[:5]) + (f"; and {len(faults) - 5} more" if faults[5:] else "")
        raise CheckpointMismatch(f"The checkpoint is of another {where}: {shown}.")


def as_progress(state: Mapping[str, Any]) -> Progress:
    """Give the counters of a saved state."""
    return Progress.from_state(state)


def snapshot(state: Any) -> Any:
    """Copy a state, so that further training does not change it."""
    with torch.no_grad():
        return copy.deepcopy(state)
