"""Exchanges between the processes: each gives bytes to all, and says what it is about to do.

Where two are about to do different things, all get an error at once that names both, and where one
will never come, those that wait for it get one soon (see ``watch``). A process that is only slow is
waited for.

::

    exchange = Exchange(rank, num_processes)
    exchange.gather("ends the pass", value)      # the value of every process
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pickle
import struct
import weakref
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import torch
from torch import distributed

from ..errors import LoopException, warn_user
from .star import Star, Waiting
from .watch import ADVICE, Watch, own_store, text_of_deadlock

# The length of the value, what the process is about to do, and a short value itself. What an epoch
# exchanges is short, mostly: a longer value takes a second exchange.
_INLINE = 2048
_HEADER = struct.Struct(f"=q160s{_INLINE}s")
# Seconds: between two looks for the others, and until a wait may be a deadlock.
_LOOK_EVERY = 4
_PATIENCE = 30
_BEFORE, _ANEW = "The processes lost their connection before:", "Start the script anew."


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
        store = own_store()
        self._watch = Watch(rank, num_processes, store)
        waiting = self._waiting_for_trainers()
        self._meet(waiting)
        try:
            self._star = Star(rank, num_processes, store, waiting)
        except OSError as error:
            raise LoopException(
                f"Process {rank} cannot reach {error}.\nOpen the ports between the machines of the "
                "run: gloo and NCCL need them, too."
            ) from error
        self._limit_s = _limit_s()
        self._world = weakref.ref(distributed.group.WORLD)

    @property
    def is_current(self) -> bool:
        """Whether its processes are those of the present process group."""
        return self._world() is distributed.group.WORLD

    def end(self) -> None:
        """Leave the other processes, at the end of the script."""
        self._watch.end()
        self._star.close()

    def leave_to_parent(self) -> None:
        """Drop the connections in a fork: while one is open, nobody sees the end of its process."""
        self._star.close()
        self._broken = (
            f"This process is a fork of process {self.rank} of the run: call the trainer there."
        )

    def _meet(self, waiting: Waiting) -> None:
        """With gloo, wait until all processes have come: it notices if one has ended."""
        if distributed.get_backend() != "gloo":
            return
        everyone = [torch.zeros(1, device="cpu") for _ in range(self.num_processes)]
        work = distributed.all_gather(everyone, everyone[0].clone(), async_op=True)
        try:
            while not _is_done(work):
                waiting()
        except RuntimeError as error:
            raise LoopException(
                f"Process {self.rank} makes a Trainer, and has lost the connection to another "
                f"process, which has ended or failed. {ADVICE}"
            ) from error

    def _waiting_for_trainers(self) -> Waiting:
        seconds = itertools.count(1)

        def wait() -> None:
            if next(seconds) == _PATIENCE:
                text = f"Process {self.rank} waits for the others to make their Trainer. "
                warn_user(f"{text}{ADVICE}", RuntimeWarning)

        return wait

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
            raise LoopException(self._broken)
        try:
            with self._watch.exchanging(where):
                return self._star.gather(own, self._waiting(where))
        except OSError as error:
            text = self._lost(where)
            self._broken = f"{_BEFORE} {text} {_ANEW}"
            raise LoopException(text) from error
        except BaseException as error:
            self._broken = f"{_BEFORE} {str(error) or type(error).__name__ + '.'} {_ANEW}"
            raise

    def _waiting(self, where: str) -> Waiting:
        """Look now and then, while this process waits, whether the others can still come."""
        gone: tuple[int, str] | None = None
        seconds = itertools.count(1)

        def look() -> None:
            nonlocal gone
            second = next(seconds)
            if second % _LOOK_EVERY == 0:
                # Twice: what the others have sent may be on its way.
                last, gone = gone, self._watch.gone(self.num_calls)
                if gone is not None and gone == last:
                    raise LoopException(self._without(where, *gone))
                if second > _PATIENCE and (stuck := self._watch.deadlock()) is not None:
                    raise LoopException(self._stuck(where, stuck))
            if second > self._limit_s:
                raise LoopException(
                    f"Process {self.rank} has waited for another process for {second} seconds, the "
                    f"timeout of the process group. It is in {where}."
                )

        return look

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


def _is_done(work: Any) -> bool:
    """Wait for a collective for a second, and say whether it is done; raise if it fails."""
    try:
        work.wait(timedelta(seconds=1))
    except RuntimeError:
        if work.is_completed():
            raise
        return False
    return True


_MADE: list[Exchange] = []


def _leave_to_parent() -> None:
    for exchange in _MADE:
        exchange.leave_to_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)


def exchange_of(rank: int, num_processes: int) -> Exchange:
    """Give the exchange of this process, which all trainers share; all make it together."""
    if not _MADE or not _MADE[0].is_current:
        _MADE[:] = [Exchange(rank, num_processes)]
    return _MADE[0]


def _limit_s() -> float:
    """The patience of the processes' own group, which the user may have set."""
    least: Any = distributed.distributed_c10d.default_pg_timeout
    found: Any = distributed.distributed_c10d._get_default_group()
    with contextlib.suppress(AttributeError, RuntimeError):
        kind = torch.device("cuda" if distributed.get_backend() == "nccl" else "cpu")
        least = max(found._get_backend(kind).options._timeout, least)
    return float(least.total_seconds())
