"""What the checks look at: the trainer, its tasks, and what some training steps have shown.

The steps are made once for all checks, each task by itself. They train the model itself, which is
put back: see ``trainer.trying``.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.data import DataLoader, IterableDataset

from ..callbacks.base import HOOKS, Callback
from ..errors import StopLoopException
from ..faults.words import DEFAULT_STEP
from ..fit.plan import FitPlan, plan_try
from ..fit.session import Kind
from ..hooks import is_of_library
from ..loop import run_pass
from ..stages import Stage
from ..steps import Steps, resolve_step, step_name
from ..task import VERBS, EpochTask

STEPS = 8  # mini-batches of each task: two tasks in turn, or layers used now and then, show in them
MOST_STEPS = 64  # with gradient accumulation there are more, for three optimizer steps
NORMS = (nn.modules.batchnorm._BatchNorm,)
DROPOUTS = (nn.modules.dropout._DropoutNd,)


STEERING = [
    name for name in HOOKS if "before" in name and not name.startswith(("on_before_val", "on_before_test"))
] + ["on_after_backward"]  # fmt: skip


class LayerCall(NamedTuple):
    """The first call of a layer in a pass."""

    name: str
    module: nn.Module
    training: bool
    of_whole: bool
    """Whether the whole model was in training mode."""
    first: Any
    """The first argument."""


class GradientStep(NamedTuple):
    """The gradients of one optimizer step, before they are clipped."""

    norms: dict[int, float | None]
    """By ``id`` of the weight; ``None`` where it has no gradient."""
    largest: float
    """The largest absolute value of an entry."""

    @property
    def total(self) -> float:
        """The norm of all."""
        return float(sum(norm**2 for norm in self.norms.values() if norm is not None) ** 0.5)


class Probe(Callback):
    """Notes what some steps of one task show, and ends after them."""

    order = -(10**6)  # first before an optimizer step: gradients are not clipped yet

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.batches: list[tuple[Any, Any]] = []
        self.sizes: list[int | None] = []
        self.losses: list[float] = []
        self.outputs: list[Any] = []
        self.gradients: list[GradientStep] = []
        self.load_s: list[float] = []
        self.step_s: list[float] = []
        self._since_s = time.perf_counter()

    @property
    def done(self) -> bool:
        """Whether enough mini-batches were seen."""
        return len(self.sizes) >= self.steps

    def on_before_train_batch(self, trainer: Any, batch_x: Any, batch_y: Any, **_: Any) -> None:
        self.load_s.append(self._lap_s())
        self.batches.append((batch_x, batch_y))

    def on_train_metrics(self, model_out: Any, **_: Any) -> None:
        if not self.outputs and len(self.batches) == 1:
            self.outputs.append(model_out)

    def on_before_optimize(self, trainer: Any, optimize_index: int | None) -> None:
        chosen = trainer.opt if optimize_index is None else [trainer.opt[optimize_index]]
        norms: dict[int, float | None] = {}
        largest = 0.0
        for weight in (weight for optimizer in chosen for weight in optimizer.params):
            if weight.grad is None and not weight.requires_grad:  # a callback freezes it for now
                continue
            norms[id(weight)] = None
            if weight.grad is not None:
                grad = weight.grad.coalesce().values() if weight.grad.is_sparse else weight.grad
                norms[id(weight)] = float(grad.norm())
                largest = max(largest, float(grad.abs().max()) if grad.numel() else 0.0)
        self.gradients.append(GradientStep(norms, largest))

    def on_after_train_batch(self, trainer: Any, metrics: Any, batch_idx: int) -> None:
        self.step_s.append(self._lap_s())
        self.sizes.append(trainer.run.num_samples)
        if "loss" in metrics and trainer.run.weight:  # else it may be 0/0
            self.losses.append(float(metrics["loss"]))
        if self.done:
            trainer.stop("enough was seen")
        self._since_s = time.perf_counter()

    on_before_val_batch = on_before_train_batch
    on_val_metrics = on_train_metrics
    on_after_val_batch = on_after_train_batch

    def _lap_s(self) -> float:
        now_s = time.perf_counter()
        lap_s, self._since_s = now_s - self._since_s, now_s
        return lap_s


class RandomCalls(TorchFunctionMode):
    """Notes calls of dropout functions that drop something."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if name in ("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout"):
            share, acts = [*args[1:3], *(given.get("p", 0.5), given.get("training", True))][:2]
            if given.get("training", acts) and given.get("p", share):
                self.names.append(f"F.{name}")
        elif name == "scaled_dot_product_attention":
            share = args[4] if len(args) > 4 else given.get("dropout_p", 0.0)
            if share:
                self.names.append(f"F.{name}")
        return func(*args, **given)


class Seen(NamedTuple):
    """What the steps of one task have shown."""

    task: EpochTask
    probe: Probe
    calls: list[LayerCall]
    warned: list[str]
    error: Exception | None
    random_calls: tuple[str, ...] = ()


class Look:
    """What the checks of one call look at.

    Attributes:
        trainer: the trainer.
        plan: that of the fit.
        options: what the fit would be given.
        epochs: those of the fit.
        tries: what steps on one mini-batch have shown, by the ``id`` of the task.
        samples: what was read of data sets, by the ``id`` of the task.
    """

    def __init__(
        self, trainer: Any, plan: FitPlan, options: Mapping[str, Any], epochs: range
    ) -> None:
        self.trainer = trainer
        self.plan = plan
        self.options = options
        self.epochs = epochs
        self.tries: dict[int, Any] = {}
        self.samples: dict[int, Any] = {}
        self.model: nn.Module = trainer.runtime.unwrap(trainer.model)

    @property
    def training(self) -> list[EpochTask]:
        """The training tasks."""
        return self.plan.tasks[Stage.TRAIN]

    @property
    def validation(self) -> list[EpochTask]:
        """The validation tasks."""
        return self.plan.tasks[Stage.VAL]

    @cached_property
    def seen(self) -> list[Seen]:
        """Some training steps of each task."""
        num = min(max(STEPS, 3 * self.trainer.grad_accumulate), MOST_STEPS)
        return [self._train(task, num) for task in self.training]

    @cached_property
    def seen_in_validation(self) -> list[Seen]:
        """The first mini-batch of each validation task."""
        return [self._validate(task) for task in self.validation]

    @property
    def failed(self) -> bool:
        """Whether a training step raises an error."""
        return any(seen.error is not None for seen in self.seen)

    def is_plain(self, task: EpochTask) -> bool:
        """Whether the library trains on a task: model, loss, backward, optimizers."""
        owners = (type(task), type(self.trainer))
        own = any(
            getattr(cls, verb) is not getattr(Steps, verb) for cls in owners for verb in VERBS
        )
        step = resolve_step(task, self.trainer, Stage.TRAIN)
        return not own and not self.trainer.has_own_split and step_name(step) == DEFAULT_STEP

    def name_of(self, weight: Tensor) -> str:
        """The name of a weight of the model, or of the loss."""
        return self._names.get(id(weight), f"a weight {list(weight.shape)}")

    @cached_property
    def _names(self) -> dict[int, str]:
        roots = [self.trainer.loss_module, self.model]
        named = [root.named_parameters() for root in roots if root is not None]
        return {id(weight): name for pairs in named for name, weight in pairs}

    @cached_property
    def is_steered(self) -> bool:
        """Whether a callback of the user's may set modes or rates, which tries do not call."""
        return any(
            getattr(type(callback), hook) is not getattr(Callback, hook)
            for callback in self.trainer.callbacks
            if not (is_of_library(type(callback)) or callback.acts_in_tries)
            for hook in STEERING
        )

    @property
    def is_limited(self) -> bool:
        """Whether the trainer limits steps, time or mini-batches, as in a trial."""
        limits = self.trainer.limits
        return bool(limits.acts_in_epochs or limits.batches or limits.overfit or limits.dry_run)

    @property
    def is_compiled(self) -> bool:
        """Whether the model is compiled, so that its layers cannot be watched."""
        return any(
            getattr(m, "_compiled_call_impl", None) is not None or hasattr(m, "_orig_mod")
            for m in self.model.modules()
        )

    def _train(self, task: EpochTask, num: int) -> Seen:
        probe, plan = Probe(num), plan_try(self.trainer, [task])

        def steps(session: Any) -> None:
            while not probe.done:
                run_pass(session, task, Stage.TRAIN)

        return self._watched(task, probe, plan, steps)

    def _validate(self, task: EpochTask) -> Seen:
        probe, plan = Probe(1), FitPlan({Stage.VAL: [task]}, {Stage.VAL: []}, "tensor")
        drawn = RandomCalls()

        def steps(session: Any) -> None:
            with nullcontext() if self.is_compiled else drawn:
                run_pass(session, task, Stage.VAL)

        seen = self._watched(task, probe, plan, steps)
        return seen._replace(random_calls=tuple(dict.fromkeys(drawn.names)))

    def _watched(
        self, task: EpochTask, probe: Probe, plan: FitPlan, steps: Callable[[Any], None]
    ) -> Seen:
        error = None
        with layers_watched(self.model, skip=self.is_compiled) as calls, told() as warned:
            try:
                with self.trainer.trying(Kind.CHECK, plan, probe) as session:
                    steps(session)
            except StopLoopException:
                pass
            except Exception as raised:
                error = raised
        return Seen(task, probe, calls, warned, error)


@contextmanager
def told() -> Iterator[list[str]]:
    """Collect the texts of the library's and the user's warnings in place of showing them."""
    texts: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield texts
    texts += [str(one.message) for one in caught if one.category in (UserWarning, RuntimeWarning)]


@contextmanager
def layers_watched(model: nn.Module, *, skip: bool) -> Iterator[list[LayerCall]]:
    """Note the first call of each layer in a block."""
    calls: list[LayerCall] = []
    known: set[int] = set()

    def note(name: str) -> Callable[..., None]:
        def before(module: nn.Module, inputs: Any) -> None:
            if id(module) not in known:
                known.add(id(module))
                first = inputs[0].detach() if inputs and isinstance(inputs[0], Tensor) else None
                calls.append(LayerCall(name, module, module.training, model.training, first))

        return before

    modules = (
        [] if skip or isinstance(model, torch.jit.ScriptModule) else list(model.named_modules())
    )
    handles = [module.register_forward_pre_hook(note(name)) for name, module in modules]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def as_data_loader(task: EpochTask) -> DataLoader[Any] | None:
    """The ``DataLoader`` of a task over a data set with indexes, or ``None``."""
    loader = task.dataloader
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        return None
    has_places = hasattr(loader.dataset, "__getitem__") and hasattr(loader.dataset, "__len__")
    return loader if has_places else None
