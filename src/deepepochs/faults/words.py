"""The words of messages: where a mini-batch is, and what is in it.

>>> import torch
>>> from deepepochs.stages import Stage
>>> PassName(Stage.TRAIN, epoch_idx=1).batch(80, 125)
'epoch 2, training batch 81 of 125'
>>> brief((torch.zeros(32, 8), [3, 4]))
'(float32 [32, 8], [3, 4])'
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from ..nest.operations import describe
from ..stages import Stage

LONGEST = 300  # characters of a mini-batch in a message
DEFAULT_STEP = "The default step"
MOST = 4  # entries of a list that are shown one by one

_STAGES = {
    Stage.TRAIN: "training",
    Stage.VAL: "validation",
    Stage.TEST: "test",
    Stage.PREDICT: "prediction",
}


class PassName(NamedTuple):
    """What a pass is called in messages, which count from 1, as the console does.

    The task is named where the stage has several, or where it has a name of its own.
    """

    stage: Stage
    epoch_idx: int | None = None
    task: str | None = None

    def batch(self, batch_idx: int, num_batches: int | None = None) -> str:
        """Name a mini-batch."""
        epoch = "" if self.epoch_idx is None else f"epoch {self.epoch_idx + 1}, "
        of = "" if num_batches is None else f" of {num_batches}"
        return f"{epoch}{_STAGES[self.stage]} batch {batch_idx + 1}{of}{self._of_task}"

    @property
    def loader(self) -> str:
        """Name the loader of the pass."""
        return f"{_STAGES[self.stage]} loader{self._of_task}"

    @property
    def _of_task(self) -> str:
        return "" if self.task is None else f" of task {self.task!r}"

    def __str__(self) -> str:
        of = "" if self.epoch_idx is None else f" of epoch {self.epoch_idx + 1}"
        return f"the {_STAGES[self.stage]}{of}{self._of_task}"


def brief(x: Any) -> str:
    """Say in a few words what `x` is: the dtype and shape of a tensor, a short value itself."""
    try:
        text = _brief(x)
    except Exception:  # a tensor without a shape, a dict within itself: an error is on its way
        return f"a {type(x).__name__}"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."


def _brief(x: Any) -> str:
    if isinstance(x, Tensor):
        return f"{dtype_of(x)} {list(x.shape)}"
    if isinstance(x, np.ndarray):
        return f"NumPy {x.dtype} {list(x.shape)}"
    if isinstance(x, Mapping) and x:
        shown = "{" + ", ".join(f"{key!r}: {_brief(item)}" for key, item in x.items()) + "}"
        return shown if type(x) is dict else f"{type(x).__name__} {shown}"
    if isinstance(x, (tuple, list)) and x:
        return _several(x)
    if x is None or isinstance(x, (bool, int, float)):
        return repr(x)
    if isinstance(x, str):
        return repr(x if len(x) <= 20 else f"{x[:20]}...")
    return describe(x)


def _several(x: Sequence[Any]) -> str:
    if len(x) <= MOST:
        items = ", ".join(map(_brief, x))
        return f"[{items}]" if isinstance(x, list) else f"({items}{',' if len(x) == 1 else ''})"
    kinds = dict.fromkeys(type(i).__name__ if _is_value(i) else _brief(i) for i in x[:50])
    kind, *others = kinds
    of = f"the first: {kind}" if others else f"each: {kind}"
    return f"a {'list' if isinstance(x, list) else 'tuple'} of {len(x)} ({of})"


def _is_value(x: Any) -> bool:
    return isinstance(x, (bool, int, float, str))


def dtype_of(x: Tensor) -> str:
    """Name the dtype of a tensor: ``'float32'``."""
    return str(x.dtype).removeprefix("torch.")


def span(x: Tensor) -> str:
    """Say from where to where the numbers of a tensor go.

    >>> import torch
    >>> span(torch.tensor([3, 5, 4]))
    'from 3 to 5'
    """
    low, high = x.detach().aminmax()
    if x.dtype.is_floating_point:
        return f"from {low.item():.3g} to {high.item():.3g}"
    return f"from {low.item()} to {high.item()}"
