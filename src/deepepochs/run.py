"""One pass over one task's data: which task, where in the data, and the present mini-batch.

The steps read the ``Run`` of their pass and record into its ``recorder``; the loop moves it from
one mini-batch to the next. A checkpoint in the middle of an epoch keeps its state.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .contracts import TrainerView
from .data.cursor import Cursor
from .errors import CheckpointMismatch, ConfigError, warn_user
from .faults.returned import no_place_to_record
from .faults.words import PassName
from .hooks import StageHooks
from .nest.samples import BatchSize, asked_weight, guess
from .optim.accumulation import NO_WINDOW, AnyWindow
from .optim.optimizers import Optimizer, Optimizers
from .patches import PatchBase
from .patches.plan import MetricPlan
from .patches.resumed import check_same_metrics, patch_kinds
from .recorder import LossWatch, Recorder
from .runtime.rounds import Rounds
from .stages import Stage


class Weigher:
    """What the mini-batches of a pass weigh in means and in windows, settled before each step.

    Attributes:
        batch_size: a number, a function of inputs and target, or ``None``: samples are counted.
        weight: of the present mini-batch.
        num_samples: of the present mini-batch; ``None`` if nothing in it tells.
        doubt: what to warn of, if the step is done.
    """

    def __init__(self, batch_size: BatchSize) -> None:
        self.batch_size = batch_size
        self.weight = 1.0
        self.num_samples: int | None = None
        self.doubt = ""
        self._first: int | None = None  # the number of samples of the first mini-batch

    def load(self, weight: float) -> None:
        """Take the weight of the mini-batch of a checkpoint."""
        self.weight = weight

    def open_pair(self, num_samples: int) -> None:
        """Begin a mini-batch of an input and a target with this length."""
        self.weight = self.num_samples = num_samples

    def open_batch(self, batch_x: Any, batch_y: Any) -> None:
        """Begin any mini-batch.

        Raises:
            ConfigError: a ``batch_size`` function did not return a number of at least 0.
        """
        self.num_samples, self.doubt = guess(batch_x, batch_y)
        if self.batch_size is None:
            self.weight = 1 if self.num_samples is None else self.num_samples
        elif callable(self.batch_size):
            self.weight, self.doubt = asked_weight(self.batch_size, batch_x, batch_y), ""
        else:
            self.weight, self.doubt = self.batch_size, self._misfit()

    def part(self, share: float, num_samples: int) -> Weigher:
        """Give what a part of the present mini-batch weighs."""
        part = Weigher(self.batch_size)
        part.weight, part.num_samples = self.weight * share, num_samples
        return part

    def _misfit(self) -> str:
        """Say that mini-batches differ in length, and one number is given for all of them."""
        number = self.num_samples
        if self._first is None:
            self._first = number
        # With 1 or 0 it is a choice to weigh all mini-batches equally: no warning.
        if number is None or number == self._first or self.batch_size in (0, 1):
            return ""
        return (
            f"batch_size={self.batch_size} was given, and one mini-batch has {self._first} samples, "
            f"another one {number}: both weigh {self.batch_size} in means. Leave batch_size out, "
            "or give a function (batch_x, batch_y) -> number."
        )


class StepLosses:
    """The losses since the last optimizer step.

    Args:
        weigher: what the mini-batches of the pass weigh.
        window: the mini-batches that share an optimizer step, or ``None``.
        rounds: what several processes agree on, or ``None``.
        is_wanted: whether a scheduler wants the mean of the losses.
        weights: those that the steps change.

    Attributes:
        scale: the factor of the present mini-batch's loss in its backward pass.
        mean: the mean of the losses that the next step is of, if it is wanted.
    """

    def __init__(
        self,
        weigher: Weigher,
        window: AnyWindow | None,
        rounds: Rounds | None,
        *,
        is_wanted: bool,
        weights: Sequence[Tensor] = (),
    ) -> None:
        self.scale = 1.0
        self.mean: Tensor | None = None
        self.is_wanted = is_wanted
        self._weigher = weigher
        self._window = window
        self._rounds = rounds
        self._part: Any = 0.0
        self._part_of: int | None = None  # the mini-batch that the part is of
        self._share = 1.0  # of a part in a mini-batch that is split
        self._weights = weights
        self._before = self._count_changes()

    def _count_changes(self) -> list[int]:
        # Torch counts the changes of each weight, whoever makes them.
        return [weight._version for weight in self._weights]

    @property
    def have_changed_weights(self) -> bool:
        """Whether a weight was changed since this object was made."""
        return self._before != self._count_changes()

    def begin_batch(self, *, is_last: bool | None) -> None:
        """Weigh a mini-batch against the others of its step and of the other processes."""
        weight, scale = float(self._weigher.weight), 1.0
        if self._rounds is not None:
            # Gradients averaged over processes are then those of all samples.
            weight, scale = self._rounds.weigh(weight)
            if self._rounds.is_empty:
                return
        if self._window is not None:
            self._window.open_batch(weight, is_last=is_last)
            scale *= self._window.scale
        self.scale = scale

    def keep(self, loss: Tensor, share: float, batch_idx: int) -> None:
        """Add a loss after its backward pass; ``share`` is its part of the mini-batch."""
        rounds = self._rounds
        if rounds is not None:
            # Each process would move its schedule by its own samples, and the rates would part.
            loss = loss.new_tensor(rounds.mean(float(loss)))
        if not (self._weigher.weight if rounds is None else rounds.weight):
            # A mini-batch that weighs nothing has no loss: a schedule gets the one before, or NaN.
            self.mean = loss.new_tensor(math.nan) if self.mean is None else self.mean
            return
        share *= self._share
        if share != 1.0:
            loss = loss * share + (self._part if self._part_of == batch_idx else 0.0)
        self._part, self._part_of = loss, batch_idx
        self.mean = loss if self._window is None else self._window.mean_loss(loss)

    @contextmanager
    def part(self, share: float) -> Iterator[None]:
        """Let the losses in the block weigh their share of the mini-batch."""
        whole = self.scale
        self.scale, self._share = whole * share, share
        try:
            yield
        finally:
            self.scale, self._share = whole, 1.0

    def forget_parts(self) -> None:
        """Forget the parts of a mini-batch whose step begins anew."""
        self._part_of = None

    def load(self, mean: Tensor | None) -> None:
        """Take the mean of a checkpoint: a window may be closed without another mini-batch."""
        self.mean = mean


class Run:
    """One pass over one task's data.

    Attributes:
        place: the index of the task in its stage, from 0, and the number of tasks.
        name: what the pass is called in messages.
        weigher: what the mini-batches weigh in means and in windows.
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
        name: PassName,
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
        self.name = name
        self.hooks = hooks
        self.cursor = cursor
        self.window = window
        self.rounds = rounds
        self.is_training = stage is Stage.TRAIN
        self.engine = trainer.runtime.engine if self.is_training else None
        self.recorder = Recorder(plan, step_name, watch, trainer.tell_once)
        self.weigher = Weigher(task.batch_size)
        is_wanted = opt.needs_loss_at("step")
        weights = opt.params if self.is_training else ()
        self.losses = StepLosses(self.weigher, window, rounds, is_wanted=is_wanted, weights=weights)
        self.started_at = self.batch_idx = -1
        self.batch_x: Any = None
        self.batch_y: Any = None
        self.num_steps = 0

    @property
    def task_idx(self) -> int:
        """The index of the task in its stage, from 0."""
        return self.place[0]

    @property
    def where(self) -> str:
        """What the present mini-batch is called in messages, which count from 1."""
        return self.name.batch(self.batch_idx, self.num_batches)

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
        """Whether the present mini-batch is the last one; ``None`` if that is not known.

        The length of a stream or of a loader of the user's own may be wrong.
        """
        total = self.num_batches if self.cursor.has_exact_length else None
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
        """What the present mini-batch weighs: the number of its samples, or ``batch_size``."""
        return self.weigher.weight

    @property
    def num_samples(self) -> int | None:
        """The number of samples in the present mini-batch; ``None`` if it is not known."""
        return self.weigher.num_samples

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

    def begin(self) -> Iterable[tuple[int, Any]]:
        """Give the mini-batches with their indexes, the same number in every process."""
        self.recorder.open()
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
    ) -> bool:
        """Set the mini-batch before its step; ``split_pair`` has made it if ``is_pair``.

        Returns:
            Whether it is left out: no process has one in this round.
        """
        self.batch_idx = batch_idx
        self.batch_x = batch_x
        self.batch_y = batch_y
        weigher = self.weigher
        if is_pair and weigher.batch_size is None:
            weigher.open_pair(batch_x[0].shape[0])
        else:
            weigher.open_batch(batch_x, batch_y)
        if self.rounds is not None:
            self.hooks = self.rounds.begin_batch(self.num_steps)
        if self.is_training and (self.window is not None or self.rounds is not None):
            self.losses.begin_batch(is_last=self.is_last)
            if self.rounds is not None and self.rounds.is_empty:
                self.rounds.end_batch()
                if self.is_last and self.window is not None:
                    self._close_unexchanged(self.window)
                return True
        return False

    def skip(self, batch_idx: int) -> None:
        """Leave out a mini-batch that is ``None``, in one process."""
        self.batch_idx = batch_idx
        self.cursor.skip()

    @property
    def is_empty(self) -> bool:
        """Whether no mini-batch has come so far but those that were left out."""
        left_out = self.cursor.num_skipped if self.rounds is None else self.rounds.num_empty
        return self.batch_idx + 1 == left_out

    def without_weight(self, loss: Tensor) -> Tensor:
        """Give a loss for the backward pass of a mini-batch that weighs nothing.

        The mean over no samples is 0/0, and so are its gradients, often. Instead each weight gets
        the gradient 0, which the other processes wait for.
        """
        if self.trainer.runtime.is_sharded or math.isfinite(loss.item()):
            return loss
        weights = {id(w): w for w in [*self.trainer.model.parameters(), *self.opt.params]}
        sums = [w.sum() for w in weights.values() if w.requires_grad]
        return torch.stack([loss.new_zeros(()), *(s.to(loss) * 0 for s in sums)]).sum()

    def make_step(
        self, optimizers: Sequence[Optimizer], closure: Callable[[], Tensor] | None = None
    ) -> None:
        """Step optimizers, with their schedulers where that is due, and drop the gradients."""
        runtime, mean = self.trainer.runtime, self.losses.mean
        if closure is not None:
            for optimizer in optimizers:
                optimizer.opt.step(closure)  # type: ignore[arg-type]
                optimizer.after_step(self.losses.mean)  # the closure has computed it
        elif runtime.scaler is not None:
            runtime.scaled_step(optimizers, mean)
        else:
            for optimizer in optimizers:
                optimizer.step("step", mean)
        for optimizer in optimizers:
            optimizer.drop_gradients()
        self.num_steps += 1

    def record(self, name: str, value: Any, weight: Any, how: str) -> None:
        """Record a value in the present mini-batch, after it, or after the pass.

        Raises:
            LoopException: the pass has not come to its mini-batches yet.
            ConfigError, MetricError: an argument that cannot be right.
        """
        from .patches.recorded import recorded_patch  # a run that records nothing does not need it

        recorder = self.recorder
        if not recorder.is_open:
            raise no_place_to_record(name)
        if weight is None:
            weight = recorder.weight if recorder.is_over else self.weigher.weight
        elif how != "mean":
            raise ConfigError(
                f"record({name!r}, how={how!r}, weight={weight!r}): a weight is that of a mean. "
                "Leave it out."
            )
        patch = recorded_patch(name, value, weight, how, (self.task_idx, self.batch_idx))
        if recorder.is_over or not self.is_filler:
            recorder.record(name, patch, how, self.batch_idx)

    @contextmanager
    def unrecorded(self, nothing: Any) -> Iterator[None]:
        """Record into ``nothing`` in the block, which computes a mini-batch again."""
        kept = self.recorder, self.losses, self.hooks
        self.recorder = self.losses = nothing
        self.hooks = self.hooks._replace(metrics=())
        try:
            yield
        finally:
            self.recorder, self.losses, self.hooks = kept

    @contextmanager
    def part(
        self, batch_x: Any, batch_y: Any, share: float, num_samples: int, window: Any
    ) -> Iterator[None]:
        """Have the step in the block see a part of the mini-batch."""
        kept = self.batch_x, self.batch_y, self.window, self.weigher
        self.batch_x, self.batch_y, self.window = batch_x, batch_y, window
        self.weigher = self.weigher.part(share, num_samples)
        try:
            with self.losses.part(share):
                yield
        finally:
            self.batch_x, self.batch_y, self.window, self.weigher = kept

    def end_batch(self, returned: Any) -> None:
        """Make the step of a window that closes, and merge what was recorded."""
        recorder, is_filler = self.recorder, False
        if self.window is not None:
            if recorder.seen is None:
                self._skip_in_window(self.window)
            self.finish_window()
        if returned is not None:
            recorder.take_returned(returned, self.weigher.weight)
        if self.is_training and recorder.seen is None:
            self._warn_no_backward()
        if self.rounds is not None:
            is_filler = self.rounds.end_batch()
        recorder.end_batch(self.weigher.weight, self.batch_idx, counts=not is_filler)
        doubt = "" if is_filler else self.weigher.doubt
        if doubt and self.trainer.tell_once("what a mini-batch weighs"):
            warn_user(doubt, UserWarning)

    def _skip_in_window(self, window: AnyWindow) -> None:
        """Leave a mini-batch without a backward pass out of its window."""
        window.leave_out()
        if self.rounds is not None and window.size > 1 and window.closes and window.count > 1:
            # Its backward pass would have exchanged the gradients of the whole window.
            self.trainer.runtime.join_accumulated(self.opt)

    def _close_unexchanged(self, window: AnyWindow) -> None:
        """Exchange the gradients of a window whose last mini-batch was left out."""
        if window.size > 1 and window.count and not window.closes:
            self.trainer.runtime.join_accumulated(self.opt)

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
            "weight": self.weigher.weight,
            "last_loss": self.losses.mean,
            **self.recorder.state_dict(runtime, may_be_last=self.is_last is not False),
            **(NO_WINDOW if self.window is None else self.window.state_dict()),
            "has_samples": self.rounds is not None
            and self.rounds.waits_with_samples(self.num_steps),
            "ended": self.rounds is not None and self.rounds.has_ended,
            "modes": [name for name, part in self._modules() if part.training != self.is_training],
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
        self.weigher.load(state.get("weight", 1.0))  # earlier files do not have it
        self.losses.load(state["last_loss"])
        self.recorder.load_state_dict(state, self.batch_idx)
        if self.window is not None:
            self.window.load_state_dict(state)
        if self.rounds is not None:
            self.rounds.load_state_dict(state)

    def restore_modes(self, state: Mapping[str, Any]) -> None:
        """Put each module in the mode, training or not, that it had in ``state``."""
        others = state.get("modes")  # earlier files do not have them
        if others is not None:
            for name, module in self._modules():
                module.training = self.is_training is not (name in others)

    def _modules(self) -> Iterable[tuple[str, nn.Module]]:
        model = self.trainer.runtime.unwrap(self.trainer.model)
        modules: Iterable[tuple[str, nn.Module]] = model.named_modules()
        return modules

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
        if not self.trainer.tell_once(f"{name} without backward"):
            return
        text = (
            f"{name} returned without a backward pass: nothing is learnt from its "
            "mini-batch.\nCall self.loss(model_out, batch_y) or self.backward(value)."
        )
        if not self.num_steps and self.losses.have_changed_weights:
            text = (
                f"{name} trained the weights without self.backward(): its loss is not recorded, and "
                "grad_accumulate, gradient clipping and mixed precision do nothing.\nCall "
                "self.loss(model_out, batch_y), or self.backward(value) and self.optimize(), "
                "instead of loss.backward() and opt.step()."
            )
        warn_user(text, RuntimeWarning)
