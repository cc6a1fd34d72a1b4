"""The random streams of one process: inside of a call each process draws on its own.

The script around the calls draws alike in all processes, if it has seeded them alike: it makes
the same data, splits and models in each. Dropout and augmentation must not be alike.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from .. import rng
from .base import Streams


class SeparateStreams(Streams):
    """The random streams of one of several processes.

    The main process goes on with the script's. Another one derives its own from these and its
    rank, without an exchange.
    """

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self._outside: dict[str, int] | None = None  # how the script goes on; None: not in a call

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        # Derived from what all have, not from what a process has drawn when the call ends.
        self._outside = rng.derive_seeds("after the call")
        self.separate()
        try:
            yield
        finally:
            rng.use_seeds(self._outside)
            self._outside = None

    def separate(self) -> None:
        if self.rank:
            rng.use_seeds(rng.derive_seeds(f"process {self.rank}"))

    def state_dict(self) -> dict[str, Any]:
        own = rng.get_state()
        return own if self._outside is None else {**own, "outside": dict(self._outside)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        own = {name: value for name, value in state.items() if name != "outside"}
        outside = state.get("outside")
        rng.set_state(own)
        if self._outside is None:
            if outside is not None:
                rng.use_seeds(outside)
        elif outside is None:  # saved outside of a call, where all are alike
            self.separate()
        else:
            self._outside = dict(outside)
