"""What is going on now: the pass that runs, its mini-batch, and its merged patches.

``Run`` is the state of one pass over one task's data. The trainer holds it in
``trainer.run``; the steps record into it, the loop merges it batch by batch.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import partial
from math import isfinite
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from torch import Tensor

from . import rng
from .callbacks.base import StageHooks
from .data.cursor import Cursor
from .errors import NotFiniteError
from .faults import named_patches, not_a_loss, recorded_twice
from .nest.batch import BatchSize, weigh_batch
from .optim.accumulation import Window
from .pass_state import PassState
from .patches import PatchBase, TensorPatch, ValuePatch
from .patches.plan import MetricPlan, complete_patches
from .patches.resumed import join_patches
from .patches.tensors import as_chunk
from .patches.totals import LOSS, BatchMetrics, PassPatches
from .stages import Stage

if TYPE_CHECKING:
    from .task import EpochTask
    from .trainer import TrainerBase

__all__ = ["Run"]


class Run(PassState):
    """One pass over one task's data.

    Attributes:
        trainer: who runs it.
        stage: what the pass is for.
        task: the ``EpochTask``.
        task_idx: its index in its stage, from 0, out of ``num_tasks``.
        step_name: the step in use, as ``MyTask.train_step``.
        hooks: the stage's hooks, bound.
        cursor: the walk over the loader.
        batch_idx: the present mini-batch, from 0.
        patches: the merged patches so far, by name.
        resumed: this pass began in an earlier process.
    """

    def __init__(
        self,
        trainer: TrainerBase,
        stage: Stage,
        task: EpochTask,
        *,
        hooks: StageHooks,
        plan: Sequence[MetricPlan],
        cursor: Cursor,
        window: Window | None,
        on_nan: str,
        keeps_loss: bool = False,
        epoch_idx: int | None = None,
    ) -> None:
        self.trainer = trainer
        self.stage = stage
        self.task = task
        self.task_idx, self.num_tasks = 0, 1
        self.epoch_idx = epoch_idx
        self.hooks = hooks
        self.plan = tuple(plan)
        self.cursor = cursor
        self.window = window
        self.on_nan = on_nan
        self._warned_of: int | None = None  # the last mini-batch whose loss was named
        self.step_name = "the step"
        self.is_training = stage is Stage.TRAIN
        self.is_shared = trainer.runtime.num_processes > 1
        # Optimizer steps are put off here by a window, or by the user's own accumulate().
        self.may_wait = window is not None or trainer.runtime.accelerator is not None
        self.engine = trainer.runtime.engine if self.is_training else None
        self.wants_outputs = bool(self.plan or hooks.metrics)
        self.do_loss = self.is_training or task.do_loss
        self.batch_size: BatchSize = task.batch_size
        self.patches: dict[str, PatchBase] = {}
        self.resumed = False
        self.batch_idx = -1
        self.num_steps = 0
        self.batch_x: Any = None
        self.batch_y: Any = None
        self.batch_loss: Any = None
        self.last_loss: Tensor | None = None
        self._part_loss: Any = None
        self.seen_loss: tuple[Tensor, float] | None = None  # a loss on the CPU, and its value
        self.keeps_loss = keeps_loss
        self._batch_patches: dict[str, PatchBase] = {}
        # What TensorPatches get at the end of the mini-batch, without a patch for it alone.
        self._kept: tuple[Any, Any] | None = None
        self.loss_scale = 1.0
        self._share = 1.0  # of this process in the samples of the present round
        self.is_filler = False
        self.has_samples, self._noted_steps = False, 0
        # Optimizers whose step accelerator.accumulate puts off, in their order.
        self.by_hand: dict[int | None, None] = {}
        self._returned: set[str] = set()  # names that steps have returned in this pass
        self._saved_merged: dict[str, Any] = {}
        self._random_state: dict[str, Any] | None = None
        if self.is_training:
            trainer.runtime.begin_hand_window()
        self.num_batches = cursor.length
        self.did_backward = True
        self._weight: float | None = None

    @property
    def length(self) -> int | None:
        """Mini-batches of this pass; ``None`` if the loader does not know."""
        return self.num_batches

    @property
    def weight(self) -> float:
        """The number of samples in the present mini-batch."""
        if self._weight is None:
            self._weight = weigh_batch(self.batch_size, self.batch_x, self.batch_y)
        return self._weight

    def begin_batch(
        self, batch_idx: int, batch_x: Any, batch_y: Any, *, is_pair: bool = False
    ) -> None:
        """Take in a mini-batch before its step; ``split_pair`` has made it if ``is_pair``."""
        self.batch_idx = batch_idx
        self.batch_x = batch_x
        self.batch_y = batch_y
        self._weight = batch_x[0].size(0) if is_pair and self.batch_size is None else None
        self.batch_loss = self._kept = None
        self._batch_patches = {}
        if self.is_filler:
            self._random_state = rng.get_state()
        if self.is_training:
            self.did_backward = False
            if self.is_shared:
                self._note_samples()
                self._weigh_among_processes()
            elif self.window is not None:
                self.window.open_batch(self.weight, is_last=self.is_last)
                self.loss_scale = self.window.scale

    def _note_samples(self) -> None:
        """Note whether this process has had samples since the last step."""
        waits, self._noted_steps = self.num_steps == self._noted_steps, self.num_steps
        self.has_samples = not self.is_filler or (waits and self.has_samples)

    def _weigh_among_processes(self) -> None:
        """Scale the loss so that gradients averaged over processes are those of all samples."""
        runtime = self.trainer.runtime
        own = 0.0 if self.is_filler else float(self.weight)
        total = runtime.total([own])[0]
        self._share = own / total if total else 0.0
        self.loss_scale = own * runtime.num_processes / total if total else 0.0
        if self.window is not None:
            self.window.open_batch(total, is_last=self.is_last)
            self.loss_scale *= self.window.scale

    def keep_loss(self, loss: Tensor, share: float) -> None:
        """Keep the loss for schedulers that want one: the mean of all that the next step is of."""
        if self.trainer.runtime.num_processes > 1:
            # Each process would move its schedule by its own samples, and the rates would part.
            loss = loss.new_tensor(self.trainer.runtime.total([float(loss) * self._share])[0])
        if share != 1.0:
            loss = loss * share + (self._part_loss if self.did_backward else 0.0)
        self._part_loss = loss
        self.last_loss = loss if self.window is None else self.window.mean_loss(loss)

    def record_loss(self, loss: Any) -> None:
        """Record the loss of the present mini-batch."""
        if self.batch_loss is not None:
            raise recorded_twice(self.step_name, LOSS)
        seen = self.seen_loss
        if seen is not None and seen[0] is loss:
            self.batch_loss = seen[1]
        elif isinstance(loss, Tensor):
            if loss.ndim:
                raise not_a_loss(self.step_name, loss)
            # An item() costs 0.14 us on a CPU and a full synchronisation anywhere else.
            self.batch_loss = loss.item() if loss.is_cpu else loss.detach()
        elif isinstance(loss, (int, float, np.number)):
            self.batch_loss = float(loss)
        else:
            raise not_a_loss(self.step_name, loss)

    def record_metrics(self, model_out: Any, batch_y: Any) -> None:
        """Record the metrics of the present mini-batch, from detached values."""
        weight, patches, keeps = self.weight, self._batch_patches, False
        for name, make in self.plan:
            if self._kept is not None or name in patches:
                raise recorded_twice(self.step_name, name)
            if type(self.patches.get(name)) is TensorPatch and name not in self._returned:
                keeps = True
            else:
                patches[name] = make(weight).load(model_out, batch_y)
        if keeps:
            self._kept = as_chunk(model_out), as_chunk(batch_y)

    @property
    def batch_patches(self) -> dict[str, PatchBase]:
        """The patches recorded for the present mini-batch, to be read and changed."""
        if self._kept is not None:
            self._batch_patches.update(complete_patches(self.plan, self._kept, self._batch_patches))
            self._kept = None
        return self._batch_patches

    def end_batch(self, returned: Any) -> None:
        """Merge what the step recorded and returned."""
        self.seen_loss = None  # it holds the graph of its mini-batch
        if returned is not None:
            returned = named_patches(self.step_name, returned)
            self._returned.update(returned)
            self._batch_patches = {**self._batch_patches, **returned}
            if LOSS in returned:
                self.batch_loss = None
        if not self.did_backward:
            self._warn_no_backward()
        loss = self.batch_loss
        if type(loss) is float and not isfinite(loss):
            self.report_not_finite(loss)
        if self.is_filler:
            if self._random_state is not None:
                # It is another mini-batch after a resume, and must leave nothing behind.
                rng.set_state(self._random_state)
            return
        if loss is not None:
            patches, weight = self.patches, self._weight
            if LOSS in patches and type(total := patches[LOSS]) is ValuePatch:
                total.accumulate(loss, self.weight if weight is None else weight)
            else:
                self._accumulate_loss(loss)
        kept = self._kept
        if kept is not None:
            for name, _ in self.plan:
                if name not in self._batch_patches:
                    cast(TensorPatch, self.patches[name]).keep(*kept)
        if self._batch_patches:
            for name, patch in self._batch_patches.items():
                merged = self.patches.get(name)
                self.patches[name] = patch.copy() if merged is None else join_patches(merged, patch)

    def metrics(self) -> BatchMetrics:
        """Give the metrics of the present mini-batch, computed when they are read."""
        patches, plan, kept = self._batch_patches, self.plan, self._kept
        if kept is None:
            return BatchMetrics(self.batch_loss, lambda: patches, self.report_not_finite)
        complete = partial(complete_patches, plan, kept, patches)
        return BatchMetrics(self.batch_loss, complete, self.report_not_finite)

    def end_epoch(self) -> dict[str, Any]:
        """Give the metrics of the pass."""
        self.patches = done = self.ordered_patches()
        values = done.metrics()
        loss = values.get(LOSS)
        if (
            loss is not None
            and loss.ndim == 0
            and not np.isfinite(loss)
            and self._warned_of is None
        ):
            self.report_not_finite(loss)
        return values

    def ordered_patches(self) -> PassPatches:
        """The merged patches: loss first, then metrics as planned, then what steps returned."""
        if isinstance(self.patches, PassPatches):  # the pass has ended, and its values are known
            return self.patches
        first = [LOSS, *(name for name, _ in self.plan)]
        names = [name for name in first if name in self.patches]
        names += [name for name in self.patches if name not in names]
        return PassPatches({name: self.patches[name] for name in names})

    def report_not_finite(self, loss: Any) -> None:
        """Raise, warn or do nothing about a loss that is NaN or infinite, as asked."""
        if self.on_nan == "ignore" or self._warned_of == self.batch_idx:
            return
        epoch = "" if self.epoch_idx is None else f"epoch {self.epoch_idx}, "
        is_known = isinstance(loss, float) or isinstance(self.batch_loss, float)
        exact = "" if is_known else "at or before "
        text = (
            f"The loss is {float(loss)} in {epoch}{exact}batch {self.batch_idx} of {self.stage} task "
            f"{self.task.label(self.task_idx)!r} (both counted from 0). Look at the learning rate, "
            "the inputs and divisions or logarithms in the loss; on_nan='warn' goes on."
        )
        if self.on_nan == "warn":
            self._warned_of = self.batch_idx
            warnings.warn(text, RuntimeWarning, stacklevel=2)
            return
        raise NotFiniteError(text)

    def _accumulate_loss(self, loss: float | Tensor) -> None:
        total = self.patches.get(LOSS)
        if total is None:
            self.patches[LOSS] = ValuePatch(self.weight).load(loss)
        else:
            self.patches[LOSS] = join_patches(total, ValuePatch(self.weight).load(loss))

    def _warn_no_backward(self) -> None:
        self.did_backward = True
        if self.trainer.tell_once(f"{self.step_name} without backward"):
            warnings.warn(
                f"{self.step_name} returned without a backward pass: nothing is learnt from its "
                "mini-batch. Call self.loss(model_out, batch_y) or self.backward(value).",
                RuntimeWarning,
                stacklevel=2,
            )
