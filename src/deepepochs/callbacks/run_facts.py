"""Describes a trainer for its record: model, settings, machine and versions."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ..optim.fits import bare
from ..runs.record import plain

if TYPE_CHECKING:
    from ..contracts import TrainerView
    from ..optim.optimizers import Optimizer

MAX_LAYERS = 400  # of a larger model only this many layers are listed
GIT_TIMEOUT_S = 2.0
SHOWN_OPTIONS = ("lr", "momentum", "betas", "weight_decay", "nesterov", "amsgrad")


def describe(trainer: TrainerView) -> dict[str, Any]:
    """Return the facts about a trainer that are no metrics, as plain values."""
    checker, loss = trainer.checker, trainer.loss_fn
    facts = {
        "running_id": trainer.running_id,
        "max_epochs": trainer.max_epochs,
        "hyper_params": trainer.hyper_params or {},
        "settings": {
            "loss": getattr(loss, "__name__", None) or type(loss).__name__,
            **optimizer_settings(trainer.opt),
            "gradient accumulation": trainer.grad_accumulate,
            "callbacks": ", ".join(trainer.callbacks.named()),
        },
        "model": model_summary(trainer.runtime.unwrap(trainer.model)),
        "environment": {"device": device_name(trainer), **environment()},
        "seed": torch.initial_seed(),
        "git": git_commit(),
        "script": Path(sys.argv[0]).name if sys.argv else "",
        "can_resume": checker is not None,
    }
    if checker is not None:
        watch = {"name": checker.monitor, "stage": checker.on_stage, "mode": checker.watch.mode}
        facts["monitor"] = watch
    described: dict[str, Any] = plain(facts)
    return described


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
    }


def size(weight: Tensor) -> int:
    """Return the number of values; 0 while a lazy module has no shape."""
    return 0 if is_lazy(weight) else weight.numel()


def optimizer_settings(optimizers: list[Optimizer]) -> dict[str, str]:
    settings = {}
    for index, optimizer in enumerate(optimizers):
        suffix = f" {index}" if len(optimizers) > 1 else ""
        inner = bare(optimizer.opt)
        first = inner.param_groups[0]
        values = [f"{key}={first[key]}" for key in SHOWN_OPTIONS if first.get(key)]
        if optimizer.get_current_lr() is None:  # it finds its own in each step
            values.insert(0, "lr=–")
        settings[f"optimizer{suffix}"] = f"{type(inner).__name__}({', '.join(values)})"
        if optimizer.scheduler is not None:
            scheduler = type(optimizer.scheduler).__name__
            follows = "" if optimizer.monitor is None else f" by {optimizer.monitor}"
            settings[f"scheduler{suffix}"] = (
                f"{scheduler}, moved after each {optimizer.sched_on}{follows}"
            )
    return settings


def device_name(trainer: TrainerView) -> str:
    device, count = trainer.device, trainer.runtime.num_processes
    name = f" ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else ""
    return f"{device}{name}{f', {count} processes' if count > 1 else ''}"
