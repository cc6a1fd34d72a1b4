"""Checks on weights: who trains them, and what gradients they get."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from .findings import Finding
from .look import Look

MOST_NAMED = 3
FEW = 0.05  # share of the values: many models bring a small head that their user does not use
APART = 1e4
"""How many times the gradients at one end of a network may be those at the other end.

The largest gradient of the first third of the layers is compared with that of the last third: within
a layer they differ a lot, since those of queries and keys are nearly 0 in a new transformer. In
sound networks the two differ by up to a thousand; behind six sigmoid layers by 100,000.
"""
FEWEST = 6  # layers: in three of them one at least is no query or key


def named(names: Sequence[str]) -> str:
    """List some names, and say how many more there are.

    >>> named(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    shown = ", ".join(names[:MOST_NAMED])
    return f"{shown} and {len(names) - MOST_NAMED} more" if names[MOST_NAMED:] else shown


def untrained_weights(look: Look) -> Iterator[Finding]:
    """Find trainable weights of the model or the loss that no optimizer has."""
    held = {id(weight) for weight in look.trainer.opt.params}
    for what, module in (("model", look.model), ("loss", look.trainer.loss_module)):
        if module is None:
            continue
        idle = [n for n, w in module.named_parameters() if w.requires_grad and id(w) not in held]
        if idle:
            yield Finding(
                "warning",
                f"No optimizer trains {len(idle)} trainable weights of the {what}: {named(idle)}.",
                "Give them to an optimizer, or freeze them with requires_grad_(False), which also "
                "saves the time of their gradients.",
            )


def weights_in_two_optimizers(look: Look) -> Iterator[Finding]:
    """Find weights that several optimizers move in the same step.

    Steps of the user's may step one optimizer or the other, which is sound.
    """
    if len(look.trainer.opt) < 2 or not all(map(look.is_plain, look.training)):
        return
    counts = Counter(
        key for optimizer in look.trainer.opt for key in {id(w) for w in optimizer.params}
    )
    several = [look.name_of(w) for w in unique(look.trainer.opt.params) if counts[id(w)] > 1]
    if several:
        yield Finding(
            "warning",
            f"{len(several)} weights are in several optimizers, each of which moves them in every "
            f"step: {named(several)}.",
            "Give each weight to one optimizer.",
        )


def frozen_weights_only(look: Look) -> Iterator[Finding]:
    """Find optimizers all of whose weights are frozen."""
    for index, optimizer in enumerate(look.trainer.opt):
        if optimizer.params and not any(weight.requires_grad for weight in optimizer.params):
            which = f" {index}" if len(look.trainer.opt) > 1 else ""
            yield Finding(
                "error",
                f"All weights of the optimizer{which} are frozen: it trains nothing.",
                "Set requires_grad_(True) on the layers that are to be trained.",
            )


def weights_without_gradient(look: Look) -> Iterator[Finding]:
    """Find weights of an optimizer that no step has given a gradient, or only zeros."""
    steps = [step for seen in look.seen for step in seen.probe.gradients]
    if look.failed or not steps or not any(any(seen.probe.losses) for seen in look.seen):
        return
    stepped = {key for step in steps for key in step.norms}
    norms = {key: [step.norms.get(key) for step in steps] for key in stepped}
    weights = [w for w in unique(look.trainer.opt.params) if w.requires_grad and id(w) in stepped]
    none = [w for w in weights if all(norm is None for norm in norms[id(w)])]
    if none:
        share = sum(w.numel() for w in none) / sum(w.numel() for w in weights)
        yield Finding(
            "warning" if share > FEW else "note",
            f"{len(none)} weights get no gradient in {len(steps)} steps: "
            f"{named([look.name_of(w) for w in none])}.",
            "Use them in forward, look for detach(), .data or no_grad() on the way to the loss, or "
            "take them out of the optimizer.",
        )
    unmoved = [
        w
        for w in weights
        if w.ndim > 1 and 0.0 in norms[id(w)] and not any(norms[id(w)])
        if not look.name_of(w).rpartition(".")[2].startswith(RECURRENT)
    ]
    if unmoved:
        yield Finding(
            "warning",
            f"The gradient of {len(unmoved)} weights is exactly 0 in {len(steps)} steps: "
            f"{named([look.name_of(w) for w in unmoved])}.",
            "Look for units that are saturated or dead (ReLU after a large negative bias, sigmoid of "
            "large numbers), or for a factor 0 on the way to the loss.",
        )


RECURRENT = "weight_hh"
"""Weights whose gradient is 0 in sequences of one step, since the state begins with 0."""


def gradients_apart(look: Look) -> Iterator[Finding]:
    """Find gradients that vanish or explode on the way back through the layers."""
    for seen in look.seen:
        steps = seen.probe.gradients
        if seen.error is not None or not steps:
            continue
        sizes: dict[str, float] = {}
        for weight in matrices(look):
            norms = [norm for step in steps if (norm := step.norms.get(id(weight)))]
            if norms:
                mean = sum(norms) / len(norms)
                sizes[look.name_of(weight)] = mean / weight.numel() ** 0.5
        if len(sizes) < FEWEST or not all(map(math.isfinite, sizes.values())):
            continue
        names = list(sizes)
        part = max(len(names) // 3, FEWEST // 2)
        first, last = (max(some, key=sizes.__getitem__) for some in (names[:part], names[-part:]))
        low, high = sorted((first, last), key=sizes.__getitem__)
        if sizes[high] < APART * sizes[low]:
            continue
        vanishes = low == first
        yield Finding(
            "warning",
            f"Gradients {'vanish' if vanishes else 'explode'} on their way back: those of {high} are "
            f"{sizes[high] / sizes[low]:.0e} times those of {low}.",
            "Take ReLU in place of sigmoid or tanh, normalization layers, residual connections, or "
            "another initialization.",
        )


def matrices(look: Look) -> list[Tensor]:
    """The weights of two dimensions or more, in the order of the model; none if one begins as 0.

    Biases before a normalization have no gradient but rounding. Embeddings get gradients in few
    rows. What begins as 0, as the last layer of a residual branch, lets nothing through at first.
    """
    embedded = {
        id(w)
        for m in look.model.modules()
        if isinstance(m, (nn.Embedding, nn.EmbeddingBag))
        for w in m.parameters()
    }
    found = [w for w in look.model.parameters() if w.ndim > 1 and w.requires_grad]
    if any(not bool(torch.count_nonzero(w)) for w in look.model.parameters() if begins_a_path(w)):
        return []
    return [w for w in found if id(w) not in embedded]


def begins_a_path(weight: Tensor) -> bool:
    """Whether zeros in a weight would stop the gradients before it; biases do not."""
    return weight.ndim > 1 or weight.numel() == 1


def unique(weights: Sequence[Tensor]) -> list[Tensor]:
    """Each tensor once."""
    return list({id(weight): weight for weight in weights}.values())
