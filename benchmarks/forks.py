"""Calls a function in processes of its own, so that no measurement can disturb the next.

Each process is a fork of this one, which has imported torch and nothing else of weight, and
writes to a pseudo-terminal of 120x40. Several processes find the environment that ``torchrun``
gives them.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("TERM", "xterm")

import contextlib
import fcntl
import json
import pty
import signal
import socket
import struct
import sys
import termios
import threading
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import torch

LIMIT_S = 400


def call(function: Callable[..., Any], *args: Any, cores: Sequence[int | None] = (None,)) -> Any:
    """Call a function in a process for each core, and give what it returns in the first one.

    Args:
        function: what it returns must be JSON.
        args: its arguments.
        cores: of each process; ``None``: any core.

    Raises:
        RuntimeError: a process failed, or was not done after ``LIMIT_S`` seconds.
    """
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    read_end, write_end = os.pipe()
    launched = _launched(len(cores)) if len(cores) > 1 else {}
    sys.stdout.flush()
    pids = []
    for rank, core in enumerate(cores):
        pid = os.fork()
        if not pid:
            os.close(read_end)
            os.environ.update(launched)
            if launched:
                os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank))
            _in_child(function, args, core, slave, write_end if rank == 0 else None)
        pids.append(pid)
    os.close(slave)
    os.close(write_end)
    shown = bytearray()
    drain = threading.Thread(target=_drain, args=(master, shown), daemon=True)
    drain.start()
    limit = threading.Timer(LIMIT_S, _kill, (pids,))
    limit.start()
    try:
        with os.fdopen(read_end, "rb") as answers:
            answer = answers.read()
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    except BaseException:
        _kill(pids)
        raise
    finally:
        limit.cancel()
    drain.join(5)
    os.close(master)
    if not answer or any(codes):
        raise RuntimeError(f"exit codes {codes}:\n{shown.decode(errors='replace')}")
    return json.loads(answer)


def _launched(number: int) -> dict[str, str]:
    """What ``torchrun`` sets for all processes alike."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return {
        "WORLD_SIZE": str(number),
        "LOCAL_WORLD_SIZE": str(number),
        "GROUP_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "benchmark",
    }


def _in_child(
    function: Callable[..., Any], args: Any, core: int | None, terminal: int, answer: int | None
) -> None:
    status = 1
    try:
        os.setsid()
        for stream in (0, 1, 2):
            os.dup2(terminal, stream)
        if core is not None:
            os.sched_setaffinity(0, {core})
        torch.set_num_threads(1)
        result = function(*args)
        sys.stdout.flush()
        if answer is not None:
            with os.fdopen(answer, "wb") as pipe:
                pipe.write(json.dumps(result).encode())
        status = 0
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(status)


def _drain(master: int, shown: bytearray) -> None:
    try:
        while chunk := os.read(master, 65536):
            shown += chunk
    except OSError:
        pass


def _kill(pids: list[int]) -> None:
    for pid in pids:
        # With the workers that it has started: each is the head of a session.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
