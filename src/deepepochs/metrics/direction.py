"""Whether more or less of a metric is better, as far as that is known.

>>> from deepepochs.metrics import f1
>>> direction_of("f1", f1), direction_of("val_loss"), direction_of("my_score")
('max', 'min', None)
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import Any

from ..errors import ConfigError

LESS = frozenset([
    "loss", "losses", "error", "errors", "err", "mse", "rmse", "msle", "rmsle", "mae", "mape",
    "smape", "wmape", "nll", "bce", "perplexity", "ppl", "wer", "cer", "fid", "regret",
])  # fmt: skip
MORE = frozenset([
    "accuracy", "acc", "f1", "f2", "fbeta", "auc", "auroc", "rocauc", "aucroc", "auprc",
    "prauc", "precision", "recall", "sensitivity", "specificity", "iou", "miou", "jaccard",
    "dice", "r2", "mcc", "kappa", "map", "map50", "ap", "ndcg", "mrr", "bleu", "rouge", "psnr",
    "ssim", "reward",
])  # fmt: skip


def direction_of(name: str, metric: Any = None) -> str | None:
    """Say which values of a metric are better.

    Args:
        name: its name. The direction is read from the words in it, as in ``top5_accuracy``,
            ``night/loss`` or ``BinaryF1``. If they contradict each other, it is not known.
        metric: the metric itself, if it is known. Its attribute ``direction`` comes before the
            name, then ``higher_is_better`` of a torchmetrics object; the name that a function was
            defined by comes last.

    Returns:
        ``'max'``, ``'min'``, or ``None`` if it is not known.

    Raises:
        ConfigError: the metric declares another direction than these two.
    """
    own_name = ""
    for part in _layers(metric):
        declared = getattr(part, "direction", None)
        if isinstance(declared, str):
            if declared not in ("max", "min"):
                raise ConfigError(
                    f"The metric {name!r} has direction={declared!r}: give 'max' or 'min'."
                )
            return declared
        higher = getattr(part, "higher_is_better", None)
        if isinstance(higher, bool):
            return "max" if higher else "min"
        own_name = getattr(part, "__qualname__", type(part).__name__)
    return _by_words(name) or (None if metric is None else _by_words(own_name.split(".")[-1]))


def _layers(metric: Any) -> Iterator[Any]:
    """Give a metric, and the functions inside of a partial or a decorated one."""
    while metric is not None:
        yield metric
        inside = metric.func if isinstance(metric, functools.partial) else None
        metric = inside or getattr(metric, "__wrapped__", None)


def _by_words(name: str) -> str | None:
    pieces = [piece for piece in re.split(r"[\W_]+", name.rpartition("/")[2]) if piece]
    words = {piece.lower() for piece in pieces}
    for piece in pieces:  # CamelCase
        words.update(
            word.lower() for word in re.findall(r"[A-Z]+(?![a-z])\d*|[A-Z]?[a-z]+\d*", piece)
        )
    if words & {"neg", "negative", "inverse"}:  # nll has a word of its own
        return None
    less = any(word in LESS or word.endswith(("loss", "error")) for word in words)
    more = any(word in MORE or word.endswith("accuracy") for word in words)
    if less == more:
        return None
    return "min" if less else "max"
