"""``torchrun`` whose processes are forks of servers: ``WARM_PYTHONS`` names them, rank by rank."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, TextIO

sys.path.insert(0, str(Path(__file__).parents[2]))
import warm_python
from torch.distributed.elastic.multiprocessing.subprocess_handler import subprocess_handler
from torch.distributed.run import main

servers = os.environ["WARM_PYTHONS"].split()


def fork(
    args: tuple[str, ...], env: dict[str, str], stdout: TextIO, stderr: TextIO, **_: Any
) -> warm_python.Started:
    """Stand in for ``subprocess.Popen``."""
    assert args[0] == sys.executable
    server = servers[int(env["RANK"]) % len(servers)]
    return warm_python.start(
        server, args[1:], env=env, stdout=stdout.fileno(), stderr=stderr.fileno()
    )


subprocess_handler.Popen = fork
main()
