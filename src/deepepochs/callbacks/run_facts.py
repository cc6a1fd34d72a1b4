"""Describes a trainer for its record: model, settings, machine and versions."""

from __future__ import annotations

import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ..arguments import default_loss
from ..optim.fits import bare
from ..runs.record import plain

if TYPE_CHECKING:
    from ..contracts import TrainerView
    from ..optim.optimizers import Optimizer

MAX_LAYERS = 400  # of a larger model only this many layers are listed
GIT_TIMEOUT_S = 2.0
SECRET = re.compile(r"(?i)(-.*(?:key|token|secret|passw)[^=]*)(=.*)?")  # an option of a command
SHOWN_OPTIONS = ("lr", "momentum", "betas", "weight_decay", "nesterov", "amsgrad")


def describe(trainer: TrainerView) -> dict[str, Any]:
    """Return the facts about a trainer that are no metrics, as plain values."""
    checker = trainer.checker
    facts = {
        "running_id": trainer.running_id,
        "has_own_id": trainer.has_own_id,
        "max_epochs": trainer.known_epochs,
        "hyper_params": trainer.hyper_params or {},
        "settings": {
            "loss": loss_text(trainer.loss_fn),
            **optimizer_settings(trainer.opt),
            "gradient accumulation": trainer.grad_accumulate,
            **more_settings(trainer),
            "callbacks": ", ".join(trainer.callbacks.named()),
        },
        "model": model_summary(trainer.runtime.unwrap(trainer.model)),
        "environment": {"device": device_name(trainer), **environment()},
        "seed": torch.initial_seed(),
        "git": git_commit(),
        "script": Path(sys.argv[0]).name if sys.argv else "",
        "command": command_line(sys.orig_argv),
        "can_resume": checker is not None,
    }
    if checker is not None:
        watch = {"name": checker.monitor, "stage": checker.on_stage, "mode": checker.watch.mode}
        facts["monitor"] = watch
    described: dict[str, Any] = plain(facts)
    return described


def more_settings(trainer: TrainerView) -> dict[str, Any]:
    """Return the arguments of the trainer that are not the usual ones, by name."""
    given = dict(trainer.limits.given())
    if trainer.ema is not None:
        given["ema"] = repr(trainer.ema.settings)
    if trainer.deterministic:
        given["deterministic"] = True
    if trainer.on_oom != "raise":
        given["on_oom"] = trainer.on_oom
    return given


def environment() -> dict[str, str]:
    """Return versions and machine, but no names of hosts, users or folders."""
    try:
        own_version = version("deepepochs")
    except PackageNotFoundError:  # a source tree that was never installed
        own_version = "0"
    return {
        "DeepEpochs": own_version,
        "PyTorch": torch.__version__,
        "NumPy": np.__version__,
        "Python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "CPU cores": str(os.cpu_count()),
        "torch threads": str(torch.get_num_threads()),
    }


def command_line(words: Sequence[str]) -> str:
    """Return the command of this process as it is typed; '' in a notebook.

    The value of an option that is named like a secret is left out.

    >>> command_line(["/usr/bin/python", "train.py", "--api-key", "12ab", "--lr=0.1"])
    'python train.py --api-key … --lr=0.1'
    """
    if not words or any("ipykernel" in word for word in words):
        return ""
    interpreter, *rest = words
    shown = [Path(interpreter).name]
    if rest and Path(rest[0]).parent == Path(interpreter).parent != Path():
        shown, rest = [Path(rest[0]).name], rest[1:]  # a command that pip has installed
    if rest[:1] == ["-c"]:
        return f"{shown[0]} -c …"
    hides_next = False
    for word in rest:
        secret = SECRET.fullmatch(word)
        shown.append("…" if hides_next else f"{secret[1]}=…" if secret and secret[2] else word)
        hides_next = secret is not None and not secret[2]
    return " ".join(word if "…" in word else shlex.quote(word) for word in shown)


def git_commit(folder: str | os.PathLike[str] = ".") -> str:
    """Return the git commit of a folder, with ``(changed)`` if tracked files differ, or ''."""
    command = ["git", "-C", os.fspath(folder), "status", "--porcelain=v2", "--branch"]
    command.append("--untracked-files=no")
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=GIT_TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    lines = done.stdout.splitlines()
    commit = next((line.split()[-1] for line in lines if line.startswith("# branch.oid ")), "")
    if len(commit) < 40:  # "(initial)" before the first commit
        return ""
    return commit if all(line.startswith("#") for line in lines) else f"{commit} (changed)"


def model_summary(model: nn.Module) -> dict[str, Any]:
    """Return the totals of a model, and its layers: modules with own weights or without children.

    >>> model_summary(nn.Sequential(nn.Linear(4, 3), nn.ReLU()))["layers"]
    [['0', 'Linear', 15], ['1', 'ReLU', 0]]
    """
    layers = []
    for name, module in model.named_modules():
        own = sum(map(size, module.parameters(recurse=False)))
        if own or next(module.children(), None) is None:
            layers.append([name, type(module).__name__, own])
    weights = list(model.parameters())
    return {
        "class": type(model).__name__,
        "num_layers": len(layers),
        "layers": layers[:MAX_LAYERS],
        "parameters": sum(map(size, weights)),
        "trainable": sum(size(weight) for weight in weights if weight.requires_grad),
        "bytes": sum(
            size(tensor) * tensor.element_size() for tensor in [*weights, *model.buffers()]
        ),
    }


def size(weight: Tensor) -> int:
    """Return the number of values; 0 while a lazy module has no shape."""
    return 0 if is_lazy(weight) else weight.numel()


def loss_text(loss: Any) -> str:
    """Return a loss function by name, and the one of `loss=None` in words."""
    if loss is default_loss:
        return "computed by the model"
    return getattr(loss, "__name__", None) or type(loss).__name__


def optimizer_settings(optimizers: list[Optimizer]) -> dict[str, str]:
    settings = {}
    for index, optimizer in enumerate(optimizers):
        suffix = f" {index}" if len(optimizers) > 1 else ""
        inner = bare(optimizer.opt)
        groups = inner.param_groups
        values = [text for key in SHOWN_OPTIONS if (text := _option_text(key, groups))]
        if optimizer.get_current_lr() is None:  # it finds its own in each step
            values.insert(0, "lr=–")
        differ = any(" to " in text for text in values)
        several = f" in {len(groups)} groups" if differ else ""
        settings[f"optimizer{suffix}"] = f"{type(inner).__name__}({', '.join(values)}){several}"
        if optimizer.scheduler is not None:
            scheduler = type(optimizer.scheduler).__name__
            monitor = optimizer.monitor or ("loss" if optimizer.needs_loss else "")
            follows = f" by {monitor}" if monitor else ""
            settings[f"scheduler{suffix}"] = (
                f"{scheduler}, moved after each {optimizer.sched_on}{follows}"
            )
    return settings


def _option_text(key: str, groups: list[dict[str, Any]]) -> str:
    """Return an option of an optimizer, of several groups the least and the largest; ``''``: off."""
    values = [group[key] for group in groups if group.get(key) is not None]
    is_number = all(isinstance(value, (int, float)) for value in values)
    if is_number and len(set(values)) > 1:
        return f"{key}={min(values)} to {max(values)}"
    return f"{key}={values[0]}" if values and values[0] else ""


def device_name(trainer: TrainerView) -> str:
    device, count = trainer.device, trainer.runtime.num_processes
    name = f" ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else ""
    return f"{device}{name}{f', {count} processes' if count > 1 else ''}"
