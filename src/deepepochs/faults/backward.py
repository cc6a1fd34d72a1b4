"""Explains errors of the backward pass, of memory that ran out, and of deterministic operations.

Each function gives the problem and the remedy, or ``None`` if it knows nothing.
"""

from __future__ import annotations

import re

import torch

from .losses import Found, of_dtype
from .scene import Scene

# What PyTorch says where it has no class of its own for it: on a CPU, on a Mac, and in cuBLAS.
NO_MEMORY = (
    "can't allocate memory",
    "not enough memory",
    "MPS backend out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in NO_MEMORY)


def fault_of_memory(scene: Scene) -> Found | None:
    """Say that there is not enough memory for a mini-batch."""
    if not is_out_of_memory(scene.error):
        return None
    of = "" if scene.num_samples is None else f" of {scene.num_samples} samples"
    return (
        f"There is not enough memory for a mini-batch{of}.",
        "Give the DataLoader a smaller batch_size; Trainer(grad_accumulate=n) makes one optimizer "
        "step of n mini-batches, and precision='bf16' halves what layers keep.",
    )


def fault_of_determinism(scene: Scene) -> Found | None:
    """Say which operation has no deterministic form."""
    found = re.match(r"(\S+) does not have a deterministic implementation", str(scene.error))
    if found is None:
        return None
    return (
        f"The operation {found[1]} has no deterministic form in PyTorch, and those are asked for.",
        "Use another operation or layer in its place, or leave out deterministic=True (or your own "
        "torch.use_deterministic_algorithms(True)): set_seed alone makes most models repeatable.",
    )


def fault_of_backward(scene: Scene) -> Found | None:
    """Say what is wrong with the graph of a loss."""
    said = str(scene.error)
    if "backward through the graph a second time" in said:
        if scene.is_first:
            return (
                "The gradients of this loss are computed twice.",
                "self.loss() makes the backward pass and the optimizer step by itself: leave "
                "loss.backward() and opt.step() out of the step.",
            )
        return (
            "The loss depends on tensors of an earlier mini-batch, and their graph is gone.",
            "Detach what is kept from one mini-batch to the next, such as a hidden state: "
            "self.state = state.detach().",
        )
    if "modified by an inplace operation" in said or "used in an in-place operation" in said:
        return (
            "A tensor that the gradients need was changed in place.",
            "Write x = x + y instead of x += y, x.exp() instead of x.exp_(), and leave out "
            "inplace=True. torch.autograd.set_detect_anomaly(True) shows the line.",
        )
    wrong = re.search(r"Found dtype (\w+) but expected (\w+)", said)
    if wrong is not None:
        names = {"Long": "int64", "Double": "float64", "Int": "int32", "Half": "float16"}
        return of_dtype(scene, names.get(wrong[1], wrong[1].lower()))
    return None
