"""Steps that compute a mini-batch more than once: closures, and mini-batches that are split."""

from __future__ import annotations

from typing import Any


def check_setup(trainer: Any) -> None:
    """Raise ``ConfigError`` if a trainer cannot make such steps with its other arguments."""
    from .closures import check_closures
    from .split import check_split

    for optimizer in trainer.opt:
        if optimizer.needs_closure:
            check_closures(trainer, optimizer.kind)
    if trainer.on_oom == "split":
        check_split(trainer)
