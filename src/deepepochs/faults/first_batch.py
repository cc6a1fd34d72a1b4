"""Finds what raises nothing and trains badly, at the first mini-batch of a pass.

The shapes of outputs and targets are looked at before the loss is computed, and the graph of the
loss after it: it shows what came before a loss function, in whatever way that was written.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import zip_longest
from types import FunctionType
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import StepError, warn_user

TITLES: dict[Any, str] = {
    function: function.__name__
    for function in (F.cross_entropy, F.nll_loss, F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.huber_loss)
} | {
    nn.CrossEntropyLoss: "cross_entropy",
    nn.NLLLoss: "nll_loss",
    nn.MSELoss: "mse_loss",
    nn.L1Loss: "l1_loss",
    nn.SmoothL1Loss: "smooth_l1_loss",
    nn.HuberLoss: "huber_loss",
}  # fmt: skip
"""The losses that accept outputs and targets which do not fit, by function and class."""

MOST_NODES = 64  # of the graph of a loss that are looked at
SMALLEST = 1e-3  # what rounding adds to a logarithm of a probability


def look_at_pair(tell_once: Callable[[str], bool], loss_fn: Any, out: Any, targets: Any) -> None:
    """Look at outputs and targets before a loss of PyTorch is computed from them.

    Raises:
        StepError: the loss would be another one than is meant.
    """
    function = loss_fn.func if isinstance(loss_fn, partial) else loss_fn
    title = TITLES.get(function if isinstance(function, FunctionType) else type(function))
    if title is None or not (isinstance(out, Tensor) and isinstance(targets, Tensor)):
        return
    if title == "cross_entropy":
        _look_at_classes(tell_once, out, targets)
    elif title == "nll_loss":
        if kind_of(out.grad_fn) != "Softmax":  # which `look_at_loss` warns of
            _look_at_logarithms(tell_once, out.detach())
    elif not fits(out.shape, targets.shape):
        from .losses import of_numbers  # not needed by a run without faults
        from .scene import LossCall, written_as

        call = LossCall(title, out, targets, 0, title, written_as(loss_fn, title))
        raise StepError("\n".join(of_numbers(call)))


def fits(first: Sequence[int], second: Sequence[int]) -> bool:
    """Whether shapes are alike, or one of them is broadcast to the other: not both to a third.

    >>> fits([32, 1], [32, 1]), fits([32, 5], [5]), fits([32, 1], [32])
    (True, True, False)
    """
    if first == second:
        return True
    pairs = list(zip_longest(reversed(first), reversed(second), fillvalue=1))
    is_one = [all(a == b or b == 1 for a, b in pairs), all(a == b or a == 1 for a, b in pairs)]
    return any(is_one)


def _look_at_logarithms(tell_once: Callable[[str], bool], out: Tensor) -> None:
    if out.numel() and tell_once("outputs for nll_loss") and float(out.max()) > SMALLEST:
        warn_user(
            "nll_loss wants logarithms of probabilities, which are at most 0, and the outputs go up "
            f"to {float(out.max()):.3g}.\nTake F.cross_entropy, which is for outputs as they are, or "
            "end the model with nn.LogSoftmax(dim=1).",
            UserWarning,
        )


def _look_at_classes(tell_once: Callable[[str], bool], out: Tensor, targets: Tensor) -> None:
    # One sample with one class: the similarities [N, N] of a mini-batch with N = 1.
    is_similarity = list(out.shape) == [1, 1] and not targets.is_floating_point()
    is_one = out.ndim > 1 and out.shape[1] == 1 and not is_similarity
    if is_one and targets.ndim and len(out) == len(targets):
        raise StepError(
            f"The model has one output, {list(out.shape)}, and cross_entropy wants one for each "
            "class: with one it is always 0.\nEnd the model with as many outputs as there are "
            "classes; or keep one, and take F.binary_cross_entropy_with_logits with "
            "labels.float().unsqueeze(1)."
        )
    if out.ndim == 1 < len(out) and out.shape == targets.shape and tell_once("1-d cross_entropy"):
        total = float(targets.sum())
        if targets.dtype.is_floating_point and abs(total - 1) > 0.01:
            warn_user(
                f"cross_entropy takes outputs {list(out.shape)} for one sample with {len(out)} "
                f"classes, and its targets for probabilities, which add up to {total:.3g} and not "
                "to 1.\nGive it outputs [samples, classes] and labels.long(), or for yes or no take "
                "F.binary_cross_entropy_with_logits.",
                UserWarning,
            )


# The graph

SAME_VALUES = (
    "View", "UnsafeView", "Reshape", "ReshapeAlias", "Squeeze", "Unsqueeze", "Transpose", "Permute",
    "T", "Alias", "Clone", "ToCopy", "Movedim", "Contiguous", "Slice", "Select",
)  # fmt: skip
"""Kinds of nodes that pass on their values."""


def look_at_loss(tell_once: Callable[[str], bool], batch_y: Any, loss: Tensor) -> None:
    """Look at what a loss was computed from, before its backward pass, and warn of what is wrong.

    Only names and shapes are read: a saved tensor might have to be computed again.
    """
    text = next(filter(None, (_fault_of(node, batch_y) for node in _nodes(loss))), None)
    if text is not None and tell_once(text):
        warn_user(text, UserWarning)


def _nodes(loss: Tensor) -> Iterator[Any]:
    """Walk the graph of a loss, breadth first, from the loss to the model."""
    waiting: deque[Any] = deque([loss.grad_fn])
    seen = 0
    while waiting and seen < MOST_NODES:
        node = waiting.popleft()
        if node is not None:
            yield node
            seen += 1
            waiting.extend(before for before, _ in node.next_functions)


def kind_of(node: Any) -> str:
    """Name the function that made a node: ``'LogSoftmax'`` of ``'LogSoftmaxBackward0'``."""
    return "" if node is None else str(node.name()).partition("Backward")[0]


def _source(node: Any) -> Any:
    """Give the node whose values a node takes."""
    before = next((one for one, _ in node.next_functions if one is not None), None)
    while before is not None and kind_of(before) in SAME_VALUES:
        before = next((one for one, _ in before.next_functions if one is not None), None)
    return before


def _shape(node: Any) -> list[int]:
    metadata: Any = getattr(node, "_input_metadata", ())
    return [] if len(metadata) != 1 else list(getattr(metadata[0], "shape", ()))


def _fault_of(node: Any, batch_y: Any) -> str | None:
    kind = kind_of(node)
    if kind == "Sub":
        return _fault_of_difference(node, batch_y)
    before = kind_of(_source(node)) if kind in _TWICE else ""
    return _TWICE[kind].get(before) if kind in _TWICE else None


def _fault_of_difference(node: Any, batch_y: Any) -> str | None:
    """Say that outputs ``[N, 1]`` minus targets ``[N]`` are ``[N, N]``."""
    sources = [before for before, _ in node.next_functions if before is not None]
    if len(sources) != 1 or not isinstance(batch_y, Tensor):
        return None
    if kind_of(sources[0]) == "Unsqueeze":  # out[:, None] - y: all pairs are meant
        return None
    out, targets = _shape(sources[0]), list(batch_y.shape)
    num = len(batch_y) if batch_y.ndim else 0
    if num < 2 or _shape(node) != [num, num] or sorted([out, targets]) != [[num], [num, 1]]:
        return None
    change = "targets.unsqueeze(1)" if targets == [num] else "targets.squeeze(1)"
    return (
        f"The model gives {out} and the targets are {targets}: in the loss, their difference is "
        f"{[num, num]}, each output minus all targets.\nGive {change}."
    )


_TWICE = {
    "LogSoftmax": {
        "Softmax": (
            "The outputs go through softmax before cross_entropy, which takes the softmax itself: "
            "taken twice, the model hardly learns.\nLeave out the softmax at the end of the model. "
            "Where you want probabilities, take outputs.softmax(1)."
        ),
        "Sigmoid": (
            "The outputs go through sigmoid before cross_entropy, which takes a softmax itself: the "
            "model hardly learns.\nLeave out the sigmoid at the end of the model; for several "
            "labels a sample take F.binary_cross_entropy_with_logits."
        ),
    },
    "NllLoss": {
        "Softmax": (
            "The outputs go through softmax before nll_loss, which wants logarithms of "
            "probabilities.\nEnd the model with nn.LogSoftmax(dim=1), or leave out the softmax and "
            "take F.cross_entropy."
        ),
    },
    "BinaryCrossEntropyWithLogits": {
        "Sigmoid": (
            "The outputs go through sigmoid before binary_cross_entropy_with_logits, which takes "
            "the sigmoid itself: taken twice, the model hardly learns.\nLeave out the sigmoid at "
            "the end of the model, or take F.binary_cross_entropy."
        ),
        "Softmax": (
            "The outputs go through softmax before binary_cross_entropy_with_logits, which takes a "
            "sigmoid itself.\nLeave out the softmax at the end of the model; for one class of "
            "several take F.cross_entropy."
        ),
    },
}
_TWICE["NllLoss2D"] = _TWICE["NllLoss"]
