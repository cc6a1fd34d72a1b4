"""How many samples a mini-batch has, what it weighs in means, and which lists hold samples.

>>> import torch
>>> from deepepochs.nest.samples import count_samples
>>> frames, labels = torch.zeros(9, 4, 3), torch.zeros(4)  # 9 moments of 4 samples
>>> count_samples((frames,), labels)
4
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from ..errors import ConfigError, add_note
from .operations import TensorTuple, concat, describe, first_tensor

BatchSize = float | Callable[[Any, Any], Any] | None


def asked_weight(batch_size: Callable[[Any, Any], Any], batch_x: Any, batch_y: Any) -> float:
    """Ask a function for the weight of a mini-batch; it gets a single input unwrapped.

    Raises:
        ConfigError: it did not return a finite number of at least 0.
    """
    is_single = isinstance(batch_x, tuple) and len(batch_x) == 1
    given = batch_x[0] if is_single else batch_x
    try:
        weight: Any = batch_size(given, batch_y)
    except Exception as error:
        what = f"the input{'' if is_single else 's'}, {describe(given)},"
        text = f"raised in the batch_size function, called with {what} and the target"
        add_note(error, f"{text}, {describe(batch_y)}")
        raise
    if isinstance(weight, (Tensor, np.ndarray)) and math.prod(weight.shape) == 1:
        weight = weight.item()
    is_number = isinstance(weight, Real) and not isinstance(weight, bool)
    if not is_number or not 0 <= weight < math.inf:
        found = repr(weight) if isinstance(weight, (str, Real)) else describe(weight)
        raise ConfigError(
            f"The batch_size function gave {found} for inputs {describe(batch_x)}: it must give "
            "the number of samples or the sum of their weights, 0 or more."
        )
    return float(weight)


# Counting


class Guess(NamedTuple):
    """The number of samples in a mini-batch, if something tells it, and what is doubtful about it."""

    number: int | None
    doubt: str = ""


ADVICE = (
    "Give batch_size=, a number or a function (batch_x, batch_y) -> number, to fit(), test() or "
    "the EpochTask"
)


def count_samples(batch_x: Any, batch_y: Any = None) -> int | None:
    """Give the number of samples in a mini-batch; ``None`` if nothing in it tells."""
    return guess(batch_x, batch_y).number


def guess(batch_x: Any, batch_y: Any) -> Guess:
    """Count the samples of a mini-batch.

    It is the length of the target; without one the number of graphs; else the first dimension that
    most inputs have, or the first one of them. A list of samples counts its length. Some lists can
    be read in two ways: two tensors ``[8, 3]`` and ``[8]`` may be two samples, or two parts of 8
    samples. Then it is the number that the rest of the mini-batch has as well.
    """
    if type(batch_y) is Tensor and type(batch_x) is TensorTuple and batch_x:
        first = batch_x[0]
        if type(first) is Tensor and first.ndim and batch_y.ndim and len(batch_x) == 1:
            number = batch_y.size(0)
            return Guess(number) if first.size(0) == number else _of_target((number,), [first])
    target = possible_counts(batch_y)
    parts = _parts(batch_x, has_target=bool(target))
    if target:
        return _of_target(target, parts)
    for part in parts:
        if (num_graphs := _num_graphs(part)) is not None:
            return Guess(num_graphs)
    return _of_inputs(parts)


def _told_by(parts: Iterable[Any]) -> list[tuple[int, ...]]:
    """Give the possible counts of each part that tells some."""
    return [counts for counts in map(possible_counts, parts) if counts]


def _of_target(target: tuple[int, ...], parts: Sequence[Any]) -> Guess:
    told = _told_by(parts)
    for number in target:
        if not told or any(number in counts for counts in told):
            return Guess(number)
    return Guess(
        target[0],
        f"The target of a mini-batch has {target[0]} samples, and its input has {told[0][0]}: it "
        f"weighs {target[0]} in means. {ADVICE}, if that is not so.",
    )


def _of_inputs(parts: Sequence[Any]) -> Guess:
    told = _told_by(parts)
    if not told:
        return Guess(None)
    numbers = dict.fromkeys(number for counts in told for number in counts)
    number = max(numbers, key=lambda n: sum(n in counts for counts in told))
    if 2 * sum(number in counts for counts in told) > len(told) > 1:
        return Guess(number)
    # A list of one dict is the whole mini-batch: nobody reads it as one sample.
    others = [n for n in numbers if n != number and (len(told) > 1 or n != 1)]
    if not others:
        return Guess(number)
    return Guess(
        number,
        f"A mini-batch without a target can be read as {number} samples or as {others[0]}: it "
        f"weighs {number} in means. {ADVICE}, if that is not so.",
    )


def _parts(batch_x: Any, *, has_target: bool) -> Sequence[Any]:
    """Give the inputs one by one; without a target a mini-batch may be a list of samples."""
    if isinstance(batch_x, Mapping):
        return list(batch_x.values())
    if not isinstance(batch_x, tuple):
        return [batch_x]
    if not has_target and batch_x and all(_is_sample(item) for item in batch_x):
        return [batch_x]
    return batch_x


def _is_sample(item: Any) -> bool:
    """Whether an input is a dict or an object such as one graph."""
    if isinstance(item, Mapping):
        return True
    return not (item is None or isinstance(item, _NO_OBJECTS) or possible_counts(item))


_NO_OBJECTS = (Tensor, np.ndarray, np.generic, PackedSequence, list, tuple, str, bytes, int, float)


def _num_graphs(x: Any) -> int | None:
    number = None if isinstance(x, (Tensor, list, tuple, Mapping)) else getattr(x, "num_graphs", 0)
    return number if isinstance(number, int) and number else None


def possible_counts(x: Any) -> tuple[int, ...]:
    """Give the numbers of samples that `x` can have, the likeliest first; none if it tells none.

    >>> import torch
    >>> possible_counts([torch.zeros(8, 3), torch.zeros(8)])
    (8, 2)
    >>> possible_counts([torch.zeros(3, 7, 7), torch.zeros(3, 9, 7)])
    (2, 3)
    """
    if isinstance(x, (Tensor, np.ndarray)):
        # A nested tensor has a size, and no shape.
        return (int(x.size(0) if isinstance(x, Tensor) else x.shape[0]),) if x.ndim else ()
    if isinstance(x, PackedSequence):
        return (int(x.batch_sizes[0]),)
    if isinstance(x, Mapping):
        return next((counts for counts in map(possible_counts, x.values()) if counts), ())
    if isinstance(x, (list, tuple)):
        return _counts_of_list(x)
    if (num_graphs := _num_graphs(x)) is not None:
        return (num_graphs,)
    # The length of one graph is its number of fields, that of a text its number of letters.
    is_one = isinstance(x, (str, bytes)) or hasattr(x, "num_nodes")
    if is_one or not isinstance(x, Sized):
        return ()
    try:
        return (len(x),)
    except (TypeError, NotImplementedError):  # SciPy's sparse matrices have a length that raises
        return ()


def _counts_of_list(x: Sequence[Any]) -> tuple[int, ...]:
    if not x:
        return ()
    shared = shared_count(x)
    if not _is_of_one_kind(x):
        # Parts of different kinds, such as a tensor and its mask, which may be None.
        return next((counts for counts in map(possible_counts, x) if counts), ())
    if shared is None or shared == len(x):
        return (len(x),)
    if isinstance(x[0], (Tensor, np.ndarray)):
        alike = [tuple(item.shape) for item in x if not getattr(item, "is_nested", False)]
        # Samples that differ in length have equally many dimensions, parts often have not.
        as_parts = len(set(alike)) <= 1 < len(x) or len({item.ndim for item in x}) > 1
    else:
        as_parts = len(x) == 1 or (not isinstance(x[0], Mapping) and first_tensor(x) is not None)
    return (shared, len(x)) if as_parts else (len(x), shared)


def _is_of_one_kind(x: Sequence[Any]) -> bool:
    """Whether all entries are tensors with dimensions, or all without, dicts, lists or objects."""
    return len(set(map(_kind, x))) == 1


def _kind(item: Any) -> Any:
    if isinstance(item, (Tensor, np.ndarray)):
        return "tensor" if item.ndim else "number"
    if item is None:
        return "none"
    for kind in (Mapping, (list, tuple), (str, bytes), Real):
        if isinstance(item, kind):
            return kind
    return "object"


def shared_count(x: Sequence[Any]) -> int | None:
    """Give the length that all entries of a list have, as the parts of one output have it."""
    counts = set(map(_count_of_entry, x))
    return next(iter(counts)) if len(counts) == 1 else None


def _count_of_entry(item: Any) -> int | None:
    if isinstance(item, Mapping):  # the dict of one sample has numbers, or lengths that differ
        return shared_count(list(item.values())) if item else None
    return next(iter(possible_counts(item)), None)


# Lists with one entry for each sample


def mark_lists(x: Any, num_samples: int | None) -> Any:
    """Make the lists and tuples in `x` a ``list`` if they hold samples, else a ``TensorTuple``.

    Lists of samples are joined end to end, and the parts of an output one by one.

    Args:
        x: the output or the target of a mini-batch.
        num_samples: of the mini-batch, if it is known.

    >>> import torch
    >>> boxes = [torch.zeros(3, 4), torch.zeros(1, 4)]
    >>> type(mark_lists(boxes, 2)).__name__, type(mark_lists(boxes, 16)).__name__
    ('list', 'TensorTuple')
    """
    if isinstance(x, dict):
        return {key: mark_lists(item, num_samples) for key, item in x.items()}
    if type(x) not in (tuple, list, TensorTuple):
        return x
    if holds_samples(x, num_samples):
        return list(x)
    if first_tensor(x) is None:
        return x
    return TensorTuple(mark_lists(item, num_samples) for item in x)


def holds_samples(x: Sequence[Any], num_samples: int | None) -> bool:
    """Whether a list or tuple has one entry for each sample of a mini-batch."""
    if not x or not _is_of_one_kind(x) or x[0] is None:
        return False
    shared = shared_count(x)
    if num_samples is None:
        tells = isinstance(x[0], Mapping) or _kind(x[0]) == "tensor"
        return tells and shared is None
    is_dict = isinstance(x[0], Mapping)
    return len(x) == num_samples and (is_dict or shared is None or shared != num_samples)


def are_samples(values: Sequence[Sequence[Any]]) -> bool:
    """Whether lists of several mini-batches, which ``mark_lists`` has marked, hold samples.

    Some lists are ambiguous; then the unambiguous ones of the other mini-batches decide.
    """
    are_lists = [type(value) is list for value in values]
    if len(set(map(len, values))) > 1 or all(are_lists):
        return True
    # mark_lists takes a doubtful list of tensors for parts, and any other one for samples.
    return any(are_lists) and all(_kind(item) == "tensor" for value in values for item in value)


def join_outputs(values: Sequence[Any]) -> Any:
    """Join the outputs of several mini-batches, which ``mark_lists`` has marked.

    As ``concat`` does, but lists of samples are joined end to end, and what has unequal shapes
    becomes a list with an entry for each sample.
    """
    first = values[0]
    if all(type(v) in (list, TensorTuple) for v in values):
        if are_samples(values):
            return [sample for value in values for sample in value]
        return TensorTuple(join_outputs(items) for items in zip(*values, strict=True))
    if all(isinstance(v, dict) and v.keys() == first.keys() for v in values):
        return {key: join_outputs([v[key] for v in values]) for key in first}
    if all(isinstance(v, Tensor) for v in values) and not _can_be_joined(values):
        return [row for value in values for row in (value if value.ndim else [value])]
    return concat(values)


def _can_be_joined(tensors: Sequence[Tensor]) -> bool:
    most = max(tensor.ndim for tensor in tensors)
    tails = {t.shape[1:] if t.ndim == most else t.shape for t in tensors if not t.is_nested}
    return len(tails) == 1
