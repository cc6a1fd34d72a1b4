"""Writes a model as a program that runs without this library, and without the model's own code.

``torch.export`` follows the model on an example mini-batch. The number of samples stays free.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..arguments import check_choice
from ..errors import ConfigError, MissingExtraError
from ..nest.operations import describe, map_tensors
from ..nest.reuse import leaves
from ..nest.samples import count_samples
from ..runtime.base import modes_kept

SUFFIXES = {"torch": ".pt2", "onnx": ".onnx"}


def check_target(path: str | PathLike[str], format: str) -> Path:
    """Return the path of a program, or raise an error before anything is computed."""
    suffix = SUFFIXES[check_choice("format", format, list(SUFFIXES))]
    target = Path(path)
    if target.suffix != suffix:
        raise ConfigError(
            f"export({str(path)!r}, format={format!r}): the name of such a file ends in {suffix!r}."
        )
    missing = [name for name in ("onnx", "onnxscript") if find_spec(name) is None]
    if format == "onnx" and missing:
        raise MissingExtraError(
            f"format='onnx' needs {' and '.join(missing)}: pip install 'deepepochs[onnx]'"
        )
    return target


def write_program(
    model: nn.Module, target: Path, format: str, batch_x: Any, batch_y: Any = None
) -> None:
    """Write a model that is called as with ``batch_x``.

    Raises:
        ConfigError: torch cannot follow the model, or it works for one number of samples alone.
    """
    args, kwargs = as_call(batch_x)
    number = count_samples(batch_x, batch_y)
    if number == 1:  # torch would take a 1 for a constant
        args, kwargs = map_tensors(_twice, (args, kwargs))
        number = 2
    shapes: Any = torch.export.ShapesCollection()  # type: ignore[no-untyped-call]
    samples = torch.export.Dim("batch")
    for tensor in leaves((args, kwargs)):
        if tensor.ndim and len(tensor) == number:
            shapes[tensor] = {0: samples}
    free = shapes.dynamic_shapes(model, args, kwargs)
    target.parent.mkdir(parents=True, exist_ok=True)
    with modes_kept(model), torch.no_grad():
        model.eval()
        try:
            if format == "onnx":
                torch.onnx.export(
                    model, args, str(target), kwargs=kwargs, dynamo=True, dynamic_shapes=free,
                    verbose=False,
                )  # fmt: skip
            else:
                program = torch.export.export(model, args, kwargs, dynamic_shapes=free)
                torch.export.save(program, target)
        except Exception as error:
            told = str(error).strip().split("\n\n")[0]
            raise ConfigError(
                f"{type(model).__name__} cannot be exported with any number of samples, called with "
                f"{describe(args or kwargs)}. torch.export says: {told}"
            ) from error


def _twice(tensor: Tensor) -> Tensor:
    return torch.cat([tensor, tensor]) if tensor.ndim and len(tensor) == 1 else tensor


def as_call(batch_x: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Give the inputs as a call of the model has them, in plain tuples, lists and dicts."""
    if isinstance(batch_x, Mapping):
        return (), {name: _plain(value) for name, value in batch_x.items()}
    return tuple(map(_plain, batch_x)), {}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return tuple(map(_plain, value))
    return list(map(_plain, value)) if isinstance(value, list) else value
