"""Start a script in one or several real processes, with a time limit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

SCRIPTS = Path(__file__).parent / "scripts"
SRC = Path(__file__).parents[2] / "src"
LIMIT_S = 240


class Ended(NamedTuple):
    """How a launch ended."""

    code: int
    out: str
    err: str


def launch(
    script: str | Path,
    num_processes: int,
    *arguments: object,
    limit_s: float = LIMIT_S,
    launcher: str = "torchrun",
    cwd: Path | None = None,
) -> Ended:
    """Run a script of this folder; more time than ``limit_s`` is a failure.

    Args:
        script: file name in ``scripts``, or a path.
        num_processes: 0: without a launcher.
        arguments: of the script.
        limit_s: time limit.
        launcher: ``'torchrun'`` or ``'accelerate'``.
        cwd: working folder.
    """
    path = script if isinstance(script, Path) else SCRIPTS / script
    command = [sys.executable]
    if num_processes and launcher == "torchrun":
        # Standalone picks a free port by itself.
        command += ["-m", "torch.distributed.run", "--standalone"]
        command += [f"--nproc_per_node={num_processes}"]
    elif num_processes:
        command += ["-m", "accelerate.commands.launch", "--cpu", "--num_machines=1"]
        command += [f"--num_processes={num_processes}"]
        command += ["--mixed_precision=no", "--dynamo_backend=no"]
    command += [str(path), *(str(argument) for argument in arguments)]
    dropped = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    env = {name: value for name, value in os.environ.items() if name not in dropped}
    env.update(OMP_NUM_THREADS="1", PYTHONPATH=str(SRC), CUDA_VISIBLE_DEVICES="")
    started = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
        cwd=cwd,
        start_new_session=True,
    )
    try:
        out, err = started.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        os.killpg(started.pid, signal.SIGKILL)
        out, err = started.communicate()
        raise AssertionError(
            f"{path.name} {arguments} hung in {num_processes} processes:\n{out[-2000:]}\n{err[-4000:]}"
        ) from None
    return Ended(started.returncode, out, err)


def results(script: str, num_processes: int, folder: Path, *arguments: object) -> dict[str, Any]:
    """Run a script that writes ``result-<n>.json`` into ``folder``, and read that."""
    file = folder / f"result-{num_processes}.json"
    ended = launch(script, num_processes, file, *arguments)
    assert ended.code == 0, ended.err[-4000:]
    found: dict[str, Any] = json.loads(file.read_text())
    return found
