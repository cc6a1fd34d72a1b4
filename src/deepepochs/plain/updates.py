"""The backward pass and the optimizer's step of a training pass, written out."""

from __future__ import annotations

from collections.abc import Sequence

from .batch_text import Walk
from .between import Between
from .parts import Parts


class Updates:
    """What ``backward`` and ``optimize`` do in a training pass."""

    def __init__(self, parts: Parts, walk: Walk, weight: str, between: Between) -> None:
        self._parts, self._walk, self._weight = parts, walk, weight
        self._between = between
        self._loss = "loss"  # of the last backward pass

    def backward(self, loss: str, share: str) -> list[str]:
        """The backward pass of a loss, with its share of the mini-batch."""
        self._loss = loss
        factor = self._walk.factor(self._weight)
        if share:
            factor = f"({share}) * ({factor})" if factor else share
        call = f"({loss} * ({factor})).backward()" if factor else f"{loss}.backward()"
        hooks = self._parts.hooks
        lines = [*hooks("on_before_backward"), call, *hooks("on_after_backward")]
        if self._parts.mode == "fp16":
            what = "the scaling of the gradients of precision='fp16'"
            lines.insert(0, self._parts.gaps.not_written(what))
        return lines

    def optimize(self, index: int | None) -> list[str]:
        """The step of an optimizer, or of all."""
        parts = self._parts
        chosen = [*range(len(parts.opts))] if index is None else [index]
        lines = parts.hooks("on_before_optimize")
        lines += [self._clip(chosen)] if parts.clip is not None else []
        for i in chosen:
            step = f"{parts.opts[i]}.step()"
            if parts.trainer.opt[i].needs_closure:
                what = f"the closure of {parts.trainer.opt[i].kind}"
                step = f"{parts.opts[i]}.step(...){parts.gaps.fill_in_here(what)}"
            lines += [step, *self._schedule(i)]
        lines += [f"{parts.opts[i]}.zero_grad()" for i in chosen]
        lines += [
            *self._between.counting(),
            *self._average(index),
            *parts.hooks("on_after_optimize"),
        ]
        return self._walk.closing(lines, self._weights(chosen))

    def _average(self, index: int | None) -> list[str]:
        """The average of the weights after an optimizer step."""
        parts = self._parts
        if not parts.averaged:
            return []
        every = parts.trainer.ema.settings.every
        if every > 1 or (index is not None and len(parts.opts) > 1):
            what = f"every={every}" if every > 1 else "that of each optimizer alone"
            return [parts.gaps.not_written(f"the average of the weights with {what}")]
        return [f"{parts.averaged}.update_parameters({parts.model})"]

    def _schedule(self, index: int) -> list[str]:
        """The step of a schedule that moves with each optimizer step."""
        optimizer, scheduler = self._parts.trainer.opt[index], self._parts.schedulers[index]
        if not scheduler or optimizer.sched_on != "step":
            return []
        if not optimizer.needs_loss:
            return [f"{scheduler}.step()"]
        lines = [f"{scheduler}.step({self._loss}.item())"]
        if self._walk.size > 1:
            lines.insert(0, self._parts.gaps.not_written("the mean of the losses of a window"))
        return lines

    def _weights(self, chosen: Sequence[int]) -> str:
        """The expression of the weights of some optimizers."""
        trainer, opts = self._parts.trainer, self._parts.opts
        params = [id(w) for i in chosen for w in trainer.opt[i].params]
        if params == [id(w) for w in trainer.model.parameters()]:
            return f"{self._parts.model}.parameters()"
        groups = " + ".join(f"{opts[i]}.param_groups" for i in chosen)
        return f'[w for group in {groups} for w in group["params"]]'

    def _clip(self, chosen: Sequence[int]) -> str:
        clip, weights = self._parts.clip, self._weights(chosen)
        if clip.norm_type is None:
            return f"torch.nn.utils.clip_grad_value_({weights}, {clip.max_value})"
        return f"torch.nn.utils.clip_grad_norm_({weights}, {clip.max_value}, {clip.norm_type})"
