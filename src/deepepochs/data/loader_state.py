"""The state of a loader: its generators, epoch counters and stateful samplers.

A loader's next epoch depends on more than the global random state: on the generators of the
loader, its samplers and its data set, on the epoch number that some samplers keep, and on
the ``state_dict`` of those that have one. They are found among the attributes of the
loader, its samplers and its data set, and are read and restored here.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import torch

from .. import rng
from ..errors import CheckpointMismatch

_FOLLOWED = ("batch_sampler", "sampler", "base_dataloader", "dataset", "datasets")
_COUNTERS = ("epoch", "iteration", "initial_seed")
_GENERATORS, _read, _write = rng.GENERATORS, rng.read_generator, rng.write_generator
_END = object()


@runtime_checkable
class Stateful(Protocol):
    """An object whose state can be read and loaded."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any:
        """Load the state."""


def state_of(owner: Stateful) -> Any:
    """Read the state of a loader, sampler or data set, which may change it in place later."""
    return copy.deepcopy(owner.state_dict())


def load_state(owner: Stateful, state: Any) -> None:
    """Load what `state_of` read; `state` stays as it is."""
    owner.load_state_dict(copy.deepcopy(state))


def read_parts(loader: Any) -> dict[str, Any]:
    """Read the generators and epoch counters of a loader, by dotted attribute name.

    Its attributes of the names in ``_FOLLOWED`` are searched as well.
    """
    return {
        name: _read(value) if isinstance(value, _GENERATORS) else value
        for name, _, _, value in _parts(loader)
    }


def restore_parts(loader: Any, state: dict[str, Any]) -> None:
    """Restore what `read_parts` read; raise ``CheckpointMismatch`` if the loader has others."""
    found = {name: (owner, key, value) for name, owner, key, value in _parts(loader)}
    if set(found) != set(state):
        odd = ", ".join(sorted(set(found) ^ set(state)))
        raise CheckpointMismatch(
            f"The generators and epoch counters of the loader ({type(loader).__name__}) are not "
            f"those of the saved one: {odd} is in one and not in the other. Build the loader as "
            "it was when the checkpoint was written."
        )
    for name, (owner, key, value) in found.items():
        saved = state[name]
        if key == "generator" and value is None and isinstance(saved, torch.Tensor):
            owner[key] = value = torch.Generator()  # some samplers make theirs at first use
        if isinstance(value, _GENERATORS) and saved is not None:
            _write(value, saved)
        else:
            owner[key] = saved


def read_moment(loader: Any) -> dict[str, Any]:
    """Read every random state there is: the global ones and the loader's own."""
    return {"rng": rng.get_state(), "parts": read_parts(loader)}


def restore_moment(loader: Any, moment: dict[str, Any]) -> None:
    """Restore what `read_moment` read."""
    rng.set_state(moment["rng"])
    restore_parts(loader, moment["parts"])


def dataset_state(loader: Any) -> dict[str, Any]:
    """Read the state of a data set that has one and lives in this process."""
    dataset = loader.dataset
    if loader.num_workers == 0 and isinstance(dataset, Stateful):
        return {"dataset": state_of(dataset)}
    return {}


def load_dataset(loader: Any, state: dict[str, Any]) -> None:
    """Load what `dataset_state` read."""
    if "dataset" in state:
        load_state(loader.dataset, state["dataset"])


def shadow(loader: Any, name: str, value: Any) -> Any:
    """Copy a loader, with one attribute changed; the loader itself is left as it is.

    A ``DataLoader`` refuses such a change after it was made, and a new one would not have the
    attributes of a subclass.
    """
    twin = object.__new__(type(loader))
    vars(twin).update(vars(loader))
    vars(twin)[name] = value
    vars(twin)["_iterator"] = None  # the persistent workers are the loader's own
    return twin


def unwrap(loader: Any) -> Any:
    """Give the ``DataLoader`` inside a loader prepared by Accelerate, or the loader itself."""
    iterate = getattr(type(loader), "__iter__", None)
    is_shard = getattr(iterate, "__qualname__", "") == "DataLoaderShard.__iter__"
    return loader.base_dataloader if is_shard else loader


def is_torchdata(loader: Any) -> bool:
    """Whether it is torchdata's ``StatefulDataLoader``."""
    return type(loader).__module__.partition(".")[0] == "torchdata"


def drop(iterator: Iterator[Any], count: int) -> None:
    """Load ``count`` batches and drop them; raise ``CheckpointMismatch`` if there are fewer."""
    for consumed in range(count):
        if next(iterator, _END) is _END:
            raise CheckpointMismatch(
                f"The loader ended after {consumed} mini-batches, and {count} were consumed when the "
                "checkpoint was written. Give the data that it was written with."
            )


def _parts(loader: Any) -> Iterator[tuple[str, dict[str, Any], str, Any]]:
    """Yield (dotted name, the owner's attributes, key, value) of each part, each object once."""
    seen: set[int] = set()
    queue: list[tuple[str, Any]] = [("loader", loader)]
    while queue:
        path, owner = queue.pop(0)
        if id(owner) in seen or not hasattr(owner, "__dict__"):
            continue
        seen.add(id(owner))
        for key, value in vars(owner).items():
            name = f"{path}.{key}"
            if key in _FOLLOWED and hasattr(value, "__dict__"):
                # During a pass an IndexSource may be in the sampler's place.
                value = vars(value).get("inner_sampler", value)
            is_counter = key in _COUNTERS and type(value) is int
            if isinstance(value, _GENERATORS):
                if id(value) not in seen:
                    seen.add(id(value))
                    yield name, vars(owner), key, value
            elif is_counter or (key == "generator" and value is None):
                yield name, vars(owner), key, value
            elif key in _FOLLOWED:
                several = value if type(value) in (list, tuple) and key == "datasets" else [value]
                queue += [(f"{name}.{i}" if i else name, v) for i, v in enumerate(several)]
