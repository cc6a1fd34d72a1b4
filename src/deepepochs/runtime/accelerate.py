"""A run on Accelerate: several processes and mixed precision.

Accelerate does the work. Added here are shares of the data without repeated samples, and
sums over the processes in which every sample counts once.

::

    trainer = Trainer(model, loss, opt, device=Accelerator(mixed_precision="bf16"))
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..data.cursor import Cursor
from ..errors import ConfigError
from ..nest.samples import BatchSize
from ..optim.accumulation import NO_WINDOW, AnyWindow, Window
from ..optim.fits import bare
from ..optim.optimizers import Optimizer, Optimizers, params_of
from .base import Streams
from .buckets import Buckets
from .exchange import exchange_of
from .gloo import leave_gloo_at_exit, rejoin, release_at_exit
from .outside_weights import OutsideWeights
from .rounds import ASIDE, Meetings, Rounds, Sizes
from .shares import Shares, is_prepared, sizes_of
from .streams import SeparateStreams

if TYPE_CHECKING:
    from accelerate import Accelerator


class AccelerateRuntime:
    """The processes, precision and device of the user's ``Accelerator``."""

    is_sharded = False
    engine: Any = None
    buckets: Buckets | None = None
    _wrappers: Sequence[DistributedDataParallel] = ()

    def __init__(self, accelerator: Accelerator) -> None:
        refuse_setup(accelerator)
        self.accelerator = accelerator
        self.device: torch.device = accelerator.device
        self.on_cpu = self.device.type == "cpu"
        self.is_main: bool = accelerator.is_main_process
        self.rank: int = accelerator.process_index
        self.num_processes: int = accelerator.num_processes
        self._shares = Shares(accelerator)
        self.streams = SeparateStreams(self.rank) if self.num_processes > 1 else Streams()
        # With shares of different lengths one process would end a window before the others.
        accelerator.gradient_state.plugin_kwargs["sync_with_dataloader"] = False
        if self.num_processes > 1:
            self._exchange = exchange_of(self.rank, self.num_processes)
            leave_gloo_at_exit(self._exchange)

    def __str__(self) -> str:
        several = self.num_processes > 1
        facts = (
            [f"{self.num_processes} processes", torch.distributed.get_backend()] if several else []
        )
        precision = str(self.accelerator.mixed_precision)
        facts += [self.device.type if several else str(self.device)]
        return ", ".join([*facts, precision] if precision != "no" else facts)

    def prepare(self, model: nn.Module, loss: nn.Module | None, opt: Optimizers) -> nn.Module:
        """Prepare model, loss function and optimizers, except those that the user has prepared."""
        several = self.num_processes > 1
        is_frozen = several and not any(weight.requires_grad for weight in model.parameters())
        if is_frozen and not is_prepared(model):
            # DistributedDataParallel refuses a model in which nothing is trained.
            model = self.accelerator.prepare_model(model, evaluation_mode=True)
        model = self._prepare([] if is_frozen or is_prepared(model) else [model], opt) or model
        if loss is not None:
            loss.to(self.device)
        if several:
            release_at_exit(model)
            self._wrappers = [m for m in model.modules() if isinstance(m, DistributedDataParallel)]
            if self.num_processes > 2:  # a sum of two has one order
                self.buckets = Buckets(self._wrappers)
            self._outside = OutsideWeights(self.accelerator, model, self.total)
            for module in (model, loss):
                if module is not None:
                    self._outside.give_values([*module.parameters(), *module.buffers()])
            self._outside.give_values(opt.params)
        return model

    def rejoin(self, model: nn.Module) -> None:
        """Go on in the present process group, which is another one; all processes call it."""
        self._exchange = exchange_of(self.rank, self.num_processes)
        rejoin(model)

    def join_gradients(self, optimizers: Sequence[Optimizer], *, has_samples: bool) -> None:
        self._outside.join(optimizers, has_samples=has_samples)

    def _prepare(self, models: list[nn.Module], opt: Optimizers) -> nn.Module | None:
        """Prepare at most one model and the optimizers that are not prepared; return the model."""
        from accelerate.optimizer import AcceleratedOptimizer

        fresh = [o for o in opt if not isinstance(o.opt, AcceleratedOptimizer)]
        if odd := [o.opt for o in fresh if not isinstance(o.opt, torch.optim.Optimizer)]:
            raise ConfigError(
                f"Accelerate takes subclasses of torch.optim.Optimizer only, and "
                f"{type(odd[0]).__name__} is not one: take another, or leave out the Accelerator."
            )
        todo: list[Any] = [*models, *(o.opt for o in fresh)]
        if not todo:
            return None
        done = self.accelerator.prepare(*todo)
        done = list(done) if isinstance(done, tuple) else [done]
        model: nn.Module | None = done.pop(0) if models else None
        for optimizer, prepared in zip(fresh, done, strict=True):
            optimizer.rewrap(prepared)
        return model

    def backward(self, loss: Tensor) -> None:
        steps = self.accelerator.gradient_accumulation_steps
        if steps == 1 and self.scaler is None:
            loss.backward()  # type: ignore[no-untyped-call]  # to divide by 1 costs 10 us
            return
        if steps > 1 and self.accelerator.step == 0:
            raise ConfigError(
                f"Accelerator(gradient_accumulation_steps={steps}) divides the loss by {steps} and "
                "accumulates only inside of `with self.accelerator.accumulate(self.model):` in a "
                f"step of your own. For whole mini-batches give Trainer(grad_accumulate={steps})."
            )
        self.accelerator.backward(loss)

    def scaled_step(self, optimizers: Sequence[Optimizer], loss: Any) -> None:
        # Accelerate's optimizers update the scaler after each of several: the gradients of the
        # second would be unscaled with the new scale.
        stepped = []
        for optimizer in optimizers:
            own = bare(optimizer.opt)
            if not optimizer.gradients():
                own.step()
                stepped.append(optimizer)
                continue
            calls: list[bool] = []
            handle = own.register_step_post_hook(lambda *_, calls=calls: calls.append(True))
            try:
                self.scaler.step(own)
            finally:
                handle.remove()
            if calls:
                stepped.append(optimizer)
        if any(optimizer.gradients() for optimizer in optimizers):
            self.scaler.update()
        for optimizer in stepped:
            optimizer.after_step(loss)

    def unscale(self, optimizers: Sequence[Optimizer]) -> None:
        if self.scaler is not None:
            for optimizer in optimizers:
                if optimizer.gradients():
                    self.scaler.unscale_(bare(optimizer.opt))

    def clip_by_norm(self, parameters: Iterable[Tensor], max_norm: float, norm_type: float) -> None:
        # Not Accelerate's, which unscales the gradients of all optimizers once more.
        nn.utils.clip_grad_norm_(parameters, max_norm, norm_type)

    def unwrap(self, model: nn.Module) -> nn.Module:
        module: nn.Module = self.accelerator.unwrap_model(model)
        return module

    def sync_gradients(self, model: nn.Module, wanted: bool) -> AbstractContextManager[Any]:
        if wanted or self.num_processes == 1:
            return nullcontext()
        context: AbstractContextManager[Any] = self.accelerator.no_sync(model)
        return context

    def window(self, size: int) -> AnyWindow | None:
        by_hand = HandWindow(self.accelerator, self.join_accumulated)
        return CountedWindow(size, by_hand) if size > 1 else by_hand

    def sizes(self, cursor: Cursor, batch_size: BatchSize) -> Sizes | None:
        if self.num_processes == 1 or callable(batch_size):
            return None
        if batch_size is None:
            return sizes_of(cursor.loader)
        is_known = cursor.length is not None and cursor.has_exact_length
        return Sizes(float(batch_size), cursor.length or 0) if is_known else None

    def rounds(
        self,
        cursor: Cursor,
        hooks: Any = None,
        of_fillers: Any = None,
        sizes: Sizes | None = None,
        meetings: Meetings | None = None,
    ) -> Rounds | None:
        if self.buckets is not None:
            self.buckets.take()
        for wrapper in self._wrappers:
            # All take the buffers of process 0, also where the pass begins within a window: torch
            # leaves that out after a forward call whose gradients stay in their processes.
            wrapper.require_forward_param_sync = True
        several = self.num_processes > 1
        return Rounds(self, cursor, hooks, of_fillers, sizes, meetings) if several else None

    def share(self, loader: Any) -> Any:
        return self._shares.of(loader)

    def shared(self, loader: Any) -> AbstractContextManager[Any]:
        return self._shares.opened(loader)

    def filler(self, loader: Any) -> Any:
        return self._shares.filler(loader)

    def call(self, name: str) -> AbstractContextManager[Any]:
        return nullcontext() if self.num_processes == 1 else self._exchange.call(name)

    def any(self, flag: bool, purpose: str = ASIDE) -> bool:
        return self.total([float(flag)], purpose)[0] > 0

    def total(self, values: list[float], purpose: str = ASIDE) -> list[float]:
        return values if self.num_processes == 1 else self._exchange.total(purpose, values)

    def gather_objects(self, value: Any, purpose: str = ASIDE) -> list[Any]:
        return [value] if self.num_processes == 1 else self._exchange.objects(purpose, value)

    def join_accumulated(self, optimizers: Sequence[Optimizer]) -> None:
        if self.num_processes > 1:
            self._outside.end_window(optimizers)

    @property
    def scaler(self) -> Any:
        return self.accelerator.scaler


class HandWindow:
    """A window that the user counts, with ``accelerator.accumulate`` in a step.

    ``join`` averages the gradients that ``accumulate`` has kept in their processes.
    """

    size = 1
    scale = 1.0
    closes = True

    def __init__(
        self, accelerator: Accelerator, join: Callable[[Sequence[Optimizer]], None]
    ) -> None:
        self.accelerator = accelerator
        self.waiting: dict[int | None, None] = {}
        self._join = join
        self._begin(0)

    def _begin(self, count: int) -> None:
        self.accelerator.step = count
        self.accelerator.sync_gradients = True

    @property
    def count(self) -> int:
        """The calls of ``accumulate`` so far in the present window."""
        return int(self.accelerator.step) % int(self.accelerator.gradient_accumulation_steps)

    def open_batch(self, weight: float, *, is_last: bool | None) -> None:
        """Do nothing: the user may accumulate parts of a mini-batch, too."""

    def leave_out(self) -> None:
        """Do nothing: ``accumulate`` counts."""

    def mean_loss(self, loss: Any) -> Any:
        return loss

    def waits(self, optimizers: Sequence[Optimizer], index: int | None) -> bool:
        if not self.accelerator.sync_gradients:
            self.waiting[index] = None
            return True
        self.waiting.pop(index, None)
        return False

    def due(self, opt: Optimizers, *, at_end: bool, is_last: bool | None) -> list[int | None]:
        """Return the optimizers whose steps wait, if the data end before their window."""
        if not self.waiting or not (at_end or is_last):
            return []
        self._join(opt)
        # The sum of the gradients so far becomes that of the mean loss.
        factor = self.accelerator.gradient_accumulation_steps / max(self.count, 1)
        for weight in params_of(opt):
            if weight.grad is not None:
                weight.grad.mul_(factor)
        self._begin(0)
        return list(self.waiting)

    def state_dict(self) -> dict[str, Any]:
        return {**NO_WINDOW, "by_hand": {"waiting": list(self.waiting), "count": self.count}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.waiting = dict.fromkeys(state["by_hand"]["waiting"])
        self._begin(int(state["by_hand"]["count"]))


class CountedWindow(Window):
    """A window of mini-batches where the user counts with ``accelerator.accumulate``, too."""

    def __init__(self, size: int, by_hand: HandWindow) -> None:
        super().__init__(size)
        self.by_hand = by_hand

    def state_dict(self) -> dict[str, Any]:
        return {**self.by_hand.state_dict(), "window": super().state_dict()["window"]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.by_hand.load_state_dict(state)


def refuse_setup(accelerator: Accelerator) -> None:
    """Raise ``ConfigError`` if the processes are not joined, or a plugin would shard the model."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != world:
        raise ConfigError(
            f"The script was started in {world} processes, and the Accelerator knows of "
            f"{accelerator.num_processes}: without a GPU it joins them with Accelerator(cpu=True)."
        )
    kind = str(accelerator.distributed_type).rpartition(".")[2]
    if kind not in ("FSDP", "DEEPSPEED", "MEGATRON_LM", "XLA"):
        if kind != "MULTI_CPU" or os.environ.get("ACCELERATE_USE_FSDP", "false") != "true":
            return
        kind = "FSDP (which Accelerate would leave out on CPUs, without a word)"
    raise ConfigError(
        f"The Accelerator is set up for {kind}, which is not supported: the state of the model "
        "could not be saved and resumed. To spread a model over processes, shard it with "
        "torch.distributed.fsdp.fully_shard before you give it to the trainer, with an Accelerator "
        "that is not set up for this or device='auto' (docs/distributed.md)."
    )
