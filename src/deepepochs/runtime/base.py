"""Where a run computes: the device, the backward pass, the optimizer's step, the processes.

A trainer has one runtime and does not need to know which. ``LocalRuntime`` is one process
on one device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from .. import rng
from ..arguments import found, place_of
from ..data.cursor import Cursor
from ..errors import CheckpointError, CheckpointMismatch, ConfigError, ConfigTypeError
from ..nest.samples import BatchSize
from ..optim.accumulation import AnyWindow, Window
from ..optim.optimizers import Optimizer, Optimizers
from .rounds import ASIDE, Meetings, Processes, Rounds, Sizes

if TYPE_CHECKING:
    from .buckets import Buckets


class Streams:
    """The random streams of a run in one process: those of the script."""

    def opened(self) -> AbstractContextManager[None]:
        """Draw as inside of a call during the block, and after it as outside."""
        return nullcontext()

    def separate(self) -> None:
        """Draw other numbers than the other processes, also if a hook has seeded all alike."""

    def state_dict(self) -> dict[str, Any]:
        """The random states, to be saved."""
        return rng.get_state()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the random states, inside of a call those of a call.

        Raises:
            CheckpointMismatch: they are malformed.
        """
        rng.set_state(state)


class Runtime(Processes, Protocol):
    """What a trainer needs of the place where it computes."""

    device: torch.device
    on_cpu: bool
    accelerator: Any
    is_main: bool
    rank: int
    is_sharded: bool
    streams: Streams
    buckets: Buckets | None

    def prepare(self, model: nn.Module, loss: nn.Module | None, opt: Optimizers) -> nn.Module:
        """Prepare model, loss function and optimizers; return the model to call."""

    def backward(self, loss: Tensor) -> None:
        """Compute the gradients of a scalar."""

    @property
    def engine(self) -> Callable[..., Any] | None:
        """The backward pass without its checks, see ``autograd_engine``; or ``None``."""

    def window(self, size: int) -> AnyWindow | None:
        """Make the window of a pass; ``None`` if each mini-batch has its own step."""

    def sizes(self, cursor: Cursor, batch_size: BatchSize) -> Sizes | None:
        """Give what the mini-batches of this process weigh, if that is known before the pass."""

    def rounds(
        self,
        cursor: Cursor,
        hooks: Any = None,
        of_fillers: Any = None,
        sizes: Sizes | None = None,
        meetings: Meetings | None = None,
    ) -> Rounds | None:
        """Make the rounds of a pass over several processes; ``None`` in one process."""

    def join_gradients(self, optimizers: Sequence[Optimizer], *, has_samples: bool) -> None:
        """Average the gradients that the backward pass has not exchanged."""

    def join_accumulated(self, optimizers: Sequence[Optimizer]) -> None:
        """Average the model's gradients that were kept in their processes for a window."""

    def scaled_step(self, optimizers: Sequence[Optimizer], loss: Any) -> None:
        """Step optimizers through the scaler, and the schedulers that are due."""

    def unscale(self, optimizers: Sequence[Optimizer]) -> None:
        """Undo the fp16 scaling of the gradients."""

    def clip_by_norm(self, parameters: Iterable[Tensor], max_norm: float, norm_type: float) -> None:
        """Scale the gradients so that their joint norm is at most ``max_norm``."""

    def unwrap(self, model: nn.Module) -> nn.Module:
        """Return the module without the runtime's wrappers."""

    def sync_gradients(self, model: nn.Module, wanted: bool) -> AbstractContextManager[Any]:
        """Keep gradients in this process unless all processes need them now (``wanted``)."""

    def call(self, name: str) -> AbstractContextManager[Any]:
        """Name the call that the block is, which all processes make."""

    def share(self, loader: Any) -> Any:
        """Return the loader of this process's share of the data, each time the same."""

    def shared(self, loader: Any) -> AbstractContextManager[Any]:
        """Give that loader for one pass, which all processes begin together."""

    @property
    def scaler(self) -> Any:
        """The fp16 gradient scaler, or ``None``."""


class LocalRuntime:
    """One process on one device; the argument is that of ``pick_device``."""

    accelerator: Any = None
    is_main = True
    rank = 0
    num_processes = 1
    is_sharded = False
    scaler: Any = None
    buckets: Buckets | None = None

    def __init__(self, device: str | torch.device | None = None) -> None:
        self.device = pick_device(device)
        self.on_cpu = self.device.type == "cpu"
        self.streams = Streams()

    def __str__(self) -> str:
        return str(self.device)

    def prepare(self, model: nn.Module, loss: nn.Module | None, opt: Optimizers) -> nn.Module:
        if loss is not None:
            loss.to(self.device)
        return model.to(self.device)

    # Torch's own function: tracebacks have one frame less.
    backward = staticmethod(torch.autograd.backward)

    @property
    def engine(self) -> Callable[..., Any] | None:
        # It was never tested on another device.
        return autograd_engine() if self.on_cpu else None

    def join_gradients(self, optimizers: Sequence[Optimizer], *, has_samples: bool) -> None:
        return None

    def join_accumulated(self, optimizers: Sequence[Optimizer]) -> None:
        return None

    def scaled_step(self, optimizers: Sequence[Optimizer], loss: Any) -> None:
        raise NotImplementedError("one process without an Accelerator has no scaler")

    def unscale(self, optimizers: Sequence[Optimizer]) -> None:
        return None

    def window(self, size: int) -> AnyWindow | None:
        return Window(size) if size > 1 else None

    def sizes(self, cursor: Cursor, batch_size: BatchSize) -> Sizes | None:
        return None

    def rounds(
        self,
        cursor: Cursor,
        hooks: Any = None,
        of_fillers: Any = None,
        sizes: Sizes | None = None,
        meetings: Meetings | None = None,
    ) -> Rounds | None:
        return None

    def clip_by_norm(self, parameters: Iterable[Tensor], max_norm: float, norm_type: float) -> None:
        nn.utils.clip_grad_norm_(parameters, max_norm, norm_type)

    def unwrap(self, model: nn.Module) -> nn.Module:
        return model

    def sync_gradients(self, model: nn.Module, wanted: bool) -> AbstractContextManager[Any]:
        return nullcontext()

    def share(self, loader: Any) -> Any:
        return loader

    def shared(self, loader: Any) -> AbstractContextManager[Any]:
        return nullcontext(loader)

    def filler(self, loader: Any) -> Any:
        raise NotImplementedError("one process has all the data")

    def call(self, name: str) -> AbstractContextManager[Any]:
        return nullcontext()

    def any(self, flag: bool, purpose: str = ASIDE) -> bool:
        return flag

    def total(self, values: list[float], purpose: str = ASIDE) -> list[float]:
        return values

    def gather_objects(self, value: Any, purpose: str = ASIDE) -> list[Any]:
        return [value]


@contextmanager
def together(runtime: Processes, doing: str) -> Iterator[None]:
    """Raise in every process if the block raises in one, so that all stay at the same place.

    Raises:
        CheckpointError: another process has refused it; of the class of its error.
    """
    if runtime.num_processes == 1:
        yield
        return
    own: Exception | None = None
    try:
        yield
    except Exception as error:
        own = error
    kind = type(own) if isinstance(own, CheckpointError) else CheckpointMismatch
    fault = None if own is None else (kind, str(own))
    faults = runtime.gather_objects(fault, f"is ready to {doing}")
    if own is not None:
        raise own
    for rank, fault in enumerate(faults):
        if fault is not None:
            kind, text = fault
            raise kind(f"Process {rank} cannot {doing}: {text}")


def in_main_process(
    runtime: Runtime, doing: str, action: Callable[..., Any], *arguments: Any
) -> Any:
    """Call a function in the main process; if it fails, raise in every process.

    Returns:
        What the function returned; ``None`` in the other processes.
    """
    with together(runtime, doing):
        return action(*arguments) if runtime.is_main else None


@contextmanager
def modes_kept(*roots: nn.Module | None) -> Iterator[None]:
    """Put all modules of some models back into the mode that they have now, after the block.

    >>> model = nn.Sequential(nn.Linear(2, 1), nn.Dropout().eval())
    >>> with modes_kept(model):
    ...     mode = model.eval().training
    >>> mode, model.training, model[1].training
    (False, True, False)
    """
    modules = {module: None for root in roots if root is not None for module in root.modules()}
    modes = [(module, module.training) for module in modules]
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def compile_calls(model: nn.Module) -> None:
    """Compile the calls of a model, in place.

    ``Module.compile()`` does nothing for a container of torch's own such as ``nn.Sequential``:
    Dynamo skips torch's own frames, and there is no other (pytorch/pytorch#150915).
    """
    model.compile()
    if type(model).forward.__module__.startswith("torch.nn."):

        def call(*args: Any, **kwargs: Any) -> Any:
            return model._call_impl(*args, **kwargs)  # type: ignore[no-untyped-call]

        model._compiled_call_impl = torch.compile(call)


def pick_device(device: Any) -> torch.device:
    """Return the device for a trainer's argument; ``None`` takes ``'cuda'`` if there is one.

    Raises:
        ConfigError: PyTorch does not have the device.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not isinstance(device, (str, int, torch.device)):
        wanted = (
            "give the name of a device, None, or an accelerate.Accelerator. Give what follows the "
            "epochs by name, such as metrics=..."
        )
        raise ConfigTypeError(f"{found('device', device)}: {place_of(device) or wanted}")
    try:
        picked = torch.device(device)
        torch.empty(0, device=picked)
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        # The messages continue with lists of all devices and kernels.
        first = str(error).split("\n")[0].split(". ")[0].strip(" .:")
        raise ConfigError(
            f"device={device!r} cannot be used ({first}): give None, a device that "
            "PyTorch has here such as 'cpu' or 'cuda:0', or an accelerate.Accelerator."
        ) from None
    return picked


ENGINE_OPTIONS = (False, False, (), True, True)
"""``keep_graph``, ``create_graph``, ``inputs``, ``allow_unreachable``, ``accumulate_grad``."""


@cache
def autograd_engine() -> Callable[..., Any] | None:
    """Return the engine's function, or ``None`` if this PyTorch calls it in another way.

    ``torch.autograd.backward`` checks arguments that a step has checked before, which takes a
    tenth of the time of a small step. Call it as ``engine((loss,), (one,), *ENGINE_OPTIONS)``.
    """
    engine: Any = getattr(torch.autograd.graph, "_engine_run_backward", None)
    with torch.enable_grad():
        weight = torch.ones((), device="cpu", requires_grad=True)
        loss = weight * 2
    try:
        engine((loss,), (torch.ones_like(loss),), *ENGINE_OPTIONS)
    except Exception:  # another signature fails in any way
        return None
    return engine if weight.grad is not None and weight.grad.item() == 2 else None
