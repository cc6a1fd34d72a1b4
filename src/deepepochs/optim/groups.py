"""Puts the weights of a model into groups with options of their own, by patterns of their names.

::

    groups = param_groups(model, {"backbone.*": {"lr": 1e-4}}, weight_decay=0.05)
    opt = torch.optim.AdamW(groups, lr=1e-3)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ..arguments import found
from ..errors import ConfigError, ConfigTypeError
from ..hints.near import did_you_mean

__all__ = ["param_groups"]

Patterns = str | tuple[str, ...]

_NORMS = ("BatchNorm", "LayerNorm", "GroupNorm", "InstanceNorm", "RMSNorm")
_MEANT = {
    "learning_rate": "lr",
    "wd": "weight_decay",
    "decay": "weight_decay",
    "l2": "weight_decay",
}


def param_groups(
    model: nn.Module,
    patterns: Mapping[Patterns, Mapping[str, Any] | None] | None = None,
    *,
    weight_decay: float | None = None,
) -> list[dict[str, Any]]:
    """Put the weights of a model into parameter groups for an optimizer, by their names.

    Each weight is in one group: that of the first pattern that matches its name, or else the
    group ``'default'``. A group has the pattern as its ``name``.

    Args:
        model: the model.
        patterns: the options of each group by pattern, such as ``{'backbone.*': {'lr': 1e-4}}``;
            ``None`` instead of options freezes the weights and puts them into no group. A
            pattern is the name of a weight or of a layer, with ``*`` and ``?`` as in names of
            files, or a tuple of such names.
        weight_decay: the decay of groups that give none of their own. Biases and the weights of
            norms, and all others of one dimension, get the decay 0 in a group of their own.
            ``None``: the groups have the decay of the optimizer.

    Returns:
        Groups for an optimizer of torch: ``{'params': [...], 'name': ..., **options}``.

    Raises:
        ConfigError: a pattern matches no weight that an earlier one has not taken; all weights
            are frozen.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 2))
        >>> groups = param_groups(model, {"2": {"lr": 0.1}}, weight_decay=0.05)
        >>> for group in groups:
        ...     print(group["name"], len(group["params"]), group["weight_decay"], group.get("lr"))
        2 1 0.05 0.1
        2 (no decay) 1 0.0 0.1
        default 1 0.05 None
        default (no decay) 3 0.0 None
    """
    checked = _checked(model, {} if patterns is None else patterns)
    named = named_weights(model)
    rest = dict(named)
    groups: list[dict[str, Any]] = []
    for pattern, options in checked.items():
        chosen = matching(pattern, rest)
        if not chosen:
            raise no_match("param_groups", pattern, model, taken=matching(pattern, named))
        rest = {name: weight for name, weight in rest.items() if name not in chosen}
        if options is None:
            for weight in chosen.values():
                weight.requires_grad_(False)
        else:
            label = pattern if isinstance(pattern, str) else ", ".join(pattern)
            groups += _divided(model, label, chosen, options, weight_decay)
    groups += _divided(model, "default", rest, {}, weight_decay)
    if not groups:
        raise ConfigError("param_groups: all weights of the model are frozen, so none is trained.")
    return groups


def _divided(
    model: nn.Module,
    label: str,
    weights: Mapping[str, Tensor],
    options: Mapping[str, Any],
    weight_decay: float | None,
) -> list[dict[str, Any]]:
    """Make the groups of some weights: one, or with and without decay; none without weights."""
    if weight_decay is None or "weight_decay" in options:
        groups = [{"params": list(weights.values()), "name": label, **options}]
    else:
        norms = {
            id(weight)
            for module in model.modules()
            if type(module).__name__.startswith(_NORMS) or type(module).__name__.endswith(_NORMS)
            for weight in module.parameters(recurse=False)
        }
        free = {name for name, w in weights.items() if id(w) in norms or _is_free(name, w)}
        decayed = [weight for name, weight in weights.items() if name not in free]
        others = [weight for name, weight in weights.items() if name in free]
        label_of_others = f"{label} (no decay)"
        groups = [
            {"params": decayed, "name": label, **options, "weight_decay": float(weight_decay)},
            {"params": others, "name": label_of_others, **options, "weight_decay": 0.0},
        ]
    return [group for group in groups if group["params"]]


def _checked(
    model: object, patterns: Mapping[Any, Any]
) -> dict[Patterns, Mapping[str, Any] | None]:
    """Check the arguments; give the patterns."""
    if not isinstance(model, nn.Module):
        raise ConfigTypeError(f"{found('model', model)}: give an nn.Module to param_groups.")
    if not isinstance(patterns, Mapping):
        raise ConfigTypeError(
            f"{found('patterns', patterns)}: give a dict, such as {{'backbone.*': {{'lr': 1e-4}}}}."
        )
    for pattern, options in patterns.items():
        check_patterns("param_groups", pattern)
        if options is not None and not isinstance(options, Mapping):
            raise ConfigTypeError(
                f"param_groups: the options of {pattern!r} are {options!r}. Give a dict, such as "
                "{'lr': 1e-4}, or None to freeze the weights."
            )
        for name in options or ():
            if name in _MEANT:
                raise ConfigError(
                    f"param_groups: the options of {pattern!r} have {name!r}, which optimizers of "
                    f"torch pass over without a word. Did you mean {_MEANT[name]!r}?"
                )
    return dict(patterns)


def check_patterns(owner: str, patterns: object) -> tuple[str, ...]:
    """Return one pattern or several as a tuple, or raise ``ConfigTypeError``."""
    listed = [patterns] if isinstance(patterns, str) else patterns
    if not isinstance(listed, (list, tuple)) or not listed:
        raise ConfigTypeError(f"{owner}: {patterns!r} is no pattern of names: give 'backbone.*'.")
    for pattern in listed:
        if not isinstance(pattern, str) or not pattern:
            raise ConfigTypeError(
                f"{owner}: {pattern!r} is no pattern of names: give 'backbone.*'."
            )
    return tuple(listed)


def matching(patterns: str | Sequence[str], named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights whose name, or that of a layer they are in, matches a pattern.

    >>> sorted(matching("head", {"head.bias": 0, "heads.bias": 1, "a.head.bias": 2}))
    ['head.bias']
    """
    listed = [patterns] if isinstance(patterns, str) else patterns
    return {
        name: weight
        for name, weight in named.items()
        if any(fnmatchcase(name, one) or fnmatchcase(name, f"{one}.*") for one in listed)
    }


def named_weights(model: nn.Module) -> dict[str, Tensor]:
    """Return the weights of a model by their names, without those of wrappers."""
    return {plain(name): weight for name, weight in model.named_parameters()}


def plain(name: str) -> str:
    """Leave the name of the wrapper of ``torch.compile`` out of a weight's name."""
    return name.replace("_orig_mod.", "")


def no_match(
    owner: str, patterns: str | Sequence[str], model: nn.Module, taken: Iterable[str] = ()
) -> ConfigError:
    """The error for a pattern that matches nothing, or what others have ``taken``."""
    told = patterns if isinstance(patterns, str) else tuple(patterns)
    if names := list(taken):
        return ConfigError(
            f"{owner}: all weights that {told!r} matches, such as {names[0]}, are in the groups of "
            "earlier patterns: the first that matches wins. Put it before them."
        )
    weights = list(named_weights(model))
    layers = dict.fromkeys(
        ".".join(name.split(".")[:count])
        for name in weights
        for count in range(1, name.count(".") + 1)
    )
    first = patterns if isinstance(patterns, str) else patterns[0]
    near = did_you_mean(first.removesuffix(".*"), [*layers, *weights])
    shown = ", ".join(weights[:8]) + (", ..." if weights[8:] else "")
    fault = f"{owner}: {told!r} matches no weight of the model."
    return ConfigError(" ".join(filter(None, [fault, near, f"Its weights are {shown}."])))


def _is_free(name: str, weight: Tensor) -> bool:
    """Whether a weight gets no decay."""
    is_bias = name.rpartition(".")[2] == "bias"
    return is_bias or (not is_lazy(weight) and weight.ndim <= 1)
