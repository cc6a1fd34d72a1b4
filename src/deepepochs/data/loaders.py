"""The loaders of a fit, each once, and what each carries from one pass to the next.

A loader may have a generator of its own, whose state a checkpoint keeps between its passes.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from ..errors import CheckpointMismatch
from .cursor import Cursor

__all__ = ["Loaders"]


class Loaders:
    """The loaders of the latest fit."""

    def __init__(self) -> None:
        self._loaders: dict[str, Any] = {}
        self._prepared: dict[int, Cursor] = {}

    def begin(
        self, loaders: Mapping[str, Any], worker_seeding: str, saved: Mapping[str, Any] | None
    ) -> None:
        """Take the loaders of a fit, and bring them to where a saved state was taken.

        All are brought there at once: they may share a data set with a generator of its own,
        which the first pass moves on.

        Args:
            loaders: what this process walks, by ``<stage>/<index of the task>``.
            worker_seeding: as for ``Cursor``.
            saved: what ``state_dict`` gave, or ``None``.
        """
        self._loaders = {}
        for label, loader in loaders.items():
            if not any(loader is other for other in self._loaders.values()):
                self._loaders[label] = loader
        kept = {id(loader) for loader in self._loaders.values()} if saved is None else set()
        self._prepared = {key: cursor for key, cursor in self._prepared.items() if key in kept}
        for label, state in (saved or {}).items():
            if label not in self._loaders:
                _warn_of_other_loader(label, "this fit has none there")
                continue
            cursor = Cursor(self._loaders[label], worker_seeding=worker_seeding)
            try:
                cursor.load_state_dict(state)
            except CheckpointMismatch as error:
                _warn_of_other_loader(label, str(error))
            else:
                self._prepared[id(cursor.loader)] = cursor

    def cursor(self, loader: Any, worker_seeding: str) -> Cursor:
        """Give the walk over a loader that begins a pass."""
        prepared = self._prepared.pop(id(loader), None)
        return prepared or Cursor(loader, worker_seeding=worker_seeding)

    def state_dict(self, walked: Any = None) -> dict[str, Any]:
        """The state of every loader but the one that is being walked, which its pass keeps."""
        return {
            label: (self._prepared.get(id(loader)) or Cursor(loader)).state_dict()
            for label, loader in self._loaders.items()
            if loader is not walked
        }


def _warn_of_other_loader(label: str, why: str) -> None:
    warnings.warn(
        f"The loader of {label} is not that of the checkpoint, so the fit goes on with other "
        f"data, not to the bit: {why}",
        UserWarning,
        stacklevel=4,
    )
