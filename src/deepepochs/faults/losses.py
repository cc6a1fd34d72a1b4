"""Finds what is wrong where a loss function of PyTorch has raised: its outputs, or its targets.

Each function gives the problem and the remedy, or ``None`` if it knows nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .scene import OF_NUMBERS, LossCall, Scene
from .words import brief, dtype_of, span

Found = tuple[str, str]

LABEL_KEYS = ("labels", "label", "targets", "target", "y")
OUTPUT_KEYS = ("logits", "out", "output", "pred", "preds", "prediction", "last_hidden_state")


def fault_of_loss(scene: Scene) -> Found | None:
    """Say what is wrong with the outputs and the targets that a loss function has got."""
    call = scene.loss
    if call is not None:
        if scene.given is not None and _is_swapped(call, *scene.given):
            return (
                f"{call.title} got the targets as outputs, and the outputs as targets.",
                "The loss is called as loss(model_out, targets): give def my_loss(model_out, "
                "targets), and in it outputs before targets.",
            )
        found = no_tensors(scene, call.model_out, call.targets, call.title)
        return found or _of_devices(call) or _OF_TENSORS[call.function](call)
    if (
        scene.given is not None
        and not scene.is_past_loss
        and isinstance(scene.error, (TypeError, AttributeError))
    ):
        # A function of the user's own, which may well take something else than a tensor.
        name = scene.loss_name
        title = "the loss function" if "<" in name else name  # "<lambda>"
        model_out, targets = scene.given
        if model_out is None or type(model_out).__name__ in str(scene.error):
            return _no_output(scene, model_out, title)
        if targets is None and "NoneType" in str(scene.error):
            return _no_targets(scene, title)
    return None


def _is_swapped(call: LossCall, model_out: Any, batch_y: Any) -> bool:
    """Whether a user's own has called a loss of PyTorch with targets and outputs swapped."""
    if call.function in OF_NUMBERS:  # these give the same for both orders
        return False
    return call.model_out is batch_y is not model_out and call.targets is model_out


def where(call: LossCall, targets: str = "y", model_out: str = "out") -> str:
    """Say where the arguments of the loss can be changed."""
    if not call.written:
        return "before the loss" if model_out != "out" else "in the data set or before the loss"
    own = f"as Trainer(model, lambda out, y: {call.written}({model_out}, {targets}))"
    return own if model_out != "out" else f"in the data set or {own}"


def _of_devices(call: LossCall) -> Found | None:
    out, labels = call.model_out, call.targets
    if out.device == labels.device:
        return None
    return (
        f"The outputs are on {out.device}, and the labels on {labels.device}.",
        "Leave out auto_traindata_to_device=False, or move the labels: batch_y.to(self.device).",
    )


# What is no tensor


def no_tensors(scene: Scene, model_out: Any, targets: Any, title: str) -> Found | None:
    """Say what is wrong with outputs or targets that are no tensors."""
    if not isinstance(model_out, Tensor):
        return _no_output(scene, model_out, title)
    if targets is None:
        return _no_targets(scene, title)
    if isinstance(targets, np.ndarray):
        return (
            f"The loader yields NumPy arrays: the labels are {brief(targets)}.",
            "Make tensors of them, as in DataLoader(TensorDataset(torch.from_numpy(x), "
            "torch.from_numpy(y)), batch_size=32).",
        )
    if isinstance(targets, (tuple, list)) and targets:
        if isinstance(targets[0], str):
            return (
                f"The labels are texts, such as {targets[0]!r}, and {title} wants numbers.",
                "Number the classes in the data set: {name: number for number, name in "
                "enumerate(sorted(set(names)))}.",
            )
        make = "torch.stack(labels)" if isinstance(targets[0], Tensor) else "torch.tensor(labels)"
        return (
            f"The labels are {brief(targets)}, and {title} wants one tensor.",
            f"Make one of them, {make}, as a DataLoader does without a collate_fn.",
        )
    if not isinstance(targets, Tensor):
        return (
            f"The labels are {brief(targets)}, and {title} wants a tensor.",
            "Choose or make the tensor in the data set, or in a loss function of your own: "
            "Trainer(model, lambda out, y: ...).",
        )
    return None


def _no_output(scene: Scene, model_out: Any, title: str) -> Found | None:
    who = "self.loss() got" if scene.is_own_step else "The model returns"
    if model_out is None:
        what = " for the model's output" if scene.is_own_step else ""
        return f"{who} None{what}, and {title} wants a tensor.", "End its forward with `return`."
    if isinstance(model_out, np.ndarray):
        return (
            f"The model returns {brief(model_out)}, and {title} wants a tensor.",
            "Compute with torch alone: through NumPy there are no gradients.",
        )
    chosen = _chosen(model_out)
    if chosen is None:
        return None
    place = "in the loss function" if scene.loss is None else where(scene.loss, model_out=chosen)
    remedy = f"Take one of them, {chosen}, {place}."
    if isinstance(_entry(model_out, "loss"), Tensor):
        remedy += " Or leave the loss out: this model computes its own."
    what = "for the model's output " if scene.is_own_step else ""
    return f"{who} {what}{brief(model_out)}, and {title} wants one tensor.", remedy


def _entry(x: Any, name: str) -> Any:
    return x.get(name) if isinstance(x, Mapping) else getattr(x, name, None)


def _chosen(model_out: Any) -> str | None:
    """Write the entry of an output that is the likeliest for the loss."""
    names = [name for name in OUTPUT_KEYS if isinstance(_entry(model_out, name), Tensor)]
    if isinstance(model_out, Mapping):
        names += [str(key) for key, value in model_out.items() if isinstance(value, Tensor)]
    if not names:
        return "out[0]" if isinstance(model_out, (tuple, list)) else None
    has_attribute = isinstance(getattr(model_out, names[0], None), Tensor)
    return f"out.{names[0]}" if has_attribute else f"out[{names[0]!r}]"


def label_key(batch_x: Mapping[Any, Any]) -> str | None:
    """Give the entry of a dict that is likely to be the target."""
    return next((key for key in LABEL_KEYS if key in batch_x), None)


def _no_targets(scene: Scene, title: str) -> Found:
    if isinstance(scene.batch_x, Mapping) and not scene.is_own_step:
        key = label_key(scene.batch_x)
        add = "" if key else "Yield the target as an entry, too, 'labels', and name it"
        return (
            f"The loader yields dicts, {brief(scene.batch_x)}, and {title} does not know which "
            "entry is the target.",
            f"{add or 'Name it'}: Trainer(..., targets={key or 'labels'!r}). If the model computes "
            "its own loss, leave the loss out.",
        )
    return (
        f"There are no targets (None), and {title} wants some.",
        "Yield (input, target) from the loader. If the model computes its own loss, leave the "
        "loss out of the Trainer.",
    )


# Classes


def _of_classes(call: LossCall) -> Found | None:
    out, labels, title = call.model_out, call.targets, call.title
    num_classes = out.shape[1] if out.ndim > 1 else out.shape[0]
    is_whole = not labels.dtype.is_floating_point
    long = "" if labels.dtype == torch.int64 else ".long()"
    given = f"The labels are {brief(labels)}"
    if labels.ndim == out.ndim > 1 and labels.shape[1] == 1 != num_classes:
        squeezed = f"squeeze(1){long}"
        return (
            f"{given}: {title} wants {[labels.shape[0], *labels.shape[2:]]}, one class number each.",
            f"Give labels.{squeezed}, {where(call, f'y.{squeezed}')}.",
        )
    if labels.shape == out.shape and is_whole and out.ndim > 1:
        return (
            f"{given}, a row of {num_classes} for each sample: {title} wants class numbers, "
            f"[{len(labels)}].",
            "Give labels.argmax(1) if the rows are one-hot, or labels.float() if they are "
            "probabilities.",
        )
    if labels.shape == out.shape[:-1] and out.ndim > 2 and labels.shape[1:] != out.shape[2:]:
        return (
            f"The model gives {brief(out)} for labels {list(labels.shape)}: {title} wants the "
            f"classes in dimension 1, {[out.shape[0], out.shape[-1], *out.shape[1:-1]]}.",
            f"Give out.movedim(-1, 1), {where(call, model_out='out.movedim(-1, 1)')}.",
        )
    if out.ndim > 1 and labels.ndim and len(out) != len(labels):
        return other_lengths(out, labels)
    if out.ndim > 1 and labels.shape == out.shape[:1] + out.shape[2:]:
        if labels.dtype not in (torch.int64, torch.uint8):
            return _no_numbers(call, given)
        return _out_of_range(call, num_classes)
    return None


def _no_numbers(call: LossCall, given: str) -> Found:
    labels = call.targets
    if labels.dtype.is_floating_point and bool((labels != labels.round()).any()):
        return (
            f"{given}, and not all whole numbers: {call.title} wants class numbers.",
            "To predict numbers take F.mse_loss and a model with one output; for classes give "
            "labels.long().",
        )
    return (
        f"{given}: {call.title} wants class numbers, which are int64.",
        f"Give labels.long(), {where(call, 'y.long()')}.",
    )


def _out_of_range(call: LossCall, num_classes: int) -> Found | None:
    labels = call.targets[call.targets != call.ignore_index].to(torch.int64)
    if not labels.numel():
        return None
    low, high = int(labels.min()), int(labels.max())
    if low >= 0 and high < num_classes:
        return None
    outputs = f"{num_classes} output{'s' if num_classes > 1 else ''}"
    problem = f"The labels go from {low} to {high}, and the model has {outputs}"
    if num_classes == 1:
        return (
            f"{problem}: {call.title} wants one for each class.",
            f"End the model with {high + 1} outputs; or keep one, and take "
            "F.binary_cross_entropy_with_logits with labels.float().unsqueeze(1).",
        )
    problem = f"{problem}, for the classes 0 to {num_classes - 1}."
    if low == -1 and high == 1 and num_classes <= 2:
        return problem, "Number the classes from 0: (labels + 1) // 2."
    if low < 0 and high - low < num_classes:
        return problem, (
            f"Number the classes from 0, as labels + {-low}. To leave samples out, say so: "
            f"nn.CrossEntropyLoss(ignore_index={low})."
        )
    if low < 0:
        return problem, (
            f"Number the classes from 0. To leave samples out, say so: nn.CrossEntropyLoss("
            f"ignore_index={low})."
        )
    if high == num_classes:
        remedy = (
            f"If the labels count from 1, give labels - 1; else end it with {high + 1} outputs."
        )
        return problem, remedy
    return problem, (
        f"End the model with at least {high + 1} outputs, or number the classes from 0: "
        "labels = torch.unique(labels, return_inverse=True)[1], over all data."
    )


def other_lengths(out: Tensor, labels: Tensor) -> Found:
    """Say that there are more or fewer outputs than targets."""
    return (
        f"The model gives {len(out)} rows, {brief(out)}, for {len(labels)} targets, "
        f"{list(labels.shape)}.",
        "Look at view, reshape and flatten in the model: dimension 0 must stay the number of "
        "samples, as in x.flatten(1).",
    )


# Probabilities


def _of_probabilities(call: LossCall) -> Found | None:
    out, labels, title = call.model_out, call.targets, call.title
    is_float = labels.dtype.is_floating_point
    as_float = "" if is_float else ".float()"
    if out.shape != labels.shape:
        return _of_other_shape(call, as_float)
    if not is_float:
        return (
            f"The labels are {brief(labels)}: {title} wants {dtype_of(out)}.",
            f"Give labels.float(), {where(call, 'y.float()')}.",
        )
    if call.function != "binary_cross_entropy":
        return None
    if not bool(((out >= 0) & (out <= 1)).all()):
        if not bool(out.isfinite().all()):
            return None
        return (
            f"The outputs go {span(out)}: {title} wants probabilities, from 0 to 1.",
            "Take F.binary_cross_entropy_with_logits, which is for such outputs, or end the model "
            "with nn.Sigmoid().",
        )
    if not bool(((labels >= 0) & (labels <= 1)).all()):
        return (
            f"The labels go {span(labels)}: {title} wants them from 0 to 1.",
            "Give 0 and 1; for more than two classes take F.cross_entropy and labels.long().",
        )
    return None


def _of_other_shape(call: LossCall, as_float: str) -> Found | None:
    out, labels = call.model_out, call.targets
    problem = f"The model gives {brief(out)} and the labels are {brief(labels)}."
    if labels.ndim and out.ndim and len(out) != len(labels):
        return other_lengths(out, labels)
    if out.numel() == labels.numel():
        return problem, reshaped(call, as_float)
    if out.ndim == 2 and labels.ndim == 1:
        return problem, (
            f"For one of {out.shape[1]} classes take F.cross_entropy with labels.long(). For yes or "
            f"no end the model with one output, and give labels{as_float}.unsqueeze(1)."
        )
    return problem, f"{call.title} wants one shape for both."


def reshaped(call: LossCall, as_float: str = "", name: str = "labels") -> str:
    """Write how the targets get the shape of the outputs."""
    out, labels = call.model_out, call.targets
    change = f"reshape{tuple(out.shape)}".replace(str(len(out)), "-1", 1)
    if labels.shape == out.shape[:1] + out.shape[2:]:
        change = "unsqueeze(1)"
    elif out.shape == labels.shape[:1] + labels.shape[2:]:
        change = "squeeze(1)"
    change = f"{as_float}.{change}"
    return f"Give {name}{change}, {where(call, f'y{change}')}."


# Numbers


def _of_numbers(call: LossCall) -> Found | None:
    pairs = zip(reversed(call.model_out.shape), reversed(call.targets.shape), strict=False)
    if all(a == b or 1 in (a, b) for a, b in pairs):
        return None  # PyTorch raised for another reason than the shapes
    return of_numbers(call)


def of_numbers(call: LossCall) -> Found:
    """Say that outputs and targets are not of one shape, for a loss that takes their difference."""
    out, targets, title = call.model_out, call.targets, call.title
    problem = f"The model gives {brief(out)} and the targets are {brief(targets)}"
    if out.ndim and targets.ndim and len(out) != len(targets):
        return other_lengths(out, targets)
    if out.numel() == targets.numel():
        each = f"{problem}: {title} would compare each output with all targets."
        as_float = "" if targets.dtype == out.dtype else ".float()"
        return each, reshaped(call, as_float, name="targets")
    if out.ndim == 2 and targets.ndim == 1:
        return f"{problem}: {title} wants one shape for both.", (
            "For one number a sample end the model with one output, and give targets.unsqueeze(1); "
            "for classes take F.cross_entropy."
        )
    return f"{problem}, which do not fit.", f"{title} wants one shape for both."


def of_dtype(scene: Scene, found: str) -> Found | None:
    """Say that the targets have another dtype than the outputs; PyTorch found it in backward."""
    targets = scene.batch_y
    if not isinstance(targets, Tensor) or dtype_of(targets) != found or found == "float32":
        return None
    return (
        f"The targets are {brief(targets)}: the loss wants float32, as the outputs are.",
        "Give targets.float(), in the data set or in the loss function.",
    )


_OF_TENSORS: dict[str, Callable[[LossCall], Found | None]] = {
    "cross_entropy": _of_classes,
    "nll_loss": _of_classes,
    "binary_cross_entropy": _of_probabilities,
    "binary_cross_entropy_with_logits": _of_probabilities,
    **dict.fromkeys(OF_NUMBERS, _of_numbers),
}
