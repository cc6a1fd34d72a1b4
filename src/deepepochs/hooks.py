"""Hooks: the table that leads from each hook to the methods of callbacks, and how they are called.

A hook is declared in ``Callback``, with the order in which callbacks are called. The names of
the hooks of a stage are in one literal table, ``STAGE_HOOKS``: a search for
``on_before_val_batch`` finds where it is called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import torch

from .errors import DeepEpochsError, StopLoopException, add_note
from .stages import Stage

BoundHook = Callable[..., None]
Hook = TypeVar("Hook", bound=Callable[..., None])

# What torch.set_grad_enabled calls: 0.1 us instead of 1.2, twice a step.
set_gradients = getattr(torch._C, "_set_grad_enabled", torch.set_grad_enabled)

PACE_S = 0.1  # seconds between two calls of the paced hooks


def outer_first(declaration: Hook) -> Hook:
    """Declare a hook that outer callbacks, those of a low ``order``, get first."""
    declaration.outer_first = True  # type: ignore[attr-defined]
    return declaration


def outer_last(declaration: Hook) -> Hook:
    """Declare a hook that outer callbacks get last."""
    declaration.outer_first = False  # type: ignore[attr-defined]
    return declaration


def paced(hook: Hook) -> Hook:
    """Have an ``on_after_..._batch`` hook called ten times a second at most, for what is shown."""
    hook.paced = hook  # type: ignore[attr-defined]
    return hook


class StageHooks(NamedTuple):
    """What the loop calls in one stage: the names of hooks, or the methods bound to them.

    ``after_batch`` is called after each mini-batch. Where some of the methods are paced, they
    are left out of it, and ``after_batch_paced`` has all, for the times when these are due.
    """

    before_epochs: Any = ()
    before_epoch: Any = ()
    before_batch: Any = ()
    before_forward: Any = ()
    after_forward: Any = ()
    before_backward: Any = ()
    after_backward: Any = ()
    before_optimize: Any = ()
    after_optimize: Any = ()
    metrics: Any = ()
    after_batch: Any = ()
    after_batch_paced: Any = ()
    after_epoch: Any = ()
    after_epochs: Any = ()


STAGE_HOOKS: dict[Stage, StageHooks] = {
    Stage.TRAIN: StageHooks(
        before_epochs="on_before_train_epochs",
        before_epoch="on_before_train_epoch",
        before_batch="on_before_train_batch",
        before_forward="on_before_train_forward",
        after_forward="on_after_train_forward",
        before_backward="on_before_backward",
        after_backward="on_after_backward",
        before_optimize="on_before_optimize",
        after_optimize="on_after_optimize",
        metrics="on_train_metrics",
        after_batch="on_after_train_batch",
        after_epoch="on_after_train_epoch",
        after_epochs="on_after_train_epochs",
    ),
    Stage.VAL: StageHooks(
        before_epochs="on_before_val_epochs",
        before_epoch="on_before_val_epoch",
        before_batch="on_before_val_batch",
        before_forward="on_before_val_forward",
        after_forward="on_after_val_forward",
        metrics="on_val_metrics",
        after_batch="on_after_val_batch",
        after_epoch="on_after_val_epoch",
        after_epochs="on_after_val_epochs",
    ),
    Stage.TEST: StageHooks(
        before_epochs="on_before_test_epochs",
        before_epoch="on_before_test_epoch",
        before_batch="on_before_test_batch",
        before_forward="on_before_test_forward",
        after_forward="on_after_test_forward",
        metrics="on_test_metrics",
        after_batch="on_after_test_batch",
        after_epoch="on_after_test_epoch",
        after_epochs="on_after_test_epochs",
    ),
}

LOOKS_AT_DATA = (
    "before_batch", "before_forward", "after_forward", "metrics", "after_batch", "after_batch_paced",
)  # fmt: skip
"""The hooks that are not called for a mini-batch that only fills up a round."""


class HookTable:
    """From each hook to the methods that override it, in the order in which they are called.

    Made once per session. A hook that nobody overrides has an empty tuple, which the loop skips.

    Attributes:
        methods: the bound methods by hook.
        stages: the same for each stage.
        fillers: those called for a mini-batch that only fills up a round.
    """

    def __init__(
        self, callbacks: Sequence[Any], declared: Mapping[str, Callable[..., None]]
    ) -> None:
        ranked = with_companions(sorted(callbacks, key=lambda callback: callback.order))
        self.methods: dict[str, tuple[BoundHook, ...]] = {
            name: tuple(
                getattr(callback, name)
                for callback in (ranked if declaration.outer_first else ranked[::-1])  # type: ignore[attr-defined]
                if getattr(type(callback), name) is not declaration
            )
            for name, declaration in declared.items()
        }
        self.stages: dict[Stage, StageHooks] = {Stage.PREDICT: StageHooks()}
        self.fillers: dict[Stage, StageHooks] = {Stage.PREDICT: StageHooks()}
        for stage, names in STAGE_HOOKS.items():
            bound = StageHooks(*(self.methods.get(name, ()) for name in names))
            bound = bound._replace(after_batch_paced=bound.after_batch)
            self.stages[stage] = _without_paced(bound)
            self.fillers[stage] = _without_paced(
                bound._replace(
                    **{
                        kind: tuple(filter(meets_fillers, getattr(bound, kind)))
                        for kind in LOOKS_AT_DATA
                    }
                )
            )

    def __getitem__(self, name: str) -> tuple[BoundHook, ...]:
        return self.methods[name]


def with_companions(callbacks: Iterable[Any]) -> list[Any]:
    """Give callbacks, each with those that it brings with it."""
    return [one for callback in callbacks for one in (callback, *callback.companions)]


def _without_paced(bound: StageHooks) -> StageHooks:
    each = tuple(hook for hook in bound.after_batch if not is_paced(hook))
    is_any_paced = len(each) < len(bound.after_batch)
    return bound._replace(
        after_batch=each, after_batch_paced=bound.after_batch if is_any_paced else ()
    )


def is_paced(hook: BoundHook) -> bool:
    """Whether a hook was marked by ``paced``; one that overrides it and is not marked is not."""
    function = getattr(hook, "__func__", hook)
    # functools.wraps copies the mark, which then names another function.
    return getattr(function, "paced", None) is function


def is_of_library(code: Any) -> bool:
    """Whether a hook, another function or a class is of this library, and not the user's."""
    return str(getattr(code, "__module__", "")).partition(".")[0] == __name__.partition(".")[0]


def meets_fillers(hook: BoundHook) -> bool:
    """Whether the callback of a hook wants the mini-batches that only fill up a round."""
    return bool(getattr(getattr(hook, "__self__", None), "meets_fillers", False))


def fire(hooks: tuple[BoundHook, ...], trainer: Any, **arguments: Any) -> None:
    """Call the methods of one hook; an error gets a note that names its callback.

    ``StopLoopException`` in one of them asks the trainer to stop, and the others are still
    called.
    """
    for hook in hooks:
        try:
            hook(trainer=trainer, **arguments)
        except StopLoopException as request:
            trainer.stop(str(request))
        except Exception as error:
            # What the library itself says through a callback of its own says enough.
            if not (isinstance(error, DeepEpochsError) and is_of_library(hook)):
                add_note(error, f"raised in {_hook_name(hook)} of a callback")
            raise


def fire_in_step(hooks: tuple[BoundHook, ...], trainer: Any, **arguments: Any) -> None:
    """Do as ``fire`` where a step has gradients on: hooks run without them."""
    was_enabled = torch.is_grad_enabled()
    set_gradients(False)
    try:
        fire(hooks, trainer, **arguments)
    finally:
        set_gradients(was_enabled)


def _hook_name(hook: BoundHook) -> str:
    owner, name = getattr(hook, "__self__", None), getattr(hook, "__name__", repr(hook))
    return name if owner is None else f"{type(owner).__name__}.{name}"
