"""Loading a state into parts: all of it, or nothing.

Everything that can be checked is checked first (keys, shapes, types, the form of each
part), before anything is copied. If a part fails all the same, as a callback of the
user may, the parts loaded before it are restored.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from types import MappingProxyType
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ..errors import CheckpointError, CheckpointMismatch, add_note, warn_user
from ..nest.operations import walk


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
        is_optional: states of earlier releases do not have the part, and leave it as it is.
    """

    is_place = False
    is_optional = False

    def state_dict(self) -> Any:
        """Give the state: tensors and plain types."""
        raise NotImplementedError

    def present_state(self) -> Any:
        """Give the state as far as it is there, to be put back later."""
        return self.state_dict()

    def check_state(self, state: Any) -> None:
        """Raise if a state does not fit; change nothing."""

    def grows_by(self, state: Any) -> bool:
        """Whether loading a state would add what the script does not have yet."""
        return False

    def differences(self, state: Any) -> list[str]:
        """Say where the script and a state that fits differ, and which of both counts."""
        return []


def load_parts(
    parts: Mapping[str, Part],
    state: Mapping[str, Any],
    *,
    checking: AbstractContextManager[Any] = nullcontext(),  # noqa: B008
    grows: bool = True,
    warns: bool = False,
) -> None:
    """Load a state into parts: all of it, or nothing.

    Args:
        parts: the parts by name.
        state: the state of each.
        checking: a block around the checks, in which all processes refuse what one refuses.
        grows: whether parts may take what came with training and the script does not have yet,
            as parameter groups.
        warns: whether to say in one warning where the script and the state differ.

    Raises:
        CheckpointMismatch: parts are missing or unknown, or do not fit.
    """
    parts = {
        name: part
        for name, part in parts.items()
        if name in state or not getattr(part, "is_optional", False)
    }
    with checking:
        _check_parts(parts, state, grows=grows)
    told = _differences(parts, state) if warns else []
    order = sorted(parts, key=lambda name: getattr(parts[name], "is_place", False))
    before: dict[str, Any] = {}
    try:
        for name in order:
            before[name] = copied_to_cpu(at_present(parts[name]))
            _load(parts, state, name)
    except Exception as error:
        for name in before:
            _load(parts, before, name)
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointMismatch(f"The state could not be loaded: {error}") from error
    if told:
        warn_user(f"The script differs from the checkpoint: {'; '.join(told)}.", UserWarning)


def _differences(parts: Mapping[str, Part], state: Mapping[str, Any]) -> list[str]:
    checked = {name: part for name, part in parts.items() if isinstance(part, CheckedPart)}
    told = [text for name, part in checked.items() for text in part.differences(state[name])]
    for name in ("loss_fn", "loss_parts"):
        if isinstance(part := parts.get(name), nn.Module):
            told += _other_class_weights(part, state[name])
    return told


def _other_class_weights(loss: nn.Module, state: Mapping[str, Any]) -> list[str]:
    """Say which class weights of PyTorch's own losses differ. Other buffers may be trained."""
    told = []
    for name, module in loss.named_modules():
        if type(module).__module__ != "torch.nn.modules.loss":
            continue
        for key, here in module.named_buffers():
            saved = state[f"{name}.{key}" if name else key]
            if not torch.equal(here.cpu(), saved.cpu()):
                more = ", ..." if here.numel() > 8 else ""
                first, other = (str(value.flatten()[:8].tolist())[:-1] for value in (saved, here))
                told.append(
                    f"the {type(module).__name__} goes on with {key}={first}{more}] "
                    f"({other}{more}] in the script): to change that, set it after "
                    "trainer.load_checkpoint(path)"
                )
    return told


def _check_parts(parts: Mapping[str, Part], state: Mapping[str, Any], *, grows: bool) -> None:
    sides = {"missing": parts.keys() - state.keys(), "unknown": state.keys() - parts.keys()}
    if not sides["missing"] and sides["unknown"] == {"ema"}:
        raise CheckpointMismatch(
            "The checkpoint has an average of the weights, and this trainer has none: give "
            f"Trainer(..., ema={state['ema']['settings']}) to go on with it."
        )
    told = [f"{side} {', '.join(sorted(names))}" for side, names in sides.items() if names]
    if told:
        raise CheckpointMismatch(
            f"The state does not fit this trainer: {'; '.join(told)}. Was it saved with another "
            "loss, other optimizers, another ema=, parts of another class or another version?"
        )
    grown = state["extras"].get("grown", {}) if "extras" in parts else {}
    for name, part in parts.items():
        _check(name, part, state[name], grown if name == "model" else {})
    if grows:
        return
    for name, part in parts.items():
        if isinstance(part, CheckedPart) and part.grows_by(state[name]):
            raise CheckpointMismatch(f"The part {name!r} has grown in training.")


WEIGHTS_ALONE = "load_weights takes the weights alone, with strict=False those that fit."


def of_source(error: CheckpointMismatch, source: object, advice: str) -> CheckpointMismatch:
    """The error with the file that it is about, and in a second line what to do."""
    text = str(error)
    whole = "The checkpoint "
    named = (
        f"{source} {text.removeprefix(whole)}" if text.startswith(whole) else f"{source}: {text}"
    )
    if ", and here [" in text and "resume" in advice:
        advice += (
            " If a hook changes these shapes during training, it must change them again when the "
            "run resumes: do it in on_before_fit or on_before_epoch, and skip layers that have the "
            "new shape already."
        )
    return CheckpointMismatch(named if advice in text else f"{named}\n{advice}")


def check_gradients(weights: Mapping[str, Tensor], saved: Mapping[str, Tensor]) -> None:
    """Raise ``CheckpointMismatch`` for a gradient of no weight, or of one of another shape."""
    for name, gradient in saved.items():
        weight = weights.get(name)
        if weight is not None and is_lazy(weight):
            continue
        if weight is None or weight.shape != gradient.shape:
            here = "no such weight" if weight is None else f"{list(weight.shape)}"
            raise CheckpointMismatch(
                f"The checkpoint is of another model: it has a gradient {list(gradient.shape)} "
                f"of {name}, and here is {here}."
            )


def at_present(part: Part) -> Any:
    """The state of a part as far as it is there, to be put back later."""
    return part.present_state() if isinstance(part, CheckedPart) else part.state_dict()


def copied_to_cpu(state: Any) -> Any:
    """Copy a state to the CPU: the device may have no memory left beside the model."""

    def copied(item: Any) -> Any:
        if is_lazy(item):
            return item  # it has no values yet
        if isinstance(item, Tensor) and not item.is_cpu and not item.is_meta:
            return item.detach().cpu()
        return copy.deepcopy(item)

    return walk(copied, state)


def _check(name: str, part: Part, state: Any, grown: Mapping[str, Any]) -> None:
    """Raise ``CheckpointMismatch`` if a state does not fit; change nothing."""
    if isinstance(part, nn.Module):
        check_module_state(name, part, state, grown)
    elif isinstance(part, CheckedPart):
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
    part = parts[name]
    try:
        if isinstance(part, nn.Module):
            _resize_buffers(part, state[name])
        part.load_state_dict(state[name])
    except Exception as error:
        add_note(error, f"while loading the part {name!r}")
        raise


def _resize_buffers(module: nn.Module, state: Mapping[str, Any]) -> None:
    """Resize buffers to the shapes that they have in a saved state."""
    for path, owner in module.named_modules():
        for key, own in owner._buffers.items():
            saved = state.get(f"{path}.{key}" if path else key)
            if own is None or is_lazy(own) or not isinstance(saved, Tensor):
                continue
            if saved.shape != own.shape:
                put_buffer(owner, key, saved)


def put_buffer(owner: nn.Module, key: str, saved: Tensor | None) -> None:
    """Set a buffer to a saved value, whose shape may be another one."""
    own = owner._buffers[key]
    if saved is None:
        owner._buffers[key] = None
    elif own is not None and (saved.shape, saved.dtype) == (own.shape, own.dtype):
        own.copy_(saved)
    else:
        near = own if own is not None else next(owner.parameters(), None)
        owner._buffers[key] = saved.to(None if near is None else near.device, copy=True)


def check_module_state(
    where: str, module: nn.Module, state: Any, grown: Mapping[str, Any] = MappingProxyType({})
) -> None:
    """Raise ``CheckpointMismatch`` unless keys, shapes and types are those of the module.

    The shapes of lazy weights come with the state, and so do those of buffers that have
    ``grown`` in training from the shapes that they have here.
    """
    own = module.state_dict()
    if not isinstance(state, Mapping):
        raise CheckpointMismatch(f"{where}: the state is a {type(state).__name__}, not a dict.")
    faults = [f"{key} is missing" for key in own if key not in state]
    faults += [f"{key} is unknown" for key in state if key not in own]
    for key in (key for key in own if key in state):
        mine, saved = own[key], state[key]
        if not isinstance(mine, Tensor) or is_lazy(mine):
            continue
        if not isinstance(saved, Tensor):
            faults.append(f"{key} is a {type(saved).__name__}, not a tensor")
        elif saved.shape != mine.shape and grown.get(key) != list(mine.shape):
            faults.append(f"{key} is {list(saved.shape)}, and here {list(mine.shape)}")
        elif saved.dtype != mine.dtype:
            faults.append(f"{key} is {saved.dtype}, and here {mine.dtype}")
    if faults:
        shown = "; ".join(faults[:5]) + (f"; and {len(faults) - 5} more" if faults[5:] else "")
        raise CheckpointMismatch(f"The checkpoint is of another {where}: {shown}.")
