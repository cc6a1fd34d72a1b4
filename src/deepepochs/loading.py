"""Walking a loader: where it is, and how to come back there.

A [`Cursor`][deepepochs.loading.Cursor] walks one loader once.

>>> from deepepochs.loading import Cursor
>>> [(index, batch) for index, batch in Cursor(["a", "b"])]
[(0, 'a'), (1, 'b')]
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

__all__ = ["Cursor"]


class Cursor:
    """Walks one DataLoader (or any iterable of batches) once, and can say where it is.

    Args:
        loader: a ``DataLoader`` or any iterable of batches.
        worker_seeding: ``'position'`` or ``'torch'``.
        fast_path: whether in-memory tensors are fetched by one index operation.
    """

    def __init__(
        self, loader: Iterable[Any], *, worker_seeding: str = "position", fast_path: bool = True
    ) -> None:
        self.loader = loader
        self.index = 0
        self.length: int | None
        try:
            self.length = len(loader)  # type: ignore[arg-type]
        except (TypeError, NotImplementedError):
            self.length = None

    @property
    def is_last(self) -> bool | None:
        """Whether the batch just handed out is the last one; ``None`` if unknown."""
        return None if self.length is None else self.index >= self.length

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        """Yield ``(index, batch)``, going on where a loaded state left off."""
        skip = self.index
        for position, batch in enumerate(self.loader):
            if position < skip:
                continue
            self.index = position + 1
            yield position, batch

    def state_dict(self) -> dict[str, Any]:
        """Where the walk is."""
        return {"index": self.index}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where ``state`` was taken."""
        self.index = int(state["index"])
