"""Leave gloo's process group at the end of a program, and wait for its threads.

A thread of gloo lets go of the tensors of its last exchange a moment after the exchange is
over. If Python is gone by then, it aborts the process: a run that has done all its work ends
with an error (pytorch/pytorch#179291, #190489). To destroy the group is not enough, for the
threads end with its last owner, and models and functions of torch own it, too.

>>> from deepepochs.runtime.gloo import leave_gloo
>>> leave_gloo()  # in a single process there is no group: nothing is done
"""

from __future__ import annotations

import atexit
import functools
import gc
import sys
import threading
import time
import weakref
from queue import SimpleQueue
from types import FunctionType
from typing import Any

__all__ = ["leave_gloo", "leave_gloo_at_exit"]

_PATIENCE_S = 2.0
_GRACE_S = 0.5


def leave_gloo_at_exit() -> None:
    """Have `leave_gloo` called at the end of the program, before what is registered already."""
    _dropper()  # Python 3.12 starts no thread at its end
    atexit.unregister(leave_gloo)
    atexit.register(leave_gloo)


def leave_gloo() -> None:
    """Destroy gloo's process groups and end the threads of the one of all processes.

    NCCL's group is left alone: to leave it is a matter for all processes together. Groups that
    the script has made of some of the processes are destroyed, but not waited for.
    """
    from torch import distributed

    if not distributed.is_initialized() or distributed.get_backend() != "gloo":
        return
    group: Any = distributed.group.WORLD
    distributed.destroy_process_group()
    _release_models()
    _release_defaults(group)
    gc.collect()
    elsewhere = weakref.ref(group)
    owner = [group]
    del group
    _dropper().drop(owner)
    if elsewhere() is not None:
        # A variable of the script or a mesh owns it, too, and the threads live on: a moment
        # without the interpreter's lock is what they need to let go of their tensors.
        time.sleep(_GRACE_S)


class _Dropper:
    """A thread that drops the last owner of a group, which waits for the group's threads.

    They may be in an exchange that the others have left, and then the wait has no end: it must
    be neither that of the main thread nor that of a thread that Python waits for.
    """

    def __init__(self) -> None:
        self._owners: SimpleQueue[list[object]] = SimpleQueue()
        self._thread = threading.Thread(target=lambda: self._owners.get().clear(), daemon=True)
        self._thread.start()

    def drop(self, owner: list[object]) -> None:
        """Empty `owner` in the thread, and wait for it for a while."""
        self._owners.put(owner)
        self._thread.join(_PATIENCE_S)


_dropper = functools.cache(_Dropper)


def _release_models() -> None:
    """Take the group from the models around which ``DistributedDataParallel`` is."""
    from torch.nn.parallel import DistributedDataParallel

    kinds: list[type] = [DistributedDataParallel]
    for kind in kinds:
        kinds += kind.__subclasses__()
    # By id, for isinstance, == and hash may run any code of the objects and classes found.
    ids = {id(kind) for kind in kinds}
    for found in gc.get_objects():
        if id(type(found)) in ids:
            for name in ("process_group", "reducer", "logger"):
                vars(found).pop(name, None)


def _release_defaults(group: object) -> None:
    """Take the group from functions that have it as a default; ``None`` means the same group.

    The module is imported by the first optimizer step, and by then the group is there.
    """
    functional = sys.modules.get("torch.distributed.nn.functional")
    for function in vars(functional).values() if functional else ():
        if isinstance(function, FunctionType) and function.__defaults__:
            defaults = (None if value is group else value for value in function.__defaults__)
            function.__defaults__ = tuple(defaults)
