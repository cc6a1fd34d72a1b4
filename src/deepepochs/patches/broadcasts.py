"""Finds a metric that compares each output with all targets: ``[N, 1]`` with ``[N]`` is ``[N, N]``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class _Watch(TorchDispatchMode):
    """Notes whether an operation takes tensors of two shapes and gives one of a third."""

    def __init__(self, shapes: set[tuple[int, ...]], result: tuple[int, ...]) -> None:
        super().__init__()
        self._shapes, self._result = shapes, result
        self.has_seen = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        value = func(*args, **(kwargs or {}))
        if isinstance(value, Tensor) and tuple(value.shape) == self._result:
            given = {tuple(item.shape) for item in args if isinstance(item, Tensor)}
            self.has_seen |= given == self._shapes
        return value


def are_column_and_row(outputs: Any, targets: Any) -> bool:
    """Whether one is ``[N, 1]`` and the other ``[N]``, with at least two samples."""
    if not isinstance(outputs, Tensor) or not isinstance(targets, Tensor):
        return False
    num = len(targets) if targets.ndim else 0
    return num > 1 and {tuple(outputs.shape), tuple(targets.shape)} == {(num,), (num, 1)}


def is_broadcast(call: Callable[[], Any], num: int) -> bool:
    """Call a metric of `num` outputs and targets, and say whether it has made ``[N, N]`` of them."""
    with _Watch({(num,), (num, 1)}, (num, num)) as watch:
        call()
    return watch.has_seen
