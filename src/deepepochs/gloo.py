"""Leave gloo's process group at the end of a program, and wait for its threads.

A thread of gloo lets go of the tensors of its last exchange a moment after the exchange is
over. If Python is gone by then, it aborts the process: a run that has done all its work ends
with an error (pytorch/pytorch#179291, #190489). To destroy the group is not enough, for the
threads end with its last owner, and models and functions of torch own it, too.

>>> from deepepochs.gloo import leave_gloo
>>> leave_gloo()  # in a single process there is no group: nothing is done
"""

from __future__ import annotations

import gc
import sys
import threading
import time
import weakref
from types import FunctionType

__all__ = ["leave_gloo"]

_PATIENCE_S = 2.0
_GRACE_S = 0.5


def leave_gloo() -> None:
    """Destroy gloo's process group and end its threads, while Python is still whole.

    NCCL's group is left alone: to leave it is a matter for all processes together.
    """
    from torch import distributed

    if not distributed.is_initialized() or distributed.get_backend() != "gloo":
        return
    group = distributed.group.WORLD
    distributed.destroy_process_group()
    _release_models()
    _release_defaults(group)
    gc.collect()
    # The last owner should be this one: it gives the interpreter's lock away while it waits
    # for the threads. They may be in an exchange that the others have left, hence the patience.
    elsewhere = weakref.ref(group)
    owner = [group]
    del group
    waiting = threading.Thread(target=owner.clear, daemon=True)
    waiting.start()
    waiting.join(_PATIENCE_S)
    if elsewhere() is not None:
        # A variable of the script or a mesh owns it, too, and the threads live on: a moment
        # without that lock is what they need to let go of their tensors.
        time.sleep(_GRACE_S)


def _release_models() -> None:
    """Take the group from the models around which ``DistributedDataParallel`` is."""
    from torch.nn.parallel import DistributedDataParallel

    for found in gc.get_objects():
        # Not isinstance, which asks an object for its class and may run any code.
        if issubclass(type(found), DistributedDataParallel):
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
