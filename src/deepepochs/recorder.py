"""What a pass records: the loss and the metrics of each mini-batch, and their sums so far.

A step records into the ``Recorder`` of its pass; the loop merges what was recorded when the step
is done, so that an epoch takes the memory of one mini-batch, but for patches that keep outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import isfinite
from typing import Any

import numpy as np
from torch import Tensor

from .errors import (
    MetricError,
    NotFiniteError,
    add_note,
    warn_user,
)
from .faults.not_finite import not_finite
from .faults.returned import name_is_taken, named_patches, not_a_loss, recorded_twice
from .nest.reuse import BufferGuard
from .patches import PatchBase, ValuePatch
from .patches.plan import KEEPING, MetricPlan, complete_patches
from .patches.resumed import (
    RestoredPatch,
    join_patches,
    merge_patches,
    merged_states,
    patch_kinds,
    patch_states,
    restored_patches,
)
from .patches.tensors import LARGE, as_chunk, loaded
from .patches.totals import LOSS, BatchMetrics, PassPatches
from .patches.trial import Trials
from .runtime.base import Runtime
from .show.screens import to_value


class LossWatch:
    """Raises, warns or does nothing about a loss that is NaN or infinite.

    The policy is ``'stop'``, ``'warn'`` or ``'ignore'``; ``name`` is that of the pass, and ``tell``
    gives the message for a loss, the index of its mini-batch and whether it is read late.

    Attributes:
        warned_of: the latest mini-batch of this pass that was warned of; ``None``: there is none.
    """

    def __init__(
        self, policy: str, name: object, tell: Callable[[float, int, bool], str] = not_finite
    ) -> None:
        self.policy = policy
        self.name = name
        self.warned_of: int | None = None
        self._tell = tell

    def report(self, loss: float, batch_idx: int, *, is_late: bool = False) -> None:
        """Warn or raise, once for each mini-batch. A loss on an accelerator is read late."""
        if self.policy == "ignore" or self.warned_of == batch_idx:
            return
        text = self._tell(loss, batch_idx, is_late)
        if self.policy != "warn":
            raise NotFiniteError(text)
        self.warned_of = batch_idx
        warn_user(text, RuntimeWarning)

    def report_no_weight(self) -> None:
        """Warn that a pass has no loss."""
        if self.policy == "ignore":
            return
        warn_user(
            f"All mini-batches of {self.name} weigh nothing, so its loss is nan.\nLook at what "
            "batch_size gives, and for mini-batches without samples.",
            RuntimeWarning,
        )


class Recorder:
    """The loss and the metrics of one pass.

    Attributes:
        plan: the metrics, each with what makes its patch.
        patches: the merged patches so far, by name.
        seen: the loss of this mini-batch's backward pass, with its number if it is on the CPU.
        is_open: whether the pass has come to its mini-batches.
        recorded: the names that `record` was given, and how.
    """

    def __init__(
        self,
        plan: Sequence[MetricPlan],
        step_name: str,
        watch: LossWatch,
        tell_once: Callable[[str], bool] = bool,  # every text but an empty one is told
    ) -> None:
        self.plan = tuple(plan)
        self.step_name = step_name
        self.patches: dict[str, PatchBase] = {}
        self.seen: tuple[Tensor, float | None] | None = None
        self.watch = watch
        self.is_open = False
        self._loss: Any = None
        self._batch: dict[str, PatchBase] = {}
        # What patches of `KEEPING` get at the end of the mini-batch, without one for it alone.
        self._kept: tuple[Any, Any] | None = None
        # Loss, patches, kept outputs, weight and index of the latest mini-batch that has ended.
        self._ended: tuple[Any, dict[str, PatchBase], tuple[Any, Any] | None, float, int]
        self._ended = None, {}, None, 0.0, -1
        self._returned: set[str] = set()  # names that steps have returned in this pass
        self.recorded: dict[str, str] = {}
        self._values: dict[str, Any] = {}  # of the pass when it is over
        self._saved_merged: dict[str, Any] = {}
        self._untried = {name for name, _ in self.plan}
        self._trials = Trials(tell_once)
        self._guard = BufferGuard()
        # Of a mini-batch that is split: loss, patches and weight of its parts.
        self._parts: list[tuple[Any, dict[str, PatchBase], float]] = []

    def open(self) -> None:
        """Let values be recorded: a hook before the pass is called again when the pass resumes."""
        self.is_open = True

    # one mini-batch

    def see(self, loss: Tensor, batch_idx: int) -> None:
        """Take note of a loss before its backward pass: a NaN must not reach the weights."""
        # The number is not read again to be recorded.
        number = loss.item() if loss.is_cpu else None
        if number is None or isfinite(number):
            self.seen = loss, number
        else:
            self.seen = loss, None
            self.watch.report(number, batch_idx)

    def record_loss(self, loss: Any) -> None:
        """Record the loss of the present mini-batch."""
        if self._loss is not None:
            raise recorded_twice(self.step_name, LOSS)
        seen = self.seen
        if seen is not None and seen[0] is loss and seen[1] is not None:
            self._loss = seen[1]
            return
        if isinstance(loss, Tensor):
            if loss.ndim:
                raise not_a_loss(self.step_name, loss)
            # An item() costs 0.14 us on a CPU and a full synchronisation anywhere else.
            self._loss = loss.item() if loss.is_cpu else loss.detach()
        elif isinstance(loss, (int, float, np.number)):
            self._loss = float(loss)
        else:
            raise not_a_loss(self.step_name, loss)

    def record_metrics(
        self, model_out: Any, batch_y: Any, weight: float, num_samples: int | None = None
    ) -> None:
        """Record the metrics of the present mini-batch, from detached values.

        ``num_samples`` tells lists with an entry for each sample from several outputs.
        """
        patches, keeps = self._batch, False
        given = model_out, batch_y
        if self._guard.acts:
            given = model_out, batch_y = self._guard.own(given)
        for name, make in self.plan:
            if self._kept is not None or name in patches:
                raise recorded_twice(self.step_name, name)
            if name in self._untried:
                # If the loss is NaN, report that, not the errors of metrics that follow from it.
                if type(self._loss) is not float or isfinite(self._loss):
                    self._untried.discard(name)
                    self._trials.try_planned(name, make(weight), given, num_samples)
            elif type(self.patches.get(name)) in KEEPING and name not in self._returned:
                keeps = True
                continue
            patch = make(weight)
            if name in self._trials.on_copies:
                patch.use_copies()
            patches[name] = loaded(patch, given, num_samples)
        if keeps:
            self._kept = as_chunk(model_out, num_samples), as_chunk(batch_y, num_samples)

    def take_returned(self, returned: Any, weight: float) -> None:
        """Record the patches that a step has returned, and the means in patches of the weight."""
        patches = named_patches(self.step_name, returned, weight)
        for name, patch in patches.items():
            if name in self.recorded:
                raise name_is_taken(name, f"{self.step_name} returned a value of that name")
            if name not in self._returned:
                self._trials.try_returned(name, patch)
            if name in self._trials.on_copies:
                patch.use_copies()
        self._returned.update(patches)
        self._batch = {**self._batch, **patches}
        if LOSS in patches:
            self._loss = None

    def record(self, name: str, patch: PatchBase, how: str, batch_idx: int) -> None:
        """Record a value in mini-batch ``batch_idx``, after it, or after the pass.

        Raises:
            MetricError: the name is that of another value.
        """
        is_over = self.is_over
        if name not in self.recorded:
            self._check_name(name)
        elif self.recorded[name] != how:
            raise MetricError(
                f"record({name!r}, how={how!r}): it was recorded with how={self.recorded[name]!r} "
                "before. Record it under another name, too."
            )
        elif is_over:
            raise name_is_taken(name, "this pass, which is over, has a value of that name")
        self.recorded[name] = how
        if is_over:
            self.patches[name] = patch
            self._values[name] = to_value(patch())
        elif self._ended[-1] == batch_idx:  # a hook after the mini-batch
            self._join(name, patch)
        else:
            self._batch[name] = patch if name not in self._batch else self._batch[name].add(patch)

    def _check_name(self, name: str) -> None:
        """Raise ``MetricError`` if a name is not free for ``record``."""
        if name == LOSS:
            raise name_is_taken(name, "the loss of each mini-batch is recorded under that name")
        if any(name == planned for planned, _ in self.plan):
            raise name_is_taken(name, "a metric has that name")
        if name in self._returned and type(self.patches.get(name)) is not RestoredPatch:
            raise name_is_taken(name, f"{self.step_name} returned a value of that name")
        if name in self._values:
            raise name_is_taken(name, "this pass, which is over, has a value of that name")

    def drop_batch(self) -> None:
        """Forget what was recorded of the present mini-batch: its step begins anew."""
        self._loss, self._batch, self._kept, self.seen = None, {}, None, None
        self._parts = []

    def end_part(self, returned: Any, weight: float) -> None:
        """Put aside what a part of the present mini-batch has recorded."""
        if returned is not None:
            self.take_returned(returned, weight)
        self._parts.append((self._loss, self.batch_patches, weight))
        self._loss, self._batch = None, {}

    def join_parts(self) -> None:
        """Record for the mini-batch what its parts have recorded."""
        parts, self._parts = self._parts, []
        total = sum(weight for _, _, weight in parts) or 1.0
        if all(loss is not None for loss, _, _ in parts):
            self._loss = sum(loss * (weight / total) for loss, _, weight in parts)
        for _, patches, _ in parts:
            for name, patch in patches.items():
                own = self._batch.get(name)
                self._batch[name] = patch.copy() if own is None else join_patches(own, patch)

    def end_batch(self, weight: float, batch_idx: int, *, counts: bool = True) -> None:
        """Merge what was recorded, unless the mini-batch only fills up a round."""
        self._ended = self._loss, self._batch, self._kept, weight, batch_idx
        loss, batch, kept, _, _ = self._ended
        seen, self.seen = self.seen, None  # it holds the graph of its mini-batch
        self._loss, self._batch, self._kept = None, {}, None
        is_new = type(loss) is float and (seen is None or seen[1] is not loss)
        if is_new and weight and not isfinite(loss):  # the mean over no samples is 0/0
            self.watch.report(loss, batch_idx)
        if not counts:
            return
        if loss is not None:
            patches = self.patches
            if LOSS in patches and type(total := patches[LOSS]) is ValuePatch:
                total.accumulate(loss, weight)
            else:
                self._join(LOSS, ValuePatch(weight).load(loss))
        if self._guard.looks:
            self._guard.look()
        if kept is not None:
            try:
                for name, _ in self.plan:
                    if name not in batch:
                        patch: Any = self.patches[name]  # of ``KEEPING``
                        patch.keep(*kept)
                        if patch.outputs.num_bytes > LARGE:
                            self._trials.tell_size(name, patch.outputs.num_bytes)
            except MetricError as error:
                add_note(error, f"{self.step_name} recorded them in mini-batch {batch_idx + 1}.")
                raise
        for name in batch:
            self._join(name, batch[name])

    def _join(self, name: str, patch: PatchBase) -> None:
        merged = self.patches.get(name)
        self.patches[name] = patch.copy() if merged is None else join_patches(merged, patch)

    @property
    def batch_loss(self) -> Any:
        """The loss of the present mini-batch, or of the one that has just ended."""
        return self._ended[0] if self._loss is None else self._loss

    @property
    def batch_patches(self) -> dict[str, PatchBase]:
        """The patches recorded for the present mini-batch, to be read and changed."""
        if self._kept is not None:
            made = complete_patches(self.plan, self._kept, self._batch, self._trials.on_copies)
            self._batch.update(made)
            self._kept = None
        return self._batch

    def metrics(self, batch_idx: int) -> BatchMetrics:
        """Give the metrics of the mini-batch that has ended, computed when they are read."""
        loss, patches, kept, weight, _ = self._ended
        report = None
        if weight > 0:
            is_late = type(loss) is not float
            report = partial(self.watch.report, batch_idx=batch_idx, is_late=is_late)
        if kept is None:
            return BatchMetrics(loss, patches, report)
        complete = partial(complete_patches, self.plan, kept, patches, self._trials.on_copies)
        return BatchMetrics(loss, patches, report, complete)

    # the pass

    def close(self, runtime: Runtime, batch_idx: int) -> dict[str, Any]:
        """Merge the patches of all processes, and give the metrics of the pass."""
        if runtime.num_processes > 1:
            self.patches = self.merged(runtime)
        self.patches = done = self.ordered()
        values = self._values = done.metrics()
        loss = values.get(LOSS)
        if type(loss) is float and self.watch.warned_of is None and not isfinite(loss):
            patch = done[LOSS]
            if type(patch) is ValuePatch and not patch.weight:
                self.watch.report_no_weight()
            else:
                self.watch.report(loss, batch_idx, is_late=True)
        return values

    def ordered(self) -> PassPatches:
        """The merged patches: loss first, then metrics as planned, then what steps returned."""
        if isinstance(self.patches, PassPatches):
            return self.patches
        first = [LOSS, *(name for name, _ in self.plan)]
        names = [name for name in first if name in self.patches]
        names += [name for name in self.patches if name not in names]
        return PassPatches({name: self.patches[name] for name in names})

    @property
    def is_over(self) -> bool:
        """Whether the pass has ended, and its values are known."""
        return isinstance(self.patches, PassPatches)

    @property
    def weight(self) -> float:
        """What the mini-batches of the pass weigh together, if its loss tells; else 1."""
        loss = self.patches.get(LOSS)
        return loss.weight if type(loss) is ValuePatch else 1.0

    @property
    def planned_names(self) -> set[str]:
        """Names of the loss and of the metrics of the plan: not what steps return."""
        return {LOSS, *(name for name, _ in self.plan)} - self._returned

    def state_dict(self, runtime: Runtime, *, may_be_last: bool) -> dict[str, Any]:
        """What a checkpoint keeps: the patches, and the kinds of the metrics.

        If no mini-batch may follow, what steps returned is kept merged, too: nobody would know
        its class.
        """
        merged: dict[str, PatchBase] = {}
        if may_be_last and runtime.num_processes > 1:
            merged = self.merged(runtime)
        planned = self.planned_names
        return {
            "metrics": patch_kinds(self.plan),
            "patches": patch_states(self.patches, planned),
            "merged": merged_states({n: merged[n] for n in merged if n not in planned}),
        }

    def load_state_dict(self, state: Mapping[str, Any], batch_idx: int = -1) -> None:
        """Load the patches of a checkpoint, which was taken after mini-batch ``batch_idx``.

        Raises:
            CheckpointMismatch: the metric of a name cannot load its state.
        """
        self.patches = restored_patches(state["patches"], self._makers)
        self._returned = {n for n, saved in state["patches"].items() if not saved["planned"]}
        self._saved_merged = state["merged"]
        self._ended = None, {}, None, 0.0, batch_idx

    def merged(self, runtime: Runtime) -> dict[str, PatchBase]:
        """The patches so far of all processes, which must all call this at the same time."""
        planned = self.planned_names
        makers: dict[str, Callable[[], PatchBase]] = {
            name: partial(make, 1) for name, make in self._makers.items() if name in planned
        }
        return merge_patches(runtime.gather_objects, self.patches, makers, self._saved_merged)

    @property
    def _makers(self) -> dict[str, Callable[[Any], PatchBase]]:
        return {LOSS: ValuePatch, **dict(self.plan)}
