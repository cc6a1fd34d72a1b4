"""The parts of a trainer's state, by name: what a checkpoint holds and a resume brings back.

Each part has ``state_dict`` and ``load_state_dict``. Loading is strict: see
:mod:`~deepepochs.state.strict`.

::

    state = trainer.state_dict()
    trainer.parts()["model"].state_dict()
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .. import rng
from ..callbacks.pool import CallbackPool, match_callbacks
from ..contracts import TrainerView
from ..data.cursor import Loaders
from ..errors import CheckpointError, CheckpointMismatch
from ..history import Progress
from ..nest import operations as nested
from ..optim.loss_modules import HeldModules
from ..optim.optimizers import Optimizers
from ..runtime.base import Runtime
from ..runtime.sharded_tensors import reshard
from .optimizers import OptimizersPart
from .place import EpochState, Place
from .sharded import ShardedGradients, ShardedModule, ShardedOptimizers
from .strict import CheckedPart, Part, check_gradients, load_parts, put_buffer

if TYPE_CHECKING:
    from ..runtime.buckets import Buckets


class GradientsPart(CheckedPart):
    """Gradients waiting for an optimizer step, as inside an accumulation window."""

    def __init__(self, weights: dict[str, Tensor], runtime: Runtime) -> None:
        self._runtime = runtime
        self._weights = weights

    def state_dict(self) -> Any:
        own = {
            name: weight.grad for name, weight in self._weights.items() if weight.grad is not None
        }
        return of_all(self._runtime, own)

    def check_state(self, state: Any) -> None:
        if self._runtime.num_processes > 1 and "of_processes" not in state:
            raise CheckpointMismatch(
                "The state was saved by one process or with a sharded model, and here each of "
                f"{self._runtime.num_processes} processes has the whole model: take the weights "
                "alone with trainer.load_weights(path)."
            )
        check_gradients(self._weights, own_of(self._runtime, state))

    def load_state_dict(self, state: Any) -> None:
        own = own_of(self._runtime, state)
        for name, weight in self._weights.items():
            gradient = own.get(name)
            weight.grad = None if gradient is None else gradient.to(weight.device, copy=True)


class ProgressPart(CheckedPart):
    """The counters of the run, and the epochs at which its fits began."""

    is_place = True

    def __init__(self, place: Place, fits: Part) -> None:
        self._place = place
        self._fits = fits

    def state_dict(self) -> Any:
        return self._fits.state_dict()

    def check_state(self, state: Mapping[str, Any]) -> None:
        int(state["first_epoch"])
        Progress.from_state(state)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._fits.load_state_dict(state)
        self._place.keep("progress", state)


class ExtrasPart(CheckedPart):
    """What a module's ``state_dict`` leaves out: flags and buffers that are not persistent.

    The flags are the ``requires_grad`` of each weight, ``others`` included: a callback that
    unfreezes layers has changed them and will not change them again. A non-persistent buffer, such
    as a cache, may be loaded with another shape than the present one. So may a persistent buffer
    whose shape has changed in training (``grown``); its shape at the beginning is saved, which
    tells this case.
    """

    def __init__(
        self,
        model: nn.Module,
        loss_fn: Any,
        others: Mapping[str, Tensor],
        first_shapes: Mapping[str, list[int]],
        buckets: Buckets | None,
    ) -> None:
        self._others = others
        self._model = model
        self._first_shapes = first_shapes
        self._buckets = buckets
        self._modules = named_modules(model, loss_fn)

    def _weights(self) -> dict[str, Tensor]:
        return {**named_weights(self._modules), **self._others}

    def _buffers(self) -> dict[str, tuple[nn.Module, str]]:
        """The module and the name in it of each buffer that is not persistent."""
        return {
            f"{where}.{path}.{name}" if path else f"{where}.{name}": (owner, name)
            for where, module in self._modules.items()
            for path, owner in module.named_modules()
            for name in sorted(owner._non_persistent_buffers_set)
        }

    def state_dict(self) -> dict[str, Any]:
        """Give flags and buffers by name."""
        weights, buffers = self._weights(), self._buffers()
        return {
            "requires_grad": {name: weight.requires_grad for name, weight in weights.items()},
            "buffers": {name: owner._buffers[key] for name, (owner, key) in buffers.items()},
            "grown": {
                name: self._first_shapes[name]
                for name, buffer in self._model.named_buffers()
                if name in self._first_shapes and self._first_shapes[name] != list(buffer.shape)
            },
            "gradient_orders": [] if self._buckets is None else self._buckets.state_dict(),
        }

    def check_state(self, state: Mapping[str, Any]) -> None:
        """Raise ``CheckpointMismatch`` unless names and kinds are those of the modules here."""
        for name, flag in state["requires_grad"].items():
            if not isinstance(flag, bool):
                raise CheckpointMismatch(f"requires_grad of {name} is {flag!r}, not a bool.")
        for name, value in state["buffers"].items():
            if value is not None and not isinstance(value, Tensor):
                raise CheckpointMismatch(f"The buffer {name} is a {type(value).__name__}.")
        _check_names("weight", state["requires_grad"], self._weights())
        _check_names("buffer that is not persistent,", state["buffers"], self._buffers())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load what ``state_dict`` gave."""
        for name, weight in self._weights().items():
            if weight.requires_grad is not state["requires_grad"][name]:
                weight.requires_grad_(state["requires_grad"][name])
        with torch.no_grad():
            for name, (owner, key) in self._buffers().items():
                put_buffer(owner, key, state["buffers"][name])
        if self._buckets is not None:
            self._buckets.load_state_dict(state.get("gradient_orders", []))


class OwnPart(CheckedPart):
    """A part that each process has of its own, kept in the place until a fit resumes there."""

    is_place = True
    name = ""

    def __init__(self, place: Place, trainer: TrainerView) -> None:
        self._place = place
        self._trainer = trainer

    def state_dict(self) -> Any:
        waiting = self._place.get(self.name)
        return of_all(self._trainer.runtime, self.present() if waiting is None else waiting)

    def load_state_dict(self, state: Any) -> None:
        self._place.keep(self.name, own_of(self._trainer.runtime, state))

    def present(self) -> Any:
        """The present state, used if no loaded state is waiting to be resumed."""
        raise NotImplementedError


class EpochPart(OwnPart):
    """How far the present epoch has come; ``None`` between epochs."""

    name = "epoch"

    def present(self) -> Any:
        session = self._trainer.session
        return None if session is None or session.fit is None else session.fit.epoch_state()

    def check_state(self, state: Any) -> None:
        own = own_of(self._trainer.runtime, state)
        if own is not None:
            EpochState.from_state(own)


class LoadersPart(OwnPart):
    """What the loaders of the fit carry into their next pass; the pass that runs keeps its own."""

    name = "loaders"

    def __init__(self, place: Place, trainer: TrainerView, loaders: Loaders) -> None:
        super().__init__(place, trainer)
        self._loaders = loaders

    def present(self) -> Any:
        session = self._trainer.session
        run = None if session is None or session.fit is None else session.fit.run
        return self._loaders.state_dict(None if run is None else run.cursor.loader)

    def unread(self) -> Iterator[tuple[str, str, str]]:
        """Give what the state cannot hold: where it is, why, and the remedy."""
        return self._loaders.unread()

    def check_state(self, state: Any) -> None:
        dict(own_of(self._trainer.runtime, state))


class CallbacksPart(CheckedPart):
    """The state of the callbacks, by unique name, and the arguments that each was made with."""

    def __init__(self, callbacks: CallbackPool) -> None:
        self._callbacks = callbacks

    def state_dict(self) -> dict[str, Any]:
        named = self._callbacks.named()
        states = {name: callback.state_dict() for name, callback in named.items()}
        kept = {name: state for name, state in states.items() if state}
        return {**kept, _MADE_WITH: {name: dict(named[name].made_with) for name in kept}}

    def present_state(self) -> dict[str, Any]:
        """Leave out callbacks whose state is made in a hook, which has not been called yet."""
        kept: dict[str, Any] = {_MADE_WITH: {}}
        for name, callback in self._callbacks.named().items():
            with suppress(Exception):
                if state := callback.state_dict():
                    kept[name] = state
                    kept[_MADE_WITH][name] = dict(callback.made_with)
        return kept

    def load_what_is_there(self, state: Mapping[str, Any]) -> None:
        """Load what the callbacks can take before their hooks; they get the whole state after."""
        named = self._callbacks.named()
        for name, own_name in self._match(state)[0].items():
            with suppress(Exception):
                named[own_name].load_state_dict(state[name])

    def check_state(self, state: Mapping[str, Any]) -> None:
        self._match(state)

    def differences(self, state: Mapping[str, Any]) -> list[str]:
        return self._match(state)[1]

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        named = self._callbacks.named()
        for name, own_name in self._match(state)[0].items():
            try:
                named[own_name].load_state_dict(state[name])
            except CheckpointError:
                raise
            except Exception as error:
                raise CheckpointMismatch(
                    f"The state could not be loaded into the callback {own_name}: {error!r}."
                ) from error

    def _match(self, state: Mapping[str, Any]) -> tuple[dict[str, str], list[str]]:
        made_with = state.get(_MADE_WITH, {})  # earlier files do not have it
        saved = {name: made_with.get(name, {}) for name in state if name != _MADE_WITH}
        return match_callbacks(saved, self._callbacks.named())


_MADE_WITH = "made with"  # no class has such a name


class RandomPart(OwnPart):
    """The random states of Python, NumPy, torch and its devices."""

    name = "random"

    def present(self) -> Any:
        return self._trainer.runtime.streams.state_dict()

    def check_state(self, state: Any) -> None:
        with rng.preserved():
            self._trainer.runtime.streams.load_state_dict(own_of(self._trainer.runtime, state))

    def load_state_dict(self, state: Any) -> None:
        super().load_state_dict(state)
        self._trainer.runtime.streams.load_state_dict(self._place.get("random"))


def of_all(runtime: Runtime, own: Any) -> Any:
    """Give what each process has of its own as one state."""
    if runtime.num_processes == 1:
        return own
    return {"of_processes": runtime.gather_objects(nested.to_cpu(own), "saves its state")}


def own_of(runtime: Runtime, state: Any) -> Any:
    """Give this process's part of a state made by ``of_all``.

    Raises:
        CheckpointMismatch: saved by another number of processes.
    """
    several = isinstance(state, Mapping) and "of_processes" in state
    saved = len(state["of_processes"]) if several else 1
    if saved != runtime.num_processes:
        raise CheckpointMismatch(
            f"The state was saved by {saved} processes, and this run has {runtime.num_processes}: "
            "places in the data and random states cannot be transferred. Start as many, or take "
            "the weights alone with trainer.load_weights(path)."
        )
    return state["of_processes"][runtime.rank] if several else state


def named_modules(model: nn.Module, loss_fn: Any) -> dict[str, nn.Module]:
    """The model and, if it is a module, the loss function."""
    modules = {"model": model, "loss_fn": loss_fn}
    return {name: module for name, module in modules.items() if isinstance(module, nn.Module)}


def named_weights(modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """Their weights, as ``model.0.bias``."""
    return {
        f"{where}.{name}": weight
        for where, module in modules.items()
        for name, weight in module.named_parameters()
    }


def other_weights(opt: Optimizers, known: Iterable[Tensor]) -> dict[str, Tensor]:
    """What optimizers train beside that, by its place: ``optimizer_0_weight_2``."""
    known_ids = {id(weight) for weight in known}
    return {
        f"optimizer_{index}_weight_{place}": weight
        for index, optimizer in enumerate(opt)
        for place, weight in enumerate(optimizer.params)
        if id(weight) not in known_ids
    }


def collect_parts(
    trainer: TrainerView, place: Place, fits: Part, loaders: Loaders
) -> dict[str, Part]:
    """Give the parts of a trainer's state, in the order in which they are loaded."""
    runtime = trainer.runtime
    model = runtime.unwrap(trainer.model)
    others: dict[str, Tensor] = {}  # where the model is sharded there are none
    weights: dict[str, Tensor] = {}
    opt: Part = trainer.opt
    gradients: Part
    if runtime.is_sharded:
        reshard(model)
        is_main = runtime.is_main
        parts: dict[str, Part] = {"model": ShardedModule("model", model, is_main=is_main)}
        opt = ShardedOptimizers(trainer.opt, is_main=is_main)
        gradients = ShardedGradients(model, is_main=is_main)
    else:
        parts = {"model": model}
        weights = named_weights(named_modules(model, trainer.loss_fn))
        others = other_weights(trainer.opt, weights.values())
        weights |= others
        gradients = GradientsPart(weights, runtime)
    if isinstance(trainer.loss_fn, nn.Module) and trainer.loss_fn.state_dict():
        parts["loss_fn"] = trainer.loss_fn
    if isinstance(trainer.loss_module, HeldModules) and trainer.loss_module.state_dict():
        parts["loss_parts"] = trainer.loss_module
    if others:
        parts["other_weights"] = nn.ParameterDict(others)
    parts["extras"] = ExtrasPart(
        model, trainer.loss_fn, others, trainer.buffer_shapes, runtime.buckets
    )
    parts["optimizers"] = OptimizersPart(trainer.opt, opt, weights)
    parts["gradients"] = gradients
    if trainer.ema is not None:
        parts["ema"] = _average(trainer, weights or named_weights({"model": model}))
    if runtime.scaler is not None:
        parts["scaler"] = runtime.scaler
    parts["history"] = trainer.history
    parts["callbacks"] = CallbacksPart(trainer.callbacks)
    parts["random"] = RandomPart(place, trainer)
    parts["progress"] = ProgressPart(place, fits)
    parts["epoch"] = EpochPart(place, trainer)
    parts["loaders"] = LoadersPart(place, trainer, loaders)
    return parts


def _average(trainer: TrainerView, weights: dict[str, Tensor]) -> Part:
    from .average import AveragePart  # most fits do not need it

    return AveragePart(trainer, weights)


def load_0_6(parts: Mapping[str, Part], state: Mapping[str, Any]) -> None:
    """Load a checkpoint of release 0.6, which has weights, optimizers and the epoch alone.

    Raises:
        CheckpointMismatch: they do not fit; nothing was changed.
    """
    # Release 0.6 did not save the loss function, not even its class weights: ours is kept.
    names = [name for name in ("model", "loss_fn", "other_weights", "optimizers") if name in parts]
    own = {name: state[name] if name in state else parts[name].state_dict() for name in names}
    load_parts({name: parts[name] for name in names}, own)
    epoch_idx = state["progress"]["epoch"] + 1
    progress = {**Progress()._asdict(), "epoch_idx": epoch_idx, "first_epoch": 0}
    parts["progress"].load_state_dict(progress)


def _check_names(what: str, saved: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    for one, other, where in ((saved, here, "it alone"), (here, saved, "the model here alone")):
        for name in one:
            if name not in other:
                raise CheckpointMismatch(
                    f"The checkpoint is of another model: the {what} {name} is in {where}."
                )
