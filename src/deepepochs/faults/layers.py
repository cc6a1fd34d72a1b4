"""Finds what is wrong where a layer of PyTorch has raised: its input, or the layer itself.

Each function gives the problem and the remedy, or ``None`` if it knows nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from .losses import Found
from .scene import LayerCall, Scene
from .words import brief, dtype_of, span


def fault_of_layer(scene: Scene) -> Found | None:
    """Say what is wrong with the input of the innermost layer."""
    call = scene.layer
    if call is None:
        return None
    if not type(call.module).__module__.startswith("torch.nn."):
        return _of_inputs(scene)
    if not call.args or isinstance(call.module, (nn.ModuleList, nn.ModuleDict, nn.Sequential)):
        return None
    x = call.args[0]
    if not isinstance(x, Tensor):
        return _no_tensor(scene, call, x)
    for kind, fault in _OF_SHAPE.items():
        if isinstance(call.module, kind) and (found := fault(scene, call, x)) is not None:
            return found
    return _of_place(scene, call, x) or _of_dtype(scene, call, x)


def _of_inputs(scene: Scene) -> Found | None:
    """Say that an input is no tensor, where the error names its class."""
    if isinstance(scene.error, (TypeError, AttributeError)):
        for x in scene.inputs:
            if type(x).__name__ in str(scene.error):
                return of_data(x, scene.batch_y)
    return None


def titled(scene: Scene, module: nn.Module) -> str:
    """Name a layer by its place in the model and its class."""
    kind, name = type(module).__name__, scene.name_of(module)
    if name is None:
        return f"A {kind} outside of the model"
    return f"Layer {name!r} ({kind})" if name else f"The model ({kind})"


def _got(scene: Scene, x: Any) -> str:
    """Say what a layer gets: the data themselves, or what comes out of the layers before it."""
    return f"the data are {brief(x)}" if scene.is_of_batch(x) else f"it gets {brief(x)}"


# What is no tensor


def _no_tensor(scene: Scene, call: LayerCall, x: Any) -> Found | None:
    if x is scene.batch_x:
        star = "**" if isinstance(x, Mapping) else "*"
        what = "dict" if isinstance(x, Mapping) else "tuple"
        return (
            f"batch_x is always a tuple of the inputs, or a dict, and the model got the {what} itself: "
            f"{brief(x)}.",
            f"Call self.model({star}batch_x).",
        )
    if scene.is_of_batch(x):
        return of_data(x, scene.batch_y)
    title = titled(scene, call.module)
    if isinstance(x, (tuple, list)):
        before = _before(scene, call.module)
        if isinstance(before, nn.RNNBase):
            return (
                f"{title} gets a tuple: {type(before).__name__} before it gives (output, state).",
                "Take its output alone: call the layers in a forward of your own, output, _ = "
                "self.rnn(x), and not by nn.Sequential.",
            )
        return (
            f"{title} wants a tensor, and gets {brief(x)}.",
            "Hand it the one that it is to take: the layer before it gives several.",
        )
    if x is None:
        return (
            f"{title} gets None: what comes before it returns nothing.",
            "End the forward of the layer before it with `return`.",
        )
    return None


def of_data(x: Any, batch_y: Any) -> Found | None:
    """Say what is wrong with an input of the model that is no tensor."""
    if isinstance(x, np.ndarray):
        as_float = "" if x.dtype == np.float32 else ".float()"
        return (
            f"The loader yields NumPy arrays, and the model wants tensors: the inputs are {brief(x)}.",
            f"Give torch.from_numpy(x){as_float}, for example in DataLoader(TensorDataset("
            f"torch.from_numpy(x){as_float}, torch.from_numpy(y)), batch_size=32).",
        )
    if isinstance(x, str) or (isinstance(x, (tuple, list)) and x and isinstance(x[0], str)):
        text = brief(x if isinstance(x, str) else x[0])
        return (
            f"The inputs are texts, such as {text}, and the model wants numbers.",
            "Turn them into numbers before, for example by a tokenizer in "
            "DataLoader(..., collate_fn=...).",
        )
    if isinstance(x, (tuple, list)) and x and all(isinstance(one, Tensor) for one in x):
        return _of_tensors(list(x), batch_y)
    if isinstance(x, (tuple, list)) and x and isinstance(x[0], (int, float, tuple, list)):
        return (
            f"The inputs are lists of numbers, {brief(x)}, and the model wants a tensor.",
            "Give torch.tensor(inputs, dtype=torch.float32), or leave this to a DataLoader.",
        )
    is_image = type(x).__module__.startswith("PIL.")
    if is_image or (isinstance(x, (tuple, list)) and x and type(x[0]).__module__ == "PIL.Image"):
        return (
            "The inputs are PIL images, and the model wants tensors.",
            "Give the data set transform=torchvision.transforms.ToTensor().",
        )
    return None


def _of_tensors(x: list[Tensor], batch_y: Any) -> Found:
    shapes = {tuple(one.shape) for one in x}
    num = len(batch_y) if isinstance(batch_y, Tensor) and batch_y.ndim else len(x)
    if shapes == {(num,)} and len(x) != num:
        return (
            f"Each sample has a list of {len(x)} numbers, of which the DataLoader makes {len(x)} tensors "
            f"of {num} numbers each.",
            "Return tensors from the data set: torch.tensor(x, dtype=torch.float32).",
        )
    problem = f"The inputs are {len(x)} tensors in a list, {brief(x[0])} and so on, not one tensor."
    if len(shapes) == 1:
        return problem, "Give torch.stack(inputs), as a DataLoader does without a collate_fn."
    return problem, "Their shapes differ: give torch.nn.utils.rnn.pad_sequence(inputs), or crop."


def _before(scene: Scene, module: nn.Module) -> nn.Module | None:
    """Give the layer before a layer in an ``nn.Sequential``."""
    for one in scene.model.modules():
        if isinstance(one, nn.Sequential):
            for before, after in pairwise(one):
                if after is module:
                    return before
    return None


# Shapes


def _of_linear(scene: Scene, call: LayerCall, x: Tensor) -> Found | None:
    layer: Any = call.module
    wanted, given = layer.in_features, x.shape[-1] if x.ndim else 1
    if wanted == given and x.ndim:
        return None
    problem = f"{titled(scene, layer)} wants {wanted} features, and {_got(scene, x)}"
    flat = math.prod(x.shape[1:])
    if x.ndim > 2 and (flat == wanted or x.ndim > 3):
        other = (
            ""
            if flat == wanted
            else f", which gives {flat}: make it nn.Linear({flat}, {layer.out_features})"
        )
        return f"{problem}.", f"Flatten before it, by nn.Flatten() or x.flatten(1){other}."
    remedy = f"Make it nn.Linear({given}, {layer.out_features})"
    if scene.is_of_batch(x):
        return f"{problem}: {given} features.", f"{remedy}, or give data with {wanted} features."
    return f"{problem}: {given} features.", f"{remedy}, or have what comes before it give {wanted}."


def _of_convolution(scene: Scene, call: LayerCall, x: Tensor) -> Found | None:
    layer: Any = call.module
    num_dims, wanted, title = len(layer.kernel_size), layer.in_channels, titled(scene, layer)
    if x.ndim == num_dims + 2 and x.shape[1] != wanted:
        if x.shape[-1] == wanted:
            problem = f"{title} wants the channels in dimension 1, and {_got(scene, x)}"
            return f"{problem}: they come last.", "Give x.movedim(-1, 1)."
        given, many = x.shape[1], f"{wanted} channel{'s' if wanted > 1 else ''}"
        make = f"nn.{type(layer).__name__}({given}, {layer.out_channels}, ...)"
        return (
            f"{title} wants {many}, and {_got(scene, x)}: {given} channel{'s' if given > 1 else ''}.",
            f"Make it {make}, or give it {many}.",
        )
    if x.ndim == num_dims + 2 or (x.ndim == num_dims + 1 and x.shape[0] == wanted):
        return None if isinstance(layer, _ConvTransposeNd) else _of_kernel(scene, call, x)
    sides = ["height", "width", "depth"][:num_dims] if num_dims > 1 else ["length"]
    shape = f"[samples, channels, {', '.join(sides)}]"
    problem = f"{title} wants {shape}, and {_got(scene, x)}"
    if x.ndim == num_dims + 1 and wanted == 1:
        return f"{problem}: the channel is missing.", "Give x.unsqueeze(1)."
    if x.ndim == 2 == num_dims + 1 and x.shape[1] == wanted:
        return f"{problem}: the length is missing.", "Give x.unsqueeze(2)."
    if x.ndim == num_dims + 1:
        remedy = "Give one dimension more: x.unsqueeze(1) adds a channel, x.unsqueeze(0) a sample."
        return f"{problem}.", remedy
    if x.ndim == 2 and num_dims == 2:
        side = math.isqrt(x.shape[1] // wanted)
        if side * side * wanted == x.shape[1]:
            return f"{problem}: flat.", f"Give x.view(-1, {wanted}, {side}, {side})."
    return f"{problem}.", f"Give a tensor with {num_dims + 2} dimensions."


def _of_kernel(scene: Scene, call: LayerCall, x: Tensor) -> Found | None:
    layer: Any = call.module
    if "Kernel size" not in str(scene.error):
        return None
    return (
        f"{titled(scene, layer)} has a kernel of {list(layer.kernel_size)}, and {_got(scene, x)}: "
        "smaller than the kernel.",
        "Give larger images, or pool less before it; padding='same' keeps the size.",
    )


def _of_batch_norm(scene: Scene, call: LayerCall, x: Tensor) -> Found | None:
    layer: Any = call.module
    title, kind = titled(scene, layer), type(layer).__name__
    if layer.training and x.ndim > 1 and x.numel() == x.shape[1]:
        return (
            f"{title} cannot train on one sample: {_got(scene, x)}. The last mini-batch of a "
            "loader may be so small.",
            "Give DataLoader(..., drop_last=True), or a batch_size that leaves more than one.",
        )
    dims = {"BatchNorm1d": (2, 3), "BatchNorm2d": (4,), "BatchNorm3d": (5,)}.get(kind, (x.ndim,))
    if x.ndim not in dims:
        other = {2: "1d", 3: "1d", 4: "2d", 5: "3d"}.get(x.ndim)
        remedy = "Flatten before it." if other is None else f"Make it nn.BatchNorm{other}."
        return (
            f"{title} wants {' or '.join(map(str, dims))} dimensions, and {_got(scene, x)}.",
            remedy,
        )
    if x.ndim > 1 and x.shape[1] != layer.num_features:
        return (
            f"{title} wants {layer.num_features} channels, and {_got(scene, x)}: {x.shape[1]}.",
            f"Make it nn.{kind}({x.shape[1]}).",
        )
    return None


def _of_layer_norm(scene: Scene, call: LayerCall, x: Tensor) -> Found | None:
    layer: Any = call.module
    wanted = list(layer.normalized_shape)
    if list(x.shape[-len(wanted) :]) == wanted:
        return None
    given = list(x.shape[-len(wanted) :])
    return (
        f"{titled(scene, layer)} is for tensors that end in {wanted}, and {_got(scene, x)}.",
        f"Make it nn.LayerNorm({given}).",
    )


def _of_embedding(scene: Scene, call: LayerCall, x: Tensor) -> Found | None:
    layer: Any = call.module
    title = titled(scene, layer)
    if x.dtype not in (torch.int64, torch.int32):
        return (
            f"{title} wants the numbers of words or categories, whole ones, and {_got(scene, x)}.",
            "Give x.long(), or put nn.Linear in its place if these are measurements.",
        )
    if not x.numel():
        return None
    low, high = int(x.min()), int(x.max())
    if low >= 0 and high < layer.num_embeddings:
        return None
    most = layer.num_embeddings - 1
    remedy = f"Make it nn.Embedding({high + 1}, {layer.embedding_dim}) at least, the size of the vocabulary."
    if low < 0:
        remedy = "Number them from 0; for padding give a number of its own and padding_idx=."
    return f"{title} has rows for the numbers 0 to {most}, and those it gets go {span(x)}.", remedy


def _of_recurrent(scene: Scene, call: LayerCall, x: Tensor) -> Found | None:
    layer: Any = call.module
    kind = type(layer).__name__
    if x.ndim not in (2, 3):
        order = (
            "[samples, moments, features]" if layer.batch_first else "[moments, samples, features]"
        )
        return (
            f"{titled(scene, layer)} wants {order}, and {_got(scene, x)}.",
            "Add or flatten a dimension.",
        )
    if x.shape[-1] == layer.input_size:
        return None
    return (
        f"{titled(scene, layer)} wants {layer.input_size} features, and {_got(scene, x)}: "
        f"{x.shape[-1]} features.",
        f"Make it nn.{kind}({x.shape[-1]}, {layer.hidden_size}, ...).",
    )


def _of_attention(scene: Scene, call: LayerCall, x: Tensor) -> Found | None:
    layer: Any = call.module
    if x.shape[-1] == layer.embed_dim:
        return None
    return (
        f"{titled(scene, layer)} wants {layer.embed_dim} features, and {_got(scene, x)}: "
        f"{x.shape[-1]} features.",
        f"Make it nn.MultiheadAttention({x.shape[-1]}, ...), or put nn.Linear({x.shape[-1]}, "
        f"{layer.embed_dim}) before it.",
    )


_OF_SHAPE: dict[Any, Callable[[Scene, LayerCall, Tensor], Found | None]] = {
    nn.Linear: _of_linear,
    _ConvNd: _of_convolution,
    _BatchNorm: _of_batch_norm,
    nn.LayerNorm: _of_layer_norm,
    nn.Embedding: _of_embedding,
    nn.RNNBase: _of_recurrent,
    nn.MultiheadAttention: _of_attention,
}


# Device and dtype


def _of_place(scene: Scene, call: LayerCall, x: Tensor) -> Found | None:
    weight = next(call.module.parameters(), None)
    if weight is None or weight.device == x.device:
        return None
    title = titled(scene, call.module)
    problem = f"{title} is on {weight.device}, and {_got(scene, x)} on {x.device}."
    if scene.name_of(call.module) is None:
        return problem, (
            "Make it part of the model, so that it is moved and trained, too: keep it as an "
            "attribute of its own, self.layer = ..., or in nn.ModuleList."
        )
    if scene.is_of_batch(x):
        return problem, (
            "Leave out auto_traindata_to_device=False, or move the mini-batch in your step or "
            "prepare_data: x.to(self.device)."
        )
    return problem, "Make new tensors where the others are, as torch.zeros(..., device=x.device)."


def _of_dtype(scene: Scene, call: LayerCall, x: Tensor) -> Found | None:
    weight = next((w for w in call.module.parameters() if w.dtype.is_floating_point), None)
    if weight is None or weight.dtype == x.dtype or "type" not in str(scene.error):
        return None
    title = titled(scene, call.module)
    problem = f"{title} has weights of dtype {dtype_of(weight)}, and {_got(scene, x)}."
    if weight.dtype != torch.float32:
        return (
            problem,
            "Make the model float32, model.float(); Trainer(precision='bf16') saves memory.",
        )
    if x.dtype == torch.uint8:
        return problem, "Give x.float() / 255, or transform=torchvision.transforms.ToTensor()."
    if x.dtype.is_floating_point:
        return (
            problem,
            "Give x.float(), or make the data so: torch.tensor(..., dtype=torch.float32).",
        )
    return (
        problem,
        "Give x.float(). Numbers that stand for words or categories go into nn.Embedding.",
    )
