"""Averages the weights of a model over its optimizer steps: an exponential moving average.

::

    trainer = Trainer(model, loss, opt, ema=0.999)
    trainer.fit(train_dl, val_dl)      # validates with the average, and keeps the best one
    trainer.test(test_dl)              # model.state_dict() is the average, too
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ..arguments import check_count, check_flag, found, with_hints
from ..errors import ConfigError, ConfigTypeError
from .optimizers import Optimizers

__all__ = ["EMA"]


class EMA:
    """How the weights are averaged; ``Trainer(ema=0.999)`` is ``Trainer(ema=EMA(0.999))``.

    After an optimizer step the average moves towards the weights,
    ``average = d * average + (1 - d) * weights``. The first one is a copy of the weights after
    the first step. These are the numbers of ``AveragedModel(model,
    multi_avg_fn=get_ema_multi_avg_fn(decay))`` of ``torch.optim.swa_utils``.

    Args:
        decay: d, between 0 and 1. The average is over about ``1 / (1 - d)`` steps.
        warmup: for a short training: how slowly d grows to ``decay``. At the t-th average, from
            0, it is ``min(decay, (1 + t) / (warmup + t))``; 10 gives the formula of
            ``tf.train.ExponentialMovingAverage``. 0: it is ``decay`` from the beginning.
        every: average after every n-th step.
        buffers: average the buffers of floating point, such as the statistics of a batch norm,
            as ``AveragedModel(use_buffers=True)`` does; others are those of the model. ``False``:
            all buffers are those of the model.

    Raises:
        ConfigError: an argument has a wrong value.

    Example:
        >>> [round(EMA(0.999, warmup=10).decay_at(t), 4) for t in (0, 1, 90, 100_000)]
        [0.1, 0.1818, 0.91, 0.999]
    """

    @with_hints
    def __init__(
        self, decay: float, *, warmup: int = 0, every: int = 1, buffers: bool = True
    ) -> None:
        if isinstance(decay, bool) or not isinstance(decay, (int, float)):
            raise ConfigTypeError(f"{found('decay', decay)}: give a number, such as EMA(0.999).")
        if not 0 < decay < 1:
            raise ConfigError(f"decay={decay!r}: give a number between 0 and 1, such as 0.999.")
        self.decay = float(decay)
        self.warmup = check_count("warmup", warmup)
        self.every = check_count("every", every, 1)
        self.buffers = check_flag("buffers", buffers)

    def decay_at(self, num_averages: int) -> float:
        """Return d after this many averages."""
        if not self.warmup:
            return self.decay
        return min(self.decay, (1 + num_averages) / (self.warmup + num_averages))

    def __repr__(self) -> str:
        options = "".join(
            f", {name}={value}"
            for name, value, usual in (
                ("warmup", self.warmup, 0),
                ("every", self.every, 1),
                ("buffers", self.buffers, True),
            )
            if value != usual
        )
        return f"EMA({self.decay}{options})"


class Averages:
    """The averages of some tensors, and how often the optimizer that trains them has stepped.

    Attributes:
        tensors: the weights or buffers.
        averages: their averages, in the same order.
        num_steps: the optimizer's steps.
    """

    def __init__(self) -> None:
        self.tensors: list[Tensor] = []
        self.averages: list[Tensor] = []
        self.num_steps = 0
        self._seen: Any = None

    def count(self, every: int) -> bool:
        """Count a step; say whether it is one after which there is an average."""
        self.num_steps += 1
        return not self.num_steps % every

    def follow(self, tensors: list[Tensor], *, is_kept: bool = False) -> None:
        """Average these from now on; one that is new begins with its present value.

        ``is_kept``: a list that is the same object as before has the same tensors.
        """
        if is_kept and tensors is self._seen:
            return
        known = {id(t): a for t, a in zip(self.tensors, self.averages, strict=True)}
        chosen = [tensor for tensor in tensors if not is_lazy(tensor) and _is_averaged(tensor)]
        averages = [known.get(id(tensor)) for tensor in chosen]
        self.averages = [
            tensor.detach().clone() if average is None or average.shape != tensor.shape else average
            for tensor, average in zip(chosen, averages, strict=True)
        ]
        self.tensors = chosen
        # A lazy weight may get its values later.
        self._seen = None if any(map(is_lazy, tensors)) else tensors

    def move(self, share: float) -> None:
        """Move the averages towards the tensors."""
        if self.tensors:
            torch._foreach_lerp_(self.averages, self.tensors, share)

    def load(self, tensors: list[Tensor], averages: list[Tensor], num_steps: int) -> None:
        """Take averages of a saved state."""
        self.tensors, self.averages, self.num_steps = tensors, averages, num_steps
        self._seen = None


class AveragedWeights:
    """The average of the weights that a trainer's optimizers train: ``trainer.ema``.

    In a training pass the model has the weights that are trained, and at all other times their
    average, which validation, tests, predictions and files then use. The weights that are trained
    are put back to the bit. Weights that somebody has set in the meantime are trained from there,
    and the average begins anew. Weights that no optimizer of the trainer has are not averaged.

    Attributes:
        settings: the ``EMA``.
        training: whether the model has the weights that are trained.

    Example:
        >>> from deepepochs import Trainer
        >>> trainer = Trainer(nn.Linear(4, 1), nn.MSELoss(), ema=0.9, epochs=1, console="off")
        >>> history = trainer.fit([(torch.ones(8, 4), torch.ones(8, 1))] * 2)
        >>> average = trainer.model.bias.item()
        >>> with trainer.ema.raw():
        ...     trainer.model.bias.item() > average
        True
        >>> trainer.model.bias.item() == average
        True
        >>> trainer.ema
        AveragedWeights(EMA(0.9))
    """

    def __init__(self, settings: EMA, opt: Optimizers, model: nn.Module) -> None:
        self.settings = settings
        self.training = True
        self._opt = opt
        self._model = model
        self._slots: list[tuple[str, nn.Module, str]] | None = None  # of the buffers
        self._of: list[Averages] = []
        self._of_buffers = Averages()
        self._raw: list[Tensor] = []  # while the model has the averages
        self.restart()

    @property
    def num_optimizers(self) -> int:
        """The number of optimizers whose weights are averaged."""
        return len(self._of)

    def restart(self) -> None:
        """Forget the averages: they begin anew with the weights after the next step."""
        self._of = [Averages() for _ in self._opt]
        self._of_buffers = Averages()
        self._slots, self._raw = None, []

    def update(self, optimize_index: int | None = None) -> None:
        """Count a step of all optimizers or of one, and average if it is due."""
        every = self.settings.every
        for index in range(len(self._of)) if optimize_index is None else [optimize_index]:
            own = self._of[index]
            if not own.count(every):
                continue
            share = 1 - self.settings.decay_at(own.num_steps // every - 1)
            own.follow(self._opt[index].params, is_kept=True)
            own.move(share)
            if own is self._of[0] and self.settings.buffers:
                self._of_buffers.follow(list(self._buffers().values()))
                self._of_buffers.move(share)

    def train(self, mode: bool = True) -> None:
        """Put the weights that are trained into the model, or with ``False`` their average."""
        if mode is self.training:
            return
        self.training = mode
        with torch.no_grad():
            if not mode:
                self._raw = [tensor.detach().clone() for tensor, _ in self._pairs()]
                for tensor, average in self._pairs():
                    tensor.copy_(average)
            elif self._are_others():
                self.restart()
            else:
                for (tensor, _), value in zip(self._pairs(), self._raw, strict=True):
                    tensor.copy_(value)
                self._raw = []

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Have the average in the model for a block, as in a hook of training."""
        with self._in_mode(False):
            yield

    @contextmanager
    def raw(self) -> Iterator[None]:
        """Have the weights that are trained in the model for a block, as after a fit."""
        with self._in_mode(True):
            yield

    @contextmanager
    def _in_mode(self, mode: bool) -> Iterator[None]:
        before = self.training
        self.train(mode)
        try:
            yield
        finally:
            self.train(before)

    def _pairs(self) -> list[tuple[Tensor, Tensor]]:
        """Each weight and buffer once, with its average; the weights come first."""
        by_id = {
            id(tensor): (tensor, average)
            for own in (*self._of, self._of_buffers)
            for tensor, average in zip(own.tensors, own.averages, strict=True)
        }
        return list(by_id.values())

    def __repr__(self) -> str:
        return f"AveragedWeights({self.settings})"

    def _are_others(self) -> bool:
        """Whether the model has other weights than the averages that were put there."""
        buffers = set(map(id, self._of_buffers.tensors))
        return any(
            id(tensor) not in buffers and not _is_same(tensor.detach(), average)
            for tensor, average in self._pairs()
        )

    def _buffers(self) -> dict[str, Tensor]:
        """The buffers that are averaged, by name."""
        if self._slots is None:
            self._slots = [
                (f"{path}.{key}" if path else key, owner, key)
                for path, owner in self._model.named_modules()
                for key, buffer in owner._buffers.items()
                # The mean of infinite numbers, as masks have them, is NaN.
                if buffer is not None and _is_averaged(buffer) and bool(buffer.isfinite().all())
            ]
        present = {name: owner._buffers.get(key) for name, owner, key in self._slots}
        return {name: buffer for name, buffer in present.items() if buffer is not None}

    def state_dict(self, names: Mapping[int, str]) -> dict[str, Any]:
        """Give what the model does not have: the averages in training, else the weights.

        ``names`` has the name of each weight, by id.
        """
        kept = {id(tensor): average for tensor, average in self._pairs()}
        if not self.training:
            kept = dict(zip(kept, self._raw, strict=True))
        buffers = {id(buffer): name for name, buffer in self._buffers().items()}
        return {
            "settings": repr(self.settings),
            "training": self.training,
            "num_steps": [own.num_steps for own in self._of],
            "weights": [{names[id(t)]: kept[id(t)] for t in own.tensors} for own in self._of],
            "buffers": {buffers[id(t)]: kept[id(t)] for t in self._of_buffers.tensors},
        }

    def load_state_dict(self, state: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
        """Load what ``state_dict`` gave, after the model itself; ``weights`` has them by name."""
        self.restart()
        self.training = bool(state["training"])
        slots = self._buffers() if state["buffers"] else {}
        named: Sequence[Any] = [(own, weights) for own in self._of] + [(self._of_buffers, slots)]
        saved = [*state["weights"], state["buffers"]]
        num_steps = [*state["num_steps"], 0]
        raw: dict[int, Tensor] = {}
        for (own, tensors), values, count in zip(named, saved, num_steps, strict=True):
            found = [(tensors[name], value) for name, value in values.items() if name in tensors]
            others = [value.to(tensor.device, copy=True) for tensor, value in found]
            raw.update(
                (id(tensor), value) for (tensor, _), value in zip(found, others, strict=True)
            )
            here = [tensor.detach().clone() for tensor, _ in found]
            averages = others if self.training else here
            own.load([tensor for tensor, _ in found], averages, int(count))
        if not self.training:
            self._raw = [raw[id(tensor)] for tensor, _ in self._pairs()]


def _is_averaged(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _is_same(tensor: Tensor, other: Tensor) -> bool:
    """Whether all numbers are the same, NaN included, as a weight has that is not used yet."""
    return torch.equal(tensor, other) or not bool(
        ((tensor != other) & ~(tensor.isnan() & other.isnan())).any()
    )


def averaged(ema: float | EMA, opt: Optimizers, model: nn.Module) -> AveragedWeights:
    """Make the average that a trainer's argument ``ema`` asks for.

    Raises:
        ConfigError: it is neither a number between 0 and 1 nor an ``EMA``.
    """
    if isinstance(ema, bool) or not isinstance(ema, (int, float, EMA)):
        raise ConfigTypeError(
            f"{found('ema', ema)}: give the decay, ema=0.999, or EMA(0.999, warmup=10)."
        )
    if not isinstance(ema, EMA):
        if not 0 < ema < 1:
            raise ConfigError(f"ema={ema!r}: give the decay, between 0 and 1, such as ema=0.999.")
        ema = EMA(ema)
    return AveragedWeights(ema, opt, model)
