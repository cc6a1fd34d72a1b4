"""The ways to walk a loader, and to resume in the middle of it.

What a loader is decides how it can be resumed: by its indices (a map-style ``DataLoader``),
by its own ``state_dict``, by its data set's, or only by loading the consumed batches again and
dropping them. `choose_route` picks the most exact way there is.

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
    is_torchdata,
    load_dataset,
    load_state,
    shadow,
    state_of,
    unwrap,
)

__all__ = ["IterableRoute", "PlainRoute", "Route", "StatefulRoute", "choose_route"]


class PlainRoute:
    """Any iterable. A list is resumed by index; of others the consumed batches are dropped."""

    kind = "plain"

    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def open(self) -> Iterator[Any]:
        """Begin a pass."""
        return iter(self.loader)

    def prepare(self, state: dict[str, Any]) -> None:
        """Do what must come before the random states of the start of the pass are restored."""

    def reopen(
        self, state: dict[str, Any], index: int, resume: Callable[[], None]
    ) -> Iterator[Any]:
        """Resume a pass; the random states of its start are in place.

        Args:
            state: from `state_dict`.
            index: how many batches had been handed out.
            resume: restores the random states of the save.
        """
        if type(self.loader) in (list, tuple):
            iterator = islice(self.loader, index, None)
        else:
            iterator = iter(self.loader)
            drop(iterator, index)
        resume()
        return iterator

    def state_dict(self, index: int, *, running: bool) -> dict[str, Any]:
        """Give what is needed to resume the pass, or to begin the next one."""
        return {}

    def load_idle(self, state: dict[str, Any]) -> None:
        """Load the state between two passes."""


class StatefulRoute(PlainRoute):
    """A loader with ``state_dict`` and ``load_state_dict``, which resumes by itself."""

    kind = "stateful"

    def reopen(
        self, state: dict[str, Any], index: int, resume: Callable[[], None]
    ) -> Iterator[Any]:
        """Load the loader's own state."""
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
        """Load the loader's state between two passes."""
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
        """Load the state of the data set or of its iterator; without one, load batches and drop."""
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
        """Load the data set's state between two passes."""
        load_dataset(self.loader, state)


class _Items:
    """An iterable data set that keeps its iterator and knows whether it has ended."""

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
    if not isinstance(owner, DataLoader) or (owner is loader and "base_dataloader" in vars(loader)):
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
        return IndexRoute(loader, worker_seeding, fast_path=fast_path)
    return StatefulRoute(loader)
