"""Checks on layers that act otherwise in training than in use: batch norm and dropout."""

from __future__ import annotations

from collections.abc import Iterator

from .findings import Finding
from .look import DROPOUTS, NORMS, LayerCall, Look, Seen, as_data_loader
from .weights import named


def batch_norm_of_one(look: Look) -> Iterator[Finding]:
    """Find batch norm that gets one sample at a time, or in the last mini-batch of an epoch."""
    for seen in look.seen:
        norms = [call for call in seen.calls if isinstance(call.module, NORMS) and call.training]
        sizes = {size for size in seen.probe.sizes if size is not None}
        if not norms:
            continue
        if sizes == {1}:
            yield Finding(
                "warning",
                f"Batch norm ({named([call.name for call in norms])}) gets mini-batches of one "
                "sample, whose mean and deviation say nothing of others.",
                "Take larger mini-batches, or nn.GroupNorm or nn.LayerNorm in its place.",
            )
        elif last_size(seen) == 1 and any(map(values_are_single, norms)):
            yield Finding(
                "error",
                "The last mini-batch of an epoch has one sample, on which batch norm "
                f"({named([call.name for call in norms if values_are_single(call)])}) fails.",
                "Give DataLoader(..., drop_last=True), or another batch_size.",
            )


def last_size(seen: Seen) -> int | None:
    """How many samples the last mini-batch of an epoch has, if that is known."""
    loader = as_data_loader(seen.task)
    if loader is None or loader.batch_size is None or loader.drop_last:
        return None
    try:
        total = len(loader.sampler)  # type: ignore[arg-type]
    except TypeError:
        return None
    return total % loader.batch_size


def values_are_single(call: LayerCall) -> bool:
    """Whether a batch norm has one value for each sample and channel."""
    x = call.first
    return x is not None and x.ndim > 1 and x.numel() == x.shape[0] * x.shape[1]


def frozen_batch_norm(look: Look) -> Iterator[Finding]:
    """Find batch norm with frozen weights that counts the new data all the same."""
    for seen in look.seen if not look.is_steered else ():
        moving = [call.name for call in seen.calls if call.training and is_frozen_norm(call)]
        if moving:
            yield Finding(
                "warning",
                f"{len(moving)} layers of batch norm have frozen weights and are in training mode, so "
                f"that their means and deviations change: {named(moving)}.",
                "Keep them in evaluation mode: override train() in the model, and call .eval() on "
                "the frozen part in it.",
            )


def is_frozen_norm(call: LayerCall) -> bool:
    """Whether a layer is a batch norm that was trained before, and has frozen weights."""
    module = call.module
    weights = list(module.parameters(recurse=False))
    if not isinstance(module, NORMS) or not weights or any(w.requires_grad for w in weights):
        return False
    mean = module.running_mean
    return mean is not None and module.track_running_stats and bool(mean.any())


def wrong_mode(look: Look) -> Iterator[Finding]:
    """Find training in evaluation mode, and validation in training mode."""
    for seen in look.seen if not look.is_steered else ():
        acting = [call for call in seen.calls if has_mode(call)]
        if acting and not any(call.of_whole or call.training for call in acting):
            yield Finding(
                "warning",
                f"The model is in evaluation mode in training: {named([c.name for c in acting])} do "
                "not act as they should.",
                "Look for model.eval() in forward, in a step or in a callback, without a "
                "model.train() after it.",
            )
    for seen in look.seen_in_validation:
        acting = [call for call in seen.calls if has_mode(call) and call.training]
        if acting:
            yield Finding(
                "warning",
                f"Layers are in training mode in validation: {named([c.name for c in acting])}.",
                "Look for model.train() in forward, in a step or in a callback, and for a train() "
                "method of the model that does not look at its argument.",
            )


def has_mode(call: LayerCall) -> bool:
    """Whether a layer is dropout that drops something, or batch norm that is trained."""
    module = call.module
    if isinstance(module, DROPOUTS):
        return module.p > 0
    trained = any(weight.requires_grad for weight in module.parameters(recurse=False))
    return isinstance(module, NORMS) and trained and bool(module.track_running_stats)


def dropout_in_validation(look: Look) -> Iterator[Finding]:
    """Find dropout functions that drop something in validation."""
    for seen in look.seen_in_validation:
        in_training = any(isinstance(c.module, DROPOUTS) and c.training for c in seen.calls)
        if seen.random_calls and not in_training:
            yield Finding(
                "warning",
                f"{' and '.join(seen.random_calls)} drops values in validation as well.",
                "Give F.dropout(x, p, training=self.training), for attention "
                "dropout_p=p if self.training else 0.0, or take nn.Dropout.",
            )
