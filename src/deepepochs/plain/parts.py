"""What the functions of a script share: the names of model, loss and optimizers, and helpers."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from keyword import iskeyword
from typing import Any

import torch
from torch import nn

from ..arguments import default_loss
from ..callbacks.base import HOOKS
from ..hooks import is_of_library
from ..optim.fits import bare, has_modes
from .gaps import MARK, Gaps, place_of
from .metric_text import IDS, class_metric, ids_function, is_class_metric, plain_metric
from .prelude import LOSS, MODEL, OptimizerText, Prelude
from .source import is_literal, literal


class Parts:
    """The names of the parts of a training, and the lines that make those that had none.

    Attributes:
        setup: lines that make what has no name in the user's script.
        late: those that come after the helpers.
        helpers: functions of the script, by name.
        model: the expression of the model.
        loss: that of the loss function; ``''``: the model gives the loss.
        opts: those of the optimizers; ``schedulers``: those of their schedulers, or ``''``.
        clip: what clips the gradients, if there is something.
        averaged: the model with the average of the weights; ``''``: there is none.
        mode: ``'no'``, ``'bf16'`` or ``'fp16'``: that of autocast.
        scaler: the name of the scaler of the gradients of fp16; ``''``: there is none.
        moves: whether mini-batches are moved to a device.
    """

    def __init__(self, trainer: Any, prelude: Prelude, gaps: Gaps, clip: Any) -> None:
        self.trainer, self.prelude, self.gaps = trainer, prelude, gaps
        self.names = prelude.names
        self.setup: list[str] = []
        self.late: list[str] = []
        self.helpers: dict[str, list[str]] = {}
        self.loss = ""
        self.opts: list[str] = []
        self.schedulers: list[str] = []
        self.clip = clip
        # Accelerate computes in float32 where the device has no fp16.
        is_mixed = getattr(trainer.accelerator, "native_amp", False)
        self.mode = trainer.accelerator.mixed_precision if is_mixed else "no"
        self.scaler = ""
        self.moves = trainer.device.type != "cpu"
        self._owners: dict[int, tuple[str, Any, dict[str, Any]]] = {}
        self._methods: dict[tuple[int, str], str] = {}
        self._metrics: dict[int, str] = {}
        self._calls: dict[str, str] = {}
        self._name_model()
        self._name_optimizers()
        self._name_scaler()
        self.averaged = self._average()

    def _name_model(self) -> None:
        trainer = self.trainer
        model = trainer.runtime.unwrap(trainer.model)
        self.model = self.prelude.model or self.prelude.name_of(model)
        if not self.model:
            self.model = self._fill_in(MODEL, f"the model ({type(model).__name__})")
        if trainer.loss_fn is not default_loss:
            self.loss = self.prelude.loss or self.prelude.name_of(trainer.loss_fn)
            module = getattr(trainer.loss_fn, "__module__", "")
            if not self.loss and module == "torch.nn.functional":
                self.loss = f"{module}.{trainer.loss_fn.__name__}"
            self.loss = self.loss or self._fill_in(LOSS, "the loss function")
        if self.moves:
            self.names.take("device")
            self.setup += [f'device = torch.device("{trainer.device}")', f"{self.model}.to(device)"]
            if isinstance(trainer.loss_fn, torch.nn.Module):
                self.setup.append(f"{self.loss}.to(device)")
        if getattr(model, "_compiled_call_impl", None) is not None:
            self.setup.append(f"{self.model}.compile()")
        if trainer.deterministic:
            self.setup.append("torch.use_deterministic_algorithms(True)")

    def _name_scaler(self) -> None:
        """Write how the scaler of fp16 is made."""
        scaler = self.trainer.runtime.scaler
        if scaler is None:
            return
        options = {
            "init_scale": (scaler.get_scale(), 65536.0),
            "growth_factor": (scaler.get_growth_factor(), 2.0),
            "backoff_factor": (scaler.get_backoff_factor(), 0.5),
            "growth_interval": (scaler.get_growth_interval(), 2000),
        }
        given = [
            f"{name}={literal(value)}" for name, (value, usual) in options.items() if value != usual
        ]
        self.scaler = self.names.free("scaler")
        arguments = ", ".join([f'"{self.trainer.device.type}"', *given])
        self.setup.append(f"{self.scaler} = torch.amp.GradScaler({arguments})")

    def _fill_in(self, name: str, what: str) -> str:
        free = self.names.free(name)
        self.setup.append(self.gaps.fill_in(free, what))
        return free

    def _name_optimizers(self) -> None:
        texts, optimizers = self.prelude.optimizers, list(self.trainer.opt)
        if len(texts) != len(optimizers):
            texts = [OptimizerText()] * len(optimizers)
        one = len(optimizers) == 1
        for index, (text, optimizer) in enumerate(zip(texts, optimizers, strict=True)):
            plain = bare(optimizer.opt)
            name = text.opt or self.prelude.name_of(plain)
            if not name:
                name = self.names.free("opt" if one else f"opt_{index + 1}")
                self.setup.append(self._made_optimizer(name, plain))
            self.opts.append(name)
            scheduler = text.scheduler or self.prelude.name_of(optimizer.scheduler)
            if optimizer.scheduler is not None and not scheduler:
                kind = type(optimizer.scheduler).__name__
                wanted = "scheduler" if one else f"scheduler_{index + 1}"
                scheduler = self._fill_in(wanted, f"the scheduler of {name} ({kind})")
            self.schedulers.append(scheduler)

    def _made_optimizer(self, name: str, optimizer: Any) -> str:
        """Write how an optimizer is made, if it has all weights of the model in one group."""
        kind, group = type(optimizer), optimizer.param_groups[0]
        weights = [id(weight) for weight in self.trainer.model.parameters()]
        is_whole = [id(w) for w in group["params"]] == weights and len(optimizer.param_groups) == 1
        if not is_whole or getattr(torch.optim, kind.__name__, None) is not kind:
            return self.gaps.fill_in(name, f"the optimizer ({kind.__name__})")
        defaults = {k: p.default for k, p in inspect.signature(kind).parameters.items()}
        values = {**group, "lr": group.get("initial_lr", group["lr"])}
        given = {
            key: code_of(values[key])
            for key, default in defaults.items()
            if key in values and key != "params" and (key == "lr" or values[key] != default)
        }
        if not all(given.values()):
            return self.gaps.fill_in(name, f"the optimizer ({kind.__name__})")
        options = ", ".join(f"{key}={code}" for key, code in given.items())
        return f"{name} = torch.optim.{kind.__name__}({self.model}.parameters(), {options})"

    @property
    def saved(self) -> str:
        """The expression of the model whose weights are saved."""
        return f"{self.averaged}.module" if self.averaged else self.model

    def _average(self) -> str:
        """Write how the average of the weights is made, with what torch has for it."""
        if self.trainer.ema is None:
            return ""
        settings = self.trainer.ema.settings
        name = self.names.free("ema_model")
        average = f"get_ema_multi_avg_fn({settings.decay})"
        if settings.warmup:
            average = self.names.free("average")
            warm = f"(1 + number.item()) / ({settings.warmup} + number.item())"
            self.helpers[average] = [
                f"def {average}(averages, weights, number):",
                f"    share = 1 - min({settings.decay}, {warm})",
                "    for one, weight in zip(averages, weights, strict=True):",
                "        if one.is_floating_point():",
                "            one.lerp_(weight, share)",
            ]
        options = f"multi_avg_fn={average}, use_buffers={settings.buffers}"
        self.late.append(f"{name} = AveragedModel({self.model}, {options})")
        return name

    def call(self, net: str, like: Any) -> str:
        """The expression by which a step calls the model, or the one with averaged weights.

        ``like`` is what it gives; ``None``: nobody knows.
        """
        if self.mode == "no":
            return net
        if net not in self._calls:
            kind = self.trainer.device.type
            dtype = "torch.bfloat16" if self.mode == "bf16" else "torch.float16"
            wanted = "call_model" if net == self.model else "call_average"
            self._calls[net] = name = self.names.free(wanted)
            call = f"{net}(*inputs, **named)"
            lines = [f"    return {call}.float()"]
            if like is not None and not isinstance(like, torch.Tensor):
                lines = [f"    out = {call}", *(f"    {line}" for line in self._in_float32(like))]
            self.helpers[name] = [
                f"def {name}(*inputs, **named):",
                f'    with torch.autocast("{kind}", {dtype}):',
                *(f"    {line}" for line in lines),
            ]
        return self._calls[net]

    def modes(self, net: str, *, training: bool) -> list[str]:
        """The lines that put the model and all with it into the mode of a pass."""
        mode = "train" if training else "eval"
        lines = [*self._loss_mode(mode), f"{net}.{mode}()"]
        return lines + [f"{opt}.{mode}()" for opt in self.moded]

    @property
    def moded(self) -> list[str]:
        """The optimizers that have modes, as those that are free of schedules."""
        pairs = zip(self.opts, self.trainer.opt, strict=True)
        return [name for name, one in pairs if has_modes(bare(one.opt))]

    def _loss_mode(self, mode: str) -> list[str]:
        """The lines for a loss with layers; those in evaluation mode stay in it."""
        module = self.trainer.loss_module
        layers = [] if module is None else [*module.named_modules()]
        if module is not self.trainer.loss_fn:
            changes = any(isinstance(one, DEPEND) and one.training for _, one in layers)
            what = "the mode of the modules that the loss function holds"
            return [self.gaps.not_written(what)] if changes else []
        if len(layers) < 2 or not module.training:
            return []
        still = [path for path, one in layers if not one.training]
        top = [p for p in still if not any(p.startswith(f"{other}.") for other in still)]
        stays = [f"{at_path(self.loss, module, path)}.eval()" for path in top]
        return [f"{self.loss}.{mode}()", *(stays if mode == "train" else [])]

    def _in_float32(self, like: Any) -> list[str]:
        """The lines that give outputs like these in float32."""
        parts = like.values() if isinstance(like, dict) else like
        is_known = type(like) in (dict, list, tuple) and all(
            isinstance(one, torch.Tensor) for one in parts
        )
        if not is_known:
            what = f"float32 of the outputs, which are a {type(like).__name__}"
            return [self.gaps.not_written(what), "return out"]
        has_others = any(not one.is_floating_point() for one in parts)
        one = "one.float() if one.is_floating_point() else one" if has_others else "one.float()"
        if isinstance(like, dict):
            return [f"return {{key: {one} for key, one in out.items()}}"]
        each = f"{one} for one in out"
        return [f"return [{each}]" if isinstance(like, list) else f"return tuple({each})"]

    def keep_free(self, assigned: set[str]) -> None:
        """Give other names to what steps call by a name that they also set."""
        for kind, wanted in (("model", "net"), ("loss", "loss_fn")):
            name = getattr(self, kind)
            if name in assigned:
                setattr(self, kind, self._renamed(name, wanted))
        self.opts = [self._renamed(o, o) if o in assigned else o for o in self.opts]
        self.schedulers = [self._renamed(s, s) if s in assigned else s for s in self.schedulers]

    def _renamed(self, name: str, wanted: str) -> str:
        free = self.names.free(wanted)
        self.setup.append(f"{free} = {name}")
        return free

    # --- of steps

    def own(self, owner: Any, name: str) -> str:
        """The expression of an attribute of a step's object."""
        value = getattr(owner, name, None)
        known = "" if is_literal(value) else self.prelude.name_of(value)
        if known:
            return known
        if id(owner) not in self._owners:
            self._owners[id(owner)] = (self.names.free("own"), owner, {})
        space, _, attributes = self._owners[id(owner)]
        attributes[name] = value
        return f"{space}.{name}"

    def own_lines(self) -> list[str]:
        """The lines that make the objects with the attributes of steps."""
        lines = []
        for space, owner, attributes in self._owners.values():
            pairs = ((name, code_of(value)) for name, value in attributes.items())
            known = [f"{name}={code}" for name, code in pairs if code]
            lines.append(f"{space} = SimpleNamespace({', '.join(known)})")
            for name in (name for name, value in attributes.items() if not code_of(value)):
                comment = self.gaps.fill_in_here(f"{name} of {type(owner).__name__}")
                lines.append(f"{space}.{name} = {MARK}{comment}")
        return lines

    def method(self, owner: Any, name: str, write: Callable[[Any, str], list[str]]) -> str:
        """The name of the function that a method of a step's object becomes."""
        key = id(owner), name
        if key not in self._methods:
            self._methods[key] = free = self.names.free(name, f"{name}_of_step")
            lines = write(getattr(owner, name), free)
            # Tasks of one class have the same method, which is written once.
            for other in {one for (_, own), one in self._methods.items() if own == name}:
                written = [
                    line.replace(f"def {other}(", f"def {free}(")
                    for line in self.helpers.get(other, [])
                ]
                if written == lines:
                    self.names.taken.discard(free)
                    self._methods[key] = other
                    return other
            self.helpers[free] = lines
        return self._methods[key]

    # --- metrics and hooks

    def metric(self, name: str, metric: Any, out: Any, y: Any) -> str:
        """The name of the function or object of a metric."""
        if id(metric) in self._metrics:
            return self._metrics[id(metric)]
        wanted = identifier(name or "metric")
        plain, options = plain_metric(metric)
        if is_class_metric(metric):
            found = self.names.free(wanted, f"{wanted}_of_classes")
            self.helpers[found] = class_metric(found, plain.__name__, options, out, y)
        else:
            # What `rename` gives is around the function that has the name.
            inner = inspect.unwrap(metric) if callable(metric) else metric
            found = self.prelude.name_of(metric) or self.prelude.name_of(inner)
            found = found or self._fill_in(wanted, f"the metric {name}")
        self._metrics[id(metric)] = found
        return found

    def add_class_ids(self) -> None:
        """Have the function that finds the predicted classes of any outputs, before its readers."""
        if IDS not in self.helpers:
            self.helpers = {IDS: ids_function(), **self.helpers}

    def take_metrics(self, arguments: dict[str, list[Any]]) -> None:
        """Take over metrics that are made in the call of Trainer or fit: argument -> objects."""
        for argument, metrics in arguments.items():
            nodes = self.prelude.metrics.get(argument, [])
            if len(nodes) != len(metrics):
                continue
            for node, metric in zip(nodes, metrics, strict=True):
                if is_class_metric(metric) or self.prelude.name_of(metric):
                    continue
                if isinstance(node, ast.Constant):
                    continue
                name = self.prelude.named_metric(node, identifier(getattr(metric, "__name__", "")))
                if name:
                    self._metrics[id(metric)] = name

    def hooks(self, *names: str) -> list[str]:
        """Comments for the callbacks of the user's own, at the place where they run."""
        lines = []
        for callback in self.trainer.callbacks:
            kind = type(callback)
            if is_of_library(kind) or callback.is_console:
                continue
            for name in names:
                hook = getattr(kind, name)
                if hook is not HOOKS[name]:
                    what = f"{kind.__name__}.{name}{place_of(hook)}"
                    lines.append(self.gaps.not_written(what))
        return lines


MOST_NUMBERS = 10
"""Those of a tensor that is written out."""

DEPEND = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._NormBase)
"""Layers that compute something else in evaluation mode."""


def code_of(value: Any) -> str:
    """The code of a literal or of a small tensor; ``''``: it is something else."""
    if is_literal(value):
        return literal(value)
    if type(value) is not torch.Tensor or value.numel() > MOST_NUMBERS or value.requires_grad:
        return ""
    usual = torch.tensor(value.tolist())
    has_code = value.device.type == "cpu" and usual.dtype == value.dtype and not value.is_sparse
    return f"torch.tensor({value.tolist()})" if has_code and torch.equal(usual, value) else ""


def identifier(label: str) -> str:
    """A name like a label that can stand in code."""
    name = "".join(c if c.isalnum() else "_" for c in label).strip("_").lower()
    is_free = name.isidentifier() and not iskeyword(name)
    return name if is_free else f"metric_{name}".strip("_")


def at_path(name: str, model: nn.Module, path: str) -> str:
    """The expression of a layer or a weight, such as ``net.layers[0].bias``, by its name in the model."""
    text, owner = name, model
    for part in path.split(".") if path else []:
        if isinstance(owner, (nn.Sequential, nn.ModuleList)) and part.isdigit():
            text += f"[{part}]"
        else:
            text += f".{part}" if part.isidentifier() else f'.get_submodule("{part}")'
        owner = getattr(owner, part)
    return text
