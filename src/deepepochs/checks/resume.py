"""The check that a run which is saved would resume to the bit."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from ..errors import DeepEpochsError
from ..hooks import is_of_library
from .findings import Finding
from .look import Look, told

STEPS = 6  # mini-batches of training and validation, of each of the three runs


def exact_resume(look: Look) -> Iterator[Finding]:
    """Find a run with checkpoints that would not resume exactly.

    It is run in processes of its own, which a GPU in use does not allow without pickling. There all
    callbacks are called, so these must be known to write nothing outside of the run's folder.
    """
    trainer = look.trainer
    alone = trainer.runtime.num_processes == 1 and not trainer.runtime.is_sharded
    is_cuda_used: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    if trainer.checker is None or look.failed or not alone or is_cuda_used:
        return
    if not all(is_harmless(type(callback)) for callback in trainer.callbacks):
        return
    try:
        with told():
            report = trainer.verify_resume(**look.options, steps=STEPS)
    except DeepEpochsError:
        return  # too few mini-batches, or processes cannot be started
    if not report.ok:
        yield Finding(
            "warning",
            f"A resumed run would not be exact: {len(report.differences)} entries of its state "
            "differ from those of an unbroken one.",
            f"{report.cause[0].upper()}{report.cause[1:]}",
        )


def is_harmless(callback: type) -> bool:
    """Whether a class of callbacks is of the library, and sends nothing to a server."""
    return is_of_library(callback) and not callback.__module__.endswith(".trackers")
