"""Tensors that are kept for later, and what may change them in the meantime.

A model may give the same output buffer each time, a loader may refill its tensors, and a step may
change its outputs after they were recorded. Torch counts the changes of each tensor in place, in
its version, which all tensors of the same memory share.

>>> import torch
>>> from deepepochs.nest.reuse import any_changed, hold
>>> buffer = torch.zeros(2)
>>> kept = hold(buffer), hold(buffer.fill_(1))
>>> kept, any_changed(kept[:1]), any_changed(kept[1:])  # the first was kept before the change
((tensor([1., 1.]), tensor([1., 1.])), True, False)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from .operations import map_tensors


def any_changed(items: Iterable[Any]) -> bool:
    """Whether a tensor in `items` was changed in place after it was created.

    Tensors made in inference mode have no version counter, and count as unchanged.
    """
    for item in items:
        # Most items are tensors, and there are as many as mini-batches: no call for these.
        for tensor in (item,) if type(item) is Tensor else leaves(item):
            try:
                if tensor._version:
                    return True
            except RuntimeError:  # made in inference mode
                pass
    return False


def hold(x: Any) -> Any:
    """Detach tensors; copy those that were changed in place.

    They may be buffers that the model uses again. So for what this returns, `any_changed` reports
    changes from now on.
    """
    return map_tensors(hold_tensor, x)


def hold_tensor(tensor: Tensor) -> Tensor:
    """Do the same with one tensor."""
    # Mostly it is detached: a second detach would cost as much as all else here.
    tensor = tensor.detach() if tensor.requires_grad else tensor
    try:
        is_safe = tensor._version == 0
    except RuntimeError:  # made in inference mode
        is_safe = False
    return tensor if is_safe else _clone(tensor)


def clones(x: Any) -> Any:
    """Copy every tensor in `x`; other objects are shared."""
    return map_tensors(_clone, x)


def _clone(tensor: Tensor) -> Tensor:
    # The copy of a tensor that was made in inference mode counts as written to; its data does not.
    return tensor.clone().data if tensor.is_inference() else tensor.clone()


def versions(x: Any) -> list[int]:
    """Give the version of every tensor in `x` that has one."""
    return [t._version for t in leaves(x) if not t.is_inference()]


def leaves(x: Any) -> list[Tensor]:
    """Give the tensors in `x`."""
    if isinstance(x, Tensor):
        return [x]
    if isinstance(x, PackedSequence):
        return [x.data]
    items = x.values() if isinstance(x, Mapping) else x
    if not isinstance(x, (tuple, list, Mapping)):
        return []
    return [tensor for item in items for tensor in leaves(item)]


def same_values(x: Any, y: Any) -> bool:
    """Whether the tensors in `x` and `y` that lie on the CPU have the same values, NaN included."""
    return all(
        not (_is_plain(one) and one.is_cpu)
        or torch.equal(one, two)
        or (one.shape == two.shape and bool(((one == two) | (one.isnan() & two.isnan())).all()))
        for one, two in zip(leaves(x), leaves(y), strict=True)
    )


class BufferGuard:
    """Gives the tensors of each mini-batch in memory that nobody else writes to.

    Those of the first mini-batch are copied, and show up to the second one whether the memory is
    used again; if so, all later ones are copied, too.

    Attributes:
        acts: whether `own` is to be called.
        looks: whether `look` is to be called after a step.
    """

    def __init__(self) -> None:
        self.acts = True
        self.looks = False
        self._is_reused = False
        self._originals: list[Tensor] | None = None  # of the first mini-batch
        self._copies: list[Tensor] = []
        self._versions: list[int] = []

    def own(self, values: Any) -> Any:
        """Give the tensors of a mini-batch, copied if need be."""
        if self._originals is None and not self._is_reused:
            copies = clones(values)
            self._originals, self._copies = leaves(values), leaves(copies)
            self._versions = versions(values)
            self.looks = True
            return copies
        self.look(values)
        self.acts, self.looks, self._originals = self._is_reused, False, None
        return clones(values) if self._is_reused else values

    def look(self, later: Any = None) -> None:
        """See whether the first tensors have other values now, or later ones have their memory.

        On an accelerator the values are not read, which would wait for it.
        """
        if self._originals is None or self._is_reused:
            return
        places = {t.data_ptr() for t in self._originals if _is_plain(t) and not t.is_cpu}
        self._is_reused = (
            self._versions != versions(self._originals)
            or not same_values(self._originals, self._copies)
            or any(t.data_ptr() in places for t in leaves(later) if _is_plain(t) and not t.is_cpu)
        )


def _is_plain(tensor: Tensor) -> bool:
    is_dense = tensor.layout is torch.strided and not tensor.is_quantized
    return type(tensor) is Tensor and is_dense and not tensor.is_nested and tensor.numel() > 0
