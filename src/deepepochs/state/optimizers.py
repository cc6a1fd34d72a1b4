"""The optimizers as a part of the state: their parameters by name, and what the script has set.

Parameters that an optimizer has got in training, as a group of unfrozen layers, come back with
their names, in a script that has not added them yet.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from ..errors import CheckpointMismatch
from ..optim.fits import bare, type_name
from ..optim.optimizers import Optimizer, Optimizers
from ..optim.settings import check_length, compare_settings
from .strict import CheckedPart, Part

Groups = list[list[Tensor]]


class OptimizersPart(CheckedPart):
    """The optimizers with their schedulers.

    Args:
        opt: the optimizers.
        inner: what saves and loads them: they themselves, or their shards.
        weights: the weights by name; empty where the parameters cannot be named.
    """

    def __init__(self, opt: Optimizers, inner: Part, weights: Mapping[str, Tensor]) -> None:
        self._opt = opt
        self._inner = inner
        self._weights = weights
        self._names = {id(weight): name for name, weight in weights.items()}

    def state_dict(self) -> list[dict[str, Any]]:
        states = self._inner.state_dict()
        return [
            {**state, "names": self._names_of(optimizer), "settings": optimizer.settings}
            for optimizer, state in zip(self._opt, states, strict=True)
        ]

    def check_state(self, state: Any) -> None:
        states = _listed(state)
        with self._regrouped(states):
            self._opt.check_state(state)
        for optimizer, one in zip(self._opt, states, strict=True):
            if one.get("sched_state"):
                check_length(optimizer.scheduler, one["sched_state"])

    def grows_by(self, state: Any) -> bool:
        pairs = zip(self._opt, _listed(state), strict=False)
        return any(self._groups(optimizer, one) is not None for optimizer, one in pairs)

    def differences(self, state: Any) -> list[str]:
        told = []
        for index, (optimizer, one) in enumerate(zip(self._opt, _listed(state), strict=True)):
            kind = type_name(bare(optimizer.opt))
            what = f"optimizer {index} ({kind})" if len(self._opt) > 1 else f"the {kind}"
            if "settings" in one:  # earlier files do not have them
                told += compare_settings(what, one["settings"], optimizer.settings, one)
        return told

    def load_state_dict(self, state: Any) -> None:
        states = _listed(state)
        for optimizer, one in zip(self._opt, states, strict=True):
            if (groups := self._groups(optimizer, one)) is not None:
                optimizer.grow(groups)
        self._inner.load_state_dict(states)
        for optimizer, one in zip(self._opt, states, strict=True):
            optimizer.take_settings(one.get("settings"))

    def _names_of(self, optimizer: Optimizer) -> list[list[str]] | None:
        groups = [group["params"] for group in optimizer.param_groups]
        if not all(id(param) in self._names for params in groups for param in params):
            return None
        return [[self._names[id(param)] for param in params] for params in groups]

    def _groups(self, optimizer: Optimizer, state: Mapping[str, Any]) -> Groups | None:
        """The saved groups of parameters, if they are others than here and all are known."""
        saved, here = state.get("names"), self._names_of(optimizer)
        if saved is None or here is None or saved == here:
            return None
        if not all(name in self._weights for names in saved for name in names):
            return None
        return [[self._weights[name] for name in names] for names in saved]

    @contextmanager
    def _regrouped(self, states: list[dict[str, Any]]) -> Iterator[None]:
        """Give the optimizers the saved groups, for a check.

        Raises:
            CheckpointMismatch: an optimizer has a parameter here that it did not have.
        """
        before: list[tuple[Optimizer, Groups]] = []
        try:
            for optimizer, one in zip(self._opt, states, strict=False):
                groups = self._groups(optimizer, one)
                if groups is None:
                    continue
                saved = {name for names in one["names"] for name in names}
                here = [name for names in self._names_of(optimizer) or [] for name in names]
                if added := [name for name in here if name not in saved]:
                    raise CheckpointMismatch(
                        f"The {type_name(bare(optimizer.opt))} here trains {', '.join(added[:5])}, which that "
                        "of the checkpoint does not: add these parameters after "
                        "trainer.load_checkpoint(path)."
                    )
                before.append((optimizer, [list(g["params"]) for g in optimizer.param_groups]))
                optimizer.regroup(groups)
            yield
        finally:
            for optimizer, groups in before:
                optimizer.regroup(groups)


def _listed(state: Any) -> list[dict[str, Any]]:
    return [state] if isinstance(state, dict) else list(state)
