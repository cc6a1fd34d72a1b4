"""The numbers that callbacks, the history and users read, computed from merged patches.

There is a class for a mini-batch, for a pass, and for a stage.

>>> from deepepochs.patches import ValuePatch
>>> totals = StageTotals()
>>> totals.add("day", PassPatches({"loss": ValuePatch(30).load(1.0)}))
>>> totals.add("night", PassPatches({"loss": ValuePatch(10).load(3.0)}))
>>> {name: float(value) for name, value in totals.metrics().items()}
{'loss': 1.5, 'day/loss': 1.0, 'night/loss': 3.0}
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from ..errors import ArgumentsChanged, MetricError, PatchError, add_note
from ..show.screens import UNDEFINED, to_value
from .base import PatchBase, flatten_value
from .resumed import RestoredPatch, join_patches
from .trial import value_without_trace

LOSS = "loss"


class BatchMetrics(Mapping[str, Any]):
    """The metrics of one mini-batch, computed when they are read.

    Args:
        loss: of the mini-batch.
        patches: those that were made for the mini-batch.
        report_not_finite: is told of a loss that is NaN or infinite, unless it is ``None``.
        complete: gives these patches and those of further metrics; ``None``: there are no others.
    """

    __slots__ = ("_complete", "_loss", "_made", "_report", "_values")

    def __init__(
        self,
        loss: Any,
        patches: Mapping[str, PatchBase],
        report_not_finite: Callable[[Any], None] | None,
        complete: Callable[[], Mapping[str, PatchBase]] | None = None,
    ) -> None:
        self._loss = loss
        self._made = patches
        self._report = report_not_finite
        self._complete = complete
        self._values: dict[str, Any] | None = None

    def _patches(self) -> Mapping[str, PatchBase]:
        return self._made if self._complete is None else self._complete()

    def _computed(self) -> dict[str, Any]:
        if self._values is None:
            loss = self.check_loss()
            values = {} if loss is None else {LOSS: loss}
            self._values = {**values, **shown_values(PassPatches(self._patches()))}
        return self._values

    def check_loss(self) -> Any:
        """Give the loss, and report one that is NaN or infinite."""
        if self._loss is None:
            return None
        loss = to_value(self._loss)
        if self._report is not None and not np.isfinite(loss):
            self._report(loss)
        return loss

    def frozen(self) -> BatchMetrics:
        """Give the same metrics with copied patches, so that they can be computed later."""
        patches = {name: patch.copy() for name, patch in self._patches().items()}
        return BatchMetrics(self._loss, patches, self._report)

    def loss_alone(self) -> Mapping[str, Any]:
        """Give the loss without the metrics, which are not computed for it.

        As with `frozen`, it can be read later.
        """
        if type(self._loss) is float:
            return {LOSS: self.check_loss()}
        returned = {LOSS: self._made[LOSS].copy()} if LOSS in self._made else {}
        return BatchMetrics(self._loss, returned, self._report)

    def __getitem__(self, name: str) -> Any:
        return self._computed()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._computed())

    def __len__(self) -> int:
        return len(self._computed())

    def __repr__(self) -> str:
        return repr(self._computed())


def shown_values(
    patches: PassPatches, value_of: Callable[[str, PatchBase], Any] | None = None
) -> dict[str, Any]:
    """Give the values of patches; `UNDEFINED` where one cannot be computed.

    The values are for showing only: computing them draws no random number, and an error is not
    one of the run. Only a metric that changes its arguments is, since it spoils what is kept for
    the epoch.

    Args:
        patches: the patches.
        value_of: gives the value of a patch, by its key, without a trace of computing it; ``None``:
            `value_without_trace` does.
    """
    values: dict[str, Any] = {}
    for key, patch in patches.items():
        name = patches.name_of(key)
        try:
            value = value_without_trace(patch) if value_of is None else value_of(key, patch)
            flat = flatten_value(name, value)
        except ArgumentsChanged:
            raise
        except Exception:
            flat = {name: UNDEFINED} if name else {}
        for full_name, value in flat.items():
            _add(values, full_name, to_value(value))
    return values


def _add(values: dict[str, Any], name: str, value: Any) -> None:
    if name in values:
        raise MetricError(
            f"Two metrics give a value named {name!r}. Rename one of them, for example with the "
            "decorator rename('other.')."
        )
    values[name] = value


class PassPatches(dict[str, PatchBase]):
    """The merged patches of a finished pass, and their values, each computed once."""

    def __init__(self, patches: Mapping[str, PatchBase]) -> None:
        super().__init__(patches)
        self._values: dict[str, dict[str, Any]] = {}

    def name_of(self, key: str) -> str:
        """Give the name of the value of a patch."""
        own = self[key].name
        return key if own is None else own

    def _value_of(self, key: str) -> dict[str, Any]:
        """Give the value of a patch by what follows its name: nothing, or the key of a dict."""
        if key not in self._values:
            name = self.name_of(key)
            try:
                flat = flatten_value(name, self[key]())
            except Exception as error:
                add_note(error, f"while computing the metric {name!r}")
                raise
            self._values[key] = {full[len(name) :]: to_value(v) for full, v in flat.items()}
        return self._values[key]

    def metrics(self) -> dict[str, Any]:
        """Give ``{name: float}``, with a name for each key of a dict; arrays for vectors.

        Raises:
            MetricError: two values have the same name.
        """
        values: dict[str, Any] = {}
        for key in self:
            for suffix, value in self._value_of(key).items():
                _add(values, self.name_of(key) + suffix, value)
        return values

    def state_dict(self) -> dict[str, Any]:
        """Give states and values, for a ``RestoredPatch`` each."""
        return {
            key: RestoredPatch.of(patch, self._value_of(key)).state_dict()
            for key, patch in self.items()
        }


class StageTotals:
    """The merged patches of the passes of one stage, by task and pooled.

    The value of a single task has the plain name. With several tasks, the plain name is the value
    pooled over them, and ``<task>/<name>`` the value of a task.
    """

    def __init__(self) -> None:
        self.passes: list[tuple[str, PassPatches]] = []
        self._values: dict[str, dict[str, Any]] = {}
        self._pooled: dict[str, PatchBase] = {}

    def add(self, label: str, patches: PassPatches, values: dict[str, Any] | None = None) -> None:
        """Add the patches of a finished pass, with their values if they are known."""
        self.passes.append((label, patches))
        if values is not None:
            self._values[label] = values

    def metrics(self) -> dict[str, Any]:
        """Give the values of the stage."""
        own = {
            label: self._values.get(label) or patches.metrics() for label, patches in self.passes
        }
        if len(own) == 1:
            return next(iter(own.values()))
        values = PassPatches(self._pool(self.passes)).metrics()
        for label, own_values in own.items():
            for name, value in own_values.items():
                values[f"{label}/{name}"] = value
        return values

    def close(self) -> None:
        """Drop the patches, some of which hold all outputs, when the values have been read."""
        self.passes = [(label, PassPatches({})) for label, _ in self.passes]
        self._values, self._pooled = {}, {}

    def state_dict(
        self, running: Mapping[str, PatchBase] | None = None, known: Container[str] = ()
    ) -> dict[str, Any]:
        """Give the states and values of the finished passes.

        A resumed run knows the classes of the ``known`` patches from its plan: if the ``running``
        pass has such a patch, the resumed run can pool the value; else it is saved here.
        """
        running = running or {}
        pooled = {}
        if len(self.passes) + bool(running) > 1:
            pooled = self._pool(
                (label, {n: patches[n] for n in patches if n not in running or n not in known})
                for label, patches in [*self.passes, ("", running)]
            )
        return {
            "passes": [
                {"label": label, "patches": patches.state_dict()} for label, patches in self.passes
            ],
            "pooled": PassPatches(pooled).state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load what ``state_dict`` gave."""
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
        for name, patch in pooled.items():
            if isinstance(patch, RestoredPatch) and patch.is_joined:
                pooled[name] = self._pooled.get(name, patch)
        # The loss comes first, even if the first task has none.
        return {LOSS: pooled[LOSS], **pooled} if LOSS in pooled else pooled


def _restored(states: Mapping[str, Any]) -> PassPatches:
    return PassPatches({name: RestoredPatch.from_state(state) for name, state in states.items()})
