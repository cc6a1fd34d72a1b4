"""What there is to say of a trainer that no metric says: its model, its settings, its machine.

>>> from deepepochs.callbacks.run_facts import environment
>>> sorted(environment())[:3]
['CPU cores', 'DeepEpochs', 'NumPy']
"""

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

from ..runs.record import plain

if TYPE_CHECKING:
    from ..contracts import TrainerView
    from ..optim.optimizers import Optimizer

__all__ = ["describe", "environment", "git_commit", "model_summary"]

MAX_LAYERS = 400
"""Layers that are listed; a report on a larger model says how many there are more."""

GIT_TIMEOUT_S = 2.0


def describe(trainer: TrainerView) -> dict[str, Any]:
    """Return what a report says of a trainer besides its metrics, as plain values."""
    checker = trainer.checker
    monitor = None
    if checker is not None:
        monitor = {"name": checker.monitor, "stage": checker.on_stage, "mode": checker.watch.mode}
    loss = trainer.loss_fn
    facts = {
        "running_id": trainer.running_id,
        "max_epochs": trainer.max_epochs,
        "hyper_params": trainer.hyper_params or {},
        "settings": {
            "loss": getattr(loss, "__name__", None) or type(loss).__name__,
            **_optimizer_settings(trainer.opt),
            "gradient accumulation": trainer.grad_accumulate,
            "callbacks": ", ".join(trainer.callbacks.named()),
        },
        "model": model_summary(trainer.runtime.unwrap(trainer.model)),
        "environment": {"device": _device_name(trainer), **environment()},
        "seed": torch.initial_seed(),
        "git": git_commit(),
        "script": Path(sys.argv[0]).name if sys.argv else "",
        "can_resume": checker is not None,
    }
    if monitor is not None:
        facts["monitor"] = monitor
    described: dict[str, Any] = plain(facts)
    return described


def environment() -> dict[str, str]:
    """Return the versions and the machine, without names of hosts, users or folders."""
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
    """Return the commit of a folder, with ``(changed)`` if tracked files differ; '' for none."""
    command = ["git", "-C", os.fspath(folder), "status", "--porcelain=v2", "--branch"]
    try:
        done = subprocess.run(
            [*command, "--untracked-files=no"],
            capture_output=True,
            text=True,
            timeout=GIT_TIMEOUT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    lines = done.stdout.splitlines()
    commit = next((line.split()[-1] for line in lines if line.startswith("# branch.oid ")), "")
    if len(commit) < 40:  # "(initial)": there is no commit yet
        return ""
    return commit if all(line.startswith("#") for line in lines) else f"{commit} (changed)"


def model_summary(model: nn.Module) -> dict[str, Any]:
    """Return the layers of a model that hold parameters or have no parts, and the totals.

    >>> model_summary(nn.Sequential(nn.Linear(4, 3), nn.ReLU()))["layers"]
    [['0', 'Linear', 15], ['1', 'ReLU', 0]]
    """
    layers = []
    for name, module in model.named_modules():
        own = sum(_size(weight) for weight in module.parameters(recurse=False))
        if own or not any(True for _ in module.children()):
            layers.append([name, type(module).__name__, own])
    weights = list(model.parameters())
    return {
        "class": type(model).__name__,
        "num_layers": len(layers),
        "layers": layers[:MAX_LAYERS],
        "parameters": sum(map(_size, weights)),
        "trainable": sum(_size(weight) for weight in weights if weight.requires_grad),
    }


def _size(weight: Tensor) -> int:
    return 0 if is_lazy(weight) else weight.numel()


def _optimizer_settings(optimizers: list[Optimizer]) -> dict[str, str]:
    settings = {}
    for index, optimizer in enumerate(optimizers):
        suffix = f" {index}" if len(optimizers) > 1 else ""
        torch_opt = optimizer.opt
        inner = getattr(torch_opt, "optimizer", torch_opt)  # Accelerate's wrapper has it inside
        shown = ("lr", "momentum", "betas", "weight_decay", "nesterov", "amsgrad")
        first = inner.param_groups[0]
        values = [f"{key}={first[key]}" for key in shown if first.get(key)]
        settings[f"optimizer{suffix}"] = f"{type(inner).__name__}({', '.join(values)})"
        if optimizer.scheduler is not None:
            settings[f"scheduler{suffix}"] = (
                f"{type(optimizer.scheduler).__name__}, moved after each {optimizer.sched_on}"
            )
    return settings


def _device_name(trainer: TrainerView) -> str:
    device = trainer.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    count = trainer.runtime.num_processes
    return f"{device}{f' ({name})' if name else ''}{f', {count} processes' if count > 1 else ''}"
