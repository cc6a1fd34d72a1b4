"""Finds what is wrong where a DataLoader cannot make a mini-batch of its samples."""

from __future__ import annotations

import re
import traceback

from ..errors import DeepEpochsError, add_note
from .losses import Found


def note_loading(error: Exception) -> None:
    """Add to an error of a DataLoader what is wrong with its samples, if that is known.

    The error stays as it is: it may have come from another process, with a traceback of its own.
    """
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    modules = [str(frame.f_globals.get("__name__")) for frame in frames]
    if isinstance(error, DeepEpochsError) or not any(
        m.startswith("torch.utils.data") for m in modules
    ):
        return
    found = _fault_of_samples(str(error))
    if found is not None:
        add_note(error, "\n".join(found))


def _fault_of_samples(said: str) -> Found | None:
    if "to be equal size" in said or "of equal size" in said:
        return (
            "The samples of a mini-batch have unequal shapes, and a DataLoader stacks them.",
            "Bring them to one shape in the data set, or give DataLoader(..., collate_fn=...), for "
            "example with torch.nn.utils.rnn.pad_sequence.",
        )
    kind = re.search(r"default_collate: batch must contain .* found <class '([\w.]+)'>", said)
    if kind is None:
        return None
    if kind[1] == "NoneType":
        return (
            "A sample, or a part of it, is None.",
            "End __getitem__ of the data set with `return`.",
        )
    if kind[1].startswith("PIL."):
        return (
            "The samples hold PIL images, and a DataLoader makes mini-batches of tensors.",
            "Give the data set transform=torchvision.transforms.ToTensor().",
        )
    return (
        f"The samples hold objects of class {kind[1]}, of which a DataLoader makes no mini-batches.",
        "Return tensors, arrays or numbers from __getitem__, or give DataLoader(..., collate_fn=...).",
    )
