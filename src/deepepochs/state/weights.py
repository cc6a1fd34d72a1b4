"""Weights without the rest of the state: to load them, save them, or use others for a while.

Weights are those of the model and of a loss function with weights, and what the optimizers train
beside them. The optimizers' own state is no part of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..checkpoint.file import read_weights
from ..checkpoint.store import list_checkpoints, read_checkpoint
from ..contracts import TrainerView
from ..errors import CheckpointMismatch, CheckpointNotFound, ConfigTypeError, warn_user
from ..nest.codec import from_plain
from ..optim.fits import bare
from ..runs.folder import run_folder
from .strict import Part, copied_to_cpu, load_parts, of_source

WEIGHTS = ("model", "loss_fn", "loss_parts", "other_weights")

# Where files of this library and of others have the weights of a model.
ENTRIES = ("model", "state_dict", "model_state_dict", "model_state")


def read_source(trainer: TrainerView, source: Any) -> tuple[str, Mapping[str, Any]]:
    """Read what ``load_weights`` is given; also give what it is, for a message.

    Raises:
        ConfigTypeError: neither a dict, nor a path, nor the id of a run.
        CheckpointError: there is no such file, or it holds no weights.
    """
    if isinstance(source, Mapping):
        return "a dict", source
    if isinstance(source, bool) or not isinstance(source, (str, int, PathLike)):
        raise ConfigTypeError(
            f"load_weights got a {type(source).__name__}: give a file, the folder or id of a run, "
            "or a dict such as model.state_dict()."
        )
    path = Path(str(source))
    if not path.exists() and isinstance(source, (str, int)) and path.name == str(source):
        first = trainer.checker
        runs_in = "./logs" if first is None else first.runs_in
        path = run_folder(runs_in, source)
        if not list_checkpoints(path):
            raise CheckpointNotFound(
                f"there is no file {str(source)!r} here, and no run of that id with a checkpoint in "
                f"{runs_in}"
            )
    if path.is_dir():
        path, state = read_checkpoint(path)
        return str(path), state
    return str(path), read_weights(path)


def take_weights(
    trainer: TrainerView, where: str, state: Mapping[str, Any], *, strict: bool
) -> str:
    """Load the weights of a state, from ``where``; say what was left out.

    Raises:
        CheckpointMismatch: they do not fit; the trainer is as it was.
    """
    parts, given = _weights_of(trainer), _find_weights(state)
    own = trainer.runtime.unwrap(trainer.model).state_dict()
    given["model"] = _renamed(own, given["model"])
    if not strict:
        told = _take_what_fits(parts["model"], own, given["model"])
        if trainer.ema is not None:
            trainer.ema.restart()
        for name in [name for name in parts if name != "model" and name in given]:
            _take_what_fits(parts[name], parts[name].state_dict(), given[name], needs_one=False)
        return told
    is_whole = "progress" in state and state.get("format") != "0.6"
    wanted = {name: parts[name] for name in parts if is_whole or name in given}
    try:
        load_parts(wanted, {name: given[name] for name in wanted if name in given})
    except CheckpointMismatch as error:
        advice = "load_weights(..., strict=False) takes the entries that fit."
        raise of_source(error, where, advice) from None
    if trainer.ema is not None:
        trainer.ema.restart()
    return ""


@contextmanager
def using_weights(trainer: TrainerView, state: Mapping[str, Any]) -> Iterator[None]:
    """Let the block use the weights of another moment of the run; put back those of now."""
    names = [*WEIGHTS]
    if any(hasattr(bare(optimizer.opt), "eval") for optimizer in trainer.opt):
        # Such an optimizer computes the weights of a test from its own state.
        names.append("optimizers")
    parts = {name: part for name, part in trainer.parts().items() if name in names}
    before = {name: copied_to_cpu(part.state_dict()) for name, part in parts.items()}
    load_parts(parts, from_plain({name: state[name] for name in parts if name in state}))
    try:
        yield
    finally:
        for name, part in parts.items():
            part.load_state_dict(before[name])


@contextmanager
def told_of_flags(model: nn.Module) -> Iterator[None]:
    """Warn if the block changes which weights of a model are trained."""
    before = {name: weight.requires_grad for name, weight in model.named_parameters()}
    yield
    changed = [
        f"{name} ({'frozen' if flag else 'trained'} now)"
        for name, flag in before.items()
        if model.get_parameter(name).requires_grad is not flag
    ]
    if changed:
        warn_user(
            f"load_checkpoint() has set requires_grad as it was saved: {_listed(changed)}. "
            "To have it otherwise, set it after load_checkpoint(), or take "
            "the weights alone with load_weights().",
            UserWarning,
        )


def plain_weights(trainer: TrainerView) -> dict[str, Any]:
    """Give the weights of the model by the names that it has without any wrapper."""
    state = trainer.parts()["model"].state_dict()
    return {_plain_name(name): value for name, value in state.items()}


def _weights_of(trainer: TrainerView) -> dict[str, Part]:
    """The parts of the trainer's state that are weights.

    The class weights of a loss function are a setting: a loss without parameters keeps its own.
    """
    parts = {name: part for name, part in trainer.parts().items() if name in WEIGHTS}
    loss_fn = parts.get("loss_fn")
    if isinstance(loss_fn, nn.Module) and not any(True for _ in loss_fn.parameters()):
        del parts["loss_fn"]
    return parts


def _find_weights(state: Mapping[str, Any]) -> dict[str, Any]:
    """Find the weights in a trainer's state, a model's ``state_dict``, or a dict that has one."""
    entry = next((key for key in ENTRIES if isinstance(state.get(key), Mapping)), None)
    if entry == "model":
        names = [name for name in WEIGHTS if isinstance(state.get(name), Mapping)]
        return dict(from_plain({name: state[name] for name in names}))
    if entry is not None:
        return {"model": state[entry]}
    if state and any(isinstance(value, Tensor) for value in state.values()):
        return {"model": state}
    raise CheckpointMismatch(
        f"No weights were found: a dict with the keys {list(state)[:8]}. Give a model's state_dict, "
        f"or a dict that has it under one of {', '.join(map(repr, ENTRIES))}."
    )


def _plain_name(name: str) -> str:
    """A weight's name without those of the wrappers of ``torch.compile`` and of DDP."""
    return name.replace("_orig_mod.", "").removeprefix("module.")


def _renamed(own: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Give weights the names that they have in this model, with or without a wrapper."""
    names = {_plain_name(name): name for name in own}
    if set(given) <= set(own) or len(names) < len(own):
        return dict(given)
    plain = {name: _plain_name(name) for name in given}
    first = {name.partition(".")[0] for name in plain.values()}
    if len(first) == 1:
        # The model was an attribute of another module, as in a LightningModule.
        shorter = {name: plain[name].partition(".")[2] for name in plain}
        plain = shorter if {*shorter.values()} == {*names} else plain
    return {
        name if name in own else names.get(plain[name], name): value
        for name, value in given.items()
    }


def _take_what_fits(
    part: Part, own: Mapping[str, Any], given: Mapping[str, Any], *, needs_one: bool = True
) -> str:
    """Load the entries of the same name and shape, and say which were left.

    Raises:
        CheckpointMismatch: there is none.
    """
    taken: dict[str, Any] = {}
    left: list[str] = []
    for name, mine in own.items():
        value = given.get(name)
        if value is None:
            left.append(name)
        elif not isinstance(mine, Tensor) or not isinstance(value, Tensor):
            taken[name] = value
        elif mine.shape == value.shape:
            taken[name] = value.to(mine.dtype)
        else:
            left.append(f"{name} (is {list(value.shape)}, and here {list(mine.shape)})")
    if not any(isinstance(value, Tensor) for value in taken.values()):
        if not needs_one:
            return ""
        raise CheckpointMismatch(
            f"No entry fits this model: it has {_listed(list(own))}; given were "
            f"{_listed(list(given))}."
        )
    load_parts({"model": part}, {"model": {**own, **taken}})
    unknown = [name for name in given if name not in own]
    told = f"{len(taken)} of {len(own)} entries were loaded"
    if left:
        told += f"; left as they were: {_listed(left)}"
    return told + (f"; not used: {_listed(unknown)}" if unknown else "")


def _listed(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f", and {len(names) - 5} more" if names[5:] else "")
