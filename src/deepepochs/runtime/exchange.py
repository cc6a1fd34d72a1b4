"""Exchanges between the processes, in a group of the library's own.

With each exchange a process says what it is about to do. Where two are about to do different
things, all get an error at once that names both, and where one will never come, those that wait
for it get one soon (see ``watch``). A process that is only slow is waited for.

::

    exchange = Exchange(rank, num_processes)
    exchange.gather("ends the pass", value)      # the value of every process
"""

from __future__ import annotations

import contextlib
import itertools
import pickle
import struct
import weakref
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import torch
from torch import distributed

from ..errors import LoopException, warn_user
from .watch import ADVICE, Watch, text_of_deadlock

# The length of the value, what the process is about to do, and a short value itself. What an epoch
# exchanges is short, mostly: a longer value takes a second exchange.
_INLINE = 2048
_HEADER = struct.Struct(f"=q160s{_INLINE}s")
# Seconds: between two looks for the others, and until a wait may be a deadlock.
_LOOK_EVERY = 4
_PATIENCE = 30


class Exchange:
    """The exchanges of one process with the others.

    Attributes:
        num_calls: the calls of fit, test and the like that this process has begun.
    """

    def __init__(self, rank: int, num_processes: int) -> None:
        self.rank = rank
        self.num_processes = num_processes
        self.num_calls = 0
        self._call = "the script"
        self._broken: str | None = None
        self._latest: list[torch.Tensor] = []
        self._watch = Watch(rank, num_processes)
        self._meet()
        self._group: Any = distributed.new_group(backend="gloo", timeout=_timeout())
        self._world = weakref.ref(distributed.group.WORLD)

    @property
    def is_current(self) -> bool:
        """Whether its processes are those of the present process group."""
        return self._world() is distributed.group.WORLD

    def release(self) -> Any:
        """Give the group away, at the end of the script."""
        self._watch.end()
        group, self._group = self._group, None
        return group

    def _meet(self) -> None:
        """Wait until all processes have arrived: ``new_group`` hangs for ever if one has ended."""
        if distributed.get_backend() != "gloo":
            return
        everyone = [torch.zeros(1, device="cpu") for _ in range(self.num_processes)]
        work = distributed.all_gather(everyone, everyone[0].clone(), async_op=True)
        try:
            for seconds in _seconds_of(work):
                if seconds == _PATIENCE:
                    text = f"Process {self.rank} waits for the others to make their Trainer. "
                    warn_user(f"{text}{ADVICE}", RuntimeWarning)
        except RuntimeError as error:
            raise LoopException(
                f"Process {self.rank} makes a Trainer, and has lost the connection to another "
                f"process, which has ended or failed. {ADVICE}"
            ) from error

    @contextlib.contextmanager
    def call(self, name: str) -> Iterator[None]:
        """Name the call of which the exchanges in the block are, unless it has that name."""
        if self._call.startswith(name):
            yield
            return
        outer = self._call
        watched: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
        if outer == "the script":
            self.num_calls += 1
            self._call = f"{name} (call {self.num_calls})"
            watched = self._watch.calling(self.num_calls, self._call)
        else:
            self._call = f"{name} inside of {outer}"
        try:
            with watched:
                yield
        finally:
            self._call = outer

    def gather(self, purpose: str, value: bytes) -> list[Any]:
        """Give the bytes of every process, in the order of the ranks.

        Args:
            purpose: what this process is about to do, as ``'begins a pass'``.
            value: its own.

        Raises:
            LoopException: another process is about to do something else, or will never come.
        """
        where = f"{self._call}, where it {purpose}"
        text = where.encode()[:160]
        inline = value if len(value) <= _INLINE else b""
        header = bytearray(_HEADER.pack(len(value), text, inline))
        headers = [_HEADER.unpack(of) for of in self._all(where, header)]
        places = [place.rstrip(b"\0") for _, place, _ in headers]
        if any(place != text for place in places):
            named = "; ".join(
                f"process {rank} is in {place.decode(errors='replace')}"
                for rank, place in enumerate(places)
            )
            raise LoopException(
                f"The processes are about to do different things: {named}. {ADVICE}"
            )
        longest = max(length for length, _, _ in headers)
        if longest <= _INLINE:
            return [of[:length] for length, _, of in headers]
        padded = bytearray(value.ljust(longest, b"\0"))
        whole = self._all(where, padded)
        return [of[:length] for of, (length, _, _) in zip(whole, headers, strict=True)]

    def objects(self, purpose: str, value: Any) -> list[Any]:
        """Give the object of every process."""
        return [pickle.loads(of) for of in self.gather(purpose, pickle.dumps(value))]

    def total(self, purpose: str, values: list[float]) -> list[float]:
        """Add numbers up over the processes, in the order of the ranks."""
        packing = struct.Struct(f"={len(values)}d")
        all_values = [packing.unpack(of) for of in self.gather(purpose, packing.pack(*values))]
        return [sum(column) for column in zip(*all_values, strict=True)]

    def _all(self, where: str, own: bytearray) -> list[memoryview]:
        """Exchange as many bytes of each process."""
        if self._broken is not None:
            raise LoopException(
                f"The processes lost their connection before: {self._broken} Start the script anew."
            )
        everyone = torch.empty((self.num_processes, len(own)), dtype=torch.uint8, device="cpu")
        try:
            with self._watch.exchanging(where):
                mine = torch.frombuffer(own, dtype=torch.uint8)
                rows = list(everyone.unbind())
                # A thread of gloo lets go of the tensors a moment after the exchange. Were it their
                # last owner, it would take locks of Python, and a worker that a loader forks in
                # that moment would wait for them for ever. So they are kept until the next one.
                self._latest = [mine, *rows]
                self._wait(distributed.all_gather(rows, mine, self._group, async_op=True), where)
        except BaseException as error:
            self._broken = str(error)
            raise
        return [memoryview(row) for row in everyone.numpy()]

    def _wait(self, work: Any, where: str) -> None:
        """Wait for the others, and look now and then whether they can still come."""
        gone: tuple[int, str] | None = None
        try:
            for seconds in _seconds_of(work):
                if seconds % _LOOK_EVERY:
                    continue
                # Twice: what the others have sent may be on its way.
                last, gone = gone, self._watch.gone(self.num_calls)
                if gone is not None and gone == last:
                    raise LoopException(self._without(where, *gone))
                if seconds > _PATIENCE and (stuck := self._watch.deadlock()) is not None:
                    raise LoopException(self._stuck(where, stuck))
        except RuntimeError as error:
            raise LoopException(self._lost(where)) from error

    def _without(self, where: str, rank: int, what: str) -> str:
        return (
            f"Process {self.rank} waits for process {rank}, which {what}. "
            f"Process {self.rank} is in {where}. {ADVICE}"
        )

    def _stuck(self, where: str, places: dict[int, str]) -> str:
        named = "; ".join(f"process {rank} {what}" for rank, what in places.items())
        return text_of_deadlock(f"process {self.rank} is in {where}; {named}")

    def _lost(self, where: str) -> str:
        gone = self._watch.gone(self.num_calls)
        if gone is not None:
            return self._without(where, *gone)
        return (
            f"Process {self.rank} has lost the connection to another process, which was ended or has "
            f"failed: its own message says why. Process {self.rank} is in {where}."
        )


def _seconds_of(work: Any) -> Iterator[int]:
    """Wait for an exchange, and give the seconds so far after each second; raise if it fails."""
    for seconds in itertools.count(1):
        try:
            work.wait(timedelta(seconds=1))
            return
        except RuntimeError:
            if work.is_completed():
                raise
        yield seconds


_MADE: list[Exchange] = []


def exchange_of(rank: int, num_processes: int) -> Exchange:
    """Give the exchange of this process, which all trainers share; all make it together."""
    if not _MADE or not _MADE[0].is_current:
        _MADE[:] = [Exchange(rank, num_processes)]
    return _MADE[0]


def _timeout() -> Any:
    """The patience of the processes' own group, which the user may have set."""
    least: Any = distributed.distributed_c10d.default_pg_timeout
    found: Any = distributed.distributed_c10d._get_default_group()
    with contextlib.suppress(AttributeError, RuntimeError):
        kind = torch.device("cuda" if distributed.get_backend() == "nccl" else "cpu")
        return max(found._get_backend(kind).options._timeout, least)
    return least
