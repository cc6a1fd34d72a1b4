"""Writes a state at once, or in a thread while training goes on.

The thread gets a copy of the state, so what is written is the state at the moment of the save.
A process has one such thread at a time: the next save waits for it, and so does all that reads
or writes a checkpoint, by :func:`settle`.
"""

from __future__ import annotations

import copy
import os
import threading
import weakref
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch

from ..arguments import check_flag

Action = Callable[[Any], object]

_BYTES: dict[str, Any] = {"dtype": torch.uint8, "device": "cpu"}


class Writer:
    """Calls a function that writes a state: at once, or in a thread, with a copy of the state.

    An error in the thread is raised by the next `write` or by `wait`. The interpreter does not
    exit before the thread has ended. A copy or a pickle of a writer has no thread.

    Args:
        background: write in a thread.

    Example:
        >>> written = []
        >>> writer = Writer(background=True)
        >>> weight = torch.zeros(2)
        >>> writer.write(written.append, {"weight": weight})
        >>> weight += 1  # training goes on
        >>> writer.wait()
        >>> written
        [{'weight': tensor([0., 0.])}]
    """

    def __init__(self, background: bool = False) -> None:
        self.background = check_flag("background", background)
        self._thread: _WritingThread | None = None
        self._copies = Copies()

    def __reduce__(self) -> tuple[Any, ...]:
        return Writer, (self.background,)

    def write(self, action: Action, state: Any) -> None:
        """Call ``action(state)``, in the background when the last one has ended."""
        if not self.background:
            action(state)
            return
        self.wait()
        settle()  # another writer may be at work
        self._thread = _WritingThread(action, self._copies.take(state))
        _threads.add(self._thread)
        self._thread.start()

    def wait(self) -> None:
        """Wait until all is written; raise the error of the last write, once."""
        if self._thread is None:
            return
        self._thread.wait()  # a Ctrl-C here leaves it there
        error, self._thread = self._thread.error, None
        if error is not None:
            raise error

    def end(self) -> None:
        """Wait, and give back the memory of the copies."""
        self._copies = Copies()  # the thread has its own reference
        self.wait()


def settle() -> None:
    """Wait until no thread of this process writes a checkpoint; the thread itself goes on."""
    if not isinstance(threading.current_thread(), _WritingThread):
        for thread in list(_threads):
            thread.wait()


class _WritingThread(threading.Thread):
    def __init__(self, action: Action, state: Any) -> None:
        super().__init__(name="deepepochs checkpoint")
        self.error: BaseException | None = None
        self._job = action, state
        self._done = threading.Event()
        self._pid = os.getpid()

    def wait(self) -> None:
        """Wait for its end, unless it could not be started, or is of the process that forked.

        Up to Python 3.12, a Ctrl-C in ``join`` marks a thread as ended that still runs.
        """
        if self.ident is not None and self._pid == os.getpid():
            self._done.wait()

    def run(self) -> None:
        try:
            action, state = self._job
            action(state)
        except BaseException as error:
            self.error = error
        finally:
            del self._job
            self._done.set()


_threads: weakref.WeakSet[_WritingThread] = weakref.WeakSet()


class Copies:
    """Copies states to the CPU, each into the memory of the one before, which is lost.

    New memory costs several times as much as the copying itself: the system has to clear it.
    """

    def __init__(self) -> None:
        self._used: list[torch.UntypedStorage] = []
        self._free: dict[int, list[torch.UntypedStorage]] = {}
        self._storages: dict[int, torch.UntypedStorage] = {}
        self._memo: dict[int, Any] = {}

    def take(self, state: Any) -> Any:
        """Copy what ``to_plain`` gives; what shares memory there shares it in the copy."""
        self._free = defaultdict(list)
        for storage in self._used:
            self._free[storage.nbytes()].append(storage)
        self._used = []
        try:
            return self._copied(state)
        finally:
            self._free, self._storages, self._memo = {}, {}, {}

    def _copied(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            if id(value) not in self._memo:
                self._memo[id(value)] = self._tensor(value)
            return self._memo[id(value)]
        if isinstance(value, dict):
            turned = copy.copy(value)  # keeps its class and the _metadata of Module.state_dict
            for key, item in value.items():
                turned[key] = self._copied(item)
            return turned
        if type(value) in (list, tuple):
            return type(value)(map(self._copied, value))
        return bytearray(value) if type(value) is bytearray else value

    def _tensor(self, value: torch.Tensor) -> torch.Tensor:
        is_odd = value.layout is not torch.strided or value.is_quantized or value.is_nested
        if is_odd or value.device.type == "meta" or value.is_conj() or value.is_neg():
            return copy.deepcopy(value)
        storage = self._storage(value.untyped_storage())
        empty = torch.empty(0, dtype=value.dtype, device="cpu")
        return empty.set_(storage, value.storage_offset(), value.shape, value.stride())

    def _storage(self, source: torch.UntypedStorage) -> torch.UntypedStorage:
        if source._cdata not in self._storages:
            size = source.nbytes()
            free = self._free.get(size)
            own = free.pop() if free else torch.empty(size, **_BYTES).untyped_storage()
            self._used.append(own.copy_(source))
            self._storages[source._cdata] = own
        return self._storages[source._cdata]
