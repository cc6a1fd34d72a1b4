"""One pass over one task's data: which task, where in the data, and the present mini-batch.

The steps read the ``Run`` of their pass and record into its ``recorder``; the loop moves it from
one mini-batch to the next. A checkpoint in the middle of an epoch keeps its state.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from .contracts import TrainerView
from .data.cursor import Cursor
from .errors import CheckpointMismatch
from .hooks import StageHooks
from .nest.operations import weigh_batch
from .optim.accumulation import NO_WINDOW, AnyWindow
from .optim.optimizers import Optimizer, Optimizers
from .patches import PatchBase
from .patches.plan import MetricPlan
from .recorder import LossWatch, Recorder, check_same_metrics, patch_kinds
from .runtime.rounds import Rounds
from .stages import Stage


class StepLosses:
    """The losses since the last optimizer step.

    Attributes:
        scale: the factor of the present mini-batch's loss in its backward pass.
        mean: the mean of the losses that the next step is of, for schedulers that want it.
        is_wanted: whether one does.
    """

    def __init__(self, *, is_wanted: bool) -> None:
        self.scale = 1.0
        self.mean: Tensor | None = None
        self.is_wanted = is_wanted
        self._part: Any = 0.0
        self._part_of: int | None = None  # the mini-batch that the part is of

    def begin_batch(self, run: Run) -> None:
        """Weigh a mini-batch against the others of its step and of the other processes."""
        if run.rounds is None:
            weight, scale = float(run.weight), 1.0
        else:
            # Gradients averaged over processes are then those of all samples.
            weight, scale = run.rounds.weigh(run.weight)
        if run.window is not None:
            run.window.open_batch(weight, is_last=run.is_last)
            scale *= run.window.scale
        self.scale = scale

    def keep(self, loss: Tensor, share: float, run: Run) -> None:
        """Add a loss after its backward pass; ``share`` is its part of the mini-batch."""
        if run.rounds is not None:
            # Each process would move its schedule by its own samples, and the rates would part.
            loss = loss.new_tensor(run.rounds.mean(float(loss)))
        if share != 1.0:
            loss = loss * share + (self._part if self._part_of == run.batch_idx else 0.0)
        self._part, self._part_of = loss, run.batch_idx
        self.mean = loss if run.window is None else run.window.mean_loss(loss)

    def load(self, mean: Tensor | None) -> None:
        """Take the mean of a checkpoint: a window may be closed without another mini-batch."""
        self.mean = mean


class Run:
    """One pass over one task's data.

    Attributes:
        place: the index of the task in its stage, from 0, and the number of tasks.
        window: the mini-batches that share an optimizer step; ``None``: each has its own.
        rounds: what several processes agree on; ``None`` in one process.
        started_at: the last mini-batch that an earlier process has done; -1: none.
        batch_idx: the present mini-batch, from 0.
        num_steps: optimizer steps of this pass.
    """

    def __init__(
        self,
        trainer: TrainerView,
        opt: Optimizers,
        stage: Stage,
        task: Any,
        place: tuple[int, int],
        *,
        step_name: str,
        hooks: StageHooks,
        plan: Sequence[MetricPlan],
        cursor: Cursor,
        window: AnyWindow | None,
        rounds: Rounds | None,
        watch: LossWatch,
    ) -> None:
        self.trainer = trainer
        self.opt = opt
        self.stage = stage
        self.task = task
        self.place = place
        self.hooks = hooks
        self.cursor = cursor
        self.window = window
        self.rounds = rounds
        self.is_training = stage is Stage.TRAIN
        self.engine = trainer.runtime.engine if self.is_training else None
        self.recorder = Recorder(plan, step_name, watch)
        self.losses = StepLosses(is_wanted=opt.needs_loss_at("step"))
        self.started_at = self.batch_idx = -1
        self.batch_x: Any = None
        self.batch_y: Any = None
        self.num_steps = 0
        self._weight: float | None = None

    @property
    def task_idx(self) -> int:
        """The index of the task in its stage, from 0."""
        return self.place[0]

    @property
    def num_tasks(self) -> int:
        """The number of tasks of the stage."""
        return self.place[1]

    @property
    def num_batches(self) -> int | None:
        """Mini-batches of this pass; ``None`` if the loader does not know."""
        return self.cursor.length if self.rounds is None else self.rounds.length

    @property
    def is_last(self) -> bool | None:
        """Whether the present mini-batch is the last one; ``None`` if that is not known."""
        total = self.num_batches
        return None if total is None else self.batch_idx + 1 >= total

    @property
    def is_filler(self) -> bool:
        """Whether the present mini-batch only fills up a round, and does not count."""
        return self.rounds is not None and self.rounds.is_filler

    @property
    def resumed(self) -> bool:
        """Whether this pass began in an earlier process."""
        return self.started_at >= 0

    @property
    def weight(self) -> float:
        """The number of samples in the present mini-batch."""
        if self._weight is None:
            self._weight = weigh_batch(self.task.batch_size, self.batch_x, self.batch_y)
        return self._weight

    @property
    def batch_loss(self) -> Any:
        """The loss of the present mini-batch, if one was recorded."""
        return self.recorder.batch_loss

    @property
    def batch_patches(self) -> dict[str, PatchBase]:
        """The patches recorded for the present mini-batch."""
        return self.recorder.batch_patches

    def patches_if_last(self) -> dict[str, PatchBase]:
        """The patches so far; after what may be the last mini-batch, those of all processes."""
        recorder, runtime = self.recorder, self.trainer.runtime
        is_whole = runtime.num_processes == 1 or self.is_last is False
        return recorder.patches if is_whole else recorder.merged(runtime)

    @property
    def batches(self) -> Iterable[tuple[int, Any]]:
        """The mini-batches with their indexes, the same number in every process."""
        return self.cursor if self.rounds is None else self.rounds

    def around(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """Have a step exchange gradients between processes where an optimizer step follows."""
        window = self.window
        if window is None or self.rounds is None:
            return step
        runtime, model = self.trainer.runtime, self.trainer.model

        def step_of_window(batch_x: Any, batch_y: Any, **step_args: Any) -> Any:
            with runtime.sync_gradients(model, window.closes or self.is_last is None):
                return step(batch_x, batch_y, **step_args)

        return step_of_window

    def begin_batch(
        self, batch_idx: int, batch_x: Any, batch_y: Any, *, is_pair: bool = False
    ) -> None:
        """Set the mini-batch before its step; ``split_pair`` has made it if ``is_pair``."""
        self.batch_idx = batch_idx
        self.batch_x = batch_x
        self.batch_y = batch_y
        self._weight = batch_x[0].size(0) if is_pair and self.task.batch_size is None else None
        if self.rounds is not None:
            self.hooks = self.rounds.begin_batch(self.num_steps)
        if self.is_training and (self.window is not None or self.rounds is not None):
            self.losses.begin_batch(self)

    def make_step(self, optimizers: Sequence[Optimizer]) -> None:
        """Step optimizers, with their schedulers where that is due, and drop the gradients."""
        runtime, mean = self.trainer.runtime, self.losses.mean
        if runtime.scaler is not None:
            runtime.scaled_step(optimizers, mean)
        else:
            for optimizer in optimizers:
                optimizer.step("step", mean)
        for optimizer in optimizers:
            optimizer.drop_gradients()
        self.num_steps += 1

    def end_batch(self, returned: Any) -> None:
        """Make the step of a window that closes, and merge what was recorded."""
        recorder, is_filler = self.recorder, False
        if self.window is not None:
            self.finish_window()
        if returned is not None:
            recorder.take_returned(returned)
        if self.is_training and recorder.seen is None:
            self._warn_no_backward()
        if self.rounds is not None:
            is_filler = self.rounds.end_batch()
        weight = self._weight
        if weight is None:
            weight = self.weight if recorder.has_loss else 0.0
        recorder.end_batch(weight, self.batch_idx, counts=not is_filler)

    def finish_window(self, *, at_end: bool = False) -> None:
        """Make the optimizer steps that waited for the end of an accumulation window."""
        if self.window is not None:
            for index in self.window.due(self.opt, at_end=at_end, is_last=self.is_last):
                self.task.optimize(index)

    def state_dict(self) -> dict[str, Any]:
        """Where the pass is, after ``batch_idx`` was done."""
        runtime = self.trainer.runtime
        return {
            "cursor": self.cursor.state_dict(),
            "batch_idx": self.batch_idx,
            "num_steps": self.num_steps,
            "last_loss": self.losses.mean,
            **self.recorder.state_dict(runtime, may_be_last=self.is_last is not False),
            **(NO_WINDOW if self.window is None else self.window.state_dict()),
            "has_samples": self.rounds is not None
            and self.rounds.waits_with_samples(self.num_steps),
            "ended": self.is_filler,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume where ``state`` was taken.

        Raises:
            CheckpointMismatch: the pass has other metrics or another window than there.
        """
        self._check_fits(state)
        self.cursor.load_state_dict(state["cursor"])
        self.started_at = self.batch_idx = int(state["batch_idx"])
        self.num_steps = int(state["num_steps"])
        self.losses.load(state["last_loss"])
        self.recorder.load_state_dict(state)
        if self.window is not None:
            self.window.load_state_dict(state)
        if self.rounds is not None:
            self.rounds.load_state_dict(state)

    def _check_fits(self, state: Mapping[str, Any]) -> None:
        where = f"the {self.stage} pass of task {self.task.label(self.task_idx)!r}"
        check_same_metrics(where, state["metrics"], patch_kinds(self.recorder.plan))
        saved = 1 if state["window"] is None else int(state["window"]["size"])
        here = 1 if self.window is None else self.window.size
        if saved != here:
            raise CheckpointMismatch(
                f"The checkpoint was taken inside {where} with grad_accumulate={saved}, and it is "
                f"{here} here: give the same, or start from a checkpoint of the end of an epoch."
            )

    def _warn_no_backward(self) -> None:
        name = self.recorder.step_name
        if self.trainer.tell_once(f"{name} without backward"):
            warnings.warn(
                f"{name} returned without a backward pass: nothing is learnt from its "
                "mini-batch. Call self.loss(model_out, batch_y) or self.backward(value).",
                RuntimeWarning,
                stacklevel=2,
            )
