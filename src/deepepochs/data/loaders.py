"""The loaders of a fit, and the state of each between two passes.

A loader may have its own generator, whose state is in a checkpoint between its passes, too.
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
        """Begin a fit with the loaders of this process, by ``<stage>/<index of the task>``.

        The saved state of all is loaded at once: they may share a data set with a generator,
        which the first pass advances.
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
        """Give the cursor of a pass that begins."""
        prepared = self._prepared.pop(id(loader), None)
        return prepared or Cursor(loader, worker_seeding=worker_seeding)

    def state_dict(self, walked: Any = None) -> dict[str, Any]:
        """The state of every loader except ``walked``, whose pass has it."""
        return {
            label: (self._prepared.get(id(loader)) or Cursor(loader)).state_dict()
            for label, loader in self._loaders.items()
            if loader is not walked
        }


def _warn_of_other_loader(label: str, why: str) -> None:
    warnings.warn(
        f"The loader of {label} is not that of the checkpoint, so the fit resumes with other "
        f"data, not to the bit: {why}",
        UserWarning,
        stacklevel=4,
    )
