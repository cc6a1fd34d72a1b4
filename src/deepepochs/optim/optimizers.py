"""The optimizers of a trainer, each with the schedule of its learning rate.

A trainer always has an `Optimizers`: a list of `Optimizer`, each a torch optimizer with its
scheduler.
"""

from __future__ import annotations

import copy
import inspect
import operator
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..arguments import found, place_of, with_hints
from ..errors import CheckpointMismatch, ConfigError, ConfigTypeError, StepError, warn_user
from ..metrics.direction import direction_of
from .fits import bare, check_fit, has_modes, is_optimizer, load_state, state_of, type_name
from .schedules import LinearCosineScheduler
from .settings import read_settings

__all__ = [
    "AnyOptimizer", "LinearCosineScheduler", "Optimizer", "Optimizers", "as_optimizers",
    "params_of",
]  # fmt: skip

WITH_CLOSURE = (
    "self.optimize(closure=lambda: self.loss(self.call_model(batch_x), batch_y, do_optimize=False))"
)
MAX_RATES = 3  # rates of parameter groups that are shown
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class Optimizer:
    """A torch optimizer with its scheduler.

    Args:
        opt: the torch optimizer.
        scheduler: a learning-rate scheduler made for `opt`; `None`: the rate stays.
        sched_on: `'step'`: the scheduler steps after every optimizer step; `'epoch'`: after
            every epoch. `None` is `'epoch'`, and a fit warns if the schedule seems to be made for
            steps.
        sched_with_loss: whether the scheduler's `step` needs a loss. `ReduceLROnPlateau`, and a
            `step` with an argument that has no default, are recognised without it.
        monitor: the metric that such a scheduler is given after every epoch, for example
            `'accuracy'` or, of one of several tasks, `'night/accuracy'`: of validation if the fit
            validates, else of training. `None`: the loss.

    Attributes:
        opt: the torch optimizer.
        kind: the name of its class.
        needs_closure: whether its step needs a closure, as that of LBFGS does.
        scheduler: its scheduler, or `None`.
        sched_on: `'step'` or `'epoch'`.
        is_sched_on_given: whether `sched_on` was given.
        needs_loss: whether the scheduler's step needs a loss, or what `monitor` names.
        monitor: the metric that the scheduler is given; `None`: the loss.
        training: the mode of an optimizer that has modes, as last set here; else `None`.
        settings: what the script has set, or that of the run whose state was loaded.

    Raises:
        ConfigTypeError: `opt` is no optimizer or `scheduler` no scheduler.
        ConfigError: `sched_on` is neither, or the scheduler was made for another optimizer.

    Example:
        >>> opt = Optimizer(torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.5))
        >>> opt.get_current_lr(), opt.get_last_lr()
        (0.5, None)
    """

    @with_hints
    def __init__(
        self,
        opt: torch.optim.Optimizer,
        scheduler: Any = None,
        sched_on: str | None = None,
        sched_with_loss: bool = False,
        *,
        monitor: str | None = None,
    ) -> None:
        given: Any = opt
        if isinstance(given, Optimizer) or not is_optimizer(given):
            raise _not_an_optimizer("opt", opt)
        self.needs_closure = _needs_closure(opt)
        if sched_on not in ("step", "epoch", None):
            raise ConfigError(f"sched_on={sched_on!r}: it must be 'step' or 'epoch'.")
        self.kind = type(bare(opt)).__name__
        self.scheduler = scheduler
        self.sched_on = sched_on or "epoch"
        self.is_sched_on_given = sched_on is not None
        self.needs_loss = _takes_loss(opt, scheduler, sched_with_loss, monitor)
        self.monitor = _checked_monitor(scheduler, self.sched_on, monitor, self.needs_loss)
        self._moves_on_step = scheduler is not None and self.sched_on == "step"
        self._restored = False
        self.training: bool | None = None
        self._own_groups: list[list[Tensor]] | None = None
        self.settings = read_settings(opt, scheduler, self.sched_on)
        self.rewrap(opt)

    def rewrap(self, opt: torch.optim.Optimizer) -> None:
        """Replace the torch optimizer by a wrapper around it, such as Accelerate's."""
        self.opt = opt
        self._is_wrapped = bare(opt) is not opt
        opt = bare(opt)
        self._has_modes = has_modes(opt)
        plain = torch.optim.Optimizer.zero_grad
        self._plain_zero_grad = type(opt).zero_grad is plain and "zero_grad" not in vars(opt)
        self._groups: list[tuple[list[Tensor], int]] = []
        self._params: list[Tensor] = []

    def train(self, mode: bool = True) -> None:
        """Set the mode, as `Module.train` does, of an optimizer that has `train()` and `eval()`.

        One that is free of schedules exchanges the weights: in training those at which gradients
        are taken, else their average.
        """
        if self._has_modes:
            opt: Any = bare(self.opt)
            opt.train() if mode else opt.eval()
            self.training = mode

    def take_settings(self, settings: dict[str, Any] | None) -> None:
        """Take the settings of a loaded state, whose values are used from now on."""
        self.settings = settings or self.settings

    def grow(self, groups: list[list[Tensor]]) -> None:
        """Take the groups of a loaded state, to which training has added some."""
        if self._own_groups is None:
            self._own_groups = [list(group["params"]) for group in self.opt.param_groups]
        self.regroup(groups)

    def shrink(self) -> None:
        """Go back to the groups of the script: a hook may be about to add the others."""
        if self._own_groups is not None:
            self.regroup(self._own_groups)

    def keep_groups(self) -> None:
        """Keep the groups that there are."""
        self._own_groups = None

    def regroup(self, groups: list[list[Tensor]]) -> None:
        """Put the parameters into other groups; new groups have the default options.

        A parameter that is in none of them loses its state.
        """
        kept = {id(param) for params in groups for param in params}
        for param in [param for param in self.opt.state if id(param) not in kept]:
            del self.opt.state[param]
        own = self.opt.param_groups
        del own[len(groups) :]
        for group in own:
            group["params"] = []  # add_param_group looks for a parameter in two groups
        for group, params in zip(own, groups, strict=False):
            group["params"] = list(params)
        for params in groups[len(own) :]:
            self.opt.add_param_group({"params": list(params)})

    def zero_grad(self) -> None:
        """Clear the gradients of all parameters."""
        self.opt.zero_grad()

    def step(self, at: str = "step", loss: Any = None) -> None:
        """Make one step.

        Args:
            at: `'step'`: the optimizer steps, and the scheduler if it is due; `'epoch'`: the
                scheduler steps if it is due.
            loss: for a scheduler that needs one; the value of `monitor` if it has that.

        Raises:
            ConfigError: `at` is neither, or a scheduler that needs a loss gets none.
            StepError: the optimizer needs a closure.
        """
        if at == "step":
            if self.needs_closure:
                raise StepError(
                    f"{self.kind} computes the loss several times in a step, through a closure. Write: "
                    f"{WITH_CLOSURE}."
                )
            (self._without_wrapper() if self._is_wrapped else self.opt).step()
            # Accelerate's wrapper says after a step whether its fp16 scaler has skipped it.
            if self._moves_on_step and not getattr(self.opt, "step_was_skipped", False):
                self.sched_step(loss)
        elif at == "epoch":
            if self.sched_on == "epoch":
                self.sched_step(loss)
        else:
            raise ConfigError(f"Optimizer.step(at={at!r}): it must be 'step' or 'epoch'.")

    def after_step(self, loss: Any = None) -> None:
        """Step the scheduler if it is due after an optimizer step.

        For callers that step `opt` through a gradient scaler, unless the scaler skipped the step.
        """
        if self._moves_on_step:
            self.sched_step(loss)

    def sched_step(self, loss: Any = None) -> None:
        """Step the scheduler, if there is one, whether it is due or not.

        Args:
            loss: a float or a scalar tensor, for a scheduler that needs a loss.

        Raises:
            ConfigError: the scheduler needs a loss and got none.
        """
        if self.scheduler is None:
            return
        if self._restored:
            # torch would warn that this process has not stepped the optimizer: the saved one has.
            self._restored = False
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
                self.sched_step(loss)
        elif not self.needs_loss:
            self.scheduler.step()
        elif loss is None:
            raise ConfigError(
                f"{type(self.scheduler).__name__} wants a loss on every {self.sched_on}, and there "
                "is none: give it to step(at, loss), or use a scheduler without a loss."
            )
        else:
            self.scheduler.step(loss)

    def get_last_lr(self) -> list[Any] | None:
        """Return the scheduler's last rates, one per parameter group; None without scheduler."""
        return None if self.scheduler is None else list(self.scheduler.get_last_lr())

    def get_current_lr(self) -> float | None:
        """Return the learning rate of the first parameter group; None if it has none.

        Some optimizers find their own rate in each step.
        """
        rate = self.opt.param_groups[0].get("lr")
        return None if rate is None else float(rate)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The parameter groups of the torch optimizer itself."""
        return self.opt.param_groups

    @property
    def params(self) -> list[Tensor]:
        """The parameters of all groups. The list is kept until a group changes."""
        groups = self.opt.param_groups
        if len(groups) == len(self._groups):
            for group, (params, size) in zip(groups, self._groups, strict=True):
                if group["params"] is not params or len(params) != size:
                    break
            else:
                return self._params
        self._groups = [(group["params"], len(group["params"])) for group in groups]
        self._params = [param for params, _ in self._groups for param in params]
        return self._params

    def drop_gradients(self) -> None:
        """Set every gradient to None, at a twentieth of the cost of torch's `zero_grad`.

        If the optimizer's class has its own `zero_grad`, that is called.
        """
        if self._plain_zero_grad:
            for group in self.opt.param_groups:
                for param in group["params"]:
                    param.grad = None
        else:
            self._without_wrapper().zero_grad()

    def _without_wrapper(self) -> Any:
        """The optimizer without Accelerate's wrapper, where that would only pass the call on.

        In each step it would look for a package on the disk: 0.1 ms.
        """
        opt: Any = self.opt
        own = bare(opt)
        # A scheduler that was made for the wrapper has put a step of its own into it.
        if own is opt or opt.scaler or "step" in vars(opt) or not opt.gradient_state.sync_gradients:
            return opt
        return own

    def gradients(self) -> list[Tensor]:
        """Return the gradients that are not None, in the order of `params`."""
        return [param.grad for param in self.params if param.grad is not None]

    def state_dict(self) -> dict[str, Any]:
        """Return `{'opt_state': ..., 'sched_state': ...}`; the latter None without scheduler."""
        mode = {} if self.training is None else {"training": self.training}
        return {**state_of(self.opt, self.scheduler), **mode}

    def check_state(self, state: Any) -> None:
        """Check that `state` fits, without a change.

        Raises:
            CheckpointMismatch: `state` is of another optimizer, model or scheduler.
        """
        if not isinstance(state, dict) or "opt_state" not in state:
            raise CheckpointMismatch(
                f"The state of an optimizer is {type_name(state)} without 'opt_state': it must be "
                "what Optimizer.state_dict() returned."
            )
        check_fit(self.opt, self.scheduler, state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load the state of optimizer and scheduler; `state` itself is not changed later.

        Raises:
            CheckpointMismatch: `state` does not fit; nothing has been changed.
        """
        self.check_state(state)
        if (mode := state.get("training")) is None:
            load_state(self.opt, state)
        else:
            # The weights are loaded by now, and are those of the saved mode.
            with torch.no_grad():
                weights = [weight.clone() for weight in self.params]
                self.train(mode)
                load_state(self.opt, state)
                for weight, value in zip(self.params, weights, strict=True):
                    weight.copy_(value)
        self._restored = True
        if self.scheduler is not None:
            self.scheduler.load_state_dict(copy.deepcopy(state["sched_state"]))

    def __repr__(self) -> str:
        rates = [float(group["lr"]) for group in self.opt.param_groups if "lr" in group]
        shown = ", ".join(f"{rate:.4g}" for rate in rates[:MAX_RATES])
        shown += ", ..." if rates[MAX_RATES:] else ""
        parts = [type_name(self.opt)]
        parts += [f"lr={shown}" if len(rates) == 1 else f"lr=[{shown}]"] if rates else []
        if self.scheduler is not None:
            parts.append(f"{type_name(self.scheduler)} on {self.sched_on!r}")
        parts += [] if self.monitor is None else [f"monitor={self.monitor!r}"]
        return f"Optimizer({', '.join(parts)})"


def _needs_closure(opt: torch.optim.Optimizer) -> bool:
    """Whether `opt` cannot step without an argument, which then is a closure.

    Raises:
        ConfigError: it needs more than one.
    """
    # The class's step: a scheduler wraps that of the object.
    needed = [one.name for one in (_parameters(type(bare(opt)).step) or [])[1:] if _is_needed(one)]
    if len(needed) > 1:
        raise ConfigError(
            f"{type_name(opt)}.step needs {', '.join(needed)}, and is given a closure alone, a function "
            "that computes loss and gradients: take another optimizer."
        )
    return bool(needed)


def _is_needed(parameter: inspect.Parameter) -> bool:
    return parameter.default is parameter.empty and parameter.kind not in _VARIADIC


def _parameters(function: Any) -> list[inspect.Parameter] | None:
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # the signature of what is written in C cannot be read
        return None


def _takes_loss(
    opt: torch.optim.Optimizer, scheduler: Any, sched_with_loss: bool, monitor: str | None
) -> bool:
    """Check that `scheduler` is one for `opt`; return whether its step needs a loss."""
    if scheduler is None:
        return False
    if isinstance(scheduler, type) or not callable(getattr(scheduler, "step", None)):
        raise ConfigTypeError(
            f"Optimizer got {type_name(scheduler)} as scheduler: it must be a learning-rate scheduler, "
            "for example torch.optim.lr_scheduler.StepLR(opt, 10)."
        )
    # Accelerate's optimizer has the same list of groups.
    scheduler = bare(scheduler)
    owner = getattr(scheduler, "optimizer", None)
    if owner is not None and getattr(owner, "param_groups", None) is not opt.param_groups:
        raise ConfigError(
            f"The {type_name(scheduler)} of an Optimizer was made for another optimizer than its "
            f"{type_name(opt)}: make it with that one."
        )
    parameters = _parameters(scheduler.step)
    first = parameters[0] if parameters else None
    is_needed = first is not None and _is_needed(first)
    counts_epochs = first is not None and first.name == "epoch"
    if is_needed and counts_epochs:
        raise ConfigError(
            f"{type_name(scheduler)}.step wants the number of the epoch, and a scheduler of an Optimizer "
            "gets a loss or nothing: give the Optimizer no scheduler, and step this one in the hook "
            "on_after_epoch of a callback, scheduler.step(epoch_idx + 1)."
        )
    asked = f"monitor={monitor!r}" if monitor is not None else "sched_with_loss=True"
    is_asked = sched_with_loss or monitor is not None
    if is_asked and (parameters == [] or counts_epochs):
        raise ConfigError(f"{asked}, but {type_name(scheduler)}.step takes no loss: leave it out.")
    return is_asked or is_needed


def _checked_monitor(
    scheduler: Any, sched_on: str, monitor: str | None, needs_loss: bool
) -> str | None:
    """Check `monitor`; return `None` for the loss."""
    if monitor is not None and (not isinstance(monitor, str) or not monitor):
        raise ConfigError(f"monitor={monitor!r}: give the name of a metric, or None for the loss.")
    if monitor is not None and scheduler is None:
        raise ConfigError(f"monitor={monitor!r} is for a scheduler, and there is none.")
    if monitor not in (None, "loss") and sched_on == "step":
        raise ConfigError(
            f"monitor={monitor!r} has a value after an epoch, and the scheduler moves on every step: "
            "give sched_on='epoch', or leave monitor out to have it given the loss."
        )
    mode, best = getattr(bare(scheduler), "mode", None), direction_of(monitor or "loss")
    if needs_loss and mode in ("min", "max") and best not in (None, mode):
        other = "" if monitor else ", or name what it is to follow, for example monitor='accuracy'"
        warn_user(
            f"{type_name(bare(scheduler))}(mode={mode!r}) follows {monitor or 'the loss'}, of which "
            f"{'more' if best == 'max' else 'less'} is better: it would lower the rate while the "
            f"model learns. Give mode={best!r}{other}.",
            UserWarning,
        )
    return None if monitor == "loss" else monitor


AnyOptimizer = Optimizer | torch.optim.Optimizer


def params_of(optimizers: Iterable[Optimizer]) -> list[Tensor]:
    """Return the parameters of optimizers, each once."""
    # By id: the hash of a tensor is a function in Python.
    return list({id(param): param for o in optimizers for param in o.params}.values())


class Optimizers(list[Optimizer]):
    """A list of `Optimizer` with the same methods for all; results are lists.

    Args:
        optimizers: `Optimizer`s or torch optimizers, which are wrapped.

    Raises:
        ConfigTypeError: one of them is neither.
        ConfigError: there is none, or one torch optimizer comes twice.

    Example:
        >>> opts = Optimizers([torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.5)])
        >>> opts.get_current_lr()
        [0.5]
    """

    def __init__(self, optimizers: Iterable[Optimizer | torch.optim.Optimizer]) -> None:
        super().__init__(o if isinstance(o, Optimizer) else Optimizer(o) for o in optimizers)
        if not self:
            raise ConfigError("Optimizers got no optimizer: give at least one.")
        if len({id(o.opt) for o in self}) < len(self):
            raise ConfigError(
                "Optimizers got one torch optimizer twice: it would step twice. Give each once."
            )
        self._joined = [o.params for o in self]

    @property
    def needs_loss(self) -> bool:
        """Whether some scheduler's step needs a loss."""
        return any(o.needs_loss for o in self)

    def needs_loss_at(self, at: str) -> bool:
        """Return whether some scheduler that steps on `at` needs a loss."""
        return any(o.needs_loss and o.sched_on == at for o in self)

    def zero_grad(self) -> None:
        """Clear the gradients of all parameters."""
        for o in self:
            o.zero_grad()

    def step(self, at: str = "step", loss: Any = None) -> None:
        """Step each optimizer: see `Optimizer.step`."""
        for o in self:
            o.step(at, loss)

    def after_step(self, loss: Any = None) -> None:
        """Step the schedulers due after a step: see `Optimizer.after_step`."""
        for o in self:
            o.after_step(loss)

    def sched_step(self, loss: Any = None) -> None:
        """Step each scheduler, due or not."""
        for o in self:
            o.sched_step(loss)

    def get_last_lr(self) -> list[list[Any] | None]:
        """Return each optimizer's `get_last_lr()`."""
        return [o.get_last_lr() for o in self]

    def get_current_lr(self) -> list[float | None]:
        """Return each optimizer's `get_current_lr()`."""
        return [o.get_current_lr() for o in self]

    def named_lrs(self) -> dict[str, float]:
        """Return the learning rate of every parameter group by its name in logs.

        The first group of optimizer `i` has `learning_rate_<i>`, another one
        `learning_rate_<i>_<group>`, with the `name` of the group or else its index.

        Example:
            >>> groups = [{"params": [torch.nn.Parameter(torch.ones(1))]} for _ in range(2)]
            >>> Optimizers([torch.optim.SGD(groups, lr=0.5)]).named_lrs()
            {'learning_rate_0': 0.5, 'learning_rate_0_1': 0.5}
        """
        found: dict[str, float] = {}
        for index, groups in enumerate(self.param_groups):
            for number, group in enumerate(groups):
                if group.get("lr") is None:  # the optimizer finds its own rate in each step
                    continue
                name = f"learning_rate_{index}"
                if number:
                    own = f"{name}_{group.get('name', number)}"
                    name = f"{name}_{number}" if own in found else own
                found[name] = float(group["lr"])
        return found

    @property
    def param_groups(self) -> list[list[dict[str, Any]]]:
        """The parameter groups of each optimizer."""
        return [o.param_groups for o in self]

    @property
    def params(self) -> list[Tensor]:
        """The parameters of all optimizers, each once."""
        return self[0].params if len(self) == 1 else params_of(self)

    def drop_gradients(self) -> None:
        """Set every gradient to None."""
        for o in self:
            o.drop_gradients()

    def drop_stale_gradients(self) -> None:
        """Set the gradients to None of parameters that have joined since the last call.

        What they have accumulated while no optimizer had them is part of no step.
        """
        now = [o.params for o in self]
        if len(now) == len(self._joined) and all(map(operator.is_, now, self._joined)):
            return
        known = {id(param) for params in self._joined for param in params}
        for param in self.params:
            if id(param) not in known:
                param.grad = None
        self._joined = now

    def train(self, mode: bool = True) -> None:
        """Set the mode of those that have modes: see `Optimizer.train`."""
        for o in self:
            o.train(mode)

    def gradients(self) -> list[Tensor]:
        """Return the gradients that are not None, in the order of `params`."""
        return [param.grad for param in self.params if param.grad is not None]

    def state_dict(self) -> list[dict[str, Any]]:
        """Return the state of each, in order."""
        return [o.state_dict() for o in self]

    def check_state(self, state: Any) -> None:
        """Check that `state` fits, without a change.

        Raises:
            CheckpointMismatch: a state does not fit, or their number.
        """
        states = [state] if isinstance(state, dict) else list(state)
        if len(states) != len(self):
            raise CheckpointMismatch(
                f"The checkpoint has the state of {len(states)} optimizers and the trainer has "
                f"{len(self)}: give the same optimizers in the same order."
            )
        for o, one in zip(self, states, strict=True):
            o.check_state(one)

    def load_state_dict(self, state: list[dict[str, Any]] | dict[str, Any]) -> None:
        """Load what `state_dict()` returned; for one optimizer also its state without a list.

        Raises:
            CheckpointMismatch: a state does not fit, or their number; nothing has been changed.
        """
        self.check_state(state)
        states = [state] if isinstance(state, dict) else list(state)
        for o, one in zip(self, states, strict=True):
            o.load_state_dict(one)
        self._joined = [o.params for o in self]  # with gradients of the state


def as_optimizers(opt: Any, model: nn.Module, loss: nn.Module | None) -> Optimizers:
    """Return ``opt`` as an ``Optimizers``; ``None`` is Adam with rate 0.001 over model and loss.

    Raises:
        ConfigError: an optimizer has none of the weights of model and loss.
    """
    of_loss = [] if loss is None else [w for w in loss.parameters() if w.requires_grad]
    if opt is None:
        weights = list({id(w): w for w in (*model.parameters(), *of_loss)}.values())
        if not weights:
            raise ConfigError(
                "opt=None makes an Adam over the weights of the model, and it has none."
            )
        return Optimizers([torch.optim.Adam(weights, lr=0.001)])
    if is_optimizer(opt):
        opt = [opt]
    if not isinstance(opt, (list, tuple)) or not opt:
        raise _not_an_optimizer("opt", opt)
    for index, entry in enumerate(opt):
        if not is_optimizer(entry):
            raise _not_an_optimizer(f"opt[{index}]", entry)
    optimizers = opt if isinstance(opt, Optimizers) else Optimizers(opt)
    known = {id(weight) for weight in (*model.parameters(), *of_loss)}
    for index, optimizer in enumerate(optimizers):
        if not any(id(weight) in known for weight in optimizer.params):
            raise ConfigError(
                f"Optimizer {index} ({type(optimizer.opt).__name__}) holds none of this model's "
                "weights, so nothing would be learnt. Make it with model.parameters() of the model "
                "given to the trainer."
            )
    return optimizers


def _not_an_optimizer(name: str, given: Any) -> ConfigTypeError:
    """The error for something that was given as an optimizer; ``name`` says where."""
    wanted = (
        "give a torch optimizer, such as torch.optim.Adam(model.parameters(), lr=1e-3), a "
        "deepepochs.Optimizer, a list of them, or None."
    )
    is_module = isinstance(given, nn.Module)
    if isinstance(given, str):
        from ..hints.names import optimizer_meant

        advice = f"give an optimizer, such as {optimizer_meant(given)}."
    elif isinstance(given, type):
        advice = f"give an object, {given.__name__}(model.parameters(), lr=...)."
    elif isinstance(given, float):
        made = f"opt=torch.optim.Adam(model.parameters(), lr={given})"
        advice = f"the learning rate belongs to the optimizer, {made}."
    elif isinstance(given, Iterator):
        advice = "make an optimizer of the weights, torch.optim.Adam(model.parameters(), lr=1e-3)."
    elif isinstance(given, Optimizer):
        advice = "it is an Optimizer already; give a torch optimizer."
    elif callable(getattr(given, "zero_grad", None)) and not is_module:
        needed = "param_groups (a list), step, zero_grad, state_dict and load_state_dict"
        advice = f"{wanted} A wrapper needs {needed}."
    elif callable(given) and not is_module:
        advice = "call it with the weights, and give what it returns, opt=make(model.parameters())."
    else:
        advice = place_of(given) or wanted
    return ConfigTypeError(f"{found(name, given)}: {advice}")
