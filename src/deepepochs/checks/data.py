"""Checks on the data: order, samples shared with validation, constant inputs, scales."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import (
    DataLoader,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)  # fmt: skip

from ..nest.compare import digest
from ..task import EpochTask
from .findings import Finding
from .look import Look, Seen, as_data_loader

SAMPLES = 200  # of a data set that computes its samples: an image may take 10 ms
ROWS = 20_000  # of tensors, which are fast to read
SHARED = 0.01  # share of validation samples: one in a hundred may be there twice by chance
FEWEST = 20  # labels, whose order says nothing if they are fewer
BLOCKS = 0.5  # labels in random order change at least half as often as is expected
SIGMAS = 5.0  # and by chance never so much less often
LARGE = 100.0  # a column of numbers below it does no harm to the first layer
SCALES = 1000.0  # times the smallest column: weights of one rate cannot fit both
WHOLE = (SequentialSampler, RandomSampler)  # go through all samples
BY_NUMBER = (*WHOLE, SubsetRandomSampler, WeightedRandomSampler)  # others may have other keys
WEIGHTED = (nn.Linear, nn.RNNBase)


class Labels(NamedTuple):
    """Labels of a data set."""

    values: Tensor
    """Of samples from all parts of the data set, in its order: ``[N]``."""
    is_all: bool
    """Whether they are those of all samples."""


class Samples(NamedTuple):
    """Some samples of a data set, evenly spaced."""

    labels: list[Tensor | None]
    prints: list[str]
    """A text for each, the same for equal samples."""
    fault: str
    """Which sample could not be read; ``''`` if all could."""


def samples_of(look: Look, task: EpochTask) -> Samples:
    """Read some samples of a task's data set, once for all checks."""
    if id(task) in look.samples:
        found: Samples = look.samples[id(task)]
        return found
    loader, labels, prints, fault = as_data_loader(task), [], [], ""
    if loader is not None and type(loader.sampler) in BY_NUMBER:
        for index in spaced(len(loader.dataset), SAMPLES):  # type: ignore[arg-type]
            try:
                sample = loader.dataset[index]
            except Exception as error:
                fault = f"Sample {index} cannot be read: {type(error).__name__}: {error}"
                break
            labels.append(label_in(sample))
            prints.append(digest(sample))
    look.samples[id(task)] = Samples(labels, prints, fault)
    return samples_of(look, task)


def unreadable_samples(look: Look) -> Iterator[Finding]:
    """Find samples whose reading raises an error."""
    for task in [*look.training, *look.validation]:
        if tensors_of(as_data_loader(task)) is None and (fault := samples_of(look, task).fault):
            where = "training" if task in look.training else "validation"
            yield Finding(
                "error",
                f"The {where} data set has samples that fail. {fault}",
                "Mend or drop them before training; a loop over the data set finds all.",
            )


def tensors_of(loader: DataLoader[Any] | None) -> Sequence[Tensor] | None:
    """The tensors of which a loader's data set is made."""
    root = None if loader is None else root_of(loader.dataset)[0]
    return root.tensors if isinstance(root, TensorDataset) else None


def labels_of(look: Look, task: EpochTask) -> Labels | None:
    """The labels of a task's data set, if they are whole numbers, one each."""
    loader = as_data_loader(task)
    if loader is None or not len(loader.dataset):  # type: ignore[arg-type]
        return None
    dataset, indices = root_of(loader.dataset)
    held = dataset.tensors[-1] if isinstance(dataset, TensorDataset) else None
    held = getattr(dataset, "targets", None) if held is None else held
    if isinstance(held, (list, Tensor)) and len(held) == len(dataset):
        try:
            values = torch.as_tensor(held)
            values = values if indices is None else values[torch.as_tensor(indices)]
        except (TypeError, ValueError, RuntimeError):
            return None
        return _checked(values, True)
    found = samples_of(look, task).labels
    known = [label for label in found if label is not None]
    if not known or len(known) < len(found):
        return None
    return _checked(torch.stack(known), len(known) == len(loader.dataset))  # type: ignore[arg-type]


def _checked(values: Tensor, is_all: bool) -> Labels | None:
    values = values.detach().cpu()
    values = values.int() if values.dtype is torch.bool else values
    values = values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values
    if values.ndim != 1 or values.is_complex() or bool((values != values.round()).any()):
        return None
    return Labels(values, is_all)


def label_in(sample: Any) -> Tensor | None:
    """The label of a sample ``(..., label)``, if it is one number."""
    if not isinstance(sample, (tuple, list)) or len(sample) < 2:
        return None
    label = sample[-1]
    if isinstance(label, (bool, int, float)):
        return torch.tensor(float(label))
    is_one = isinstance(label, Tensor) and label.numel() == 1 and not label.is_complex()
    return label.detach().cpu().float().reshape(()) if is_one else None


def root_of(dataset: Any) -> tuple[Any, Sequence[Any] | None]:
    """The data set below its ``Subset``s, and the indices that are left of it."""
    indices: Sequence[Any] | None = None
    while type(dataset) is Subset:
        of_this: Any = dataset.indices
        of_this = of_this.tolist() if hasattr(of_this, "tolist") else list(of_this)
        indices = of_this if indices is None else [of_this[index] for index in indices]
        dataset = dataset.dataset
    return dataset, indices


def spaced(total: int, most: int) -> list[int]:
    """At most so many indices, evenly spaced.

    >>> spaced(10, 4), spaced(3, 4)
    ([0, 2, 5, 7], [0, 1, 2])
    """
    num = min(total, most)
    return [index * total // num for index in range(num)]


def not_shuffled(look: Look) -> Iterator[Finding]:
    """Find training data that are walked in an order in which the labels come in blocks."""
    for seen in look.seen if not look.is_limited else ():
        loader = as_data_loader(seen.task)
        if loader is None or type(loader.sampler) is not SequentialSampler:
            continue
        if loader.batch_size is None or (seen.task.length or 2) < 2:
            continue
        labels = labels_of(look, seen.task)
        if labels is None or seen.error is not None:
            continue
        in_order = labels.values if labels.is_all else first_labels(seen)
        if in_order is not None and in_blocks(in_order, labels.values):
            yield Finding(
                "warning",
                "The training loader does not shuffle, and the labels of its data come in blocks: "
                "each mini-batch has few classes.",
                "Give DataLoader(..., shuffle=True).",
            )


def first_labels(seen: Seen) -> Tensor | None:
    """The labels of the mini-batches that were seen, in order."""
    found = [targets for _, targets in seen.probe.batches[: seen.task.length]]
    if not all(isinstance(one, Tensor) and one.ndim == 1 for one in found) or not found:
        return None
    return torch.cat(found).detach().cpu()


def in_blocks(in_order: Tensor, everywhere: Tensor) -> bool:
    """Whether labels follow one another in blocks.

    Args:
        in_order: labels that follow one another.
        everywhere: labels from all parts of the data, for the shares of the classes.

    >>> in_blocks(torch.arange(90) // 30, torch.arange(90) // 30)
    True
    >>> in_blocks(torch.arange(90) % 3, torch.arange(90) % 3)
    False
    """
    num = len(in_order) - 1
    shares = torch.unique(everywhere, return_counts=True)[1].double() / len(everywhere)
    share = float(1 - (shares**2).sum())  # of neighbours that differ, in random order
    changes = int((in_order[1:] != in_order[:-1]).sum())
    missing = num * share - changes
    spread = math.sqrt(num * share * (1 - share))
    return num >= FEWEST and changes < BLOCKS * num * share and missing > SIGMAS * spread


def shared_samples(look: Look) -> Iterator[Finding]:
    """Find validation samples that are trained on."""
    for training in look.training if not look.trainer.limits.overfit else ():
        for validation in look.validation:
            share = share_of(look, training, validation)
            if share > SHARED:
                yield Finding(
                    "warning",
                    f"{share:.0%} of the validation samples are training samples, too: the "
                    "validation says less of new data than it seems.",
                    "Split the data once, as with random_split, and drop doubles before it.",
                )


def share_of(look: Look, training: EpochTask, validation: EpochTask) -> float:
    """The share of validation samples that are trained on, above what chance explains."""
    loaders = as_data_loader(training), as_data_loader(validation)
    if loaders[0] is None or loaders[1] is None:
        return 0.0
    (one, first), (other, second) = (root_of(loader.dataset) for loader in loaders if loader)
    if one is other:
        places = [indices_of(loader) for loader in loaders if loader]
        if None in places:
            return 0.0  # a sampler of the user's chooses among the samples
        trained, validated = (set(place or ()) for place in places)
        return len(trained & validated) / max(len(validated), 1)
    if any(type(loader.sampler) not in WHOLE for loader in loaders if loader):
        return 0.0
    tables = isinstance(one, TensorDataset) and isinstance(other, TensorDataset)
    seen = rows_of(one, first) if tables else samples_of(look, training).prints
    looked = rows_of(other, second) if tables else samples_of(look, validation).prints
    among = set(seen)
    if not seen or not looked:
        return 0.0
    doubles = 1 - len(among) / len(seen)  # of data with few values, samples are equal by chance
    share = sum(mark in among for mark in looked) / len(looked)
    return share if share > SHARED + 2 * doubles else 0.0


def indices_of(loader: DataLoader[Any]) -> list[Any] | None:
    """The indices of a loader's samples in the data set below; ``None`` if they are not known."""
    sampler = loader.sampler
    if type(sampler) is SubsetRandomSampler:
        chosen = [int(index) for index in sampler.indices]
    elif type(sampler) in WHOLE:
        chosen = list(range(len(loader.dataset)))  # type: ignore[arg-type]
    else:
        return None
    left = root_of(loader.dataset)[1]
    return chosen if left is None else [left[index] for index in chosen]


def rows_of(root: TensorDataset, indices: Sequence[int] | None) -> Sequence[Any]:
    """Give for rows of tensors a key each that is the same for equal rows."""
    chosen = range(len(root)) if indices is None else indices
    columns = [tensor.detach().cpu() for tensor in root.tensors]
    rows = (chosen[place] for place in spaced(len(chosen), ROWS))
    return [tuple(column[row].numpy().tobytes() for column in columns) for row in rows]


def spoilt_inputs(look: Look) -> Iterator[Finding]:
    """Find inputs with NaN or infinite numbers, if the loss is not finite with them."""
    for seen in look.seen:
        if all(map(math.isfinite, seen.probe.losses)):
            continue  # the model knows how to deal with them
        for batch_x, _ in seen.probe.batches:
            num = sum(int((~torch.isfinite(x)).sum()) for x in floats_in(batch_x))
            if num:
                yield Finding(
                    "error",
                    f"{num} numbers in the inputs of a training mini-batch are NaN or infinite.",
                    "Mend or drop these samples, for example with torch.nan_to_num(x) or dropna().",
                )
                break


def constant_inputs(look: Look) -> Iterator[Finding]:
    """Find inputs that are the same in all samples."""
    for seen in look.seen:
        inputs = [tensors_in(batch_x) for batch_x, _ in seen.probe.batches]
        if not inputs or any(len(one) != 1 or not one[0].is_floating_point() for one in inputs):
            continue  # of several inputs, one may well be constant, as a mask
        if any(x.requires_grad for (x,) in inputs):
            continue  # samples that are weights
        samples = [sample for (x,) in inputs if x.ndim > 1 for sample in x]
        if len(samples) < FEWEST or any(s.shape != samples[0].shape for s in samples):
            continue
        if samples[0].numel() and all(torch.equal(s, samples[0]) for s in samples):
            yield Finding(
                "error",
                f"All {len(samples)} inputs looked at are the same: the model can only learn the "
                "mean of the targets.",
                "Look at how the inputs are read and transformed.",
            )


def scales_apart(look: Look) -> Iterator[Finding]:
    """Find tables whose columns are of very different scale where the first layer gets them."""
    for seen in look.seen:
        first = next(
            (call for call in seen.calls if any(True for _ in own_weights(call.module))), None
        )
        if first is None or not isinstance(first.module, WEIGHTED) or first.first is None:
            continue
        x = first.first
        if x.ndim != 2 or x.shape[1] < 2 or not x.is_floating_point() or len(x) < 2:
            continue
        sizes = x.double().pow(2).mean(0).sqrt()
        sizes = sizes[sizes > 0]
        if len(sizes) < 2 or float(sizes.max()) < LARGE:
            continue
        if float(sizes.max()) > SCALES * float(sizes.min()):
            yield Finding(
                "warning",
                f"The columns of the inputs are of very different scale, {float(sizes.min()):.3g} to "
                f"{float(sizes.max()):.3g}: the large ones hide the small ones.",
                "Subtract the mean of each column of the training data, and divide by its standard "
                "deviation.",
            )


def own_weights(module: nn.Module) -> Iterator[Tensor]:
    """The weights of a layer itself."""
    yield from module.parameters(recurse=False)


def tensors_in(batch_x: Any) -> list[Tensor]:
    """The tensors among the inputs of a mini-batch."""
    items = batch_x.values() if isinstance(batch_x, Mapping) else batch_x
    return [item for item in items if isinstance(item, Tensor)]


def floats_in(batch_x: Any) -> list[Tensor]:
    """Those of them with decimal numbers."""
    return [x for x in tensors_in(batch_x) if x.is_floating_point()]
