"""Leave gloo's process group at the end of a program, and wait for its threads.

A thread of gloo frees the tensors of its last exchange a moment after the exchange. If Python
has ended by then, it aborts the process: a run that was complete ends with an error
(pytorch/pytorch#179291, #190489). ``destroy_process_group`` does not end the threads. They end
with the last owner of the group, and models and functions of torch own it, too.

A fork has the groups of its parent without their threads. Forks of all processes leave these
groups as they are, and join in a new one.
"""

from __future__ import annotations

import atexit
import functools
import gc
import os
import sys
import threading
import time
import weakref
from queue import SimpleQueue
from types import FunctionType
from typing import Any

from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from .exchange import Exchange

_PATIENCE_S = 2.0
_GRACE_S = 0.5
_MODELS: weakref.WeakSet[DistributedDataParallel] = weakref.WeakSet()
_EXCHANGES: weakref.WeakSet[Exchange] = weakref.WeakSet()
_OWNERS: SimpleQueue[list[object]] = SimpleQueue()


def leave_gloo_at_exit(exchange: Exchange) -> None:
    """Leave the groups at the end of the program, before what was registered earlier."""
    _EXCHANGES.add(exchange)
    _dropper()
    atexit.unregister(_leave)
    atexit.register(_leave, os.getpid())


def join_forks(store: Any, rank: int, num_processes: int) -> None:
    """Join forks of all processes in a new group, in place of that of their parents.

    What is given by ``release_at_exit`` has no group then, until it is joined again.
    """
    of_torch: Any = distributed.distributed_c10d
    world = of_torch._world
    # To destroy one waits for its threads, which are not in the fork: the wait would not end.
    _OF_PARENTS.extend([*_EXCHANGES, *world.pg_map, *world.pg_map.values(), _released()])
    of_torch._update_default_pg(None)
    for name in _TABLES:
        getattr(world, name).clear()
    world.group_count = 0
    of_torch._unregister_all_process_groups()
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=num_processes)


def rejoin(model: nn.Module) -> None:
    """Have a ``DistributedDataParallel`` in a model use the new group; its weights stay."""
    for module in model.modules():
        if isinstance(module, DistributedDataParallel):
            of_torch: Any = module
            of_torch.__setstate__(dict(module.__dict__))


def _released() -> Any:
    """Take the present group of all processes from models and functions."""
    group = distributed.group.WORLD
    _release_world(group)
    return group


_OF_PARENTS: list[Any] = []
_TABLES = (
    *("pg_map", "pg_names", "pg_group_ranks", "pg_backend_config", "pg_to_tag", "tags_to_pg"),
    "pg_coalesce_state",
)


def release_at_exit(model: nn.Module) -> None:
    """Take the group from the ``DistributedDataParallel`` in a model when it is left."""
    _MODELS.update(m for m in model.modules() if isinstance(m, DistributedDataParallel))


@functools.cache
def _dropper() -> threading.Thread:
    """Start the thread that drops the last owner, which waits for the group's threads.

    Those may be in an exchange that the other processes have left, and then the wait has no end,
    so it must not be in a thread that Python waits for. Python 3.12 starts no thread at its end.
    """
    thread = threading.Thread(target=lambda: _OWNERS.get().clear(), daemon=True)
    thread.start()
    return thread


def _leave(pid: int) -> None:
    """Destroy gloo's groups, and end the threads of the group of all processes.

    NCCL's group stays: all processes would have to leave it together. Groups that the script has
    made of some of the processes are destroyed without a wait.
    """
    if os.getpid() != pid or not distributed.is_initialized():  # a fork has copies of all this
        return
    for exchange in _EXCHANGES:
        exchange.end()
    if distributed.get_backend() != "gloo":
        return
    world: Any = distributed.group.WORLD
    distributed.destroy_process_group()
    _release_world(world)
    gc.collect()
    left = weakref.ref(world)
    _OWNERS.put([world])
    del world
    _dropper().join(_PATIENCE_S)
    if left() is not None:
        # A variable of the script or a mesh owns it, too, and the threads live on. Without the
        # interpreter's lock for a moment they can free their tensors.
        time.sleep(_GRACE_S)


def _release_world(group: Any) -> None:
    """Take the group of all processes from models and functions."""
    for model in _MODELS:
        for name in ("process_group", "reducer", "logger"):
            if hasattr(model, name):
                delattr(model, name)
    # Functions of this module have the group as a default if it was imported after the group was
    # made, as the first optimizer step does; None means the same group.
    functional = sys.modules.get("torch.distributed.nn.functional")
    for function in vars(functional).values() if functional else ():
        if isinstance(function, FunctionType) and function.__defaults__:
            defaults = (None if value is group else value for value in function.__defaults__)
            function.__defaults__ = tuple(defaults)
