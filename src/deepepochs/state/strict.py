"""Loading a state into parts: all of it, or nothing.

Everything that can be checked is checked first (keys, shapes, types, the form of each
part), before anything is copied. If a part fails all the same, as a callback of the
user may, the parts loaded before it are restored.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

from torch import Tensor, nn

from ..errors import CheckpointError, CheckpointMismatch, add_note
from ..nest.operations import walk
from ..optim.optimizers import Optimizers


class Part(Protocol):
    """What has a state: PyTorch's ``Stateful`` protocol."""

    def state_dict(self) -> Any:
        """Give the state: tensors and plain types."""

    def load_state_dict(self, state: Any) -> Any:
        """Load what ``state_dict`` gave."""


class CheckedPart:
    """A part that can say, before anything is loaded, whether a state fits.

    Attributes:
        is_place: the part says where the run is. It is loaded last, and cannot fail then: a
            load that fails never leaves a trainer that believes it was resumed.
    """

    is_place = False

    def check_state(self, state: Any) -> None:
        """Raise if a state does not fit; change nothing."""


def load_parts(
    parts: Mapping[str, Part],
    state: Mapping[str, Any],
    checking: AbstractContextManager[Any] = nullcontext(),  # noqa: B008
) -> None:
    """Load a state into parts: all of it, or nothing; ``checking`` is around the checks.

    Raises:
        CheckpointMismatch: parts are missing or unknown, or do not fit.
    """
    with checking:
        _check_parts(parts, state)
    order = sorted(parts, key=lambda name: getattr(parts[name], "is_place", False))
    before: dict[str, Any] = {}
    try:
        for name in order:
            before[name] = _copy_to_cpu(parts[name].state_dict())
            _load(parts, state, name)
    except Exception as error:
        for name in before:
            _load(parts, before, name)
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointMismatch(f"The state could not be loaded: {error}") from error


def _check_parts(parts: Mapping[str, Part], state: Mapping[str, Any]) -> None:
    missing, unknown = sorted(parts.keys() - state.keys()), sorted(state.keys() - parts.keys())
    if missing or unknown:
        raise CheckpointMismatch(
            f"The state does not fit this trainer: missing {missing or 'nothing'}, unknown "
            f"{unknown or 'nothing'}. Was it saved with another loss, other optimizers or another version?"
        )
    for name, part in parts.items():
        _check(name, part, state[name])


def check_gradients(weights: Mapping[str, Tensor], saved: Mapping[str, Tensor]) -> None:
    """Raise ``CheckpointMismatch`` for a gradient of no weight, or of one of another shape."""
    for name, gradient in saved.items():
        weight = weights.get(name)
        if weight is None or weight.shape != gradient.shape:
            here = "no such weight" if weight is None else f"{list(weight.shape)}"
            raise CheckpointMismatch(
                f"The checkpoint is of another model: it has a gradient {list(gradient.shape)} "
                f"of {name}, and here is {here}."
            )


def _copy_to_cpu(state: Any) -> Any:
    """Copy a state; beside a model that fills its device there is no place for another there."""

    def copied(item: Any) -> Any:
        if isinstance(item, Tensor) and not item.is_cpu and not item.is_meta:
            return item.detach().cpu()
        return copy.deepcopy(item)

    return walk(copied, state)


def _check(name: str, part: Part, state: Any) -> None:
    """Raise ``CheckpointMismatch`` if a state does not fit; change nothing."""
    if isinstance(part, nn.Module):
        check_module_state(name, part, state)
    elif isinstance(part, (CheckedPart, Optimizers)):
        try:
            part.check_state(state)
        except CheckpointError:
            raise
        except Exception as error:  # a state of another form fails in any way
            raise CheckpointMismatch(
                f"The part {name!r} of the state is not what this release writes ({error!r}). Was "
                "it saved by another version?"
            ) from error


def _load(parts: Mapping[str, Part], state: Mapping[str, Any], name: str) -> None:
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
