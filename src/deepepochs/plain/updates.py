"""The backward pass and the optimizer's step of a training pass, written out."""

from __future__ import annotations

from collections.abc import Sequence

from .batch_text import Walk
from .between import Between
from .callbacks import norm_of
from .gaps import MARK, Names
from .parts import Parts
from .sums import Sums


class Updates:
    """What ``backward`` and ``optimize`` do in a training pass."""

    def __init__(
        self, parts: Parts, walk: Walk, sums: Sums, between: Between, names: Names
    ) -> None:
        self._parts, self._walk, self._weight = parts, walk, sums.weight
        self._sums = sums
        self._between = between
        needs_closure = any(one.needs_closure for one in parts.trainer.opt)
        self._first = names.free("first_time") if needs_closure else ""
        self._closure = names.free("closure") if needs_closure else ""
        is_recorded = norm_of(parts.trainer) is not None
        self._norm_names = (names.free("grads"), names.free("norm")) if is_recorded else ("", "")
        self._scale = names.free("scale", "scale_before") if parts.scaler else ""
        self._loss = "loss"  # of the last backward pass

    def backward(self, loss: str, share: str) -> list[str]:
        """The backward pass of a loss, with its share of the mini-batch."""
        self._loss = loss
        factor = self._walk.factor(self._weight)
        if share:
            factor = f"({share}) * ({factor})" if factor else share
        scaled = f"({loss} * ({factor}))" if factor else loss
        if self._parts.scaler:
            scaled = f"{self._parts.scaler}.scale({f'{loss} * ({factor})' if factor else loss})"
        hooks = self._parts.hooks
        return [*hooks("on_before_backward"), f"{scaled}.backward()", *hooks("on_after_backward")]

    def optimize(self, index: int | None) -> list[str]:
        """The step of an optimizer, or of all."""
        parts = self._parts
        chosen = [*range(len(parts.opts))] if index is None else [index]
        before = [*self._norm(chosen), *parts.hooks("on_before_optimize")]
        before += [self._clip(chosen)] if parts.clip is not None else []
        if parts.scaler:
            lines = self._scaled_steps(chosen, before)
        else:
            lines = [*before]
            for i in chosen:
                step = f"{parts.opts[i]}.step()"
                if parts.trainer.opt[i].needs_closure:
                    what = f"the closure of {parts.trainer.opt[i].kind}"
                    step = f"{parts.opts[i]}.step({MARK}){parts.gaps.fill_in_here(what)}"
                lines += [step, *self._schedule(i)]
        return self._walk.closing([*lines, *self._after(index, chosen)], self._weights(chosen))

    def _norm(self, chosen: Sequence[int]) -> list[str]:
        """The norm of the gradients, where it is recorded."""
        callback = norm_of(self._parts.trainer)
        if callback is None:
            return []
        grads, norm = self._norm_names
        lines = [
            f"{grads} = [one.grad for one in {self._weights(chosen)} if one.grad is not None]",
            f"{norm} = torch.nn.utils.get_total_norm({grads})",
        ]
        is_sure = self._walk.size == 1
        lines += self._sums.record("grad_norm", f"{norm}.item()", "mean", is_sure=is_sure)
        if callback.with_max:
            lines += self._sums.record("grad_norm_max", f"{norm}.item()", "max", is_sure=is_sure)
        return lines

    def _scaled_steps(self, chosen: Sequence[int], before: list[str]) -> list[str]:
        """The steps through the scaler of fp16, which leaves some out, with their schedules."""
        parts, scaler = self._parts, self._parts.scaler
        lines = [f"{scaler}.unscale_({parts.opts[i]})" for i in chosen if before]
        lines += [*before, *(f"{scaler}.step({parts.opts[i]})" for i in chosen)]
        moves = [line for i in chosen for line in self._schedule(i)]
        if not moves:
            return [*lines, f"{scaler}.update()"]
        if len(chosen) > 1:
            what = "which of the steps fp16 leaves out: a schedule moves with those that are made"
            lines.append(parts.gaps.not_written(what))
        scale, kept = f"{scaler}.get_scale()", self._scale
        return [
            f"{kept} = {scale}",
            *lines,
            f"{scaler}.update()",
            f"if {scale} >= {kept}:  # else the step was left out",
            *(f"    {line}" for line in moves),
        ]

    def _after(self, index: int | None, chosen: Sequence[int]) -> list[str]:
        """The lines after the steps."""
        parts = self._parts
        lines = [f"{parts.opts[i]}.zero_grad()" for i in chosen]
        lines += [*self._between.counting(), *self._average(index)]
        return [*lines, *parts.hooks("on_after_optimize")]

    def with_closure(
        self, index: int | None, inner: Sequence[str], found: Sequence[str], given: Sequence[str]
    ) -> list[str]:
        """The step of an optimizer that computes the loss itself, several times.

        Args:
            index: of the optimizer; ``None``: there is one.
            inner: the lines that compute the loss and its gradients.
            found: the names of outputs and loss, of which those of the first time count.
            given: the names that those lines read of the mini-batch.
        """
        parts, i = self._parts, index or 0
        first, closure = self._first, self._closure
        clip = [self._clip([i])] if parts.clip is not None else []
        # That of LBFGS asks for gradients itself.
        is_known = parts.trainer.opt[i].kind == "LBFGS"
        names = ", ".join(found)
        return [
            f"{first} = None",
            "",
            *([] if is_known else ["@torch.enable_grad()"]),
            f"def {closure}({', '.join(f'{name}={name}' for name in given)}):",
            f"    nonlocal {first}",
            f"    {parts.opts[i]}.zero_grad()",
            *(f"    {line}" for line in [*inner, *parts.hooks("on_before_optimize"), *clip]),
            f"    {first} = {first} or ({names})",
            f"    return {found[-1]}",
            "",
            f"{parts.opts[i]}.step({closure})",
            *self._schedule(i),
            *self._after(index, [i]),
            f"{names} = {first}",
        ]

    def _average(self, index: int | None) -> list[str]:
        """The average of the weights after an optimizer step."""
        parts = self._parts
        if not parts.averaged:
            return []
        if index is not None and len(parts.opts) > 1:
            what = "the average of the weights of each optimizer alone"
            return [parts.gaps.not_written(what)]
        update = f"{parts.averaged}.update_parameters({parts.model})"
        every = parts.trainer.ema.settings.every
        if every == 1:
            return [update]
        return [f"if {self._between.steps} % {every} == 0:", f"    {update}"]

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
