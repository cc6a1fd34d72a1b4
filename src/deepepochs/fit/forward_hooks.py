"""The hooks before and after the model is called, on PyTorch's own forward hooks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from ..contracts import TrainerView
from ..hooks import HookTable, fire_in_step
from ..nest import operations as nested

__all__ = ["forward_hooks"]


@contextmanager
def forward_hooks(trainer: TrainerView, table: HookTable) -> Iterator[None]:
    """Tell callbacks of each call of the model, where some callback wants to know of it.

    A compiled model is told of around its compiled call: within, Dynamo would follow the
    callbacks, and compile anew for each of their numbers.

    Args:
        trainer: whose model it is; its present pass has the hooks that are called.
        table: says whether there are any.
    """

    def before(_module: nn.Module, _inputs: Any) -> None:
        if trainer.run is not None and trainer.run.hooks.before_forward:
            fire_in_step(trainer.run.hooks.before_forward, trainer)

    def after(_module: nn.Module, _inputs: Any, model_out: Any) -> None:
        if trainer.run is not None and trainer.run.hooks.after_forward:
            detached = nested.detach(model_out)
            fire_in_step(trainer.run.hooks.after_forward, trainer, model_out=detached)

    if not any(stage.before_forward or stage.after_forward for stage in table.stages.values()):
        yield
        return
    model, compiled = trainer.model, trainer.model._compiled_call_impl
    handles = []
    if compiled is None:
        handles.append(model.register_forward_pre_hook(before))
        handles.append(model.register_forward_hook(after))
    else:

        def call(*args: Any, **kwargs: Any) -> Any:
            before(model, args)
            model_out = compiled(*args, **kwargs)
            after(model, args, model_out)
            return model_out

        model._compiled_call_impl = call
    try:
        yield
    finally:
        if compiled is not None:
            model._compiled_call_impl = compiled
        for handle in handles:
            handle.remove()
