"""Finds where a loss that is NaN or infinite comes from: data, weights, or the computation."""

from __future__ import annotations

from typing import Any

from ..nest.reuse import leaves
from .words import PassName


def not_finite(
    loss: float, batch_idx: int, is_late: bool, *, run: Any = None, name: PassName | None = None
) -> str:
    """Give the message for a loss that is NaN or infinite.

    Args:
        loss: the loss.
        batch_idx: the index of its mini-batch.
        is_late: it is read when later ones may have been run, as on an accelerator.
        run: the pass, whose data and weights are looked at.
        name: the name of the pass.
    """
    num = None if run is None else run.num_batches
    where = f"batch {batch_idx + 1}" if name is None else name.batch(batch_idx, num)
    problem = f"The loss is {loss} in {'or before ' if is_late else ''}{where}"
    is_known = run is not None and not is_late and run.batch_idx == batch_idx
    cause, remedy = _cause(run) if is_known else ("", "")
    if not cause:
        remedy = (
            "Look at the learning rate, at NaN in the data, and at divisions, logarithms and "
            "square roots in the loss."
        )
    return f"{problem}{cause}.\n{remedy} With on_nan='warn' the training goes on."


def _cause(run: Any) -> tuple[str, str]:
    """Look for numbers that are not finite where the loss comes from."""
    data = {"inputs": run.batch_x, "targets": run.batch_y}
    for what, given in data.items():
        bad, total = _count(given)
        if bad:
            return (
                f": {bad} of the {total} numbers in its {what} are NaN or infinite",
                "Mend or drop these samples in the data set, for example with torch.nan_to_num(x) "
                "or dropna().",
            )
    spoilt = [name for name, weight in run.trainer.model.named_parameters() if _count(weight)[0]]
    if spoilt:
        more = f" and {len(spoilt) - 2} more" if len(spoilt) > 2 else ""
        return (
            f": weights are NaN or infinite since an earlier step, in "
            f"{', '.join(map(repr, spoilt[:2]))}{more}",
            f"Lower the learning rate{_rates(run)}, or clip gradients: "
            "callbacks=GradClipCallback(1.0).",
        )
    return (
        ", though its inputs, targets and weights are finite",
        f"Look for divisions, logarithms and square roots of 0 in model and loss, or lower the "
        f"learning rate{_rates(run)}.",
    )


def _count(x: Any) -> tuple[int, int]:
    """Count the numbers that are not finite, and all."""
    bad = total = 0
    for tensor in leaves(x):
        if tensor.dtype.is_floating_point:
            bad += tensor.numel() - int(tensor.detach().isfinite().sum())
            total += tensor.numel()
    return bad, total


def _rates(run: Any) -> str:
    """Name the present learning rates, in brackets."""
    rates = dict.fromkeys(f"{group['lr']:.3g}" for o in run.opt for group in o.opt.param_groups)
    return f" ({', '.join(rates)} now)" if rates else ""
