"""Finds the call that failed in a step, and its arguments, in the traceback of the error.

Nothing is noted while a step runs well. When an error comes, the frames of its traceback still
have the arguments of each call that was under way: of the innermost layer, of a loss function of
PyTorch, of ``self.loss``.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.loss import _Loss

STEPS = f"{__package__.rpartition('.')[0]}.steps"
LAYER_CALLS = nn.Module._call_impl.__globals__["__name__"], nn.Module._call_impl.__name__
OF_NUMBERS = ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss")
LOSSES = (
    "cross_entropy", "nll_loss", "binary_cross_entropy", "binary_cross_entropy_with_logits",
    *OF_NUMBERS,
)  # fmt: skip
OWN_FILES = tuple(
    f"{Path(file).parent}{os.sep}" for file in (torch.__file__, Path(__file__).parent)
)


class LayerCall(NamedTuple):
    """The call of a layer, or of the whole model."""

    module: nn.Module
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


class LossCall(NamedTuple):
    """The call of a loss function of PyTorch."""

    function: str
    model_out: Any
    targets: Any
    ignore_index: int
    title: str
    """The name of its class, if it is called as a module, or else of the function."""
    written: str = ""
    """How the trainer's loss function is written, if it is this loss: ``'F.mse_loss'``, ``'loss'``."""


class Scene(NamedTuple):
    """What was under way when an error came.

    The calls are ``None`` where the error came before or after them.
    """

    error: Exception
    batch_x: Any
    batch_y: Any
    model: nn.Module
    loss_fn: Any
    is_own_step: bool
    """Whether the step, or ``prepare_data``, is the user's own."""
    layer: LayerCall | None = None
    """The innermost layer."""
    loss: LossCall | None = None
    given: tuple[Any, Any] | None = None
    """What ``self.loss`` was called with."""
    is_past_loss: bool = False
    """Whether the error came after the loss function: in the backward pass, a metric, a hook."""
    num_samples: int | None = None
    is_prediction: bool = False
    is_first: bool = True
    """Whether it is the first mini-batch of its pass."""

    @property
    def inputs(self) -> list[Any]:
        """What the loader has yielded beside the target."""
        return list(self.batch_x.values() if isinstance(self.batch_x, Mapping) else self.batch_x)

    def is_of_batch(self, x: Any) -> bool:
        """Whether something is one of the inputs that the loader has yielded."""
        return any(x is one for one in self.inputs)

    @property
    def loss_name(self) -> str:
        """The name of the loss function, or of its class."""
        return str(getattr(self.loss_fn, "__name__", type(self.loss_fn).__name__))

    def name_of(self, module: nn.Module) -> str | None:
        """The name of a layer in the model; ``''`` for the model, ``None`` for one that is not in it."""
        return next((name for name, one in self.model.named_modules() if one is module), None)


def look_at(scene: Scene) -> Scene:
    """Add to a scene the calls that the traceback of its error shows."""
    layer, loss, given, is_past_loss = None, None, None, False
    for frame, _ in traceback.walk_tb(scene.error.__traceback__):
        place = str(frame.f_globals.get("__name__")), frame.f_code.co_name
        if place == LAYER_CALLS:
            held = frame.f_locals
            layer = LayerCall(held["self"], held["args"], held["kwargs"])
        elif place[0] == F.__name__ and place[1] in LOSSES:
            loss = _loss_call(frame, layer, "" if scene.is_own_step else scene.loss_fn)
        elif place == (STEPS, "loss"):
            given = frame.f_locals["model_out"], frame.f_locals["batch_y"]
        elif place[0] == STEPS and place[1] in ("backward", "optimize", "do_metric"):
            is_past_loss = True
    return scene._replace(layer=layer, loss=loss, given=given, is_past_loss=is_past_loss)


def _loss_call(frame: FrameType, layer: LayerCall | None, loss_fn: Any) -> LossCall:
    name, held = frame.f_code.co_name, frame.f_locals
    is_class = layer is not None and isinstance(layer.module, _Loss)
    return LossCall(
        name,
        held["input"],
        held["target"],
        held.get("ignore_index", -100),
        type(layer.module).__name__ if layer is not None and is_class else name,
        written_as(loss_fn, name),
    )


def written_as(loss_fn: Any, function: str) -> str:
    """Say how a loss function of PyTorch is called in code; '' if it is another function."""
    if loss_fn is getattr(F, function):
        return f"F.{function}"
    is_set = isinstance(loss_fn, (_Loss, partial))
    return "loss" if is_set else ""


def users_frames(found: TracebackType | None) -> TracebackType | None:
    """Give a traceback without the frames of PyTorch and of this library.

    They show how PyTorch calls a layer, which does not help the user.
    """
    kept = []
    while found is not None:
        if not found.tb_frame.f_code.co_filename.startswith(OWN_FILES):
            kept.append(found)
        found = found.tb_next
    rest: TracebackType | None = None
    for one in reversed(kept):
        rest = TracebackType(rest, one.tb_frame, one.tb_lasti, one.tb_lineno)
    return rest
