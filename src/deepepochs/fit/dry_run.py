"""What a dry run needs: copies of the callbacks, which write to a folder that is removed after."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..callbacks.base import Callback
from ..contracts import TrainerView
from ..errors import ConfigError
from ..stages import Stage
from .plan import FitPlan


@contextmanager
def scratch_folder(trainer: TrainerView) -> Iterator[Path]:
    """Give a folder for the block, the same in all processes."""
    with TemporaryDirectory(prefix="dry-run-") as own:
        yield Path(trainer.runtime.gather_objects(own, "begins a dry run")[0])
        trainer.runtime.any(False, "ends a dry run")


def copied_callbacks(trainer: TrainerView, folder: Path) -> list[Callback]:
    """Copy the callbacks, without the console; they share model, optimizers and trainer.

    Raises:
        ConfigError: a callback cannot be copied.
    """
    shared: list[Any] = [trainer, trainer.runtime, trainer.loss_fn, trainer.opt]
    shared += [*trainer.model.modules(), *trainer.model.parameters()]
    shared += [one for optimizer in trainer.opt for one in (optimizer, optimizer.opt)]
    memo = {id(thing): thing for thing in shared}
    copies: list[Callback] = []
    for callback in trainer.callbacks:
        if callback.is_console:
            continue
        try:
            twin: Callback = copy.deepcopy(callback, memo)
        except Exception as error:  # copying runs any code
            raise ConfigError(
                f"dry_run calls the hooks of copies, and {type(callback).__name__} cannot be copied: "
                f"{error}. Leave what cannot be copied out in its __getstate__, or the callback out of "
                "the dry run."
            ) from error
        twin.move_to(folder)
        copies.append(twin)
    return copies


def told(plan: FitPlan, callbacks: Sequence[Callback]) -> str:
    """Say what was tried."""
    words = {Stage.TRAIN: "training", Stage.VAL: "validation", Stage.TEST: "test"}
    stages = [words[stage] for stage, tasks in plan.tasks.items() if tasks]
    names = [type(callback).__name__ for callback in callbacks]
    hooks = f" with {', '.join(names)}" if names else ""
    return (
        f"dry run: one mini-batch of {' and of '.join(stages)}{hooks} works; nothing was written, and "
        "all is as before"
    )
