"""Where each process is, for those that wait for it.

A process that waits for another cannot tell from the wait alone whether that one is slow or will
never come. So a thread in each process looks, every few seconds, where the main thread is. Where
it waits for other processes, in an exchange of the library or of ``torch.distributed``, the
thread says so in the store of the process group; and a process that leaves a call with an error,
or ends, says that. A process that is busy, in a debugger or on a disk says nothing, and is waited
for.
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from datetime import timedelta
from types import FrameType
from typing import Any

from torch import distributed

BACKWARD = "the backward pass"
LOOK_S = 3.0
SETTLED_S = 15.0
"""A wait that lasts longer is told to the others."""

_IDLE = 0.02
"""Of a core: a process that uses less does not compute."""

# Where torch waits for other processes. Others of its modules write files, too.
_WAITING = (
    "torch.distributed.distributed_c10d", "torch.distributed._functional_collectives",
    "torch.distributed.tensor", "torch.distributed.fsdp", "torch.nn.parallel.distributed",
)  # fmt: skip
_BACKWARD = "torch.autograd.graph"
_NOT_THE_USERS = ("torch.", "accelerate.", "deepepochs.")


class Watch:
    """Tells the other processes where this one waits, and knows where they do.

    Attributes:
        exchange: what the main thread exchanges in this moment, if it does.
        num_exchanges: those that have begun.
    """

    def __init__(self, rank: int, num_processes: int) -> None:
        self.rank = rank
        self.num_processes = num_processes
        self.exchange: str | None = None
        self.num_exchanges = 0
        self._store = _own_store()
        self._ended = threading.Event()
        self._watched = threading.get_ident()
        self._error: str | None = None  # with which the latest call was left
        for kind in ("waits", "left"):
            self._tell(kind, None)
        self._thread = threading.Thread(target=self._look, name="deepepochs-watch", daemon=True)
        self._thread.start()

    def enter(self) -> None:
        """Note that a call begins."""
        self._error = None

    def leave(self, call: int, where: str, error: BaseException) -> None:
        """Tell that a call is left with an error."""
        self._error = f"has left {where} with {error!r}"[:400]
        self._tell("left", {"call": call, "what": self._error})

    def end(self) -> None:
        """Tell that the script has ended, and look no more."""
        self._tell("left", {"call": None, "what": self._error or "has ended its script"})
        self._ended.set()
        self._thread.join(LOOK_S)

    def gone(self, call: int) -> tuple[int, str] | None:
        """Give a process that will not come to this call any more, and why."""
        for rank, told in self._told("left").items():
            if told["call"] in (None, call):
                return rank, told["what"]
        return None

    def deadlock(self) -> dict[int, str] | None:
        """Give where all others wait, if none of them is busy and one is at another place."""
        told = self._told("waits")
        here = [self.num_exchanges, self.exchange]
        if len(told) < self.num_processes - 1:
            return None
        if all(place["at"] == here for place in told.values()):
            return None
        return {rank: place["what"] for rank, place in told.items()}

    def _look(self) -> None:
        place: dict[str, Any] | None = None
        since_s, told = 0.0, False
        cpu_s = time.process_time()
        while not self._ended.wait(LOOK_S):
            last, place = place, self._place()
            last_cpu_s, cpu_s = cpu_s, time.process_time()
            computes = cpu_s - last_cpu_s > _IDLE * LOOK_S
            if place != last or (computes and place is not None and place["may_compute"]):
                since_s = time.monotonic()
                if told:
                    told = self._tell("waits", None) and False
            elif place is not None and not told and time.monotonic() - since_s > SETTLED_S:
                told = self._tell("waits", place)

    def _place(self) -> dict[str, Any] | None:
        """Where the main thread waits for other processes, if it does."""
        if self.exchange is not None:
            at = [self.num_exchanges, self.exchange]
            return {"at": at, "what": f"waits in {self.exchange}", "may_compute": False}
        stack = list(_stack(sys._current_frames().get(self._watched)))
        modules = [module for module, _ in stack]
        own = next((i for i, name in enumerate(modules) if not name.startswith("torch.")), None)
        names = [
            BACKWARD if module == _BACKWARD else f"{module}.{frame.f_code.co_name}()"
            for module, frame in stack[:own]
            if module.startswith((*_WAITING, _BACKWARD)) and frame.f_code.co_name != "wrapper"
        ]
        if not names:
            return None
        what = f"waits in {names[-1]}".replace(".distributed_c10d.", ".")
        for module, frame in stack:
            if not module.startswith(_NOT_THE_USERS):
                what += f", called in {frame.f_code.co_filename}, line {frame.f_lineno}"
                break
        may_compute = not modules[0].startswith(_WAITING)
        return {"at": [self.num_exchanges, what], "what": what, "may_compute": may_compute}

    def _tell(self, kind: str, value: Any) -> bool:
        # Where the store is gone, so are the processes that could ask.
        with contextlib.suppress(RuntimeError):
            self._store.set(f"deepepochs/{kind}/{self.rank}", json.dumps(value))
        return True

    def _told(self, kind: str) -> Mapping[int, Any]:
        names = [f"deepepochs/{kind}/{rank}" for rank in range(self.num_processes)]
        with contextlib.suppress(RuntimeError):
            extended = self._store.has_extended_api()
            got = self._store.multi_get(names) if extended else map(self._store.get, names)
            values = {rank: json.loads(value) for rank, value in enumerate(got)}
            return {rank: value for rank, value in values.items() if value and rank != self.rank}
        return {}


def _stack(frame: FrameType | None) -> Iterator[tuple[str, FrameType]]:
    """The module and the frame of each call, the innermost first."""
    while frame is not None:
        yield str(frame.f_globals.get("__name__", "")), frame
        frame = frame.f_back


def _own_store() -> Any:
    """The store of the process group, through a connection that no wait of another blocks."""
    of_torch: Any = distributed
    store = of_torch.distributed_c10d._get_default_store()
    while isinstance(store, of_torch.PrefixStore):
        store = store.underlying_store
    if not isinstance(store, of_torch.TCPStore):
        return store
    patience = timedelta(seconds=30)
    return of_torch.TCPStore(
        store.host, store.port, is_master=False, wait_for_workers=False, timeout=patience
    )
