"""Merged patches and their values: of a mini-batch, of a pass, of a stage.

Patches add up from mini-batches to passes and from passes to stages; here they
become the numbers that callbacks, the history and users read.

>>> from deepepochs.patches import ValuePatch
>>> totals = StageTotals()
>>> totals.add("day", {"loss": ValuePatch(30).load(1.0)})
>>> totals.add("night", {"loss": ValuePatch(10).load(3.0)})
>>> {name: float(value) for name, value in totals.metrics().items()}
{'loss': 1.5, 'day/loss': 1.0, 'night/loss': 3.0}
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from ..errors import MetricError, PatchError, add_note
from ..show.lines import to_array
from . import PatchBase, flatten_value
from .resumed import RestoredPatch, join_patches

__all__ = ["LOSS", "BatchMetrics", "PassPatches", "StageTotals", "metric_values"]

LOSS = "loss"


class BatchMetrics(Mapping[str, Any]):
    """The metrics of one mini-batch, computed when somebody reads them."""

    __slots__ = ("_loss", "_patches", "_report", "_values")

    def __init__(
        self,
        loss: Any,
        patches: Callable[[], Mapping[str, PatchBase]],
        report_not_finite: Callable[[Any], None],
    ) -> None:
        self._loss = loss
        self._patches = patches
        self._report = report_not_finite
        self._values: dict[str, Any] | None = None

    def _computed(self) -> dict[str, Any]:
        if self._values is None:
            values: dict[str, Any] = {}
            if self._loss is not None:
                values[LOSS] = to_array(self._loss)
                if not np.isfinite(values[LOSS]):
                    self._report(values[LOSS])
            values.update(metric_values(self._patches()))
            self._values = values
        return self._values

    def frozen(self) -> BatchMetrics:
        """Give the same metrics, to be computed later whatever becomes of the patches."""
        patches = {name: patch.copy() for name, patch in self._patches().items()}
        return BatchMetrics(self._loss, lambda: patches, self._report)

    def __getitem__(self, name: str) -> Any:
        return self._computed()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._computed())

    def __len__(self) -> int:
        return len(self._computed())

    def __repr__(self) -> str:
        return repr(self._computed())


class PassPatches(dict[str, PatchBase]):
    """The merged patches of a pass that is done, and their values, each computed once."""

    def __init__(self, patches: Mapping[str, PatchBase]) -> None:
        super().__init__(patches)
        self._values: dict[str, dict[str, Any]] = {}

    def _name_of(self, key: str) -> str:
        own = self[key].name
        return key if own is None else own

    def _value_of(self, key: str) -> dict[str, Any]:
        """The value of a patch by full name."""
        if key not in self._values:
            name = self._name_of(key)
            try:
                flat = flatten_value(name, self[key]())
            except Exception as error:
                add_note(error, f"while computing the metric {name!r}")
                raise
            self._values[key] = {full: to_array(value) for full, value in flat.items()}
        return self._values[key]

    def metrics(self) -> dict[str, Any]:
        """Give ``{name: NumPy array}``; dicts are spread over their keys.

        Raises:
            MetricError: two values with one name.
        """
        values: dict[str, Any] = {}
        for key in self:
            for full_name, value in self._value_of(key).items():
                if full_name in values:
                    raise MetricError(
                        f"Two metrics give a value named {full_name!r}. Give one another name, for "
                        "example with the decorator rename('other.')."
                    )
                values[full_name] = value
        return values

    def state_dict(self) -> dict[str, Any]:
        """Give states and values, from which ``RestoredPatch`` are made."""
        states = {}
        for key, patch in self.items():
            prefix = len(self._name_of(key))
            own = {full[prefix:]: value for full, value in self._value_of(key).items()}
            states[key] = RestoredPatch.of(patch, own).state_dict()
        return states


class StageTotals:
    """The merged patches of the passes of one stage, pooled and by task.

    With one task its names are plain. With several, the plain name is the value
    pooled over them and ``<task>/<name>`` is the task's own.
    """

    def __init__(self) -> None:
        self.passes: list[tuple[str, PassPatches]] = []
        self._values: dict[str, dict[str, Any]] = {}
        self._pooled: dict[str, PatchBase] = {}

    def add(
        self, label: str, patches: dict[str, PatchBase], values: dict[str, Any] | None = None
    ) -> None:
        """Take in the patches of a pass that is done, with their values if they are known."""
        done = patches if isinstance(patches, PassPatches) else PassPatches(patches)
        self.passes.append((label, done))
        if values is not None:
            self._values[label] = values

    def metrics(self) -> dict[str, Any]:
        """The values of the stage."""
        own = {
            label: self._values.get(label) or patches.metrics() for label, patches in self.passes
        }
        if len(own) == 1:
            return next(iter(own.values()))
        pooled = self._pool(self.passes)
        for name, patch in pooled.items():
            if isinstance(patch, RestoredPatch) and patch.is_joined:
                pooled[name] = self._pooled[name]
        values = metric_values(pooled)
        for label, own_values in own.items():
            for name, value in own_values.items():
                values[f"{label}/{name}"] = value
        return values

    def close(self) -> None:
        """Drop the patches of a stage whose values are known: some hold all its outputs."""
        self.passes = [(label, PassPatches({})) for label, _ in self.passes]
        self._values, self._pooled = {}, {}

    def state_dict(
        self, running: Mapping[str, PatchBase] | None = None, known: Container[str] = ()
    ) -> dict[str, Any]:
        """The finished passes, with values, since their metrics may not be asked again.

        Args:
            running: patches of the pass that runs.
            known: names of patches whose class a resumed run knows from its plan; the
                value pooled over passes is kept for all others.
        """
        passes = [*self.passes, ("", PassPatches(running or {}))]
        pooled = {}
        if len(self.passes) + bool(running) > 1:
            pooled = self._pool(
                (label, {name: patches[name] for name in patches if name not in known})
                for label, patches in passes
            )
        for name, patch in pooled.items():
            if isinstance(patch, RestoredPatch) and patch.is_joined:
                pooled[name] = self._pooled.get(name, patch)
        return {
            "passes": [
                {"label": label, "patches": patches.state_dict()} for label, patches in self.passes
            ],
            "pooled": PassPatches(pooled).state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what ``state_dict`` gave."""
        self.passes = [(saved["label"], _restored(saved["patches"])) for saved in state["passes"]]
        self._pooled = dict(_restored(state["pooled"]))

    def _pool(self, passes: Iterable[tuple[str, Mapping[str, PatchBase]]]) -> dict[str, PatchBase]:
        pooled: dict[str, PatchBase] = {}
        for label, patches in passes:
            for name, patch in patches.items():
                if name not in pooled:
                    pooled[name] = patch.copy()
                    continue
                try:
                    pooled[name] = join_patches(pooled[name], patch)
                except PatchError as error:
                    add_note(error, f"while pooling {name!r} of task {label!r} with earlier tasks")
                    raise
        # The first task may have no loss, which comes first all the same.
        return {LOSS: pooled[LOSS], **pooled} if LOSS in pooled else pooled


def _restored(states: Mapping[str, Any]) -> PassPatches:
    patches: dict[str, PatchBase] = {}
    for name, state in states.items():
        patches[name] = RestoredPatch()
        patches[name].load_state_dict(state)
    return PassPatches(patches)


def metric_values(patches: Mapping[str, PatchBase]) -> dict[str, Any]:
    """Compute patches into ``{name: NumPy array}``; see ``PassPatches.metrics``."""
    return PassPatches(patches).metrics()
