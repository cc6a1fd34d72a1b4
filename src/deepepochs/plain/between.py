"""What a pass of training does after some of the optimizer steps.

It validates within an epoch, for ``val_every``, or it ends, for ``max_steps`` and patience.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np

from ..data.cursor import counts_exactly
from ..fit.plan import FitPlan, lengths_of
from ..stages import Stage
from ..task import EpochTask
from .batch_text import Walk
from .gaps import Names
from .layout import INDENT
from .parts import Parts


class Between:
    """Writes what is counted in optimizer steps.

    Attributes:
        steps: the name of their number; ``''``: nobody counts them.
        max_steps: the number after which the fit ends; ``None``: there is none.
        val_every: the number from one validation to the next.
        validates: the name of the function that validates within an epoch.
        is_over: the condition that there were so many; ``''``: there is none.
        ends: what is counted, in validations, and the number at which a pass ends before its data.
        names: those that a pass reads.
    """

    def __init__(self, parts: Parts, plan: FitPlan, assigned: set[str], *, is_read: bool) -> None:
        """``assigned`` are the names that steps of the user's set; ``is_read``: they read the number."""
        self._parts, self._plan = parts, plan
        limits = parts.trainer.limits
        is_alone = len(plan.tasks[Stage.TRAIN]) == 1
        self.max_steps = limits.max_steps if is_alone else None
        self.val_every = limits.val_every if plan.tasks[Stage.VAL] else None
        self.ends: list[tuple[str, int]] = []
        self.names: list[str] = []
        self.steps = self.validates = self.validations = self._before = ""
        names = Names({*parts.names.taken, *assigned})
        ema = parts.trainer.ema
        self._ema_every = 1 if ema is None else ema.settings.every
        if self.max_steps or self.val_every or self._ema_every > 1 or is_read:
            self.steps = self._new(names, "steps", "num_steps")
        self.is_over = f"{self.steps} >= {self.max_steps}" if self.max_steps else ""
        if self.val_every:
            self.validates = self._new(names, "validate_within")
            self.validations = self._new(names, "validations")
            self._before = self._new(names, "before", "steps_before")

    def _new(self, names: Names, *wanted: str) -> str:
        name = names.free(*wanted)
        self._parts.names.take(name)
        self.names.append(name)
        return name

    @property
    def averages_in_time(self) -> bool:
        """Whether there is an average of the weights before the first validation."""
        trainer, plan = self._parts.trainer, self._plan
        lengths = lengths_of(trainer, plan)
        if not plan.tasks[Stage.VAL]:
            return True
        if None in lengths:
            return False
        size = trainer.grad_accumulate
        in_epoch = sum(-(-(length or 0) // size) for length in lengths) * plan.val_freq
        return bool(self._ema_every <= min(in_epoch, self.val_every or in_epoch))

    @property
    def may_repeat(self) -> bool:
        """Whether an epoch may end with a validation that its last step had: no length is known."""
        return bool(self.val_every) and not counts_exactly(
            self._plan.tasks[Stage.TRAIN][-1].dataloader
        )

    def end_with(self, patiences: Sequence[tuple[str, int]]) -> None:
        """End a pass of training, too, where a validation within it has exhausted a patience."""
        if self.val_every and len(self._plan.tasks[Stage.TRAIN]) == 1:
            self.ends += patiences
            self.names += [name for name, _ in patiences]
        elif self.val_every and patiences:
            what = "an end of the fit within an epoch of several training tasks"
            self._parts.late.append(self._parts.gaps.not_written(what))

    # --- in a pass of training

    def opening(self) -> list[str]:
        """The line at the beginning of the pass."""
        return [f"global {self.steps}"] if self.steps else []

    def counting(self) -> list[str]:
        """The line after an optimizer step."""
        return [f"{self.steps} += 1"] if self.steps else []

    def before_batch(self, *, is_plain: bool) -> list[str]:
        """The line before a mini-batch; ``is_plain``: each makes one optimizer step."""
        return [f"{self._before} = {self.steps}"] if self.val_every and not is_plain else []

    def after_batch(self, task: EpochTask, walk: Walk, epoch: str, *, is_plain: bool) -> list[str]:
        """The lines after a mini-batch."""
        lines = [f"if {self.is_over}:", f"{INDENT}break"] if self.is_over else []
        if not self.val_every:
            return lines
        every, steps = self.val_every, self.steps
        is_due = f"{steps} % {every} == 0"
        if not is_plain:
            is_due = f"{steps} // {every} > {self._before} // {every}"
        lines += [f"if {is_due}{self._not_at_end(task, walk, epoch)}:"]
        lines += [f"{INDENT}{self.validates}()"]
        if self.ends:
            is_over = " or ".join(f"{name} >= {number}" for name, number in self.ends)
            lines += [f"{INDENT}if {is_over}:", f"{INDENT * 2}break"]
        return lines

    def _not_at_end(self, task: EpochTask, walk: Walk, epoch: str) -> str:
        """The condition that the validation of the epoch does not follow at once."""
        if task is not self._plan.tasks[Stage.TRAIN][-1] or not counts_exactly(task.dataloader):
            return ""
        walk.need_index()
        is_inside = f"{walk.index} + 1 < {walk.number}"
        if self._plan.val_freq == 1:
            return f" and {is_inside}"
        return f" and ({is_inside} or ({epoch} + 1) % {self._plan.val_freq})"

    # --- the validation

    def function(
        self,
        values: str,
        lines: Sequence[str],
        loaders: Sequence[str],
        modes: Sequence[str],
        follows: Sequence[str],
    ) -> list[str]:
        """The function that validates within an epoch.

        Args:
            values: the name of the values of a validation.
            lines: those of the passes.
            loaders: the expressions of their loaders.
            modes: those that put parts of the model into another mode than training.
            follows: those of what follows its values.
        """
        if not self.val_every:
            return []
        parts = self._parts
        states = self._states(loaders)
        inexact = "the bits of weights of which an optimizer keeps an average: train() rounds them"
        body = [
            *parts.hooks("on_before_val_epochs"),
            *([parts.gaps.not_written(inexact)] if parts.moded else []),
            *(f"{state} = {get}" for state, get, _ in states),
            "with torch.random.fork_rng():",
            *(INDENT + line for line in lines),
            *(put.format(state) for state, _, put in states),
            *parts.modes(parts.model, training=True),
            *modes,
            *parts.hooks("on_after_val_epochs"),
            f"{self.validations}.append(({self.steps}, {values}))",
            f'print(f"step {{{self.steps}}}", {values})',
            *follows,
        ]
        text = '"""Validate within an epoch, which goes on as it would have without that."""'
        return [f"def {self.validates}():", *(INDENT + line for line in [text, *body])]

    def _states(self, loaders: Sequence[str]) -> list[tuple[str, str, str]]:
        """What else a validation may draw from: a name, how it is read, and how it is put back."""
        prelude, names = self._parts.prelude, Names({*self._parts.names.taken})
        found = []
        for module, kind, get, put in (
            (random, "random", "getstate", "setstate"),
            (np.random, "numpy", "get_state", "set_state"),
        ):
            if text := prelude.drawing(module):
                state = names.free(f"{kind}_state")
                found.append((state, f"{text}.{get}()", f"{text}.{put}({{}})"))
        for task, loader in zip(self._plan.tasks[Stage.VAL], loaders, strict=True):
            if getattr(task.dataloader, "generator", None) is not None:
                state, own = names.free("loader_state"), f"{loader}.generator"
                found.append((state, f"{own}.get_state()", f"{own}.set_state({{}})"))
        return found
