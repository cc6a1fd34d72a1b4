"""The lines of release 0.6, for a loop that a user writes: printed, or shown in a tqdm bar."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..show.screens import UNDEFINED, Output, to_array

MAX_SHOWN = 6  # of a longer vector only the first and the last entries are written


def print_out(content: str, end: str = "\n", tqdm_iter: Any = None) -> None:
    """Print a text, or show it as the description of a tqdm bar.

    Args:
        content: the text.
        end: printed after it.
        tqdm_iter: the bar, or anything with `set_description_str`; `None` prints to `sys.stdout`.

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
        place = f"E {counted(epoch, epochs)}  B {counted(batch, batches)}"
        line = f"{place}  {stage.upper()}> {info(metrics, round_to)}"
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
    stages = {"TRAIN": train_metrics, "VAL": val_metrics}
    parts = [f"{label}> {info(values, round_to)}" for label, values in stages.items() if values]
    line = f"E {counted(epoch, epochs)}  {'  '.join(parts)}"
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


def format_value(value: Any, round_to: int = 4) -> str:
    """Return a number with `round_to` decimals, or an array of them in brackets.

    >>> format_value(0.184), format_value([0.5, 1.0], 2), format_value(range(10), 0)
    ('0.1840', '[0.50 1.00]', '[0 1 2 ... 7 8 9]')
    >>> format_value(UNDEFINED)
    '–'
    """
    if value is UNDEFINED:
        return "–"
    array = to_array(value)
    if array.dtype.kind not in "fiub":
        return str(value)
    if array.ndim == 0:
        return f"{float(array):.{round_to}f}"
    shown = [f"{float(entry):.{round_to}f}" for entry in array.flat[:MAX_SHOWN]]
    if array.size > MAX_SHOWN:
        half = MAX_SHOWN // 2
        shown[half:] = ["...", *(f"{float(entry):.{round_to}f}" for entry in array.flat[-half:])]
    return f"[{' '.join(shown)}]"


def counted(number: int, total: int | None) -> str:
    """Return `number/total`: the number aligned right, the total left, both equally wide."""
    width = len(str(total or number))
    shown = "?" if total is None else str(total)
    return f"{number:>{width}}/{shown:<{width}}"
