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
import faulthandler
import itertools
import json
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from datetime import timedelta
from types import FrameType
from typing import Any

from torch import distributed

from ..errors import StopLoopException
from .rounds import UNUSED

ADVICE = (
    "All processes must make the same calls in the same order: Trainer, fit, test, predict, find_lr, "
    "state_dict and load_checkpoint, and whatever saves. A hook, a step or the script must not make "
    "one under `if trainer.main_process`, nor leave one out."
)
BACKWARD = "the backward pass"
LOOK_S = 3.0
SETTLED_S = 15.0
"""A wait that lasts longer is told to the others."""

_IDLE = 0.02
"""Of a core: a process that uses less neither computes nor sends."""

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
        in_call: whether it is in a call of fit, test or the like.
    """

    def __init__(self, rank: int, num_processes: int, store: Any) -> None:
        self.rank = rank
        self.num_processes = num_processes
        self.exchange: str | None = None
        self.num_exchanges = 0
        self.in_call = False
        self._store = store
        self._ended = threading.Event()
        self._watched = threading.get_ident()
        self._error: str | None = None  # with which the latest call was left
        self._seen: dict[int, Any] = {}  # where the others waited at the last look for a deadlock
        for kind in ("waits", "left"):
            self._tell(kind, None)
        self._thread = threading.Thread(target=self._look, name="deepepochs-watch", daemon=True)
        self._thread.start()

    @contextlib.contextmanager
    def exchanging(self, where: str) -> Iterator[None]:
        """Note that the main thread exchanges something during the block."""
        self.num_exchanges += 1
        self.exchange = where
        try:
            yield
        finally:
            self.exchange = None

    @contextlib.contextmanager
    def calling(self, call: int, where: str) -> Iterator[None]:
        """Note that the block is a call, and tell the others if it is left with an error."""
        self._error = None
        self.in_call = True
        try:
            yield
        except StopLoopException:
            raise
        except BaseException as error:
            self._error = f"has left {where} with {error!r}"[:400]
            self._tell("left", {"call": call, "what": self._error})
            raise
        finally:
            self.in_call = False

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

    def deadlock(self, here: Any = None) -> dict[int, str] | None:
        """Return where each other process waits, or ``None`` if this is no deadlock.

        It is one if all others wait, at the same places in two checks in a row, and not all at the
        same place. ``here`` is given if this process waits outside of our exchanges. If another one
        waits inside of one then, its own check reports the deadlock.
        """
        before, self._seen = self._seen, dict(self._told("waits"))
        if here is not None and any(place["is_ours"] for place in self._seen.values()):
            return None
        here = here or [self.num_exchanges, self.exchange]
        if len(self._seen) < self.num_processes - 1:
            return None
        for rank, place in self._seen.items():
            last = before.get(rank, place)
            if last["at"] != place["at"] or last["beat"] == place["beat"]:
                return None
        if all(place["at"] == here for place in self._seen.values()):
            return None
        return {rank: place["what"] for rank, place in self._seen.items()}

    def _look(self) -> None:
        place: dict[str, Any] | None = None
        since_s, told = 0.0, False
        cpu_s = time.process_time()
        for beat in itertools.count():
            if self._ended.wait(LOOK_S):
                return
            last, place = place, self._place()
            last_cpu_s, cpu_s = cpu_s, time.process_time()
            # Who sends or receives a large tensor, or computes in a backward pass, does not wait.
            if place != last or cpu_s - last_cpu_s > _IDLE * LOOK_S:
                since_s = time.monotonic()
                if told:
                    self._tell("waits", None)
                    told = False
            elif place is not None and time.monotonic() - since_s > SETTLED_S:
                self._tell("waits", {**place, "beat": beat})
                told = True
                waited_s = time.monotonic() - since_s
                if self.in_call and not place["is_ours"] and waited_s > 2 * SETTLED_S:
                    others = self.deadlock(place["at"])
                    if others is not None:
                        self._abort(place["what"], others)

    def _abort(self, what: str, others: dict[int, str]) -> None:
        """End the process: its main thread cannot raise where it is, as PyTorch does with NCCL."""
        places = {self.rank: what, **others}
        named = "; ".join(f"process {rank} {places[rank]}" for rank in sorted(places))
        sys.__stderr__.write(f"deepepochs: {text_of_deadlock(named)}\n")  # type: ignore[union-attr]
        faulthandler.dump_traceback(sys.__stderr__)  # type: ignore[arg-type]
        sys.__stderr__.flush()  # type: ignore[union-attr]
        os._exit(1)

    def _place(self) -> dict[str, Any] | None:
        """Where the main thread waits for other processes, if it does."""
        if self.exchange is not None:
            at = [self.num_exchanges, self.exchange]
            return {"at": at, "what": f"waits in {self.exchange}", "is_ours": True}
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
        return {"at": [self.num_exchanges, what], "what": what, "is_ours": False}

    def _tell(self, kind: str, value: Any) -> None:
        # If the store cannot be reached, the other processes have ended, and nobody reads this.
        with contextlib.suppress(RuntimeError):
            self._store.set(f"deepepochs/{kind}/{self.rank}", json.dumps(value))

    def _told(self, kind: str) -> Mapping[int, Any]:
        names = [f"deepepochs/{kind}/{rank}" for rank in range(self.num_processes)]
        with contextlib.suppress(RuntimeError):
            extended = self._store.has_extended_api()
            got = self._store.multi_get(names) if extended else map(self._store.get, names)
            values = {rank: json.loads(value) for rank, value in enumerate(got)}
            return {rank: value for rank, value in values.items() if value and rank != self.rank}
        return {}


def text_of_deadlock(named: str) -> str:
    """Say that the processes wait for one another, and what is to be done."""
    advice = UNUSED if BACKWARD in named else ADVICE
    return f"The processes wait for one another at different places: {named}. {advice}"


def _stack(frame: FrameType | None) -> Iterator[tuple[str, FrameType]]:
    """The module and the frame of each call, the innermost first."""
    while frame is not None:
        yield str(frame.f_globals.get("__name__", "")), frame
        frame = frame.f_back


def own_store() -> Any:
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
