"""The metrics of one mini-batch: tried on the first one of a pass, and computed to be shown.

Neither leaves a trace, and a metric that has no value on a mini-batch, such as AUC where all
targets are of one class, ends no run. A metric that can never work does so at once: see
`try_metric`.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .. import rng
from ..errors import ArgumentsChanged, DeepEpochsError, MetricError, add_note, warn_user
from ..nest.operations import first_tensor, map_tensors
from ..nest.reuse import clones, same_values
from ..show.screens import to_value
from .base import PatchBase, call_metric, flatten_value
from .confusion import CountsPatch, is_of_classes
from .tensors import TensorPatch, is_whole, loaded
from .values import MeanPatch

PROGRAM_ERRORS = (
    DeepEpochsError, TypeError, AttributeError, NameError, ImportError, NotImplementedError,
)  # fmt: skip
"""Errors that the values of a mini-batch do not cause."""

NUM_ROWS = 64  # of the tensors without values


class Trials:
    """Tries each metric of a pass once, and warns of what it finds.

    Attributes:
        on_copies: names of the metrics that change their arguments in place, and so get copies.
    """

    def __init__(self, tell_once: Callable[[str], bool]) -> None:
        self.on_copies: set[str] = set()
        self._tell_once = tell_once

    def try_planned(
        self, name: str, patch: PatchBase, given: tuple[Any, Any], num_samples: int | None
    ) -> None:
        """Try a metric of the plan, with an empty patch of it and what it is to be loaded with."""
        if isinstance(patch, (TensorPatch, MeanPatch)):
            self._try_function(name, patch.metric, given, num_samples)
        else:
            with rng.preserved():
                patch = loaded(patch, clones(given), num_samples)
            self._try_patch(name, patch)

    def tell_size(self, name: str, num_bytes: int) -> None:
        """Warn of a metric for which many outputs are kept."""
        if self._tell_once(f"{name} keeps all outputs"):
            warn_user(
                f"The metric {name!r} needs all outputs and targets of the pass at once, and those "
                f"outputs take {num_bytes / 2**30:.1f} GB so far. If it is a mean over samples, "
                "declare it with @accumulates('mean'); if it can be computed from a confusion "
                "matrix, with @accumulates('confusion'); or give a torchmetrics object.",
                RuntimeWarning,
            )

    def try_returned(self, name: str, patch: PatchBase) -> None:
        """Try a patch that a step has returned."""
        if type(patch) is TensorPatch:
            self._try_function(name, patch.metric, patch.arguments(), None)
        else:
            self._try_patch(name, patch)

    def _try_function(
        self, name: str, metric: Any, given: tuple[Any, Any], num_samples: int | None
    ) -> None:
        own = clones(given)
        try:
            self._try_patch(name, loaded(TensorPatch(metric), own, num_samples))
            is_changing = not same_values(own, given)
        except ArgumentsChanged:
            is_changing = True
        self._tell_if_broadcast(name, metric, given)
        if is_changing:
            self.on_copies.add(name)
            if self._tell_once(f"{name} changes its arguments"):
                warn_user(
                    f"The metric {name!r} changes its arguments in place. It is given copies from "
                    "now on, which cost time and memory: compute new tensors, for example with "
                    "preds.sigmoid() instead of preds.sigmoid_().",
                    RuntimeWarning,
                )

    def _tell_if_broadcast(self, name: str, metric: Any, given: tuple[Any, Any]) -> None:
        """Warn of a metric that compares each output with all targets."""
        outputs, targets = given
        if not isinstance(targets, Tensor) or getattr(outputs, "shape", None) == targets.shape:
            return
        from .broadcasts import are_column_and_row, is_broadcast

        if not are_column_and_row(outputs, targets):
            return
        try:
            has_seen = is_broadcast(
                lambda: call_without_trace(metric, given, on_copies=True), len(targets)
            )
        except Exception:  # which was told of already
            return
        if has_seen and self._tell_once(f"{name} is broadcast"):
            change = (
                "preds.squeeze(1), targets" if outputs.ndim == 2 else "preds, targets.squeeze(1)"
            )
            code = name if name.isidentifier() else "metric"
            warn_user(
                f"The model gives {list(outputs.shape)} and the targets are {list(targets.shape)}: in the "
                f"metric {name!r} they become {[len(targets)] * 2}, each output with all targets.\n"
                f"Give rename({code!r})(lambda preds, targets: {code}({change})).",
                UserWarning,
            )

    def _try_patch(self, name: str, patch: PatchBase) -> None:
        error = try_metric(name, patch)
        if error is not None and self._tell_once(f"{name} has no value"):
            warn_user(
                f"The metric {name!r} has no value on the first mini-batch "
                f"({type(error).__name__}: {error}). It is computed from the whole pass at its end; "
                "if it fails there too, so does the run.",
                RuntimeWarning,
            )


def try_metric(name: str, patch: PatchBase) -> Exception | None:
    """Compute a metric of the first mini-batch, so that one that cannot work is told there.

    These are raised:

    1. an error of the program: `PROGRAM_ERRORS`, such as a wrong name or argument;
    2. any other error, if the metric raises one of the same class for tensors of `NUM_ROWS` rows
       that have no values (those of torch's device 'meta'): then no values can help;
    3. what is not a number or a dict of numbers, or has one value for each sample.

    Any other error may come of the values of this mini-batch, and is returned.

    Args:
        name: the metric's name.
        patch: holds the mini-batch; it is not changed.

    Raises:
        ArgumentsChanged: the metric changes its arguments in place.
        MetricError: the value is not what a metric gives.
        Exception: what the metric raised.
    """
    try:
        value = value_without_trace(patch)
    except ArgumentsChanged:
        raise
    except Exception as error:
        if isinstance(error, PROGRAM_ERRORS) or _fails_without_values(patch, error):
            add_note(error, f"while trying the metric {name!r} on the first mini-batch")
            raise
        return error
    lengths = _lengths(name, value)
    if lengths and _have_samples(name, patch, lengths):
        raise MetricError(
            f"The metric {name!r} gives one value for each of the {max(lengths.values())} samples "
            "of a mini-batch: give one number, for example with .mean()."
        )
    return None


def value_without_trace(patch: PatchBase) -> Any:
    """Give the value of a patch, and put back what computing it draws or counts."""
    if type(patch) is TensorPatch:
        return call_without_trace(patch.metric, patch.arguments(), on_copies=patch.on_copies)
    if draws_nothing(patch):
        with torch.no_grad():
            return patch()
    with rng.preserved(getattr(patch, "metric", None)), torch.no_grad():
        return patch()


def draws_nothing(patch: PatchBase) -> bool:
    """Whether the value of a patch is computed by the library alone, which draws nothing for it."""
    return type(patch) is CountsPatch and is_of_classes(patch.metric)


def call_without_trace(metric: Any, arguments: tuple[Any, ...], *, on_copies: bool = False) -> Any:
    """Call a metric, and leave random states, generators and its attributes as they are."""
    with rng.preserved(metric):
        return call_metric(copy_of_metric(metric), *arguments, on_copies=on_copies)


def copy_of_metric(metric: Any) -> Any:
    """Copy a metric that is an object, so that a call leaves its attributes as they are.

    Weights and inner modules are shared: calls do not change them. Functions are not copied.
    """
    if isinstance(metric, (FunctionType, BuiltinFunctionType, MethodType, type)):
        return metric
    if isinstance(metric, functools.partial):
        return functools.partial(copy_of_metric(metric.func), *metric.args, **metric.keywords)
    held = list(getattr(metric, "__dict__", {}).values())
    if isinstance(metric, nn.Module):
        held += [*metric.parameters(), *metric.children()]
    memo = {id(part): part for part in held if isinstance(part, (nn.Module, nn.Parameter))}
    try:
        return copy.deepcopy(metric, memo)
    except Exception:  # it holds what cannot be copied, such as a file or a lock
        return metric


def _fails_without_values(patch: PatchBase, error: Exception) -> bool:
    """Whether a metric fails in the same way whatever its arguments are."""
    if type(patch) is not TensorPatch:
        return not _can_be_added(patch)
    arguments = patch.arguments()
    if not all(map(is_whole, arguments)):
        return False  # graphs and lists of samples keep their values
    num = _num_samples(arguments)

    def without_values(tensor: Tensor) -> Tensor:
        rows = [NUM_ROWS, *tensor.shape[1:]] if tensor.ndim and len(tensor) == num else tensor.shape
        return torch.empty(rows, dtype=tensor.dtype, device="meta")

    try:
        call_without_trace(patch.metric, map_tensors(without_values, arguments))
    except Exception as again:
        # What asks for a value fails as well, with an error about meta tensors.
        return type(again) is type(error) and "meta" not in str(again)
    return False


def _can_be_added(patch: PatchBase) -> bool:
    """Whether the error is of computing the value only, and not of taking in a mini-batch."""
    try:
        patch + patch
    except Exception:
        return False
    return True


def _num_samples(arguments: tuple[Any, ...]) -> int:
    first = first_tensor(arguments)
    return len(first) if first is not None and first.ndim else -1


def _lengths(name: str, value: Any) -> dict[str, int]:
    """Give the lengths of the vectors in a metric's value."""
    numbers = {key: to_value(item) for key, item in flatten_value(name, value).items()}
    return {key: len(number) for key, number in numbers.items() if np.ndim(number)}


def _have_samples(name: str, patch: PatchBase, lengths: dict[str, int]) -> bool:
    """Whether a vector is as long as the mini-batch, and shorter with a sample less."""
    if type(patch) is not TensorPatch:
        return False
    arguments = patch.arguments()
    num = _num_samples(arguments)
    if num < 2 or num not in lengths.values():
        return False

    def shorter(tensor: Tensor) -> Tensor:
        return tensor[:-1] if tensor.ndim and len(tensor) == num else tensor

    try:
        value = call_without_trace(patch.metric, map_tensors(shorter, arguments), on_copies=True)
        later = _lengths(name, value)
    except Exception:
        return False
    return any(length == num and later.get(key) == num - 1 for key, length in lengths.items())
