"""A run of a model that the user has sharded with ``torch.distributed.fsdp.fully_shard``.

The data and the processes are those of a run on Accelerate. The model stays as it is: it
exchanges its weights and gradients by itself.

::

    model = fully_shard(model)
    trainer = Trainer(model, loss, opt, device="auto")     # under torchrun
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from ..errors import ConfigError
from ..optim.optimizers import Optimizer, Optimizers
from .accelerate import AccelerateRuntime
from .sharded_tensors import is_shard, refuse_layout, refuse_precision, reshard, share_buffers

if TYPE_CHECKING:
    from accelerate import Accelerator


class ShardedRuntime(AccelerateRuntime):
    """The processes of an ``Accelerator``, with a model that is sharded over all of them.

    Raises:
        ConfigError: the model is sharded in a way that gives wrong numbers, or the Accelerator
            has a precision that it cannot apply to the model.
    """

    is_sharded = True

    def __init__(self, accelerator: Accelerator, model: nn.Module) -> None:
        super().__init__(accelerator)
        refuse_precision(accelerator.mixed_precision)
        reshard(model)
        refuse_layout(model, self.num_processes, self.device)
        self._model = model

    def __str__(self) -> str:
        return f"{super().__str__()}, sharded model"

    def prepare(self, model: nn.Module, loss: nn.Module | None, opt: Optimizers) -> nn.Module:
        """Prepare the optimizers; the model is prepared already."""
        if loss is not None:
            if any(weight.requires_grad for weight in loss.parameters()):
                raise ConfigError(
                    "The loss function has weights that are trained, and the model is sharded: make "
                    "the loss a part of the model, which then gives it as its output."
                )
            loss.to(self.device)
        own = {id(weight) for weight in model.parameters()}
        if any(id(weight) not in own for o in opt for weight in o.params):
            raise ConfigError(
                "An optimizer has weights that are not the model's, and the model is sharded: make "
                "them parameters of the model, or make the optimizer of model.parameters() after "
                "fully_shard."
            )
        self._prepare([], opt)
        if self.num_processes > 1 and share_buffers not in model._forward_pre_hooks.values():
            model.register_forward_pre_hook(share_buffers)
        return model

    def unwrap(self, model: nn.Module) -> nn.Module:
        return model

    def join_gradients(self, optimizers: Sequence[Optimizer], *, has_samples: bool) -> None:
        """Do nothing: all trained weights are the model's."""

    def sync_gradients(self, model: nn.Module, wanted: bool) -> AbstractContextManager[Any]:
        """Exchange gradients after every mini-batch: otherwise a checkpoint could not have them."""
        return nullcontext()

    def clip_by_norm(self, parameters: Iterable[Tensor], max_norm: float, norm_type: float) -> None:
        weights = [weight for weight in parameters if weight.grad is not None]
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        norm: Any = nn.utils.get_total_norm(gradients, norm_type)
        # Each process knows only the norm of its shards.
        total = norm.full_tensor() if is_shard(norm) else norm
        nn.utils.clip_grads_with_norm_(weights, max_norm, total)

    @contextmanager
    def shared(self, loader: Any) -> Iterator[Any]:
        """Give the share for one pass; reshard the weights after it."""
        try:
            with super().shared(loader) as share:
                yield share
        finally:
            reshard(self._model)

    def join_accumulated(self, optimizers: Sequence[Optimizer]) -> None:
        """Do nothing: gradients are exchanged after every mini-batch."""
