"""The ways to walk a loader, and to resume in the middle of it.

A loader is resumed by its indices (a map-style ``DataLoader``), by its own ``state_dict``, by
that of its data set, or else by loading the consumed batches again and dropping them.
`choose_route` picks the most exact way for a loader.
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

__all__ = ["Route", "choose_route"]


class PlainRoute:
    """Any iterable. A list is resumed by index; of others the consumed batches are dropped."""

    kind = "plain"

    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def open(self) -> Iterator[Any]:
        """Begin a pass."""
        return iter(self.loader)

    def reopen(
        self, state: dict[str, Any], index: int, resume: Callable[[], None]
    ) -> Iterator[Any]:
        """Resume a pass after ``index`` batches; the random states are those of its start.

        ``resume`` restores the random states of the save.
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
        load_state(self.loader, state["loader"])
        iterator: Iterator[Any] = iter(self.loader)
        resume()
        return iterator

    def state_dict(self, index: int, *, running: bool) -> dict[str, Any]:
        # Between passes torchdata's state_dict makes an iterator, which draws and starts workers.
        if running or not is_torchdata(unwrap(self.loader)):
            return {"loader": state_of(self.loader)}
        return dataset_state(self.loader)

    def load_idle(self, state: dict[str, Any]) -> None:
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
        # Worker processes have copies of the data set, whose state cannot be read from here.
        self.is_near = (
            loader.num_workers == 0
            and type(loader).__iter__ is DataLoader.__iter__
            and not isinstance(loader.dataset, IterDataPipe)
        )
        self.items = _Items(loader.dataset)

    def open(self) -> Iterator[Any]:
        if not self.is_near:
            return iter(self.loader)
        self.items = _Items(self.loader.dataset)
        near: Iterator[Any] = iter(shadow(self.loader, "dataset", self.items))
        return near

    def reopen(
        self, state: dict[str, Any], index: int, resume: Callable[[], None]
    ) -> Iterator[Any]:
        if not state:
            iterator = self.open()
            drop(iterator, index)
            resume()
            return iterator
        load_dataset(self.loader, state)
        iterator = self.open()
        self.items.resume(state)
        resume()
        return iter(()) if self.items.ended else iterator

    def state_dict(self, index: int, *, running: bool) -> dict[str, Any]:
        if not self.is_near:
            return {}
        state = dataset_state(self.loader)
        if running:
            state |= self.items.state_dict()
        return {"ended": running and self.items.ended, **state} if state else {}

    def load_idle(self, state: dict[str, Any]) -> None:
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

    def state_dict(self) -> dict[str, Any]:
        has_state = self.iterator is not self.dataset and isinstance(self.iterator, Stateful)
        return {"iterator": state_of(self.iterator)} if has_state else {}

    def resume(self, state: dict[str, Any]) -> None:
        """Load the state of the iterator, if one was saved and it had not ended."""
        self.ended = bool(state["ended"])
        if "iterator" in state and not self.ended:
            load_state(self.iterator, state["iterator"])

    def _follow(self, iterator: Iterator[Any]) -> Iterator[Any]:
        yield from iterator
        self.ended = True


Route = PlainRoute | IndexRoute


def choose_route(loader: Any, worker_seeding: str, *, fast_path: bool) -> Route:
    """Pick the most exact way to walk a loader; the arguments are those of a ``Cursor``."""
    owner = unwrap(loader)
    if not isinstance(owner, DataLoader) or (owner is loader and "base_dataloader" in vars(loader)):
        return StatefulRoute(loader) if isinstance(loader, Stateful) else PlainRoute(loader)
    if is_torchdata(owner):
        # Its own state leaves out the workers' random streams and samplers that draw from the
        # global generator, so it is used only for state that is inside of the data set.
        has_state = isinstance(owner.dataset, (IterableDataset, Stateful))
    else:
        has_state = owner is loader and isinstance(loader, Stateful)
    if has_state:
        return StatefulRoute(loader)
    if isinstance(owner.dataset, IterableDataset):
        return IterableRoute(loader)
    return IndexRoute(loader, worker_seeding, fast_path=fast_path)
