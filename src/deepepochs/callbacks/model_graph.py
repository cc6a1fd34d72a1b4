"""A model's graph and a run's hyper-parameters, as TensorBoard shows them.

::

    log_graph(writer, model, torch.zeros(1, 784))
    log_hyper_params(Path("logs/1"), {"lr": 0.1}, {"accuracy": 0.97}, step=10)
"""

from __future__ import annotations

import contextlib
import copy
import io
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from .. import rng
from ..show.lines import spread
from .event_files import RESULTS_SUFFIX, open_writer

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

__all__ = ["log_graph", "log_hyper_params"]


def _without_hooks(model: nn.Module) -> nn.Module:
    """A second face of a model, with its layers and weights, but not the hooks of a running fit."""
    bare = copy.copy(model)
    for kind in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"):
        setattr(bare, kind, OrderedDict())
    bare.__dict__.pop("_compiled_call_impl", None)  # it would call the model that it was made of
    return bare


def log_graph(logger: SummaryWriter, model: nn.Module, example: Any) -> None:
    """Write the model's graph; what cannot be traced gives a warning.

    The model is run in evaluation mode, so that no statistic of it moves, and its modes
    and the random states are as before.
    """
    values = example if isinstance(example, (tuple, dict)) else (example,)
    modes = [(module, module.training) for module in model.modules()]
    try:
        # torch prints the error before it raises it.
        with rng.preserved(), contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            bare = _without_hooks(model).eval()
            named = {"example_kwarg_inputs": values} if isinstance(values, dict) else {}
            given = None if named else values
            # Its check for side effects compares names, which forward hooks alter.
            traced = torch.jit.trace(bare, given, strict=False, check_trace=False, **named)  # type: ignore[no-untyped-call]
            logger.add_graph(traced, given)
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        warnings.warn(
            f"LogCallback could not write the graph of {type(model).__name__}: {reason[0]} Give "
            "LogCallback(example_input=...) with tensors, or log_graph=False.",
            RuntimeWarning,
            stacklevel=2,
        )
    finally:
        for module, mode in modes:
            module.training = mode


def log_hyper_params(
    folder: Path, hyper_params: Mapping[str, Any], metrics: Mapping[str, Any], step: int
) -> None:
    """Write one line of TensorBoard's HParams table, and its metrics as scalars."""
    from torch.utils.tensorboard.summary import hparams

    plain = {
        name: value if isinstance(value, (bool, int, float, str)) else str(value)
        for name, value in hyper_params.items()
    }
    values = {name: float(value) for name, value in spread(metrics)}
    # `add_hparams` makes a run of its own, named by the time: the run itself is to be the line.
    with open_writer(folder, RESULTS_SUFFIX) as writer:
        for summary in hparams(plain, values):  # type: ignore[no-untyped-call]
            writer.file_writer.add_summary(summary)
        for name, value in values.items():
            writer.add_scalar(name, value, step)
