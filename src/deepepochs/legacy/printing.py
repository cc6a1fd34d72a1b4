"""The lines of release 0.6, for a loop that a user writes: printed, or shown in a tqdm bar."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..show.screens import Output, format_value

Count = tuple[int, int | None]
"""A number from 1, and the total, which may be unknown."""


def print_out(content: str, end: str = "\n", tqdm_iter: Any = None) -> None:
    """Print a text, or show it as the description of a tqdm bar.

    Args:
        content: the text.
        end: printed after it.
        tqdm_iter: the bar; `None` prints to `sys.stdout`.

    Example:
        >>> print_out("loss: 2.2457")
        loss: 2.2457
    """
    if tqdm_iter is None:
        Output().write(content + end)
    else:
        tqdm_iter.set_description_str(content.strip())


def log_batch(
    metrics: Mapping[str, float | Tensor],
    epoch: int,
    epochs: int,
    batch: int,
    batches: int | None = None,
    stage: str = "TRAIN",
    round_to: int = 4,
    tqdm_iter: Any = None,
) -> None:
    """Print the line of a mini-batch over the line before: no line feed follows it.

    Args:
        metrics: the metrics of the mini-batch; an empty dict prints nothing.
        epoch: number of the epoch, from 1.
        epochs: number of epochs in total.
        batch: number of the mini-batch, from 1.
        batches: number of mini-batches in total; `None` if it is not known.
        stage: `'train'`, `'val'` or `'test'`.
        round_to: decimals.
        tqdm_iter: a tqdm bar that shows the line instead.
    """
    if metrics:
        widths = (len(str(epochs)), len(str(batches or batch)))
        count = (batch, batches)
        line = batch_line(stage.upper(), metrics, (epoch, epochs), count, widths, round_to)
        print_out(f"\r{line}", end="", tqdm_iter=tqdm_iter)


def log_epoch(
    train_metrics: Mapping[str, float | Tensor],
    val_metrics: Mapping[str, float | Tensor] | None,
    epoch: int,
    epochs: int,
    round_to: int = 4,
    tqdm_iter: Any = None,
) -> None:
    """Print the line of an epoch.

    Args:
        train_metrics: metrics of the training.
        val_metrics: metrics of the validation; `None` if there was none.
        epoch: number of the epoch, from 1.
        epochs: number of epochs in total.
        round_to: decimals.
        tqdm_iter: a tqdm bar that shows the line instead.

    Example:
        >>> log_epoch({"loss": 2.2457}, {"loss": 2.1551}, 1, 10)
        E  1/10  TRAIN> loss: 2.2457   VAL> loss: 2.1551
    """
    stages = {"TRAIN": train_metrics, "VAL": val_metrics or {}}
    line = epoch_line(stages, (epoch, epochs), len(str(epochs)), round_to)
    print_out(line.rstrip(), tqdm_iter=tqdm_iter)


def info(m_dict: Mapping[str, Any], round_to: int = 4) -> str:
    """Return metrics as `name: value` pairs, each value padded to `round_to + 3` characters.

    Args:
        m_dict: metric values by name.
        round_to: decimals, from 0.

    Example:
        >>> info({"loss": 2.2457, "acc": 0.184})
        'loss: 2.2457  acc: 0.1840 '
    """
    return " ".join(
        f"{name}: {format_value(value, round_to):<{round_to + 3}}" for name, value in m_dict.items()
    )


def counted(count: Count, width: int) -> str:
    """Return `number/total`: the number aligned right, the total left, both `width` wide."""
    number, total = count
    shown = "?" if total is None else str(total)
    return f"{number:>{width}}/{shown:<{width}}"


def batch_line(
    label: str,
    metrics: Mapping[str, Any],
    epoch: Count,
    batch: Count,
    widths: tuple[int, int] = (4, 5),
    round_to: int = 4,
) -> str:
    """Return the line of a mini-batch."""
    return (
        f"E {counted(epoch, widths[0])}  B {counted(batch, widths[1])}  {label}> "
        f"{info(metrics, round_to)}"
    )


def epoch_line(
    stages: Mapping[str, Mapping[str, Any]], epoch: Count, width: int = 4, round_to: int = 4
) -> str:
    """Return the line of an epoch, with the metrics by label; empty stages are left out."""
    parts = [f"{label}> {info(metrics, round_to)}" for label, metrics in stages.items() if metrics]
    return f"E {counted(epoch, width)}  {'  '.join(parts)}"
