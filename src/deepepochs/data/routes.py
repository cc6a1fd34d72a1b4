"""The ways to walk a loader, and to come back into the middle of it.

What a loader is decides how it can be resumed: by its indices (a map-style ``DataLoader``),
by its own ``state_dict``, by its data set's, or only by loading what was had and dropping it.
`choose_route` picks the most exact way there is.

>>> from deepepochs.data.routes import choose_route
>>> route = choose_route(["a", "b", "c"])
>>> list(route.reopen({}, 1, lambda: None))
['b', 'c']
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from torch.utils.data import DataLoader, IterableDataset, IterDataPipe

from .index_route import IndexRoute
from .loader_state import (
    Stateful,
    dataset_state,
    drop,
    load_dataset,
    load_state,
    shadow,
    state_of,
)

__all__ = ["IterableRoute", "PlainRoute", "Route", "StatefulRoute", "choose_route"]


class PlainRoute:
    """Any iterable. A list is gone on with by index; of anything else what was had is dropped."""

    kind = "plain"

    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def open(self) -> Iterator[Any]:
        """Begin a pass."""
        return iter(self.loader)

    def prepare(self, state: dict[str, Any]) -> None:
        """Do what must be done before the random states of the start are put back."""

    def reopen(
        self, state: dict[str, Any], index: int, resume: Callable[[], None]
    ) -> Iterator[Any]:
        """Go on with a pass; the random states of its start are in place.

        Args:
            state: from `state_dict`.
            index: how many batches had been handed out.
            resume: puts the random states of the save back.
        """
        if type(self.loader) in (list, tuple):
            iterator = islice(self.loader, index, None)
        else:
            iterator = iter(self.loader)
            drop(iterator, index)
        resume()
        return iterator

    def state_dict(self, index: int, *, running: bool) -> dict[str, Any]:
        """Say what the pass needs to be gone on with, or the next one to begin."""
        return {}

    def load_idle(self, state: dict[str, Any]) -> None:
        """Take back the state between two passes."""


class StatefulRoute(PlainRoute):
    """A loader with ``state_dict`` and ``load_state_dict``, which knows by itself where it is."""

    kind = "stateful"

    def reopen(
        self, state: dict[str, Any], index: int, resume: Callable[[], None]
    ) -> Iterator[Any]:
        """Let the loader go on from its own state."""
        load_state(self.loader, state["loader"])
        iterator: Iterator[Any] = iter(self.loader)
        resume()
        return iterator

    def state_dict(self, index: int, *, running: bool) -> dict[str, Any]:
        """Read the loader's state, and the data set's between passes."""
        # Asked between passes, torchdata's makes an iterator: it draws and starts workers.
        if running or not is_torchdata(unwrap(self.loader)):
            return {"loader": state_of(self.loader)}
        return dataset_state(self.loader)

    def load_idle(self, state: dict[str, Any]) -> None:
        """Take back the loader's state between two passes."""
        if "loader" in state:
            load_state(self.loader, state["loader"])
        else:
            self.loader.load_state_dict({})  # forget an iterator that was made too early
            load_dataset(self.loader, state)


class IterableRoute(PlainRoute):
    """A ``DataLoader`` over an iterable data set."""

    kind = "iterable"

    def __init__(self, loader: Any) -> None:
        super().__init__(loader)
        # Worker processes have copies of the data set, out of reach from here.
        self.is_near = (
            loader.num_workers == 0
            and type(loader).__iter__ is DataLoader.__iter__
            and not isinstance(loader.dataset, IterDataPipe)
        )
        self.items = _Items(loader.dataset)

    def open(self) -> Iterator[Any]:
        """Begin a pass."""
        if not self.is_near:
            return iter(self.loader)
        self.items = _Items(self.loader.dataset)
        near: Iterator[Any] = iter(shadow(self.loader, "dataset", self.items))
        return near

    def reopen(
        self, state: dict[str, Any], index: int, resume: Callable[[], None]
    ) -> Iterator[Any]:
        """Go on from the data set's or its iterator's state, else load and drop."""
        if not state:
            iterator = self.open()
            drop(iterator, index)
            resume()
            return iterator
        load_dataset(self.loader, state)
        iterator = self.open()
        if "iterator" in state and not state["ended"]:
            load_state(self.items.iterator, state["iterator"])
        self.items.ended = bool(state["ended"])
        resume()
        return iter(()) if self.items.ended else iterator

    def state_dict(self, index: int, *, running: bool) -> dict[str, Any]:
        """Read the state of the data set and of its iterator, if they have one."""
        if not self.is_near:
            return {}
        state = dataset_state(self.loader)
        iterator = self.items.iterator
        if running and iterator is not self.loader.dataset and isinstance(iterator, Stateful):
            state["iterator"] = state_of(iterator)
        return {**state, "ended": running and self.items.ended} if state else {}

    def load_idle(self, state: dict[str, Any]) -> None:
        """Take back the data set's state between two passes."""
        load_dataset(self.loader, state)


class _Items:
    """An iterable data set that keeps hold of its iterator and knows whether it has ended."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        self.iterator: Any = None
        self.ended = False

    def __iter__(self) -> Iterator[Any]:
        self.iterator = iter(self.dataset)
        self.ended = False
        return self._follow(self.iterator)

    def _follow(self, iterator: Iterator[Any]) -> Iterator[Any]:
        yield from iterator
        self.ended = True


Route = PlainRoute | IndexRoute


def choose_route(loader: Any, worker_seeding: str = "position", *, fast_path: bool = True) -> Route:
    """Pick the most exact way to walk a loader.

    Args:
        loader: any iterable of batches.
        worker_seeding: ``'position'`` or ``'torch'``.
        fast_path: whether in-memory tensors are fetched by one index operation.
    """
    owner = unwrap(loader)
    if not isinstance(owner, DataLoader) or type(loader).__name__ == "DataLoaderDispatcher":
        return StatefulRoute(loader) if isinstance(loader, Stateful) else PlainRoute(loader)
    if is_torchdata(owner):
        # torchdata's own way would not bring the workers' random streams back, nor a sampler that
        # draws from the global generator; for state inside of data sets there is no other.
        by_index = not isinstance(owner.dataset, (IterableDataset, Stateful))
    elif owner is loader and isinstance(loader, Stateful):
        by_index = False
    elif isinstance(owner.dataset, IterableDataset):
        return IterableRoute(loader)
    else:
        by_index = True
    if by_index:
        return IndexRoute(loader, owner, worker_seeding, fast_path=fast_path)
    return StatefulRoute(loader)


def unwrap(loader: Any) -> Any:
    """Give the ``DataLoader`` inside of Accelerate's wrapper, or the loader itself."""
    return vars(loader).get("base_dataloader", loader) if hasattr(loader, "__dict__") else loader


def is_torchdata(loader: Any) -> bool:
    """Whether it is torchdata's ``StatefulDataLoader``."""
    return type(loader).__module__.partition(".")[0] == "torchdata"
